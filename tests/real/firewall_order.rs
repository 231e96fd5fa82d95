//! `ringfence-firewall` and the kernel: what packets from outside meet, with both variants of iptables.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::packets::{
    ACK, Connection, FIN, Gate, PSH, Packet, RST, STRANGERS, SYN, Sent, URG, forget_connections, tcp, udp,
};
use crate::support::pbx::{PBX, PHONES, UNVERIFIED, once_free};
use crate::support::sip::{Answerer, credentials, login, register};
use crate::support::{Http, Pbx, Postgres, Reply, data, run, wait_for};

with_both_variants! {
    a_ban_holds_whoever_is_allowed_later_and_that_is_said
    who_is_allowed_passes_though_he_is_blocked
    who_is_blocked_is_dropped_but_for_what_is_established_and_not_sip
    errors_about_running_flows_come_in_whoever_reports_them
    other_ports_of_sip_are_looked_at_from_now_on
    ports_are_for_those_on_lists_alone
    a_port_is_for_a_country_alone_and_its_limits_hold_there
    a_restriction_without_anybody_is_none_and_that_is_said
    carriers_reach_the_port_that_is_theirs
    a_flood_by_udp_ends_at_the_burst_for_as_long_as_it_goes_on
    a_flood_by_tcp_ends_at_the_burst_for_as_long_as_it_goes_on
    a_connection_that_registers_too_often_is_cut
    what_phones_do_is_never_limited
    known_sources_are_never_limited
    a_network_of_ipv6_is_one_source
    each_method_has_a_limit_of_its_own
    a_limit_that_was_changed_holds_from_now_on
    calls_by_iax_are_limited_and_voice_is_not
    new_connections_to_other_ports_are_limited
    connections_are_tracked_where_the_host_does_it_anyway
    impossible_flags_are_dropped
    segments_of_no_connection_reach_who_listens_at_one_address
    a_host_that_is_idle_keeps_its_rules
    connections_that_nothing_tracked_go_on
    blocked_accounts_come_first_and_outlive_the_rules
    an_observer_counts_and_drops_nothing
    what_is_logged_is_dropped_all_the_same
    scanners_are_dropped_but_for_allowed_sources
    who_is_allowed_is_let_in_only_where_the_settings_say_so
    sipp_registers_but_for_a_blocked_source
    all_holds_where_ipv6_is_switched_off
    all_holds_where_connections_are_not_tracked
}

const FAMILIES: [usize; 2] = [0, 1];
const OFFICE: [&str; 2] = PHONES[0];
const STRANGER: [&str; 2] = PHONES[1];

/// Time enough for a machine that is busy: nothing comes back to a limit meanwhile.
const NO_REFILL: &str = "1/hour";

/// Lines of a shell, for both families: `$T` is the program.
fn for_both(pbx: &Pbx, script: &str) {
    for family in ["iptables", "ip6tables"] {
        pbx.host.shell(&script.replace("$T", &format!("{family}-{}", pbx.variant)));
    }
}

/// A PBX with FusionPBX's own rules in both families: what is established passes first.
fn fusionpbx(variant: &'static str, settings: &str) -> Pbx {
    let pbx = Pbx::bare(variant, settings);
    let rules = data("firewall/fusionpbx-iptables.rules");
    let rules = rules.display();
    pbx.host.shell(&format!(
        "iptables-{variant}-restore < {rules}
         sed 's/-p icmp .*/-p ipv6-icmp -j ACCEPT/' {rules} | ip6tables-{variant}-restore"
    ));
    pbx
}

/// The rules go in, and there is nothing to say.
#[track_caller]
fn apply(pbx: &Pbx) {
    assert_eq!(applied(pbx), "");
}

/// The rules go in; what is said.
#[track_caller]
fn applied(pbx: &Pbx) -> String {
    let call = pbx.firewall(&["apply", "--yes"]);
    assert_eq!(call.code, 0, "{}", call.stderr);
    call.stderr
}

/// What was applied is there.
#[track_caller]
fn verify(pbx: &Pbx) {
    let call = pbx.firewall(&["verify"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{}", call.stdout);
}

/// The lists go into the kernel.
#[track_caller]
fn refresh(pbx: &Pbx) {
    let call = pbx.lists(&["refresh"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
}

#[track_caller]
fn plan(pbx: &Pbx) -> Value {
    let call = pbx.firewall(&["plan", "--json"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    serde_json::from_str(&call.stdout).unwrap()
}

/// How many packets met the rules that say so.
#[track_caller]
fn counted(plan: &Value, what: &str) -> u64 {
    let rules = plan["rules"].as_array().unwrap().iter();
    let rules = rules.filter(|rule| rule["what"].as_str().unwrap().starts_with(what));
    rules.map(|rule| rule["packets"].as_u64().unwrap_or_else(|| panic!("{rule}"))).sum()
}

/// The warnings of a kind.
#[track_caller]
fn warnings(pbx: &Pbx, kind: &str) -> Vec<String> {
    let plan = plan(pbx);
    let warnings = plan["warnings"].as_array().unwrap().iter().filter(|warning| warning["kind"] == kind);
    warnings
        .map(|warning| {
            assert_eq!(warning["severity"], "warning");
            warning["text"].as_str().unwrap().to_owned()
        })
        .collect()
}

/// A list with these entries; it exempts nobody unless `more` says so.
fn list(name: &str, kind: &str, entries: &[&str], more: &str) -> String {
    format!("[lists.{name}]\nkind = {kind:?}\nentries = {entries:?}\n{more}\n")
}

fn ipset(pbx: &Pbx, args: &str) {
    run(pbx.host.command("ipset").args(args.split_whitespace()));
}

/// Whether a set has an address.
fn has(pbx: &Pbx, set: &str, address: &str) -> bool {
    pbx.host.command("ipset").args(["-q", "test", set, address]).status().unwrap().success()
}

fn set(name: &str, family: usize) -> String {
    format!("{name}{}", ["4", "6"][family])
}

/// A request of SIP.
fn request(method: &str) -> String {
    register("").replace("REGISTER", method)
}

/// The same packet so many times, each of a flow of its own.
fn many(count: usize, packet: &Packet) -> Vec<Packet> {
    vec![packet.clone(); count]
}

/// Whether a new flow gets in: a REGISTER by UDP to SIP's port and to another one, and a connection of TCP to both.
#[track_caller]
fn gets_in(gate: &Gate<'_>, from: &str) -> [bool; 4] {
    let packets = [
        udp(from, 5060, register("")),
        udp(from, 20_000, "voice"),
        tcp(from, 5060, SYN, ""),
        tcp(from, 22, SYN, ""),
    ];
    gate.let_in(&packets).try_into().unwrap()
}

fn a_ban_holds_whoever_is_allowed_later_and_that_is_said(variant: &'static str) {
    let office = list("office", "allow", &OFFICE, "");
    let pbx = fusionpbx(variant, "");
    let gate = Gate::new(&pbx);
    for (program, from) in [("iptables", OFFICE[0]), ("ip6tables", OFFICE[1])] {
        pbx.host.shell(&format!(
            "{program}-{variant} -N f2b-sip; {program}-{variant} -A f2b-sip -s {from} -j DROP
             {program}-{variant} -A f2b-sip -j RETURN; {program}-{variant} -I INPUT 1 -j f2b-sip"
        ));
    }
    let is_banned = || {
        for family in FAMILIES {
            assert_eq!(gets_in(&gate, OFFICE[family]), [false; 4]);
            assert_eq!(gets_in(&gate, STRANGER[family]), [true; 4]);
        }
        for family in ["iptables", "ip6tables"] {
            let rules = pbx.input(family);
            assert!(rules[0].ends_with("-j f2b-sip") && rules[1].ends_with("-j RINGFENCE"), "{rules:?}");
            assert_eq!(rules.iter().filter(|rule| rule.contains("RINGFENCE")).count(), 1);
        }
    };
    apply(&pbx);
    is_banned();
    assert_eq!(warnings(&pbx, "allowed-banned"), Vec::<String>::new());
    pbx.configure(&office);
    refresh(&pbx);
    apply(&pbx);
    is_banned();
    let warnings = warnings(&pbx, "allowed-banned");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for (warning, from) in warnings.iter().zip(OFFICE) {
        assert!(
            warning.starts_with(&format!("{from} is banned in f2b-sip, though office allows it")),
            "{warning}"
        );
    }
    verify(&pbx);
}

fn who_is_allowed_passes_though_he_is_blocked(variant: &'static str) {
    let settings = list("office", "allow", &OFFICE, "")
        + &list("bad", "block", &[OFFICE[0], OFFICE[1], STRANGER[0], STRANGER[1]], "");
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    apply(&pbx);
    refresh(&pbx);
    for by_force in [false, true] {
        for family in FAMILIES {
            let set = set("rf-block-ip", family);
            assert!(has(&pbx, &set, STRANGER[family]));
            if by_force {
                ipset(&pbx, &format!("add {set} {}", OFFICE[family]));
            }
            assert_eq!(has(&pbx, &set, OFFICE[family]), by_force);
            assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
            assert_eq!(gets_in(&gate, STRANGER[family]), [false; 4]);
        }
    }
}

fn who_is_blocked_is_dropped_but_for_what_is_established_and_not_sip(variant: &'static str) {
    let pbx = fusionpbx(variant, "");
    let gate = Gate::new(&pbx);
    apply(&pbx);
    let before = FAMILIES.map(|family| {
        let from = STRANGER[family];
        let wires = [5060, 20_000].map(|port| pbx.wire_to(from, port));
        assert!(wires.iter().all(|wire| wire.passes(&register(""))));
        (wires, [5060, 22].map(|port| gate.connect(from, port)))
    });
    pbx.configure(&list("bad", "block", &STRANGER, ""));
    refresh(&pbx);
    for (family, (wires, mut connections)) in before.into_iter().enumerate() {
        let from = STRANGER[family];
        assert_eq!(gets_in(&gate, from), [false; 4]);
        assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
        assert_eq!(wires.map(|wire| gate.carries(&wire, b"again")), [false, true], "{from}");
        connections[1].talks(false);
        assert!(!connections[0].carries(&gate, b"again"), "{from}");
    }
    pbx.configure("");
    refresh(&pbx);
    for from in STRANGER {
        assert_eq!(gets_in(&gate, from), [true; 4]);
    }
}

/// Without them a connection to somebody with a narrow link on the way would hang.
fn errors_about_running_flows_come_in_whoever_reports_them(variant: &'static str) {
    let pbx = fusionpbx(variant, &list("bad", "block", &STRANGER, ""));
    let gate = Gate::new(&pbx);
    apply(&pbx);
    refresh(&pbx);
    for (at, to) in PBX.into_iter().zip(STRANGER) {
        let ours = pbx.host.inside(|| once_free(|| UdpSocket::bind((at, 20_001))));
        ours.connect((to, 9)).unwrap();
        ours.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // Nobody listens there.
        ours.send(b"x").unwrap();
        let error = ours.recv(&mut [0; 10]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
        assert_eq!(gets_in(&gate, to), [false; 4]);
    }
}

fn other_ports_of_sip_are_looked_at_from_now_on(variant: &'static str) {
    let settings = |ports: &[&str]| {
        format!("[firewall]\nsip-ports = {ports:?}\nregister-limit = \"{NO_REFILL} burst 10\"\n")
    };
    let pbx = fusionpbx(variant, &settings(&["5060"]));
    let gate = Gate::new(&pbx);
    let limited = |from: [&str; 2]| {
        FAMILIES.map(|family| {
            let count = |port: u16| gate.count(&many(30, &udp(from[family], port, register(""))));
            // Whoever exceeded a limit gets nowhere any more.
            [5062, 5060, 5071].map(|port| {
                let passes = count(port);
                let _ = pbx
                    .host
                    .command("ipset")
                    .args(["-q", "del", &set("rf-slam-ip", family), from[family]])
                    .status();
                passes
            })
        })
    };
    apply(&pbx);
    assert_eq!(limited(STRANGERS[0]), [[30, 10, 30]; 2]);
    // An open flow is looked at as soon as its port is one of SIP's.
    let wires = STRANGER.map(|from| pbx.wire_to(from, 5071));
    assert!(wires.iter().all(|wire| wire.passes("hello")));
    pbx.configure(&settings(&["5062", "5070-5072"]));
    apply(&pbx);
    verify(&pbx);
    // One limit for all of them.
    assert_eq!(limited(STRANGERS[1]), [[10, 30, 0]; 2]);
    for (wire, from) in wires.iter().zip(STRANGER) {
        let heard = (0..20).filter(|_| gate.carries(wire, register("").as_bytes())).count();
        assert_eq!(heard, 10, "{from}");
    }
}

fn ports_are_for_those_on_lists_alone(variant: &'static str) {
    let no_exemption = "exempts = []";
    let settings = format!(
        "[firewall]\nrestrict = [{{ ports = [\"5060\"], to = [\"inside\", \"friends\"] }}, {{ ports = [\"22\", \"5080\"], to = [\"friends\"] }}]\n{}{}",
        list("inside", "allow", &["203.0.113.20/31", "2001:db8:20::/48"], no_exemption),
        list("friends", "allow", &STRANGERS[0], no_exemption)
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    verify(&pbx);
    for family in FAMILIES {
        let reaches = |from: &str| {
            let ports = [5060, 5080, 5081, 22];
            let by_udp = ports.map(|port| udp(from, port, register("")));
            let by_tcp = ports.map(|port| tcp(from, port, SYN, ""));
            (gate.let_in(&by_udp), gate.let_in(&by_tcp))
        };
        let outside = STRANGERS[1][family];
        // FusionPBX opens port 22 to TCP alone.
        assert_eq!(reaches(OFFICE[family]), (vec![true, false, true, false], vec![true, false, true, false]));
        assert_eq!(reaches(STRANGERS[0][family]), (vec![true, true, true, false], vec![true; 4]));
        assert_eq!(reaches(outside), (vec![false, false, true, false], vec![false, false, true, false]));
    }
}

fn a_port_is_for_a_country_alone_and_its_limits_hold_there(variant: &'static str) {
    let pbx = fusionpbx(variant, "");
    let http = pbx.host.inside(Http::start);
    http.serve("/au.zone", Reply::Ok(b"203.0.113.20/31\n2001:db8:20::/47\n".to_vec()));
    pbx.configure(&format!(
        "[firewall]\nregister-limit = \"{NO_REFILL} burst 10\"\nrestrict = [{{ ports = [\"5060\"], to = [\"au\"] }}]\n\
         [lists.australia]\nkind = \"allow\"\ncountry = \"au\"\nurl = {:?}\n{}",
        http.url("/{country}.zone"),
        list("bad", "block", &STRANGERS[0], "")
    ));
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    verify(&pbx);
    for family in FAMILIES {
        assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
        assert_eq!(gate.count(&many(30, &udp(OFFICE[family], 5060, register("")))), 9);
        assert_eq!(gets_in(&gate, STRANGER[family]), [true; 4]);
        assert_eq!(gets_in(&gate, STRANGERS[0][family]), [false; 4]);
        assert_eq!(gets_in(&gate, STRANGERS[1][family]), [false, true, false, true]);
    }
    // The country that we have stays when its list is lost.
    http.serve("/au.zone", Reply::Ok(vec![]));
    pbx.lists(&["refresh", "--force"]);
    apply(&pbx);
    for family in FAMILIES {
        assert_eq!(gets_in(&gate, STRANGER[family]), [true; 4]);
        assert_eq!(gets_in(&gate, STRANGERS[1][family]), [false, true, false, true]);
    }
}

fn a_restriction_without_anybody_is_none_and_that_is_said(variant: &'static str) {
    let settings = "[firewall]\nrestrict = [{ ports = [\"5061\"], to = [\"nobody\"] }, { ports = [\"5081\"], to = [\"v4\"] }, { ports = [\"5080\"], to = [\"v4\", \"nobody\"] }]\n";
    let pbx = Pbx::new(variant, "");
    let file = pbx.world.path("nobody");
    std::fs::write(&file, "").unwrap();
    let lists = format!("[lists.nobody]\nkind = \"allow\"\nfile = {:?}\n", file.display().to_string())
        + &list("v4", "allow", &[STRANGERS[0][0]], "exempts = []");
    pbx.configure(&format!("{settings}{lists}"));
    let gate = Gate::new(&pbx);
    pbx.lists(&["refresh"]);
    let said = applied(&pbx);
    let problems = warnings(&pbx, "unrestricted");
    let said: Vec<_> = said.lines().map(|line| line.strip_prefix("ringfence-firewall: ").unwrap()).collect();
    assert_eq!(said, problems);
    assert_eq!(problems.len(), 3, "{problems:?}");
    for (problem, port) in problems.iter().zip(["5061", "5081", "5080"]) {
        assert!(problem.starts_with(&format!("ports {port} are open to all")), "{problem}");
    }
    assert!(problems[1].contains("IPv6"), "{problems:?}");
    let to = |from: &str| gate.let_in(&[5061, 5080, 5081].map(|port| udp(from, port, register(""))));
    assert_eq!(to(STRANGERS[0][0]), [true, true, true]);
    assert_eq!(to(STRANGERS[1][0]), [true, true, false]);
    assert_eq!(to(STRANGERS[1][1]), [true, true, true]);
    assert_eq!(pbx.firewall(&["verify"]).code, 1, "it is not as it should be");
}

fn carriers_reach_the_port_that_is_theirs(variant: &'static str) {
    let [carrier4, carrier6] = STRANGER;
    let server = Postgres::with_fusionpbx(&format!(
        "INSERT INTO v_access_controls (access_control_uuid, access_control_name, access_control_default) VALUES
            ('31111111-1111-1111-1111-111111111111', 'providers', 'deny');
        INSERT INTO v_access_control_nodes
            (access_control_node_uuid, access_control_uuid, node_type, node_cidr, node_description) VALUES
            (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '{carrier4}', 'Acme'),
            (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '{carrier6}', 'Acme');"
    ));
    let dir = server.socket_dir().display();
    let dsn = format!("host={dir} port={} dbname=fusionpbx user=ringfence", server.port);
    let settings = format!(
        "[fusionpbx]\npostgres = {dsn:?}\n[firewall]\nrestrict = [{{ ports = [\"5080\"], to = [\"carriers\"] }}]\n"
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        let reaches = |from: &str| gate.let_in(&[5060, 5080].map(|port| udp(from, port, register(""))));
        assert_eq!(reaches(STRANGER[family]), [true, true]);
        assert_eq!(reaches(STRANGERS[0][family]), [true, false]);
    }
}

/// A flood of 200 a second for three seconds over both families, while others register; then what becomes of it.
#[track_caller]
fn flood(pbx: &Pbx, packet: impl Fn(&str) -> Packet) {
    const TICKS: usize = 600;
    const BURST: usize = 10;
    let gate = Gate::new(pbx);
    let [flooder, other] = [STRANGERS[0], STRANGERS[1]];
    let mut packets = vec![];
    for tick in 0..TICKS {
        packets.extend(flooder.map(&packet));
        // Nine times.
        packets.extend(
            other.map(|from| if tick % 66 == 33 { packet(from) } else { udp(from, 20_000, "voice") }),
        );
    }
    let Sent { arrived, pause, took } =
        gate.send(&packets, Duration::from_secs(3) / u32::try_from(packets.len()).unwrap());
    for family in FAMILIES {
        let of = |source: usize| arrived.iter().skip(source + family).step_by(4);
        assert!(of(2).all(|arrived| *arrived), "others are not concerned");
        let in_time = of(0).take_while(|arrived| **arrived).count();
        let all = of(0).filter(|arrived| **arrived).count();
        let most = BURST + 2 * usize::try_from(took.as_secs() + 1).unwrap();
        assert!((BURST..=most).contains(&in_time), "{in_time} of {BURST} in {took:?}");
        // A machine that stands still for that long is silent.
        assert!(
            all == in_time || pause > Duration::from_millis(700),
            "{all} instead of {in_time}, {pause:?}"
        );
    }
    for family in FAMILIES {
        let set = set("rf-slam-ip", family);
        wait_for("the end of the block", || !has(pbx, &set, flooder[family]));
        assert!(gate.passes(packet(flooder[family])), "it was silent");
    }
}

const FLOOD: &str = "register-limit = \"2/second burst 10\"\nslamming-for = \"1s\"\n";

fn a_flood_by_udp_ends_at_the_burst_for_as_long_as_it_goes_on(variant: &'static str) {
    let pbx = fusionpbx(variant, &format!("[firewall]\n{FLOOD}"));
    apply(&pbx);
    flood(&pbx, |from| udp(from, 5060, register("")));
}

/// Segments of no connection get that far only where nothing tracks connections.
fn a_flood_by_tcp_ends_at_the_burst_for_as_long_as_it_goes_on(variant: &'static str) {
    let pbx = Pbx::new(variant, &format!("[firewall]\nconnection-tracking = \"off\"\n{FLOOD}"));
    apply(&pbx);
    flood(&pbx, |from| tcp(from, 5060, PSH | ACK, register("")));
}

fn a_connection_that_registers_too_often_is_cut(variant: &'static str) {
    let pbx = fusionpbx(variant, &format!("[firewall]\nregister-limit = \"{NO_REFILL} burst 10\"\n"));
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        let mut connection = gate.connect(STRANGER[family], 5060);
        let mut ssh = gate.connect(STRANGER[family], 22);
        let heard = (0..20).take_while(|_| connection.carries(&gate, register("").as_bytes())).count();
        assert_eq!(heard, 10);
        assert_eq!(
            gets_in(&gate, STRANGER[family]),
            [false, true, false, true],
            "SIP alone is closed to him"
        );
        ssh.talks(false);
        assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
    }
}

fn what_phones_do_is_never_limited(variant: &'static str) {
    let pbx = fusionpbx(variant, "");
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        let phone = STRANGER[family];
        for message in [
            request("SUBSCRIBE"),
            request("NOTIFY"),
            "\r\n\r\n".to_owned(),
            "SIP/2.0 200 OK\r\nCSeq: 1 REGISTER\r\n\r\n".to_owned(),
        ] {
            assert_eq!(gate.count(&many(300, &udp(phone, 5060, &message))), 300, "{message}");
        }
        // Two hours of keep-alives, once a minute.
        assert_eq!(gate.count(&many(120, &udp(phone, 5060, request("OPTIONS")))), 120);
        // Twenty phones log in.
        assert_eq!(gate.count(&many(40, &udp(phone, 5060, register("")))), 40);
        assert!(!has(&pbx, &set("rf-slam-ip", family), phone));
    }
}

fn known_sources_are_never_limited(variant: &'static str) {
    let settings = format!(
        "[firewall]\nregister-limit = \"{NO_REFILL} burst 10\"\n{}",
        list("office", "allow", &OFFICE, "")
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        ipset(&pbx, &format!("add {} {} timeout 600", set("rf-seen-ip", family), STRANGERS[0][family]));
        // A hundred phones, twice each.
        for (from, passes) in [(OFFICE, 200), (STRANGERS[0], 200), (STRANGERS[1], 10)] {
            assert_eq!(gate.count(&many(200, &udp(from[family], 5060, register("")))), passes);
        }
        // Who exceeded a limit and is then known is no longer concerned.
        ipset(&pbx, &format!("add {} {} timeout 600", set("rf-seen-ip", family), STRANGERS[1][family]));
        assert_eq!(gate.count(&many(200, &udp(STRANGERS[1][family], 5060, register("")))), 200);
    }
}

fn a_network_of_ipv6_is_one_source(variant: &'static str) {
    let pbx = fusionpbx(variant, &format!("[firewall]\nregister-limit = \"{NO_REFILL} burst 10\"\n"));
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for (family, expected) in [(0, 20), (1, 10)] {
        let [one, other] = [STRANGERS[4][family], STRANGERS[5][family]];
        let both: Vec<_> =
            (0..10).flat_map(|_| [one, other]).map(|from| udp(from, 5060, register(""))).collect();
        assert_eq!(gate.count(&both), expected);
        assert!(!gate.passes(udp(one, 5060, register(""))));
        assert!(!gate.passes(udp(other, 5060, register(""))));
        assert!(gate.passes(udp(STRANGERS[0][family], 5060, register(""))));
    }
    assert!(has(&pbx, "rf-slam-ip6", STRANGERS[4][1]) && has(&pbx, "rf-slam-ip6", STRANGERS[5][1]));
    // A phone of it that works is one source.
    ipset(&pbx, &format!("add rf-seen-ip6 {} timeout 600", STRANGERS[5][1]));
    assert!(!gate.passes(udp(STRANGERS[4][1], 5060, register(""))));
    assert!(gate.passes(udp(STRANGERS[5][1], 5060, register(""))));
}

const METHODS: [(&str, usize); 3] = [("REGISTER", 3), ("INVITE", 5), ("OPTIONS", 8)];

fn limits(settings: [(&str, usize); 3]) -> String {
    let line = |(method, burst): (&str, usize)| {
        format!("{}-limit = \"{NO_REFILL} burst {burst}\"\n", method.to_ascii_lowercase())
    };
    format!("[firewall]\n{}", settings.map(line).concat())
}

fn each_method_has_a_limit_of_its_own(variant: &'static str) {
    let pbx = fusionpbx(variant, &limits(METHODS));
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        for ((method, burst), from) in METHODS.into_iter().zip(STRANGERS) {
            let from = from[family];
            assert_eq!(gate.count(&many(30, &udp(from, 5080, request(method)))), burst, "{method}");
            assert!(!gate.passes(udp(from, 5060, request("SUBSCRIBE"))), "{method}");
        }
        // All of them together, and none of them too often.
        let all = METHODS
            .iter()
            .flat_map(|(method, burst)| many(*burst, &udp(STRANGER[family], 5060, request(method))));
        assert_eq!(gate.count(&all.collect::<Vec<_>>()), 16);
    }
    // What is off is not limited, and the others are.
    pbx.configure(&limits(METHODS).replace(&format!("{NO_REFILL} burst 5"), "off"));
    apply(&pbx);
    for family in FAMILIES {
        assert_eq!(gate.count(&many(30, &udp(OFFICE[family], 5060, request("INVITE")))), 30);
        assert_eq!(gate.count(&many(30, &udp(OFFICE[family], 5060, request("OPTIONS")))), 8);
    }
}

fn a_limit_that_was_changed_holds_from_now_on(variant: &'static str) {
    let pbx = fusionpbx(variant, "");
    let gate = Gate::new(&pbx);
    for (bursts, from) in [([3, 5, 8], STRANGERS[0]), ([6, 2, 9], STRANGERS[1]), ([3, 5, 8], STRANGERS[2])] {
        let [register, invite, options] = bursts;
        let limits = limits([("REGISTER", register), ("INVITE", invite), ("OPTIONS", options)]);
        pbx.configure(&format!(
            "{limits}limits = [{{ ports = [\"22\"], rate = \"{NO_REFILL} burst {register}\" }}]\n"
        ));
        apply(&pbx);
        for family in FAMILIES {
            let mut passes = METHODS.map(|(method, _)| {
                let passes = gate.count(&many(30, &udp(from[family], 5060, request(method))));
                let slamming = set("rf-slam-ip", family);
                ipset(&pbx, &format!("del {slamming} {}", from[family]));
                passes
            });
            assert_eq!(passes, bursts);
            passes[0] = gate.count(&many(30, &tcp(from[family], 22, SYN, "")));
            assert_eq!(passes, bursts, "new connections");
        }
    }
}

/// A frame of IAX2, from call 1 to nobody yet: RFC 5456, section 8.1.1.
fn full_frame(kind: u8, subclass: u8) -> Vec<u8> {
    vec![0x80, 1, 0, 0, 0, 0, 0, 1, 0, 0, kind, subclass, 0x0B, 2, 0, 2]
}

fn calls_by_iax_are_limited_and_voice_is_not(variant: &'static str) {
    const NEW: (u8, u8) = (6, 1);
    const REGREQ: (u8, u8) = (6, 13);
    let settings = |limit: &str| format!("[firewall]\niax-limit = {limit:?}\n");
    let pbx = Pbx::new(variant, &settings(&format!("{NO_REFILL} burst 4")));
    for_both(&pbx, "$T -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT");
    let gate = Gate::new(&pbx);
    apply(&pbx);
    let mini_frame = [&[0, 1, 0, 20][..], &[0x55; 160]].concat();
    for family in FAMILIES {
        let [caller, other, talker] = [STRANGERS[0], STRANGERS[1], STRANGERS[2]].map(|from| from[family]);
        for (from, (kind, subclass)) in [(caller, NEW), (other, REGREQ)] {
            assert_eq!(gate.count(&many(20, &udp(from, 4569, full_frame(kind, subclass)))), 4);
        }
        assert!(!gate.passes(udp(caller, 5060, register(""))), "whatever he sends");
        let wire = pbx.wire_to(talker, 4569);
        wire.to.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let hears = |frame: &[u8]| {
            wire.from.send(frame).unwrap();
            let mut buffer = [0; 200];
            let (length, from) = wire.to.recv_from(&mut buffer).expect("a frame");
            assert_eq!(buffer[..length], *frame);
            wire.to.send_to(&mini_frame, from).unwrap();
        };
        hears(&full_frame(NEW.0, NEW.1));
        for _ in 0..300 {
            hears(&mini_frame);
        }
        // Voice, and an acknowledgement.
        for _ in 0..50 {
            hears(&full_frame(2, 4));
            hears(&full_frame(6, 4));
        }
        assert_eq!(gate.count(&many(300, &udp(talker, 4569, &mini_frame))), 300);
    }
    pbx.configure(&settings("off"));
    apply(&pbx);
    assert_eq!(gate.count(&many(20, &udp(OFFICE[0], 4569, full_frame(NEW.0, NEW.1)))), 20);
}

fn new_connections_to_other_ports_are_limited(variant: &'static str) {
    let settings = format!(
        "[firewall]\nlimits = [{{ ports = [\"22\", \"16384-16400\"], rate = \"{NO_REFILL} burst 5\" }}]\n"
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        let [from, other, talker] = [STRANGERS[0], STRANGERS[1], STRANGERS[2]].map(|from| from[family]);
        let mut ssh = gate.connect(from, 22);
        assert_eq!(gate.count(&many(20, &tcp(from, 22, SYN, ""))), 4);
        assert_eq!(gate.count(&many(20, &tcp(from, 80, SYN, ""))), 20);
        assert!(gate.passes(tcp(other, 22, SYN, "")));
        ssh.talks(false);
        ssh.talks(true);
        // Over UDP each flow counts, until it has an answer with each of its packets.
        assert_eq!(gate.count(&many(20, &udp(other, 16_400, "voice"))), 4);
        let voice = pbx.wire_to(talker, 16_384);
        for _ in 0..20 {
            assert!(voice.passes("voice"));
        }
        assert_eq!(gate.count(&many(20, &udp(talker, 16_384, "voice"))), 3);
        assert!(gate.passes(udp(from, 5060, register(""))));
    }
}

/// Whether the rules may ask for the state of connections, if the settings leave it to the host.
fn connections_are_tracked_where_the_host_does_it_anyway(variant: &'static str) {
    for (pbx, tracked) in [(Pbx::new(variant, ""), false), (fusionpbx(variant, ""), true)] {
        let gate = Gate::new(&pbx);
        for from in STRANGER {
            assert_eq!(gets_in(&gate, from), [true; 4]);
        }
        // And ours change nothing about it.
        for _ in 0..2 {
            assert_eq!(plan(&pbx)["tracked"], tracked);
            apply(&pbx);
            verify(&pbx);
            for from in STRANGER {
                assert_eq!(gets_in(&gate, from), [true; 4]);
                assert_eq!(gate.passes(tcp(from, 22, ACK, "")), !tracked);
            }
        }
    }
}

const IMPOSSIBLE: [u8; 10] = [
    0,
    SYN | FIN,
    SYN | FIN | ACK,
    SYN | RST,
    FIN | RST,
    FIN | RST | ACK,
    FIN,
    FIN | PSH | URG,
    URG,
    URG | SYN,
];

fn impossible_flags_are_dropped(variant: &'static str) {
    for tracking in ["on", "off"] {
        let office = list("office", "allow", &OFFICE, "");
        let pbx = Pbx::new(variant, &format!("[firewall]\nconnection-tracking = {tracking:?}\n{office}"));
        let gate = Gate::new(&pbx);
        refresh(&pbx);
        for applied in [false, true] {
            if applied {
                apply(&pbx);
            }
            // Whoever is allowed has no such flags either.
            let sources = STRANGER.into_iter().chain(OFFICE);
            for (from, port) in sources.flat_map(|from| [(from, 5060), (from, 22)]) {
                let passes = |flags: u8| gate.passes(tcp(from, port, flags, ""));
                for flags in IMPOSSIBLE {
                    assert_eq!(passes(flags), !applied, "{flags:#x} to {port}, {tracking}");
                }
                // The last one asks for ECN: RFC 3168, section 6.1.1.
                for flags in [SYN, SYN | 0xC0] {
                    assert!(passes(flags), "{flags:#x} to {port}, {tracking}");
                }
                for flags in [ACK, ACK | PSH, ACK | URG] {
                    let wanted = !applied || tracking == "off";
                    assert_eq!(passes(flags), wanted, "{flags:#x} to {port}, {tracking}");
                }
                // They end something, and begin nothing.
                for flags in [FIN | ACK, RST, RST | ACK] {
                    assert!(passes(flags), "{flags:#x} to {port}, {tracking}");
                }
            }
        }
    }
}

/// The kernel has a socket for them, and that is all that the rule can ask; it resets them itself.
fn segments_of_no_connection_reach_who_listens_at_one_address(variant: &'static str) {
    let pbx = Pbx::new(variant, "[firewall]\nconnection-tracking = \"on\"\n");
    let gate = Gate::new(&pbx);
    apply(&pbx);
    for (at, from, passes) in [
        (PBX[0], STRANGER[0], true),
        (PBX[1], STRANGER[1], true),
        ("0.0.0.0", STRANGER[0], false),
        ("::", STRANGER[1], false),
    ] {
        let _listener = pbx.host.inside(|| once_free(|| TcpListener::bind((at, 5060))));
        assert_eq!(gate.passes(tcp(from, 5060, ACK, "")), passes, "{at}");
    }
}

/// Where nothing asks for the state of connections, but something tracks them.
fn a_host_that_is_idle_keeps_its_rules(variant: &'static str) {
    let pbx = Pbx::new(variant, "");
    pbx.host.shell(&format!("iptables-{variant} -t nat -A POSTROUTING -o eth1 -j MASQUERADE"));
    let gate = Gate::new(&pbx);
    let tracks = || pbx.host.shell("cat /proc/sys/net/netfilter/nf_conntrack_count").trim() != "0";
    assert!(gate.passes(udp(STRANGER[0], 5060, register(""))));
    assert!(tracks());
    apply(&pbx);
    assert_eq!(plan(&pbx)["tracked"], true);
    let before = pbx.saved();
    forget_connections(&pbx.host);
    assert!(!tracks());
    verify(&pbx);
    assert_eq!(pbx.firewall(&["restore"]).code, 0);
    assert_eq!(pbx.saved(), before);
}

fn connections_that_nothing_tracked_go_on(variant: &'static str) {
    let pbx = Pbx::new(variant, "[firewall]\nconnection-tracking = \"on\"\n");
    let gate = Gate::new(&pbx);
    let connections = || -> Vec<_> {
        let open = |from| [5060, 22].map(|port| gate.connect(from, port));
        STRANGER.into_iter().flat_map(open).collect()
    };
    let talk = |connections: &mut [Connection], server_first| {
        for connection in connections {
            connection.talks(server_first);
        }
    };
    let (mut one, mut other) = (connections(), connections());
    apply(&pbx);
    talk(&mut one, false);
    talk(&mut other, true);
    let picked_up = || counted(&plan(&pbx), "connections that are open");
    let before = picked_up();
    assert!(before >= 4, "once each, where the client was first");
    forget_connections(&pbx.host);
    talk(&mut one, true);
    talk(&mut other, false);
    forget_connections(&pbx.host);
    talk(&mut one, false);
    talk(&mut other, true);
    assert!(picked_up() >= before + 8);
    let mut new = connections();
    talk(&mut new, false);
    talk(&mut new, true);
}

fn blocked_accounts_come_first_and_outlive_the_rules(variant: &'static str) {
    const BLOCKED: &str = "999@a.example.com";
    const OTHER: &str = "998@a.example.com";
    let office = list("office", "allow", &OFFICE, "");
    let pbx = Pbx::new(variant, &format!("{UNVERIFIED}{office}"));
    let before = pbx.saved();
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    pbx.ban(BLOCKED);
    let of = |family: &str, chain: &str| -> Vec<String> {
        let saved = pbx.host.shell(&format!("{family}-{variant}-save -t filter"));
        let start = format!("-A {chain} ");
        let rules = saved.lines().filter_map(|line| line.strip_prefix(&start));
        let target = |rule: &str| rule.rsplit(' ').next().unwrap().to_owned();
        rules
            .map(target)
            .filter(|target| target.starts_with("RF-") || target.starts_with("RINGFENCE"))
            .collect()
    };
    let holds = |in_input: &str| {
        for family in ["iptables", "ip6tables"] {
            assert_eq!(of(family, "INPUT"), [in_input]);
        }
        for from in OFFICE.into_iter().chain(STRANGER) {
            assert!(!gate.passes(udp(from, 5060, login(BLOCKED))), "{from}");
            assert!(gate.passes(udp(from, 5060, login(OTHER))), "{from}");
        }
    };
    holds("RF-BLOCK");
    for _ in 0..2 {
        apply(&pbx);
        holds("RINGFENCE");
        for family in ["iptables", "ip6tables"] {
            for chain in ["RINGFENCE-UDP", "RINGFENCE-TCP"] {
                assert_eq!(
                    of(family, chain)[0],
                    if chain == "RINGFENCE-UDP" { "RF-BLOCK" } else { "RINGFENCE-KNOWN" }
                );
            }
        }
    }
    // Whichever comes first.
    pbx.unban(BLOCKED);
    assert!(!pbx.saved().contains("RF-BLOCK"));
    pbx.ban(BLOCKED);
    holds("RINGFENCE");
    verify(&pbx);
    // Connections are concerned where the settings say so.
    let over_tcp = |account: &str| {
        let from = OFFICE.into_iter().chain(STRANGER);
        from.map(|from| gate.connect(from, 5060).carries(&gate, login(account).as_bytes()))
            .collect::<Vec<_>>()
    };
    assert_eq!(over_tcp(BLOCKED), [true; 4]);
    pbx.configure(&format!("{UNVERIFIED}tcp = \"reset\"\n{office}"));
    pbx.does(&["expire"]);
    for family in ["iptables", "ip6tables"] {
        assert_eq!(of(family, "RINGFENCE-TCP")[0], "RF-BLOCK");
    }
    assert_eq!((over_tcp(BLOCKED), over_tcp(OTHER)), (vec![false; 4], vec![true; 4]));
    holds("RINGFENCE");
    verify(&pbx);
    pbx.configure(&format!("{UNVERIFIED}{office}"));
    let call = pbx.firewall(&["remove"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    holds("RF-BLOCK");
    pbx.unban(BLOCKED);
    assert_eq!(pbx.saved(), before);
}

fn an_observer_counts_and_drops_nothing(variant: &'static str) {
    let settings = format!(
        "[firewall]\nmode = \"observe\"\nregister-limit = \"{NO_REFILL} burst 10\"\nagents = [\"sundayddr\"]\n\
         restrict = [{{ ports = [\"5080\"], to = [\"office\"] }}]\nlimits = [{{ ports = [\"22\"], rate = \"{NO_REFILL} burst 5\" }}]\n{}{}",
        list("office", "allow", &OFFICE, ""),
        list("bad", "block", &STRANGER, "")
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    verify(&pbx);
    for family in FAMILIES {
        let [one, two, three] = [STRANGERS[0], STRANGERS[1], STRANGERS[2]].map(|from| from[family]);
        assert_eq!(gets_in(&gate, STRANGER[family]), [true; 4]);
        assert_eq!(gate.count(&many(30, &udp(one, 5060, register("")))), 30);
        assert!(gate.passes(udp(two, 5060, register("User-Agent: sundayddr"))));
        assert!(gate.passes(udp(three, 5080, request("SUBSCRIBE"))));
        assert_eq!(gate.count(&many(12, &tcp(three, 22, SYN, ""))), 12);
        assert!(gate.passes(udp(OFFICE[family], 5080, register(""))));
    }
    let plan = plan(&pbx);
    for (what, of_both) in [
        ("on a block list", 8),
        // The first above its limit is remembered.
        ("REGISTER above", 2),
        ("above a limit a moment ago", 38),
        ("scanner sundayddr", 2),
        ("ports 5080 (udp)", 2),
        ("new connections to 22 (tcp)", 14),
    ] {
        assert_eq!(counted(&plan, what), of_both, "{what}: {plan:#}");
    }
    assert_eq!(plan["mode"], "observe");
}

fn what_is_logged_is_dropped_all_the_same(variant: &'static str) {
    let settings = format!(
        "[firewall]\nlog-prefix = \"fence 'x' $(id) `50%`: \"\nregister-limit = \"{NO_REFILL} burst 10\"\n{}",
        list("bad", "block", &STRANGER, "")
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    verify(&pbx);
    for family in FAMILIES {
        assert_eq!(gets_in(&gate, STRANGER[family]), [false; 4]);
        assert_eq!(gate.count(&many(60, &udp(STRANGERS[0][family], 5060, register("")))), 10);
        assert_eq!(gets_in(&gate, STRANGERS[0][family]), [false, true, false, true], "he is remembered");
        assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
    }
    let plan = plan(&pbx);
    // Ten more in each minute that the test takes, and of each family.
    let (logged, dropped) = (counted(&plan, "at most ten a minute"), counted(&plan, "what is denied"));
    assert!((40..dropped).contains(&logged), "{logged} were logged");
    assert_eq!(dropped, 2 * (4 + 50 + 2));
}

fn scanners_are_dropped_but_for_allowed_sources(variant: &'static str) {
    let settings = format!(
        "[firewall]\nagents = [\"sundayddr\", \"Cisco-SIP|x\"]\n{}",
        list("office", "allow", &OFFICE, "")
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    for family in FAMILIES {
        for agent in ["sundayddr", "SundayDdr 2.0", "my cisco-sip|X"] {
            let message = register(&format!("User-Agent: {agent}"));
            assert!(!gate.passes(udp(STRANGER[family], 5060, &message)), "{agent}");
            assert!(gate.passes(udp(OFFICE[family], 5060, &message)), "{agent}");
            let [mut stranger, mut office] = [STRANGER, OFFICE].map(|from| gate.connect(from[family], 5061));
            assert!(!stranger.carries(&gate, message.as_bytes()), "{agent}");
            assert!(office.carries(&gate, message.as_bytes()), "{agent}");
        }
        assert!(gate.passes(udp(STRANGER[family], 5060, register("User-Agent: Yealink"))));
    }
}

fn who_is_allowed_is_let_in_only_where_the_settings_say_so(variant: &'static str) {
    for (means, lets_in) in [("return", false), ("accept", true)] {
        let settings =
            format!("[firewall]\nallow-means = {means:?}\n{}", list("office", "allow", &OFFICE, ""));
        let pbx = fusionpbx(variant, &settings);
        let gate = Gate::new(&pbx);
        refresh(&pbx);
        apply(&pbx);
        for family in FAMILIES {
            let closed = |from: &str| gate.let_in(&[udp(from, 5059, "x"), tcp(from, 8080, SYN, "")]);
            assert_eq!(closed(OFFICE[family]), [lets_in; 2], "{means}");
            assert_eq!(closed(STRANGER[family]), [false; 2], "{means}");
            assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
        }
    }
}

/// Whether `SIPp` can register from an address.
#[track_caller]
fn sipp_registers(pbx: &Pbx, from: &str) -> bool {
    let scenario = std::fs::read_to_string(data("sip/register.xml")).unwrap();
    let path = pbx.world.path("register.xml");
    std::fs::write(&path, scenario.replace("{credentials}", &credentials("101@a.example.com"))).unwrap();
    let mut sipp = pbx.outside.command("sipp");
    sipp.env("TERM", "xterm").current_dir(pbx.world.dir()).arg("-sf").arg(&path);
    sipp.args(["-i", from, "-p", "5070", "-m", "1", "-nostdin", "-timeout", "20s"]);
    let output = sipp.arg(format!("{}:5060", PBX[0])).stdin(Stdio::null()).output().unwrap();
    match output.status.code() {
        Some(0) => true,
        // At least one call failed.
        Some(1) => false,
        code => panic!("SIPp: {code:?}\n{}", String::from_utf8_lossy(&output.stderr)),
    }
}

fn sipp_registers_but_for_a_blocked_source(variant: &'static str) {
    let settings = format!(
        "[firewall]\nregister-limit = \"{NO_REFILL} burst 10\"\n{}{}",
        list("office", "allow", &OFFICE, ""),
        list("bad", "block", &STRANGER, "")
    );
    let pbx = fusionpbx(variant, &settings);
    let gate = Gate::new(&pbx);
    refresh(&pbx);
    apply(&pbx);
    let _answerer = Answerer::new(pbx.host.inside(|| once_free(|| UdpSocket::bind((PBX[0], 5060)))));
    assert!(sipp_registers(&pbx, OFFICE[0]));
    assert!(sipp_registers(&pbx, STRANGERS[0][0]));
    assert!(!sipp_registers(&pbx, STRANGER[0]));
    for from in [OFFICE[0], STRANGERS[0][0]] {
        gate.count(&many(30, &udp(from, 5060, register(""))));
        assert_eq!(sipp_registers(&pbx, from), from == OFFICE[0]);
    }
}

fn all_holds_where_ipv6_is_switched_off(variant: &'static str) {
    let settings = format!(
        "[firewall]\nrestrict = [{{ ports = [\"5080\"], to = [\"office\"] }}]\n{}{}",
        list("office", "allow", &[OFFICE[0]], ""),
        list("bad", "block", &STRANGER, "")
    );
    let pbx = Pbx::new(variant, &settings);
    pbx.host.shell("echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6");
    refresh(&pbx);
    assert!(applied(&pbx).contains("over IPv6"));
    let sets = pbx.host.shell("ipset list -name");
    for family in FAMILIES {
        for name in ["rf-allow", "rf-block", "rf-known", "rf-seen-ip", "rf-slam-ip", "rf-to-office-net"] {
            let name = set(name, family);
            assert!(sets.lines().any(|line| line == name), "{name} in {sets}");
        }
    }
    let at = |from: &str, port: u16| {
        let wire = pbx.wire_to(from, port);
        wire.from.send(b"x").unwrap();
        pbx.wire_to(OFFICE[0], 5061).passes("behind it");
        wire.to.set_nonblocking(true).unwrap();
        wire.to.recv(&mut [0; 10]).is_ok()
    };
    assert_eq!([at(OFFICE[0], 5060), at(OFFICE[0], 5080)], [true, true]);
    assert_eq!([at(STRANGER[0], 5060), at(STRANGER[0], 5080)], [false, false]);
}

fn all_holds_where_connections_are_not_tracked(variant: &'static str) {
    let settings = format!(
        "{UNVERIFIED}[firewall]\nconnection-tracking = \"off\"\nagents = [\"sundayddr\"]\nregister-limit = \"{NO_REFILL} burst 10\"\n\
         limits = [{{ ports = [\"22\"], rate = \"{NO_REFILL} burst 5\" }}]\nrestrict = [{{ ports = [\"5080\", \"80\"], to = [\"office\"] }}]\n{}{}",
        list("office", "allow", &OFFICE, ""),
        list("bad", "block", &STRANGER, "")
    );
    let pbx = Pbx::new(variant, &settings);
    let gate = Gate::new(&pbx);
    let mut ssh: Vec<_> = STRANGERS[2].iter().map(|from| gate.connect(from, 22)).collect();
    refresh(&pbx);
    apply(&pbx);
    verify(&pbx);
    let saved = pbx.saved();
    assert!(!saved.contains("conntrack") && !saved.contains("-m socket"), "{saved}");
    assert_eq!(plan(&pbx)["tracked"], false);
    pbx.ban("999@a.example.com");
    for family in FAMILIES {
        let [one, two, three, four] =
            [STRANGERS[0], STRANGERS[1], STRANGERS[2], STRANGERS[3]].map(|from| from[family]);
        assert_eq!(gets_in(&gate, OFFICE[family]), [true; 4]);
        assert_eq!(gets_in(&gate, STRANGER[family]), [false; 4]);
        assert!(!gate.passes(udp(OFFICE[family], 5060, login("999@a.example.com"))));
        assert_eq!(gate.count(&many(30, &udp(one, 5060, register("")))), 10);
        assert_eq!(gate.count(&many(30, &tcp(two, 5060, ACK | PSH, register("")))), 10);
        assert_eq!(gate.count(&many(30, &tcp(three, 22, SYN, ""))), 5);
        ssh[family].talks(false);
        ssh[family].talks(true);
        assert!(!gate.passes(udp(four, 5060, register("User-Agent: sundayddr"))));
        let restricted =
            [udp(four, 5080, "x"), tcp(four, 5080, SYN, ""), tcp(four, 80, SYN, ""), tcp(four, 443, SYN, "")];
        assert_eq!(gate.let_in(&restricted), [false, false, false, true]);
    }
}
