//! `ringfence-block` and the kernel: real packets over a cable, with both variants of iptables.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use crate::support::pbx::{PBX, PHONES, UNVERIFIED, once_free};
use crate::support::sip::{Layout, credentials, layouts, login, register};
use crate::support::{Pbx, data, now, wait_for};

with_both_variants! {
    every_known_layout_of_the_account_is_dropped_and_of_others_passes
    every_order_and_spacing_is_dropped
    what_the_documentation_says_is_missed_passes
    what_the_documentation_says_is_taken_too_much_is_dropped
    fragments_are_as_documented
    the_strangest_accounts_are_blocked_exactly
    the_longest_accounts_are_blocked_exactly
    a_device_is_blocked_at_its_address_alone
    a_connection_is_reset_only_where_the_settings_say_so
    other_ports_and_loopback_pass
    what_is_logged_is_dropped_all_the_same
    hits_are_those_of_both_families_and_outlive_other_changes
    one_jump_is_in_input_whatever_becomes_of_the_rules
    the_jump_stands_behind_bans_and_above_all_else
    fusionpbx_s_own_rules_are_as_before
    rules_follow_those_of_the_host
    an_observer_changes_nothing_in_the_kernel
    what_is_over_leaves_the_kernel
    nothing_is_left_behind
}

/// What does not look at rules holds for the program in the kernel too.
mod bpf {
    macro_rules! with_the_program {
        ($($test:ident)*) => {
            $(#[test]
            fn $test() {
                super::$test("bpf");
            })*
        };
    }

    with_the_program! {
        every_order_and_spacing_is_dropped
        the_strangest_accounts_are_blocked_exactly
        a_device_is_blocked_at_its_address_alone
        other_ports_and_loopback_pass
        an_observer_changes_nothing_in_the_kernel
        what_is_over_leaves_the_kernel
    }
}

pub const BLOCKED: &str = "999@a.example.com";

/// Another user of the same domain, the same user of another.
pub const OTHERS: [&str; 2] = ["998@a.example.com", "999@b.example.com"];

/// The blocked account is, and the others are not, in both families.
#[track_caller]
pub fn holds(pbx: &Pbx) {
    for wire in pbx.wires() {
        assert!(!wire.lets_in(BLOCKED));
        for other in OTHERS {
            assert!(wire.lets_in(other), "{other}");
        }
    }
}

/// Nobody is blocked in either family.
#[track_caller]
pub fn is_open(pbx: &Pbx) {
    for wire in pbx.wires() {
        assert!(wire.lets_in(BLOCKED));
    }
}

/// The header for a registrar, and for a proxy.
fn both_headers(credentials: &str) -> [String; 2] {
    [credentials.to_owned(), format!("Proxy-{credentials}")]
}

fn every_known_layout_of_the_account_is_dropped_and_of_others_passes(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let layouts = layouts();
    assert_eq!(layouts.len(), 14);
    pbx.ban(BLOCKED);
    for wire in pbx.wires() {
        for layout in &layouts {
            let client = &layout.client;
            for header in both_headers(&layout.credentials(BLOCKED)) {
                assert!(!wire.passes(&register(&header)), "{client}: {header}");
            }
            for other in OTHERS {
                for header in both_headers(&layout.credentials(other)) {
                    assert!(wire.passes(&register(&header)), "{client}: {header}");
                }
            }
        }
        assert!(wire.passes(&register("")), "no credentials");
        let challenge = "WWW-Authenticate: Digest realm=\"a.example.com\", nonce=\"5f0c2b7e\", algorithm=MD5, qop=\"auth\"";
        assert!(wire.passes(&register(challenge)), "a challenge");
    }
    let dropped = 2 * 2 * u64::try_from(layouts.len()).unwrap();
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), dropped)]);
}

fn every_order_and_spacing_is_dropped(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban("999@A.example.COM");
    let mut headers = vec![];
    for parts in [
        ["username=\"{user}\"", "realm=\"{realm}\"", "nonce=\"5f0c2b7e\""],
        ["realm=\"{realm}\"", "nonce=\"5f0c2b7e\"", "username=\"{user}\""],
        ["nonce=\"5f0c2b7e\"", "realm=\"{realm}\"", "username=\"{user}\""],
        ["nonce=\"5f0c2b7e\"", "username=\"{user}\"", "realm=\"{realm}\""],
        ["realm=\"{realm}\"", "username=\"{user}\"", "nonce=\"5f0c2b7e\""],
    ] {
        for comma in [",", ", ", "  ,  ", ",\t", ",\r\n ", " ,\r\n\t"] {
            headers.push(format!("Authorization: Digest {}", parts.join(comma)));
        }
    }
    let rest = "username=\"{user}\", realm=\"{realm}\", nonce=\"5f0c2b7e\"";
    for start in ["Authorization : digest ", "Authorization:Digest\t", "Authorization:  DIGEST\r\n "] {
        headers.push(format!("{start}{rest}"));
    }
    headers.push(format!("Authorization: Digest {}", rest.replace("realm=", "Realm=")));
    for wire in pbx.wires() {
        for header in &headers {
            let layout = Layout::new("", header);
            for account in [BLOCKED, "999@A.Example.COM", "999@a.EXAMPLE.com"] {
                let header = layout.credentials(account);
                assert!(!wire.passes(&register(&header)), "{header}");
            }
            for account in OTHERS {
                let header = layout.credentials(account);
                assert!(wire.passes(&register(&header)), "{header}");
            }
        }
    }
}

fn what_the_documentation_says_is_missed_passes(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    let usual = credentials(BLOCKED);
    for wire in pbx.wires() {
        assert!(!wire.passes(&register(&usual)));
        for (usually, here) in [
            ("username=\"999\"", "USERNAME=\"999\""),
            ("username=\"999\"", "Username=\"999\""),
            ("username=\"999\"", "username=999"),
            ("username=\"999\"", "username = \"999\""),
            ("username=\"999\"", "username =\"999\""),
            ("username=\"999\"", "username= \"999\""),
            ("realm=\"a.example.com\"", "realm=a.example.com"),
            ("realm=\"a.example.com\"", "realm = \"a.example.com\""),
            ("realm=\"a.example.com\"", "realm= \"a.example.com\""),
        ] {
            let header = usual.replace(usually, here);
            assert_ne!(header, usual);
            assert!(wire.passes(&register(&header)), "{header}");
        }
    }
}

fn what_the_documentation_says_is_taken_too_much_is_dropped(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    for wire in pbx.wires() {
        let two = OTHERS.map(credentials).join("\r\nProxy-");
        assert!(!wire.passes(&register(&two)), "{two}");
        let two = ["998@a.example.com", "997@b.example.com"].map(credentials).join("\r\nProxy-");
        assert!(wire.passes(&register(&two)), "{two}");
    }
}

/// A message with the blocked account's credentials so far behind its beginning.
fn far_behind(bytes: usize) -> String {
    let message = |fill: usize| {
        let [before, behind] = [fill, 1000].map(|fill| format!("X-Filler: {}", "x".repeat(fill)));
        register(&format!("{before}\r\n{}\r\n{behind}", credentials(BLOCKED)))
    };
    let at = message(0).find("username=").unwrap();
    let message = message(bytes - at);
    assert_eq!(message.find("username="), Some(bytes));
    message
}

fn fragments_are_as_documented(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    // What is behind the headers of IP and UDP in the first fragment, of 1500 bytes at the most.
    let [v4, v6] = pbx.wires();
    for (wire, seam) in [(&v4, 1480 - 8), (&v6, 1448 - 8)] {
        assert!(!wire.passes(&(login(BLOCKED) + &"x".repeat(2000))), "in the first");
        assert!(wire.passes(&far_behind(seam - 5)), "across the seam");
    }
    assert!(!v4.passes(&far_behind(2000)), "in the second");
    assert!(v6.passes(&far_behind(2000)), "in the second, and nothing puts them together before");
    pbx.host.shell(&format!("ip6tables-{variant} -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT"));
    assert!(!v6.passes(&far_behind(2000)), "in the second, where connections are tracked");
}

/// Accounts that a phone could be mistaken for, if a match were not exact.
fn near_misses(account: &str) -> Vec<String> {
    let (user, domain) = account.rsplit_once('@').unwrap();
    let mut chars = user.chars();
    chars.next();
    let behind_first = chars.as_str().to_owned();
    let mut chars = user.chars();
    chars.next_back();
    let before_last = chars.as_str().to_owned();
    let mut users = vec![
        format!("{user}x"),
        format!("x{user}"),
        format!("{user} "),
        format!("{user}{user}"),
        behind_first,
        before_last,
    ];
    for other in [user.to_uppercase(), user.to_lowercase()] {
        if other != user {
            users.push(other);
        }
    }
    let mut accounts: Vec<_> = users.iter().map(|user| format!("{user}@{domain}")).collect();
    for domain in [
        format!("{domain}x"),
        format!("x{domain}"),
        domain[1..].to_owned(),
        domain[..domain.len() - 1].to_owned(),
    ] {
        accounts.push(format!("{user}@{domain}"));
    }
    accounts
}

/// Each of them is blocked, one after another, and nobody else is.
fn are_blocked_exactly(pbx: &Pbx, accounts: &[&str]) {
    let before = pbx.saved();
    for account in accounts {
        pbx.ban(account);
        for wire in pbx.wires() {
            assert!(!wire.lets_in(account), "{account}");
            for miss in near_misses(account) {
                assert!(wire.lets_in(&miss), "{miss}, where {account} is blocked");
            }
        }
        assert_eq!(pbx.hits(), [((*account).to_owned(), 2)]);
        pbx.unban(account);
        for wire in pbx.wires() {
            assert!(wire.lets_in(account), "{account}");
        }
    }
    assert_eq!(pbx.saved(), before);
    // And all at once.
    for account in accounts {
        pbx.ban(account);
    }
    for wire in pbx.wires() {
        for account in accounts {
            assert!(!wire.lets_in(account), "{account}");
        }
        assert!(wire.lets_in(BLOCKED));
    }
    for account in accounts {
        pbx.unban(account);
    }
    assert_eq!(pbx.saved(), before);
}

fn the_strangest_accounts_are_blocked_exactly(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let canary = pbx.world.path("canary");
    let run = [
        format!("$(touch {})@a.example.com", canary.display()),
        format!("`touch {}`@a.example.com", canary.display()),
    ];
    let mut accounts: Vec<&str> = run.iter().map(String::as_str).collect();
    accounts.extend([
        "50%|x@a.example.com",
        "o'neil@a.example.com",
        "-rf@a.example.com",
        "--jump@a.example.com",
        "!@a.example.com",
        "a b@a.example.com",
        "Иван@a.example.com",
        ";@a.example.com",
        "|7c|@a.example.com",
        "|@a.example.com",
        "#COMMIT@a.example.com",
        "Alice@192.0.2.1",
        "1@b_1.example.com",
    ]);
    are_blocked_exactly(&pbx, &accounts);
    assert!(!canary.exists());
}

fn the_longest_accounts_are_blocked_exactly(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let [users, domains] = [116, 119].map(|longest| {
        let end = ".example.com";
        [longest, longest + 1].map(|length| ("d".repeat(length), "d".repeat(length - end.len()) + end))
    });
    let [longest, too_long] = [0, 1].map(|at| format!("{}@{}", users[at].0, domains[0].1));
    let too_long_a_domain = format!("{}@{}", users[0].0, domains[1].1);
    are_blocked_exactly(&pbx, &[&longest]);
    let before = pbx.saved();
    for (account, part) in
        [(&too_long, "user part is longer than 116"), (&too_long_a_domain, "domain is longer than 119")]
    {
        let call = pbx.block(&["ban", "--", account]);
        assert_eq!(call.code, 1, "{call:?}");
        assert!(call.stderr.contains(part), "{call:?}");
    }
    assert_eq!(pbx.saved(), before);
}

fn a_device_is_blocked_at_its_address_alone(variant: &'static str) {
    let pbx = Pbx::new(variant, "");
    let before = pbx.saved();
    let [here, there] = PHONES;
    let lets_in = || {
        let one = |from: &str| pbx.wire(from).lets_in("101@a.example.com");
        [here.map(one), there.map(one)]
    };
    assert_eq!(lets_in(), [[true, true], [true, true]]);
    pbx.does(&["ban", "--source", here[0], "--", "101@a.example.com"]);
    assert_eq!(lets_in(), [[false, true], [true, true]]);
    pbx.ban(&format!("101@a.example.com,{}", there[1]));
    assert_eq!(lets_in(), [[false, true], [true, false]]);
    for from in here.into_iter().chain(there) {
        assert!(pbx.wire(from).lets_in("102@a.example.com"), "{from}");
    }
    let mut hits: Vec<_> = pbx.hits().into_iter().map(|(_, hits)| hits).collect();
    hits.sort_unstable();
    assert_eq!(hits, [1, 2]);
    pbx.unban(&format!("101@a.example.com,{}", here[0]));
    assert_eq!(lets_in(), [[true, true], [true, false]]);
    pbx.does(&["unban", "--source", there[1], "--", "101@a.example.com"]);
    assert_eq!(lets_in(), [[true, true], [true, true]]);
    assert_eq!(pbx.saved(), before);
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Reset,
}

/// What comes of a message over a TCP connection of its own.
#[track_caller]
fn over_tcp(pbx: &Pbx, from: usize, message: &str) -> Outcome {
    let at = PBX[from];
    let patience = Some(Duration::from_secs(10));
    let listener = pbx.host.inside(|| once_free(|| TcpListener::bind((at, 5060))));
    let mut client = pbx.outside.inside(|| TcpStream::connect((at, 5060)).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    client.set_read_timeout(patience).unwrap();
    server.set_read_timeout(patience).unwrap();
    client.set_nodelay(true).unwrap();
    client.write_all(message.as_bytes()).unwrap();
    let mut buffer = vec![0; message.len()];
    server.set_nonblocking(true).unwrap();
    let mut answer = [0; 2];
    client.set_nonblocking(true).unwrap();
    let mut outcome = None;
    wait_for("an answer or a reset", || {
        match server.read(&mut buffer) {
            Ok(0) => {}
            Ok(length) => {
                assert_eq!(buffer[..length], *message.as_bytes());
                server.write_all(b"ok").unwrap();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        match client.read(&mut answer) {
            Ok(length) => {
                assert_eq!(answer[..length], *b"ok");
                outcome = Some(Outcome::Answered);
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => outcome = Some(Outcome::Reset),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        outcome.is_some()
    });
    // Whoever was reset has not been heard.
    let heard = !matches!(server.read(&mut buffer), Err(error) if error.kind() == ErrorKind::WouldBlock);
    assert!(outcome == Some(Outcome::Answered) || !heard);
    outcome.unwrap()
}

fn a_connection_is_reset_only_where_the_settings_say_so(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = pbx.saved();
    pbx.ban(BLOCKED);
    for family in [0, 1] {
        assert_eq!(over_tcp(&pbx, family, &login(BLOCKED)), Outcome::Answered, "it is off");
    }
    holds(&pbx);
    // The next call, whichever, makes the kernel follow the settings.
    pbx.configure(&format!("{UNVERIFIED}tcp = \"reset\"\n"));
    pbx.does(&["expire"]);
    for family in [0, 1] {
        assert_eq!(over_tcp(&pbx, family, &login(BLOCKED)), Outcome::Reset);
        for other in OTHERS {
            assert_eq!(over_tcp(&pbx, family, &login(other)), Outcome::Answered);
        }
        assert_eq!(over_tcp(&pbx, family, &register("")), Outcome::Answered);
    }
    holds(&pbx);
    pbx.configure(UNVERIFIED);
    pbx.does(&["expire"]);
    assert_eq!(over_tcp(&pbx, 0, &login(BLOCKED)), Outcome::Answered);
    pbx.unban(BLOCKED);
    assert_eq!(pbx.saved(), before);
}

fn other_ports_and_loopback_pass(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    let open = |port: u16| PHONES[0].map(|from| pbx.wire_to(from, port).lets_in(BLOCKED));
    let closed = |ports: &[u16]| -> Vec<u16> {
        let all = [5059, 5060, 5061, 5062, 5070, 5071, 5080, 5081, 5082];
        let closed: Vec<_> = all.into_iter().filter(|port| !open(*port)[0]).collect();
        assert!(all.into_iter().all(|port| open(port)[0] == open(port)[1]), "both families, {ports:?}");
        closed
    };
    assert_eq!(closed(&[]), [5060, 5061, 5080, 5081]);
    for (at, from) in [(PBX[0], PBX[0]), (PBX[1], PBX[1]), ("127.0.0.1", "127.0.0.1"), ("::1", "::1")] {
        let [from, to] =
            pbx.host.inside(|| [(from, 0), (at, 5060)].map(|own| once_free(|| UdpSocket::bind(own))));
        from.connect((at, 5060)).unwrap();
        assert!(crate::support::sip::Wire { from, to }.lets_in(BLOCKED), "loopback, {at}");
    }
    pbx.configure(&format!("{UNVERIFIED}[firewall]\nsip-ports = [\"5062\", \"5070-5071\"]\n"));
    pbx.does(&["expire"]);
    assert_eq!(closed(&[]), [5062, 5070, 5071]);
}

fn what_is_logged_is_dropped_all_the_same(variant: &'static str) {
    const PREFIX: &str = "sip 'x' $(id) `50%` |2d| -j: ";
    const PACKETS: u64 = 60;
    let pbx = Pbx::new(variant, &format!("{UNVERIFIED}log-prefix = {PREFIX:?}\n"));
    let before = pbx.saved();
    pbx.ban(BLOCKED);
    for (wire, family) in pbx.wires().iter().zip(["iptables", "ip6tables"]) {
        for _ in 0..PACKETS {
            assert!(!wire.lets_in(BLOCKED));
        }
        assert!(wire.lets_in(OTHERS[0]));
        let saved = pbx.host.shell(&format!("{family}-{variant}-save -c -t filter"));
        let packets = |what: &str| -> u64 {
            let rules =
                saved.lines().filter(|rule| rule.contains("-A RF-BLOCK-DENY ") && rule.contains(what));
            let rules: Vec<_> = rules.collect();
            assert_eq!(rules.len(), 1, "{what} in {saved}");
            rules[0].strip_prefix('[').unwrap().split_once(':').unwrap().0.parse().unwrap()
        };
        // Ten more in each minute that the test takes.
        let saved_prefix = PREFIX.replace('\'', "\\'");
        let logged = packets(&format!("-j LOG --log-prefix \"{saved_prefix}\""));
        assert!((20..PACKETS).contains(&logged), "{logged} were logged");
        assert_eq!(packets("-j DROP"), PACKETS);
    }
    pbx.unban(BLOCKED);
    assert_eq!(pbx.saved(), before);
}

fn hits_are_those_of_both_families_and_outlive_other_changes(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let hits = || {
        let hits = pbx.hits();
        hits.into_iter().find(|(account, _)| account == BLOCKED).map(|(_, hits)| hits)
    };
    pbx.ban(BLOCKED);
    assert_eq!(hits(), Some(0));
    let [v4, v6] = pbx.wires();
    assert!(!v4.lets_in(BLOCKED) && !v4.lets_in(BLOCKED) && !v4.lets_in(BLOCKED));
    assert!(!v6.lets_in(BLOCKED) && !v6.lets_in(BLOCKED));
    assert_eq!(hits(), Some(5));
    let table = pbx.block(&["list"]);
    let line = table.stdout.lines().find(|line| line.starts_with(BLOCKED)).unwrap();
    assert_eq!(line.split_whitespace().nth(5), Some("5"), "{line}");
    // Before it, behind it, and in another chain.
    for other in ["998@a.example.com", "9999@a.example.com", "999@b.example.com"] {
        pbx.ban(other);
        assert_eq!(hits(), Some(5), "{other} is blocked too");
        assert!(!v4.lets_in(other));
        pbx.unban(other);
        assert_eq!(hits(), Some(5), "{other} was let go");
    }
    // Another order of the ports is another jump, another prefix are other rules.
    pbx.configure(&format!("{UNVERIFIED}log-prefix = \"x\"\n[firewall]\nsip-ports = [\"5060\"]\n"));
    pbx.does(&["expire"]);
    assert!(!v6.lets_in(BLOCKED));
    assert_eq!(hits(), Some(6));
    // Who comes again begins anew.
    pbx.unban(BLOCKED);
    assert_eq!(hits(), None);
    pbx.ban(BLOCKED);
    assert_eq!(hits(), Some(0));
}

const FAMILIES: [&str; 2] = ["iptables", "ip6tables"];

/// Where the jumps to our chain are among the rules of INPUT, in each family, counted from 1.
fn jumps(pbx: &Pbx) -> [Vec<usize>; 2] {
    FAMILIES.map(|family| {
        let rules = pbx.input(family);
        let ours = rules.iter().enumerate().filter(|(_, rule)| rule.contains("-j RF-BLOCK"));
        ours.map(|(at, _)| at + 1).collect()
    })
}

/// Lines of a shell, for both families: `$T` is the program.
fn for_both(pbx: &Pbx, script: &str) {
    for family in FAMILIES {
        pbx.host.shell(&script.replace("$T", &format!("{family}-{}", pbx.variant)));
    }
}

fn one_jump_is_in_input_whatever_becomes_of_the_rules(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    let once = [vec![1], vec![1]];
    assert_eq!(jumps(&pbx), once);
    let as_it_should_be = pbx.saved();
    pbx.ban(BLOCKED);
    assert_eq!(pbx.saved(), as_it_should_be);
    for (what, script) in [
        ("INPUT is flushed", "$T -F INPUT"),
        ("all is flushed", "$T -F"),
        ("all is flushed and deleted", "$T -F; $T -X"),
        ("it is doubled in front", "$T -I INPUT 1 -j RF-BLOCK"),
        ("it is doubled behind", "$T -A INPUT -p udp -j RF-BLOCK"),
        (
            "it is doubled as it is",
            "$T -S INPUT | sed -n 's/^-A INPUT .*RF-BLOCK$/&/p' | sed 's/^/$T /' | sh -e",
        ),
        ("rules are missing", "$T -F RF-BLOCK-DENY; $T -D RF-BLOCK 1"),
        ("somebody's rule is among them", "$T -I RF-BLOCK 1 -j ACCEPT; $T -A RF-BLOCK-DENY -j ACCEPT"),
        (
            "a chain is in the way",
            "$T -N RF-BLOCK-0000; $T -A RF-BLOCK-0000 -j ACCEPT; $T -I RF-BLOCK -j RF-BLOCK-0000",
        ),
    ] {
        for_both(&pbx, script);
        assert_ne!(pbx.saved(), as_it_should_be, "{what}");
        pbx.does(&["expire"]);
        assert_eq!(jumps(&pbx), once, "{what}");
        holds(&pbx);
        for family in FAMILIES {
            pbx.host.shell(&format!(
                "{family}-{variant} -C INPUT -i lo -j ACCEPT 2>/dev/null || {family}-{variant} -A INPUT -i lo -j ACCEPT"
            ));
        }
        assert_eq!(pbx.saved(), as_it_should_be, "{what}");
    }
    // The first of all calls is not the only one that sees to it.
    for args in
        [&["restore"][..], &["start"], &["unban", "--", "1@a.example.com"], &["ban", "--", "1@a.example.com"]]
    {
        for_both(&pbx, "$T -F; $T -X");
        pbx.block(args);
        assert_eq!(jumps(&pbx), once, "{args:?}");
        holds(&pbx);
    }
}

fn the_jump_stands_behind_bans_and_above_all_else(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    pbx.ban(BLOCKED);
    holds(&pbx);
    // From now on all packets of these wires belong to an established connection.
    let wires = pbx.wires();
    for wire in &wires {
        assert!(wire.passes(&register("")));
    }
    for_both(&pbx, "$T -I INPUT 1 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT");
    assert!(wires.iter().all(|wire| wire.passes(&register("")) && wire.lets_in(BLOCKED)), "it is above us");
    pbx.does(&["expire"]);
    assert_eq!(jumps(&pbx), [[1], [1]]);
    assert!(wires.iter().all(|wire| wire.lets_in(OTHERS[0]) && !wire.lets_in(BLOCKED)));
    // Bans that come later stay above.
    for_both(
        &pbx,
        "$T -N f2b-sip; $T -A f2b-sip -j RETURN; $T -N sip-auth-ip
         $T -I INPUT 1 -p udp -m multiport --dports 5060:5091 -j f2b-sip; $T -I INPUT 1 -j sip-auth-ip",
    );
    let before = pbx.saved();
    pbx.does(&["expire"]);
    assert_eq!(pbx.saved(), before);
    assert_eq!(jumps(&pbx), [[3], [3]]);
    // And who comes anew stands behind them.
    pbx.unban(BLOCKED);
    assert_eq!(jumps(&pbx), [const { Vec::<usize>::new() }; 2]);
    pbx.ban(BLOCKED);
    assert_eq!(jumps(&pbx), [[3], [3]]);
    assert!(wires.iter().all(|wire| wire.lets_in(OTHERS[0]) && !wire.lets_in(BLOCKED)));
    // Between two bans it may stand too, but not behind anything else.
    for_both(&pbx, "$T -N f2b-late; $T -I INPUT 1 -j f2b-late; $T -I INPUT 4 -i lo -j ACCEPT");
    pbx.does(&["expire"]);
    assert_eq!(jumps(&pbx), [[4], [4]]);
}

fn fusionpbx_s_own_rules_are_as_before(variant: &'static str) {
    for (file, place) in [("fusionpbx-iptables.rules", 1), ("fusionpbx-event-guard-doubled.rules", 7)] {
        let pbx = Pbx::bare(variant, UNVERIFIED);
        pbx.host.shell(&format!("iptables-{variant}-restore < {}", data("firewall").join(file).display()));
        for_both(&pbx, "[ $T = iptables-legacy -o $T = iptables-nft ] || $T -A INPUT -i lo -j ACCEPT");
        let before = pbx.saved();
        let wires = pbx.wires();
        for wire in &wires {
            assert!(wire.lets_in(BLOCKED), "{file}");
        }
        let closed = pbx.wire_to(PHONES[0][0], 5059);
        pbx.ban(BLOCKED);
        assert_eq!(jumps(&pbx), [[place], [1]], "{file}");
        // They have answers by now: their packets belong to an established connection.
        for wire in &wires {
            assert!(!wire.lets_in(BLOCKED), "{file}");
            for other in OTHERS {
                assert!(wire.lets_in(other), "{file}: {other}");
            }
        }
        // What nobody accepts is dropped still.
        closed.from.send(b"x").unwrap();
        assert!(wires[0].lets_in(OTHERS[0]));
        closed.to.set_nonblocking(true).unwrap();
        assert_eq!(closed.to.recv(&mut [0; 10]).unwrap_err().kind(), ErrorKind::WouldBlock, "{file}");
        let during = pbx.saved();
        let foreign: Vec<_> = during.lines().filter(|line| !line.contains("RF-BLOCK")).collect();
        assert_eq!(foreign, before.lines().collect::<Vec<_>>(), "{file}");
        pbx.unban(BLOCKED);
        assert_eq!(pbx.saved(), before, "{file}");
        assert!(wires.iter().all(|wire| wire.lets_in(BLOCKED)), "{file}");
    }
}

#[test]
fn a_flushed_ruleset_is_put_right_by_the_next_call() {
    let pbx = Pbx::bare("nft", UNVERIFIED);
    pbx.ban(BLOCKED);
    let before = pbx.saved();
    holds(&pbx);
    let flush = || pbx.host.shell(&format!("nft -f {}", data("firewall/flush-ruleset.nft").display()));
    flush();
    assert_eq!(pbx.saved(), "");
    is_open(&pbx);
    pbx.does(&["expire"]);
    assert_eq!(pbx.saved(), before);
    holds(&pbx);
    // What was there is there still.
    assert!(pbx.host.shell("nft list ruleset").contains("jump sip-auth-fail"));
    flush();
    pbx.unban(BLOCKED);
    assert!(!pbx.saved().contains("RF-"), "{}", pbx.saved());
    is_open(&pbx);
}

/// Of the two variants, those that hold something of ours, in both families alike.
fn holders(pbx: &Pbx) -> Vec<&'static str> {
    let has = |variant: &str| {
        let text = pbx.host.shell(&format!(
            "for family in ip ip6; do $family\"tables-{variant}-save\" | grep -c RF-BLOCK || true; done"
        ));
        let counts: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!(counts[0], counts[1], "{variant}: the families differ");
        counts[0] > 0
    };
    ["nft", "legacy"].into_iter().filter(|variant| has(variant)).collect()
}

/// Where `iptables` is that variant, and the host's rules are there, or in the other.
fn rules_follow_those_of_the_host(usual: &'static str) {
    let other = if usual == "nft" { "legacy" } else { "nft" };
    let rule = |pbx: &Pbx, what: &str, variant: &str| {
        pbx.host.shell(&format!("iptables-{variant} {what} INPUT -i lo -j ACCEPT"));
    };
    let pbx = Pbx::bare(usual, UNVERIFIED);
    pbx.ban(BLOCKED);
    assert_eq!(holders(&pbx), [usual], "there are no rules");
    holds(&pbx);
    // In one of the families is enough.
    rule(&pbx, "-A", other);
    pbx.does(&["expire"]);
    assert_eq!(holders(&pbx), [other], "all rules are there");
    holds(&pbx);
    let hits = pbx.hits();
    pbx.does(&["expire"]);
    assert_eq!((holders(&pbx), pbx.hits()), (vec![other], hits), "nothing is left to do");
    rule(&pbx, "-A", usual);
    pbx.does(&["expire"]);
    assert_eq!(holders(&pbx), [usual], "there are rules in both");
    holds(&pbx);
    rule(&pbx, "-D", usual);
    pbx.does(&["expire"]);
    assert_eq!(holders(&pbx), [other], "the others are left");
    // A policy is a rule as well.
    rule(&pbx, "-D", other);
    pbx.host.shell(&format!("iptables-{other} -P INPUT DROP"));
    pbx.does(&["expire"]);
    assert_eq!(holders(&pbx), [other], "a policy is left");
    pbx.host.shell(&format!("iptables-{other} -P INPUT ACCEPT"));
    pbx.does(&["expire"]);
    assert_eq!(holders(&pbx), [usual], "nothing is left");
    holds(&pbx);
    rule(&pbx, "-A", other);
    pbx.unban(BLOCKED);
    assert_eq!(holders(&pbx), Vec::<&str>::new());
    is_open(&pbx);
}

fn an_observer_changes_nothing_in_the_kernel(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = pbx.saved();
    let observe = |everywhere: bool| {
        pbx.configure(&format!("{UNVERIFIED}{}", if everywhere { "" } else { "mode = \"observe\"\n" }));
        if everywhere {
            let settings = std::fs::read_to_string(pbx.world.config()).unwrap();
            std::fs::write(pbx.world.config(), format!("mode = \"observe\"\n{settings}")).unwrap();
        }
    };
    for (everywhere, account) in [(true, "1@a.example.com"), (false, "2@a.example.com")] {
        observe(everywhere);
        pbx.ban(account);
        assert_eq!(pbx.saved(), before);
        assert!(pbx.wires().iter().all(|wire| wire.lets_in(account)));
        assert_eq!(pbx.hits(), []);
        let journal = pbx.world.journal();
        let last = journal.last().unwrap();
        let said = ["tool", "subject", "decision", "reason", "mode"].map(|key| last[key].as_str().unwrap());
        assert_eq!(said, ["ringfence-block", account, "block", "unknown-account", "observe"]);
        assert_eq!(pbx.block(&["unban", "--", account]).code, 1, "nobody was blocked");

        pbx.configure(UNVERIFIED);
        pbx.ban(BLOCKED);
        holds(&pbx);
        observe(everywhere);
        pbx.does(&["expire"]);
        assert_eq!(pbx.saved(), before);
        is_open(&pbx);
        // What was due before is due again.
        pbx.configure(UNVERIFIED);
        pbx.does(&["expire"]);
        holds(&pbx);
        pbx.unban(BLOCKED);
        assert_eq!(pbx.saved(), before);
    }
}

fn what_is_over_leaves_the_kernel(variant: &'static str) {
    let pbx = Pbx::new(variant, UNVERIFIED);
    let before = pbx.saved();
    let wait = || {
        let begun = now();
        wait_for("three seconds", || now() >= begun + 3);
    };
    pbx.does(&["ban", "--for", "2s", "--", BLOCKED]);
    holds(&pbx);
    wait();
    assert_eq!(pbx.hits(), []);
    pbx.does(&["expire"]);
    is_open(&pbx);
    assert_eq!(pbx.saved(), before);

    pbx.does(&["ban", "--for", "2s", "--", BLOCKED]);
    holds(&pbx);
    wait();
    pbx.ban(OTHERS[0]);
    is_open(&pbx);
    assert!(pbx.wires().iter().all(|wire| !wire.lets_in(OTHERS[0])));
    assert_eq!(pbx.hits(), [(OTHERS[0].to_owned(), 2)]);
    pbx.unban(OTHERS[0]);
    assert_eq!(pbx.saved(), before);
    let journal = pbx.world.journal();
    let over = journal.iter().filter(|line| line["decision"] == "unblock" && line["reason"] == "time-over");
    assert!(over.map(|line| line["subject"].as_str().unwrap()).all(|subject| subject == BLOCKED));
}

fn nothing_is_left_behind(variant: &'static str) {
    let settings = format!("{UNVERIFIED}tcp = \"reset\"\nlog-prefix = \"sip \"\nonly-exempt = false\n");
    let pbx = Pbx::new(variant, &settings);
    let before = pbx.saved();
    let devices = PHONES.as_flattened().iter().map(|address| format!("101@a.example.com,{address}"));
    let accounts = ["1@a.example.com", "2@a.example.com", "1@b.example.com", "1@c.example.com"];
    let all: Vec<_> = accounts.iter().map(|account| (*account).to_owned()).chain(devices).collect();
    for id in &all {
        pbx.ban(id);
    }
    assert_eq!(pbx.hits().len(), all.len());
    let counted = pbx.saved();
    for chain in ["RF-BLOCK", "RF-BLOCK-DENY", "RF-BLOCK-"] {
        assert!(counted.contains(&format!("\n:{chain}")), "{chain} in {counted}");
    }
    for id in &all {
        assert_ne!(pbx.saved(), before);
        pbx.unban(id);
    }
    assert_eq!(pbx.saved(), before);
    // All at once, too.
    for id in &all {
        pbx.does(&["ban", "--jail", "sip", "--", id]);
    }
    pbx.does(&["flush", "--jail", "sip"]);
    assert_eq!(pbx.saved(), before);
    assert_eq!(pbx.hits(), []);
}
