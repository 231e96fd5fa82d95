use super::lists::Exempts;
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
        [fusionpbx]
        postgres = { file = "/etc/secret" }
        carriers = "off"
        [events]
        flood = 50
        metrics = "/m/ringfence.prom"
        [lists.voipbl]
        kind = "block"
        mode = "observe"
        url = "https://lists.example/voip"
        format = "plain"
        every = "1d"
        timeout = "2m"
        max-size = "1MiB"
        max-bad = "0%"
        max-shrink = "10%"
        max-growth = "1000%"
        [lists.apiban]
        kind = "block"
        format = "apiban"
        url = "https://apiban.example/api/"
        key = { file = "/etc/key" }
        [lists.au]
        kind = "allow"
        country = "AU"
        [lists.office]
        kind = "allow"
        entries = ["203.0.113.0/24", " 2001:db8::1 ", "192.0.2.1-192.0.2.9"]
        [lists.friends]
        kind = "allow"
        file = "/etc/friends"
        exempts = ["fail2ban"]
    "#;
    let config = Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap();
    assert_eq!(config.mode, Mode::Observe);
    assert_eq!(config.registrations_mode(), Mode::Enforce);
    assert_eq!(config.registrations.source, SourceKind::EventSocket);
    assert_eq!(config.registrations.stale_ok.get(), Duration::from_mins(150));
    assert_eq!(config.registrations.stale_ok.to_string(), "2h 30m");
    assert_eq!(config.fusionpbx.carriers, Carriers::Off);
    assert_eq!(config.events.flood.get(), 50);
    assert_eq!(config.events.metrics.as_ref().unwrap().path(), Path::new("/m/ringfence.prom"));
    let lists = &config.lists;
    assert_eq!(lists["voipbl"].mode, Some(Mode::Observe));
    assert_eq!(lists["voipbl"].max_growth.of(50), 500);
    assert!(matches!(&lists["au"].source, lists::Source::Web { urls, .. } if urls.len() == 2));
    assert!(matches!(&lists["office"].source, lists::Source::Entries(entries) if entries.len() == 3));
    assert_eq!((lists["au"].exempts, lists["office"].exempts), (Exempts::BLOCKLISTS, Exempts::ALL));
    assert!(lists["friends"].exempts.fail2ban && !lists["friends"].exempts.blocklists);
    assert!(lists["apiban"].is_foreign() && !lists["friends"].is_foreign());
    assert!(
        matches!(&config.registrations.event_socket.password, Some(Secret::File(file)) if file == Path::new("/etc/secret"))
    );
}

#[test]
fn a_list_has_one_source_and_only_keys_that_mean_something() {
    let url = "url = \"https://lists.example/\"";
    for (keys, says) in [
        ("", "1: lists.x: it comes from nowhere; give it a url, country, file or entries"),
        ("url = \"ftp://lists.example/\"", "1: lists.x: url must begin with https:// or http://"),
        (
            &format!("{url}\nfile = \"/x\""),
            "1: lists.x: url and file are two sources; make two lists of them",
        ),
        ("file = \"x\"", "1: lists.x: file = \"x\" must be an absolute path"),
        (
            "entries = [\"10.1\"]",
            "1: lists.x: entries: \"10.1\" is not an address, a network (address/prefix) or a range (first-last)",
        ),
        ("evry = \"4h\"", "3: unknown key `evry`; did you mean `every`?"),
        ("max-bad = \"5\"", "3: max-bad: \"5\" is not a share; write it like \"50%\", at most \"10000%\""),
        ("max-size = \"5 parsecs\"", "3: max-size: \"5 parsecs\" is not a size; write it like \"64MiB\""),
        ("max-size = \"500B\"", "3: max-size: \"500B\" is out of range; 1KiB to 1GiB are possible"),
        (
            "country = \"aus\"",
            "1: lists.x: country = \"aus\" is no country code; take two letters of ISO 3166, like \"au\"",
        ),
        (
            &format!("country = \"au\"\n{url}"),
            "1: lists.x: beside country, url must have {country} in it, where the code belongs",
        ),
        ("format = \"apiban\"", "1: lists.x: format = \"apiban\" needs a key"),
        (&format!("{url}\nkey = \"k\""), "1: lists.x: key belongs to format = \"apiban\" only"),
        ("key = 7", "3: key: expected a string, or { file = \"/path/to/the/secret\" }"),
        (&format!("{url}\nexempts = []"), "1: lists.x: exempts belongs to allow lists"),
        (
            &format!("{url}\nformat = \"spamhaus\"\nevery = \"10m\""),
            "1: lists.x: every = 10m is too often for Spamhaus; it asks for at most once an hour (1h)",
        ),
    ] {
        assert_eq!(error(&format!("[lists.x]\nkind = \"block\"\n{keys}")), format!("r.toml:{says}"));
    }
    let allow = format!("[lists.x]\nkind = \"allow\"\n{url}\n");
    assert_eq!(
        error(&(allow.clone() + "exempts = [\"limits\"]")),
        "r.toml:1: lists.x: exempts: who is exempt from \"limits\" never reaches the block lists; add \"blocklists\""
    );
    assert_eq!(
        error(&(allow + "mode = \"observe\"")),
        "r.toml:1: lists.x: mode belongs to block lists; an allow list blocks nothing"
    );
    assert!(error("[lists.X_y]\nkind = \"block\"").contains("\"X_y\" cannot be the name of a list"));
    assert!(error("[lists.carriers]\nkind = \"allow\"\nentries = []").contains("take another name"));
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
        ("[events]\nflood = 0", "r.toml:2: flood: 0 is out of range; 1 to 100000 are possible"),
        (
            "[events]\nmetrics = \"ringfence.txt\"",
            "r.toml:2: metrics: ringfence.txt must be an absolute path that ends in .prom: others are not collected",
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

#[test]
fn blocks_have_bounds() {
    let config = Config::parse(Path::new("r.toml"), b"").unwrap();
    assert_eq!(config.block.span.get(), Duration::from_hours(1));
    assert_eq!((config.block.max, config.block.only_exempt), (None, true));
    assert_eq!(config.block.log_prefix.get(), None);
    assert_eq!(config.firewall.sip_ports.to_string(), "5060:5061,5080:5081");
    assert_eq!(config.ledger_path(), Path::new("/var/lib/ringfence/ledger.db"));

    let text = r#"
        [block]
        mode = "observe"
        matcher = "auto"
        interfaces = ["eth0", "eth0.100"]
        for = "2d"
        tcp = "reset"
        log-prefix = "rf-block: "
        verify = "none"
        only-exempt = false
        max = 100000
        [ledger]
        url = "sqlite:///srv/l.db"
        [firewall]
        sip-ports = ["5060", "65000-65535"]
    "#;
    let config = Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap();
    assert_eq!(config.block_mode(), Mode::Observe);
    assert_eq!(config.block.log_prefix.get(), Some("rf-block: "));
    assert_eq!(config.block.interfaces.names(), ["eth0", "eth0.100"]);
    assert_eq!(config.firewall.sip_ports.to_string(), "5060,65000:65535");
    assert_eq!(config.ledger_path(), Path::new("/srv/l.db"));

    for (text, says) in [
        ("[block]\nfor = \"0s\"", "r.toml:2: for: \"0s\" is out of range; 1s to 365d are possible"),
        ("[block]\nmax = 0", "0 is out of range; 1 to 100000"),
        ("[block]\nlog-prefix = \"a\\\"b\"", "no quotes"),
        ("[block]\nlog-prefix = \"123456789012345678901234567890\"", "up to 29 characters"),
        ("[block]\nmatcher = \"ebpf\"", "unknown variant `ebpf`"),
        ("[block]\ninterfaces = [\"eth0\", \"a/b\"]", "\"a/b\" is no name of a network interface"),
        ("[block]\ninterfaces = [\"0123456789abcdef\"]", "is no name of a network interface"),
        ("[block]\ninterfaces = [\"\"]", "is no name of a network interface"),
        ("[block]\nonly_exempt = true", "did you mean `only-exempt`?"),
        ("[ledger]\nurl = \"postgres://u:hunter2@db/l\"", "not a ledger; write it like \"sqlite:///"),
        ("[ledger]\nurl = \"sqlite://l.db\"", "not a ledger"),
        ("[firewall]\nsip-ports = [\"5061-5060\"]", "\"5061-5060\" is no port"),
        ("[firewall]\nsip-ports = [\"+5060\"]", "\"+5060\" is no port"),
        ("[firewall]\nsip-ports = [\"0\"]", "\"0\" is no port"),
        ("[firewall]\nsip-ports = []", "no ports are named"),
    ] {
        let error = error(text);
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    let many: Vec<_> = (1..9).map(|at| format!("\"{at}0-{at}1\"")).collect();
    let error = error(&format!("[firewall]\nsip-ports = [{}]", many.join(", ")));
    assert!(error.contains("15 are possible"), "{error}");
}

#[test]
fn the_firewall_s_values_are_read_or_refused() {
    let parse = |text: &str| Config::parse("r.toml".as_ref(), format!("[firewall]\n{text}").as_bytes());
    let firewall = parse(
        "register-limit = \"20/minute\"\ninvite-limit = \"5/second burst 50\"\noptions-limit = \"off\"\n\
         limits = [{ ports = [\"22\", \"8000-8100\"], rate = \"6/hour burst 3\" }]\nagents = [\"friendly-scanner\"]\n\
         slamming-for = \"5m\"\nallow-means = \"accept\"\nconnection-tracking = \"off\"",
    )
    .unwrap()
    .firewall;
    assert_eq!(firewall.register_limit.rate().unwrap().to_string(), "20/minute burst 20");
    assert_eq!(firewall.invite_limit.rate().unwrap().memory().as_secs(), 10);
    assert_eq!(firewall.options_limit.rate(), None);
    assert_eq!(firewall.limits[0].rate.memory().as_secs(), 1800);
    assert_eq!(firewall.limits[0].ports.to_string(), "22,8000:8100");
    assert!(
        firewall.limits[0].ports.meets(&parse("sip-ports = [\"7000-8000\"]").unwrap().firewall.sip_ports)
    );
    for (text, said) in [
        ("register-limit = \"fast\"", "\"fast\" is no rate; write it like \"20/minute burst 40\""),
        ("register-limit = \"0/minute\"", "is no rate"),
        ("register-limit = \"20/week\"", "is no rate"),
        ("register-limit = \"20/minute burst +4\"", "is no rate"),
        ("register-limit = \"20000/minute\"", "with at most 10000 of each"),
        ("limits = [{ ports = [\"5060\"], rate = \"1/minute\" }]", "are among those of SIP"),
        ("limits = [{ ports = [\"22\"] }]", "missing field `rate`"),
        ("limits = [{ ports = [\"4560-4570\"], rate = \"1/minute\" }]", "see iax-limit"),
        ("register-limit = \"1/hour burst 10000\"", "takes more than a day"),
        ("restrict = [{ ports = [\"22\"], to = [] }]", "are restricted to nobody"),
        ("restrict = [{ ports = [], to = [\"au\"] }]", "no ports are named"),
        ("agents = [\"ab\"]", "cannot be looked for"),
        ("agents = [\"r\u{e4}uber\"]", "cannot be looked for"),
        ("slamming-for = \"0s\"", "out of range"),
        ("allow-means = \"drop\"", "expected `return` or `accept`"),
    ] {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
    let many = format!("agents = {:?}", vec!["abc"; 33]);
    assert!(parse(&many).unwrap_err().to_string().contains("32 are possible"));
}

#[test]
fn what_only_rules_can_do_is_not_asked_of_the_program() {
    for (text, said) in [
        ("matcher = \"bpf\"\ntcp = \"reset\"", Some("has tcp, which only rules of iptables can do")),
        ("matcher = \"bpf\"\nlog-prefix = \"blocked \"", Some("has log-prefix, which only rules")),
        ("matcher = \"bpf\"\ntcp = \"off\"\nlog-prefix = \"\"", None),
        ("matcher = \"auto\"\ntcp = \"reset\"", None),
        ("matcher = \"strings\"\ntcp = \"reset\"", None),
    ] {
        let error = Config::parse(Path::new("test.toml"), format!("[block]\n{text}").as_bytes()).err();
        let error = error.map(|error| error.to_string());
        assert_eq!(error.is_some(), said.is_some(), "{text}: {error:?}");
        assert!(error.is_none_or(|error| error.contains(said.unwrap())), "{text}");
    }
}
