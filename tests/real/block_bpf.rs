//! `ringfence-block` with the program in the kernel: real packets over a cable.

use std::net::UdpSocket;
use std::time::Duration;

use aya::maps::{Array, HashMap, Map, MapData};

use crate::block_kernel::{BLOCKED, OTHERS, holds, is_open};
use crate::support::pbx::{PBX, PHONES, once_free};
use crate::support::sip::{Answerer, Wire, credentials, login, register};
use crate::support::{Call, Pbx, call, now, run, sqlite, wait_for};

const UNVERIFIED: &str = "[block]\nverify = \"none\"\n";

fn pbx() -> Pbx {
    Pbx::new("bpf", UNVERIFIED)
}

/// The settings, with these lines in `[block]`.
fn block(lines: &str) -> String {
    format!("{UNVERIFIED}{lines}\n")
}

/// A map that is pinned on this host.
fn map(pbx: &Pbx, name: &str) -> Map {
    let path = format!("/sys/fs/bpf/ringfence/1/{name}");
    Map::from_map_data(pbx.host.within(|| MapData::from_pin(path)).unwrap()).unwrap()
}

fn pins(pbx: &Pbx) -> String {
    pbx.host.shell("cd /sys/fs/bpf; find . -mindepth 1 ! -name '*.debug' | sort | tr '\\n' ' '")
}

/// What `list` says below its table.
#[track_caller]
fn said(pbx: &Pbx) -> String {
    let call = pbx.block(&["list"]);
    assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    call.stdout.lines().last().unwrap().to_owned()
}

#[test]
fn the_account_is_dropped_and_everybody_else_passes() {
    let pbx = pbx();
    let before = pbx.saved();
    pbx.ban(BLOCKED);
    holds(&pbx);
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
    assert_eq!(said(&pbx), "Matched by the program in the kernel, at eth0.");
    for wire in pbx.wires() {
        // Without credentials, From counts.
        assert!(!wire.passes(&register("")));
        assert!(wire.passes(&register("").replace("999@", "998@")));
        // There it is a caller's number.
        assert!(wire.passes(&register("").replace("REGISTER", "INVITE")));
        assert!(wire.passes("\r\n\r\nx"));
    }
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 4)]);
    // No rule is needed.
    assert_eq!(pbx.saved(), before);
    pbx.unban(BLOCKED);
    is_open(&pbx);
    assert_eq!(pins(&pbx), "");
}

#[test]
fn sipp_gets_in_but_as_the_blocked_account() {
    let pbx = pbx();
    let answerer = |at: &str| Answerer::new(pbx.host.inside(|| once_free(|| UdpSocket::bind((at, 5060)))));
    let _answerers = PBX.map(answerer);
    let gets_in = |account: &str| PHONES[0].map(|from| pbx.sipp_gets_in(from, account));
    assert_eq!(gets_in(BLOCKED), [true, true]);
    pbx.ban(BLOCKED);
    assert_eq!(gets_in(BLOCKED), [false, false]);
    for other in OTHERS {
        assert_eq!(gets_in(other), [true, true], "{other}");
    }
    // It tries as often as phones do.
    assert!(pbx.hits()[0].1 > 2, "{:?}", pbx.hits());
    pbx.unban(BLOCKED);
    assert_eq!(gets_in(BLOCKED), [true, true]);
}

fn boot_clock() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

#[test]
fn a_block_ends_though_no_process_runs() {
    let pbx = pbx();
    for account in [BLOCKED, "1@a.example.com"] {
        pbx.does(&["ban", "--for", "1h", "--", account]);
    }
    let [v4, _] = pbx.wires();
    assert!(!v4.lets_in(BLOCKED));
    let mut map: HashMap<_, [u8; 32], [u8; 16]> = map(&pbx, "blocked").try_into().unwrap();
    // That with the packet.
    let (key, mut entry) = map.iter().map(Result::unwrap).find(|(_, entry)| entry[8] == 1).unwrap();
    let until = Duration::from_nanos(u64::from_ne_bytes(*entry.first_chunk().unwrap()));
    let left = until.saturating_sub(boot_clock()).as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    // All but a second of the hour is over.
    let until = boot_clock() + Duration::from_secs(1);
    entry[..8].copy_from_slice(&u64::try_from(until.as_nanos()).unwrap().to_ne_bytes());
    map.insert(key, entry, 0).unwrap();
    wait_for("its deadline", || v4.lets_in(BLOCKED));
    assert!(boot_clock() >= until);
    assert!(!v4.lets_in("1@a.example.com"));
}

#[test]
fn without_iptables_it_does_all_the_same() {
    let pbx = pbx();
    // Where its programs are, there is nothing.
    pbx.host.shell("mount -t tmpfs tmpfs /usr/sbin");
    pbx.ban(BLOCKED);
    holds(&pbx);
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
    pbx.does(&["expire"]);
    pbx.unban(BLOCKED);
    is_open(&pbx);
    assert_eq!(pbx.hits(), []);
}

#[test]
fn what_flushes_rules_changes_nothing() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    for script in [
        "iptables -F; ip6tables -F; iptables -X; ip6tables -X",
        "nft flush ruleset",
        "iptables-restore </dev/null; ip6tables-restore </dev/null",
    ] {
        pbx.host.shell(script);
        holds(&pbx);
    }
}

#[test]
fn fragments_are_judged_by_the_first() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    let far =
        |bytes: usize| register(&format!("X-Filler: {}\r\n{}", "x".repeat(bytes), credentials(BLOCKED)));
    for wire in pbx.wires() {
        // The rest of the datagram comes in others, and nobody puts it together.
        assert!(!wire.passes(&(login(BLOCKED) + &"x".repeat(3000))), "in the first");
        assert!(wire.passes(&far(3000)), "in a later one");
        assert!(wire.passes(&(login(OTHERS[0]) + &"x".repeat(3000))));
    }
}

/// The message of the blocked account in a packet of IPv4, in hexadecimal, behind these bytes.
fn packet(before: &[u8]) -> String {
    let message = login(BLOCKED).into_bytes();
    let length = |header: usize| u16::try_from(header + message.len()).unwrap().to_be_bytes();
    let mut bytes =
        [before, &[0x45, 0], &length(28), &[0, 1, 0, 0, 64, 17, 0, 0], &[203, 0, 113, 20, 192, 0, 2, 1]]
            .concat();
    bytes.extend(
        [&5070_u16.to_be_bytes()[..], &5060_u16.to_be_bytes(), &length(8), &[0, 0], &message].concat(),
    );
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[test]
fn every_kind_of_interface_is_looked_at() {
    let hits = |pbx: &Pbx, wanted: u64| {
        wait_for("a packet to be dropped", || pbx.hits() == [(BLOCKED.to_owned(), wanted)]);
    };

    // Tags of VLANs: the first is out of the packet where the program looks at it.
    let pbx = pbx();
    pbx.ban(BLOCKED);
    let to = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]].concat();
    let tags: [&[u8]; 4] = [
        &[8, 0],
        &[0x81, 0, 0, 5, 8, 0],
        &[0x88, 0xa8, 0, 7, 0x81, 0, 0, 5, 8, 0],
        &[0x81, 0, 0, 5, 0x81, 0, 0, 6, 8, 0],
    ];
    let frames = tags.map(|tags| packet(&[&to, tags].concat()));
    let send = "import socket, sys
link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
link.bind(('eth0', 0))
for frame in sys.argv[1:]: link.send(bytes.fromhex(frame))";
    run(pbx.outside.command("python3").args(["-c", send]).args(&frames));
    hits(&pbx, 4);

    // No header of a link, as with PPP, WireGuard and tunnels.
    let pbx = Pbx::new("bpf", &block("interfaces = [\"tun0\"]"));
    pbx.host.shell("ip tuntap add mode tun name tun0; ip link set tun0 up");
    pbx.ban(BLOCKED);
    let write = "import fcntl, struct, sys
tun = open('/dev/net/tun', 'r+b', 0)
TUNSETIFF, IFF_TUN_NO_PI = 0x400454ca, 0x1001
fcntl.ioctl(tun, TUNSETIFF, struct.pack('16sH22x', b'tun0', IFF_TUN_NO_PI))
tun.write(bytes.fromhex(sys.argv[1]))";
    run(pbx.host.command("python3").args(["-c", write, &packet(&[])]));
    hits(&pbx, 1);
    // Nobody looks at the other.
    is_open(&pbx);

    // The card left all behind the header of the link in pages, where it has to be pulled from.
    let pbx = Pbx::new("bpf", &block("interfaces = [\"tap0\"]"));
    pbx.host.shell("ip tuntap add mode tap name tap0; ip link set tap0 address 02:00:00:00:00:01 up");
    pbx.ban(BLOCKED);
    let write = "import fcntl, os, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
TUNSETIFF, IFF_TAP_NO_PI_NAPI_FRAGS = 0x400454ca, 0x1032
fcntl.ioctl(tap, TUNSETIFF, struct.pack('16sH22x', b'tap0', IFF_TAP_NO_PI_NAPI_FRAGS))
frame = bytes.fromhex(sys.argv[1])
os.writev(tap, [frame[:14], frame[14:]])";
    run(pbx.host.command("python3").args(["-c", write, &frames[0]]));
    hits(&pbx, 1);

    // What this host sends to itself.
    let pbx = Pbx::new("bpf", &block("interfaces = [\"lo\"]"));
    pbx.ban(BLOCKED);
    for at in ["127.0.0.1", "::1"].into_iter().chain(PBX) {
        let wire = wire_within(&pbx, at);
        assert!(!wire.lets_in(BLOCKED), "{at}");
        assert!(wire.lets_in(OTHERS[0]), "{at}");
    }
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 4)]);
    is_open(&pbx);

    // What has the address is looked at, and not what is below.
    let pbx = pbx_with_bridge();
    pbx.ban(BLOCKED);
    holds(&pbx);
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
}

/// From this host to an address of its own.
fn wire_within(pbx: &Pbx, at: &str) -> Wire {
    pbx.host.inside(|| {
        let to = once_free(|| UdpSocket::bind((at, 5060)));
        let from = UdpSocket::bind((at, 0)).unwrap();
        from.connect((at, 5060)).unwrap();
        Wire { from, to }
    })
}

fn pbx_with_bridge() -> Pbx {
    let pbx = pbx();
    pbx.host.shell(
        "ip link add br0 address 02:00:00:00:00:01 type bridge; ip link set eth0 master br0; ip link set br0 up
         ip addr flush dev eth0; ip addr add 192.0.2.1 dev br0; ip addr add 2001:db8::1 dev br0 nodad
         ip route flush default; ip -6 route flush default; ip route add default dev br0; ip -6 route add default dev br0",
    );
    for address in PHONES.as_flattened() {
        pbx.host.shell(&format!("ip neigh add {address} lladdr 02:00:00:00:00:02 dev br0"));
    }
    pbx
}

#[test]
fn an_interface_that_returns_is_looked_at_again() {
    let pbx = Pbx::new("bpf", &block("interfaces = [\"eth0\", \"vpn0\"]"));
    pbx.ban(BLOCKED);
    assert_eq!(said(&pbx), "Matched by the program in the kernel, at eth0. There is no interface vpn0.");
    let attached = |pbx: &Pbx| pins(pbx).matches("tcx_").count();
    assert_eq!(attached(&pbx), 1);
    for _ in 0..2 {
        pbx.host.shell("ip link add vpn0 type bridge; ip link set vpn0 up");
        pbx.does(&["expire"]);
        assert_eq!(attached(&pbx), 2);
        let record = pbx.world.journal().pop().unwrap();
        assert_eq!((&record["reason"], &record["subject"]), (&"rules-repaired".into(), &"blocks".into()));
        pbx.does(&["expire"]);
        pbx.host.shell("ip link del vpn0");
        pbx.does(&["expire"]);
        assert_eq!(attached(&pbx), 1);
    }
    // Without a name, those with a default route.
    pbx.configure(UNVERIFIED);
    pbx.host.shell(
        "ip link add up0 type bridge; ip link set up0 up; ip -6 route add default dev up0 metric 5000",
    );
    pbx.does(&["expire"]);
    assert_eq!(attached(&pbx), 2);
    pbx.host.shell("ip link set up0 down");
    pbx.does(&["expire"]);
    assert_eq!(attached(&pbx), 1);
    holds(&pbx);
}

/// The same call without some capabilities.
fn without(pbx: &Pbx, capabilities: &str, args: &[&str]) -> Call {
    let command = pbx.world.block_command(args);
    let mut there = pbx.host.command("setpriv");
    there.arg(format!("--bounding-set={capabilities}")).arg("env");
    there.arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
    call(there.arg(command.get_program()).args(args))
}

#[test]
fn where_the_kernel_does_not_permit_it_patterns_do() {
    let pbx = pbx();
    pbx.configure("[block]\nmatcher = \"auto\"\nverify = \"none\"\n");
    pbx.does(&["ban", "--", "1@a.example.com"]);
    pbx.unban("1@a.example.com");
    let denied = without(&pbx, "-bpf,-sys_admin", &["ban", "--", BLOCKED]);
    assert_eq!((denied.code, denied.stderr.as_str()), (0, ""));
    let record = pbx.world.journal().pop().unwrap();
    assert_eq!(record["reason"], "no-bpf", "{record}");
    let why = record["detail"].as_str().unwrap();
    assert!(why.starts_with("the kernel does not permit it (no CAP_BPF"), "{why}");
    assert!(pbx.saved().contains("RF-BLOCK"));
    assert_eq!(pins(&pbx), "");
    holds(&pbx);
    let restored = without(&pbx, "-bpf,-sys_admin", &["restore"]);
    let line = "ringfence-block: accounts are matched by patterns in iptables: the kernel does not permit it (no CAP_BPF";
    assert!(restored.code == 0 && restored.stderr.starts_with(line), "{}", restored.stderr);
    assert_eq!(restored.stderr.lines().count(), 1);
    assert!(said(&pbx).starts_with("Matched by patterns in iptables, not by the program in the kernel: "));

    // Where there is nothing to be pinned to.
    pbx.host.shell("umount /sys/fs/bpf");
    let restored = pbx.block(&["restore"]);
    assert_eq!(restored.code, 0);
    assert!(
        restored.stderr.contains("no bpffs is mounted; run: mount -t bpf bpf /sys/fs/bpf"),
        "{}",
        restored.stderr
    );
    assert!(said(&pbx).contains("no bpffs is mounted"));
    holds(&pbx);

    // Asked for by name, there is nothing else.
    pbx.configure("[block]\nmatcher = \"bpf\"\nverify = \"none\"\n");
    let refused = pbx.block(&["ban", "--", "2@a.example.com"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("no bpffs is mounted"), "{}", refused.stderr);
    assert!(refused.stderr.contains("matcher is bpf"), "{}", refused.stderr);

    // What only rules can do is left to them.
    pbx.host.shell("mount -t bpf bpf /sys/fs/bpf");
    pbx.configure("[block]\nmatcher = \"auto\"\nverify = \"none\"\ntcp = \"reset\"\n");
    let restored = pbx.block(&["restore"]);
    assert!(
        restored.stderr.contains("tcp is reset, which only rules of iptables can do"),
        "{}",
        restored.stderr
    );
}

/// Those of the systemd unit.
#[test]
fn few_capabilities_are_enough() {
    let unit = std::fs::read_to_string(crate::support::project("packaging/systemd/ringfence-block.service"))
        .unwrap();
    let set =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap().to_lowercase();
    let set = format!(
        "-all,{}",
        set.split(' ').map(|name| name.replace("cap_", "+")).collect::<Vec<_>>().join(",")
    );
    let pbx = pbx();
    let does = |args: &[&str]| {
        let call = without(&pbx, &set, args);
        assert_eq!((call.code, call.stderr.as_str()), (0, ""), "{args:?}");
    };
    does(&["ban", "--", BLOCKED]);
    holds(&pbx);
    does(&["expire"]);
    does(&["expire"]);
    assert!(pbx.world.journal().iter().all(|record| record["reason"] != "rules-repaired"));
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
    does(&["unban", "--", BLOCKED]);
    assert_eq!(pins(&pbx), "");
}

#[test]
fn of_the_other_matcher_nothing_is_left() {
    let pbx = pbx();
    let before = pbx.saved();
    pbx.ban(BLOCKED);
    for _ in 0..2 {
        pbx.configure(&block("matcher = \"strings\""));
        pbx.does(&["expire"]);
        assert!(pbx.saved().contains("RF-BLOCK"));
        assert_eq!(pins(&pbx), "");
        holds(&pbx);
        pbx.configure(&block("matcher = \"auto\""));
        pbx.does(&["expire"]);
        assert_eq!(pbx.saved(), before);
        assert!(pins(&pbx).contains("ringfence/1/tcx_"), "{}", pins(&pbx));
        holds(&pbx);
    }
    pbx.does(&["stop"]);
    assert_eq!((pins(&pbx).as_str(), pbx.saved()), ("", before));
    is_open(&pbx);
    for _ in 0..2 {
        pbx.does(&["start"]);
        holds(&pbx);
    }
}

#[test]
fn another_build_takes_over_who_is_blocked_and_how_often() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    holds(&pbx);
    // As if an earlier build had written it.
    let mut map: Array<_, [u8; 8224]> = map(&pbx, "settings").try_into().unwrap();
    let mut settings = map.get(&0, 0).unwrap();
    settings[16..24].fill(1);
    map.set(0, settings, 0).unwrap();
    pbx.host.shell("mkdir /sys/fs/bpf/ringfence/0");
    let before = pins(&pbx);
    pbx.does(&["expire"]);
    assert_eq!(pins(&pbx), before.replace("./ringfence/0 ", ""));
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
    holds(&pbx);
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 4)]);
    // What is half there is made anew.
    for wreck in ["1/program", "1/blocked", "1/settings", "1/ringfence", "1", "."] {
        pbx.host.shell(&format!("rm -rf /sys/fs/bpf/ringfence/{wreck} 2>/dev/null || true"));
        pbx.does(&["expire"]);
        holds(&pbx);
    }
}

#[test]
fn who_is_let_go_is_let_go_though_the_program_cannot_be_brought_in() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    pbx.ban("1@a.example.com");
    // Another build, and nobody may load it: what is there goes on, with its maps.
    let mut map: Array<_, [u8; 8224]> = map(&pbx, "settings").try_into().unwrap();
    let mut settings = map.get(&0, 0).unwrap();
    settings[16..24].fill(1);
    map.set(0, settings, 0).unwrap();
    let before = pins(&pbx);
    let denied = without(&pbx, "-bpf,-sys_admin", &["unban", "--", BLOCKED]);
    let words = "the program that matches accounts: an earlier build of it goes on, because this one cannot be loaded: the kernel does not permit it";
    assert!(denied.code == 0 && denied.stderr.contains(words), "{}", denied.stderr);
    // Nor do rules take over where it is left open.
    pbx.configure("[block]\nmatcher = \"auto\"\nverify = \"none\"\n");
    assert_eq!(without(&pbx, "-bpf,-sys_admin", &["expire"]).code, 0);
    assert_eq!(pins(&pbx), before);
    is_open(&pbx);
    assert!(!pbx.wire(PHONES[0][0]).lets_in("1@a.example.com"));
    assert_eq!(pbx.hits(), [("1@a.example.com".to_owned(), 1)]);
    assert!(said(&pbx).starts_with("Matched by the program in the kernel, at eth0"));
    pbx.does(&["expire"]);
    assert_eq!(pbx.hits(), [("1@a.example.com".to_owned(), 1)]);
}

/// As it is shipped: no setting says what matches.
#[test]
fn the_program_matches_where_nothing_else_is_said() {
    let pbx = Pbx::new("bpf", "");
    let settings = pbx.world.config();
    let without =
        std::fs::read_to_string(&settings).unwrap().replace("matcher = \"bpf\"\n", "verify = \"none\"\n");
    std::fs::write(&settings, without).unwrap();
    pbx.ban(BLOCKED);
    holds(&pbx);
    assert_eq!(said(&pbx), "Matched by the program in the kernel, at eth0.");
    pbx.does(&["expire"]);
    pbx.does(&["stop"]);
    is_open(&pbx);
    pbx.does(&["start"]);
    holds(&pbx);
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
    pbx.unban(BLOCKED);
    is_open(&pbx);
    assert_eq!(pins(&pbx), "");
}

#[test]
fn where_it_can_be_attached_nowhere_patterns_do_until_it_can() {
    let pbx = Pbx::new("bpf", &block("matcher = \"auto\""));
    pbx.ban(BLOCKED);
    let index = pbx.host.shell("ip -o link show eth0 | cut -d: -f1");
    let link = format!("/sys/fs/bpf/ringfence/1/tcx_{}", index.trim());
    pbx.host.shell(&format!("rm {link}; mkdir {link}"));
    let call = pbx.block(&["restore"]);
    let words =
        "ringfence-block: accounts are matched by patterns in iptables: it cannot be attached to eth0: ";
    assert!(call.code == 0 && call.stderr.starts_with(words), "{}", call.stderr);
    assert!(pbx.saved().contains("RF-BLOCK"));
    holds(&pbx);
    pbx.host.shell("rm -r /sys/fs/bpf/ringfence 2>/dev/null || true");
    pbx.does(&["expire"]);
    assert!(!pbx.saved().contains("RF-BLOCK"));
    holds(&pbx);
}

#[test]
fn every_interface_with_an_address_is_looked_at() {
    let pbx = pbx();
    pbx.host.shell("ip link add two type bridge; ip addr add 198.51.100.1/24 dev two; ip link set two up; ip link add three type bridge");
    pbx.ban(BLOCKED);
    assert_eq!(said(&pbx), "Matched by the program in the kernel, at eth0, two.");
    pbx.configure(&block("interfaces = [\"eth0\"]"));
    pbx.does(&["expire"]);
    assert_eq!(said_of_interfaces(&pbx), "at eth0. Not looked at, though it has addresses: two.");
}

#[test]
fn a_program_that_reads_another_map_is_loaded_anew() {
    let pbx = pbx();
    pbx.ban("1@a.example.com");
    let program = "/sys/fs/bpf/ringfence/1/ringfence";
    let kept = "/sys/fs/bpf/kept";
    // As after a kill in the middle of it: maps of one load, the program of another.
    pbx.host.shell(&format!(
        "mv {program} {kept}; rm -r /sys/fs/bpf/ringfence/1/tcx_* /sys/fs/bpf/ringfence/1/blocked"
    ));
    pbx.does(&["expire"]);
    pbx.host.shell(&format!("mv {kept} {program}"));
    pbx.does(&["expire"]);
    pbx.ban(BLOCKED);
    holds(&pbx);
}

#[test]
fn where_no_interface_is_looked_at_that_is_said() {
    let pbx = Pbx::new("bpf", &block("interfaces = [\"eht0\"]"));
    let words = "it looks at no packets: there is no interface eht0 (interfaces in [block])";
    for args in [&["ban", "--", BLOCKED][..], &["ban", "--", BLOCKED], &["restore"], &["start"]] {
        let call = pbx.block(args);
        assert_eq!(
            call.stderr,
            format!("ringfence-block: the program that matches accounts: {words}\n"),
            "{args:?}"
        );
        assert_eq!(call.code, 0);
    }
    pbx.does(&["expire"]);
    let records = pbx.world.journal();
    let recorded: Vec<_> = records.iter().filter(|record| record["reason"] == "matcher-fault").collect();
    let detail = format!("the program that matches accounts: {words}");
    assert_eq!((recorded.len(), &recorded[0]["detail"]), (1, &detail.into()));
    assert_eq!(
        said_of_interfaces(&pbx),
        "at no interface. There is no interface eht0. Not looked at, though it has addresses: eth0."
    );
    // Where it is left open, rules do.
    pbx.configure(&block("matcher = \"auto\"\ninterfaces = [\"eht0\"]"));
    pbx.does(&["expire"]);
    assert!(pbx.saved().contains("RF-BLOCK"));
    assert!(
        said(&pbx).ends_with(
            "not by the program in the kernel: there is no interface eht0 (interfaces in [block])."
        )
    );
    holds(&pbx);
}

fn said_of_interfaces(pbx: &Pbx) -> String {
    let text = said(pbx);
    text.strip_prefix("Matched by the program in the kernel, ").unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn what_rules_cannot_bear_stays_in_the_ledger() {
    let pbx = pbx();
    pbx.configure("[block]\nmatcher = \"auto\"\nverify = \"none\"\n");
    let blocks: Vec<_> = (0..250)
        .map(|number| {
            let since = now() - 1_000 + number;
            serde_json::json!({"account": format!("{number}@a.example.com"), "since": since, "until": now() + 3_600})
        })
        .collect();
    let file = pbx.world.path("blocks.json");
    std::fs::write(&file, serde_json::to_vec(&blocks).unwrap()).unwrap();
    let restored = without(&pbx, "-bpf,-sys_admin", &["restore", file.to_str().unwrap()]);
    assert_eq!(restored.code, 0, "{}", restored.stderr);
    assert_eq!(pbx.list().len(), 250);
    let rules = |pbx: &Pbx| pbx.saved().matches("-j RF-BLOCK-DENY").count();
    assert_eq!(rules(&pbx), 2 * 200);
    let wire = pbx.wire(PHONES[0][0]);
    assert_eq!(["49", "50"].map(|user| wire.lets_in(&format!("{user}@a.example.com"))), [true, false]);
    // What rules cannot match is refused, before anybody tried it.
    let long = format!("{}@a.example.com", "x".repeat(120));
    assert_eq!(without(&pbx, "-bpf,-sys_admin", &["ban", "--", &long]).code, 1);
    // One refusal is one record.
    let count = |pbx: &Pbx| pbx.world.journal().iter().filter(|record| record["reason"] == "no-bpf").count();
    for _ in 0..2 {
        assert_eq!(without(&pbx, "-bpf,-sys_admin", &["expire"]).code, 0);
        assert_eq!(count(&pbx), 1);
    }
    // Who may do more has it all.
    pbx.does(&["expire"]);
    assert_eq!((rules(&pbx), pbx.list().iter().filter(|entry| entry["hits"] == 0).count()), (0, 250));
    pbx.does(&["expire"]);
    assert_eq!(["49", "50"].map(|user| wire.lets_in(&format!("{user}@a.example.com"))), [false, false]);
}

#[test]
fn an_interface_that_refuses_keeps_no_other_from_being_looked_at() {
    let pbx = Pbx::new("bpf", &block("interfaces = [\"eth0\", \"one\"]"));
    pbx.host.shell("ip link add one type bridge");
    pbx.ban(BLOCKED);
    // Its link is something else.
    let index = pbx.host.shell("ip -o link show one | cut -d: -f1");
    let link = format!("/sys/fs/bpf/ringfence/1/tcx_{}", index.trim());
    pbx.host.shell(&format!("rm {link}; mkdir {link}"));
    let call = pbx.block(&["restore"]);
    assert_eq!(call.code, 0);
    assert!(call.stderr.contains("it cannot be attached to one: "), "{}", call.stderr);
    assert!(call.stderr.contains(&link), "{}", call.stderr);
    holds(&pbx);
    pbx.host.shell(&format!("rmdir {link}"));
    pbx.does(&["restore"]);
}

#[test]
fn what_is_not_ours_breaks_nothing() {
    let pbx = pbx();
    pbx.host.shell("mkdir -p /sys/fs/bpf/ringfence/x/y /sys/fs/bpf/ringfence/1/z /sys/fs/bpf/ringfence/1/settings; ln -s / /sys/fs/bpf/ringfence/2; ln -s x /sys/fs/bpf/ringfence/1/q");
    pbx.ban(BLOCKED);
    holds(&pbx);
    pbx.does(&["expire"]);
    pbx.does(&["stop"]);
    is_open(&pbx);
    pbx.configure(&block("matcher = \"strings\""));
    pbx.does(&["start"]);
    holds(&pbx);
    assert_eq!(said(&pbx), "Matched by patterns in iptables.");
    // Where it cannot be gone by, it is named.
    pbx.does(&["stop"]);
    pbx.host.shell("rm -r /sys/fs/bpf/ringfence; ln -s /tmp /sys/fs/bpf/ringfence");
    pbx.configure(UNVERIFIED);
    let call = pbx.block(&["start"]);
    assert_eq!(call.code, 2);
    assert!(call.stderr.contains("/sys/fs/bpf/ringfence is no directory; remove it"), "{}", call.stderr);
}

#[test]
fn another_network_with_the_same_pins_is_left_alone() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    let before = pins(&pbx);
    let mut there = pbx.host.command("unshare");
    there.args(["--net", "env"]).arg(format!("RINGFENCE_CONFIG={}", pbx.world.config().display()));
    let command = pbx.world.block_command(&["restore"]);
    let refused = call(there.arg(command.get_program()).arg("restore"));
    assert_eq!(refused.code, 2);
    assert!(
        refused.stderr.contains("/sys/fs/bpf/ringfence/1 is of another network namespace"),
        "{}",
        refused.stderr
    );
    assert_eq!(pins(&pbx), before);
    holds(&pbx);
}

#[test]
fn a_clock_that_is_set_is_no_repair() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    holds(&pbx);
    // As if the wall's clock had gone on by ten minutes.
    sqlite(&pbx.world.path("state/ledger.db"), "UPDATE blocks SET until = until - 600");
    pbx.does(&["expire"]);
    assert!(pbx.world.journal().iter().all(|record| record["reason"] != "rules-repaired"));
    assert_eq!(pbx.hits(), [(BLOCKED.to_owned(), 2)]);
}

#[test]
fn what_is_over_and_what_is_too_much_leaves_the_map() {
    let pbx = Pbx::new("bpf", &block("max = 2"));
    for account in ["1@d", "2@d", "3@d"] {
        pbx.ban(account);
    }
    let made_way: Vec<_> =
        pbx.world.journal().into_iter().filter(|record| record["reason"] == "made-way").collect();
    assert_eq!(made_way.len(), 1);
    assert_eq!(made_way[0]["subject"], "1@d");
    let wire = pbx.wire(PHONES[0][0]);
    assert_eq!(["1@d", "2@d", "3@d"].map(|account| wire.lets_in(account)), [true, false, false]);
    pbx.does(&["ban", "--for", "1s", "--", "2@d"]);
    std::thread::sleep(Duration::from_millis(1100));
    pbx.does(&["expire"]);
    let map: HashMap<_, [u8; 32], [u8; 16]> = map(&pbx, "blocked").try_into().unwrap();
    assert_eq!(map.iter().count(), 1);
}

#[test]
fn a_pause_lets_everybody_pass_and_whoever_is_called_meanwhile_leaves_it_so() {
    let pbx = pbx();
    pbx.ban(BLOCKED);
    assert_eq!(pbx.admin(&["pause", "10m"]).code, 0);
    is_open(&pbx);
    let before = pins(&pbx);
    pbx.does(&["expire"]);
    pbx.ban("1@a.example.com");
    assert_eq!(pins(&pbx), before);
    is_open(&pbx);
    assert!(pbx.wire(PHONES[0][0]).lets_in("1@a.example.com"));
    // What is loaded anew keeps to it, too.
    pbx.host.shell("rm -r /sys/fs/bpf/ringfence 2>/dev/null || true");
    pbx.does(&["restore"]);
    is_open(&pbx);
    assert_eq!(pbx.admin(&["pause", "--end"]).code, 0);
    holds(&pbx);
    pbx.does(&["expire"]);
    assert!(
        pbx.world.journal().iter().all(|record| record["reason"] != "rules-repaired"),
        "{:?}",
        pbx.world.journal()
    );
}
