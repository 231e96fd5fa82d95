//! The kernel's part in a thread with a network namespace of its own, which needs root; files in a directory.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::netlink::apart;

/// Runs lines of `ip`.
fn ip(lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let output = Command::new("ip")
            .args(line.split_whitespace())
            .output()
            .expect("ip; `make setup` installs what is missing");
        assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn list(text: &str) -> Vec<IpAddr> {
    let mut list: Vec<IpAddr> = text.split_whitespace().map(|address| address.parse().unwrap()).collect();
    list.sort();
    list
}

#[test]
fn a_host_without_network_has_none() {
    apart(|| {
        assert_eq!(addresses().unwrap(), list(""));
        assert_eq!(gateways().unwrap(), list(""));
    });
}

#[test]
fn every_interface_counts() {
    apart(|| {
        ip("link add one type bridge
            link add two type bridge
            link set lo up
            link set one addrgenmode none
            link set one up
            addr add 198.51.100.7/24 dev one
            addr add 198.51.100.8/24 dev one
            addr add 2001:db8::7/64 dev one nodad
            addr add 203.0.113.1 peer 203.0.113.2/32 dev one
            addr add 2001:db8:1::1 peer 2001:db8:1::2/128 dev one nodad
            addr add 192.0.2.9/32 dev two");
        let expected =
            "127.0.0.1 ::1 198.51.100.7 198.51.100.8 203.0.113.1 192.0.2.9 2001:db8::7 2001:db8:1::1";
        assert_eq!(addresses().unwrap(), list(expected));
    });
}

#[test]
fn uplinks_have_a_default_route() {
    apart(|| {
        let names = || uplinks().unwrap().into_iter().map(|interface| interface.name).collect::<Vec<_>>();
        assert_eq!(names(), [""; 0]);
        ip("link add one type bridge
            link add two type bridge
            link add three type bridge
            link add four.5 type bridge
            link set lo up
            link set one up
            link set two up
            link set three up
            link set four.5 up
            addr add 198.51.100.7/24 dev one
            route add 203.0.113.0/24 via 198.51.100.1
            route add default dev lo table 8
            route add blackhole default table 9");
        assert_eq!(names(), [""; 0]);
        ip("route add default via 198.51.100.1");
        assert_eq!(names(), ["one"]);
        ip("-6 route add default dev two metric 5");
        assert_eq!(names(), ["one", "two"]);
        ip("route add default table 7 nexthop dev three nexthop dev four.5");
        assert_eq!(names(), ["one", "two", "three", "four.5"]);
        // Over them, the two halves of a VPN.
        ip("link add vpn type bridge
            link set vpn up
            route add 0.0.0.0/1 dev vpn
            route add 128.0.0.0/1 dev vpn
            route add 64.0.0.0/2 dev lo");
        assert_eq!(names(), ["one", "two", "three", "four.5", "vpn"]);
        let addressed = with_addresses().unwrap().into_iter().map(|interface| interface.name);
        assert_eq!(addressed.collect::<Vec<_>>(), ["one"]);
    });
}

#[test]
fn every_next_hop_counts() {
    apart(|| {
        ip("link add one type bridge
            link add two type bridge
            link set one addrgenmode none
            link set one up
            link set two addrgenmode none
            link set two up
            addr add 198.51.100.7/24 dev one
            addr add 203.0.113.7/24 dev two
            addr add 2001:db8::7/64 dev one nodad
            route add default via 198.51.100.1
            route add 10.0.0.0/8 nexthop via 198.51.100.2 nexthop via 203.0.113.2 weight 3 nexthop via inet6 2001:db8::2 dev one
            route add 10.1.0.0/16 via inet6 2001:db8::3 dev one
            route add default via 203.0.113.4 table 4000
            route add blackhole 10.2.0.0/16
            -6 route add default via 2001:db8::1
            -6 route add 2001:db8:1::/48 nexthop via 2001:db8::4 nexthop via 2001:db8::5
            -6 route add 2001:db8:2::/48 via 2001:db8::6 table 77
            -6 route add 2001:db8:3::/48 via fe80::1 dev two");
        let expected = "198.51.100.1 198.51.100.2 203.0.113.2 203.0.113.4 2001:db8::1 2001:db8::2 2001:db8::3 \
                        2001:db8::4 2001:db8::5 2001:db8::6 fe80::1";
        assert_eq!(gateways().unwrap(), list(expected));
    });
}

#[test]
fn nexthop_objects_count() {
    apart(|| {
        ip("link add one type bridge
            link set one addrgenmode none
            link set one up
            addr add 198.51.100.7/24 dev one
            addr add 2001:db8::7/64 dev one nodad
            nexthop add id 1 via 198.51.100.1 dev one
            nexthop add id 2 via 198.51.100.2 dev one
            nexthop add id 3 group 1/2
            nexthop add id 4 via 2001:db8::1 dev one
            route add default nhid 3
            -6 route add default nhid 4");
        // In the second case the routes do not name the gateways themselves.
        for compatible in ["1", "0"] {
            std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", compatible).unwrap();
            assert_eq!(gateways().unwrap(), list("198.51.100.1 198.51.100.2 2001:db8::1"), "{compatible}");
        }
    });
}

#[test]
fn many_routes_are_all_read() {
    apart(|| {
        ip("link add one type bridge
            link set one addrgenmode none
            link set one up
            addr add 10.0.0.1/8 dev one");
        let batch: Vec<String> = (0..5_000_u32)
            .map(|n| {
                let (high, low) = (n >> 8, n & 255);
                format!("route add 172.16.{high}.{low} via 10.1.{high}.{low}\n")
            })
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch.concat()).unwrap();
        ip(&format!("-batch {}", file.path().display()));
        assert_eq!(gateways().unwrap().len(), 5_000);
    });
}

/// The files of a host.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sessions")).unwrap();
        Self(dir)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.at(name), content).unwrap();
    }

    fn read(&self) -> Protected {
        let paths = Paths {
            resolv_conf: vec![self.at("resolv.conf"), self.at("resolved.conf")],
            utmp: self.at("utmp"),
            sessions: self.at("sessions"),
        };
        Protected { own: vec![], gateways: vec![], ..protected(&paths) }
    }

    /// The problems, with the directory cut off.
    fn problems(&self) -> Vec<String> {
        let dir = format!("{}/", self.0.path().display());
        self.read().problems.iter().map(|problem| problem.replace(&dir, "")).collect()
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn files_that_are_missing_say_nothing() {
    let files = Files::new();
    std::fs::remove_dir(files.at("sessions")).unwrap();
    assert_eq!(files.read(), Protected::default());
}

#[test]
fn name_servers_of_all_files() {
    let files = Files::new();
    files.write(
        "resolv.conf",
        "# by hand\nnameserver 127.0.0.53\noptions edns0\nnameserver\t192.0.2.53 # old\n nameserver fe80::1%eth0\n\
         #nameserver 192.0.2.1\nsearch nameserver 192.0.2.2\nnameserver ::ffff:198.51.100.53\nnameserver 192.0.2.53",
    );
    files.write("resolved.conf", "nameserver 2001:db8::53\r\n");
    let found = files.read();
    assert_eq!(found.resolvers, list("127.0.0.53 192.0.2.53 198.51.100.53 2001:db8::53 fe80::1"));
    assert_eq!(found.problems, [""; 0]);
}

#[test]
fn a_damaged_resolv_conf_hides_nothing() {
    let files = Files::new();
    files
        .write("resolv.conf", b"\xff\xfe\0garbage\nnameserver\nnameserver 10.1\n\0\nnameserver 192.0.2.53\n");
    fifo(&files.at("resolved.conf"));
    assert_eq!(files.read().resolvers, list("192.0.2.53"));
    assert_eq!(
        files.problems(),
        [
            "resolv.conf:2: the name server \"\" is no IP address; write one, or remove the line",
            "resolv.conf:3: the name server \"10.1\" is no IP address; write one, or remove the line",
            "cannot read the name servers in resolved.conf: not a regular file",
        ]
    );
    files.write("resolv.conf", "nameserver 192.0.2.53\n".repeat(100_000));
    assert_eq!(files.problems()[0], "cannot read the name servers in resolv.conf: larger than 1048576 bytes");
}

const USER_PROCESS: i16 = 7;

/// A record as glibc's `struct utmp` has it.
fn record(kind: i16, pid: u32, host: &str, address: &[u8]) -> Vec<u8> {
    let size = if cfg!(any(target_arch = "aarch64", target_arch = "s390x")) { 400 } else { 384 };
    let address_at = size - 36 - if size == 400 { 4 } else { 0 };
    let mut record = vec![0; size];
    let mut put = |at: usize, bytes: &[u8]| record[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &kind.to_ne_bytes());
    put(4, &pid.to_ne_bytes());
    put(8, b"pts/0");
    put(44, b"root");
    put(76, host.as_bytes());
    put(address_at, address);
    record
}

#[test]
fn peers_in_utmp() {
    let files = Files::new();
    let me = std::process::id();
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let v6 = "2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let user = |host, address: &[u8]| record(USER_PROCESS, me, host, address);
    files.write(
        "utmp",
        [
            record(2, 0, "6.1.0-31-amd64", &[]),
            user("pc.example.com", &[203, 0, 113, 1]),
            user("203.0.113.2", &[]),
            user("v6.example.com", &v6),
            user("2001:db8::8", &[]),
            user("fe80::9%eth0", &[]),
            user("203.0.113.3 via mosh [812]", &[]),
            user(":0", &[]),
            user("tmux(812).%0", &[]),
            user("", &[]),
            record(USER_PROCESS, 0, "203.0.113.4", &[]),
            record(USER_PROCESS, gone.id(), "203.0.113.5", &[]),
            record(6, me, "203.0.113.6", &[203, 0, 113, 6]),
            record(8, me, "203.0.113.7", &[203, 0, 113, 7]),
            user("other.example.com", &[]),
        ]
        .concat(),
    );
    let expected = "203.0.113.1 203.0.113.2 203.0.113.3 203.0.113.4 2001:db8::7 2001:db8::8 fe80::9";
    assert_eq!(files.read().login_peers, list(expected));
    assert_eq!(
        files.problems(),
        [
            "utmp: somebody is logged in from \"other.example.com\", whose address is not there; with `UseDNS no`, sshd writes it"
        ]
    );
}

#[test]
fn a_damaged_utmp_hides_nothing() {
    let files = Files::new();
    let good = record(USER_PROCESS, std::process::id(), "203.0.113.2", &[]);
    let mut damaged = good.clone();
    damaged[76] = 0xff;
    files.write(
        "utmp",
        [&damaged, &vec![0xff; good.len()], &good, &good[..100].to_vec()].map(Vec::as_slice).concat(),
    );
    assert_eq!(files.read().login_peers, list("203.0.113.2"));
    assert_eq!(files.problems(), ["utmp: 3 of 4 records are damaged; sessions in them are not known"]);

    std::fs::File::create(files.at("utmp")).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(files.problems(), ["cannot read the login sessions in utmp: larger than 16777216 bytes"]);
    std::fs::remove_file(files.at("utmp")).unwrap();
    fifo(&files.at("utmp"));
    assert_eq!(files.problems(), ["cannot read the login sessions in utmp: not a regular file"]);
    std::fs::remove_file(files.at("utmp")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", files.at("utmp")).unwrap();
    assert_eq!(files.problems(), ["cannot read the login sessions in utmp: not a regular file"]);
}

#[test]
fn peers_of_logind_sessions() {
    let files = Files::new();
    let session = |name: &str, state: &str, remote: &str| {
        files.write(
            &format!("sessions/{name}"),
            format!("# This is private data. Do not parse.\nUID=0\nUSER=root\nACTIVE=1\nSTATE={state}\n{remote}\nTYPE=tty\nLEADER=1\n"),
        );
    };
    session("1", "active", "REMOTE=1\nREMOTE_HOST=203.0.113.1");
    session("c2", "online", "REMOTE=1\nREMOTE_HOST=\"2001:db8::2\"");
    session("3", "closing", "REMOTE=1\nREMOTE_HOST=203.0.113.3");
    session("4", "active", "REMOTE=0\nREMOTE_HOST=203.0.113.4");
    session("5", "active", "REMOTE=1");
    session(".#6xyz", "active", "REMOTE=1\nREMOTE_HOST=203.0.113.6");
    session("7", "active", "REMOTE=1\nREMOTE_HOST=fe80::7%eth0");
    fifo(&files.at("sessions/1.ref"));
    let found = files.read();
    assert_eq!(found.login_peers, list("203.0.113.1 2001:db8::2 fe80::7"));
    assert_eq!(found.problems, [""; 0]);

    session("8", "active", "REMOTE=1\nREMOTE_HOST=pc\u{1b}[31m");
    files.write("sessions/9", vec![b'\n'; 100_000]);
    files.write("sessions/a", b"\xff\0REMOTE=1\nREMOTE_HOST=203.0.113.9");
    fifo(&files.at("sessions/b"));
    std::os::unix::fs::symlink("nowhere", files.at("sessions/c")).unwrap();
    assert_eq!(files.read().login_peers, found.login_peers);
    let mut problems = files.problems();
    problems.sort();
    assert_eq!(
        problems,
        [
            "cannot read the login session sessions/9: larger than 65536 bytes",
            "cannot read the login session sessions/b: not a regular file",
            "sessions/8: somebody is logged in from \"pc\\u{1b}[31m\", whose address is not there; with `UseDNS no`, sshd writes it",
        ]
    );
}

#[test]
fn this_host_can_be_read() {
    let found = protected(&Paths::default());
    assert!(found.own.contains(&"127.0.0.1".parse().unwrap()), "{found:?}");
}
