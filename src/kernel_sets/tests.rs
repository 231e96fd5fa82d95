//! Against the real kernel: each test in a thread with a network namespace of its own. Needs root.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::address_set::{AddressRange, Block};
use crate::config::firewall::PortRange;
use crate::netlink;

fn apart(test: impl FnOnce(Ipset) + Send + 'static) {
    netlink::apart(|| test(Ipset::open().unwrap()));
}

fn set(text: &str) -> AddressSet {
    text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
}

fn content(allow: &str, block: &str) -> Content {
    Content { allow: set(allow), block: set(block), ..Content::default() }
}

/// What the real `ipset` answers.
fn ipset(args: &[&str]) -> String {
    let output =
        Command::new("ipset").args(args).output().expect("ipset; `make setup` installs what is missing");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Lines of a shell that run beside the test, until they are dropped.
struct Beside(Child);

impl Beside {
    fn shell(script: &str) -> Self {
        Self(Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every other address of a range, from 16.0.0.`first` on.
fn every_other(first: u32, count: u32) -> Content {
    let address =
        |n: u32| AddressRange::from(std::net::IpAddr::from((n * 2 + first + (1 << 28)).to_be_bytes()));
    Content { block: (0..count).map(address).collect(), ..Content::default() }
}

/// The entries of all sets, in order.
fn entries() -> Vec<String> {
    let mut entries: Vec<String> =
        ipset(&["save"]).lines().filter_map(|line| line.strip_prefix("add ")).map(str::to_owned).collect();
    entries.sort();
    entries
}

#[test]
fn the_kernel_holds_what_was_loaded() {
    apart(|mut kernel| {
        let one =
            content("203.0.113.7 198.51.100.0/24 2001:db8::7", "192.0.2.1 192.0.2.128/25 2001:db8:66::/48");
        load(&mut kernel, &one).unwrap();
        let wanted = [
            "rf-allow-ip4 203.0.113.7",
            "rf-allow-ip6 2001:db8::7",
            "rf-allow-net4 198.51.100.0/24",
            "rf-block-ip4 192.0.2.1",
            "rf-block-net4 192.0.2.128/25",
            "rf-block-net6 2001:db8:66::/48",
        ];
        assert_eq!(entries(), wanted);
        assert!(hold(&mut kernel, &one).unwrap());

        let other = content("", "0.0.0.0-255.255.255.255 ::/0");
        assert!(!hold(&mut kernel, &other).unwrap());
        load(&mut kernel, &other).unwrap();
        let wanted = ["0.0.0.0/1", "128.0.0.0/1"].map(|net| format!("rf-block-net4 {net}")).into_iter();
        let wanted = wanted.chain(["8000::/1", "::/1"].map(|net| format!("rf-block-net6 {net}")));
        assert_eq!(entries(), wanted.collect::<Vec<_>>());
        assert_eq!(ipset(&["list", "-name"]).lines().count(), SETS.len());

        ipset(&["flush", "rf-block-net4"]);
        assert!(!hold(&mut kernel, &other).unwrap());
        ipset(&["destroy", "rf-block-net4"]);
        assert!(!hold(&mut kernel, &other).unwrap());
        load(&mut kernel, &other).unwrap();
        assert!(hold(&mut kernel, &other).unwrap());
    });
}

#[test]
fn addresses_the_kernel_refuses_are_left_out() {
    apart(|mut kernel| {
        let unspecified = content("0.0.0.0 203.0.113.7 ::", ":: 0.0.0.0-0.0.0.1");
        load(&mut kernel, &unspecified).unwrap();
        assert_eq!(entries(), ["rf-allow-ip4 203.0.113.7", "rf-block-net4 0.0.0.0/31"]);
        assert!(hold(&mut kernel, &unspecified).unwrap());

        kernel.create("one", &Make::plain(Type::Addresses, Some(Family::V6), 1)).unwrap();
        let unspecified = std::iter::once(crate::address_set::Block { start: 0_u128, prefix: 128 });
        assert_eq!(
            kernel.add("one", unspecified).unwrap_err().to_string(),
            "the kernel does not take this address"
        );
    });
}

#[test]
fn many_entries_are_all_there() {
    apart(|mut kernel| {
        load(&mut kernel, &every_other(0, 200_000)).unwrap();
        let list = ipset(&["list", "rf-block-ip4"]);
        assert!(list.contains("Number of entries: 200000"));
        assert!(list.contains("16.6.26.126"));
    });
}

#[test]
fn a_foreign_set_of_the_same_name_is_left_alone() {
    apart(|mut kernel| {
        load(&mut kernel, &content("203.0.113.7", "192.0.2.1")).unwrap();
        ipset(&["destroy", "rf-block-net6"]);
        ipset(&["create", "rf-block-net6", "hash:net,iface", "family", "inet6"]);
        let before = ipset(&["save"]);
        let error = format!("{:#}", load(&mut kernel, &content("", "192.0.2.2")).unwrap_err());
        assert_eq!(
            error,
            "the set rf-block-net6 is there as hash:net,iface family inet6, and not as hash:net family inet6, so it is not ours; \
             remove it (ipset destroy rf-block-net6)"
        );
        assert_eq!(ipset(&["save"]), before);
        ipset(&["destroy", "rf-block-net6"]);
        ipset(&["create", "rf-block-net6", "hash:net"]);
        assert!(load(&mut kernel, &content("", "192.0.2.2")).is_err(), "another family");
    });
}

#[test]
fn what_a_crash_left_beside_is_cleared_away() {
    apart(|mut kernel| {
        ipset(&["create", "rf-allow-ip4.new", "bitmap:port", "range", "0-9"]);
        ipset(&["create", "rf-block-net4.new", "hash:net"]);
        ipset(&["add", "rf-block-net4.new", "10.0.0.0/8"]);
        load(&mut kernel, &content("203.0.113.7", "")).unwrap();
        assert_eq!(entries(), ["rf-allow-ip4 203.0.113.7"]);
        assert_eq!(ipset(&["list", "-name"]).lines().count(), SETS.len());
    });
}

#[test]
fn a_set_in_use_is_swapped_and_one_beside_in_use_is_an_error() {
    apart(|mut kernel| {
        load(&mut kernel, &content("", "192.0.2.1")).unwrap();
        ipset(&["create", "holder", "list:set"]);
        ipset(&["add", "holder", "rf-block-ip4"]);
        load(&mut kernel, &content("", "192.0.2.2")).unwrap();
        assert!(entries().contains(&"rf-block-ip4 192.0.2.2".to_owned()));

        ipset(&["create", "rf-block-ip4.new", "hash:ip"]);
        ipset(&["add", "holder", "rf-block-ip4.new"]);
        let error = format!("{:#}", load(&mut kernel, &content("", "192.0.2.3")).unwrap_err());
        assert_eq!(
            error,
            "cannot remove the set rf-block-ip4.new: it is in use; remove the rule or set that names it"
        );
        assert!(entries().contains(&"rf-block-ip4 192.0.2.2".to_owned()));
    });
}

#[test]
fn after_a_swap_that_fails_all_sets_are_as_before() {
    apart(|mut kernel| {
        load(&mut kernel, &every_other(0, 50_000)).unwrap();
        ipset(&["add", "rf-allow-ip4", "203.0.113.7"]);
        ipset(&["destroy", "rf-allow-net4"]);
        let before = entries();
        // Nobody reads what it prints, so it does not end.
        let mut stalled = Beside(
            Command::new("ipset").args(["list", "rf-block-ip4"]).stdout(Stdio::piped()).spawn().unwrap(),
        );
        let mut first = [0];
        stalled.0.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        let new = content("203.0.113.8 198.51.100.0/24 2001:db8::7", "192.0.2.1");
        let error = format!("{:#}", load(&mut kernel, &new).unwrap_err());
        assert_eq!(
            error,
            "cannot swap the set rf-block-ip4: another program lists it (ipset list) and does not end"
        );
        drop(stalled);
        assert_eq!(entries(), before);
        assert_eq!(ipset(&["list", "-name"]).lines().count(), SETS.len());
        load(&mut kernel, &new).unwrap();
        assert!(hold(&mut kernel, &new).unwrap());
    });
}

#[test]
fn what_cannot_be_cleared_away_afterwards_is_the_next_loads_error() {
    apart(|mut kernel| {
        ipset(&["create", "holder", "list:set"]);
        // While the others are filled.
        let _beside = Beside::shell("until ipset -q add holder rf-allow-ip4.new; do :; done");
        let loaded = every_other(0, 100_000);
        load(&mut kernel, &loaded).unwrap();
        assert!(hold(&mut kernel, &loaded).unwrap());
        assert_eq!(ipset(&["save", "holder"]).lines().last(), Some("add holder rf-allow-ip4.new"));

        let error = format!("{:#}", load(&mut kernel, &content("", "")).unwrap_err());
        assert!(error.starts_with("cannot remove the set rf-allow-ip4.new: it is in use"), "{error}");
        assert!(hold(&mut kernel, &loaded).unwrap());
    });
}

#[test]
fn sets_that_somebody_lists_are_waited_for() {
    apart(|mut kernel| {
        load(&mut kernel, &every_other(0, 50_000)).unwrap();
        let _beside = Beside::shell("while :; do ipset list rf-block-ip4; ipset list; done >/dev/null");
        for round in 0..10 {
            let content = every_other(round % 2, 50_000 + round);
            load(&mut kernel, &content).unwrap();
            assert!(hold(&mut kernel, &content).unwrap());
        }
    });
}

#[test]
fn a_full_set_says_so() {
    apart(|mut kernel| {
        kernel.create("small", &Make::plain(Type::Networks, Some(Family::V6), 1)).unwrap();
        let blocks = (0..70_000_u128).map(|n| crate::address_set::Block { start: n << 64, prefix: 64 });
        let error = kernel.add("small", blocks).unwrap_err();
        assert_eq!(error.to_string(), "the set is full (maxelem)");
        let twice = std::iter::repeat_n(crate::address_set::Block { start: 0_u128, prefix: 64 }, 2);
        kernel.create("twice", &Make::plain(Type::Networks, Some(Family::V6), 1)).unwrap();
        assert_eq!(kernel.add("twice", twice).unwrap_err().to_string(), "it is in the set already");
        assert_eq!(
            kernel.swap("small", "missing").unwrap_err().to_string(),
            "the set to swap it with is gone"
        );
    });
}

#[test]
fn without_privilege_it_says_what_to_do() {
    let thread = std::thread::spawn(|| {
        // A namespace of another user, where we have no say.
        let flags = nix::sched::CloneFlags::CLONE_NEWNET;
        nix::sched::unshare(flags).expect("a network namespace; run the tests as root");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)
            .map(|()| load(&mut Ipset::open().unwrap(), &Content::default()).unwrap_err())
    });
    // A process with threads may not always have a user namespace of its own.
    if let Ok(error) = thread.join().unwrap() {
        assert!(format!("{error:#}").contains("run as root, or with CAP_NET_ADMIN"), "{error:#}");
    }
}

#[test]
fn one_look_asks_all_sets_and_follows_their_swaps() {
    apart(|mut kernel| {
        load(&mut kernel, &content("203.0.113.7", "198.51.100.0/24 2001:db8:bad::/48")).unwrap();
        make_standing(&mut kernel).unwrap();
        make_standing(&mut kernel).unwrap();
        let groups = |names: Names| [names.allowed, names.blocked, names.known, names.listed];
        for (group, members) in
            groups(names(Family::V4)).into_iter().chain(groups(names(Family::V6))).zip([3, 2, 6, 5].repeat(2))
        {
            assert_eq!(kernel.header(group).unwrap().unwrap().entries, members, "{group}");
        }
        // What a crash left out is put in.
        fill_ports(&mut kernel, [PortRange::one(5060)]).unwrap();
        assert_eq!(missing(&mut kernel, []).unwrap(), [""; 0]);
        ipset(&["del", "rf-known4", "rf-allow-ip4"]);
        ipset(&["del", "rf-known4", "rf-block-net4"]);
        ipset(&["flush", "rf-ports"]);
        assert_eq!(missing(&mut kernel, []).unwrap(), ["rf-known4", "rf-ports"]);
        make_standing(&mut kernel).unwrap();
        assert_eq!(kernel.header("rf-known4").unwrap().unwrap().entries, 6);
        // The sets of lists stay exchangeable.
        load(&mut kernel, &content("203.0.113.8", "198.51.100.0/25")).unwrap();
        assert!(ipset(&["save", "rf-slam-ip6"]).contains("netmask 64 timeout 60"));

        let ports = |list: &[&str]| -> Vec<PortRange> {
            let text = format!("sip-ports = {list:?}");
            toml::from_str::<crate::config::Firewall>(&text).unwrap().sip_ports.ranges().copied().collect()
        };
        fill_ports(&mut kernel, ports(&["5060-5061", "4569"])).unwrap();
        fill_ports(&mut kernel, ports(&["5080", "65535"])).unwrap();
        assert!(ipset(&["save", PORTS]).ends_with("add rf-ports 5080\nadd rf-ports 65535\n"));
        assert_eq!(remove_standing(&mut kernel), [""; 0]);
        assert_eq!(ipset(&["list", "-name"]).lines().count(), SETS.len() + 2, "seen addresses stay");
    });
}

#[test]
fn an_empty_list_that_ports_are_restricted_to_changes_nothing() {
    apart(|mut kernel| {
        let with = |addresses: &str| {
            let name = ListName::try_from("a-long-name-of-1".to_owned()).unwrap();
            Content { lists: [(name, set(addresses))].into(), ..Content::default() }
        };
        load(&mut kernel, &with("203.0.113.0/24 198.51.100.7")).unwrap();
        let there =
            ["rf-to-a-long-name-of-1-net4 198.51.100.7", "rf-to-a-long-name-of-1-net4 203.0.113.0/24"];
        assert_eq!(entries(), there);
        assert!(hold(&mut kernel, &with("203.0.113.0/24 198.51.100.7")).unwrap());
        assert!(hold(&mut kernel, &with("")).unwrap());
        load(&mut kernel, &with("")).unwrap();
        assert_eq!(entries(), there);
        load(&mut kernel, &with("2001:db8::/32")).unwrap();
        assert_eq!(entries(), [&there[..], &["rf-to-a-long-name-of-1-net6 2001:db8::/32"]].concat());
        ipset(&["create", "rf-to-x-net4.new", "hash:net"]);
        clear_away(&mut kernel).unwrap();
        assert!(!kernel.names().unwrap().iter().any(|name| name.contains('.')));
    });
}

/// Who is in the sets of addresses seen, and for how many seconds still.
fn seen() -> Vec<(String, u32)> {
    let entries = entries();
    let seen = entries.iter().filter_map(|entry| entry.strip_prefix("rf-seen-ip")?.split_once(' '));
    seen.map(|(_, entry)| {
        let (address, timeout) = entry.split_once(" timeout ").unwrap();
        (address.to_owned(), timeout.parse().unwrap())
    })
    .collect()
}

#[test]
fn who_was_seen_stays_for_his_time() {
    apart(|mut kernel| {
        let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
        make_missing(&mut kernel, []).unwrap();
        make_standing(&mut kernel).unwrap();
        let near = |wanted: &[(&str, u32)]| {
            let seen = seen();
            let names: Vec<_> = seen.iter().map(|(address, _)| address.as_str()).collect();
            assert_eq!(names, wanted.iter().map(|(address, _)| *address).collect::<Vec<_>>());
            for ((address, seconds), (_, wanted)) in seen.iter().zip(wanted) {
                assert!(seconds <= wanted && *wanted - seconds < 60, "{address}: {seconds}");
            }
        };
        let these = ["203.0.113.20", "2001:db8::20", "0.0.0.0", "::"].map(|text| (address(text), 1_000));
        put_seen(&mut kernel, these).unwrap();
        near(&[("203.0.113.20", 1_000), ("2001:db8::20", 1_000)]);
        // Longer, shorter, and as long as can be.
        let these = [("203.0.113.20", 2_000), ("2001:db8::20", 500), ("203.0.113.21", u32::MAX)];
        put_seen(&mut kernel, these.map(|(text, seconds)| (address(text), seconds))).unwrap();
        near(&[("203.0.113.20", 2_000), ("203.0.113.21", 2_147_483), ("2001:db8::20", 500)]);
        // No second is not for ever.
        put_seen(&mut kernel, [(address("203.0.113.20"), 0)]).unwrap();
        assert!(seen().iter().all(|(address, seconds)| address != "203.0.113.20" || *seconds <= 1));
        let all = ["203.0.113.20", "203.0.113.21", "2001:db8::20", "192.0.2.1", "::"].map(address);
        let_go_of_seen(&mut kernel, all).unwrap();
        near(&[]);
    });
}

#[test]
fn the_sets_of_those_seen_have_room() {
    apart(|mut kernel| {
        make_missing(&mut kernel, []).unwrap();
        make_standing(&mut kernel).unwrap();
        let all =
            |count: u32| (0..count).map(|n| (std::net::IpAddr::from((n + (1 << 28)).to_be_bytes()), 3_600));
        put_seen(&mut kernel, all(350_000)).unwrap();
        let list = ipset(&["list", "-terse", "rf-seen-ip4"]);
        assert!(list.contains("Number of entries: 350000"), "{list}");
        let_go_of_seen(&mut kernel, all(350_000).map(|(address, _)| address)).unwrap();
        assert_eq!(seen(), []);
    });
}

#[test]
fn an_address_is_found_with_what_it_is_in_and_for_how_long() {
    apart(|mut kernel| {
        for line in [
            "create ip hash:ip timeout 60",
            "create net hash:net timeout 0",
            "create ip6 hash:ip family inet6 netmask 64 timeout 60",
            "create many hash:ip hashsize 4096 maxelem 100000",
            "add ip 192.0.2.1 timeout 40",
            "add ip 192.0.2.2 timeout 0",
            "add net 192.0.2.0/24",
            "add net 192.0.2.0/28 timeout 50",
            "add ip6 2001:db8:0:7::1",
        ] {
            ipset(&line.split(' ').collect::<Vec<_>>());
        }
        let mut find = |set: &str, address: &str| {
            let found = kernel.find(set, address.parse().unwrap()).unwrap()?;
            Some((found.network.to_string(), found.left.map(|left| left.div_ceil(10) * 10)))
        };
        let is = |network: &str, left: u32| Some((network.to_owned(), (left > 0).then_some(left)));
        assert_eq!(find("ip", "192.0.2.1"), is("192.0.2.1/32", 40));
        assert_eq!(find("ip", "192.0.2.2"), is("192.0.2.2/32", 0));
        assert_eq!(find("ip", "192.0.2.3"), None);
        assert_eq!(find("ip", "0.0.0.0"), None);
        assert_eq!(find("net", "192.0.2.3"), is("192.0.2.0/28", 50));
        assert_eq!(find("net", "192.0.2.77"), is("192.0.2.0/24", 0));
        assert_eq!(find("net", "192.0.3.1"), None);
        assert_eq!(find("ip6", "2001:db8:0:7::99"), is("2001:db8:0:7::/64", 60));
        assert_eq!(find("ip6", "2001:db8:0:8::1"), None);
        assert_eq!(find("missing", "192.0.2.1"), None);
        let mut kernel = Ipset::open().unwrap();
        kernel.add("many", (0x1000_0000_u32..0x1001_0000).map(|start| Block { start, prefix: 32 })).unwrap();
        let found = kernel.find("many", "16.0.255.255".parse().unwrap()).unwrap();
        assert_eq!(
            found.map(|found| (found.network.to_string(), found.left)),
            Some(("16.0.255.255/32".to_owned(), None))
        );
    });
}
