//! Whether the clock is right: bans, certificates and the ages of lists go by it.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use super::Finding;
use super::Subject::Clock;
use crate::programs;

/// No question takes longer.
const TIME: Duration = Duration::from_secs(5);

/// A file that is newer than now by more was written by a clock that ran ahead.
const AHEAD: i64 = 120;

/// What is written all the time.
const LOGS: [&str; 5] = [
    "/var/log/syslog",
    "/var/log/messages",
    "/var/log/fail2ban.log",
    "/var/log/freeswitch/freeswitch.log",
    "/var/lib/systemd/timesync/clock",
];

/// Whether the kernel's clock is kept by others, as systemd knows; `systemd` says whether it runs here.
#[must_use]
pub fn synchronised(systemd: bool) -> Finding {
    const CHECK: &str = "synchronised";
    const SEE: &str = "See: chronyc tracking, or ntpq -p";
    if !systemd {
        let what = "Whether anything keeps the clock right is not known: systemd does not run here.";
        return Finding::unknown(Clock, CHECK, what, SEE);
    }
    match programs::run(
        "systemd",
        "timedatectl",
        &["show", "--property=NTPSynchronized", "--value"],
        "",
        TIME,
    ) {
        Ok(said) if said.trim() == "yes" => Finding::fine(Clock, CHECK, "the clock is synchronised"),
        Ok(_) => Finding::needs(
            Clock,
            CHECK,
            "The clock is not synchronised: bans end early or late, and downloads of lists may fail.",
            "timedatectl set-ntp true (or apt-get install chrony); then timedatectl shows it.",
        ),
        Err(error) => {
            let what = format!("Whether the clock is synchronised is not known: {error:#}.");
            Finding::unknown(Clock, CHECK, what, SEE)
        }
    }
}

/// Whether it is later than what was written before: files of this host, and these.
#[must_use]
pub fn sane(now: Timestamp, more: &[PathBuf]) -> Finding {
    const CHECK: &str = "sane";
    let files = LOGS.iter().map(Path::new).chain(more.iter().map(PathBuf::as_path));
    let written = |path: &Path| -> Option<SystemTime> { std::fs::metadata(path).ok()?.modified().ok() };
    let newest = files.filter_map(|path| Some((Timestamp::try_from(written(path)?).ok()?, path))).max();
    match newest {
        Some((time, path)) if time.as_second() > now.as_second() + AHEAD => Finding::needs(
            Clock,
            CHECK,
            format!(
                "It is {now:.0} by the clock, but {} was written at {time:.0}: one of both is wrong. If the clock was set back, fail2ban \
                 counts old failures as new ones, and what should be over stays.",
                path.display()
            ),
            "timedatectl; set the clock right, then: systemctl restart fail2ban",
        ),
        _ => Finding::fine(Clock, CHECK, format!("it is later than the newest log: {now:.0}")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::checkup::Verdict;

    #[test]
    fn nothing_was_written_in_the_future() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let now = Timestamp::now();
        let check = |ahead: i64| {
            let time = SystemTime::from(now + jiff::SignedDuration::from_secs(ahead));
            File::create(&path).unwrap().set_modified(time).unwrap();
            sane(now, &[path.clone(), dir.path().join("missing")]).verdict
        };
        assert_eq!([0, 60, 600].map(check), [Verdict::Fine, Verdict::Fine, Verdict::NeedsDoing]);
        assert_eq!(synchronised(false).verdict, Verdict::NotChecked);
    }
}
