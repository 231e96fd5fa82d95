//! What Asterisk's own settings do to ours.

use super::Subject::Asterisk;
use super::{Finding, Root, or_unreadable};
use crate::fail2ban::jails::Jail;

/// Where it has its settings.
const DIR: &str = "/etc/asterisk";

/// Whether accounts can be guessed one by one, and whether the security log is on where a jail reads it. Nothing where there is no
/// Asterisk.
#[must_use]
pub fn settings(root: &Root, jails: &[Jail]) -> Vec<Finding> {
    if !root.at(DIR).is_dir() {
        return vec![];
    }
    let found = || {
        let mut findings: Vec<_> = ["sip.conf", "pjsip.conf"]
            .iter()
            .map(|name| Ok(rejects_alike(name, &root.text(&format!("{DIR}/{name}"))?.unwrap_or_default())))
            .collect::<std::io::Result<Vec<_>>>()?
            .into_iter()
            .flatten()
            .collect();
        let logger = root.text(&format!("{DIR}/logger.conf"))?.unwrap_or_default();
        findings.extend(security_log(&logger, jails));
        if findings.is_empty() {
            findings.push(Finding::fine(
                Asterisk,
                "settings",
                "it rejects accounts alike, and logs what jails read",
            ));
        }
        Ok(findings)
    };
    or_unreadable(Asterisk, "settings", &root.at(DIR), found())
}

/// A key and its value, of each line; comments do not count.
fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().map(|line| line.split(';').next().unwrap_or_default());
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim_start_matches('>').trim()))
}

fn rejects_alike(name: &str, text: &str) -> Option<Finding> {
    let (_, value) = pairs(text).filter(|(key, _)| key.eq_ignore_ascii_case("alwaysauthreject")).last()?;
    let no = ["no", "false", "off", "n", "f", "0"];
    no.contains(&value.to_ascii_lowercase().as_str()).then(|| {
        Finding::needs(
            Asterisk,
            "alwaysauthreject",
            format!("{DIR}/{name} has alwaysauthreject={value}: scanners are told which accounts exist."),
            format!("In {DIR}/{name}: alwaysauthreject=yes, then: asterisk -rx 'core reload'"),
        )
    })
}

/// The jails whose filter is of security events need them in their log.
fn security_log(logger: &str, jails: &[Jail]) -> Option<Finding> {
    let of_events = |jail: &&Jail| jail.filter.plain().contains("SecurityEvent");
    jails.iter().filter(of_events).find_map(|jail| {
        let log = jail.logs.last()?;
        let written = pairs(logger).any(|(file, levels)| {
            let levels = levels.rsplit(']').next().unwrap_or(levels);
            log.ends_with(file.trim_start_matches('/'))
                && levels.split(',').any(|level| matches!(level.trim(), "security" | "*"))
        });
        (!written).then(|| {
            Finding::needs(
                Asterisk,
                "security-log",
                format!(
                    "{DIR}/logger.conf writes no security events to {}, which jail {} reads.",
                    log.display(),
                    jail.name
                ),
                format!(
                    "In {DIR}/logger.conf, [logfiles]: {} => security, then: asterisk -rx 'logger reload'",
                    log.file_name().unwrap_or_default().to_string_lossy()
                ),
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::host;
    use crate::fail2ban::jails::Filter;

    #[test]
    fn scanners_learn_nothing_and_jails_everything() {
        let jails = [Jail {
            name: "ast".into(),
            filter: Filter { fail: vec!["SecurityEvent=\"x\"".into()], ..Filter::default() },
            logs: vec!["/var/log/asterisk/security".into()],
            ..Jail::default()
        }];
        let check = |files: &[(&str, &str)]| -> Vec<&str> {
            let (_dir, root) = host::with(files);
            settings(&root, &jails).into_iter().map(|finding| finding.check).collect()
        };
        let sip = |text: &'static str| ("/etc/asterisk/sip.conf", text);
        let logger = |text: &'static str| ("/etc/asterisk/logger.conf", text);
        let logs = logger("[logfiles]\nsecurity => security\n");
        assert_eq!(check(&[("/etc/other", "")]), [""; 0]);
        assert_eq!(check(&[logs]), ["settings"]);
        assert_eq!(check(&[logs, sip("[general]\nalwaysauthreject = no ; why not\n")]), ["alwaysauthreject"]);
        assert_eq!(check(&[logs, sip(";alwaysauthreject=no\nalwaysauthreject=yes\n")]), ["settings"]);
        assert_eq!(check(&[logs, ("/etc/asterisk/pjsip.conf", "alwaysauthreject=no")]), ["alwaysauthreject"]);
        assert_eq!(check(&[logger("security => notice\n;security => security")]), ["security-log"]);
        assert_eq!(check(&[logger("/var/log/asterisk/security => [json]notice,security")]), ["settings"]);
        assert_eq!(check(&[logger("security = *")]), ["settings"]);
    }
}
