//! fail2ban's own database: whether there is one, whether our tools read the same, how large it is, and for how long it remembers.

use std::path::Path;

use bytesize::ByteSize;

use super::Finding;
use super::Subject::Fail2ban;
use crate::config::{self, Config};
use crate::deadline::Deadline;
use crate::fail2ban;
use crate::fail2ban::jails::{Configuration, Jail};

const CHECK: &str = "database";

/// Larger than this, each of its looks takes long: fail2ban never makes the file smaller.
const LARGEST: u64 = 512 << 20;

const RESTART: &str = "systemctl restart fail2ban";

/// What it is told to remember, and where; what is there, read before `deadline`.
#[must_use]
pub fn database(config: &Config, configuration: &Configuration, deadline: Deadline) -> Vec<Finding> {
    let mut findings = vec![];
    let file = configuration.database.trim();
    if file.is_empty() || file.eq_ignore_ascii_case("none") || file == ":memory:" {
        let what = format!(
            "It keeps no database (dbfile = {}): a restart lets everybody go, and why an address was banned is not known.",
            if file.is_empty() { "None" } else { file }
        );
        let remedy = format!(
            "In /etc/fail2ban/fail2ban.local, [Definition]: dbfile = {}; then: {RESTART}",
            config.fail2ban.database.display()
        );
        return vec![Finding::needs(Fail2ban, CHECK, what, remedy)];
    }
    let path = Path::new(file);
    if !same(path, &config.fail2ban.database) {
        let what = format!(
            "Its database is {file}, and our tools read {}: what fail2ban remembers is not known to them.",
            config.fail2ban.database.display()
        );
        let remedy = format!("In {}, [fail2ban]: database = \"{file}\"", config::DEFAULT_PATH);
        findings.push(Finding::needs(Fail2ban, CHECK, what, remedy).about(file));
    }
    findings.extend(there(path, configuration, deadline));
    findings.extend(forgets(configuration));
    if findings.is_empty() {
        findings.push(Finding::fine(Fail2ban, CHECK, format!("its database {file} can be read")));
    }
    findings
}

fn same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    one == other || whole(one) == whole(other)
}

fn there(path: &Path, configuration: &Configuration, deadline: Deadline) -> Option<Finding> {
    let shown = path.display();
    let needs = |what: String, remedy: String| {
        Some(Finding::needs(Fail2ban, CHECK, what, remedy).about(shown.to_string()))
    };
    // Any jail: an unknown one is no error.
    let jail = configuration.jails.first().map_or("x", |jail| &jail.name);
    let size = match path.metadata() {
        Ok(about) => about.len(),
        Err(error) if super::is_absent(&error) => {
            return needs(
                format!("Its database {shown} is not there: a restart of fail2ban lets everybody go."),
                format!("{RESTART}; where that does not help, why: grep -i database /var/log/fail2ban.log"),
            );
        }
        Err(error) => return Some(super::unreadable(Fail2ban, CHECK, path, &error)),
    };
    if let Err(error) = fail2ban::bans(path, jail, deadline) {
        return needs(
            format!("{error:#}: a restart of fail2ban may let everybody go."),
            format!(
                "If it is damaged: systemctl stop fail2ban; mv {shown} {shown}.damaged; systemctl start fail2ban"
            ),
        );
    }
    if size > LARGEST {
        return needs(
            format!(
                "Its database {shown} has {}: each look at it takes long, fail2ban's own too.",
                ByteSize::b(size)
            ),
            format!(
                "systemctl stop fail2ban; sqlite3 {shown} VACUUM; systemctl start fail2ban; and a shorter dbpurgeage or dbmaxmatches"
            ),
        );
    }
    None
}

/// What was banned is forgotten after `dbpurgeage`, though the ban may still last.
fn forgets(configuration: &Configuration) -> Option<Finding> {
    let remembers = configuration.remembers?;
    let longest = |of: fn(&Jail) -> Option<i64>| {
        let spans = configuration.jails.iter().filter_map(|jail| Some((of(jail)?, jail.name.as_str())));
        spans.filter(|(span, _)| *span > remembers).max()
    };
    // What lasts for ever is not forgotten.
    let (bans, counts) = (longest(|jail| jail.bantime), longest(|jail| jail.findtime));
    let (needed, _) = bans.max(counts)?;
    let mut says = vec![];
    says.extend(bans.map(|(time, jail)| format!("{jail} bans for up to {}", span(time))));
    says.extend(counts.map(|(time, jail)| format!("{jail} counts over {}", span(time))));
    let what = format!(
        "fail2ban forgets whom it banned after {} (dbpurgeage), and {}: what led to a ban may be forgotten while it counts.",
        span(remembers),
        says.join(", ")
    );
    // A day more, as fail2ban's own jail.conf advises for its recidive jail.
    let remedy = format!(
        "In /etc/fail2ban/fail2ban.local, [Definition]: dbpurgeage = {}d; then: {RESTART}",
        needed.saturating_add(DAY - 1) / DAY + 1
    );
    Some(Finding::needs(Fail2ban, "dbpurgeage", what, remedy))
}

const DAY: i64 = 86_400;

/// In the largest unit that makes a whole number.
fn span(seconds: i64) -> String {
    let units = [(DAY, "d"), (3_600, "h"), (60, "m")];
    let unit = units.into_iter().find(|(unit, _)| seconds >= *unit && seconds % unit == 0);
    unit.map_or_else(|| format!("{seconds}s"), |(unit, name)| format!("{}{name}", seconds / unit))
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::checkup::Verdict;

    /// The checks that are not fine, and what they say.
    fn found(config: &Config, configuration: &Configuration) -> Vec<(&'static str, String, String)> {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        let found = database(config, configuration, deadline).into_iter();
        found
            .filter(|finding| finding.verdict != Verdict::Fine)
            .map(|finding| (finding.check, finding.what, finding.remedy))
            .collect()
    }

    #[test]
    fn what_fail2ban_remembers_must_be_there_and_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fail2ban.sqlite3");
        let mut config = Config::default();
        config.fail2ban.database.clone_from(&path);
        let with =
            |database: &str| Configuration { database: database.to_owned(), ..Configuration::default() };
        let good = with(path.to_str().unwrap());
        for nowhere in ["None", ":memory:", "none"] {
            let found = found(&config, &with(nowhere));
            assert!(found[0].1.contains(&format!("no database (dbfile = {nowhere})")), "{found:?}");
        }
        assert!(found(&config, &good)[0].1.ends_with("lets everybody go."));
        std::fs::write(&path, "damaged, and long enough for a header of SQLite, which it is not").unwrap();
        let damaged = found(&config, &good);
        assert!(
            damaged[0].1.contains("cannot read fail2ban's database") && damaged[0].2.contains(".damaged;")
        );
        std::fs::remove_file(&path).unwrap();
        let sql = "CREATE TABLE jails (name TEXT); CREATE TABLE bips (ip, jail, timeofban, bantime)";
        assert!(Command::new("sqlite3").arg(&path).arg(sql).status().unwrap().success());
        assert_eq!(found(&config, &good), []);
        let other = Config::default();
        let elsewhere = found(&other, &good);
        assert!(elsewhere[0].1.contains("our tools read /var/lib/fail2ban/"), "{elsewhere:?}");
        // Sparse: SQLite reads its first pages.
        std::fs::File::options().append(true).open(&path).unwrap().set_len(LARGEST + 1).unwrap();
        let large = found(&config, &good);
        assert!(large[0].1.contains("has 512.0 MiB: each look"), "{large:?}");
    }

    #[test]
    fn what_is_banned_for_long_is_remembered_for_long() {
        let jail = |name: &str, bantime, findtime| Jail {
            name: name.to_owned(),
            bantime: Some(bantime),
            findtime: Some(findtime),
            ..Jail::default()
        };
        let check = |jails: &[Jail]| {
            let configuration =
                Configuration { jails: jails.to_vec(), remembers: Some(DAY), ..Configuration::default() };
            forgets(&configuration).map(|finding| (finding.what, finding.remedy))
        };
        assert_eq!(check(&[jail("a", DAY, 600), jail("b", -1, DAY)]), None);
        let (what, remedy) = check(&[jail("a", 7 * DAY, 600), jail("b", 600, 2 * DAY)]).unwrap();
        assert!(
            what.contains("after 1d (dbpurgeage), and a bans for up to 7d, b counts over 2d: what"),
            "{what}"
        );
        assert!(remedy.contains("dbpurgeage = 8d; then: systemctl restart fail2ban"), "{remedy}");
        assert_eq!([90, 120, 7_200, 2 * DAY].map(span), ["90s", "2m", "2h", "2d"]);
    }
}
