//! systemd's journal, where jails read it: how many lines of a program it takes before it drops the rest, and the last of them.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::Subject::Syslog;
use super::{Finding, Root, or_unreadable, text};
use crate::evidence::visible_within;
use crate::fail2ban::jails::Jail;
use crate::programs;

const CHECK: &str = "journal";

/// No question takes longer.
const TIME: Duration = Duration::from_secs(10);

/// Where its settings are, in the order in which they hold: of files with the same name, the first.
const DIRS: [&str; 4] = ["/etc/systemd", "/run/systemd", "/usr/lib/systemd", "/lib/systemd"];

/// Less than that in a second, and an attack drowns what is to be counted.
const LEAST: u64 = 100;

/// `RateLimitIntervalSec` and `RateLimitBurst`, where nobody says (journald.conf(5)).
const USUAL: Limit = Limit { seconds: 30, burst: 10_000 };

/// The message in which journald says how many it dropped (`SD_MESSAGE_JOURNAL_DROPPED`).
const DROPPED: &str = "MESSAGE_ID=a596d6fe7bfa4994828e72309e95d61e";

/// So many lines of one service in so long; none of both is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    seconds: u64,
    burst: u64,
}

impl Limit {
    const fn drops(self) -> bool {
        self.seconds > 0 && self.burst > 0 && self.burst / self.seconds < LEAST
    }
}

/// Whether lines may be lost on the way to these jails, by the settings of journald and of the services that it hears. `jails` are those
/// that it concerns; nothing without one.
#[must_use]
pub fn limits(root: &Root, jails: &[&Jail]) -> Vec<Finding> {
    if jails.is_empty() {
        return vec![];
    }
    let found = || -> io::Result<Vec<Finding>> {
        let general = limit(
            root,
            "journald.conf",
            &["RateLimitIntervalSec", "RateLimitInterval"],
            "RateLimitBurst",
            USUAL,
        )?;
        let mut services: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for jail in jails {
            services.entry(service(jail)).or_default().push(&jail.name);
        }
        let mut findings = vec![];
        for (service, names) in services {
            let file = format!("system/{service}");
            let limit = limit(root, &file, &["LogRateLimitIntervalSec"], "LogRateLimitBurst", general)?;
            findings.extend(limit.drops().then(|| drops(&service, limit, &names)));
        }
        Ok(findings)
    };
    or_unreadable(Syslog, CHECK, &root.at("/etc/systemd/journald.conf"), found())
}

fn drops(service: &str, Limit { seconds, burst }: Limit, jails: &[&str]) -> Finding {
    let what = format!(
        "journald takes {burst} lines of {service} in {seconds} s, and drops the rest: under attack, failures that {} should count are lost.",
        jails.join(", ")
    );
    Finding::needs(Syslog, CHECK, what, no_limit(service)).about(service)
}

fn no_limit(service: &str) -> String {
    format!(
        "In /etc/systemd/system/{service}.d/ringfence.conf: [Service] and below it LogRateLimitIntervalSec=0; then: systemctl \
         daemon-reload; systemctl restart {service}"
    )
}

/// Whom a jail hears: by its journalmatch, or by its name.
fn service(jail: &Jail) -> String {
    let mut words = jail.journal.iter().flatten();
    let named = words.find_map(|word| word.strip_prefix("_SYSTEMD_UNIT="));
    let is_service = |name: &&str| name.ends_with(".service") && !name.contains('/');
    let says = |what: &str| {
        jail.name.contains(what)
            || jail.filter.plain().contains(what)
            || jail.logs.iter().any(|log| log.to_string_lossy().contains(what))
    };
    named.filter(is_service).map_or_else(
        || if says("asterisk") { "asterisk.service".to_owned() } else { "freeswitch.service".to_owned() },
        str::to_owned,
    )
}

/// The last settings of a file and of the files beside it that add to it.
fn limit(root: &Root, file: &str, span: &[&str], burst: &str, otherwise: Limit) -> io::Result<Limit> {
    let mut texts = vec![];
    for dir in DIRS {
        if let Some(text) = root.text(&format!("{dir}/{file}"))? {
            texts.push(text);
            break;
        }
    }
    let mut more: BTreeMap<_, PathBuf> = BTreeMap::new();
    for dir in DIRS {
        for path in root.files(&[&format!("{dir}/{file}.d")], ".conf")? {
            more.entry(path.file_name().unwrap_or_default().to_owned()).or_insert(path);
        }
    }
    for path in more.values() {
        texts.extend(text(path)?);
    }
    let mut limit = otherwise;
    for (key, value) in texts.iter().flat_map(|text| text.lines()).filter_map(|line| line.split_once('=')) {
        let (key, value) = (key.trim(), value.trim());
        if span.contains(&key) {
            limit.seconds = seconds(value).unwrap_or(limit.seconds);
        } else if key == burst {
            limit.burst = value.parse().unwrap_or(limit.burst);
        }
    }
    Ok(limit)
}

/// A span as systemd writes it (systemd.time(7)), `1min 30s`, in whole seconds, rounded up; fractions are not known here.
fn seconds(text: &str) -> Option<u64> {
    let (mut rest, mut micros) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, behind) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()));
        let behind = behind.trim_start();
        let ends = |c: char| c.is_ascii_digit() || c.is_whitespace();
        let (unit, behind) = behind.split_at(behind.find(ends).unwrap_or(behind.len()));
        let unit = match unit {
            "us" | "usec" | "µs" | "μs" => 1,
            "ms" | "msec" => 1_000,
            "" | "s" | "sec" | "second" | "seconds" => 1_000_000,
            "m" | "min" | "minute" | "minutes" => 60_000_000,
            "h" | "hr" | "hour" | "hours" => 3_600_000_000,
            "d" | "day" | "days" => 86_400_000_000,
            "w" | "week" | "weeks" => 604_800_000_000,
            _ => return None,
        };
        micros = micros.checked_add(number.parse::<u64>().ok()?.checked_mul(unit)?)?;
        rest = behind.trim_start();
    }
    Some(micros.div_ceil(1_000_000))
}

/// What journald says it dropped of these jails' services within the last day.
#[must_use]
pub fn dropped(jails: &[&Jail]) -> Vec<Finding> {
    let said = programs::run(
        "systemd",
        "journalctl",
        // Its own word: anybody may write a line that has this id.
        &[
            "--quiet",
            "--no-pager",
            "--output=cat",
            "--since=-1d",
            "--lines=1000",
            DROPPED,
            "_TRANSPORT=driver",
        ],
        "",
        TIME,
    );
    // That the journal cannot be read is said where the filters are tried.
    of_dropped(&said.unwrap_or_default(), jails)
}

/// `Suppressed 2337 messages from freeswitch.service`.
fn of_dropped(said: &str, jails: &[&Jail]) -> Vec<Finding> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for line in said.lines() {
        let Some(rest) = line.trim().strip_prefix("Suppressed ") else { continue };
        let Some((count, service)) = rest.split_once(" messages from ") else { continue };
        let sum = sums.entry(service.trim().to_owned()).or_default();
        *sum = sum.saturating_add(count.parse().unwrap_or(0));
    }
    let concerns = |name: &str| jails.iter().any(|jail| service(jail) == name);
    let sums = sums.into_iter().filter(|(service, count)| *count > 0 && concerns(service));
    sums.map(|(service, count)| {
        let what =
            format!("journald dropped {count} lines of {service} within the last day: failures in them were not counted.");
        Finding::needs(Syslog, "dropped", what, no_limit(&service)).about(service)
    })
    .collect()
}

/// The last entries that a jail's journalmatch finds, as fail2ban takes them: the time, and `HOST PROGRAM[PID]: MESSAGE` behind it.
pub fn tail(jail: &Jail, lines: u32) -> anyhow::Result<String> {
    let mut args = vec!["--quiet", "--no-pager", "--output=json"];
    let count = format!("--lines={lines}");
    args.extend([count.as_str(), "--"]);
    // Several are alternatives.
    for (at, words) in jail.journal.iter().enumerate() {
        args.extend((at > 0).then_some("+"));
        args.extend(words.iter().map(String::as_str));
    }
    let output = programs::output("systemd", "journalctl", &args, "", TIME)?;
    if !output.status.success() {
        bail!("journalctl: {}", visible_within(output.stderr.trim(), 300));
    }
    entries(&output.stdout)
}

/// As fail2ban's own filter of the journal makes lines of entries (`formatJournalEntry`).
fn entries(json: &str) -> anyhow::Result<String> {
    let mut lines = String::new();
    for entry in json.lines() {
        let entry: Value = serde_json::from_str(entry).context("journalctl prints what is not understood")?;
        let field = |name: &str| entry.get(name).and_then(plain).filter(|text| !text.is_empty());
        let micros = field("_SOURCE_REALTIME_TIMESTAMP").or_else(|| field("__REALTIME_TIMESTAMP"));
        let micros = micros.and_then(|time| time.parse().ok()).unwrap_or(0);
        let time = jiff::Timestamp::from_microsecond(micros).unwrap_or_default();
        lines += &time.strftime("%Y-%m-%dT%H:%M:%S").to_string();
        if let Some(host) = field("_HOSTNAME") {
            lines += &[" ", &host].concat();
        }
        if let Some(program) = field("SYSLOG_IDENTIFIER").or_else(|| field("_COMM")) {
            let pid = field("SYSLOG_PID").or_else(|| field("_PID"));
            lines += &pid.map_or_else(|| format!(" {program}:"), |pid| format!(" {program}[{pid}]:"));
        }
        let message = field("MESSAGE").unwrap_or_default().replace('\n', "\\n");
        lines += &[" ", &message, "\n"].concat();
    }
    Ok(lines)
}

/// Text, or bytes of what is no text; of several values all.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(all) if all.iter().all(Value::is_number) => {
            let bytes: Vec<u8> = all.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect();
            Some(String::from_utf8_lossy(&bytes).into_owned())
        }
        Value::Array(all) => Some(all.iter().filter_map(plain).collect::<Vec<_>>().join(" ")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::host;

    fn jail(name: &str, unit: &str) -> Jail {
        let journal = if unit.is_empty() { vec![] } else { vec![vec![format!("_SYSTEMD_UNIT={unit}")]] };
        Jail { name: name.to_owned(), backend: "systemd".to_owned(), journal, ..Jail::default() }
    }

    #[test]
    fn what_journald_drops_is_by_its_settings() {
        let jails = [jail("fs", ""), jail("ast", "asterisk.service")];
        let jails: Vec<_> = jails.iter().collect();
        let check = |files: &[(&str, &str)]| -> Vec<String> {
            let (_dir, root) = host::with(files);
            limits(&root, &jails).into_iter().map(|finding| finding.about).collect()
        };
        let conf = |text: &'static str| ("/etc/systemd/journald.conf", text);
        let service =
            ("/etc/systemd/system/asterisk.service.d/x.conf", "[Service]\nLogRateLimitIntervalSec=0\n");
        let both = ["asterisk.service", "freeswitch.service"];
        assert_eq!(check(&[]), [""; 0]);
        assert_eq!(check(&[conf("[Journal]\n#RateLimitBurst=10\n")]), [""; 0]);
        assert_eq!(check(&[conf("[Journal]\nRateLimitBurst=1000\n")]), both);
        assert_eq!(check(&[conf("[Journal]\nRateLimitIntervalSec=5min\n")]), both);
        assert_eq!(check(&[conf("[Journal]\nRateLimitIntervalSec=0\nRateLimitBurst=10\n")]), [""; 0]);
        assert_eq!(check(&[conf("RateLimitBurst=1000"), service]), ["freeswitch.service"]);
        // What adds to it holds, and of two with one name the first.
        let [low, high] = ["RateLimitBurst=1000", "RateLimitBurst=100000"];
        let at = |dir: &'static str, text| (dir, text);
        let etc = "/etc/systemd/journald.conf.d/a.conf";
        let run = "/run/systemd/journald.conf.d/a.conf";
        assert_eq!(check(&[conf(low), at(etc, high)]), [""; 0]);
        assert_eq!(check(&[conf(high), at(etc, low), at(run, high)]), both);
        assert_eq!(limits(&Root::default(), &[]), []);
        assert_eq!(
            ["30s", "5min", "2h", "500ms", "0", "7", "x"].map(seconds),
            [Some(30), Some(300), Some(7_200), Some(1), Some(0), Some(7), None]
        );
        assert_eq!(
            ["1min 30s", "1min30s", "30000ms", "1 h 1", "30000001us", "", "5 parsecs", "99999999999999999h"]
                .map(seconds),
            [Some(90), Some(90), Some(30), Some(3_601), Some(31), None, None, None]
        );
    }

    #[test]
    fn what_it_says_it_dropped_is_said() {
        let said = "Suppressed 5 messages from freeswitch.service\nSuppressed 7 messages from freeswitch.service\n\
                    Suppressed 9 messages from nginx.service\nother\n";
        let found = of_dropped(said, &[&jail("fs", "")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.starts_with("journald dropped 12 lines of freeswitch.service"), "{found:?}");
        assert_eq!(of_dropped(said, &[&jail("ast", "asterisk.service")]), []);
    }

    #[test]
    fn entries_are_as_fail2ban_reads_them() {
        let json = r#"{"__REALTIME_TIMESTAMP":"1795183743000001","_HOSTNAME":"pbx","SYSLOG_IDENTIFIER":"freeswitch","_PID":"47","MESSAGE":"a\nb"}
{"_SOURCE_REALTIME_TIMESTAMP":"1795183744000001","__REALTIME_TIMESTAMP":"1","_COMM":"x","MESSAGE":[104,105,255]}
{"__REALTIME_TIMESTAMP":"1","MESSAGE":null}
"#;
        let lines = "2026-11-20T14:09:03 pbx freeswitch[47]: a\\nb\n2026-11-20T14:09:04 x: hi\u{fffd}\n1970-01-01T00:00:00 \n";
        assert_eq!(entries(json).unwrap(), lines);
        assert!(entries("nonsense").is_err());
    }
}
