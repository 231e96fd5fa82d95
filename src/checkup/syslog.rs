//! What lies between a program and the log that a jail reads: rsyslog may write late, and drop lines; so may journald, where rsyslog
//! hears it.

use std::path::{Path, PathBuf};

use super::Subject::Syslog;
use super::{Finding, Root, journal, or_unreadable, text};
use crate::fail2ban::jails::Jail;

const CONF: &str = "/etc/rsyslog.conf";
const MORE: &str = "/etc/rsyslog.d";

/// Whether what jails read comes at once, and whole, by the settings of rsyslog. Nothing where no jail reads a log that it writes.
#[must_use]
pub fn rsyslog(root: &Root, jails: &[Jail]) -> Vec<Finding> {
    let found = || {
        let mut files = vec![root.at(CONF)];
        files.extend(root.files(&[MORE], ".conf")?);
        let mut lines: Vec<(PathBuf, String)> = vec![];
        for file in files {
            let text = text(&file)?.unwrap_or_default();
            lines.extend(statements(&text).into_iter().map(|line| (file.clone(), line)));
        }
        let written = |log: &Path| {
            lines.iter().any(|(_, line)| target(line).is_some_and(|path| log == Path::new(path)))
        };
        let concerned: Vec<_> =
            jails.iter().filter(|jail| jail.logs.iter().any(|log| written(log))).collect();
        let mut findings: Vec<Finding> = vec![];
        // A `-` ahead of a file only omits the sync: who reads it sees the line at once.
        if !concerned.is_empty() {
            findings.extend(lines.iter().filter_map(|(file, line)| {
                fault(line).map(|(what, remedy)| {
                    let what = format!("{} has `{line}`: {what}.", file.display());
                    Finding::needs(
                        Syslog,
                        "drops",
                        what,
                        format!("{remedy}, then: systemctl restart rsyslog"),
                    )
                })
            }));
            if lines.iter().any(|(_, line)| is_of_journal(&line.to_ascii_lowercase())) {
                findings.extend(journal::limits(root, &concerned));
            }
            if findings.is_empty() {
                findings.push(Finding::fine(
                    Syslog,
                    "rsyslog",
                    "rsyslog writes what jails read at once, and whole",
                ));
            }
        }
        Ok(findings)
    };
    or_unreadable(Syslog, "rsyslog", &root.at(CONF), found())
}

/// Its statements, without comments: one may have several lines, in parentheses.
fn statements(text: &str) -> Vec<String> {
    let (mut statements, mut open) = (vec![String::new()], 0);
    for line in text.lines() {
        let mut quoted = false;
        let mut plain = String::new();
        let mut last = ' ';
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                '#' if !quoted && last.is_whitespace() => break,
                '(' if !quoted => open += 1,
                ')' if !quoted => open -= 1,
                _ => {}
            }
            plain.push(c);
            last = c;
        }
        let plain = plain.trim();
        if let Some(statement) = statements.last_mut()
            && !plain.is_empty()
        {
            let space = if statement.is_empty() { "" } else { " " };
            *statement += &[space, plain].concat();
        }
        if open <= 0 {
            open = 0;
            statements.push(String::new());
        }
    }
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// Whether it hears journald, rather than all programs themselves.
fn is_of_journal(line: &str) -> bool {
    let line = line.replace(' ', "");
    line.contains("load=\"imjournal\"") || line.contains("$modloadimjournal")
}

/// The file that a rule of rsyslog writes to: the last word of the line, or `file="..."`.
fn target(line: &str) -> Option<&str> {
    if let Some((_, rest)) = line.split_once("file=\"") {
        return rest.split('"').next();
    }
    let path = line.split_whitespace().nth(1)?.trim_start_matches('-');
    path.split(';').next().filter(|path| path.starts_with('/'))
}

/// What a setting does to every log, and what to do about it.
fn fault(line: &str) -> Option<(&'static str, &'static str)> {
    let line = line.to_ascii_lowercase().replace(' ', "");
    let number = |key: &str| {
        let (_, rest) = line.split_once(key)?;
        let digits: String =
            rest.trim_start_matches(['=', '"', '\t']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse::<u32>().ok()
    };
    let limited = ["$systemlogratelimitinterval", "syssock.ratelimit.interval"]
        .iter()
        .any(|key| number(key).is_some_and(|n| n > 0));
    if limited {
        return Some((
            "under attack, lines of one program are dropped above its limit, and fail2ban does not see them",
            "Set it to 0",
        ));
    }
    // By itself it takes 20000 lines in ten minutes, of all programs together.
    if is_of_journal(&line) && number("ratelimit.interval") != Some(0) && !line.starts_with('$') {
        return Some((
            "it takes no more than 20000 lines in 10 minutes (imjournal's own limit, or the one set there), and fail2ban does not see the \
             rest",
            "Give it Ratelimit.Interval=\"0\"",
        ));
    }
    if number("$imjournalratelimitinterval").is_some_and(|seconds| seconds > 0) {
        return Some((
            "under attack, lines are dropped above that limit, and fail2ban does not see them",
            "Set it to 0",
        ));
    }
    let late =
        ["$omfileasyncwritingon", "asyncwriting=\"on\"", "$omfileflushontxendoff", "flushontxend=\"off\""];
    late.iter()
        .any(|setting| line.contains(setting))
        .then_some(("lines come into the log late, and so do bans", "Take it away"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::host;

    /// As Fedora and its kin have it.
    const IMJOURNAL: &str = "module(load=\"imuxsock\" \t # local messages (see below\n       SysSock.Use=\"off\") # not these\n\
                             module(load=\"imjournal\"  # the journal\n  UsePid=\"system\" # PID\n  StateFile=\"imjournal.state\")";

    const UNLIMITED: &str = "module(load=\"imjournal\"\n  Ratelimit.Interval=\"0\"\n)";

    #[test]
    fn statements_may_have_several_lines() {
        let text = "# a\nmail.* -/var/log/mail # b\nmodule(load=\"x#y\"\n  a=\"(\"\n)\n$X on\n";
        assert_eq!(statements(text), ["mail.* -/var/log/mail", "module(load=\"x#y\" a=\"(\" )", "$X on"]);
    }

    #[test]
    fn behind_rsyslog_journald_drops_too() {
        let jails = [Jail { name: "fs".into(), logs: vec!["/var/log/fs.log".into()], ..Jail::default() }];
        let files = [
            (CONF, "*.* /var/log/fs.log"),
            ("/etc/rsyslog.d/1.conf", UNLIMITED),
            ("/etc/systemd/journald.conf", "RateLimitBurst=100"),
        ];
        let (_dir, root) = host::with(&files);
        let found = rsyslog(&root, &jails);
        assert!(
            found.len() == 1 && found[0].what.contains("takes 100 lines of freeswitch.service in 30 s"),
            "{found:?}"
        );
        let (_dir, root) = host::with(&[files[0], files[2]]);
        assert_eq!(rsyslog(&root, &jails)[0].check, "rsyslog");
    }

    #[test]
    fn what_jails_read_must_come_at_once_and_whole() {
        let jails = [Jail { name: "web".into(), logs: vec!["/var/log/auth.log".into()], ..Jail::default() }];
        let check = |conf: &str, more: &str| -> Vec<&str> {
            let (_dir, root) = host::with(&[(CONF, conf), ("/etc/rsyslog.d/50.conf", more)]);
            rsyslog(&root, &jails).into_iter().map(|finding| finding.check).collect()
        };
        let rule = "auth,authpriv.*\t/var/log/auth.log\n*.*;auth.none -/var/log/syslog\n";
        assert_eq!(check("", ""), [""; 0]);
        assert_eq!(check("*.* /var/log/other", "$SystemLogRateLimitInterval 5"), [""; 0]);
        assert_eq!(check(rule, ""), ["rsyslog"]);
        assert_eq!(check("", &rule.replace("\t/", "\t-/")), ["rsyslog"]);
        assert_eq!(check("auth.* action(type=\"omfile\" file=\"/var/log/auth.log\")", ""), ["rsyslog"]);
        for line in [
            "$SystemLogRateLimitInterval 5",
            "module(load=\"imuxsock\" SysSock.RateLimit.Interval=\"2\")",
            "$OMFileAsyncWriting on",
            "module(load=\"builtin:omfile\" asyncWriting=\"on\")",
            IMJOURNAL,
            "$IMJournalRatelimitInterval 600",
        ] {
            assert_eq!(check(rule, line), ["drops"], "{line}");
        }
        for line in [
            "$SystemLogRateLimitInterval 0",
            "#$SystemLogRateLimitInterval 5",
            "$OMFileAsyncWriting off",
            UNLIMITED,
        ] {
            assert_eq!(check(rule, line), ["rsyslog"], "{line}");
        }
    }
}
