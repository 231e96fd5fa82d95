//! `ringfence validate`: the settings, and fail2ban's files as they are installed, with real `fail2ban-regex`.

use std::path::Path;

use crate::support::{Call, World, call, project};

/// fail2ban's own files, and ours as they are shipped.
fn installed(world: &World) -> std::path::PathBuf {
    let dir = world.path("fail2ban");
    for sub in ["filter.d", "jail.d", "action.d"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
        let ours = project("fail2ban").join(sub);
        let theirs = Path::new("/etc/fail2ban").join(sub);
        // Who enables what on this machine is not for us.
        let from = if sub == "jail.d" { vec![ours] } else { vec![theirs, ours] };
        for from in from {
            copy(&from, &dir.join(sub));
        }
    }
    copy(Path::new("/etc/fail2ban"), &dir);
    let _ = std::fs::remove_file(dir.join("jail.local"));
    dir
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

fn validate(world: &World, dir: &Path, more: &[&str]) -> Call {
    let mut command = world.admin_command(&["validate", "--fail2ban"]);
    call(command.arg(dir).args(more))
}

#[test]
fn what_was_just_installed_is_right() {
    let world = World::empty();
    let dir = installed(&world);
    let good = validate(&world, &dir, &[]);
    assert_eq!((good.code, good.stderr.as_str()), (0, ""), "{}", good.stdout);
    assert!(good.stdout.starts_with("All is right.\n\nVERDICT  WHAT\nok       "), "{}", good.stdout);
    let lines: Vec<Vec<&str>> = good.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    let has = |words: &str| lines.iter().any(|line| line.join(" ") == words);
    let (settings, fail2ban) = (world.config(), dir.display());
    for words in [
        &format!("ok {} the settings are right", settings.display()),
        "ok jail.d/ringfence-freeswitch.conf as shipped",
        "ok ringfence-freeswitch[logtype=journal] 4 failures in its samples",
        "ok ringfence-events-account[mode=device] 6 failures in its samples",
        &format!("ok {fail2ban} fail2ban understands it; 0 jails are enabled"),
    ] {
        assert!(has(words), "{words} is not in {}", good.stdout);
    }
    assert!(lines.iter().skip(3).all(|line| line[0] == "ok"), "{}", good.stdout);
}

#[test]
fn each_thing_that_is_wrong_is_named() {
    let world = World::empty();
    let dir = installed(&world);
    let filter = |name: &str| dir.join("filter.d").join(name);
    for (name, settings) in [
        ("ringfence-freeswitch-account.local", "[Definition]\nfailregex = ^ SIP auth (failure"),
        ("ringfence-freeswitch.local", "[Definition]\nfailregex = ^ SIP auth trouble from <ADDR>$"),
        ("ringfence-freeswitch-challenge.local", "[lt_journal]\n_entry = ("),
        (
            "ringfence-freeswitch-acl.local",
            "[Definition]\nfailregex = %(_prefix)s IP <F-ID>[0-9a-f]{3,4}</F-ID>[.:][0-9a-f.:]+ Rejected by register acl \"[^\"\\n]+\"$",
        ),
        ("ringfence-nginx.local", "[Definition]\nignoreregex =\nignoreregex =\n"),
    ] {
        std::fs::write(filter(name), settings).unwrap();
    }
    std::fs::remove_file(filter("ringfence-verto.conf")).unwrap_err();
    std::fs::remove_file(filter("ringfence-freeswitch-verto.conf")).unwrap();
    let jail = dir.join("jail.d/ringfence-block.conf");
    let text = std::fs::read_to_string(&jail).unwrap();
    std::fs::write(&jail, text.replace("maxretry = 10", "maxretry = 20")).unwrap();
    let web = dir.join("jail.d/ringfence-web.conf");
    let text = std::fs::read_to_string(&web).unwrap();
    std::fs::write(&web, text.replace("maxretry = 200", "maxretry = 200\nmaxretry = 9")).unwrap();
    std::fs::write(
        dir.join("jail.local"),
        "[ringfence-freeswitch]\nenabled = true\nlogpath = /dev/null\nfilter = nonsense\n",
    )
    .unwrap();
    std::fs::write(world.config(), "mode = \"enforce\"\n[registrations]\ndeadlin = \"1s\"\n").unwrap();
    let found = validate(&world, &dir, &[]);
    assert_eq!((found.code, found.stderr.as_str()), (1, ""), "{}", found.stdout);
    let lines: Vec<String> =
        found.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let version = env!("CARGO_PKG_VERSION");
    let expected = [
        format!("wrong {} line 3: unknown key `deadlin`; did you mean `deadline`?", world.config().display()),
        "missing filter.d/ringfence-freeswitch-verto.conf it is not there; to have it again: apt-get install --reinstall \
         -o Dpkg::Options::=--force-confmiss ringfence"
            .to_owned(),
        "wrong filter.d/ringfence-nginx.local line 3: [Definition] sets ignoreregex a second time".to_owned(),
        "wrong jail.d/ringfence-web.conf line 46: [ringfence-nginx] sets maxretry a second time".to_owned(),
        "wrong ringfence-freeswitch 0 failures in its samples, not 9".to_owned(),
        "wrong ringfence-freeswitch-acl it finds 203, not 203.0.113.66".to_owned(),
        format!(
            "changed jail.d/ringfence-block.conf it is not that of version {version}; changes belong into {}",
            dir.join("jail.d/ringfence-block.local").display()
        ),
        "changed filter.d/ringfence-freeswitch-acl.local it changes settings of the file of this version"
            .to_owned(),
    ];
    for line in expected {
        assert!(lines.contains(&line), "{line} is not in {}", found.stdout);
    }
    for start in [
        "wrong ringfence-freeswitch-account missing ), unterminated subpattern",
        "wrong ringfence-freeswitch-challenge[logtype=journal] missing ), unterminated subpattern",
        &format!("wrong {} fail2ban refuses it: ", dir.display()),
    ] {
        assert!(lines.iter().any(|line| line.starts_with(start)), "{start} is not in {}", found.stdout);
    }
    // What is wrong comes first.
    assert!(lines[0].ends_with("and 5 files were changed, and 1 file is missing."), "{}", lines[0]);
    let order: Vec<_> = lines[3..].iter().map(|line| line.split(' ').next().unwrap()).collect();
    let rank =
        |word: &&str| ["wrong", "missing", "changed", "ok"].iter().position(|known| known == word).unwrap();
    assert!(order.is_sorted_by_key(rank), "{}", found.stdout);

    let json: serde_json::Value = serde_json::from_str(&validate(&world, &dir, &["--json"]).stdout).unwrap();
    assert_eq!(
        (&json[0]["verdict"], &json[0]["text"]),
        (&"wrong".into(), &"line 3: unknown key `deadlin`; did you mean `deadline`?".into())
    );
}

#[test]
fn what_somebody_removed_is_missing_and_not_wrong() {
    let world = World::empty();
    let dir = installed(&world);
    std::fs::remove_file(dir.join("jail.d/ringfence-web.conf")).unwrap();
    let found = validate(&world, &dir, &[]);
    assert_eq!(found.code, 0, "{}", found.stdout);
    assert!(found.stdout.starts_with("All is right, and 1 file is missing.\n"), "{}", found.stdout);
    let bare = world.path("bare");
    std::fs::create_dir(&bare).unwrap();
    let found = validate(&world, &bare, &[]);
    assert_eq!((found.code, found.stdout.matches("\nwrong").count()), (1, 1), "{}", found.stdout);
    assert!(found.stdout.contains("none of Ringfence's files is there"), "{}", found.stdout);
}

#[test]
fn only_a_directory_of_fail2bans_can_be_looked_at() {
    let world = World::empty();
    let refused = validate(&world, &world.path("missing"), &[]);
    assert_eq!((refused.code, refused.stdout.as_str()), (2, ""));
    assert!(refused.stderr.contains("is no directory; --fail2ban names the one"), "{}", refused.stderr);
    let missing = call(
        world
            .admin_command(&["validate", "--fail2ban"])
            .arg(world.dir())
            .env("RINGFENCE_CONFIG", world.path("no.toml")),
    );
    assert_eq!(missing.code, 1);
    assert!(
        missing.stdout.contains("no.toml") && missing.stdout.contains("it does not exist"),
        "{}",
        missing.stdout
    );
}
