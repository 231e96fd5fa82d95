//! `ringfence why` and `release`: ways to be blocked by what others made, and by what is seldom; each is set up once, named, and undone.

use std::fmt::Write as _;

use crate::admin_why::{
    BAD, OFFICE, ask, bans, blocked_by, checks, configure, fusionpbx, goes_live, is_named_and_undone, jails,
    paste, printed, site, site_of,
};
use crate::support::pbx::PHONES;
use crate::support::sip::register;
use crate::support::{Banner, Call, Fail2ban, Postgres, call, sqlite, wait_for};

with_both_variants! {
    fail2bans_own_jails_with_two_chains_are_one_block
    event_guard_through_nftables_is_named_and_undone
    event_guard_through_iptables_is_named_and_undone
    lists_and_limits_over_both_families
    rules_of_the_hosts_own
    bans_beside_the_table_filter
    jails_of_other_actions
}

#[track_caller]
fn admin(banner: &Banner, args: &[&str]) -> Call {
    call(&mut banner.pbx.admin_command(args))
}

/// Nothing blocks it after a release, which says so.
#[track_caller]
fn is_released(banner: &Banner, subject: &str, said: &[&str]) {
    let done = admin(banner, &["release", subject]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    assert!(done.stdout.starts_with(&format!("{subject} is released:\n")), "{}", done.stdout);
    for line in said {
        assert!(done.stdout.contains(&format!("\n  {line}\n")), "{line}: {}", done.stdout);
    }
    assert_eq!(blocked_by(banner, subject), [""; 0]);
}

/// fail2ban with its own jails for FreeSWITCH and Asterisk as it ships them, but that one failure is enough.
fn stock(banner: &Banner) -> Fail2ban<'_> {
    let world = &banner.pbx.world;
    for name in ["freeswitch.conf", "asterisk.conf", "common.conf"] {
        let from = std::path::Path::new("/etc/fail2ban/filter.d").join(name);
        std::fs::copy(from, world.path("fail2ban/filter.d").join(name)).unwrap();
    }
    let mut text = "[DEFAULT]\nbackend = polling\nignoreself = false\n".to_owned();
    for jail in ["freeswitch", "asterisk"] {
        let log = world.path(jail).with_extension("log");
        std::fs::write(&log, "").unwrap();
        let _ = write!(text, "[{jail}]\nenabled = true\nlogpath = {}\nmaxretry = 1\n", log.display());
    }
    let fail2ban = Fail2ban::start(&banner.pbx.host, world, &text, &std::env::var("PATH").unwrap());
    for jail in ["freeswitch", "asterisk"] {
        wait_for(jail, || fail2ban.number_if_any(jail, "Currently banned").is_some());
    }
    fail2ban
}

/// Somebody fails as FreeSWITCH before 1.10.7 says it, or Asterisk; and is banned in both chains.
#[track_caller]
fn fails(banner: &Banner, fail2ban: &Fail2ban<'_>, jail: &str, address: &str) {
    use std::io::Write as _;
    let now = jiff::Timestamp::now();
    let line = match jail {
        "freeswitch" => format!(
            "{} [WARNING] sofia_reg.c:1787 SIP auth failure (REGISTER) on sofia profile 'internal' for [101@a.example.com] \
             from ip {address}",
            now.strftime("%Y-%m-%d %H:%M:%S.%6f")
        ),
        _ => format!(
            "[{}] NOTICE[1234] chan_sip.c: Registration from '\"101\" <sip:101@192.0.2.1>' failed for '{address}:5060' - Wrong \
             password",
            now.strftime("%Y-%m-%d %H:%M:%S")
        ),
    };
    let log = banner.pbx.world.path(jail).with_extension("log");
    writeln!(std::fs::File::options().append(true).open(log).unwrap(), "{line}").unwrap();
    wait_for(jail, || fail2ban.banned(jail) == [address]);
    wait_for("both chains", || in_chains(banner, jail, address) == 2);
    wait_for("the database", || fail2ban.remembered(jail) == 1);
}

/// In how many of a jail's chains an address is.
fn in_chains(banner: &Banner, jail: &str, address: &str) -> usize {
    let saved = banner.pbx.saved_in(banner.pbx.variant);
    let rules = ["tcp", "udp"].map(|protocol| format!("-A f2b-{jail}-{protocol} -s {address}/32 "));
    rules.iter().filter(|rule| saved.contains(rule.as_str())).count()
}

fn fail2bans_own_jails_with_two_chains_are_one_block(variant: &'static str) {
    let banner = site_of(variant, "");
    goes_live(&banner);
    let mut fail2ban = stock(&banner);
    for jail in ["freeswitch", "asterisk"] {
        let sentence = format!("is blocked by fail2ban's jail {jail} on 5060,5061 tcp,udp, since ");
        fails(&banner, &fail2ban, jail, BAD);
        let commands = printed(&ask(&banner, &[BAD]).stdout);
        assert!(
            commands.len() == 1 && commands[0].ends_with(&format!(" set {jail} unbanip {BAD}")),
            "{commands:?}"
        );
        is_named_and_undone(&banner, BAD, "fail2ban", "fail2ban", &sentence);
        assert_eq!((fail2ban.banned(jail), in_chains(&banner, jail, BAD)), (vec![], 0));
    }
    // By both, beside somebody else.
    let other = "203.0.113.210";
    fails(&banner, &fail2ban, "asterisk", other);
    paste(&banner, &printed(&ask(&banner, &[other]).stdout)[0]);
    for jail in ["freeswitch", "asterisk"] {
        fails(&banner, &fail2ban, jail, BAD);
    }
    fail2ban.client(&["set", "freeswitch", "banip", other]).unwrap();
    assert_eq!(blocked_by(&banner, BAD), ["fail2ban", "fail2ban"]);
    is_released(
        &banner,
        BAD,
        &["fail2ban's jail asterisk lets 203.0.113.21 go", "fail2ban's jail freeswitch lets 203.0.113.21 go"],
    );
    assert_eq!(
        (fail2ban.banned("freeswitch"), in_chains(&banner, "freeswitch", other)),
        (vec![other.to_owned()], 2)
    );
    // What a killed fail2ban left behind is in two chains, and each must be rid of it.
    fails(&banner, &fail2ban, "asterisk", BAD);
    fail2ban.kill();
    sqlite(&banner.database(), "DELETE FROM bips");
    let shown = ask(&banner, &[BAD]).stdout;
    assert_eq!(printed(&shown).len(), 2, "{shown}");
    assert_eq!(blocked_by(&banner, BAD), ["fail2ban", "fail2ban"]);
    is_released(
        &banner,
        BAD,
        &[
            "the rule of fail2ban in f2b-asterisk-tcp is taken away",
            "the rule of fail2ban in f2b-asterisk-udp is taken away",
        ],
    );
    assert_eq!(in_chains(&banner, "asterisk", BAD), 0);
}

/// What FusionPBX wrote down of it.
fn with_event_guard(filter: &str) -> Postgres {
    Postgres::with_fusionpbx(&format!(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES (gen_random_uuid(), 'a.example.com', true);
         INSERT INTO v_event_guard_logs (event_guard_log_uuid, hostname, log_date, filter, ip_address, extension, user_agent, log_status)
         VALUES (gen_random_uuid(), 'pbx1', now() - interval '5 minutes', '{filter}', '{BAD}', '999', 'scan', 'blocked')"
    ))
}

/// As its classes for nftables do it: chains of the host's own table, with hooks of their own.
fn event_guard_through_nftables_is_named_and_undone(variant: &'static str) {
    let postgres = with_event_guard("sip-auth-fail");
    let banner = site_of(variant, &fusionpbx(&postgres));
    let shell = |script: &str| banner.pbx.host.shell(script);
    shell(
        "nft add table inet filter; nft add chain inet filter input '{ type filter hook input priority 0; }'",
    );
    for chain in ["sip-auth-ip", "sip-auth-fail"] {
        shell(&format!("nft add chain inet filter {chain} '{{ type filter hook input priority -50 ; }}'"));
    }
    let guard = |chain: &str, address: &str| {
        shell(&format!("nft add rule inet filter {chain} ip saddr {address} counter drop"));
    };
    // FusionPBX's own unblock of .21 would let this one go, too.
    let neighbour = "203.0.113.210";
    guard("sip-auth-fail", neighbour);
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
    assert_eq!(admin(&banner, &["test", BAD]).code, 0);
    guard("sip-auth-fail", BAD);
    guard("sip-auth-fail", BAD);
    let shown = ask(&banner, &[BAD]).stdout;
    assert_eq!(printed(&shown).len(), 2, "{shown}");
    for says in [
        "in the chain sip-auth-fail (nftables, table inet filter); v_event_guard_logs: blocked by sip-auth-fail, extension 999, \
         agent scan, host pbx1",
        "\nNote: FusionPBX's page Status > Event Guard Logs still shows it: ",
    ] {
        assert!(shown.contains(says), "{shown}");
    }
    let tested = admin(&banner, &["test", BAD]);
    assert_eq!(tested.code, 1, "{}", tested.stdout);
    for says in [
        "dropped by rule 2 of sip-auth-fail (nftables, table inet filter): `ip saddr 203.0.113.21 counter drop`",
        "FusionPBX's event_guard (its chains sip-auth-* are there) may block it at the first failure",
    ] {
        assert!(tested.stdout.contains(says), "{}", tested.stdout);
    }
    is_named_and_undone(
        &banner,
        BAD,
        "event-guard",
        "event_guard",
        "is blocked by event_guard (sip-auth-fail), since ",
    );
    assert_eq!(blocked_by(&banner, neighbour), ["event-guard"]);
    // By both chains, and the one that is meant alone.
    guard("sip-auth-fail", BAD);
    guard("sip-auth-ip", BAD);
    let done = admin(&banner, &["release", BAD]);
    assert_eq!(done.code, 0, "{}", done.stdout);
    for says in [
        "\n  the rule of event_guard in sip-auth-fail of nftables is taken away\n",
        "\n  the rule of event_guard in sip-auth-ip of nftables is taken away\n",
        "\nNote: FusionPBX's page Status > Event Guard Logs still shows it: tick it there, and press Unblock.\n",
    ] {
        assert!(done.stdout.contains(says), "{}", done.stdout);
    }
    assert_eq!(
        (blocked_by(&banner, BAD), blocked_by(&banner, neighbour)),
        (vec![], vec!["event-guard".to_owned()])
    );
    let paused = admin(&banner, &["pause", "1m"]).stdout;
    assert!(
        paused.contains("Not ours, and still banning: inet filter sip-auth-fail, inet filter sip-auth-ip"),
        "{paused}"
    );
    assert_eq!(admin(&banner, &["pause", "--end"]).code, 0);
}

fn event_guard_through_iptables_is_named_and_undone(variant: &'static str) {
    let postgres = with_event_guard("sip-auth-fail");
    let banner = site_of(variant, &fusionpbx(&postgres));
    goes_live(&banner);
    for chain in ["sip-auth-ip", "sip-auth-fail"] {
        banner.pbx.host.shell(&format!(
            "iptables-{variant} -N {chain}; iptables-{variant} -I INPUT -j {chain}; iptables-{variant} -I {chain} -s 203.0.113.210 -j DROP"
        ));
    }
    let block = format!("iptables-{variant} -I sip-auth-fail -s {BAD} -j DROP");
    banner.pbx.host.shell(&block);
    is_named_and_undone(
        &banner,
        BAD,
        "event-guard",
        "event_guard",
        "is blocked by event_guard (sip-auth-fail), since ",
    );
    // The same rule twice is nothing that came back.
    banner.pbx.host.shell(&format!("{block}; {block}"));
    is_released(&banner, BAD, &["the rule of event_guard in sip-auth-fail is taken away"]);
    assert_eq!(blocked_by(&banner, "203.0.113.210"), ["event-guard"; 2]);
}

fn lists_and_limits_over_both_families(variant: &'static str) {
    let lists = format!(
        "[lists.bad]\nkind = \"block\"\nentries = [\"198.51.100.0/24\", \"2001:db8:bad::/48\", \"2001:db8:5::5\"]\n\
         [lists.home]\nkind = \"allow\"\nentries = [\"{OFFICE}\", \"{}\"]\nexempts = [\"blocklists\"]\n",
        PHONES[0][1]
    );
    let limits = "[firewall]\nregister-limit = \"2/minute burst 2\"\n";
    let banner = site_of(variant, &format!("{lists}{limits}"));
    goes_live(&banner);
    for (address, range) in [
        ("198.51.100.7", "198.51.100.0/24"),
        ("2001:db8:bad::7", "2001:db8:bad::/48"),
        ("2001:db8:5::5", "2001:db8:5::5"),
    ] {
        let sentence = format!("is blocked by the block list bad as {range}, since ");
        is_named_and_undone(&banner, address, "block-list", "block lists", &sentence);
    }
    // Who exceeds a limit, by packets of his own.
    for phone in PHONES[1] {
        let wire = banner.pbx.wire(phone);
        for _ in 0..6 {
            wire.from.send(register("").as_bytes()).unwrap();
        }
        is_named_and_undone(
            &banner,
            phone,
            "rate-limit",
            "rate limits",
            "is blocked by a rate limit on SIP, until ",
        );
    }
    configure(
        &banner,
        &format!("{lists}[firewall]\nrestrict = [{{ ports = [\"5080\"], to = [\"home\"] }}]\n"),
    );
    goes_live(&banner);
    for phone in PHONES[0] {
        assert_eq!(blocked_by(&banner, phone), [""; 0]);
    }
    let sentence = "is blocked by a restriction to home on 5080 udp,tcp, as long as ";
    for stranger in ["203.0.113.98", "2001:db8:98::1"] {
        is_named_and_undone(&banner, stranger, "restriction", "restrictions", sentence);
    }
}

fn rules_of_the_hosts_own(variant: &'static str) {
    let banner = site_of(variant, "");
    goes_live(&banner);
    let table =
        "nft add table inet own; nft add chain inet own in '{ type filter hook input priority 5; }'; ";
    let set = "nft add set inet own nets '{ type ipv4_addr; flags interval; }'; nft add element inet own nets '{ 203.0.113.0/26 }'; ";
    for (rules, address, sentence, freed_alone) in [
        ("iptables -A INPUT -s 203.0.113.21 -j REJECT".to_owned(), BAD, "is blocked by rule 3 of INPUT (iptables-", false),
        (
            "ipset create own hash:net; ipset add own 203.0.113.0/26; iptables -A INPUT -m set --match-set own src -j DROP".to_owned(),
            BAD,
            "is blocked by rule 3 of INPUT (iptables-",
            true,
        ),
        (
            "ip6tables -A INPUT -s 2001:db8:21::/48 -j DROP".to_owned(),
            PHONES[1][1],
            "is blocked by rule 3 of INPUT (ip6tables-",
            false,
        ),
        (
            format!("{table}nft add rule inet own in ip saddr 203.0.113.21 drop"),
            BAD,
            "is blocked by rule 1 of in (nftables, table inet own), `ip saddr 203.0.113.21 drop`, until ",
            false,
        ),
        (
            format!("{table}{set}nft add rule inet own in ip saddr @nets udp dport 5060 drop"),
            BAD,
            "is blocked by rule 1 of in (nftables, table inet own), `ip saddr @nets udp dport 5060 drop` on 5060 udp, until ",
            true,
        ),
        (
            format!("{table}nft add rule inet own in ip6 saddr 2001:db8:21::/48 counter reject"),
            PHONES[1][1],
            "is blocked by rule 1 of in (nftables, table inet own), `ip6 saddr 2001:db8:21::/48 counter reject`, until ",
            false,
        ),
    ] {
        let rules = rules.replace("ip6tables ", &format!("ip6tables-{variant} "));
        banner.pbx.host.shell(&rules.replace("iptables ", &format!("iptables-{variant} ")).replace("ip6iptables", "ip6tables"));
        assert_eq!(blocked_by(&banner, address), ["rules"], "{rules}");
        let left = admin(&banner, &["release", address]);
        assert_eq!(left.code, 1, "the host's own rules are not touched: {}", left.stdout);
        assert!(left.stdout.contains("; by hand"), "{}", left.stdout);
        is_named_and_undone(&banner, address, "rules", "other rules", sentence);
        if freed_alone {
            assert_eq!(blocked_by(&banner, OFFICE), ["rules"], "{rules}");
        }
        banner.pbx.host.shell("nft delete table inet own 2>&- || true");
        banner.pbx.host.shell(&format!(
            "for it in iptables ip6tables; do while $it-{variant} -D INPUT 3 2>&-; do :; done; done; ipset destroy own 2>&- || true"
        ));
        assert_eq!(blocked_by(&banner, OFFICE), [""; 0], "{rules}");
    }
    // What a policy closes to everybody is named, and nobody can tell who is to be let in.
    banner.pbx.host.shell(&format!("iptables-{variant} -P INPUT DROP"));
    let shown = ask(&banner, &[BAD]);
    assert_eq!(shown.code, 1, "{}", shown.stdout);
    let says =
        format!("is blocked by the policy of INPUT (iptables-{variant}), which drops what no rule lets in");
    assert!(shown.stdout.lines().next().unwrap().contains(&says), "{}", shown.stdout);
    assert_eq!(
        (blocked_by(&banner, BAD), checks(&banner, BAD, "blocks")),
        (vec!["rules".to_owned()], vec!["other rules".to_owned()])
    );
}

/// As administrators have fail2ban ban before connections are tracked.
fn bans_beside_the_table_filter(variant: &'static str) {
    let banner = site_of(variant, "");
    goes_live(&banner);
    for (table, from, program, address) in [
        ("raw", "PREROUTING", "iptables", BAD),
        ("mangle", "INPUT", "iptables", BAD),
        ("raw", "PREROUTING", "ip6tables", PHONES[1][1]),
    ] {
        let iptables = format!("{program}-{variant} -t {table}");
        let ban = format!("{iptables} -A f2b-early -s {address} -j DROP");
        banner.pbx.host.shell(&format!("{iptables} -N f2b-early; {iptables} -A {from} -j f2b-early; {ban}"));
        let shown = ask(&banner, &[address]).stdout;
        let place = format!("{table} {from} 1 > f2b-early");
        let says = format!(
            "in the chain f2b-early ({program}-{variant}, table {table}); fail2ban does not know of it"
        );
        assert!(shown.contains(&place) && shown.contains(&says), "{shown}");
        let sentence = "is blocked by fail2ban's jail early, for good.";
        is_named_and_undone(&banner, address, "fail2ban", "fail2ban", sentence);
        banner.pbx.host.shell(&ban);
        is_released(&banner, address, &["the rule of fail2ban in f2b-early is taken away"]);
        // What is behind it is seen without it.
        banner.pbx.host.shell(&format!("{ban}; {program}-{variant} -A INPUT -s {address} -j DROP"));
        assert_eq!(blocked_by(&banner, address), ["fail2ban", "rules"]);
        banner
            .pbx
            .host
            .shell(&format!("{iptables} -F f2b-early; {program}-{variant} -D INPUT -s {address} -j DROP"));
    }
}

/// A jail for all ports by `ringfence-ban`, and those of fail2ban's own actions that no other test has.
fn jails_of_other_actions(variant: &'static str) {
    let banner = site_of(variant, "");
    goes_live(&banner);
    let all_ports = "banaction = %(banaction_allports)s\nport = 0:65535\nprotocol = all\nchain = INPUT";
    let fail2ban = banner.fail2ban(&[
        ("everything", all_ports),
        ("allports", "banaction = iptables-allports"),
        ("single", "banaction = iptables[type=oneport]\nport = 5060\nprotocol = udp"),
        ("sets", "banaction = iptables-ipset-proto6\nport = 5060\nprotocol = udp"),
        ("tables", "banaction = nftables-allports"),
    ]);
    for (jail, sentence) in [
        ("everything", "is blocked by fail2ban's jail everything, since "),
        ("allports", "is blocked by fail2ban's jail allports on all ports tcp, since "),
        ("single", "is blocked by fail2ban's jail single on 5060 udp, since "),
        ("sets", "is blocked by fail2ban's jail sets on 5060 udp, since "),
        ("tables", "is blocked by fail2ban's jail tables on all ports tcp, since "),
    ] {
        for address in PHONES[1] {
            println!("{jail} {address}");
            bans(&banner, &fail2ban, jail, address);
            wait_for("the block", || blocked_by(&banner, address) == ["fail2ban"]);
            is_named_and_undone(&banner, address, "fail2ban", "fail2ban", sentence);
            assert_eq!(fail2ban.banned(jail), [""; 0]);
        }
    }
}

/// As fail2ban's action `ufw`, and as administrators write their own.
#[test]
fn a_jail_whose_action_has_no_chain_of_its_own_is_let_go_by_fail2ban() {
    let banner = site("");
    std::fs::create_dir_all(banner.pbx.world.path("fail2ban/action.d")).unwrap();
    std::fs::write(
        banner.pbx.world.path("fail2ban/action.d/plain.conf"),
        "[Definition]\nactionban = iptables-nft -I INPUT -s <ip> -j DROP\nactionunban = iptables-nft -D INPUT -s <ip> -j DROP\n",
    )
    .unwrap();
    let fail2ban = banner.fail2ban(&[("plain", "action = plain")]);
    bans(&banner, &fail2ban, "plain", BAD);
    wait_for("the rule", || blocked_by(&banner, BAD) == ["rules"]);
    let shown = ask(&banner, &[BAD]).stdout;
    let says = "\nNote: fail2ban bans it as well, and may have made the rule; if it stays behind that, it is the host's own: \
                iptables-nft -D INPUT -s 203.0.113.21/32 -j DROP.\n";
    assert!(shown.contains(says), "{shown}");
    let commands = printed(&shown);
    assert!(commands.len() == 1 && commands[0].ends_with(" set plain unbanip 203.0.113.21"), "{commands:?}");
    paste(&banner, &commands[0]);
    assert_eq!((blocked_by(&banner, BAD), fail2ban.banned("plain")), (vec![], vec![]));
    bans(&banner, &fail2ban, "plain", BAD);
    wait_for("the rule", || blocked_by(&banner, BAD) == ["rules"]);
    is_released(&banner, BAD, &["fail2ban's jail plain lets 203.0.113.21 go"]);
    // What the administrator has put there himself stays, and is said.
    bans(&banner, &fail2ban, "plain", BAD);
    wait_for("the rule", || blocked_by(&banner, BAD) == ["rules"]);
    banner.pbx.host.shell(&format!("iptables-nft -A INPUT -s {BAD} -p udp -j DROP"));
    let done = admin(&banner, &["release", BAD]);
    assert_eq!((done.code, fail2ban.banned("plain")), (1, vec![]), "{}", done.stdout);
    assert!(
        done.stdout.contains("; by hand: iptables-nft -D INPUT -s 203.0.113.21/32 -p udp -j DROP\n"),
        "{}",
        done.stdout
    );
}

#[test]
fn accounts_are_named_where_a_program_matches_them() {
    let banner = site_of("bpf", "matcher = \"bpf\"\n");
    goes_live(&banner);
    let device = format!("101@b.example.com,{OFFICE}");
    for (id, subject, check, sentence) in [
        (
            device.as_str(),
            "101@b.example.com",
            "blocks",
            "is blocked by ringfence-block, from 203.0.113.20, since ",
        ),
        (device.as_str(), OFFICE, "accounts", "is not blocked."),
        (
            "999@a.example.com",
            "999@a.example.com",
            "blocks",
            "is blocked by ringfence-block, everywhere, since ",
        ),
    ] {
        banner.pbx.ban(id);
        is_named_and_undone(&banner, subject, "account", check, sentence);
        banner.pbx.ban(id);
        let done = admin(&banner, &["release", subject]);
        assert_eq!(done.code, 0, "{}", done.stdout);
        assert!(done.stdout.contains(&format!("\n  ringfence-block lets {id} go\n")), "{}", done.stdout);
        assert_eq!(banner.pbx.list(), [serde_json::Value::Null; 0]);
    }
}

/// Everything of an address at once: what each way of a release leaves to the other is no error.
#[test]
fn two_releases_at_once_undo_it_once() {
    let banner = site(&format!("[lists.bad]\nkind = \"block\"\nentries = [\"{BAD}\"]\n"));
    goes_live(&banner);
    let fail2ban = jails(&banner);
    for jail in ["sip", "ssh", "native"] {
        bans(&banner, &fail2ban, jail, BAD);
    }
    banner.pbx.ban(&format!("101@b.example.com,{BAD}"));
    banner.pbx.host.shell(&format!(
        "nft add table inet filter; nft add chain inet filter sip-auth-ip '{{ type filter hook input priority -50 ; }}'
         nft add rule inet filter sip-auth-ip ip saddr {BAD} counter drop; ipset add rf-slam-ip4 {BAD} timeout 50"
    ));
    wait_for("all", || blocked_by(&banner, BAD).len() == 7);
    let release = || admin(&banner, &["release", BAD]);
    let (one, other) = std::thread::scope(|scope| {
        let other = scope.spawn(release);
        (release(), other.join().unwrap())
    });
    let (first, second) = if one.stdout.contains("is released:") { (one, other) } else { (other, one) };
    assert_eq!((first.code, first.stderr.as_str()), (0, ""), "{}", first.stdout);
    assert!(first.stdout.starts_with("203.0.113.21 is released:\n"), "{}", first.stdout);
    assert_eq!(first.stdout.lines().filter(|line| line.starts_with("  ")).count(), 8, "{}", first.stdout);
    let nothing = "203.0.113.21 is not blocked; there is nothing to undo.\n";
    assert_eq!((second.code, second.stderr.as_str(), second.stdout.as_str()), (0, "", nothing));
    assert_eq!(blocked_by(&banner, BAD), [""; 0]);
}

#[test]
fn what_is_banned_again_while_it_is_let_go_is_said() {
    let banner = site("");
    goes_live(&banner);
    let fail2ban = jails(&banner);
    let socket = banner.pbx.world.path("fail2ban/socket").display().to_string();
    // A phone that fails whenever it is let go, so many times.
    let fails = |times: u32| {
        banner.pbx.host.shell(&format!(
            "[ -e /run/client ] || cp /usr/bin/fail2ban-client /run/client
             echo {times} >/run/times
             cat >/run/wrapper <<'END'
#!/bin/sh
/run/client \"$@\"; status=$?
times=$(cat /run/times)
case \"$*\" in
*\" unbanip \"*) [ $times -eq 0 ] || {{ echo $((times - 1)) >/run/times; /run/client -s '{socket}' set sip banip {BAD} >/run/null; }} ;;
esac
exit $status
END
             chmod 755 /run/wrapper
             mountpoint -q /usr/bin/fail2ban-client || mount --bind /run/wrapper /usr/bin/fail2ban-client"
        ));
    };
    bans(&banner, &fail2ban, "sip", BAD);
    fails(1);
    let done = admin(&banner, &["release", BAD]);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""), "{}", done.stdout);
    let again = "\nNote: 203.0.113.21 was blocked again while it was let go, and will be as long as something there goes on failing: \
                 `ringfence offenders --address 203.0.113.21` shows what.\n";
    assert!(done.stdout.starts_with("203.0.113.21 is released:\n"), "{}", done.stdout);
    let twice = "\n  fail2ban's jail sip lets 203.0.113.21 go (2 times: it was blocked again meanwhile)\n";
    assert!(done.stdout.contains(twice) && done.stdout.contains(again), "{}", done.stdout);
    assert_eq!((fail2ban.banned("sip"), blocked_by(&banner, BAD)), (vec![], vec![]));

    bans(&banner, &fail2ban, "sip", BAD);
    fails(100);
    let done = admin(&banner, &["release", BAD]);
    assert_eq!((done.code, done.stderr.as_str()), (1, ""), "{}", done.stdout);
    assert!(done.stdout.starts_with("203.0.113.21 is released in part:\n"), "{}", done.stdout);
    let left = "\n  left: fail2ban has it among its bans again, though nothing drops it yet; by hand: fail2ban-client -s ";
    assert!(done.stdout.contains("(3 times: it was blocked again meanwhile)\n"), "{}", done.stdout);
    assert!(done.stdout.contains(left) && done.stdout.contains(again), "{}", done.stdout);
    assert_eq!(fail2ban.banned("sip"), [BAD]);
    let last = banner.pbx.world.journal().pop().unwrap();
    assert_eq!(last["reason"], "released-in-part");
    fails(0);
    is_released(&banner, BAD, &[]);
}
