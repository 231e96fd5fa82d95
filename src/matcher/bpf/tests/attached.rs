//! Where the program is attached; in a network and with mounts of our own.

use super::super::scratch::{run, with_bpffs};
use super::super::{attach, load, pins, places, remove};
use crate::config::Config;
use crate::host::{Interface, interfaces};

const BRIDGES: &str =
    "ip link add one type bridge; ip link add two type bridge; ip link set one up; ip link set two up";

fn interface(name: &str) -> Interface {
    interfaces().unwrap().into_iter().find(|interface| interface.name == name).expect("it was made")
}

fn filters(name: &str) -> usize {
    run(&format!("tc filter show dev {name} ingress")).matches("direct-action").count()
}

fn has_link(name: &str) -> bool {
    pins().join(format!("tcx_{}", interface(name).index)).exists()
}

#[test]
fn a_filter_at_clsact_is_there_once_and_leaves_nothing() {
    with_bpffs(BRIDGES, || {
        let ports = Config::default().firewall.sip_ports;
        let mut program = load(&pins(), &ports).unwrap();
        run("tc qdisc add dev two clsact");
        let both = ["one", "two"].map(interface);
        for interface in &both {
            attach::attach_filter(&mut program, interface, &pins()).unwrap();
            assert_eq!(filters(&interface.name), 1);
            assert!(!attach::attach(&mut program, interface, &pins()).unwrap(), "it is there");
            assert_eq!(filters(&interface.name), 1);
        }
        // Another build of it, perhaps where the kernel has tcx by now.
        drop(program);
        let mut program = load(&pins(), &ports).unwrap();
        assert!(attach::attach(&mut program, &both[0], &pins()).unwrap());
        assert_eq!(filters("one") == 0, has_link("one"));
        assert!(!attach::attach(&mut program, &both[0], &pins()).unwrap());
        // The other build of it is another program.
        attach::attach_filter(&mut program, &both[1], &pins()).unwrap();
        assert_eq!(filters("two"), 2);
        assert!(remove().unwrap());
        assert_eq!((filters("one"), filters("two")), (0, 0));
        // What was there before us stays.
        assert!(!run("tc qdisc show dev one").contains("clsact"));
        assert!(run("tc qdisc show dev two").contains("clsact"));
        assert!(!super::super::is_there());
        assert!(!remove().unwrap());
    });
}

#[test]
fn a_link_follows_the_program_and_its_interface() {
    with_bpffs(BRIDGES, || {
        let ports = Config::default().firewall.sip_ports;
        let mut program = load(&pins(), &ports).unwrap();
        let one = interface("one");
        assert!(attach::attach(&mut program, &one, &pins()).unwrap());
        assert!(!attach::attach(&mut program, &one, &pins()).unwrap());
        let mut another = load(&pins(), &ports).unwrap();
        assert!(attach::attach(&mut another, &one, &pins()).unwrap());
        assert!(!attach::attach(&mut another, &one, &pins()).unwrap());
        // The same number, and not the same interface.
        run(&format!("ip link del one; ip link add one index {} type bridge", one.index));
        assert_eq!(interface("one"), one);
        assert!(attach::attach(&mut another, &one, &pins()).unwrap());
        assert!(!attach::attach(&mut another, &one, &pins()).unwrap());
        let settings = super::super::Settings {
            ports,
            interfaces: vec!["one".to_owned(), "x".to_owned()],
            paused: None,
        };
        assert_eq!(places(&settings).unwrap(), (vec!["one".to_owned()], vec!["x".to_owned()]));
        assert!(remove().unwrap());
    });
}
