//! A PBX with `ringfence-block`, and an office at the other end of the cable.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::{Command, Stdio};

use super::sip::{Wire, credentials};
use super::{Call, Host, World, call, data, wait_for};

/// The addresses of the PBX.
pub const PBX: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

/// Addresses outside: two phones, each of them in both families.
pub const PHONES: [[&str; 2]; 2] = [["203.0.113.20", "2001:db8:20::1"], ["203.0.113.21", "2001:db8:21::1"]];

/// FusionPBX is not asked whether an account exists.
pub const UNVERIFIED: &str = "[block]\nverify = \"none\"\n";

/// The host, what is outside, and the settings. Nobody is registered.
pub struct Pbx {
    pub host: Host,
    pub outside: Host,
    pub world: World,
    /// `nft` or `legacy`: what `iptables` is on this host.
    pub variant: &'static str,
    by_program: bool,
}

impl Pbx {
    /// With these settings, and no rules. The variant `bpf` matches by the program in the kernel, on a host with `nft`.
    pub fn bare(variant: &'static str, settings: &str) -> Self {
        let world = World::empty();
        let by_program = variant == "bpf";
        let variant = if by_program { "nft" } else { variant };
        let pbx = Self { host: Host::new(), outside: Host::new(), world, variant, by_program };
        pbx.configure(settings);
        pbx.has_network();
        pbx
    }

    /// Starts the host anew, with the files that it had. The kernel has nothing of before, and nothing was started yet.
    pub fn boot(&mut self) {
        (self.host, self.outside) = (Host::new(), Host::new());
        self.has_network();
    }

    fn has_network(&self) {
        let pbx = self;
        if pbx.by_program {
            pbx.host.shell("mount -t bpf bpf /sys/fs/bpf");
        }
        pbx.host.connect(&pbx.outside);
        pbx.host.shell("mount -t tmpfs tmpfs /run");
        pbx.alternative(pbx.variant);
        let add = |address: &str| {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            format!("ip addr add {address} dev eth0 {nodad}\n")
        };
        let meet = |address: &str, end: &str| {
            format!("ip neigh add {address} lladdr 02:00:00:00:00:{end} dev eth0\n")
        };
        let phones = PHONES.as_flattened();
        for (host, own, others, end) in
            [(&pbx.host, &PBX[..], phones, "02"), (&pbx.outside, phones, &PBX[..], "01")]
        {
            let mut lines: Vec<_> = own.iter().map(|address| add(address)).collect();
            lines.extend(others.iter().map(|address| meet(address, end)));
            host.shell(&lines.concat());
        }
    }

    /// With these settings, and a rule of the host's own in both families.
    pub fn new(variant: &'static str, settings: &str) -> Self {
        let pbx = Self::bare(variant, settings);
        for family in ["iptables", "ip6tables"] {
            pbx.host.shell(&format!("{family}-{} -A INPUT -i lo -j ACCEPT", pbx.variant));
        }
        pbx
    }

    /// Makes `iptables` another of its two variants, as Debian's update-alternatives does.
    pub fn alternative(&self, variant: &str) {
        self.host.shell(&format!(
            "[ -d /run/alternatives ] || {{ cp -a /etc/alternatives /run/; mount --bind /run/alternatives /etc/alternatives; }}
             ln -sfn /usr/sbin/iptables-{variant} /etc/alternatives/iptables
             ln -sfn /usr/sbin/ip6tables-{variant} /etc/alternatives/ip6tables"
        ));
    }

    /// Replaces the settings.
    pub fn configure(&self, settings: &str) {
        if self.by_program && !settings.contains("matcher = ") {
            let block = "[block]\nmatcher = \"bpf\"\n";
            let settings = if settings.contains("[block]\n") {
                settings.replacen("[block]\n", block, 1)
            } else {
                format!("{settings}{block}")
            };
            self.world.configure_lists(&settings);
        } else {
            self.world.configure_lists(settings);
        }
    }

    /// A call of `ringfence-block`. It is one of the host's processes: what /proc tells of the network is for these alone.
    #[track_caller]
    pub fn block(&self, args: &[&str]) -> Call {
        self.call(&self.world.block_command(args))
    }

    /// A call of `ringfence-firewall`.
    #[track_caller]
    pub fn firewall(&self, args: &[&str]) -> Call {
        call(&mut self.firewall_command(args))
    }

    /// A call of `ringfence`.
    #[track_caller]
    pub fn admin(&self, args: &[&str]) -> Call {
        self.call(&self.world.admin_command(args))
    }

    /// A call of `ringfence-lists`.
    #[track_caller]
    pub fn lists(&self, args: &[&str]) -> Call {
        self.call(&self.world.lists_command(args))
    }

    /// A call of `ringfence-firewall` that is ready to be run there, from no session.
    pub fn firewall_command(&self, args: &[&str]) -> Command {
        self.without_session(&self.world.firewall_command(args))
    }

    /// A call of `ringfence` that is ready to be run there, from no session.
    pub fn admin_command(&self, args: &[&str]) -> Command {
        self.without_session(&self.world.admin_command(args))
    }

    /// A call of `ringfence-ban` that is ready to be run there, from no session.
    pub fn ban_command(&self, args: &[&str]) -> Command {
        self.without_session(&self.world.ban_command(args))
    }

    fn without_session(&self, command: &Command) -> Command {
        let mut there = self.there(command);
        for name in ["SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"] {
            there.env_remove(name);
        }
        there
    }

    #[track_caller]
    fn call(&self, command: &Command) -> Call {
        call(&mut self.there(command))
    }

    /// The command as one of the host's processes.
    pub fn there(&self, command: &Command) -> Command {
        let mut there = self.host.command("env");
        there.arg(format!("RINGFENCE_CONFIG={}", self.world.config().display()));
        there.arg(command.get_program()).args(command.get_args());
        there
    }

    /// A call that is done, and has nothing to say.
    #[track_caller]
    pub fn does(&self, args: &[&str]) {
        self.block(args).is_done();
    }

    #[track_caller]
    pub fn ban(&self, id: &str) {
        self.does(&["ban", "--", id]);
    }

    #[track_caller]
    pub fn unban(&self, id: &str) {
        self.does(&["unban", "--", id]);
    }

    /// The blocks, as they are listed.
    #[track_caller]
    pub fn list(&self) -> Vec<serde_json::Value> {
        serde_json::from_value(self.block(&["list", "--json"]).json()).unwrap()
    }

    /// Who is blocked, and how often each was met.
    #[track_caller]
    pub fn hits(&self) -> Vec<(String, u64)> {
        let hits = |entry: &serde_json::Value| {
            (entry["account"].as_str().unwrap().to_owned(), entry["hits"].as_u64().unwrap())
        };
        self.list().iter().map(hits).collect()
    }

    /// All rules of all kinds, without counters.
    pub fn saved(&self) -> String {
        ["nft", "legacy"].map(|variant| self.saved_in(variant)).concat()
    }

    /// The same of one variant.
    #[track_caller]
    pub fn saved_in(&self, variant: &str) -> String {
        let text = self.host.shell(&format!("iptables-{variant}-save; ip6tables-{variant}-save"));
        let plain = |line: &str| match line.strip_prefix(':') {
            Some(chain) => format!(":{}\n", chain.rsplit_once(' ').unwrap().0),
            None => format!("{line}\n"),
        };
        text.lines().filter(|line| !line.starts_with('#')).map(plain).collect()
    }

    /// The rules in INPUT, in order: those of IPv4, or of IPv6.
    #[track_caller]
    pub fn input(&self, family: &str) -> Vec<String> {
        let text = self.host.shell(&format!("{family}-{} -S INPUT", self.variant));
        text.lines().filter_map(|line| line.strip_prefix("-A INPUT ")).map(str::to_owned).collect()
    }

    /// Whether `SIPp`, at an address outside, can log in as an account.
    #[track_caller]
    pub fn sipp_gets_in(&self, from: &str, account: &str) -> bool {
        let scenario = std::fs::read_to_string(data("sip/register.xml")).unwrap();
        let path = self.world.path("register.xml");
        std::fs::write(&path, scenario.replace("{credentials}", &credentials(account))).unwrap();
        let mut sipp = self.outside.command("sipp");
        sipp.env("TERM", "xterm").current_dir(self.world.dir()).arg("-sf").arg(&path);
        sipp.args(["-i", from, "-p", "5070", "-m", "1", "-nostdin", "-timeout", "20s"]);
        let to = if from.contains(':') { format!("[{}]:5060", PBX[1]) } else { format!("{}:5060", PBX[0]) };
        let output = sipp.arg(to).stdin(Stdio::null()).output().unwrap();
        match output.status.code() {
            Some(0) => true,
            // At least one call failed.
            Some(1) => false,
            code => panic!(
                "SIPp: {code:?}\n{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }

    /// From an address outside to SIP's port.
    pub fn wire(&self, from: &str) -> Wire {
        self.wire_to(from, 5060)
    }

    pub fn wire_to(&self, from: &str, port: u16) -> Wire {
        let at = PBX[usize::from(from.parse::<IpAddr>().unwrap().is_ipv6())];
        let to = self.host.inside(|| once_free(|| UdpSocket::bind((at, port))));
        let from = self.outside.inside(|| UdpSocket::bind((from, 0)).unwrap());
        from.connect((at, port)).unwrap();
        Wire { from, to }
    }

    /// From both families of the first phone.
    pub fn wires(&self) -> [Wire; 2] {
        PHONES[0].map(|from| self.wire(from))
    }
}

/// Binds a socket to a port that another had a moment ago: a process that some other test starts at the time has all of them until
/// it is on its way.
pub fn once_free<T>(bind: impl Fn() -> io::Result<T>) -> T {
    let mut socket = None;
    wait_for("a free port", || {
        match bind() {
            Ok(bound) => socket = Some(bound),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "{error}"),
        }
        socket.is_some()
    });
    socket.unwrap()
}
