//! `ringfence-lists` and the kernel: ipset and iptables on hosts of our own.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfence::kernel_sets::Ipset;

use crate::support::{Call, Host, Http, Postgres, Reply, World, call, run};

/// All sets in the order in which they are swapped in.
const SETS: [&str; 8] = [
    "rf-allow-ip4",
    "rf-allow-net4",
    "rf-allow-ip6",
    "rf-allow-net6",
    "rf-block-ip4",
    "rf-block-net4",
    "rf-block-ip6",
    "rf-block-net6",
];

/// A user without any privilege.
const NOBODY: u32 = 65_534;

/// One list of each kind.
const OFFICE: &str =
    "[lists.office]\nkind = \"allow\"\nentries = [\"198.51.100.7\", \"2001:db8:bad::/64\"]\n";
const BAD: &str = "[lists.bad]\nkind = \"block\"\nentries = [\"203.0.113.66\", \"198.51.100.0/29\"]\n";

/// What the kernel has of them.
const OFFICE_AND_BAD: [&str; 6] = [
    "rf-allow-ip4 198.51.100.7",
    "rf-allow-net6 2001:db8:bad::/64",
    "rf-block-ip4 198.51.100.6",
    "rf-block-ip4 203.0.113.66",
    "rf-block-net4 198.51.100.0/30",
    "rf-block-net4 198.51.100.4/31",
];

/// A host of our own with FreeSWITCH's files and our settings.
struct Lab {
    host: Host,
    world: World,
}

impl Lab {
    fn new(lists: &str) -> Self {
        let world = World::with_databases();
        world.configure_lists(lists);
        Self { host: Host::new(), world }
    }

    /// A call of `ringfence-lists` that is ready to be run there.
    fn command(&self, args: &[&str]) -> Command {
        self.host.call(&self.world.lists_command(args))
    }

    #[track_caller]
    fn lists(&self, args: &[&str]) -> Call {
        call(&mut self.command(args))
    }

    /// A call that is done, and has nothing to say.
    #[track_caller]
    fn does(&self, args: &[&str]) {
        let call = self.lists(args);
        assert_eq!((call.code, call.stderr.as_str(), call.stdout.as_str()), (0, "", ""), "{args:?}");
    }

    /// A call that fails: its exit status and what it says, with `DIR` for the world's directory.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> (i32, String) {
        self.outcome(&mut self.command(args))
    }

    fn outcome(&self, command: &mut Command) -> (i32, String) {
        let Call { code, stderr, .. } = call(command);
        (code, stderr.replace(&self.world.dir().display().to_string(), "DIR"))
    }

    #[track_caller]
    fn ipset(&self, args: &str) -> String {
        run(self.host.command("ipset").args(args.split_whitespace()))
    }

    /// How many addresses each family's block sets have.
    fn blocked(&self) -> [u128; 2] {
        let mut blocked = [0; 2];
        for entry in self.entries().iter().filter_map(|entry| entry.strip_prefix("rf-block-")) {
            let (set, entry) = entry.split_once(' ').unwrap();
            let (at, width) = if set.ends_with('4') { (0, 32) } else { (1, 128) };
            let prefix = entry.split_once('/').map_or(width, |(_, prefix)| prefix.parse().unwrap());
            blocked[at] += 1_u128 << (width - prefix);
        }
        blocked
    }

    /// All sets, byte by byte.
    fn saved(&self) -> String {
        self.ipset("save")
    }

    /// The entries of all sets, in order.
    fn entries(&self) -> Vec<String> {
        let mut entries: Vec<_> =
            self.saved().lines().filter_map(|line| line.strip_prefix("add ")).map(str::to_owned).collect();
        entries.sort();
        entries
    }

    /// All our sets are there with these entries, and nothing is beside them.
    #[track_caller]
    fn has(&self, entries: &[&str]) {
        assert_eq!(self.entries(), entries);
        let mut names: Vec<String> = self.ipset("list -name").lines().map(str::to_owned).collect();
        names.retain(|name| name.starts_with("rf-"));
        names.sort();
        let mut all = SETS;
        all.sort_unstable();
        assert_eq!(names, all);
    }

    /// Whether the set, or one of its networks, has the address.
    fn tests(&self, set: &str, address: &str) -> bool {
        let test = self.host.command("ipset").args(["-q", "test", set, address]).status();
        test.unwrap().success()
    }

    /// Whether packets from the address would be dropped.
    fn blocks(&self, address: &str) -> bool {
        let family = if address.contains(':') { 6 } else { 4 };
        ["ip", "net"].iter().any(|kind| self.tests(&format!("rf-block-{kind}{family}"), address))
    }

    fn compiled(&self) -> PathBuf {
        self.world.path("state/lists/compiled")
    }

    /// As after a boot: neither sets nor what runs share.
    fn boot(&mut self) {
        self.world.reboot();
        self.host = Host::new();
    }

    /// Puts lines before the first section of the settings.
    fn set(&self, top: &str) {
        let settings = std::fs::read_to_string(self.world.config()).unwrap();
        std::fs::write(self.world.config(), format!("{top}\n{settings}")).unwrap();
    }
}

/// Writes a list's file.
fn file(world: &World, name: &str, lines: &[&str]) {
    std::fs::write(world.path(name), lines.join("\n") + "\n").unwrap();
}

/// A list from that file.
fn file_list(world: &World, name: &str, kind: &str) -> String {
    let file = world.path(name).display().to_string();
    format!("[lists.{name}]\nkind = {kind:?}\nfile = {file:?}\n")
}

/// Their packets arrive always, behind all others.
const WITNESSES: [&str; 2] = ["192.0.2.99", "2001:db8::99"];

/// The port for SIP, and one that the host's own rules open to nobody.
const PORTS: [u16; 2] = [5060, 5059];

/// What arrives at the ports of the host, of a packet from each address: the port, and the address. Each is answered, so that the
/// next one from there belongs to an established connection.
fn arrivals(pbx: &Host, outside: &Host, sources: &[&str]) -> Vec<String> {
    let at = |address: &str, port: u16| {
        let socket = UdpSocket::bind((address, port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    };
    let own = |source: &str| if source.contains(':') { "2001:db8::1" } else { "192.0.2.1" };
    let sockets: Vec<(u16, UdpSocket)> = pbx.inside(|| {
        PORTS.iter().flat_map(|port| [own("."), own(":")].map(|own| (*port, at(own, *port)))).collect()
    });
    outside.inside(|| {
        for source in sources.iter().chain(&WITNESSES) {
            let socket = UdpSocket::bind((*source, 5060)).unwrap();
            for port in PORTS {
                socket.send_to(source.as_bytes(), (own(source), port)).unwrap();
            }
        }
    });
    let mut arrived = vec![];
    for (port, socket) in sockets {
        loop {
            let mut buffer = [0; 100];
            let (length, from) = socket.recv_from(&mut buffer).expect("the witness");
            let source = String::from_utf8(buffer[..length].to_vec()).unwrap();
            if WITNESSES.contains(&&*source) {
                break;
            }
            socket.send_to(b"an answer", from).unwrap();
            arrived.push(format!("{port} {source}"));
        }
    }
    arrived.sort();
    arrived
}

/// Blocks and allows packets with the rules of `ringfence-firewall`, on a host that has FusionPBX's: what they do not accept is dropped.
fn packets(backend: &str) {
    const SOURCES: &str = "203.0.113.1 203.0.113.66 198.51.100.6 198.51.100.7 198.51.100.8 198.51.100.130 198.51.100.136 \
                           2001:db8:66::1 2001:db8:66::66 2001:db8:bad::7 2001:db8:bad::8 2001:db8:bad:1:2::8";
    let sources: Vec<&str> = SOURCES.split_whitespace().collect();
    let world = World::with_databases();
    let lists = file_list(&world, "bad", "block") + &file_list(&world, "good", "allow");
    file(
        &world,
        "bad",
        &[
            "203.0.113.66",
            "198.51.100.0/24",
            "2001:db8:66::66",
            "2001:db8:bad::/48",
            "192.0.2.1",
            "2001:db8::1",
        ],
    );
    file(&world, "good", &["198.51.100.7", "198.51.100.128/29", "2001:db8:bad::7", "2001:db8:bad:1::/64"]);
    world.configure_lists(&lists);
    let lab = Lab { host: Host::new(), world };
    let outside = Host::new();
    lab.host.connect(&outside);
    let neighbour = |source: &&str| format!("ip neigh add {source} lladdr 02:00:00:00:00:02 dev eth0");
    let neighbours: Vec<_> = sources.iter().chain(&WITNESSES).map(neighbour).collect();
    lab.host.shell(&format!(
        "ip addr add 192.0.2.1/32 dev eth0; ip -6 addr add 2001:db8::1/128 dev eth0 nodad
         {}",
        neighbours.join("\n")
    ));
    let add = |source: &&str| {
        let nodad = if source.contains(':') { "nodad" } else { "" };
        format!("ip addr add {source} dev eth0 {nodad}")
    };
    let addresses: Vec<_> = sources.iter().chain(&WITNESSES).map(add).collect();
    outside.shell(&format!(
        "{}
         ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev eth0
         ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev eth0",
        addresses.join("\n")
    ));
    let mut rules = vec!["mount -t tmpfs tmpfs /run".to_owned()];
    for (command, witness) in [("iptables", WITNESSES[0]), ("ip6tables", WITNESSES[1])] {
        let append = format!("{command}-{backend} -A INPUT");
        rules.push(format!(
            "{command}-{backend} -P INPUT DROP
             {append} -i lo -j ACCEPT
             {append} -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
             {append} -p udp --dport 5060:5091 -j ACCEPT
             {append} -s {witness} -j ACCEPT"
        ));
    }
    lab.host.shell(&rules.join("\n"));
    let mut firewall = lab.host.command("env");
    firewall.arg(format!("RINGFENCE_CONFIG={}", lab.world.config().display()));
    let command = lab.world.firewall_command(&["apply", "--yes"]);
    run(firewall.arg(command.get_program()).args(command.get_args()));
    let arrived = || arrivals(&lab.host, &outside, &sources);
    let at_sip = |wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        let wanted = sources.iter().filter(|source| wanted(source));
        let mut all: Vec<_> = wanted.map(|source| format!("{} {source}", PORTS[0])).collect();
        all.sort();
        all
    };
    assert_eq!(arrived(), at_sip(&|_| true), "nothing is on a list yet");

    lab.does(&["refresh"]);
    let good = ["198.51.100.7", "198.51.100.130", "2001:db8:bad::7", "2001:db8:bad:1:2::8"];
    let unlisted = ["203.0.113.1", "2001:db8:66::1"];
    assert_eq!(arrived(), at_sip(&|source| good.contains(&source) || unlisted.contains(&source)));

    // The rules know nothing of what changes in the sets.
    file(&lab.world, "bad", &["203.0.113.0/26", "2001:db8:66::1"]);
    file(&lab.world, "good", &["198.51.100.130"]);
    lab.does(&["refresh"]);
    assert_eq!(arrived(), at_sip(&|source| !unlisted.contains(&source)));
}

#[test]
fn packets_are_dropped_and_pass_with_nftables() {
    packets("nft");
}

#[test]
fn packets_are_dropped_and_pass_with_legacy_tables() {
    packets("legacy");
}

#[test]
fn a_load_needs_neither_network_nor_database() {
    let http = Http::start();
    http.serve("/bad", Reply::Ok(b"203.0.113.66\n198.51.100.0/29\n".to_vec()));
    let url = http.url("/bad");
    let mut lab = Lab::new(&format!("{OFFICE}[lists.bad]\nkind = \"block\"\nurl = {url:?}\n"));
    // Nothing was ever fetched.
    lab.does(&["load"]);
    lab.has(&[]);
    assert!(!lab.compiled().exists());
    let fetched = lab.world.lists(&["fetch"]);
    assert_eq!((fetched.code, &*fetched.stderr), (0, ""));
    drop(http);
    std::fs::remove_dir_all(lab.world.path("db")).unwrap();
    for _ in 0..2 {
        lab.boot();
        lab.does(&["load"]);
        lab.has(&OFFICE_AND_BAD);
    }
    let loaded = lab.world.journal().pop().unwrap();
    assert_eq!(loaded["detail"], "blocked 4 IPv4 and 0 IPv6, allowed 1 IPv4 and 1 IPv6 networks");
    // Nobody can be asked: what is there stays, in the store and in the kernel.
    let (code, stderr) = lab.fails(&["refresh", "--force"]);
    assert_eq!(code, 1, "{stderr}");
    assert!(stderr.contains("bad: refused: ") && stderr.contains("stays in use"), "{stderr}");
    lab.has(&OFFICE_AND_BAD);
}

#[test]
fn a_damaged_store_empties_no_set() {
    let mut lab = Lab::new(&[OFFICE, BAD].concat());
    lab.does(&["refresh"]);
    let whole = std::fs::read(lab.compiled()).unwrap();
    for damage in [&whole[..whole.len() - 1], b"", b"RFLISTS\x01garbage"] {
        std::fs::write(lab.compiled(), damage).unwrap();
        lab.ipset("destroy rf-block-ip4");
        let before = lab.saved();
        let (code, stderr) = lab.fails(&["load"]);
        assert_eq!(code, 2);
        let says = "ringfence-lists: the lists put together are lost; the sets stay as they are until the next \
                    ringfence-lists fetch: cannot use DIR/state/lists/compiled: it is ";
        assert!(stderr.starts_with(says), "{stderr}");
        let mut after: Vec<_> = lab.saved().lines().map(str::to_owned).collect();
        after.retain(|line| !line.starts_with("create rf-block-ip4 "));
        assert_eq!(after.join("\n"), before.trim_end());
        // The next run makes it new.
        lab.does(&["refresh"]);
        lab.has(&OFFICE_AND_BAD);
    }
    // Without any store, whoever is exempt stays so.
    std::fs::remove_dir_all(lab.world.path("state/lists")).unwrap();
    lab.does(&["load", "--force"]);
    lab.has(&OFFICE_AND_BAD);
    lab.does(&["refresh"]);
    std::fs::write(lab.compiled(), &whole[..20]).unwrap();
    lab.boot();
    assert_eq!(lab.fails(&["load"]).0, 2);
    lab.has(&[]);
}

#[test]
fn what_did_not_change_does_not_touch_the_kernel() {
    let lab = Lab::new("");
    let http = lab.host.inside(Http::start);
    let tagged = |body: &str, etag: &str| Reply::Tagged {
        body: body.as_bytes().to_vec(),
        etag: format!("\"{etag}\""),
        last_modified: None,
    };
    http.serve("/bad", tagged("203.0.113.66\n198.51.100.0/29\n", "1"));
    let url = http.url("/bad");
    lab.world.configure_lists(&format!("{OFFICE}[lists.bad]\nkind = \"block\"\nurl = {url:?}\n"));
    lab.does(&["refresh"]);
    lab.has(&OFFICE_AND_BAD);
    let before = lab.saved();
    let table = || std::fs::metadata(lab.world.path("state/allow.table")).unwrap().modified().unwrap();
    let written = table();
    let same = |args: &[&str]| {
        lab.does(args);
        assert_eq!(lab.saved(), before, "{args:?}");
        assert_eq!(table(), written, "{args:?}");
    };
    same(&["load"]);
    same(&["refresh"]);
    same(&["refresh", "--only", "bad"]);
    assert_eq!(http.requests().len(), 2, "not due, and asked again: {:?}", http.requests());
    assert!(http.requests()[1].headers.contains_key("if-none-match"));
    // The same in other words, and in the same words under another name.
    http.serve("/bad", tagged("198.51.100.0-198.51.100.7\n# a\n203.0.113.66/32\n203.0.113.66\n", "2"));
    same(&["refresh", "--only", "bad"]);
    http.serve("/bad", tagged("198.51.100.0-198.51.100.7\n# a\n203.0.113.66/32\n203.0.113.66\n", "3"));
    same(&["refresh", "--only", "bad"]);
    // A dry run and a fetch alone touch nothing, whatever they find.
    http.serve("/bad", tagged("203.0.113.0/26\n", "4"));
    assert_eq!(lab.lists(&["refresh", "--only", "bad", "--dry-run"]).code, 0);
    assert_eq!(lab.saved(), before);
    lab.does(&["fetch", "--only", "bad"]);
    assert_eq!(lab.saved(), before);
    lab.does(&["load"]);
    let changed =
        ["rf-allow-ip4 198.51.100.7", "rf-allow-net6 2001:db8:bad::/64", "rf-block-net4 203.0.113.0/26"];
    lab.has(&changed);
    // What others took away is put back.
    for damage in ["destroy rf-block-net4", "flush rf-allow-ip4", "destroy", "add rf-block-ip4 192.0.2.1"] {
        lab.ipset(damage);
        lab.does(&["load"]);
        lab.has(&changed);
    }
    std::fs::remove_file(lab.world.path("state/allow.table")).unwrap();
    lab.does(&["load"]);
    assert!(lab.world.path("state/allow.table").exists());
    lab.host.inside(|| drop(http));
}

/// Lines of a large list, all of them apart from those of other numbers: half of them single addresses.
fn many(number: u32, count: u32) -> Vec<String> {
    let base = (20 + number) << 24;
    let v4 = |offset: u32| std::net::Ipv4Addr::from(base + offset * 16);
    let single = (0..count).flat_map(|n| [v4(n).to_string(), format!("2001:{number:x}::{n:x}:1")]);
    let nets = (count..2 * count)
        .flat_map(|n| [format!("{}/30", v4(n)), format!("2001:{number:x}:{:x}::/48", n * 2)]);
    single.chain(nets).collect()
}

/// How many entries each set has, and what they are, whatever their order.
type Sets = BTreeMap<String, (u32, u64)>;

fn digest(saved: &str) -> Sets {
    let mut sets = Sets::new();
    for line in saved.lines() {
        let mut words = line.splitn(3, ' ');
        let (verb, name, rest) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let set = sets.entry(name.to_owned()).or_default();
        if verb == "add" {
            *set = (set.0 + 1, set.1 + u64::from(crc32fast::hash(rest.as_bytes())));
        }
    }
    sets
}

/// Kills a call at a random moment within the time after `ready`; whether it was still at work.
fn kill(mut command: Command, mut ready: impl FnMut() -> bool, within: Duration) -> bool {
    let moment = within.mul_f64(fastrand::f64());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !ready() && child.try_wait().unwrap().is_none() {}
    let start = Instant::now();
    while start.elapsed() < moment {
        std::thread::sleep(moment.saturating_sub(start.elapsed() + Duration::from_millis(1)));
    }
    child.kill().unwrap();
    !child.wait().unwrap().success()
}

#[test]
fn a_killed_load_leaves_each_set_old_or_new() {
    const COUNT: u32 = 1_250;
    let lab = Lab::new("");
    lab.world
        .configure_lists(&(file_list(&lab.world, "good", "allow") + &file_list(&lab.world, "bad", "block")));
    let mut contents = vec![];
    let mut took = Duration::ZERO;
    for number in [0, 2] {
        for (name, number) in [("good", number), ("bad", number + 1)] {
            let lines = many(number, COUNT);
            file(&lab.world, name, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        }
        lab.does(&["fetch"]);
        let load = lab.lists(&["load", "--force"]);
        assert_eq!(load.code, 0, "{load:?}");
        took = load.took;
        let sets = digest(&lab.saved());
        assert!(sets.values().all(|(count, _)| *count == COUNT), "{sets:?}");
        contents.push((std::fs::read(lab.compiled()).unwrap(), sets));
    }
    let install = |content: usize| {
        let beside = lab.world.path("compiled");
        std::fs::write(&beside, &contents[content].0).unwrap();
        std::fs::rename(&beside, lab.compiled()).unwrap();
    };
    // Which content each set has.
    let which = || -> Vec<usize> {
        let live = digest(&lab.saved());
        let of = |name: &str| contents.iter().position(|(_, sets)| live.get(name) == sets.get(name));
        SETS.iter().map(|name| of(name).unwrap_or_else(|| panic!("{name} is neither: {live:?}"))).collect()
    };
    let mut kernel = lab.host.inside(|| Ipset::open().unwrap());
    let mut live = which();
    let mut loaded = 1;
    let (mut killed, mut between) = (0, 0);
    for round in 0..200 {
        let wanted = round % 2;
        install(wanted);
        // Half of the moments are around the swaps, which are over in no time.
        let last = || kernel.header("rf-block-net6.new").unwrap().is_some_and(|set| set.entries == COUNT);
        let load = lab.command(&["load", "--force"]);
        killed += u32::from(if fastrand::bool() {
            kill(load, || true, took.mul_f64(1.1))
        } else {
            kill(load, last, Duration::from_micros(500))
        });
        let now = which();
        let swapped = (0..=SETS.len()).find(|done| {
            now[..*done].iter().all(|content| *content == wanted) && now[*done..] == live[*done..]
        });
        assert!(swapped.is_some(), "{wanted} in the order of the sets over {live:?}: {now:?}");
        between += u32::from(now.contains(&0) && now.contains(&1));
        live = now;
        if round % 3 == 2 {
            // What was loaded last, as if nothing had happened since: it must not be taken for what is there.
            install(loaded);
            lab.does(&["load"]);
            let sets = digest(&lab.saved());
            assert_eq!(sets, contents[loaded].1, "nothing beside");
            live = vec![loaded; SETS.len()];
            loaded = round / 3 % 2;
            if live[0] != loaded {
                install(loaded);
                lab.does(&["load"]);
                live = vec![loaded; SETS.len()];
            }
        }
    }
    println!("{killed} killed, {between} between two sets, a load takes {took:?}");
    assert!(killed > 50, "{killed}");
}

#[test]
fn a_killed_refresh_leaves_a_store_that_can_be_read() {
    let lab = Lab::new("");
    let http = lab.host.inside(Http::start);
    let url = |path: &str| format!("url = {:?}\n", http.url(path));
    lab.world.configure_lists(&format!(
        "{OFFICE}[lists.bad]\nkind = \"block\"\n{}[lists.good]\nkind = \"allow\"\nexempts = [\"blocklists\", \"limits\"]\n{}",
        url("/bad"),
        url("/good")
    ));
    let serve = |number: u32| {
        for (path, number) in [("/bad", number * 2), ("/good", number * 2 + 1)] {
            http.serve(path, Reply::Ok(many(number, 300).join("\n").into_bytes()));
        }
    };
    serve(0);
    let first = lab.lists(&["refresh"]);
    assert_eq!(first.code, 0, "{first:?}");
    for round in 1..=30 {
        serve(round);
        let command = ["refresh", "fetch"][fastrand::usize(..2)];
        kill(lab.command(&[command, "--force"]), || true, first.took.mul_f64(1.1));
        let show = lab.lists(&["show"]);
        assert_eq!((show.code, &*show.stderr), (0, ""), "{show:?}");
        assert!(!show.stdout.contains("lost") && !show.stdout.contains("refused"), "{}", show.stdout);
        lab.does(&["load"]);
        if round % 3 == 0 {
            lab.does(&["refresh", "--force"]);
            let live = digest(&lab.saved());
            let count = |name: &str| live[name].0;
            assert_eq!(SETS.map(count), [301, 300, 300, 301, 300, 300, 300, 300]);
        }
    }
    let mut names: Vec<_> = std::fs::read_dir(lab.world.path("state/lists"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["bad.copy", "compiled", "good.copy", "lock", "office.copy", "status.json"]);
    lab.host.inside(|| drop(http));
}

#[test]
fn what_stands_in_the_way_is_named_and_nothing_changes() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    lab.does(&["refresh"]);
    let loads = || lab.fails(&["load", "--force"]);
    let foreign = |set: &str, kind: &str, family: &str| {
        format!(
            "ringfence-lists: the set {set} is there as {kind}, and not as {family}, so it is not ours; \
             remove it (ipset destroy {set})\n"
        )
    };
    // Of another type, or family; of the sides that block and that allow.
    for (set, options, is, ours) in [
        ("rf-block-net6", "", "hash:net,iface family inet", "hash:net family inet6"),
        ("rf-block-ip4", " range 0-9", "bitmap:port", "hash:ip family inet"),
        ("rf-allow-net6", "", "list:set", "hash:net family inet6"),
        ("rf-allow-net6", "", "hash:net family inet", "hash:net family inet6"),
        ("rf-allow-ip4", "", "hash:ip,port family inet6", "hash:ip family inet"),
    ] {
        lab.ipset(&format!("destroy {set}"));
        lab.ipset(&format!("create {set} {is}{options}"));
        let before = lab.saved();
        assert_eq!(loads(), (2, foreign(set, is, ours)));
        assert_eq!(lab.saved(), before);
        lab.ipset(&format!("destroy {set}"));
        lab.does(&["load"]);
        lab.has(&OFFICE_AND_BAD);
    }

    // A rule holds what is beside.
    lab.host.shell(
        "mount -t tmpfs tmpfs /run; ipset create rf-block-ip4.new hash:ip
         iptables-nft -A INPUT -m set --match-set rf-block-ip4.new src -j DROP",
    );
    let before = lab.saved();
    let in_use = "ringfence-lists: cannot remove the set rf-block-ip4.new: it is in use; remove the rule or set that names it\n";
    assert_eq!(loads(), (2, in_use.to_owned()));
    assert_eq!(lab.saved(), before);
    lab.host.shell("iptables-nft -F INPUT");
    // The kernel frees it a moment later.
    crate::support::wait_for("the set to be free", || loads().0 == 0);
    lab.has(&OFFICE_AND_BAD);
}

#[test]
fn without_privilege_it_says_what_to_do() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    std::fs::set_permissions(lab.world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    lab.does(&["refresh"]);
    file(&lab.world, "later", &["192.0.2.1"]);
    let before = lab.saved();
    let with = |options: &[&str], args: &[&str]| {
        let tool = lab.world.lists_command(args);
        let mut command = Command::new("setpriv");
        command.args(options).arg(tool.get_program()).args(tool.get_args());
        command.env("RINGFENCE_CONFIG", lab.world.config());
        lab.outcome(&mut lab.host.call(&command))
    };
    let weak_root = ["--bounding-set=-net_admin", "--inh-caps=-net_admin"];
    for args in [&["load"][..], &["load", "--force"], &["refresh"]] {
        let (code, stderr) = with(&weak_root, args);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.ends_with(": not permitted; run as root, or with CAP_NET_ADMIN\n"), "{stderr}");
    }
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    for (args, says) in [
        (
            ["load"],
            "ringfence-lists: cannot keep lists in DIR/state/lists: Permission denied (os error 13); run as root",
        ),
        (["show"], "ringfence-lists: cannot look into DIR/state/lists"),
    ] {
        let (code, stderr) = with(&nobody, &args);
        assert_eq!(code, 2, "{stderr}");
        assert!(stderr.starts_with(says), "{stderr}");
    }
    assert_eq!(lab.saved(), before);
}

#[test]
fn the_store_may_be_somebody_elses() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    let lists = lab.world.path("state/lists");
    std::fs::create_dir_all(&lists).unwrap();
    std::fs::set_permissions(lab.world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    chown(&lists, Some(NOBODY), Some(NOBODY)).unwrap();
    let as_nobody = |args: &[&str]| {
        let tool = lab.world.lists_command(args);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(tool.get_program()).args(tool.get_args()).env("RINGFENCE_CONFIG", lab.world.config());
        call(&mut lab.host.call(&command))
    };
    for _ in 0..2 {
        let fetch = as_nobody(&["fetch"]);
        assert_eq!((fetch.code, &*fetch.stderr), (0, ""));
        lab.does(&["load"]);
        lab.has(&OFFICE_AND_BAD);
        lab.does(&["refresh", "--force"]);
    }
    let load = as_nobody(&["load", "--force"]);
    assert_eq!(load.code, 2);
    assert!(load.stderr.contains("/state/allow.table (load needs root): "), "{}", load.stderr);
    lab.has(&OFFICE_AND_BAD);
}

#[test]
fn fail2ban_leaves_alone_whom_a_list_says() {
    let lab = Lab::new(
        "[lists.office]\nkind = \"allow\"\nentries = [\"198.51.100.7\"]\n\
         [lists.partner]\nkind = \"allow\"\nentries = [\"198.51.100.8\"]\nexempts = [\"blocklists\"]\n\
         [lists.staff]\nkind = \"allow\"\nentries = [\"198.51.100.9\"]\nexempts = [\"fail2ban\"]\n\
         [lists.bad]\nkind = \"block\"\nentries = [\"198.51.100.0/28\"]\n",
    );
    let keeps = || ["198.51.100.7", "198.51.100.8", "198.51.100.9"].map(|address| lab.world.keeps(address));
    assert_eq!(keeps(), [false; 3]);
    lab.does(&["fetch"]);
    assert_eq!(keeps(), [false; 3], "not before they are loaded");
    lab.does(&["load"]);
    assert_eq!(keeps(), [true, false, true]);
    assert_eq!(lab.world.last_reason(), "allow-list");
    assert_eq!(
        ["198.51.100.7", "198.51.100.8", "198.51.100.9"].map(|address| lab.blocks(address)),
        [false, false, true]
    );
    assert_eq!(lab.entries()[0], "rf-allow-ip4 198.51.100.7");
    assert!(lab.entries()[1].starts_with("rf-block-"), "{:?}", lab.entries());
    // What is no longer allowed is not kept any longer.
    lab.world.configure_lists(BAD);
    lab.does(&["refresh"]);
    assert_eq!(keeps(), [false; 3]);
}

#[test]
fn observing_blocks_nobody() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    let allowed = &OFFICE_AND_BAD[..2];
    lab.does(&["refresh"]);
    lab.has(&OFFICE_AND_BAD);
    lab.set("mode = \"observe\"");
    lab.does(&["load"]);
    lab.has(allowed);
    let show = lab.lists(&["show", "203.0.113.66"]);
    assert!(show.stdout.contains("would be blocked, but mode is \"observe\""), "{}", show.stdout);
    // One list alone.
    let other = "[lists.other]\nkind = \"block\"\nentries = [\"192.0.2.77\"]\n";
    lab.world.configure_lists(&[OFFICE, BAD, "mode = \"observe\"\n", other].concat());
    lab.does(&["refresh"]);
    lab.has(&[allowed, &["rf-block-ip4 192.0.2.77"]].concat());
}

#[test]
fn a_removed_list_disappears() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    lab.does(&["refresh"]);
    lab.world.configure_lists(BAD);
    lab.does(&["refresh"]);
    lab.has(&["rf-block-ip4 203.0.113.66", "rf-block-net4 198.51.100.0/29"]);
    assert!(!lab.world.path("state/lists/office.copy").exists());
    lab.world.configure_lists("");
    lab.does(&["refresh"]);
    lab.has(&[]);
    assert!(!lab.world.path("state/lists/bad.copy").exists());
    assert_eq!(lab.lists(&["show"]).stdout, "There are no lists in the settings.\n");
}

/// An IPv4 /8 and an IPv6 /32 with everybody in them, and ranges that are not of the internet.
const WORLD: [&str; 6] = ["20.0.0.0/8", "2a00:66::/32", "10.0.0.0/8", "0.0.0.0/8", "fe80::/64", "224.0.0.1"];

/// A gateway, and an access control node.
const CARRIERS: &str = "
    INSERT INTO v_access_controls (access_control_uuid, access_control_name, access_control_default) VALUES
        ('31111111-1111-1111-1111-111111111111', 'providers', 'deny');
    INSERT INTO v_access_control_nodes
        (access_control_node_uuid, access_control_uuid, node_type, node_cidr, node_description) VALUES
        (gen_random_uuid(), '31111111-1111-1111-1111-111111111111', 'allow', '20.5.1.0/24', 'Acme SBC');
    INSERT INTO v_gateways (gateway_uuid, gateway, proxy, enabled) VALUES
        (gen_random_uuid(), 'acme', '20.5.0.1:5060', 'true');";

fn database(server: &Postgres) -> String {
    let dir = server.socket_dir().display();
    format!("[fusionpbx]\npostgres = \"host={dir} port={} dbname=fusionpbx user=ringfence\"\n", server.port)
}

/// A record of utmp(5): somebody is logged in from this address.
fn login(address: [u8; 4]) -> Vec<u8> {
    let mut record = vec![0; 384];
    record[0] = 7;
    record[4..8].copy_from_slice(&std::process::id().to_ne_bytes());
    record[44..48].copy_from_slice(b"root");
    record[348..352].copy_from_slice(&address);
    record
}

/// A host with all who must not be blocked, in the midst of a block list.
fn in_the_midst() -> (Lab, Postgres) {
    let lab = Lab::new("");
    let (server, office) = (Postgres::with_fusionpbx(CARRIERS), "[lists.office]\nkind = \"allow\"\n");
    lab.world.configure_lists(
        &(database(&server)
            + office
            + "entries = [\"20.4.0.0/16\"]\n"
            + &file_list(&lab.world, "bad", "block")),
    );
    file(&lab.world, "bad", &WORLD);
    for (database, address) in [
        ("core.db", "20.6.0.1"),
        ("sofia_reg_internal.db", "20.6.0.1"),
        ("sofia_reg_internal.db", "20.6.0.2"),
        ("sofia_reg_internal-ipv6.db", "2a00:66::6"),
    ] {
        lab.world.register(database, address, 3600);
    }
    lab.world.register("sofia_reg_external.db", "20.6.0.9", -10);
    file(&lab.world, "resolv.conf", &["nameserver 20.2.0.53"]);
    file(&lab.world, "session", &["REMOTE=1", "STATE=active", "REMOTE_HOST=20.3.0.23"]);
    std::fs::write(lab.world.path("utmp"), login([20, 3, 0, 22])).unwrap();
    lab.host.shell(&format!(
        "cd {}; mount --bind resolv.conf /etc/resolv.conf; mount -t tmpfs tmpfs /run
         mkdir -p /run/systemd/sessions /run/systemd/resolve; cp utmp /run/utmp; cp session /run/systemd/sessions/c1
         echo nameserver 20.2.0.54 >/run/systemd/resolve/resolv.conf
         ip link add eth0 type veth peer name eth1
         ip link set eth0 addrgenmode none; ip link set eth1 addrgenmode none; ip link set eth0 up; ip link set eth1 up
         ip addr add 20.1.0.1/24 dev eth0; ip addr add 2a00:66::1/64 dev eth0 nodad
         ip route add default via 20.1.0.254; ip route add default via 2a00:66::fe",
        lab.world.dir().display()
    ));
    (lab, server)
}

#[test]
fn nobody_of_us_is_blocked() {
    let (lab, _server) = in_the_midst();
    let dry = lab.lists(&["refresh", "--dry-run"]);
    assert_eq!((dry.code, &*dry.stderr), (0, ""));
    let mut remarks: Vec<&str> = dry.stdout.lines().filter_map(|line| line.strip_prefix("bad: ")).collect();
    let new = remarks.remove(0);
    assert_eq!(new, "new 0.0.0.0/8, 10.0.0.0/8, 20.0.0.0/8, 224.0.0.1, 2a00:66::/32 and 1 more");
    assert_eq!(
        remarks,
        [
            "would have blocked 2 carriers: access control providers (Acme SBC) 20.5.1.0/24, gateway acme (20.5.0.1) 20.5.0.1",
            "would have blocked 3 registered phones: 101@a.example.com 20.6.0.1, 101@a.example.com 20.6.0.2, 101@a.example.com 2a00:66::6",
            "would have blocked 1 allowed range: office 20.4.0.0/16",
            "would have blocked 2 addresses of this host: 20.1.0.1 and 1 more",
            "would have blocked 2 gateways of this host: 20.1.0.254 and 1 more",
            "would have blocked 2 name servers of this host: 20.2.0.53-20.2.0.54",
            "would have blocked 2 peers of login sessions: 20.3.0.22/31",
            "would have blocked 4 ranges that are not of the internet: this network 0.0.0.0/8, private 10.0.0.0/8, multicast 224.0.0.1, link-local fe80::/64",
        ]
    );
    assert!(!lab.compiled().exists());

    lab.does(&["refresh"]);
    let safe = "20.1.0.1 20.1.0.254 20.2.0.53 20.2.0.54 20.3.0.22 20.3.0.23 20.4.0.0 20.4.255.255 20.5.0.1 \
                20.5.1.0 20.5.1.255 20.6.0.1 20.6.0.2 2a00:66::1 2a00:66::fe 2a00:66::6 10.1.2.3 0.0.0.1 \
                224.0.0.1 fe80::1";
    for address in safe.split_whitespace() {
        assert!(!lab.blocks(address), "{address}");
    }
    let others = "20.0.0.0 20.255.255.255 20.1.0.0 20.1.0.2 20.2.0.52 20.2.0.55 20.3.0.21 20.3.0.24 20.3.255.255 \
                  20.5.0.0 20.5.0.2 20.5.2.0 20.6.0.0 20.6.0.3 20.6.0.9 2a00:66::5 2a00:66::7 2a00:66::2";
    for address in others.split_whitespace() {
        assert!(lab.blocks(address), "{address}");
    }
    let outside = (1 << 24) - (1 << 16) - 256 - 1 - 2 - 2 - 2 - 2;
    assert_eq!(lab.blocked(), [outside, (1 << 96) - 3]);
    // Who is exempt from limits, and from fail2ban.
    assert!(lab.tests("rf-allow-ip4", "20.5.0.1") && lab.tests("rf-allow-net4", "20.5.1.7"));
    assert!(lab.world.keeps("20.5.0.1") && lab.world.keeps("20.4.1.1"));

    // In IPv6, a phone's neighbours may count as the phone.
    let settings = std::fs::read_to_string(lab.world.config()).unwrap();
    let wider = settings.replace("[registrations]", "[registrations]\nipv6-prefix = 64");
    std::fs::write(lab.world.config(), wider).unwrap();
    let dry = lab.lists(&["refresh", "--dry-run"]).stdout;
    let phones = "bad: would have blocked 3 registered phones: 101@a.example.com 20.6.0.1, 101@a.example.com 20.6.0.2, \
                  101@a.example.com 2a00:66::/64\n";
    assert!(dry.contains(phones), "{dry}");
    std::fs::write(lab.world.config(), settings).unwrap();

    // A load looks again, at what it can know alone.
    lab.host.shell("ip addr add 20.7.0.7/32 dev eth0");
    lab.does(&["load"]);
    assert!(!lab.blocks("20.7.0.7"));
    assert_eq!(lab.blocked(), [outside - 1, (1 << 96) - 3]);
}

#[test]
fn phones_seen_lately_serve_while_the_registrations_cannot_be_read() {
    let lab = Lab::new("");
    lab.world.configure_lists(&file_list(&lab.world, "bad", "block"));
    file(&lab.world, "bad", &WORLD[..2]);
    lab.world.register("sofia_reg_internal.db", "20.6.0.1", 3600);
    assert!(lab.world.keeps("20.6.0.1"));
    lab.world.register("sofia_reg_internal.db", "2a00:66::6", 3600);
    lab.does(&["refresh"]);
    let safe = || ["20.6.0.1", "2a00:66::6"].map(|address| !lab.blocks(address));
    assert_eq!(safe(), [true, true]);
    std::fs::rename(lab.world.path("db"), lab.world.path("away")).unwrap();
    std::fs::create_dir(lab.world.path("db")).unwrap();
    let (code, stderr) = lab.fails(&["refresh"]);
    assert_eq!(code, 0);
    assert!(stderr.starts_with("ringfence-lists: the registrations cannot be read ("), "{stderr}");
    assert!(
        stderr.ends_with("); the 2 addresses seen registered within a day are protected instead\n"),
        "{stderr}"
    );
    assert_eq!(safe(), [true, true], "one that was asked about, and one that the last run read");
    let (_, stderr) = lab.fails(&["refresh", "--dry-run"]);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    // Nor can that be read any longer: whoever is blocked stays so, and nobody else is.
    let v4 = |entries: Vec<String>| -> Vec<String> {
        entries.into_iter().filter(|entry| !entry.contains("6 ")).collect()
    };
    let before = v4(lab.entries());
    for entry in std::fs::read_dir(lab.world.path("state")).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("seen") {
            std::fs::write(entry.path(), "damaged").unwrap();
        }
    }
    file(&lab.world, "bad", &["20.0.0.0/8", "203.0.113.66"]);
    let (code, stderr) = lab.fails(&["refresh"]);
    assert_eq!(code, 1);
    assert!(
        stderr.starts_with("ringfence-lists: nobody is blocked anew: neither the registrations ("),
        "{stderr}"
    );
    assert_eq!(lab.entries(), before, "and who is on no list any more is let go");
    // All is well again.
    std::fs::remove_dir(lab.world.path("db")).unwrap();
    std::fs::rename(lab.world.path("away"), lab.world.path("db")).unwrap();
    assert!(lab.lists(&["refresh"]).stderr.contains("phones seen within a day cannot be read"));
    assert!(lab.blocks("203.0.113.66") && !lab.blocks("20.6.0.1"));
}

#[test]
fn nobody_is_blocked_before_the_carriers_are_known_and_known_they_stay() {
    let lab = Lab::new(&[OFFICE, BAD].concat());
    lab.does(&["refresh"]);
    let world = file_list(&lab.world, "world", "block");
    file(&lab.world, "world", &WORLD[..1]);
    lab.world.configure_lists(
        &([OFFICE, BAD, &world].concat()
            + "[fusionpbx]\npostgres = \"host=/nowhere dbname=fusionpbx user=x\"\n"),
    );
    let (code, stderr) = lab.fails(&["refresh"]);
    let mut lines = stderr.lines();
    let refused = lines.next().unwrap();
    let cannot = "ringfence-lists: carriers: refused: cannot connect to postgres fusionpbx as x on /nowhere";
    assert!(refused.starts_with(cannot) && refused.ends_with("; there is no copy of it yet"), "{refused}");
    let nothing = "ringfence-lists: nobody is blocked anew: there is no copy yet of the allow list carriers";
    assert_eq!((code, lines.collect::<Vec<_>>()), (1, vec![nothing]));
    lab.has(&OFFICE_AND_BAD);

    let server = Postgres::with_fusionpbx(CARRIERS);
    let lists = [OFFICE, BAD, &world].concat() + &database(&server);
    lab.world.configure_lists(&lists);
    lab.does(&["refresh"]);
    let carriers = || ["20.5.0.1", "20.5.1.9"].map(|address| !lab.blocks(address));
    assert_eq!(carriers(), [true; 2]);
    assert!(lab.blocks("20.5.0.2"));
    drop(server);
    // Not even their names are left in the end.
    for damage in ["", "carriers.json"] {
        std::fs::write(lab.world.path("state/lists").join(damage).with_extension("json"), "{").unwrap();
        let (code, stderr) = lab.fails(&["refresh"]);
        assert_eq!((code, stderr.lines().count()), (1, 1), "{stderr}");
        assert!(
            stderr.contains("carriers: refused: cannot connect") && stderr.contains("stays in use"),
            "{stderr}"
        );
        assert_eq!(carriers(), [true; 2]);
        let show = lab.lists(&["show", "20.5.0.1"]).stdout;
        assert!(
            show.contains("20.5.0.1 is not blocked: ")
                && show.contains("It is exempt from limits and fail2ban."),
            "{show}"
        );
    }
    // They are no longer wanted.
    lab.world.configure_lists(&(lists + "carriers = \"off\"\n"));
    lab.does(&["refresh"]);
    assert_eq!(carriers(), [false; 2]);
    for name in ["carriers.json", "carriers.copy"] {
        assert!(!lab.world.path("state/lists").join(name).exists(), "{name}");
    }
}
