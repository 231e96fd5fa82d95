use super::*;

fn error(text: &str) -> String {
    Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn everything_has_a_default() {
    let config = Config::parse(Path::new("r.toml"), b"").unwrap();
    assert_eq!(config.registrations.deadline.get(), Duration::from_millis(800));
    assert_eq!(config.registrations.cache.get(), Duration::from_secs(2));
    assert_eq!(config.registrations.stale_ok.get(), Duration::from_hours(1));
    assert_eq!(config.registrations.ipv6_prefix.bits(), 128);
    assert_eq!(config.registrations.on_error, OnError::Ban);
    assert_eq!(config.registrations_mode(), Mode::Enforce);
}

#[test]
fn reads_every_key() {
    let text = r#"
        mode = "observe"
        state-dir = "/s"
        run-dir = "/r"
        log-dir = "/l"
        [registrations]
        mode = "enforce"
        source = "event-socket"
        sqlite-dir = "/dev/shm"
        postgres = "host=/run/postgresql dbname=freeswitch"
        event-socket = { address = "127.0.0.1:8021", password = { file = "/etc/secret" } }
        deadline = "1s"
        cache = "0s"
        on-error = "keep"
        stale-ok = "2h 30m"
        ipv6-prefix = 64
        fusionpbx-config = "/f"
        freeswitch-config = "/c"
    "#;
    let config = Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap();
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(config.registrations_mode(), Mode::Enforce);
    assert_eq!(config.registrations.source, SourceKind::EventSocket);
    assert_eq!(config.registrations.stale_ok.get(), Duration::from_mins(150));
    assert_eq!(config.registrations.stale_ok.to_string(), "2h 30m");
    assert!(
        matches!(&config.registrations.event_socket.password, Some(Secret::File(file)) if file == Path::new("/etc/secret"))
    );
}

#[test]
fn errors_name_file_line_key_and_way_out() {
    for (text, says) in [
        ("mod = \"observe\"", "r.toml:1: unknown key `mod`; did you mean `mode`?"),
        ("[registrations]\non-eror = \"keep\"", "r.toml:2: unknown key `on-eror`; did you mean `on-error`?"),
        ("[registrations]\ncache = 2", "r.toml:2: cache: invalid type: integer `2`, expected a string"),
        (
            "[registrations]\n\ncache = \"2 parsecs\"",
            "r.toml:3: cache: \"2 parsecs\" is not a time span; write it like \"800ms\", \"2s\" or \"1h\"",
        ),
        (
            "[registrations]\ndeadline = \"1m\"",
            "r.toml:2: deadline: \"1m\" is out of range; 50ms to 30s are possible",
        ),
        (
            "[registrations]\nipv6-prefix = 0",
            "r.toml:2: ipv6-prefix: 0 is out of range; 48 (a site) to 128 (each address by itself) are possible",
        ),
        (
            "[registrations]\npostgres = 7",
            "r.toml:2: postgres: expected a string, or { file = \"/path/to/the/secret\" }",
        ),
        ("[registrations]\npostgres = { fil = \"x\" }", "r.toml:2: unknown key `fil`; did you mean `file`?"),
        (
            "[registrations]\nsource = \"mysql\"",
            "r.toml:2: source: unknown variant `mysql`, expected one of `auto`, `sqlite`, `postgres`, `event-socket`",
        ),
    ] {
        assert_eq!(error(text), says);
    }
    assert!(error("mode = ").starts_with("r.toml:1: "));
    assert!(error("xyzzy = 1").starts_with("r.toml:1: unknown key `xyzzy`; known here: mode, state-dir"));
    let latin1 = Config::parse(Path::new("r.toml"), b"# ok\n# caf\xe9\n").unwrap_err();
    assert_eq!(latin1.to_string(), "r.toml:2: not UTF-8; save the file in that encoding");
}

#[test]
fn the_wish_for_errors_survives_another_mistake() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("r.toml");
    std::fs::write(
        &path,
        "typo = 1\nmode = \"observe\"\nlog-dir = \"/l\"\nrun-dir = 7\n[registrations]\non-error = \"keep\"\n",
    )
    .unwrap();
    assert!(Config::load(Some(&path)).is_err());
    let salvaged = Config::salvage(Some(&path));
    assert_eq!(
        (salvaged.registrations.on_error, salvaged.registrations_mode()),
        (OnError::Keep, Mode::Observe)
    );
    assert_eq!((salvaged.log_dir, salvaged.run_dir), ("/l".into(), Config::default().run_dir));
    std::fs::write(&path, "[registrations\non-error = \"keep\"\n").unwrap();
    assert_eq!(Config::salvage(Some(&path)).registrations.on_error, OnError::Ban);
}

#[test]
fn a_missing_file_is_an_error_only_where_it_was_named() {
    let missing = Path::new("/nonexistent/ringfence.toml");
    let error = Config::load(Some(missing)).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "/nonexistent/ringfence.toml: cannot read the settings: it does not exist; create it"
        ),
        "{error}"
    );
    assert!(Config::load(Some(Path::new("/"))).unwrap_err().to_string().contains("it is a directory"));
}

#[test]
fn secrets_are_never_shown() {
    for text in [
        "postgres = 12345678",
        "postgres = [\"hunter2\"]",
        "event-socket = \"127.0.0.1:8021 hunter2\"",
        "event-socket = { password = 12345678 }",
        "event-socket = { password = hunter2 }",
    ] {
        let error = error(&format!("[registrations]\n{text}\n"));
        assert!(!error.contains("hunter2") && !error.contains("12345678"), "{error}");
    }
    let text = "[registrations]\npostgres = \"postgres://u:hunter2@h/d\"";
    let config = Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    assert_eq!(config.registrations.postgres.unwrap().reveal().unwrap(), "postgres://u:hunter2@h/d");
}

#[test]
fn a_secret_file_loses_only_its_line_break() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, " a b=\n").unwrap();
    assert_eq!(Secret::File(path.clone()).reveal().unwrap(), " a b=");
    std::fs::write(&path, "\n").unwrap();
    assert!(format!("{:#}", Secret::File(path).reveal().unwrap_err()).contains("it is empty"));
}
