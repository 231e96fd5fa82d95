//! What `ringfence offenders` and `ringfence report` take for a gigabyte of log, in time and memory.
//!
//! `make bench`. Being slow is no failure here: the table says "missed". Not having read all of it is one.

#![expect(unreachable_pub, dead_code, unused_imports, reason = "shares the tests' support")]

mod support;

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::Command;

use jiff::{SignedDuration, Timestamp};
use support::{Table, only_built};

/// Bytes of the log.
const LENGTH: usize = 1 << 30;

/// Addresses and accounts that fail: those of offices, and of who tries names.
const ADDRESSES: usize = 20_000;
const ACCOUNTS: usize = 100_000;

fn main() {
    if only_built() {
        return;
    }
    let mut table = Table::default();
    // It goes with the directory.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = |name: &str| dir.path().join(name);
    for name in ["state", "run", "log/events", "db"] {
        std::fs::create_dir_all(path(name)).unwrap();
    }
    let at = dir.path().display();
    let settings = format!(
        "state-dir = \"{at}/state\"\nrun-dir = \"{at}/run\"\nlog-dir = \"{at}/log\"\n\
         [registrations]\nsource = \"sqlite\"\nsqlite-dir = \"{at}/db\"\n[fail2ban]\ndatabase = \"{at}/none\"\n"
    );
    std::fs::write(path("ringfence.toml"), settings).unwrap();
    let lines = write_log(&path("log/events/events.log"));
    let command = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringfence"));
        command.arg("--config").arg(path("ringfence.toml")).args(args);
        command
    };
    for (name, args, goal) in [
        ("offenders --since 1h", &["offenders", "--since", "1h"][..], 10.0),
        ("offenders --since 1h --csv", &["offenders", "--since", "1h", "--csv"], 10.0),
        ("report --since 1d --json", &["report", "--since", "1d", "--json"], 10.0),
    ] {
        let (seconds, mib, said) = measure(&command(args));
        let name = format!("1 GiB, {lines} failures: {name}");
        table.row(&name, &format!("{seconds:.1} s"), &format!("<= {goal} s"), Some(seconds <= goal));
        table.memory("  memory", mib, 128.0);
        if args.contains(&"--json") {
            let report: serde_json::Value = serde_json::from_str(&said).unwrap();
            assert_eq!(report["failures"], lines);
        }
    }
    table.print();
}

/// Failures of the last 50 minutes, in order; how many.
fn write_log(path: &Path) -> usize {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let begin = Timestamp::now() - SignedDuration::from_mins(50);
    let (mut length, mut lines, mut random) = (0, 0_usize, 1_usize);
    while length < LENGTH {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (address, account) = ((random >> 33) % ADDRESSES, (random >> 17) % ACCOUNTS);
        let time = begin + SignedDuration::from_micros(i64::try_from(lines).unwrap() * 400);
        let address = format!("198.{}.{}.{}", 18 + address / 65_536, address / 256 % 256, address % 256);
        let domain = account % 500;
        let line = format!(
            "{} v1 failure address={address} method=REGISTER account={account}@pbx{domain}.example.com known=yes \
             id={account}@pbx{domain}.example.com,{address} profile=internal agent=Yealink%20SIP-T46S%2066.85.0.5\n",
            time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        );
        file.write_all(line.as_bytes()).unwrap();
        length += line.len();
        lines += 1;
    }
    file.flush().unwrap();
    lines
}

/// Seconds, MiB and what it printed.
fn measure(command: &Command) -> (f64, f64, String) {
    let mut time = Command::new("/usr/bin/time");
    time.args(["-q", "-f", "%e %M"]).arg(command.get_program()).args(command.get_args());
    let output = time.output().expect("GNU time");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let figures = stderr.lines().last().and_then(|line| line.split_once(' '));
    let (seconds, kib) = figures.unwrap_or_else(|| panic!("{command:?}: {stderr}"));
    let number = |text: &str| text.parse::<f64>().unwrap_or_else(|_| panic!("{command:?}: {stderr}"));
    (number(seconds), number(kib) / 1024.0, String::from_utf8(output.stdout).unwrap())
}
