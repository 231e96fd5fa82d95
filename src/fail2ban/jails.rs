//! fail2ban's jails as it would start them: what `fail2ban-client -d` prints of its configuration, which it reads itself, with all
//! its includes and interpolations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};

use super::python::{self, Value};
use crate::evidence::visible_within;
use crate::programs;

/// What fail2ban is told at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The enabled jails, in order.
    pub jails: Vec<Jail>,
    /// `dbfile`: where it remembers, `:memory:`, or `None` for nowhere.
    pub database: String,
    /// `dbpurgeage`: for how many seconds; `None` where that is not understood.
    pub remembers: Option<i64>,
}

/// An enabled jail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Jail {
    /// Its section.
    pub name: String,
    /// Where it reads: `systemd` is the journal, all others are files.
    pub backend: String,
    /// What counts as a failure.
    pub filter: Filter,
    /// Empty where there is none.
    pub ignorecommand: String,
    /// Empty where there is none.
    pub ignorecache: String,
    /// So many failures are a ban.
    pub maxretry: i64,
    /// So long a failure counts, in seconds; `None` where that is not understood.
    pub findtime: Option<i64>,
    /// So long a ban lasts at most, in seconds, -1 for ever; `None` where that is not understood.
    pub bantime: Option<i64>,
    /// Whether each ban of the same address is longer than the one before.
    pub grows: bool,
    /// The files that were there.
    pub logs: Vec<PathBuf>,
    /// What it reads of the journal, each as `journalctl` takes it; none: all of it.
    pub journal: Vec<Vec<String>>,
    /// What it does.
    pub actions: Vec<Action>,
}

/// What a jail does with whom it bans.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// Its name.
    pub name: String,
    /// `actionban`.
    pub ban: String,
    /// On which ports; empty where it does not say.
    pub ports: String,
}

/// A filter with all its includes and options put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// `prefregex`.
    pub prefix: Option<String>,
    /// The expressions of failures.
    pub fail: Vec<String>,
    /// What counts as none nevertheless.
    pub ignore: Vec<String>,
    /// How its dates are written.
    pub date: Option<String>,
    /// So many lines may be one failure.
    pub lines: Option<i64>,
}

impl Jail {
    /// Whether it reads files.
    #[must_use]
    pub fn reads_files(&self) -> bool {
        self.backend != "systemd"
    }

    /// Whether one of its actions has this in what it does.
    #[must_use]
    pub fn acts_with(&self, program: &str) -> bool {
        self.actions.iter().any(|action| action.ban.contains(program))
    }

    /// Whether the id of a ban is some text of a client's.
    #[must_use]
    pub fn bans_text(&self) -> bool {
        self.filter.fail.iter().any(|regex| regex.contains("<F-ID>"))
    }
}

impl Filter {
    /// As a file of filter.d.
    #[must_use]
    pub fn to_conf(&self) -> String {
        let escaped = |text: &str| text.replace('%', "%%").replace('\n', "\n            ");
        let several = |all: &[String]| {
            all.iter().map(|regex| escaped(regex)).collect::<Vec<_>>().join("\n            ")
        };
        let mut conf = String::from("[Definition]\n");
        let mut put = |key: &str, value: String| conf = format!("{conf}{key} = {value}\n");
        if let Some(prefix) = &self.prefix {
            put("prefregex", escaped(prefix));
        }
        put("failregex", several(&self.fail));
        put("ignoreregex", several(&self.ignore));
        if let Some(date) = &self.date {
            put("datepattern", escaped(date));
        }
        if let Some(lines) = self.lines {
            put("maxlines", lines.to_string());
        }
        conf
    }

    /// All its expressions in one text, without their backslashes.
    #[must_use]
    pub fn plain(&self) -> String {
        let all = self.prefix.iter().chain(&self.fail);
        all.map(|regex| regex.replace('\\', "")).collect::<Vec<_>>().join("\n")
    }
}

/// The enabled jails by the configuration in `dir`, in order. An error is what fail2ban says of it.
pub fn read(dir: &Path, time: Duration) -> anyhow::Result<Vec<Jail>> {
    configuration(dir, time).map(|configuration| configuration.jails)
}

/// The configuration in `dir`. An error is what fail2ban says of it.
pub fn configuration(dir: &Path, time: Duration) -> anyhow::Result<Configuration> {
    let dir = dir.to_str().context("the directory's name is not UTF-8")?;
    let output = programs::output("fail2ban", "fail2ban-client", &["-c", dir, "-d"], "", time)?;
    if !output.status.success() {
        bail!("{}", complaints(&output.stderr));
    }
    parse(&output.stdout)
}

/// What fail2ban complains of, without the time and its own parts.
fn complaints(stderr: &str) -> String {
    let said: Vec<_> = stderr
        .lines()
        .filter(|line| line.contains("ERROR"))
        .map(|line| line.rsplit_once("ERROR").map_or(line, |(_, said)| said).trim())
        .collect();
    let said = if said.is_empty() { stderr.trim().to_owned() } else { said.join("; ") };
    visible_within(&said.replace('\n', "; "), 300)
}

/// fail2ban's spans: seconds, or numbers with units (`1w`, `1d 12h`); -1 is for ever.
#[must_use]
pub fn seconds(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let (mut rest, mut sum) = (text, 0i64);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: i64 = rest[..end].parse().ok()?;
        let unit = rest[end..].trim_start();
        let end = unit.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(unit.len());
        let times = match &unit[..end] {
            "s" | "sec" | "second" | "seconds" => 1,
            "m" | "mi" | "min" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3_600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 7 * 86_400,
            // As fail2ban counts them.
            "mo" | "mon" | "month" | "months" => 2_629_800,
            "y" | "year" | "years" => 31_557_600,
            _ => return None,
        };
        sum = sum.checked_add(number.checked_mul(times)?)?;
        rest = unit[end..].trim_start();
    }
    (!text.is_empty()).then_some(sum)
}

fn parse(dump: &str) -> anyhow::Result<Configuration> {
    let mut configuration = Configuration::default();
    let jails = &mut configuration.jails;
    for line in dump.lines().filter(|line| line.starts_with('[')) {
        let line = python::parse(line).with_context(|| {
            format!("fail2ban-client -d prints what is not understood: {}", visible_within(line, 100))
        })?;
        let words = line.items();
        let text = |at: usize| words.get(at).map(Value::text).unwrap_or_default();
        if text(0) == "set" && words.len() == 3 {
            match text(1).as_str() {
                "dbfile" => configuration.database = text(2),
                "dbpurgeage" => configuration.remembers = seconds(&text(2)),
                _ => {}
            }
        } else if text(0) == "add" {
            jails.push(Jail { name: text(1), backend: text(2), ..Jail::default() });
        } else if let Some(jail) = jails.iter_mut().find(|jail| jail.name == text(1)) {
            let values = words.get(3..).unwrap_or_default();
            if matches!(text(0).as_str(), "set" | "multi-set") {
                jail.take(&text(2), values);
            }
        }
    }
    jails.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(configuration)
}

impl Jail {
    fn take(&mut self, key: &str, values: &[Value]) {
        let first = values.first().map(Value::text).unwrap_or_default();
        // One, or a list of them.
        let all = || {
            values.iter().flat_map(|value| match value {
                Value::List(all) => all.iter().map(Value::text).collect(),
                value => vec![value.text()],
            })
        };
        match key {
            "ignorecommand" => self.ignorecommand = first,
            "ignorecache" => self.ignorecache = first,
            "maxretry" => self.maxretry = first.parse().unwrap_or_default(),
            "prefregex" => self.filter.prefix = Some(first),
            "addfailregex" => self.filter.fail.extend(all()),
            "addignoreregex" => self.filter.ignore.extend(all()),
            "datepattern" => self.filter.date = Some(first),
            "maxlines" => self.filter.lines = first.parse().ok(),
            "addlogpath" => self.logs.push(first.into()),
            "addjournalmatch" => self.journal.push(values.iter().map(Value::text).collect()),
            "findtime" => self.findtime = seconds(&first),
            "bantime" => self.bantime = seconds(&first),
            "bantime.increment" => self.grows = first.eq_ignore_ascii_case("true"),
            // It comes behind that, and one without end is no shorter.
            "bantime.maxtime" if self.grows && self.bantime != Some(-1) => {
                self.bantime = seconds(&first).max(self.bantime);
            }
            "action" => {
                let options = values.get(1).map(Value::items).unwrap_or_default();
                let option = |key: &str| {
                    let pair = options
                        .iter()
                        .map(Value::items)
                        .find(|pair| pair.first().is_some_and(|name| name.text() == key));
                    pair.and_then(|pair| pair.get(1)).map(Value::text).unwrap_or_default()
                };
                self.actions.push(Action { name: first, ban: option("actionban"), ports: option("port") });
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = r#"['set', 'syslogsocket', 'auto']
['set', 'dbfile', 'None']
['set', 'dbpurgeage', '1d 12h']
['add', 'sip', 'auto']
['set', 'sip', 'prefregex', '^\\d 50% <F-CONTENT>.+</F-CONTENT>$']
['multi-set', 'sip', 'addfailregex', ["^it's <HOST>$", '^"x" <ADDR>$']]
['set', 'sip', 'addfailregex', '^y <F-ID>\\S+</F-ID>$']
['set', 'sip', 'datepattern', '^a\n{^LN-BEG}']
['set', 'sip', 'maxlines', 6]
['set', 'sip', 'maxretry', 10]
['set', 'sip', 'ignoreself', False]
['set', 'sip', 'addignoreip']
['set', 'sip', 'ignorecommand', 'exec /usr/bin/ringfence-ignore "<ip>"']
['set', 'sip', 'addlogpath', '/var/log/x.log', 'head']
['set', 'sip', 'addaction', 'a']
['multi-set', 'sip', 'action', 'a', [['actionban', 'b "<ip>"'], ['norestored', True], ['port', '5060']]]
['add', 'other', 'systemd']
['set', 'other', 'addjournalmatch', '_SYSTEMD_UNIT=x.service', '+', '_COMM=x']
['set', 'other', 'findtime', '10m']
['set', 'other', 'bantime', '1w']
['set', 'other', 'bantime.increment', True]
['set', 'other', 'bantime.maxtime', '5w']
['start', 'sip']
"#;

    #[test]
    fn reads_what_fail2ban_prints() {
        let Configuration { jails, database, remembers } = parse(DUMP).unwrap();
        assert_eq!((database.as_str(), remembers), ("None", Some(129_600)));
        assert_eq!((jails[0].bantime, jails[0].findtime), (Some(5 * 7 * 86_400), Some(600)));
        assert_eq!(jails[0].journal, [["_SYSTEMD_UNIT=x.service", "+", "_COMM=x"]]);
        assert_eq!(jails.iter().map(|jail| jail.name.as_str()).collect::<Vec<_>>(), ["other", "sip"]);
        let sip = &jails[1];
        assert!(sip.reads_files() && !jails[0].reads_files() && sip.bans_text());
        assert_eq!(sip.ignorecommand, "exec /usr/bin/ringfence-ignore \"<ip>\"");
        assert_eq!((sip.maxretry, &sip.logs), (10, &vec!["/var/log/x.log".into()]));
        let action = Action { name: "a".into(), ban: "b \"<ip>\"".into(), ports: "5060".into() };
        assert_eq!(sip.actions, [action]);
        assert_eq!(
            sip.filter.to_conf(),
            "[Definition]\nprefregex = ^\\d 50%% <F-CONTENT>.+</F-CONTENT>$\nfailregex = ^it's <HOST>$\n            \
             ^\"x\" <ADDR>$\n            ^y <F-ID>\\S+</F-ID>$\nignoreregex = \ndatepattern = ^a\n            {^LN-BEG}\n\
             maxlines = 6\n"
        );
        assert!(parse("['add', 'x").is_err());
    }

    #[test]
    fn spans_as_fail2ban_writes_them() {
        for (text, expected) in [
            ("600", Some(600)),
            ("-1", Some(-1)),
            ("10m", Some(600)),
            ("1d 12h", Some(129_600)),
            ("1h30m", Some(5_400)),
            ("2 weeks", Some(1_209_600)),
            ("1mo", Some(2_629_800)),
            ("", None),
            ("soon", None),
            ("5x", None),
            ("9999999999999y", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn complaints_are_short() {
        let said = "2026-11-20 12:00:00,826 fail2ban.x [1]: WARNING x\n\
                    2026-11-20 12:00:00,826 fail2ban   [1]: ERROR   Failed: no file\n";
        assert_eq!(complaints(said), "Failed: no file");
        assert_eq!(complaints("Traceback\nx"), "Traceback; x");
    }
}
