//! Against the real kernel; needs root.

use std::process::Command;

use super::*;
use crate::netlink::apart;

/// Done by the real `nft`.
fn nft(commands: &[&str]) {
    let output = Command::new("nft")
        .arg(commands.join("; "))
        .output()
        .expect("nft; `make setup` installs what is missing");
    assert!(output.status.success(), "{commands:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn lists_the_tables_of_every_family() {
    apart(|| {
        assert_eq!(tables().unwrap(), []);
        assert_eq!(has_filter(Version::V4), Some(false));
        nft(&[
            "add table inet f2b-table",
            "add table ip filter",
            "add table ip6 mangle",
            "add table ip docker-bridges",
            "add table arp filter",
            "add table bridge nat",
            "add table netdev early",
        ]);
        let found = tables().unwrap();
        let names = |of_iptables: bool| -> Vec<String> {
            let found = found.iter().filter(|table| table.is_of_iptables() == of_iptables);
            found.map(NftTable::to_string).collect()
        };
        assert_eq!(names(true), ["ip filter", "ip6 mangle", "arp filter", "bridge nat"]);
        assert_eq!(names(false), ["inet f2b-table", "ip docker-bridges", "netdev early"]);
        assert_eq!(has_filter(Version::V4), Some(true));
    });
}

#[test]
fn lists_more_tables_than_fit_into_one_answer() {
    apart(|| {
        let commands: Vec<String> = (0..2000).map(|n| format!("add table inet table-{n}")).collect();
        nft(&commands.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(tables().unwrap().len(), 2000);
    });
}
