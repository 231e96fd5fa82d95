//! The jails that fail2ban runs, as its server has them now.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use super::is_jail;
use crate::programs;

/// What `fail2ban-client -i` writes before each answer.
const PROMPT: &str = "fail2ban> ";

/// A jail, and what it does with failures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Running {
    /// Its name.
    pub name: String,
    /// What matches a failure, as Python reads it; fail2ban's tags are written out.
    pub fail_regexes: Vec<String>,
    /// The files that it reads; none where it reads the journal.
    pub logs: Vec<String>,
    /// What says whom to leave alone; empty if nothing does.
    pub ignore_command: String,
    /// Whom it leaves alone, as its settings name them: addresses, networks and names of hosts.
    pub ignored: Vec<String>,
    /// Whether it leaves this host's own addresses alone.
    pub ignores_self: bool,
    /// So many failures are a ban.
    pub max_retry: u32,
    /// Within so many seconds.
    pub find_time: i64,
    /// For so many seconds; negative: for good.
    pub ban_time: i64,
}

/// The jails that fail2ban runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Jails {
    /// Those that could be asked for.
    pub known: Vec<Running>,
    /// The names of others: `fail2ban-client` would not take them for names.
    pub unknown: Vec<String>,
}

/// What is asked of each jail, in this order.
const QUESTIONS: [&str; 8] =
    ["failregex", "logpath", "ignorecommand", "ignoreip", "ignoreself", "maxretry", "findtime", "bantime"];

/// The jails that run; `None` where fail2ban does not. An error says that it does not answer within `time`, twice.
///
/// Never from one of its actions: it answers nobody while one of them runs.
pub fn running(socket: &Path, time: Duration) -> anyhow::Result<Option<Jails>> {
    if let Err(error) = UnixStream::connect(socket)
        && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
    {
        return Ok(None);
    }
    let status = ask(socket, &["status".to_owned()], time)?;
    let list = status.first().and_then(|text| text.lines().find_map(|line| line.split_once("Jail list:")));
    let names: Vec<&str> = list.map_or(vec![], |(_, names)| names.split(',').map(str::trim).collect());
    let (names, unknown): (Vec<&str>, Vec<&str>) =
        names.into_iter().filter(|name| is_jail(name)).partition(|name| is_plain(name));
    let unknown = unknown.into_iter().map(str::to_owned).collect();
    let questions: Vec<String> =
        names.iter().flat_map(|name| QUESTIONS.map(|question| format!("get {name} {question}"))).collect();
    if questions.is_empty() {
        return Ok(Some(Jails { known: vec![], unknown }));
    }
    let answers = ask(socket, &questions, time)?;
    let known = names.iter().zip(answers.chunks(QUESTIONS.len()));
    Ok(Some(Jails { known: known.map(|(name, answers)| jail(name, answers)).collect(), unknown }))
}

/// Whether `fail2ban-client` reads it as it is: it takes questions apart as a shell does.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// One process for all questions.
fn ask(socket: &Path, questions: &[String], time: Duration) -> anyhow::Result<Vec<String>> {
    let socket = socket.to_str().context("the path of fail2ban's socket is no text")?;
    let input = questions.join("\n") + "\nquit\n";
    let said = programs::run("fail2ban", "fail2ban-client", &["-s", socket, "-i"], &input, time)?;
    let answers = answers(&said);
    if answers.len() < questions.len() {
        bail!("fail2ban-client answered {} of {} questions", answers.len(), questions.len());
    }
    Ok(answers)
}

/// What stands behind each prompt; only at the start of a line it is one.
fn answers(said: &str) -> Vec<String> {
    let said = format!("\n{said}");
    said.split(&format!("\n{PROMPT}")).skip(1).map(|answer| answer.trim().to_owned()).collect()
}

fn jail(name: &str, answers: &[String]) -> Running {
    let [regexes, logs, command, ignored, own, retry, find, ban] = answers else { return Running::default() };
    let seconds = |text: &str| text.parse::<f64>().map_or(0, whole);
    Running {
        name: name.to_owned(),
        fail_regexes: items(regexes),
        logs: items(logs),
        ignore_command: command.clone(),
        ignored: items(ignored),
        ignores_self: own == "True",
        max_retry: retry.parse().unwrap_or_default(),
        find_time: seconds(find),
        ban_time: seconds(ban),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "no time of fail2ban's is that long")]
fn whole(seconds: f64) -> i64 {
    seconds as i64
}

/// The items of a list, as `fail2ban-client` prints it for people: `|- [0]: x`, `` `- x ``.
fn items(text: &str) -> Vec<String> {
    let item = |line: &str| {
        let rest = line.strip_prefix("|- ").or_else(|| line.strip_prefix("`- "))?;
        let numbered = rest.strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        let bare = numbered.filter(|(number, _)| number.bytes().all(|byte| byte.is_ascii_digit()));
        Some(bare.map_or(rest, |(_, item)| item).to_owned())
    };
    text.lines().filter_map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_may_have_the_prompt_in_them() {
        let said = "Fail2Ban v1.0.2 reads log file\nfail2ban> one\n|- fail2ban> x\nfail2ban> \nfail2ban> 3\nfail2ban> ";
        assert_eq!(answers(said), ["one\n|- fail2ban> x", "", "3", ""]);
        assert_eq!(answers("fail2ban> 1\n"), ["1"]);
    }

    #[test]
    fn only_plain_names_are_asked_for() {
        for (name, plain) in [
            ("ringfence-events", true),
            ("a_b.C9", true),
            ("it's", false),
            ("a b", false),
            ("a\\b", false),
            ("\"a\"", false),
        ] {
            assert_eq!(is_plain(name), plain, "{name}");
        }
    }

    #[test]
    fn reads_what_is_printed_for_people() {
        let answers = [
            "The following regular expression are defined:\n|- [0]: ^a [1]: b$\n`- [1]: c",
            "Current monitored log file(s):\n|- /var/log/a\n`- /var/log/b",
            "/usr/bin/ringfence-ignore \"<ip>\"",
            "These IP addresses/networks are ignored:\n|- 127.0.0.0/8\n`- ::1",
            "True",
            "10",
            "600",
            "-1",
        ];
        let found = jail("sip", &answers.map(str::to_owned));
        assert_eq!(found.fail_regexes, ["^a [1]: b$", "c"]);
        assert_eq!(found.logs, ["/var/log/a", "/var/log/b"]);
        assert_eq!(
            (found.ignored, found.ignores_self),
            (vec!["127.0.0.0/8".to_owned(), "::1".to_owned()], true)
        );
        assert_eq!((found.max_retry, found.find_time, found.ban_time), (10, 600, -1));
        assert_eq!(found.ignore_command, "/usr/bin/ringfence-ignore \"<ip>\"");
        let none = [
            "No failregex",
            "No file is currently monitored",
            "",
            "No IP address/network is ignored",
            "False",
            "5",
            "3600.5",
            "1",
        ];
        let found = jail("sip", &none.map(str::to_owned));
        assert_eq!((found.fail_regexes, found.logs, found.ignored), (vec![], vec![], vec![]));
        assert_eq!((found.ignore_command.as_str(), found.ignores_self, found.find_time), ("", false, 3600));
    }
}
