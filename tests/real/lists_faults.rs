//! `ringfence-lists fetch` against sources that fail, lie and attack: the last good copy stays, in one clear line.

use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringfence::feeds::copy::Copy;
use ringfence::feeds::dated::Dated;
use ringfence::feeds::store::Store;
use serde_json::{Value, json};

use crate::support::{
    Call, Certificate, Host, Http, Reply, World, call, copy_program, gzip, gzip_bomb, now, run, second,
    wait_for, xz,
};

const GOOD: &[u8] = b"198.51.100.7\n203.0.113.9\n";
const NOBODY: u32 = 65_534;

/// A block list from this address, and other keys of it.
fn list(name: &str, url: &str, keys: &str) -> String {
    format!("[lists.{name}]\nkind = \"block\"\nurl = \"{url}\"\n{keys}\n")
}

/// A host with one list, `x`, from the path `/x`.
fn one(http: &Http, keys: &str) -> World {
    let world = World::empty();
    world.configure_lists(&list("x", &http.url("/x"), keys));
    world
}

fn ok(body: &str) -> Reply {
    Reply::Ok(body.into())
}

fn status(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Reply::Status(status, headers.collect(), body.into())
}

/// What standard error says, without what differs from run to run.
fn said(call: &Call, world: &World) -> Vec<String> {
    let dir = world.dir().display().to_string();
    call.stderr.lines().map(|line| plain(line).replace(&dir, "DIR")).collect()
}

fn plain(text: &str) -> String {
    let text = text.strip_prefix("ringfence-lists: ").unwrap_or(text);
    let (mut plain, mut rest) = (String::new(), text);
    while let Some(at) = rest.find("://127.0.0.1:") {
        let (before, after) = rest.split_at(at + "://127.0.0.1".len());
        plain += before;
        rest = after[1..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    plain += rest;
    match (plain.find("; its copy of "), plain.find(" ago stays in use")) {
        (Some(from), Some(to)) if plain[from + 14..to].ends_with('s') => plain[..from].to_owned() + "; copy",
        _ => plain,
    }
}

/// Fetches, which must go well and say nothing.
#[track_caller]
fn fetches(world: &World, args: &[&str]) {
    let call = world.lists(&[&["fetch"], args].concat());
    assert_eq!((call.code, call.stdout.as_str(), call.stderr.as_str()), (0, "", ""));
}

/// Fetches, which must end so, and what it says.
#[track_caller]
fn fails(world: &World, args: &[&str], code: i32) -> Vec<String> {
    let call = world.lists(&[&["fetch"], args].concat());
    assert_eq!((call.code, call.stdout.as_str()), (code, ""), "{}", call.stderr);
    said(&call, world)
}

fn shown(world: &World) -> Value {
    let call = world.lists(&["show", "--json"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    serde_json::from_str(&call.stdout).unwrap()
}

/// What is shown of the list.
fn about(world: &World, name: &str) -> Value {
    let shown = shown(world);
    let list = shown["lists"].as_array().unwrap().iter().find(|list| list["name"] == name);
    list.unwrap_or_else(|| panic!("{shown}")).clone()
}

/// The lists that have an address, and whether it is blocked.
#[track_caller]
fn found(world: &World, address: &str) -> (Vec<String>, bool) {
    let call = world.lists(&["show", address, "--json"]);
    assert_eq!(call.stderr, "");
    let shown: Value = serde_json::from_str(&call.stdout).unwrap();
    let names = shown["lists"].as_array().unwrap().iter().map(|list| list["name"].as_str().unwrap().into());
    let names: Vec<String> = names.collect();
    assert_eq!(call.code == 0, !names.is_empty());
    (names, shown["verdict"] == "blocked")
}

#[track_caller]
fn blocks(world: &World, address: &str) -> bool {
    found(world, address).1
}

/// The result of each list in a dry run.
#[track_caller]
fn dry_run(world: &World, args: &[&str]) -> BTreeMap<String, String> {
    let call = world.lists(&[&["fetch", "--dry-run"], args].concat());
    assert!(call.stdout.ends_with("This was a dry run: nothing was changed.\n"), "{call:?}");
    let rows = call.stdout.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() == 6).map(|row| (row[0].to_owned(), row[2].to_owned())).collect()
}

/// All files below a directory, with their content.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

fn paths(http: &Http) -> Vec<String> {
    http.requests().into_iter().map(|request| request.path).collect()
}

/// Makes the last good answer older.
fn age(world: &World, name: &str, seconds: i64) {
    let path = world.path("state/lists/status.json");
    let mut status: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let confirmed = &mut status["lists"][name]["confirmed"];
    *confirmed = json!(confirmed.as_i64().unwrap() - seconds);
    std::fs::write(path, status.to_string()).unwrap();
}

/// Lists, what becomes of their sources, and what is said of that.
fn faults(http: &Http) -> Vec<(&'static str, Reply, &'static str)> {
    let good = || GOOD.to_vec();
    vec![
        ("hang", Reply::Hang, "http://127.0.0.1 does not answer in full within the timeout"),
        ("dribble", Reply::Dribble(good()), "http://127.0.0.1 does not answer in full within the timeout"),
        (
            "cut",
            Reply::Cut { body: good(), at: 13 },
            "http://127.0.0.1 does not answer in full: end of file before message length reached",
        ),
        (
            "cut-chunked",
            Reply::CutChunked { body: good(), at: 13 },
            "http://127.0.0.1 does not answer in full: unexpected EOF during chunk size line",
        ),
        (
            "says-more",
            Reply::WrongLength { body: good(), says: 30 },
            "http://127.0.0.1 does not answer in full: end of file before message length reached",
        ),
        (
            "says-less",
            Reply::WrongLength { body: good(), says: 20 },
            "1 of its 2 lines cannot be read, more than max-bad (5%) allows: line 2 \"203.0.1\"",
        ),
        ("html", ok("<!DOCTYPE html>\n<p>198.51.100.7"), "it is a web page (HTML), not a list"),
        ("html-gzip", Reply::Ok(gzip(b" <html>\n198.51.100.7\n")), "it is a web page (HTML), not a list"),
        ("s500", status(500, &[], "198.51.100.7\n"), "http://127.0.0.1 answers 500 Internal Server Error"),
        (
            "s503",
            status(503, &[("retry-after", "3600")], ""),
            "http://127.0.0.1 answers 503 Service Unavailable",
        ),
        ("s404", status(404, &[], "198.51.100.7\n"), "http://127.0.0.1 answers 404 Not Found"),
        ("s204", status(204, &[], ""), "http://127.0.0.1 answers 204 No Content"),
        ("s206", status(206, &[], "198.51.100.7\n"), "http://127.0.0.1 answers 206 Partial Content"),
        ("s999", status(999, &[], "198.51.100.7\n"), "http://127.0.0.1 answers 999 <unknown status code>"),
        (
            "circle",
            Reply::Redirect(http.url("/circle")),
            "http://127.0.0.1 redirects wrongly: it redirects in circles",
        ),
        (
            "ftp",
            Reply::Redirect("ftp://127.0.0.1/x".into()),
            "http://127.0.0.1 redirects wrongly: it redirects to what is neither http nor https",
        ),
        ("file", Reply::Redirect("file:///etc/hosts".into()), "http://127.0.0.1 answers 302 Found"),
        ("nowhere", Reply::Redirect("http://[".into()), "http://127.0.0.1 answers 302 Found"),
        ("no-location", status(302, &[], "198.51.100.7\n"), "http://127.0.0.1 answers 302 Found"),
        (
            "bomb",
            Reply::Ok(gzip_bomb(500 << 20)),
            "cannot unpack it (gzip): it is larger than max-size (1.0 MiB)",
        ),
        (
            "cut-gzip",
            Reply::Ok(gzip(GOOD)[..20].to_vec()),
            "cannot unpack it (gzip): incomplete deflate stream",
        ),
        (
            "endless",
            Reply::Endless(b"198.19.2.1\n".to_vec()),
            "http://127.0.0.1 sends more than max-size (1.0 MiB)",
        ),
        ("huge", Reply::Huge(10_000_000_000), "http://127.0.0.1 sends more than max-size (1.0 MiB)"),
        (
            "lies304",
            Reply::Always304,
            "http://127.0.0.1 answers 304 (not modified), and was not asked for that",
        ),
        (
            "reset",
            Reply::Reset,
            "http://127.0.0.1 does not answer in full: Connection reset by peer (os error 104)",
        ),
        ("garbage", Reply::Garbage, "http://127.0.0.1 does not answer in full: invalid HTTP version parsed"),
        (
            "no-answer",
            Reply::Gone,
            "http://127.0.0.1 does not answer in full: connection closed before message completed",
        ),
        ("empty", ok(""), "it is empty"),
        ("blank", ok("\u{feff}\r\n \n"), "it is empty"),
        ("comments", ok("# none\n; today\n"), "it has no entries"),
        (
            "bad",
            ok("198.51.100.7\nlocalhost\n10.1\n# x\n\x1b[2J\u{202e}\u{7}\nx y\n"),
            "4 of its 5 lines cannot be read, more than max-bad (5%) allows: line 2 \"localhost\", line 3 \"10.1\", line 5 \"\u{fffd}[2J\u{fffd}\u{fffd}\", ...",
        ),
    ]
}

#[test]
fn a_list_that_moves_to_where_nobody_is_begins_anew() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    fetches(&world, &[]);
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    world.configure_lists(&list("x", &format!("http://{gone}/"), ""));
    assert_eq!(
        fails(&world, &[], 1),
        [
            "x: refused: http://127.0.0.1 cannot be reached: Connection refused (os error 111); there is no copy of it yet"
        ]
    );
    assert!(!blocks(&world, "203.0.113.9"));
    // And what one's customers were on is not blocked because the list is now meant otherwise.
    std::fs::write(world.path("own"), "198.51.100.7\n").unwrap();
    let own = |kind: &str, place: &str| format!("[lists.own]\nkind = \"{kind}\"\n{place}\n");
    world.configure_lists(&own("allow", &format!("file = {:?}", world.path("own"))));
    fetches(&world, &[]);
    world.configure_lists(&own("block", &format!("url = \"http://{gone}/\"")));
    assert_eq!(fails(&world, &[], 1).len(), 1);
    assert!(!blocks(&world, "198.51.100.7"));
}

#[test]
fn whatever_a_server_does_the_last_good_copy_stays() {
    let http = Http::start();
    let cases = faults(&http);
    let world = World::empty();
    let lists = cases.iter().map(|(name, ..)| {
        list(name, &http.url(&format!("/{name}")), "max-size = \"1MiB\"\ntimeout = \"3s\"")
    });
    world.configure_lists(&lists.collect::<String>());
    for (name, ..) in &cases {
        http.serve(&format!("/{name}"), Reply::Ok(GOOD.to_vec()));
    }
    fetches(&world, &[]);
    let mut names: Vec<&str> = cases.iter().map(|(name, ..)| *name).collect();
    names.sort_unstable();
    assert_eq!(found(&world, "203.0.113.9").0, names);

    for (name, reply, _) in &cases {
        http.serve(&format!("/{name}"), reply.clone());
    }
    let only: Vec<&str> = names.iter().flat_map(|name| ["--only", name]).collect();
    let said = fails(&world, &only, 1);
    let cases_by_name: BTreeMap<_, _> = cases.iter().map(|(name, _, says)| (*name, *says)).collect();
    let line = |(name, says): (&&str, &&str)| format!("{name}: refused: {says}; copy");
    assert_eq!(said, cases_by_name.iter().map(line).collect::<Vec<_>>(), "{said:#?}");

    for list in shown(&world)["lists"].as_array().unwrap() {
        let (_, _, says) = cases.iter().find(|(name, ..)| list["name"] == *name).unwrap();
        assert_eq!(
            (&list["ipv4"], plain(list["refused"].as_str().unwrap())),
            (&json!(2), (*says).to_owned())
        );
    }
    assert_eq!(found(&world, "198.51.100.7"), (names.iter().map(|&name| name.to_owned()).collect(), true));
    let refused = world.journal().into_iter().filter(|line| line["reason"] == "list-refused");
    assert_eq!(refused.count(), cases.len());
    let asked = |name: &str| paths(&http).iter().filter(|path| *path == &format!("/{name}")).count();
    // The good one, and then as often as the time allows, or makes sense.
    for (name, times) in [("s500", 3), ("cut", 3), ("s503", 2), ("s404", 2), ("html", 2), ("circle", 7)] {
        assert_eq!(asked(name), times, "{name}");
    }
}

#[test]
fn a_server_that_fails_twice_is_asked_a_third_time() {
    let http = Http::start();
    let world = one(&http, "");
    let fail = || status(500, &[], "");
    http.serve("/x", Reply::Sequence(vec![fail(), fail(), Reply::Ok(GOOD.to_vec())]));
    fetches(&world, &[]);
    assert_eq!((http.requests().len(), blocks(&world, "198.51.100.7")), (3, true));
}

fn without_numbers(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if plain.ends_with('N') => {}
            '0'..='9' => plain.push('N'),
            c => plain.push(c),
        }
    }
    plain
}

#[test]
fn only_who_proves_who_he_is_is_believed() {
    let kinds = [
        ("good", Certificate::Good),
        ("expired", Certificate::Expired),
        ("wrong-name", Certificate::WrongName),
        ("self-signed", Certificate::SelfSigned),
    ];
    let world = World::empty();
    let servers: Vec<Http> = kinds.iter().map(|(_, kind)| Http::start_tls(*kind)).collect();
    let plain_http = Http::start();
    let trusted: String =
        servers[..3].iter().map(|http| std::fs::read_to_string(http.authority()).unwrap()).collect();
    std::fs::write(world.path("trusted"), trusted).unwrap();
    let mut lists = String::new();
    for ((name, _), http) in kinds.iter().zip(&servers) {
        http.serve("/x", Reply::Ok(GOOD.to_vec()));
        lists += &list(name, &http.url("/x"), "timeout = \"2s\"");
    }
    // From http to https, and the other way.
    plain_http.serve("/up", Reply::Redirect(servers[0].url("/x")));
    plain_http.serve("/x", Reply::Ok(GOOD.to_vec()));
    servers[0].serve("/down", Reply::Redirect(plain_http.url("/x")));
    lists += &list("up", &plain_http.url("/up"), "timeout = \"2s\"");
    lists += &list("down", &servers[0].url("/down"), "timeout = \"2s\"");
    world.configure_lists(&lists);
    let mut command = world.lists_command(&["fetch"]);
    let call = call(command.env("SSL_CERT_FILE", world.path("trusted")).env_remove("SSL_CERT_DIR"));
    let said: Vec<String> = said(&call, &world).iter().map(|line| without_numbers(line)).collect();
    let refused =
        |list: &str, why: &str| format!("{list}: refused: https://N.N.N.N {why}; there is no copy of it yet");
    let expected = [
        refused("down", "redirects wrongly: it redirects from https to http"),
        refused(
            "expired",
            "cannot be reached: invalid peer certificate: certificate expired: verification time N (UNIX), but certificate is not valid after N (N seconds ago)",
        ),
        refused("self-signed", "cannot be reached: invalid peer certificate: UnknownIssuer"),
        refused(
            "wrong-name",
            "cannot be reached: invalid peer certificate: certificate not valid for name \"N.N.N.N\"; certificate is only valid for DnsName(\"elsewhere.example\")",
        ),
    ];
    assert_eq!((call.code, said), (1, expected.into()));
    assert_eq!(found(&world, "198.51.100.7").0, ["good", "up"]);
    assert_eq!(paths(&plain_http), ["/up"]);
}

#[test]
fn a_redirect_learns_nothing() {
    let (http, other) = (Http::start(), Http::start());
    let world = World::empty();
    let url = http.url("/first?key=hush4711").replace("://", "://bob:hush0815@");
    world.configure_lists(&list("x", &url, ""));
    http.serve("/first?key=hush4711", Reply::Redirect("/second".into()));
    http.serve("/second", Reply::Redirect(other.url("/third")));
    other.serve("/third", Reply::Ok(GOOD.to_vec()));
    fetches(&world, &[]);
    let (here, there) = (http.requests(), other.requests());
    assert_eq!((here.len(), there.len()), (2, 1));
    assert_eq!(here[0].headers["authorization"], "Basic Ym9iOmh1c2gwODE1");
    let agent = &here[0].headers["user-agent"];
    assert_eq!(*agent, concat!("ringfence-lists/", env!("CARGO_PKG_VERSION")));
    assert!(here.iter().chain(&there).all(|request| !request.headers.contains_key("referer")));
    assert!(!format!("{there:?}").contains("hush") && !there[0].headers.contains_key("authorization"));
}

#[test]
fn a_version_is_asked_for_once() {
    let http = Http::start();
    let world = one(&http, "");
    let tagged = |body: &[u8], etag: &str| Reply::Tagged {
        body: body.to_vec(),
        etag: etag.to_owned(),
        last_modified: Some("Sat, 01 Feb 2025 00:00:00 GMT".to_owned()),
    };
    http.serve("/x", tagged(GOOD, "\"a\""));
    fetches(&world, &[]);
    age(&world, "x", 20_000);
    assert_eq!(dry_run(&world, &[])["x"], "unchanged");
    fetches(&world, &[]);
    let asked = http.requests().pop().unwrap().headers;
    assert_eq!(asked["if-none-match"], "\"a\"");
    assert_eq!(asked["if-modified-since"], "Sat, 01 Feb 2025 00:00:00 GMT");
    assert!(now() - second(&about(&world, "x")["confirmed"]) < 60);

    // Another version, within the same second.
    http.serve("/x", tagged(b"198.19.2.1\n", "\"b\""));
    assert_eq!(dry_run(&world, &["--only", "x"])["x"], "updated");
    fetches(&world, &["--only", "x"]);
    assert_eq!([blocks(&world, "198.19.2.1"), blocks(&world, "203.0.113.9")], [true, false]);

    // With --force, and after damage, in full.
    fetches(&world, &["--force"]);
    assert!(!http.requests().pop().unwrap().headers.contains_key("if-none-match"));
    let copy = world.path("state/lists/x.copy");
    std::fs::write(&copy, "damaged").unwrap();
    assert!(about(&world, "x")["refused"].as_str().unwrap().ends_with("x.copy: it is too short"));
    let lost = "x: its last good copy is lost: cannot use DIR/state/lists/x.copy: it is too short";
    assert_eq!(fails(&world, &[], 0), [lost]);
    assert!(!http.requests().pop().unwrap().headers.contains_key("if-none-match"));
    assert_eq!(
        [blocks(&world, "198.19.2.1"), shown(&world)["notes"].to_string().contains(&lost[..30])],
        [true; 2]
    );
    std::fs::write(&copy, "damaged").unwrap();
    http.serve("/x", Reply::Always304);
    let lies = "x: refused: http://127.0.0.1 answers 304 (not modified), and was not asked for that; there is no copy of it yet";
    assert_eq!(fails(&world, &[], 1), [lost, lies]);

    // The same body without any tag.
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    assert_eq!(fails(&world, &[], 0), [lost]);
    assert_eq!(dry_run(&world, &["--only", "x"])["x"], "unchanged");
}

#[test]
fn lists_may_not_be_nonsense_and_keep_their_size() {
    let http = Http::start();
    let world = one(&http, "");
    let serve = |count: u32, more: &str| {
        let lines = (0..count).map(|n| format!("198.18.{}.{}\n", n / 128, n % 128 * 2));
        http.serve("/x", ok(&(more.to_owned() + &lines.collect::<String>())));
    };
    let odd = "0.0.0.0/0\n\x1b]0,x\x07\n9.0.0.0/8\n2000::/18\n127.0.0.1-128.0.0.1\n10.0.0.0/7\n";
    serve(40, odd);
    fetches(&world, &[]);
    let notes = json!([
        "1 of its 46 lines cannot be read: line 2 \"\u{fffd}]0,x\u{fffd}\"",
        "4 too wide (more than an IPv4 /8 or IPv6 /19), left out: line 1 \"0.0.0.0/0\", line 4 \"2000::/18\", line 5 \"127.0.0.1-128.0.0.1\", ...",
    ]);
    assert_eq!((&about(&world, "x")["notes"], about(&world, "x")["ipv4"].clone()), (&notes, json!(41)));
    // They hold as long as the copy does.
    fetches(&world, &["--only", "x"]);
    assert_eq!(about(&world, "x")["notes"], notes);
    assert!(
        [blocks(&world, "9.9.9.9"), blocks(&world, "198.18.0.2")] == [true; 2] && !blocks(&world, "8.8.8.8")
    );

    let steps = [
        (
            30,
            "x\ny\n",
            "2 of its 32 lines cannot be read, more than max-bad (5%) allows: line 1 \"x\", line 2 \"y\"",
        ),
        (10, "", "it shrank from 41 to 10 networks, more than max-shrink (50%) allows; --force takes it"),
        (1200, "", "it grew from 10 to 1200 networks, more than max-growth (300%) allows; --force takes it"),
        (
            1200,
            "11.0.0.0/8\n",
            "it grew from 1200 to 16778416 IPv4 addresses, more than max-growth (300%) allows; --force takes it",
        ),
    ];
    for (at, (count, more, says)) in steps.into_iter().enumerate() {
        serve(count, more);
        assert_eq!(fails(&world, &["--only", "x"], 1), [format!("x: refused: {says}; copy")]);
        assert!(about(&world, "x")["refused"] == says && blocks(&world, "198.18.0.2"));
        if at > 0 {
            fetches(&world, &["--force"]);
            let entries = count + u32::from(!more.is_empty());
            assert_eq!(
                (&about(&world, "x")["ipv4"], &about(&world, "x")["notes"]),
                (&json!(entries), &json!([]))
            );
        }
    }
}

#[test]
fn reads_what_lists_are_written_in() {
    let http = Http::start();
    let spamhaus = "{\"cidr\":\"198.19.2.0/24\"}\n{\"type\":\"metadata\",\"records\":1}\n";
    let cut = "{\"cidr\":\"198.19.2.0/24\"}\n{\"type\":\"metadata\",\"records\":9}\n";
    let cut_off = "{\"cidr\":\"198.19.2.0/24\"}\n";
    let dshield = "# DShield\nStart\tEnd\tNetblock\n198.19.2.0\t198.19.2.255\t24\tx\n";
    let odd =
        "\u{feff}198.19.2.0/24\r\n  # all\r\n2001:db8::/32 ; more\r\n198.51.100.1-198.51.100.9#x\r\n\r\n";
    let bodies = [
        ("odd", ok(odd), ""),
        ("gzip", Reply::Ok(gzip(odd.as_bytes())), ""),
        ("xz", Reply::Ok(xz(odd.as_bytes())), ""),
        ("spamhaus", ok(spamhaus), "format = \"spamhaus\""),
        ("dshield", Reply::Ok(gzip(dshield.as_bytes())), "format = \"dshield\""),
        ("cut", ok(cut), "format = \"spamhaus\""),
        ("cut-off", ok(cut_off), "format = \"spamhaus\""),
        ("xz-bomb", Reply::Ok(xz(&vec![b'\n'; 3 << 20])), "max-size = \"1MiB\""),
    ];
    let world = World::empty();
    let mut lists = format!(
        "[lists.au]\nkind = \"block\"\ncountry = \"AU\"\nurl = \"{}\"\n",
        http.url("/{country}.zone")
    );
    http.serve("/au.zone", ok("198.19.2.0/24\n"));
    for (name, reply, keys) in bodies {
        http.serve(&format!("/{name}"), reply);
        lists += &list(name, &http.url(&format!("/{name}")), keys);
    }
    world.configure_lists(&lists);
    assert_eq!(
        fails(&world, &[], 1),
        [
            "cut: refused: it is cut short: it says it has 9 entries, and has 1; there is no copy of it yet",
            "cut-off: refused: it is cut short: its last line, about the list itself, is missing; there is no copy of it yet",
            "xz-bomb: refused: cannot unpack it (xz): it is larger than max-size (1.0 MiB); there is no copy of it yet",
        ]
    );
    assert_eq!(found(&world, "198.19.2.77").0, ["au", "dshield", "gzip", "odd", "spamhaus", "xz"]);
    for address in ["198.51.100.9", "2001:db8::1"] {
        assert_eq!(found(&world, address).0, ["gzip", "odd", "xz"]);
    }
}

/// A host with APIBAN's list.
fn apiban(http: &Http) -> World {
    let world = World::empty();
    let url = http.url("/api/");
    world.configure_lists(&list("apiban", &url, "format = \"apiban\"\nkey = \"hush4711\"\ntimeout = \"2s\""));
    world
}

fn page(http: &Http, id: &str, reply: Reply) {
    http.serve(&format!("/api/hush4711/banned/{id}"), reply);
}

fn bans(addresses: &str, id: &str) -> Reply {
    ok(&format!("{{\"ipaddress\": [{addresses}], \"ID\": \"{id}\"}}"))
}

/// The ids that were asked for since the last look.
fn ids(http: &Http, seen: &mut usize) -> Vec<String> {
    let new = paths(http).split_off(*seen);
    *seen += new.len();
    new.iter().map(|path| path.replace("/api/hush4711/banned/", "")).collect()
}

const NO_MORE: &str = "{\"ipaddress\": [\"no new bans\"], \"ID\": \"none\"}";

#[test]
fn apiban_is_read_on_and_on() {
    let http = Http::start();
    let world = apiban(&http);
    let again = ["--only", "apiban"];
    let mut seen = 0;
    let Reply::Ok(first) = bans("\"198.19.2.1\", \"198.19.2.2\"", "200") else { unreachable!() };
    page(&http, "100", Reply::Ok(gzip(&first)));
    page(&http, "200", bans("\"2001:db8::1\"", "300"));
    page(&http, "300", status(400, &[], NO_MORE));
    fetches(&world, &[]);
    assert_eq!(ids(&http, &mut seen), ["100", "200", "300"]);

    // Too many requests: what came is kept, and the rest is asked for in the next run.
    page(&http, "300", bans("\"198.19.2.3\"", "400"));
    page(
        &http,
        "400",
        status(429, &[("retry-after", "90")], "{\"ipaddress\": \"rate limit\", \"ID\": \"x\"}"),
    );
    fetches(&world, &again);
    assert_eq!(ids(&http, &mut seen), ["300", "400"]);
    assert_eq!(about(&world, "apiban")["notes"], json!(["pages are left for the next run"]));
    assert!(["198.19.2.1", "198.19.2.3", "2001:db8::1"].iter().all(|address| blocks(&world, address)));

    // The same with whatever else goes wrong behind the first page: the next run says it.
    page(&http, "400", bans("\"198.19.2.9\"", "450"));
    page(&http, "450", ok("<html>"));
    fetches(&world, &again);
    assert!(blocks(&world, "198.19.2.9"));
    let html = "apiban: refused: http://127.0.0.1 answers what is no page of APIBAN's; copy";
    assert_eq!(fails(&world, &again, 1), [html]);
    assert_eq!(ids(&http, &mut seen), ["400", "450", "450"]);
    page(&http, "450", bans("\"198.19.2.9\"", "400"));
    page(&http, "400", status(400, &[], NO_MORE));
    fetches(&world, &again);
    ids(&http, &mut seen);

    let refused = |says: &str| vec![format!("apiban: refused: http://127.0.0.1 {says}; copy")];
    let cases = [
        (
            status(429, &[], "{\"ipaddress\": \"rate limit\"}"),
            "answers 429: too many requests (it allows 11 in two minutes)",
        ),
        (
            status(403, &[], "{\"ipaddress\": \"unauthorized hush4711\"}"),
            "refuses the key; see its setting `key`",
        ),
        (ok("{\"ipaddress\": \"hush4711 is\\u001b odd\"}"), "answers 200 OK: ... is\u{fffd} odd"),
        (ok("{\"ipaddress\": 7}"), "answers what is no page of APIBAN's"),
        (ok("<html>"), "answers what is no page of APIBAN's"),
        (status(400, &[], "<html>"), "answers 400 Bad Request"),
        (status(404, &[], ""), "answers 404 Not Found"),
        (status(500, &[("retry-after", "9")], ""), "answers 500 Internal Server Error"),
    ];
    for (reply, says) in cases {
        page(&http, "400", reply);
        assert_eq!(fails(&world, &again, 1), refused(says));
        assert_eq!((ids(&http, &mut seen), blocks(&world, "198.19.2.3")), (vec!["400".to_owned()], true));
    }
    page(&http, "400", bans("\"hush4711\"", "500"));
    page(&http, "500", status(400, &[], NO_MORE));
    assert_eq!(
        fails(&world, &again, 1),
        [
            "apiban: refused: 1 of its 1 lines cannot be read, more than max-bad (5%) allows: line 1 \"...\"; copy"
        ]
    );
    ids(&http, &mut seen);

    // An id that leads elsewhere, is none, or does not move ends the run, and is asked for once more.
    for (id, address) in [
        ("../x", "198.19.2.4"),
        ("a?b", "198.19.2.5"),
        ("", "198.19.2.6"),
        ("none", "198.19.2.7"),
        ("400", "198.19.2.8"),
    ] {
        page(&http, "400", bans(&format!("\"{address}\""), id));
        fetches(&world, &again);
        assert_eq!((ids(&http, &mut seen), blocks(&world, address)), (vec!["400".to_owned()], true), "{id}");
    }
}

#[test]
fn apibans_addresses_end_after_a_week() {
    let http = Http::start();
    let world = apiban(&http);
    let many: Vec<String> = (0..100).map(|n| format!("\"198.19.2.{}\"", n * 2)).collect();
    page(&http, "100", bans(&many.join(","), "200"));
    page(&http, "200", status(400, &[], NO_MORE));
    fetches(&world, &[]);
    let store = Store::open(&world.path("state")).unwrap();
    let mut copy: Copy = store.read("apiban.copy").unwrap().unwrap();
    let then = u32::try_from(now() - 7 * 86_400 - 60).unwrap();
    copy.parts[0].content = Dated::default().reported(&copy.set(), then, 0);
    store.write("apiban.copy", &copy).unwrap();
    page(&http, "200", bans("\"198.19.2.6\"", "300"));
    page(&http, "300", status(400, &[], NO_MORE));
    fetches(&world, &["--only", "apiban"]);
    assert_eq!([blocks(&world, "198.19.2.6"), blocks(&world, "198.19.2.8")], [true, false]);
}

#[test]
fn who_wants_to_be_left_alone_is_but_not_for_ever() {
    for (value, most) in [
        ("600", 600),
        ("99999999", 86_400),
        ("18446744073709551615", 86_400),
        ("99999999999999999999999", 0),
        ("-1", 0),
        ("Thu, 01 Jan 2099 00:00:00 GMT", 86_400),
        ("Sat, 01 Feb 2020 00:00:00 GMT", 0),
    ] {
        let http = Http::start();
        let world = one(&http, "timeout = \"2s\"");
        http.serve("/x", status(429, &[("retry-after", value)], ""));
        let says = "x: refused: http://127.0.0.1 answers 429 Too Many Requests; there is no copy of it yet";
        assert_eq!(fails(&world, &[], 1), [says], "{value}");
        let next = second(&about(&world, "x")["next"]);
        let wait = if next == 0 { 0 } else { next - now() };
        assert!((most - 30..=most).contains(&wait), "{value}: {wait}");
        let asked = http.requests().len();
        world.lists(&["fetch"]);
        assert_eq!(http.requests().len() > asked, most == 0, "{value}");
    }
}

#[test]
fn nobody_is_asked_before_it_is_due() {
    let http = Http::start();
    let world = World::empty();
    let urls = ["/x", "/y"].map(|path| http.url(path));
    let configure = |x: &str| {
        world.configure_lists(&(list("x", x, "every = \"1h\"") + &list("y", &urls[1], "every = \"1d\"")));
    };
    configure(&urls[0]);
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    http.serve("/y", Reply::Ok(GOOD.to_vec()));
    http.serve("/new", Reply::Ok(GOOD.to_vec()));
    let mut seen = 0;
    let mut asked = |args: &[&str]| {
        fetches(&world, args);
        let mut new = paths(&http).split_off(seen);
        seen += new.len();
        new.sort();
        new.join(" ")
    };
    assert_eq!(asked(&[]), "/x /y");
    assert_eq!(asked(&[]), "");
    assert_eq!(asked(&["--only", "y"]), "/y");
    assert_eq!(asked(&["--force"]), "/x /y");
    age(&world, "x", 2_600);
    assert_eq!(asked(&[]), "");
    age(&world, "x", 200);
    assert_eq!(asked(&[]), "/x");
    // A clock that was set back.
    age(&world, "x", -7_200);
    assert_eq!(asked(&[]), "/x");
    configure(&http.url("/new"));
    assert_eq!(asked(&[]), "/new");

    let call = world.lists(&["fetch", "--only", "z"]);
    assert_eq!(
        (call.code, &*call.stderr),
        (2, "ringfence-lists: there is no list z; the settings have: x, y\n")
    );
    assert_eq!(world.lists(&["diff", "z"]).stderr, call.stderr);
}

/// Everything that anybody can read, but the settings.
fn visible_text(world: &World, calls: &[&[&str]]) -> String {
    let mut text = String::new();
    for args in calls {
        let Call { stdout, stderr, .. } = world.lists(args);
        text.extend([stdout, stderr]);
    }
    for dir in ["state", "log", "run"] {
        for (path, content) in files(&world.path(dir)) {
            text.extend([&path.to_string_lossy(), ": ", &String::from_utf8_lossy(&content), "\n"]);
        }
    }
    text
}

#[test]
fn keys_are_shown_nowhere() {
    let http = Http::start();
    // A line is cut where a key begins, and another is quoted as it is.
    let echo = |own: &str| format!("no such key: {own}\n{}{own}\n{own}\n", "x".repeat(56));
    let replies = |own: &str| {
        [
            Reply::Gone,
            Reply::Reset,
            Reply::Garbage,
            Reply::Hang,
            Reply::Cut { body: GOOD.to_vec(), at: 5 },
            Reply::Always304,
            Reply::Redirect(format!("http://127.0.0.1:9/{own}")),
            Reply::Redirect(format!("ftp://127.0.0.1/{own}")),
            Reply::Redirect(String::new()),
            ok(""),
            ok(&format!("<html>{own}")),
            ok(&echo(own)),
            ok(&(echo(own) + &"198.19.2.1\n".repeat(100))),
            ok(&format!("{{\"ipaddress\": \"no such key {own}\"}}")),
            ok(&format!("{{\"ipaddress\": [\"{own}\", \"{}{own}\"], \"ID\": \"1\"}}", "x".repeat(56))),
            status(403, &[], own),
            status(429, &[("retry-after", own)], &format!("{{\"ipaddress\": \"{own}\"}}")),
            status(500, &[], own),
        ]
    };
    let world = World::empty();
    let (mut lists, mut expected) = (String::new(), 0);
    let user = |url: String| url.replace("://", "://bob:hush0815@");
    let query = "key=hush4711x&t=hush%2Fa";
    let all = format!("bob hush0815 hush4711x hush%2Fa hush/a http://bob:hush0815@127.0.0.1/?{query}");
    for (at, reply) in replies(&all).into_iter().enumerate() {
        http.serve(&format!("/{at}?{query}"), reply);
        lists += &list(&format!("w{at}"), &user(http.url(&format!("/{at}?{query}"))), "timeout = \"1s\"");
        expected += 1;
    }
    for (kind, key, part) in [("a", "hush4711x", "hush4711x"), ("b", "hush/a", "hush%2Fa")] {
        for (at, reply) in replies(&format!("bob hush0815 {key} {part}")).into_iter().enumerate() {
            http.serve(&format!("/{at}/{part}/banned/100"), reply);
            let keys = format!("format = \"apiban\"\nkey = \"{key}\"\ntimeout = \"1s\"");
            lists += &list(&format!("{kind}{at}"), &user(http.url(&format!("/{at}"))), &keys);
            expected += 1;
        }
    }
    lists += &list("refused", "http://bob:hush0815@127.0.0.1:9/hush4711x", "timeout = \"1s\"");
    lists += &list("no-name", "http://bob:hush0815@nowhere.invalid/hush4711x", "timeout = \"1s\"");
    lists += &list("no-tls", &user(http.url("/hush4711x")).replace("http:", "https:"), "timeout = \"1s\"");
    lists += &list("bad-url", "http://bob:hush0815@127.0.0.1:99999/hush4711x", "");
    world.configure_lists(&lists);
    let call = world.lists(&["fetch"]);
    assert_eq!(call.code, 1);
    // One of the lists has so few bad lines that it is taken.
    assert_eq!(call.stderr.lines().count(), expected + 4 - 1, "{}", call.stderr);
    let text = call.stderr
        + &visible_text(
            &world,
            &[
                &["show"],
                &["show", "--json"],
                &["show", "198.19.2.1"],
                &["show", "198.19.2.1", "--json"],
                &["fetch", "--dry-run", "--force"],
                &["diff", "w11"],
                &["diff", "a14"],
                &["diff", "bad-url"],
            ],
        );
    assert!(text.contains("decisions.jsonl") && text.contains("w12.copy"));
    let shown: Vec<&str> =
        text.lines().filter(|line| line.contains("hush") || line.contains("bob")).collect();
    assert_eq!(shown, [""; 0]);

    for settings in [
        "url = \"ftp://bob:hush0815@x/\"",
        "url = [\"hush4711x\"]",
        "key = { file = [\"hush4711x\"] }",
        "url = \"http://x/hush\nkey = \"hush",
    ] {
        world.configure_lists(&format!("[lists.x]\nkind = \"block\"\n{settings}\n"));
        let call = world.lists(&["fetch"]);
        assert!(call.code == 2 && !call.stderr.contains("hush"), "{call:?}");
    }
}

#[test]
fn the_environment_names_the_proxy() {
    let (http, proxy) = (Http::start(), Http::start());
    let world = World::empty();
    world.configure_lists(
        &(list("near", &http.url("/x"), "") + &list("far", "http://lists.example/far", "timeout = \"2s\"")),
    );
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    proxy.serve("http://lists.example/far", Reply::Ok(GOOD.to_vec()));
    let fetch = |more: &[(&str, &str)]| {
        let mut command = world.lists_command(&["fetch", "--force"]);
        call(command.env("HTTP_PROXY", proxy.url("/")).envs(more.iter().copied()))
    };
    let call = fetch(&[("NO_PROXY", "127.0.0.1")]);
    assert_eq!((call.code, &*call.stderr), (0, ""));
    assert_eq!(
        (paths(&http), paths(&proxy)),
        (vec!["/x".to_owned()], vec!["http://lists.example/far".to_owned()])
    );
    let call = fetch(&[]);
    assert_eq!(said(&call, &world), ["near: refused: http://127.0.0.1 answers 404 Not Found; copy"]);
    assert_eq!(proxy.requests().len(), 3);
}

/// A list from the host's file `own`.
fn own(world: &World, kind: &str) -> String {
    format!("[lists.own]\nkind = \"{kind}\"\nfile = \"{}\"\n", world.path("own").display())
}

#[test]
fn without_the_whitelist_nobody_is_blocked() {
    let http = Http::start();
    let world = World::empty();
    let allow = list("friends", &http.url("/friends"), "timeout = \"1s\"").replace("\"block\"", "\"allow\"");
    world.configure_lists(&(list("x", &http.url("/x"), "") + &own(&world, "allow") + &allow));
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    let own = "own: refused: cannot read DIR/own: it does not exist; make it, or remove the list; there is no copy of it yet";
    let friends = "friends: refused: http://127.0.0.1 answers 404 Not Found; there is no copy of it yet";
    let nothing = |names: &str| format!("nobody is blocked anew: there {names}");
    assert_eq!(
        fails(&world, &[], 1),
        [friends, own, &nothing("are no copies yet of the allow lists friends, own")]
    );
    assert_eq!(shown(&world)["refused"], nothing("are no copies yet of the allow lists friends, own"));
    assert!(!blocks(&world, "198.51.100.7"));

    http.serve("/friends", ok("203.0.113.0/24\n"));
    std::fs::write(world.path("own"), "198.51.100.1\n198.51.10.1.1 # typo\n").unwrap();
    let typo = "own: refused: 1 of its 2 lines cannot be read, more than max-bad (5%) allows: line 2 \"198.51.10.1.1\"; there is no copy of it yet";
    assert_eq!(fails(&world, &[], 1), [typo, &nothing("is no copy yet of the allow list own")]);
    std::fs::write(world.path("own"), "").unwrap();
    fetches(&world, &[]);
    assert_eq!([blocks(&world, "198.51.100.7"), blocks(&world, "203.0.113.9")], [true, false]);

    // With a copy, what fails later changes nothing; without, what was put together stays.
    http.serve("/friends", ok("<html>"));
    assert_eq!(
        fails(&world, &["--only", "friends"], 1),
        ["friends: refused: it is a web page (HTML), not a list; copy"]
    );
    std::fs::write(world.path("state/lists/friends.copy"), "RFLISTS\x01abcdefgh").unwrap();
    let lost = "friends: its last good copy is lost: cannot use DIR/state/lists/friends.copy: it is damaged";
    let html = "friends: refused: it is a web page (HTML), not a list; there is no copy of it yet";
    assert_eq!(fails(&world, &[], 1), [lost, html, &nothing("is no copy yet of the allow list friends")]);
    assert_eq!([blocks(&world, "198.51.100.7"), blocks(&world, "203.0.113.9")], [true, false]);
}

#[test]
fn what_is_damaged_is_made_anew() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    fetches(&world, &[]);
    let whole = files(&world.path("state"));
    for content in [&b""[..], b"{", b"\xff\0", b"{\"lists\": 7}"] {
        std::fs::write(world.path("state/lists/compiled"), content).unwrap();
        let call = world.lists(&["show", "198.51.100.7"]);
        assert_eq!((call.code, &*call.stdout), (2, ""));
        let too_short = "the lists put together are lost; run ringfence-lists fetch: cannot use DIR/state/lists/compiled: it is too short";
        assert_eq!(said(&call, &world)[0].replace("not ours, or of another version", "too short"), too_short);
        fetches(&world, &[]);
        assert!(blocks(&world, "198.51.100.7"));

        let asked = http.requests().len();
        std::fs::write(world.path("state/lists/status.json"), content).unwrap();
        let forgotten = "what became of the lists is forgotten: cannot use DIR/state/lists/status.json: ";
        let notes = shown(&world)["notes"].to_string();
        assert!(notes.contains("what became of the lists is forgotten: cannot use /"), "{notes}");
        let said = fails(&world, &[], 0);
        assert!(said.len() == 1 && said[0].starts_with(forgotten), "{said:?}");
        assert_eq!(http.requests().len(), asked + 1);
    }
    // Who remembers nothing still knows how old the copy is.
    std::fs::remove_file(world.path("state/lists/status.json")).unwrap();
    http.serve("/x", ok("<html>"));
    assert_eq!(fails(&world, &[], 1), ["x: refused: it is a web page (HTML), not a list; copy"]);
    assert_eq!(whole.keys().collect::<Vec<_>>(), files(&world.path("state")).keys().collect::<Vec<_>>());
}

#[test]
fn a_dry_run_and_a_diff_change_nothing() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", ok("198.51.100.0/31\n203.0.113.9\n"));
    fetches(&world, &[]);
    age(&world, "x", 20_000);
    let everything = || ["state", "log", "run"].map(|dir| files(&world.path(dir)));
    let before = everything();
    http.serve("/x", ok("198.51.100.1\n2001:db8::/32\n10.0.0.0/24\n"));
    let call = world.lists(&["fetch", "--dry-run"]);
    assert_eq!((call.code, &*call.stderr), (0, ""));
    let lines: Vec<&str> = call.stdout.lines().collect();
    assert_eq!(
        lines[..2],
        ["LIST  KIND   RESULT   NETWORKS  NEW  GONE", "x     block  updated         3    2     2"]
    );
    assert_eq!(lines[2], "x: new 10.0.0.0/24, 2001:db8::/32");
    assert_eq!(lines[3], "x: gone 198.51.100.0, 203.0.113.9");
    assert_eq!(lines[4], "x: would have blocked 1 range that is not of the internet: private 10.0.0.0/24");
    let diff = world.lists(&["diff", "x"]);
    assert_eq!((diff.code, &*diff.stderr), (0, ""));
    assert_eq!(diff.stdout, "-198.51.100.0\n-203.0.113.9\n+10.0.0.0/24\n+2001:db8::/32\n");
    http.serve("/x", ok("<html>"));
    let call = world.lists(&["fetch", "--dry-run"]);
    assert_eq!(
        (call.code, said(&call, &world)),
        (
            1,
            vec![
                "x: refused: it is a web page (HTML), not a list; its copy of 5h 33m ago stays in use"
                    .to_owned()
            ]
        )
    );
    let diff = world.lists(&["diff", "x"]);
    assert_eq!((diff.code, &*diff.stdout), (1, ""));
    assert_eq!(diff.stderr, "ringfence-lists: x: refused: it is a web page (HTML), not a list\n");
    assert!(before == everything());
}

#[test]
fn one_run_at_a_time_and_who_dies_leaves_nothing() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", Reply::Hang);
    let mut first = world.lists_command(&["fetch"]).spawn().unwrap();
    wait_for("the first run to ask", || http.requests().len() == 1);
    assert_eq!(fails(&world, &[], 1), ["another run of ringfence-lists is at work; let it finish"]);
    assert_eq!(http.requests().len(), 1);
    first.kill().unwrap();
    first.wait().unwrap();
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    fetches(&world, &[]);
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    let (host, world) = (Host::new(), World::empty());
    world.configure_lists(&own(&world, "block"));
    std::fs::write(world.path("own"), GOOD).unwrap();
    let state = world.path("state");
    std::fs::create_dir(&state).unwrap();
    run(host.command("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&state));
    let tool = |args: &[&str]| {
        let command = world.lists_command(args);
        let mut on_host = host.command("env");
        on_host.arg(format!("RINGFENCE_CONFIG={}", world.config().display()));
        call(on_host.arg(command.get_program()).args(args))
    };
    assert_eq!(tool(&["fetch"]).code, 0);
    let fill = format!("head -c 1M /dev/zero > {}/full", state.display());
    host.command("sh").args(["-c", &fill]).output().unwrap();
    let lines: Vec<_> = (0..2_000).map(|n| format!("198.19.{}.{}", n / 100, n % 100 * 2)).collect();
    std::fs::write(world.path("own"), lines.join("\n")).unwrap();
    let failed = tool(&["fetch"]);
    assert_eq!(failed.code, 2);
    assert_eq!(
        said(&failed, &world),
        ["cannot write DIR/state/lists/own.copy: No space left on device (os error 28)"]
    );
    assert_eq!([tool(&["show", "198.51.100.7"]).code, tool(&["show", "198.19.2.2"]).code], [0, 1]);
    run(host.command("rm").arg(state.join("full")));
    assert_eq!(tool(&["fetch"]).stderr, "");
    assert_eq!([tool(&["show", "198.51.100.7"]).code, tool(&["show", "198.19.2.2"]).code], [1, 0]);
}

#[test]
fn downloads_need_no_privilege() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", Reply::Ok(GOOD.to_vec()));
    // Wherever the tool was built, its directory may be closed to others.
    std::fs::set_permissions(world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let tool = world.path("ringfence-lists");
    copy_program(world.lists_command(&[]).get_program(), &tool);
    let fetch = |tool: &Path| {
        let mut command = Command::new(tool);
        command.arg("fetch").env("RINGFENCE_CONFIG", world.config());
        call(command.current_dir("/").uid(NOBODY).gid(NOBODY))
    };
    let denied = fetch(&tool);
    assert_eq!(denied.code, 2);
    assert_eq!(
        said(&denied, &world),
        [
            "cannot keep lists in DIR/state/lists: Permission denied (os error 13); run as root, or as the user whom the directory belongs to"
        ]
    );
    for dir in ["state", "log"] {
        std::fs::create_dir(world.path(dir)).unwrap();
        chown(world.path(dir), Some(NOBODY), None).unwrap();
    }
    let call = fetch(&tool);
    assert_eq!((call.code, &*call.stderr), (0, ""));
    assert!(blocks(&world, "198.51.100.7"));
    // Root's runs in between leave nothing in the way.
    fetches(&world, &["--force"]);
    http.serve("/x", ok("198.19.2.1\n198.19.2.3\n"));
    std::fs::remove_file(world.path("state/lists/status.json")).unwrap();
    let call = fetch(&tool);
    assert_eq!((call.code, &*call.stderr), (0, ""));
    assert!(blocks(&world, "198.19.2.1"));
}

#[test]
fn what_a_download_may_not_write_down_the_load_does() {
    let http = Http::start();
    let world = one(&http, "");
    http.serve("/x", status(404, &[], ""));
    std::fs::set_permissions(world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    let tool = world.path("ringfence-lists");
    copy_program(world.lists_command(&[]).get_program(), &tool);
    for (dir, owner) in [("state", 0), ("state/lists", NOBODY), ("log", 0)] {
        std::fs::create_dir(world.path(dir)).unwrap();
        chown(world.path(dir), Some(owner), None).unwrap();
    }
    let mut command = Command::new(&tool);
    command.arg("fetch").env("RINGFENCE_CONFIG", world.config()).current_dir("/").uid(NOBODY).gid(NOBODY);
    assert_eq!(call(&mut command).code, 1);
    let (journal, untold) = (world.path("log/decisions.jsonl"), world.path("state/lists/untold.json"));
    assert!(!journal.exists());
    // Nor may it speak for another tool.
    let text = std::fs::read_to_string(&untold).unwrap();
    std::fs::write(&untold, text.replace("\"tool\": \"ringfence-lists\"", "\"tool\": \"ringfence-ban\""))
        .unwrap();

    let host = Host::new();
    let load = call(&mut host.call(&world.lists_command(&["load"])));
    assert_eq!((load.code, &*load.stderr), (0, ""));
    let lines = std::fs::read_to_string(&journal).unwrap();
    let refused: Value = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|line| line["reason"] == "list-refused")
        .unwrap();
    assert_eq!((&refused["tool"], &refused["subject"]), (&json!("ringfence-lists"), &json!("x")));
    assert!(!untold.exists());
}
