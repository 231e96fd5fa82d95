//! What the filters of enabled jails do: with the last lines of their own logs, and with lines that FreeSWITCH writes or a client can
//! make it write.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Subject::Jail as OneJail;
use super::{Finding, journal};
use crate::fail2ban::jails::{Filter, Jail};
use crate::fail2ban::regex::{self, Scratch};
use crate::programs::TimedOut;
use crate::state_file;

/// So much of the end of a log is read, in bytes.
const TAIL: u64 = 512 << 10;

/// So many of the last entries of the journal.
const ENTRIES: u32 = 2_000;

/// No filter may take longer for that.
const TIME: Duration = Duration::from_secs(20);

/// Failures as the programs write them; an expression that has one in it should match some of the lines that have it.
const FAILURES: [&str; 14] = [
    "SIP auth failure (",
    "Can't find user [",
    "Rejected by register acl",
    " failure address=",
    " ip-domain address=",
    " realm-mismatch address=",
    " flood address=",
    " spray address=",
    "SecurityEvent=\"InvalidPassword\"",
    "SecurityEvent=\"InvalidAccountID\"",
    "SecurityEvent=\"ChallengeResponseFailed\"",
    "Wrong password",
    "No matching peer found",
    "No matching endpoint found",
];

/// Who is banned at so many challenges is no office at its start.
const MANY: i64 = 50;

/// Whom each line of [`LINES`] is about.
const FAILS: &str = "192.0.2.1";
const FAILS_OLD: &str = "192.0.2.2";
const CHALLENGED: [&str; 2] = ["192.0.2.3", "192.0.2.4"];
/// What a client wrote himself.
const FORGED: [&str; 3] = ["192.0.2.5", "192.0.2.6", "192.0.2.7"];

/// As FreeSWITCH writes them, with the idle column of 1.10.7 and newer and without; and with a client's text in them: a folded header,
/// and a called number with a line break.
const LINES: &str = "\
2020-01-01 12:00:00.000001 97.03% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.1
2020-01-01 12:00:00.000002 [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.2
2020-01-01 12:00:00.000003 97.03% [WARNING] sofia_reg.c:1842 SIP auth challenge (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.3
2020-01-01 12:00:00.000004 [WARNING] sofia_reg.c:1842 SIP auth challenge (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.4
2020-01-01 12:00:00.000005 97.03% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.5
 ] from ip 192.0.2.99
2020-01-01 12:00:00.000006 97.03% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for [101@a.example.com] from ip 192.0.2.6 x
 ] from ip 192.0.2.99
0a1b2c3d-0001-4002-8003-000000000001 2020-01-01 12:00:00.000007 97.03% [WARNING] sofia_reg.c:3210 Can't find user [101@a.example.com] from 192.0.2.7
2020-01-01 12:00:00.000008 97.03% [NOTICE] sofia.c:1 end
";

/// What the filter of a jail does.
#[must_use]
pub fn of(jail: &Jail, scratch: &Scratch) -> Vec<Finding> {
    if !jail.reads_files() {
        return vec![of_journal(jail, scratch)];
    }
    // Others may be rotated, and empty.
    let changed = |log: &&PathBuf| log.metadata().and_then(|about| about.modified()).ok();
    let Some(log) = jail.logs.iter().max_by_key(changed) else { return vec![] };
    let tail = match tail(log) {
        Ok(tail) => tail,
        Err(error) => return vec![super::unreadable(OneJail, "filter", log, &error)],
    };
    let name = format!("{:08x}", fastrand::u32(..));
    let found_in =
        |part: &str, log: &[u8]| regex::found_by(&jail.filter, &format!("{name}-{part}"), log, scratch, TIME);
    let tried = || -> anyhow::Result<Vec<Finding>> {
        if jail.filter.plain().contains("sofia_reg") {
            let idle_column = has_idle_column(&tail);
            let lines = if idle_column { LINES.to_owned() } else { LINES.replace("97.03% ", "") };
            let faults = faults(jail, &found_in("lines", lines.as_bytes())?, idle_column);
            if !faults.is_empty() {
                return Ok(vec![faulty(jail, &faults)]);
            }
        }
        Ok(vec![of_tail(jail, &Source::File(log), &tail, &found_in("tail", &tail)?)])
    };
    tried().unwrap_or_else(|error| vec![refused(jail, &error)])
}

/// The same of one that reads the journal, with its last entries, as fail2ban would read them there.
fn of_journal(jail: &Jail, scratch: &Scratch) -> Finding {
    let name = &jail.name;
    let see = || format!("See what is there: journalctl -n 5 {}", matches(jail));
    let tail = match journal::tail(jail, ENTRIES) {
        Ok(tail) if tail.is_empty() => {
            let what = format!("{name}: its filter was not tried, as the journal has nothing that it reads.");
            return Finding::unknown(OneJail, "filter", what, see());
        }
        Ok(tail) => tail,
        Err(error) => {
            let what = format!("{name}: its filter was not tried, as the journal cannot be read: {error:#}.");
            return Finding::unknown(OneJail, "filter", what, see());
        }
    };
    // The time is the entry's, whatever the filter says of dates.
    let filter = Filter { date: Some(r"^%Y-%m-%dT%H:%M:%S\s".to_owned()), ..jail.filter.clone() };
    let name = format!("{:08x}-journal", fastrand::u32(..));
    match regex::found_by(&filter, &name, tail.as_bytes(), scratch, TIME) {
        Ok(found) => of_tail(jail, &Source::Journal, tail.as_bytes(), &found),
        Err(error) => refused(jail, &error),
    }
}

/// Its journalmatch, as journalctl takes it.
fn matches(jail: &Jail) -> String {
    let quoted = |word: &String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "_=+-.@/:".contains(c);
        if word.chars().all(plain) { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    let all = jail.journal.iter().map(|words| words.iter().map(quoted).collect::<Vec<_>>().join(" "));
    all.collect::<Vec<_>>().join(" + ")
}

/// What fail2ban-regex says of a filter that it does not take.
fn refused(jail: &Jail, error: &anyhow::Error) -> Finding {
    let name = &jail.name;
    if error.is::<TimedOut>() {
        let what = format!("{name}: its filter was not tried to the end: {error:#}.");
        return Finding::unknown(
            OneJail,
            "filter",
            what,
            "Try again when this host has less to do: ringfence doctor",
        );
    }
    Finding::needs(
        OneJail,
        "filter",
        format!("{name}: fail2ban-regex does not get along with its filter: {error:#}."),
        format!(
            "Mend the filter of [{name}] before the next reload, which would take all jails away; ringfence validate looks at ours."
        ),
    )
}

/// Where the lines are from.
enum Source<'a> {
    File(&'a Path),
    Journal,
}

/// The end of a log, from the start of a line.
fn tail(log: &Path) -> io::Result<Vec<u8>> {
    let mut file: File = state_file::open_regular(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut tail = vec![];
    file.take(TAIL).read_to_end(&mut tail)?;
    if length > TAIL {
        let start = tail.iter().position(|byte| *byte == b'\n').map_or(tail.len(), |at| at + 1);
        tail.drain(..start);
    }
    Ok(tail)
}

/// Whether FreeSWITCH is 1.10.7 or newer: nobody knows, and it is likely, unless the log shows that it is not.
fn has_idle_column(tail: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tail);
    let lines = text.lines().filter_map(|line| line.get(27..)).filter(|rest| {
        rest.starts_with('[')
            || rest.split_once("% [").is_some_and(|(number, _)| number.parse::<f32>().is_ok())
    });
    let mut lines = lines.peekable();
    lines.peek().is_none() || lines.any(|rest| !rest.starts_with('['))
}

/// What is wrong with a filter that finds these in [`LINES`].
fn faults(jail: &Jail, found: &[String], idle_column: bool) -> Vec<&'static str> {
    let finds = |address: &str| found.iter().any(|found| found == address);
    let mut faults = vec![];
    if idle_column && !finds(FAILS) && finds(FAILS_OLD) {
        faults.push("it matches nothing that FreeSWITCH 1.10.7 and newer write, with their idle column");
    }
    if CHALLENGED.iter().any(|address| finds(address)) && jail.maxretry < MANY {
        faults.push("it counts challenges, of which every healthy phone causes one at each registration");
    }
    if FORGED.iter().any(|address| finds(address)) {
        faults.push("a client can make it ban any address, by a line break in a header or a called number");
    }
    faults
}

fn faulty(jail: &Jail, faults: &[&str]) -> Finding {
    let name = &jail.name;
    Finding::needs(
        OneJail,
        "filter",
        format!("{name}: the filter is faulty: {}.", faults.join("; ")),
        format!(
            "In jail.local: [{name}] enabled = false, and in its place [ringfence-freeswitch] enabled = true (or, with ringfence-events, \
             [ringfence-events]); then fail2ban-client reload."
        ),
    )
}

/// Whether it sees the failures that its log has.
fn of_tail(jail: &Jail, source: &Source<'_>, tail: &[u8], found: &[String]) -> Finding {
    let name = &jail.name;
    let (path, try_it) = match source {
        Source::File(log) => (log.display().to_string(), format!("fail2ban-regex {} FILTER", log.display())),
        Source::Journal => ("the journal".to_owned(), format!("journalctl -n 20 {}", matches(jail))),
    };
    let expressions = jail.filter.plain();
    let wanted: Vec<_> = FAILURES.into_iter().filter(|text| expressions.contains(text.trim())).collect();
    let text = String::from_utf8_lossy(tail);
    let lines: Vec<_> = text.lines().collect();
    // The last line of a file may not be whole yet, and what shows that it is a failure is still to come.
    let seen = match source {
        Source::File(_) => lines.split_last().map_or(&[][..], |(_, lines)| lines),
        Source::Journal => &lines,
    };
    let failures = seen.iter().filter(|line| wanted.iter().any(|text| line.contains(text))).count();
    // A filter of accounts passes over all that is no plain account.
    if found.is_empty() && failures > 0 && !jail.bans_text() {
        return Finding::needs(
            OneJail,
            "filter",
            format!(
                "{name}: the filter matches nothing in the last {} of {path}, and {} there.",
                super::counted(lines.len(), "line", "lines"),
                super::counted(failures, "failure is", "failures are")
            ),
            format!(
                "Compare a line with the filter of [{name}]: {try_it}. Has the log another form of date, or something ahead of it? \
                 ringfence validate says whether the filter is the one that was shipped."
            ),
        );
    }
    let last = super::counted(lines.len(), "line", "lines");
    let count = super::counted(found.len(), "failure", "failures");
    Finding::fine(OneJail, "filter", format!("{name}: its filter finds {count} in the last {last} of {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Verdict;

    fn jail(dir: &Path, log: &str, fail: &[&str]) -> Jail {
        let path = dir.join("x.log");
        std::fs::write(&path, log).unwrap();
        let fail = fail.iter().map(|regex| (*regex).to_owned()).collect();
        let filter = Filter { fail, ..Filter::default() };
        Jail {
            name: "sip".into(),
            backend: "auto".into(),
            maxretry: 5,
            logs: vec![path],
            filter,
            ..Jail::default()
        }
    }

    fn only(mut found: Vec<Finding>) -> Finding {
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    const DATED: &str = "2026-11-20 12:00:00.000001 97.03% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile \
                         'internal' for [1@d] from ip 203.0.113.66\n";

    #[test]
    fn faults_of_filters_show_in_what_they_find() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        let old = r"^\s*\[WARNING\] sofia_reg\.c:\d+ SIP auth failure \((?:REGISTER)\) on sofia profile '[^']+' for \[[^\]]*\] from ip <HOST>$";
        let loose = r"sofia_reg\.c:\d+ SIP auth (?:failure|challenge) \(REGISTER\) on sofia profile '\w+' for \[.*\] from ip <HOST>";
        let finding = only(of(&jail(dir.path(), "", &[old]), &scratch));
        assert!(finding.what.contains("it matches nothing that FreeSWITCH 1.10.7"), "{finding:?}");
        let before = DATED.replace("97.03% ", "");
        let finding = only(of(&jail(dir.path(), &before.repeat(2), &[old]), &scratch));
        assert!(!finding.what.contains("1.10.7") && finding.what.contains("ban any address"), "{finding:?}");
        let finding = only(of(&jail(dir.path(), "", &[loose]), &scratch));
        for says in ["it counts challenges", "a client can make it ban any address"] {
            assert!(finding.what.contains(says), "{finding:?}");
        }
        assert!(finding.remedy.starts_with("In jail.local: [sip] enabled = false"));
        let flood = Jail { maxretry: 300, ..jail(dir.path(), "", &[loose]) };
        assert!(!only(of(&flood, &scratch)).what.contains("challenges"));
    }

    #[test]
    fn the_log_of_a_jail_is_what_its_filter_must_match() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(dir.path()).unwrap();
        let events = |regex: &str, log: &str| only(of(&jail(dir.path(), log, &[regex]), &scratch));
        let line = "2026-11-20T12:00:00.000Z v1 failure address=203.0.113.66 method=REGISTER\n";
        let found = events(r"^\S* ?v1 failure address=<ADDR> method=REGISTER$", &line.repeat(3));
        assert_eq!(found.verdict, Verdict::Fine, "{found:?}");
        let end = format!(
            "its filter finds 3 failures in the last 3 lines of {}",
            dir.path().join("x.log").display()
        );
        assert!(found.what.ends_with(&end), "{found:?}");
        let found = events(r"^nothing failure address=<ADDR>$", &line.repeat(3));
        assert!(
            found.what.contains("matches nothing in the last 3 lines")
                && found.what.contains("2 failures are"),
            "{found:?}"
        );
        assert_eq!(events(r"^nothing failure address=<ADDR>$", "").verdict, Verdict::Fine);
        let found = events(r"^(failure address=<ADDR>$", line);
        assert!(found.what.contains("does not get along with its filter"), "{found:?}");
        let nobody = vec![vec!["SYSLOG_IDENTIFIER=nobody's".into(), "_COMM=x".into()], vec!["_PID=1".into()]];
        let journal = Jail { backend: "systemd".into(), journal: nobody, ..jail(dir.path(), "", &["x"]) };
        assert_eq!(only(of(&journal, &scratch)).verdict, Verdict::NotChecked);
        assert_eq!(matches(&journal), r"'SYSLOG_IDENTIFIER=nobody'\''s' _COMM=x + _PID=1");
        let missing = Jail { logs: vec![PathBuf::from("/nonexistent")], ..jail(dir.path(), "", &["x"]) };
        assert_eq!(only(of(&missing, &scratch)).verdict, Verdict::NotChecked);
    }

    #[test]
    fn only_the_end_of_a_log_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = [b'x'; 99].map(char::from).iter().collect::<String>() + "\n";
        std::fs::write(&path, line.repeat(10_000)).unwrap();
        let tail = tail(&path).unwrap();
        assert!(tail.len() as u64 <= TAIL && tail.len() as u64 > TAIL - 200 && tail.starts_with(b"xx"));
        assert_eq!(tail.len() % 100, 0);
    }

    #[test]
    fn the_idle_column_tells_the_version() {
        assert!(has_idle_column(b"") && has_idle_column(b"nonsense\n") && has_idle_column(DATED.as_bytes()));
        assert!(!has_idle_column(DATED.replace("97.03% ", "").as_bytes()));
    }
}
