//! Settings, discovery and allow lists.

use ringfence::allow::{self, Allowed};

use crate::support::{Host, World, call, data, run, shipped_settings};

#[test]
fn broken_settings_are_named_and_on_error_decides() {
    let world = World::with_databases();
    let path = |name: &str| world.path(name).display().to_string();
    let dirs = format!(
        "state-dir = {:?}\nrun-dir = {:?}\nlog-dir = {:?}\n",
        path("state"),
        path("run"),
        path("log")
    );
    for (text, says) in [
        (
            "[registrations]\non-eror = \"keep\"\n".as_bytes(),
            "unknown key `on-eror`; did you mean `on-error`?",
        ),
        (b"[registrations]\ncache = 2\n", "cache: invalid type: integer `2`, expected a string"),
        (b"# caf\xe9\n", "not UTF-8"),
    ] {
        // The directories stay this test's own: they are heeded although another line is wrong.
        let line = dirs.lines().count() + text.split(|byte| *byte == b'\n').count() - 1;
        std::fs::write(world.config(), [dirs.as_bytes(), text].concat()).unwrap();
        let call = world.call(&["203.0.113.20"]);
        assert_eq!((call.code, call.stdout.as_str()), (1, ""));
        let says = format!("ringfence.toml:{line}: {says}");
        assert!(
            call.stderr.starts_with("ringfence-ignore: ") && call.stderr.contains(&says),
            "{}",
            call.stderr
        );
        assert_eq!(call.stderr.lines().count(), 1, "{}", call.stderr);
    }
    assert_eq!(world.last_reason(), "config-broken");
    std::fs::write(world.config(), format!("{dirs}[registrations]\non-error = \"keep\"\ntypo = 1\n"))
        .unwrap();
    assert_eq!(world.call(&["203.0.113.20"]).code, 0);
    std::fs::write(
        world.config(),
        format!("{dirs}mode = \"observe\"\ntypo = 1\n[registrations]\non-error = \"keep\"\n"),
    )
    .unwrap();
    assert_eq!(world.call(&["203.0.113.20"]).code, 1, "as without us");
}

#[test]
fn a_mistake_in_a_list_gets_nobody_banned() {
    let world = World::with_databases();
    world.register("core.db", "203.0.113.20", 3600);
    world.configure_lists("[lists.voipbl]\nkind = \"blok\"\n[fusionpbx]\ncarrier = 1\n");
    assert!(world.keeps("203.0.113.20"));
    let refused = world.lists(&["show"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("unknown"), "{}", refused.stderr);
}

#[test]
fn settings_that_are_no_file_are_named() {
    let host = Host::new();
    let world = World::empty();
    // Nothing says where the journal is: it goes to its usual place, which is not this machine's.
    for dir in ["/var/log", "/run"] {
        run(host.command("mount").args(["-t", "tmpfs", "tmpfs", dir]));
    }
    std::fs::remove_file(world.config()).unwrap();
    std::fs::create_dir(world.config()).unwrap();
    let call = call(
        host.command("env")
            .arg(format!("RINGFENCE_CONFIG={}", world.config().display()))
            .arg(world.command(&[]).get_program())
            .arg("203.0.113.20"),
    );
    assert_eq!(call.code, 1);
    assert!(call.stderr.contains("it is a directory"), "{}", call.stderr);
}

#[test]
fn the_shipped_settings_are_the_defaults() {
    let settings: Vec<_> = shipped_settings().into_iter().map(|(line, _)| line).collect();
    let shipped =
        ringfence::config::Config::parse("shipped".as_ref(), settings.join("\n").as_bytes()).unwrap();
    let default = ringfence::config::Config::default();
    let spans = |config: &ringfence::config::Config| {
        let r = &config.registrations;
        (
            r.deadline.get(),
            r.cache.get(),
            r.stale_ok.get(),
            r.ipv6_prefix,
            r.on_error,
            r.source,
            config.registrations_mode(),
        )
    };
    assert_eq!(spans(&shipped), spans(&default));
    // Unset, it depends on the matcher.
    assert_eq!(shipped.block.max, Some(ringfence::config::block::MaxBlocks::BPF));
    // What has no equality is compared as it is shown; the ledger is named, and is where it would be.
    let blocks = |config: &ringfence::config::Config| {
        format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            config.block_mode(),
            ringfence::config::Block { mode: None, max: None, ..config.block.clone() },
            config.ledger_path(),
            config.fail2ban,
            ringfence::config::Firewall { mode: None, ..config.firewall.clone() },
            ringfence::config::Events { metrics: None, ..config.events.clone() }
        )
    };
    assert_eq!(blocks(&shipped), blocks(&default));
    assert_eq!(
        (shipped.state_dir, shipped.run_dir, shipped.log_dir),
        (default.state_dir, default.run_dir, default.log_dir)
    );
}

#[test]
fn an_allow_list_keeps_without_any_source() {
    let world = World::empty();
    std::fs::create_dir_all(world.path("state")).unwrap();
    let allowed = [Allowed { network: "203.0.113.0/24".parse().unwrap(), list: "office", until: None }];
    allow::write(&world.path("state"), &allowed, jiff::Timestamp::now()).unwrap();
    assert!(world.keeps("203.0.113.20"));
    assert_eq!(world.last_reason(), "allow-list");
    assert!(world.explain("203.0.113.20").contains("on the allow list office"));
    assert!(!world.keeps("203.0.114.20"));
}

#[test]
fn an_unreadable_allow_list_leaves_it_to_on_error() {
    let world = World::with_databases();
    world.register("core.db", "203.0.113.20", 3600);
    std::fs::create_dir_all(world.path("state")).unwrap();
    std::fs::write(world.path("state/allow.table"), "203.0.113.0/24").unwrap();
    assert!(world.keeps("203.0.113.20"), "registered is registered");
    assert!(!world.keeps("203.0.113.66"));
    assert_eq!(world.last_reason(), "allow-list-unreadable");
    world.configure("source = \"sqlite\"\non-error = \"keep\"");
    assert!(world.keeps("203.0.113.66"));
}

#[test]
fn auto_reads_what_fusionpbx_says() {
    let world = World::empty();
    world.database("sofia_reg_internal.db");
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    world.configure("source = \"auto\"");
    let conf = std::fs::read_to_string(data("fusionpbx-config.conf")).unwrap();
    let conf = conf.replace("/var/lib/freeswitch/db", world.path("db").to_str().unwrap());
    std::fs::write(world.path("config.conf"), conf).unwrap();
    assert!(world.keeps("203.0.113.20"));
    let explained = world.explain("203.0.113.20");
    assert!(
        explained.contains("FusionPBX's configuration is ") && explained.contains("1 database file in "),
        "{explained}"
    );
}

#[test]
fn auto_follows_freeswitchs_own_dsn() {
    let world = World::empty();
    let db = world.path("db");
    world.database("core.db");
    world.register("core.db", "203.0.113.20", 3600);
    world.configure("source = \"auto\"");
    let vars = format!("<X-PRE-PROCESS cmd=\"set\" data=\"dsn=sqlite://{}/core.db\" />\n", db.display());
    std::fs::write(world.path("freeswitch/vars.xml"), vars).unwrap();
    let switch = "<configuration><settings><param name=\"core-db-dsn\" value=\"$${dsn}\" /></settings></configuration>";
    std::fs::write(world.path("freeswitch/autoload_configs/switch.conf.xml"), switch).unwrap();
    assert!(world.keeps("203.0.113.20"));
    assert!(world.explain("203.0.113.20").contains("core-db-dsn is SQLite"));

    let switch = switch.replace("$${dsn}", "odbc://freeswitch:u:hunter2");
    std::fs::write(world.path("freeswitch/autoload_configs/switch.conf.xml"), switch).unwrap();
    let explained = world.explain("203.0.113.20");
    assert!(
        explained.contains("core-db-dsn is odbc")
            && explained.contains("source     event-socket 127.0.0.1:8021"),
        "{explained}"
    );
    assert!(!explained.contains("hunter2"));
}

#[test]
fn nothing_found_says_what_was_looked_for() {
    let world = World::empty();
    world.configure("source = \"auto\"\nsqlite-dir = \"/nonexistent\"");
    assert!(!world.keeps("203.0.113.20"));
    let detail = world.journal().pop().unwrap()["detail"].to_string();
    let explained = world.explain("203.0.113.20");
    assert!(explained.contains("source     none found\nfailure    no registrations found"), "{explained}");
    for says in [
        "no registrations found",
        "switch.conf.xml: no core-db-dsn",
        "no FusionPBX configuration",
        "/nonexistent",
    ] {
        assert!(detail.contains(says), "{says}: {detail}");
    }
}

#[test]
fn strangers_in_a_public_directory_forge_nothing() {
    use std::os::unix::fs::{PermissionsExt, chown};
    let world = World::with_databases();
    world.database("sofia_reg_forged.db");
    world.register("sofia_reg_forged.db", "203.0.113.66", 3600);
    world.register("core.db", "203.0.113.67", 3600);
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    for forged in ["core.db", "sofia_reg_forged.db"] {
        chown(world.path("db").join(forged), Some(65_534), None).unwrap();
    }
    std::fs::set_permissions(world.path("db"), PermissionsExt::from_mode(0o1777)).unwrap();
    assert!(!world.keeps("203.0.113.66"));
    assert!(!world.keeps("203.0.113.67"));
    assert!(world.keeps("203.0.113.20"));
}
