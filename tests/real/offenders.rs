//! `ringfence offenders`: who fails, from the log of `ringfence-events` with its rotated files, or from FreeSWITCH's own.

use std::io::Write;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use crate::support::{Call, World, call, data, run};

const HEAD: &str =
    "ADDRESS       EXEMPT      ACCOUNT            FAILURES  WHY              LAST   USER AGENT\n";

/// A world with a log, from these lines: minutes ago, and what is behind the version.
fn world(lines: &[(i64, &str)]) -> World {
    let world = World::with_databases();
    world.configure("source = \"sqlite\"");
    std::fs::create_dir_all(world.path("log/events")).unwrap();
    std::fs::write(world.path("log/events/events.log"), text(lines)).unwrap();
    world
}

fn text(lines: &[(i64, &str)]) -> String {
    let now = Timestamp::now();
    let line = |(minutes, line): &(i64, &str)| {
        let time = now - SignedDuration::from_mins(*minutes);
        format!("{} v1 {line}\n", time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"))
    };
    lines.iter().map(line).collect()
}

fn offenders(world: &World, args: &[&str]) -> Call {
    let mut command = world.admin_command(&["offenders"]);
    call(command.args(args).env("TZ", "UTC"))
}

const WRONG: &str = "failure address=203.0.113.20 method=REGISTER account=104@b.example.com known=yes id=104@b.example.com,203.0.113.20 profile=internal agent=Yealink";
const NOBODY: &str = "failure address=203.0.113.66 method=REGISTER account=999@a.example.com known=no profile=internal agent=scan%1B%5B31m";
const FINE: &str =
    "success address=203.0.113.20 account=101@b.example.com expires=300 profile=internal agent=Yealink";

#[test]
fn says_which_phone_of_which_office_fails() {
    let world = world(&[(59, NOBODY), (30, WRONG), (20, FINE), (5, NOBODY), (2, NOBODY), (90, WRONG)]);
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    let shown = offenders(&world, &[]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    let rows = "203.0.113.66  no          999@a.example.com         3  no such account  2m ago   scan\u{fffd}[31m\n\
                203.0.113.20  registered  104@b.example.com         1  wrong password   30m ago  Yealink\n";
    let end = format!(
        "\n4 failures from 2 addresses of the last 1h, in {}.\n",
        world.path("log/events/events.log").display()
    );
    assert_eq!(shown.stdout, HEAD.replace("LAST   ", "LAST     ") + rows + &end);
    let one = offenders(&world, &["--since", "2h", "--address", "203.0.113.20"]).stdout;
    assert!(
        one.contains("104@b.example.com         2  wrong password") && !one.contains("203.0.113.66"),
        "{one}"
    );
    let domain = offenders(&world, &["--domain", "A.Example.com"]).stdout;
    assert!(domain.contains("203.0.113.66") && !domain.contains("203.0.113.20"), "{domain}");
    let short = offenders(&world, &["-n", "1"]).stdout;
    let end = "4 failures from 2 addresses of the last 1h";
    assert!(
        short.contains(end) && short.ends_with(" 1 of the addresses is not shown; --limit 0 shows all.\n"),
        "{short}"
    );
    assert!(!short.contains("203.0.113.20"), "{short}");
    let none = offenders(&world, &["--since", "1s"]);
    assert!(none.code == 0 && none.stdout.starts_with("No failures of the last 1s, in "), "{}", none.stdout);
}

#[test]
fn machines_and_customers_read_it_too() {
    let formula = "failure address=203.0.113.66 method=REGISTER account=%3Dcmd%22@a.example.com known=no profile=internal agent=-%0Ax";
    let world = world(&[(3, NOBODY), (2, WRONG), (1, formula)]);
    let json: serde_json::Value = serde_json::from_str(&offenders(&world, &["--json"]).stdout).unwrap();
    assert_eq!(json[0]["address"], "203.0.113.66");
    assert_eq!((&json[0]["failures"], &json[0]["exempt"]), (&2.into(), &false.into()));
    let accounts = json[0]["accounts"].as_array().unwrap();
    let unknown = accounts.iter().find(|account| account["account"] == "999@a.example.com").unwrap();
    assert_eq!((&unknown["why"], &unknown["failures"]), (&"no such account".into(), &1.into()));
    let first: Timestamp = unknown["first"].as_str().unwrap().parse().unwrap();
    assert!(Timestamp::now().duration_since(first) < SignedDuration::from_mins(10));

    let csv = offenders(&world, &["--csv"]).stdout;
    let rows: Vec<_> = csv.lines().collect();
    assert_eq!(rows[0], "domain,account,address,why,failures,first,last,user agent");
    assert!(
        rows[1].starts_with("a.example.com,999@a.example.com,203.0.113.66,no such account,1,20"),
        "{csv}"
    );
    assert!(rows[2].starts_with("a.example.com,\"'=cmd\"\"@a.example.com\",203.0.113.66,"), "{csv}");
    assert!(rows[2].ends_with(",'-\u{fffd}x"), "{csv}");
    assert!(rows[3].starts_with("b.example.com,104@b.example.com,203.0.113.20,wrong password,1,"), "{csv}");
    assert_eq!(offenders(&world, &["--csv", "--json"]).code, 2);
}

#[test]
fn rotated_and_compressed_files_count() {
    let world = world(&[(1, NOBODY)]);
    let file = |name: &str| world.path("log/events").join(name);
    std::fs::write(file("events.log.2"), text(&[(9, NOBODY), (8, NOBODY)])).unwrap();
    run(std::process::Command::new("gzip").arg(file("events.log.2")));
    std::fs::write(file("events.log.1"), text(&[(7, NOBODY)])).unwrap();
    std::fs::write(file("events.log.0"), text(&[(6, NOBODY)])).unwrap();
    std::fs::write(file("other.log"), text(&[(6, NOBODY)])).unwrap();
    std::fs::File::options()
        .append(true)
        .open(file("events.log.1"))
        .unwrap()
        .write_all(b"nonsense\n")
        .unwrap();
    let shown = offenders(&world, &[]);
    assert!(shown.stdout.contains("999@a.example.com         5  no such account"), "{}", shown.stdout);
    assert_eq!(shown.stderr, "");
    std::fs::write(file("events.log.1"), text(&[(7, "failure nonsense")])).unwrap();
    let shown = offenders(&world, &[]);
    assert!(shown.stderr.starts_with("ringfence: 1 line is none of the format of "), "{}", shown.stderr);
}

#[test]
fn freeswitchs_own_log_will_do() {
    let world = World::with_databases();
    world.configure("source = \"sqlite\"");
    let log = data("log/06d_hostile_realm.log");
    let year = ["--since", "365d", "--freeswitch-log"];
    let shown = offenders(&world, &[&year[..], &[log.to_str().unwrap()]].concat());
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("\n203.0.113.66  no "), "{}", shown.stdout);
    assert!(!shown.stdout.contains("\n198.51.100.11"), "{}", shown.stdout);
    for (path, says) in [(world.path("missing"), "No such file"), (world.dir().to_owned(), "directory")] {
        let refused = offenders(&world, &["--freeswitch-log", path.to_str().unwrap()]);
        assert_eq!(refused.code, 2, "{}", refused.stdout);
        assert!(
            refused.stderr.contains(says) && refused.stderr.contains(path.to_str().unwrap()),
            "{}",
            refused.stderr
        );
    }
    if !Path::new("/var/log/freeswitch/freeswitch.log").exists() {
        let refused = offenders(&world, &[]);
        assert_eq!(refused.code, 2);
        assert!(refused.stderr.contains("there is no log to read"), "{}", refused.stderr);
    }
}

#[test]
fn freeswitchs_own_log_has_the_hosts_times() {
    let world = World::with_databases();
    let log = world.path("freeswitch.log");
    let time = Timestamp::now() - SignedDuration::from_mins(10) + SignedDuration::from_hours(9);
    let text = format!(
        "{} 0.00% [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for \
         [101@a.example.com] from ip 203.0.113.66\n",
        time.strftime("%Y-%m-%d %H:%M:%S.%6f")
    );
    std::fs::write(&log, text.repeat(2)).unwrap();
    for (zone, count) in [("JST-9", 1), ("UTC", 0)] {
        let args = ["offenders", "--json", "--since", "30m", "--freeswitch-log", log.to_str().unwrap()];
        let found = call(world.admin_command(&args).env("TZ", zone));
        let found: serde_json::Value = serde_json::from_str(&found.stdout).unwrap();
        let ago = |time: &serde_json::Value| {
            Timestamp::now().duration_since(time.as_str().unwrap().parse().unwrap()).as_mins()
        };
        let recent = found.as_array().unwrap().iter().filter(|entry| ago(&entry["accounts"][0]["last"]) >= 0);
        assert_eq!(recent.count(), count, "{zone}");
    }
}

#[test]
fn a_log_that_others_could_have_written_is_not_read() {
    use std::os::unix::fs::PermissionsExt;
    let world = world(&[(1, NOBODY)]);
    std::fs::set_permissions(world.path("log/events"), PermissionsExt::from_mode(0o777)).unwrap();
    let refused = offenders(&world, &[]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("others could have written it"), "{}", refused.stderr);
}
