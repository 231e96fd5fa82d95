//! `ringfence report`: the page, from the logs of a made world with hostile accounts, and in a real browser.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Value, json};

use crate::support::{Browser, Call, World, call, sqlite};

/// Names that want to be more than text.
const HOSTILE: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"onload=\"alert(2)",
    "' onmouseover='alert(3)",
    "javascript:alert(4)",
    "</style><img src=x onerror=alert(5)>",
    "<svg/onload=alert(6)>",
    "]]><!--&lt;script&gt;",
    "${alert(7)}{{8}}\u{202e}gnp",
];

/// The office whose phones fail, and the customer's.
const OFFICE: &str = "203.0.113.20";
const OTHER_OFFICE: &str = "203.0.113.77";
const LONG: &str =
    "a-very-long-user-name-without-a-single-place-to-break-it-0123456789-0123456789-0123456789";

/// A line of the journal, so many minutes ago.
fn decision(
    minutes: i64,
    [tool, subject, decision, reason, source, detail]: [&str; 6],
    count: u32,
) -> String {
    let when = Timestamp::now() - SignedDuration::from_mins(minutes);
    let mut line = json!({
        "when": when.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(), "tool": tool, "subject": subject,
        "decision": decision, "reason": reason, "source": source, "count": count,
    });
    if !detail.is_empty() {
        line["detail"] = detail.into();
    }
    // The time comes first, as the tools write it.
    let rest = line.as_object_mut().unwrap();
    let when = rest.remove("when").unwrap();
    let rest = serde_json::to_string(rest).unwrap();
    format!("{{\"when\":{when},{}\n", &rest[1..])
}

/// A line of the event log, so many minutes ago.
fn failure(minutes: i64, kind: &str, address: &str, [user, domain, agent]: [&str; 3], known: &str) -> String {
    let escaped = |text: &str| {
        text.bytes().fold(String::new(), |mut escaped, byte| {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'+' | b'-' => {
                    escaped.push(byte.into());
                }
                _ => write!(escaped, "%{byte:02X}").unwrap(),
            }
            escaped
        })
    };
    let time = Timestamp::now() - SignedDuration::from_mins(minutes);
    let agent = if agent.is_empty() { "-".to_owned() } else { escaped(agent) };
    let account = format!("{}@{}", escaped(user), escaped(domain));
    let id = if known == "yes" { format!(" id={account},{address}") } else { String::new() };
    format!(
        "{} v1 {kind} address={address} method=REGISTER account={account} known={known}{id} profile=internal agent={agent}\n",
        time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ"),
    )
}

/// A host with a week of history: an office behind one address, another customer's, attackers, and people with odd names.
fn world() -> World {
    let world = World::with_databases();
    let path = |name: &str| world.path(name).display().to_string();
    std::fs::write(world.path("bad"), "198.51.100.0/26\n192.0.2.0/24\n").unwrap();
    std::fs::write(world.path("nl.zone"), "198.51.100.0/25\n").unwrap();
    std::fs::write(world.path("de.zone"), "198.51.100.128/26\n2001:db8::/32\n").unwrap();
    world.configure_lists(&format!(
        "[lists.voipbl]\nkind = \"block\"\nfile = {:?}\n\
         [lists.nl]\nkind = \"allow\"\nfile = {:?}\nexempts = []\n\
         [lists.de]\nkind = \"allow\"\nfile = {:?}\nexempts = []\n\
         [lists.my]\nkind = \"allow\"\nentries = [\"192.0.2.200\"]\nexempts = []\n\
         [lists.secret-customer]\nkind = \"allow\"\nentries = [\"{OTHER_OFFICE}\"]\n\
         [fail2ban]\ndatabase = {:?}\n",
        path("bad"),
        path("nl.zone"),
        path("de.zone"),
        path("fail2ban.sqlite3"),
    ));
    world.register("sofia_reg_internal.db", OFFICE, 3600);
    let mut events = String::new();
    for (at, hostile) in HOSTILE.iter().enumerate() {
        let minutes = 60 * i64::try_from(at).unwrap() + 5;
        events += &failure(minutes, "failure", OFFICE, [hostile, "a.example.com", hostile], "no");
        events += &failure(minutes, "failure", "198.51.100.3", [hostile, hostile, hostile], "no");
    }
    for minutes in 0..40 {
        events += &failure(
            minutes * 7,
            "failure",
            OFFICE,
            ["104", "a.example.com", "Yealink SIP-T46S 66.85.0.5"],
            "yes",
        );
        events += &failure(minutes * 9, "failure", OTHER_OFFICE, ["secret", "b.example.com", "Snom"], "no");
    }
    events += &failure(3, "failure", OFFICE, [LONG, "a.example.com", LONG], "no");
    events += &failure(2, "excused", OFFICE, ["104", "a.example.com", ""], "no");
    std::fs::create_dir_all(world.path("log/events")).unwrap();
    std::fs::write(world.path("log/events/events.log"), events).unwrap();

    let mut journal = String::new();
    for minute in (0..10_000).step_by(97) {
        let subject = format!("198.51.100.{}", minute * 7 % 250);
        let jail = ["ringfence-freeswitch", "ringfence-freeswitch", "sshd", "ringfence-web", "<img src=x>"]
            [minute % 5];
        let minutes = i64::try_from(minute).unwrap();
        journal += &decision(minutes, ["ringfence-ban", &subject, "ban", "jail", jail, "for 10m"], 1);
        if minute % 3 == 0 {
            let account = format!("{minute}@a.example.com");
            journal +=
                &decision(minutes, ["ringfence-block", &account, "block", "unknown-account", "sip", ""], 1);
        }
        if minute % 7 == 0 {
            let device = format!("104@b.example.com,{OTHER_OFFICE}");
            journal +=
                &decision(minutes, ["ringfence-block", &device, "block", "failing-device", "sip", ""], 1);
        }
    }
    for (minutes, line, count) in [
        (500, ["ringfence-ignore", OFFICE, "keep", "registered", "sqlite", ""], 40),
        (400, ["ringfence-ignore", OTHER_OFFICE, "keep", "allow-list", "allow-list", "secret-customer"], 12),
        (300, ["ringfence-ban", "198.51.100.7", "ban", "jail", "sshd", "for 1d"], 1),
        (200, ["ringfence-ban", "198.51.100.7", "unban", "jail", "sshd", ""], 1),
        (
            150,
            [
                "ringfence-block",
                "<script>alert(9)</script>@a.example.com",
                "unblock",
                "by-hand",
                "by hand",
                "",
            ],
            1,
        ),
        (140, ["ringfence-block", "777@a.example.com", "unblock", "account-exists", "sip", ""], 1),
        (130, ["ringfence-block", "secret@b.example.com", "unblock", "by-hand", "by hand", ""], 1),
    ] {
        journal += &decision(minutes, line, count);
    }
    // In the order of their times.
    let mut lines: Vec<_> = journal.lines().collect();
    lines.sort_unstable();
    std::fs::write(world.path("log/decisions.jsonl"), lines.join("\n") + "\n").unwrap();
    sqlite(
        &world.path("fail2ban.sqlite3"),
        "CREATE TABLE bans (jail TEXT NOT NULL, ip TEXT, timeofban INTEGER NOT NULL, bantime INTEGER NOT NULL, \
         bancount INTEGER NOT NULL default 1, data JSON);
         INSERT INTO bans (jail, ip, timeofban, bantime) VALUES ('postfix', '192.0.2.9', unixepoch() - 7200, 600), \
         ('postfix', '2001:db8::9', unixepoch() - 7200, 600), ('sip', '999@a.example.com', unixepoch() - 7200, 600), \
         ('sshd', '198.51.100.7', unixepoch() - 300 * 60, 86400);",
    );
    let fetched = world.lists(&["fetch"]);
    assert_eq!(fetched.code, 0, "{fetched:?}");
    packets(&world, "dropped");
    world
}

/// A record of packets of each kind over the week, of which this hour's were dropped, or would have been.
fn packets(world: &World, what: &str) {
    const REASONS: [(&str, u64); 9] = [
        ("block-list", 48_211),
        ("ban ringfence-freeswitch", 9_120),
        ("account", 731),
        ("limit REGISTER", 42),
        ("limit new connections to 443,8443 (tcp)", 17),
        ("going-on", 5_230),
        ("scanner <script>alert(8)</script>", 88),
        ("restriction 5080,5081,20000-30000 to au,nl,a-very-long-list", 310),
        ("hardening", 3),
    ];
    let hour = |back: i64| {
        let begin = Timestamp::now() - SignedDuration::from_hours(back);
        let packets = |at: i64, most: u64| most * u64::try_from((at * 37 + back * 11) % 23).unwrap() / 23;
        let totals: Value = (0..)
            .zip(REASONS)
            .map(|(at, (reason, most))| (reason.to_owned(), packets(at, most).into()))
            .filter(|(_, packets): &(String, Value)| *packets != 0)
            .collect::<serde_json::Map<_, _>>()
            .into();
        let hour = begin.as_second() / 3_600 * 3_600;
        json!({"hour": Timestamp::from_second(hour).unwrap(), "first": begin, what: totals})
    };
    let mut lines = String::new();
    for back in (1..10 * 24).rev() {
        writeln!(lines, "{}", hour(back)).unwrap();
    }
    let mut now = hour(0);
    let more = json!({"begun": Timestamp::now() - SignedDuration::from_hours(240), "all": {}, "rules": null, "map": null});
    now.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::create_dir_all(world.path("state/drops")).unwrap();
    std::fs::write(world.path("state/drops/hours.jsonl"), lines).unwrap();
    std::fs::write(world.path("state/drops/now.json"), now.to_string()).unwrap();
}

fn report(world: &World, args: &[&str]) -> Call {
    call(world.admin_command(&["report"]).args(args).env("TZ", "UTC"))
}

/// The page, in a file of the world.
fn page(world: &World, args: &[&str]) -> (PathBuf, String) {
    let file = world.path("page.html");
    let done = report(world, &[&["--html", file.to_str().unwrap()], args].concat());
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{done:?}");
    let text = std::fs::read_to_string(&file).unwrap();
    (file, text)
}

/// What the page is made of.
const ELEMENTS: [&str; 39] = [
    "html",
    "head",
    "meta",
    "title",
    "style",
    "body",
    "main",
    "header",
    "footer",
    "section",
    "div",
    "h1",
    "h2",
    "h3",
    "p",
    "dl",
    "dt",
    "dd",
    "ul",
    "li",
    "figure",
    "svg",
    "desc",
    "rect",
    "line",
    "text",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "small",
    "bdi",
    "details",
    "summary",
    "caption",
    "wbr",
    "figcaption",
];
const ATTRIBUTES: [&str; 24] = [
    "lang",
    "charset",
    "http-equiv",
    "content",
    "name",
    "class",
    "id",
    "aria-labelledby",
    "aria-label",
    "aria-hidden",
    "role",
    "scope",
    "viewBox",
    "preserveAspectRatio",
    "x",
    "y",
    "x1",
    "y1",
    "x2",
    "y2",
    "width",
    "height",
    "text-anchor",
    "title",
];

/// The text of a page that is well-formed XML, of known elements and attributes only.
fn text_of(page: &str) -> String {
    let known = |start: &BytesStart<'_>| {
        let name = String::from_utf8(start.name().as_ref().to_vec()).unwrap();
        assert!(ELEMENTS.contains(&name.as_str()), "<{name}>");
        for attribute in start.attributes() {
            let name = String::from_utf8(attribute.unwrap().key.as_ref().to_vec()).unwrap();
            assert!(ATTRIBUTES.contains(&name.as_str()), "{name}=");
        }
    };
    let mut reader = Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let mut text = String::new();
    loop {
        match reader.read_event().unwrap() {
            Event::Start(start) => {
                known(&start);
                text.push('\n');
            }
            Event::Empty(start) => known(&start),
            Event::Text(piece) => text += &piece.decode().unwrap(),
            Event::GeneralRef(reference) => {
                let name = reference.decode().unwrap();
                text += match name.as_ref() {
                    "lt" => "<",
                    "gt" => ">",
                    "amp" => "&",
                    "quot" => "\"",
                    "apos" => "'",
                    other => panic!("&{other};"),
                };
            }
            Event::End(_) => {}
            Event::DocType(kind) => assert_eq!(kind.decode().unwrap(), "html"),
            Event::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    text
}

#[test]
fn says_what_was_blocked_and_escapes_what_others_wrote() {
    let world = world();
    let (file, page) = page(&world, &[]);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o640);
    assert!(!world.path("page.html.new").exists());
    let text = text_of(&page);
    for hostile in HOSTILE {
        let shown = hostile.replace('\u{202e}', "\u{fffd}");
        assert!(text.contains(&format!("\n{shown}@a.example.com\n")), "{hostile}: {text}");
    }
    for said in [
        LONG,
        "Kept working",
        "postfix",
        "<img src=x>",
        "Account that does not exist",
        "Packets dropped per day",
        "Going on above a limit",
        "<script>alert(8)</script>",
        "Netherlands",
        "Germany",
        "left alone: a phone is registered there",
        "left alone: on the list ",
        "Ban lifted before its time",
        "<script>alert(9)</script>@a.example.com",
        "Account block ended: the account exists now",
        "Failure excused: part of an alarm",
        "Times are in UTC.",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert!(!page.contains("<script") && !page.contains("style=") && !page.contains("href"));

    let json: Value = serde_json::from_str(&report(&world, &["--json"]).stdout).unwrap();
    let reasons = json["reasons"].as_array().unwrap();
    let of =
        |name: &str| reasons.iter().find(|reason| reason["name"] == name).map(|reason| &reason["blocks"]);
    // One of them is in the journal, too, and an account is no address.
    assert_eq!(of("postfix"), Some(&2.into()));
    assert_eq!(of("sip"), None);
    assert_eq!(
        json["kept"],
        json!({"addresses": 2, "times": 52, "reasons": {"allow-list": 12, "registered": 40}})
    );
    let columns = json["columns"].as_array().unwrap();
    assert!((8..=9).contains(&columns.len()) && json["step"] == "day", "{columns:?}");
    let blocks =
        |counts: &Value| ["addresses", "accounts", "devices"].map(|kind| counts[kind].as_u64().unwrap());
    let sum = columns
        .iter()
        .map(|column| blocks(&column["blocks"]))
        .fold([0; 3], |sum, counts| std::array::from_fn(|at| sum[at] + counts[at]));
    assert_eq!(sum, blocks(&json["blocks"]));
    assert_eq!(json["unread"], json!([]));
    let lists = json["lists"].as_array().unwrap();
    let list = |name: &str| lists.iter().find(|list| list["name"] == name).unwrap();
    assert_eq!((&list("secret-customer")["kept"], &list("nl")["country"]), (&12.into(), &"NL".into()));
    assert_eq!(list("my")["country"], json!(null), "what is kept by hand is no country's");
    assert!(list("voipbl")["blocked"].as_u64().unwrap() > 10);
}

#[test]
fn a_customers_copy_names_nobody_else() {
    let world = world();
    let (_, page) = page(&world, &["--domain", "A.Example.com"]);
    let text = text_of(&page);
    for said in ["for a.example.com", "104@a.example.com", OFFICE, "777@a.example.com", "198.51.100.3"] {
        // The attacker's address is in no table of the page; that he was banned counts.
        assert!(said == "198.51.100.3" || text.contains(said), "{said}: {text}");
    }
    for secret in
        ["b.example.com", "secret", OTHER_OFFICE, "Snom", "sshd", "postfix", "left alone: a phone", "log/"]
    {
        assert!(!page.contains(secret), "{secret}: {text}");
    }
    assert!(text.contains("; left alone"), "{text}");
    let json = report(&world, &["--json", "-d", "b.example.com"]).stdout;
    assert!(json.contains("secret@b.example.com") && !json.contains("a.example.com"), "{json}");
    assert!(json.contains("left-alone"), "{json}");
    assert!(
        json.contains(OTHER_OFFICE) && !json.contains(OFFICE) && !json.contains("secret-customer"),
        "{json}"
    );
}

#[test]
fn what_cannot_be_read_is_said_and_the_rest_is_shown() {
    let world = world();
    std::fs::set_permissions(world.path("log/events"), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::write(world.path("fail2ban.sqlite3"), "no database").unwrap();
    let mut journal = std::fs::read_to_string(world.path("log/decisions.jsonl")).unwrap();
    journal += "<b>nonsense</b>\n";
    std::fs::write(world.path("log/decisions.jsonl"), journal).unwrap();
    let done = report(&world, &["--html", "-"]);
    assert_eq!(done.code, 1, "{done:?}");
    let text = text_of(&done.stdout);
    for said in [
        "Not everything could be read",
        "others could have written it",
        "Bans: cannot read fail2ban's database",
        "1 line is none of the format of",
        "could not be read",
        "ringfence-freeswitch",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    assert_eq!(done.stderr.lines().count(), 3, "{}", done.stderr);
    let copy = world.path("state/lists/secret-customer.copy");
    std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
    std::fs::write(copy, "damaged").unwrap();
    let done = report(&world, &["--html", "-", "-d", "a.example.com"]);
    let text = text_of(&done.stdout);
    assert!(text.contains("What was blocked in the last 7 days cannot be said."), "{text}");
    // A customer is told that, and not of what; who keeps the host is.
    assert!(
        text.contains("Not all lists could be read.") && done.stderr.contains("List secret-customer: "),
        "{done:?}"
    );
    let json = report(&world, &["--json", "-d", "a.example.com"]).stdout;
    for secret in ["secret", "sqlite3", "decisions.jsonl", "ringfence-"] {
        let unread = &serde_json::from_str::<serde_json::Value>(&json).unwrap()["unread"];
        assert!(!unread.to_string().contains(secret), "{unread}");
    }
    assert!(!text.contains("secret") && !text.contains("/log"), "{text}");
}

#[test]
fn nothing_is_overwritten_but_files() {
    let world = World::with_databases();
    for (path, says) in [
        ("/dev/stdout".to_owned(), "no regular file"),
        (world.dir().display().to_string(), "no regular file"),
        (world.path("missing/page.html").display().to_string(), "cannot write"),
    ] {
        let refused = report(&world, &["--html", &path]);
        assert!(refused.code == 2 && refused.stderr.contains(says), "{refused:?}");
    }
    assert!(Path::new("/dev/stdout").is_symlink());
    for args in [&[][..], &["--html", "-", "--json"], &["--html", "-", "--since", "0"]] {
        assert_eq!(report(&world, args).code, 2, "{args:?}");
    }
}

#[test]
fn a_browser_shows_it_and_runs_nothing() {
    let world = world();
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&pictures).unwrap();
    let empty = World::with_databases();
    empty.configure_lists(&format!("[fail2ban]\ndatabase = {:?}\n", empty.path("none")));
    std::fs::create_dir_all(empty.path("log/events")).unwrap();
    std::fs::write(empty.path("log/events/events.log"), "").unwrap();
    let observed;
    let pages = [
        ("whole", page(&world, &[]).0),
        ("hours", {
            let file = world.path("hours.html");
            assert_eq!(report(&world, &["--since", "2d", "--html", file.to_str().unwrap()]).code, 0);
            file
        }),
        ("empty", page(&empty, &[]).0),
        ("observed", {
            observed = World::with_databases();
            packets(&observed, "observed");
            let file = observed.path("observed.html");
            assert!(report(&observed, &["--since", "3h", "--html", file.to_str().unwrap()]).code < 2);
            file
        }),
    ];
    let mut browser = Browser::start();
    for (name, file) in &pages {
        for width in [360, 768, 1280] {
            for scheme in ["light", "dark"] {
                let odd = browser.open(file, width, scheme);
                assert!(odd.is_empty(), "{name} {width} {scheme}: {odd:?}");
                let shown = |expression: &str, browser: &mut Browser| browser.evaluate(expression);
                assert_eq!(shown("innerWidth", &mut browser), width);
                let overflowing = "[...document.querySelectorAll('*')].filter(e => e.getBoundingClientRect().right > innerWidth + 0.5)\
                                   .map(e => e.tagName + ' ' + e.textContent.slice(0, 40))";
                let wide = shown("document.documentElement.scrollWidth", &mut browser);
                assert!(
                    wide.as_u64().unwrap() <= width.into(),
                    "{name} {width}: {wide}, {}",
                    shown(overflowing, &mut browser)
                );
                assert_eq!(shown(overflowing, &mut browser), json!([]), "{name} {width}");
                shown("document.querySelectorAll('details').forEach(e => e.open = true)", &mut browser);
                assert_eq!(shown(overflowing, &mut browser), json!([]), "{name} {width}, all open");
                shown("document.querySelectorAll('details').forEach(e => e.open = false)", &mut browser);
                assert_eq!(shown("document.scripts.length + document.images.length", &mut browser), 0);
                // The policy lets our own style through.
                let background = shown("getComputedStyle(document.body).backgroundColor", &mut browser);
                let expected = if scheme == "light" { "rgb(255, 255, 255)" } else { "rgb(17, 21, 26)" };
                assert_eq!(background, expected);
                std::fs::write(pictures.join(format!("{name}-{width}-{scheme}.png")), browser.picture())
                    .unwrap();
            }
        }
    }
    let charts = browser_charts(&mut browser, &pages[0].1);
    assert_eq!(charts, Value::Array(vec![json!(["img", true, true]); 9]), "one of blocks, eight of packets");
    let paper = browser.paper();
    assert!(paper.starts_with(b"%PDF-"));
    std::fs::write(pictures.join("whole.pdf"), paper).unwrap();
    // Whatever somebody put into the page, the policy lets nothing run.
    browser.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\"><p id=p style=\"color: red\">')",
    );
    browser.evaluate("new Promise(done => setTimeout(done, 200))");
    assert_eq!(browser.evaluate("window.ran ?? 0"), 0);
}

/// Of each chart that is to be seen: its role, and whether its title and description are there.
fn browser_charts(browser: &mut Browser, file: &Path) -> Value {
    browser.open(file, 1280, "light");
    browser.evaluate(
        "[...document.querySelectorAll('svg.columns')].filter(e => e.checkVisibility()).map(e => [e.getAttribute('role'), \
         ...e.getAttribute('aria-labelledby').split(' ').map(id => document.getElementById(id).textContent.length > 10)])",
    )
}
