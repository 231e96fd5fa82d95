//! Whether it is known who is registered: the source, FusionPBX's database, and how old the answers are.

use std::net::IpAddr;
use std::time::Duration;

use ipnetwork::IpNetwork;
use jiff::Timestamp;

use super::Finding;
use super::Root;
use super::Subject::Registrations as About;
use crate::config::{Config, spelled};
use crate::deadline::Deadline;
use crate::fusionpbx::{self, accounts};
use crate::registrations::discovery::{self, Discovery, Nothing};
use crate::registrations::{Question, Registry};

/// Whether the source is found and can be read, as `ringfence-ignore` does it.
#[must_use]
pub fn source(config: &Config, root: &Root, now: Timestamp, deadline: Deadline) -> Finding {
    const CHECK: &str = "source";
    // Nobody has it (RFC 5737).
    let network = IpNetwork::from(IpAddr::from([192, 0, 2, 1]));
    let Discovery { source, clues } = match discovery::discover(&config.registrations) {
        Ok(found) => found,
        Err(error) if error.is::<Nothing>() && root.at("/etc/asterisk").is_dir() => {
            return Finding::fine(
                About,
                CHECK,
                "no FreeSWITCH here; whom Asterisk knows comes by its success jail",
            );
        }
        Err(error) => {
            let remedy = "Name it in [registrations] of /etc/ringfence/ringfence.toml; ringfence-ignore --explain 192.0.2.1 tells what \
                          it finds.";
            return Finding::needs(
                About,
                CHECK,
                format!("Who is registered is not known: {error:#}."),
                remedy,
            );
        }
    };
    let question = Question { network, now: now.as_second(), all: false };
    let failed = match source.look(&question, deadline) {
        Ok(found) if found.failures.is_empty() => {
            return Finding::fine(About, CHECK, format!("{source} can be read"));
        }
        Ok(found) => found.failures.join("; "),
        Err(error) => format!("{error:#}"),
    };
    Finding::needs(
        About,
        CHECK,
        format!(
            "{source} cannot be read: {failed}. Registered phones are not known, and are banned. ({})",
            clues.join("; ")
        ),
        "Give whoever runs Ringfence the right to read it, or name another source in [registrations].",
    )
}

/// Whether FusionPBX can say which accounts there are; nothing where there is no FusionPBX.
#[must_use]
pub fn directory(config: &Config, deadline: Deadline) -> Option<Finding> {
    const CHECK: &str = "fusionpbx";
    let read = || -> anyhow::Result<Option<String>> {
        let Some(target) = fusionpbx::own_database(config)? else { return Ok(None) };
        let account = "ringfence-doctor@invalid.invalid".parse()?;
        accounts::look_up(&target, &[account], deadline)?;
        Ok(Some(target.to_string()))
    };
    Some(match read() {
        Ok(None) => return None,
        Ok(Some(target)) => {
            Finding::fine(About, CHECK, format!("FusionPBX's database can be read: {target}"))
        }
        Err(error) => Finding::needs(
            About,
            CHECK,
            format!(
                "FusionPBX's database cannot be read: {error:#}. Whether an account exists is not known, and none is blocked."
            ),
            "Name a role that may read it as postgres in [fusionpbx] of /etc/ringfence/ringfence.toml.",
        ),
    })
}

/// How old the answers of others are that `ringfence-ignore` uses. `events` says whether `ringfence-events` should run.
#[must_use]
pub fn snapshots(config: &Config, events: bool, now: Timestamp) -> Finding {
    const CHECK: &str = "snapshot";
    let (registry, now) = (Registry::new(config), now.as_millisecond());
    let feed = registry.feed(now);
    if events && !feed.is_some_and(|feed| feed.is_live) {
        let what = match feed.map(|feed| feed.age) {
            Some(age) => format!("ringfence-events has not said who is registered for {}.", rounded(age)),
            None => {
                "ringfence-events has not said who is registered, since the last boot or with these settings."
                    .to_owned()
            }
        };
        let remedy = "systemctl restart ringfence-events; if that does not help, why: journalctl -u ringfence-events -n 20";
        return Finding::needs(About, CHECK, what, remedy);
    }
    let what = match (feed, registry.shared_age(now)) {
        (Some(feed), _) if feed.is_live => {
            format!("ringfence-events keeps them up: {} ago", rounded(feed.age))
        }
        (_, Some(age)) => format!("the last look at the source was {} ago", rounded(age)),
        _ => "no snapshot yet: nobody has asked since the last boot".to_owned(),
    };
    Finding::fine(About, CHECK, what)
}

/// In whole seconds, or milliseconds below that.
fn rounded(age: Duration) -> String {
    let whole = if age.as_secs() > 0 { Duration::from_secs(age.as_secs()) } else { age };
    spelled(Duration::from_millis(u64::try_from(whole.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::checkup::{Verdict, host};
    use crate::registrations::live::Feed;

    fn soon() -> Deadline {
        Deadline::after(Instant::now(), Duration::from_secs(5))
    }

    #[test]
    fn a_source_is_found_and_can_be_read() {
        let (dir, root) = host::with(&[("/db/core.db", "no database")]);
        let settings = |more: &str| -> Config {
            let db = dir.path().join("db");
            let none = dir.path().join("none");
            toml::from_str(&format!("[registrations]\nfreeswitch-config = {none:?}\nfusionpbx-config = {none:?}\nsqlite-dir = {db:?}\n{more}")).unwrap()
        };
        let found = source(&settings(""), &root, Timestamp::now(), soon());
        assert!(
            found.verdict == Verdict::NeedsDoing
                && found.what.contains("cannot be read: ")
                && found.what.contains("core.db: "),
            "{found:?}"
        );
        let socket =
            "source = \"event-socket\"\nevent-socket = { address = \"127.0.0.1:1\", password = \"x\" }";
        let found = source(&settings(socket), &root, Timestamp::now(), soon());
        assert!(found.what.starts_with("event-socket 127.0.0.1:1 cannot be read: "), "{found:?}");
        std::fs::remove_file(dir.path().join("db/core.db")).unwrap();
        let found = source(&settings("source = \"sqlite\""), &root, Timestamp::now(), soon());
        assert!(
            found.what.starts_with("Who is registered is not known: no sofia_reg_*.db or core.db"),
            "{found:?}"
        );
        assert_eq!(directory(&settings(""), soon()), None);
        let found =
            directory(&settings("[fusionpbx]\npostgres = \"host=/nonexistent dbname=x user=y\""), soon())
                .unwrap();
        assert!(found.what.starts_with("FusionPBX's database cannot be read: "), "{found:?}");
    }

    #[test]
    fn events_must_be_fresh_where_a_jail_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { run_dir: dir.path().join("run"), ..Config::default() };
        let now = Timestamp::now();
        assert_eq!(
            snapshots(&config, false, now).what,
            "no snapshot yet: nobody has asked since the last boot"
        );
        assert!(
            snapshots(&config, true, now)
                .what
                .starts_with("ringfence-events has not said who is registered, since")
        );
        crate::state_file::make_dir(&config.run_dir, 0o755).unwrap();
        Feed::new(&config).write([], true, now.as_millisecond()).unwrap();
        assert_eq!(snapshots(&config, true, now).what, "ringfence-events keeps them up: 0s ago");
        let later = now + jiff::SignedDuration::from_mins(2);
        assert_eq!(
            snapshots(&config, true, later).what,
            "ringfence-events has not said who is registered for 2m."
        );
    }
}
