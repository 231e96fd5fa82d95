//! A filter at clsact, as kernels without tcx have it: with real packets, in a network and with mounts of our own.

use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::super::scratch::{run, with_bpffs};
use super::super::{Blocks, BroughtIn, Settings, bring_in, hold, load, pins, remove};
use super::{
    CLSACT, FILTER, LINK, PROGRAM, SchedClassifier, attach_filter, filters, is_attached, mark, with_qdisc,
};
use crate::account::Offender;
use crate::config::Config;
use crate::drops::Met;
use crate::host::{Interface, interfaces};

const BLOCKED: &str = "999@a.example.com";

fn interface(name: &str) -> Interface {
    interfaces().unwrap().into_iter().find(|interface| interface.name == name).expect("it is there")
}

fn loaded() -> SchedClassifier {
    load(&pins(), &Config::default().firewall.sip_ports).unwrap()
}

fn block(account: &str) {
    let offender: Offender = account.parse().unwrap();
    let now = Timestamp::now();
    hold(&Blocks::from([(&offender, now.as_second() + 3_600)]), now, &mut Met::default()).unwrap();
}

/// Brings the program in at these interfaces, with one who is blocked.
fn block_at(interfaces: &[&str]) -> BroughtIn {
    let interfaces = interfaces.iter().map(ToString::to_string).collect();
    let settings = Settings { ports: Config::default().firewall.sip_ports, interfaces, paused: None };
    let offender: Offender = BLOCKED.parse().unwrap();
    let now = Timestamp::now();
    let blocks = Blocks::from([(&offender, now.as_second() + 3_600)]);
    let run_dir = tempfile::tempdir().unwrap();
    bring_in(&settings, run_dir.path(), &blocks, now, &mut Met::default()).unwrap()
}

/// Whether a message of this user gets to the port of SIP over the loopback.
fn passes(user: &str) -> bool {
    let to = UdpSocket::bind(("127.0.0.1", 5060)).unwrap();
    to.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let from = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let message = format!(
        "REGISTER sip:a.example.com SIP/2.0\r\nAuthorization: Digest username=\"{user}\", realm=\"a.example.com\"\r\n\r\n"
    );
    // What is sent last comes last.
    for text in [message.as_bytes(), b"end"] {
        from.send_to(text, ("127.0.0.1", 5060)).unwrap();
    }
    let mut buffer = [0; 1000];
    let first = to.recv(&mut buffer).unwrap();
    buffer[..first] != *b"end"
}

#[test]
fn a_filter_drops_who_is_blocked_and_goes_without_pins() {
    with_bpffs("ip link set lo up", || {
        let lo = interface("lo");
        attach_filter(&mut loaded(), &lo, &pins()).unwrap();
        assert!(passes("999"));
        block(BLOCKED);
        assert!(!passes("999"));
        assert!(passes("998"));
        // The filter lives on, with a map that nobody reaches.
        run("umount /sys/fs/bpf; mount -t bpf bpf /sys/fs/bpf");
        assert!(!passes("999"));
        assert!(remove().unwrap());
        assert!(passes("999"));
        assert!(filters(lo.index).unwrap().is_empty());
        assert!(!remove().unwrap());
    });
}

#[test]
fn a_filter_takes_the_first_place_and_what_takes_filters_already() {
    for qdisc in ["clsact", "ingress"] {
        with_bpffs("ip link set lo up", move || {
            run(&format!("tc qdisc add dev lo {qdisc}"));
            attach_filter(&mut loaded(), &interface("lo"), &pins()).unwrap();
            assert!(run("tc filter show dev lo ingress").contains(" pref 1 "));
            block(BLOCKED);
            assert!(!passes("999"), "{qdisc}");
            assert!(remove().unwrap());
            assert!(passes("999"), "{qdisc}");
            // What was there stays.
            assert!(run("tc qdisc show dev lo").contains(qdisc));
        });
    }
}

#[test]
fn a_filter_that_vanishes_with_its_interface_or_its_qdisc_comes_back() {
    with_bpffs("ip link set lo up", || {
        let bring_in = || block_at(&["lo", "x"]);
        run("ip link add x type bridge");
        let mut program = loaded();
        for name in ["lo", "x"] {
            attach_filter(&mut program, &interface(name), &pins()).unwrap();
        }
        // It is loaded anew, as nobody has written down that it is all there; then all is as it should be.
        assert!(bring_in().changed);
        let settled = bring_in();
        assert!(!settled.changed && settled.faults.is_empty(), "{settled:?}");
        assert!(!passes("999"));
        // With tcx, there is a link instead.
        let lo = interface("lo").index;
        assert_eq!(filters(lo).unwrap().is_empty(), mark(&pins(), LINK, lo).exists());

        let x = interface("x");
        run("ip link del x");
        assert!(bring_in().changed);
        assert!(!is_attached(&x, &pins()));
        run(&format!("ip link add x index {} type bridge", x.index));
        assert!(bring_in().changed);
        assert!(is_attached(&x, &pins()));

        // Somebody took the filter with all that holds filters.
        attach_filter(&mut program, &interface("x"), &pins()).unwrap();
        run("tc qdisc del dev x clsact");
        assert!(!with_qdisc().unwrap().contains(&x.index));
        bring_in();
        assert!(!passes("999"));
        assert!(remove().unwrap());
        // The kernel lets go of a link a moment after its file.
        let start = Instant::now();
        while !passes("999") {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
    });
}

#[test]
fn what_another_version_left_takes_nothing_of_ours_away() {
    with_bpffs("ip link set lo up", || {
        let bring_in = || block_at(&["lo"]);
        bring_in();
        // As on a kernel without tcx.
        let lo = interface("lo");
        if fs::remove_file(mark(&pins(), LINK, lo.index)).is_ok() {
            let mut program = SchedClassifier::from_pin(pins().join(PROGRAM)).unwrap();
            attach_filter(&mut program, &lo, &pins()).unwrap();
        }
        assert!(!bring_in().changed);
        // The other one made clsact, and had a filter that ours took the place of.
        let other = pins().with_file_name("0");
        fs::remove_dir(mark(&pins(), CLSACT, lo.index)).unwrap();
        for kind in [CLSACT, FILTER] {
            fs::create_dir_all(mark(&other, kind, lo.index)).unwrap();
        }
        assert!(bring_in().changed);
        assert!(!other.exists());
        assert_eq!(filters(lo.index).unwrap().len(), 1);
        assert!(!passes("999"));
        assert!(remove().unwrap());
        assert!(passes("999"));
        assert!(!with_qdisc().unwrap().contains(&lo.index));
    });
}
