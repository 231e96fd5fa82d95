//! How long `ringfence-ignore` takes: fail2ban waits for it at each line, with one lock for all jails.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Finding;
use super::Subject::Ignore;
use crate::config::Config;
use crate::programs;

/// Addresses that nobody has (RFC 5737, TEST-NET-1 and TEST-NET-2).
const NOBODY: [&str; 5] = ["192.0.2.1", "198.51.100.1", "192.0.2.2", "198.51.100.2", "192.0.2.3"];

/// An attack of ten lines a second is as much as all jails can bear then.
const SLOW: Duration = Duration::from_millis(100);

/// So long a line on a quiet host waits, each time that the last answer has grown old.
const SLOW_AT_FIRST: Duration = Duration::from_millis(300);

/// Calls it, as fail2ban would, with these settings. The decisions are not recorded.
#[must_use]
pub fn latency(program: &Path, settings: Option<&Path>, config: &Config) -> Finding {
    const CHECK: &str = "latency";
    let most = config.registrations.deadline.get();
    let environment: Vec<(&str, &OsStr)> =
        settings.map(|path| ("RINGFENCE_CONFIG", path.as_os_str())).into_iter().collect();
    let mut times = vec![];
    for address in NOBODY {
        let start = Instant::now();
        // Twice the deadline: to tell slow from hanging.
        let called = programs::output_of(program, &["--explain", address], &environment, "", most * 2 + SLOW);
        match called {
            Ok(output) if matches!(output.status.code(), Some(0 | 1)) => times.push(start.elapsed()),
            Ok(output) => {
                let said = output.stderr.lines().next().unwrap_or_default().to_owned();
                let what = format!("{} failed ({}): {said}", program.display(), output.status);
                return Finding::needs(
                    Ignore,
                    CHECK,
                    what,
                    "See all of it: ringfence-ignore --explain 192.0.2.1",
                );
            }
            Err(error) => {
                let what = format!("{error:#}: fail2ban's jails all wait for it, at each line.");
                return Finding::needs(Ignore, CHECK, what, "See why: ringfence-ignore --explain 192.0.2.1");
            }
        }
    }
    // The others may have had the answer of the first.
    let first = times[0];
    times.sort_unstable();
    judge(first, times[times.len() / 2], most)
}

fn judge(first: Duration, median: Duration, most: Duration) -> Finding {
    let figure = format!("{} ms at first, then {} ms", first.as_millis().max(1), median.as_millis().max(1));
    if median > SLOW || first > SLOW_AT_FIRST {
        let lines = (1_000 / median.max(first / 5).as_millis().max(1)).max(1);
        return Finding::needs(
            Ignore,
            "latency",
            format!(
                "ringfence-ignore takes {figure} (median of {}; at most {} ms): fail2ban waits for it under one lock, and all jails \
                 together bear {lines} new addresses a second.",
                NOBODY.len(),
                most.as_millis()
            ),
            "See where the time goes: ringfence-ignore --explain 192.0.2.1. A database on this host, or ringfence-events, answers at once.",
        );
    }
    Finding::fine(Ignore, "latency", format!("it answers within {figure} (median of {})", NOBODY.len()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::checkup::Verdict;

    const fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    #[test]
    fn slow_failing_and_hanging_answers_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let config: Config = toml::from_str("[registrations]\ndeadline = \"300ms\"").unwrap();
        let check = |script: &str| {
            let path = dir.path().join("ignore");
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            latency(&path, None, &config)
        };
        let failing = check("echo broken >&2; exit 2");
        assert!(failing.what.contains("failed (exit status: 2): broken"), "{failing:?}");
        let slow = check("/bin/sleep 0.15");
        assert!(slow.what.contains("at most 300 ms): fail2ban waits"), "{slow:?}");
        let hanging = check("exec /bin/sleep 20");
        assert!(hanging.what.contains("did not get done within"), "{hanging:?}");
        let missing = latency(Path::new("/nonexistent/ringfence-ignore"), None, &config);
        assert_eq!(missing.verdict, Verdict::NeedsDoing, "{missing:?}");
    }

    #[test]
    fn the_figure_is_said() {
        let fine = judge(ms(80), Duration::from_micros(2_400), ms(800));
        assert_eq!(fine.what, "it answers within 80 ms at first, then 2 ms (median of 5)");
        let slow = judge(ms(250), ms(250), ms(800));
        assert!(slow.what.contains("bear 4 new addresses a second"), "{slow:?}");
        // A database that takes its time, and a memory of its answers.
        let first = judge(ms(700), ms(3), ms(800));
        assert!(first.verdict == Verdict::NeedsDoing && first.what.contains("700 ms at first"), "{first:?}");
    }
}
