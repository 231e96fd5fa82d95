//! What lies between a program and the log that a jail reads: rsyslog may write late, and drop lines.

use std::path::PathBuf;

use super::Subject::Syslog;
use super::{Finding, Root, or_unreadable, text};
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
            for line in text(&file)?.unwrap_or_default().lines() {
                let line = line.split(" #").next().unwrap_or_default().trim();
                if !line.is_empty() && !line.starts_with('#') {
                    lines.push((file.clone(), line.to_owned()));
                }
            }
        }
        let logs: Vec<_> =
            jails.iter().flat_map(|jail| &jail.logs).map(|log| log.display().to_string()).collect();
        let mut findings: Vec<Finding> = vec![];
        // A `-` ahead of a file only omits the sync: who reads it sees the line at once.
        if lines.iter().any(|(_, line)| target(line).is_some_and(|path| logs.iter().any(|log| log == path))) {
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
        ] {
            assert_eq!(check(rule, line), ["drops"], "{line}");
        }
        for line in
            ["$SystemLogRateLimitInterval 0", "#$SystemLogRateLimitInterval 5", "$OMFileAsyncWriting off"]
        {
            assert_eq!(check(rule, line), ["rsyslog"], "{line}");
        }
    }
}
