//! A host where accounts are blocked, and what its kernel has of that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use aya::maps::{HashMap, Map, MapData};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use super::{Call, Host, World, call, run};

/// A host of its own, with FreeSWITCH's SQLite files and nobody registered.
pub struct Blocker {
    pub host: Host,
    pub world: World,
    /// `strings` or `bpf`: what matches, unless the settings name something.
    matcher: &'static str,
}

impl Blocker {
    /// With these lines behind the settings, the first of them still of `[registrations]`.
    pub fn new(settings: &str) -> Self {
        Self::matching_by("strings", settings)
    }

    /// The same, matching by `strings` or `bpf`.
    pub fn matching_by(matcher: &'static str, settings: &str) -> Self {
        let blocker = Self { host: Host::new(), world: World::with_databases(), matcher };
        if matcher == "bpf" {
            blocker.host.shell("mount -t bpf bpf /sys/fs/bpf; ip link add eth0 type bridge; ip addr add 192.0.2.1/24 dev eth0");
        }
        blocker.configure(settings);
        blocker
    }

    pub fn configure(&self, settings: &str) {
        // No look at the registrations is shared, and a machine that is busy is no fault.
        let mut settings = format!("source = \"sqlite\"\ncache = \"0s\"\ndeadline = \"10s\"\n{settings}");
        if self.matcher == "bpf" && !settings.contains("matcher = ") {
            if !settings.contains("[block]\n") {
                settings += "[block]\n";
            }
            settings = settings.replacen("[block]\n", "[block]\nmatcher = \"bpf\"\n", 1);
        }
        self.world.configure(&settings);
    }

    /// A call of `ringfence-block` that is ready to be run there. It is a process of that host, to which `/proc` tells its network.
    pub fn command(&self, args: &[&str]) -> Command {
        let call = self.world.block_command(args);
        let mut command = self.host.command(call.get_program().to_str().unwrap());
        command.args(args).env("RINGFENCE_CONFIG", self.world.config()).env_remove("RUST_BACKTRACE");
        command
    }

    #[track_caller]
    pub fn block(&self, args: &[&str]) -> Call {
        call(&mut self.command(args))
    }

    /// A call that is done, and has nothing to say.
    #[track_caller]
    pub fn does(&self, args: &[&str]) {
        self.block(args).is_done();
    }

    /// A call that ends so, with one line on standard error: that line.
    #[track_caller]
    pub fn says(&self, code: i32, args: &[&str]) -> String {
        self.world.masked(self.block(args).line("ringfence-block", code))
    }

    /// A ban that is refused for this reason, with this exit status; what it says.
    #[track_caller]
    pub fn refuses(&self, code: i32, reason: &str, args: &[&str]) -> String {
        let line = self.says(code, &[&["ban"], args].concat());
        let last = self.world.journal().pop().expect("evidence");
        assert_eq!((&last["decision"], &last["reason"]), (&"refuse".into(), &reason.into()), "{line}");
        line
    }

    /// What is listed.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        serde_json::from_value(self.block(&["list", "--json"]).json()).unwrap()
    }

    /// Who is blocked, as the ledger has it.
    #[track_caller]
    pub fn blocked(&self) -> BTreeSet<String> {
        self.list().iter().map(id).collect()
    }

    /// Checks who is blocked, and that the kernel knows.
    #[track_caller]
    pub fn holds(&self, ids: &[&str]) {
        self.agree();
        assert_eq!(self.blocked(), ids.iter().map(|id| (*id).to_owned()).collect());
    }

    pub fn ledger(&self) -> PathBuf {
        self.world.path("state/ledger.db")
    }

    /// Changes the ledger behind the tool's back.
    #[track_caller]
    pub fn ledger_sql(&self, sql: &str) -> String {
        run(self.host.command("sqlite3").arg("-bail").arg(self.ledger()).arg(sql))
    }

    /// Who is blocked in the kernel, by IPv4 and by IPv6. Each rule is there once, and nothing beside.
    #[track_caller]
    pub fn kernel(&self, variant: &str) -> [BTreeSet<String>; 2] {
        ["iptables", "ip6tables"].map(|base| {
            let save = format!("{base}-{variant}-save");
            offenders(&run(self.host.command(&save).args(["-t", "filter"])))
        })
    }

    /// Who is blocked in the kernel; by the program, as far as it is looked for by the ledger, and nobody else.
    #[track_caller]
    pub fn in_kernel(&self) -> BTreeSet<String> {
        if self.matcher == "strings" {
            let [v4, v6] = self.kernel("nft");
            return v4.union(&v6).cloned().collect();
        }
        let held: BTreeSet<_> = self.list().iter().filter(|entry| entry["hits"].is_u64()).map(id).collect();
        assert_eq!(self.entries(), held.len(), "{held:?}");
        held
    }

    /// How many entries of the program's map are not over.
    #[track_caller]
    fn entries(&self) -> usize {
        let pin = "/sys/fs/bpf/ringfence/1/blocked";
        self.host.within(|| {
            let Ok(data) = MapData::from_pin(pin) else { return 0 };
            let map: HashMap<_, [u8; 32], [u8; 16]> = Map::from_map_data(data).unwrap().try_into().unwrap();
            let time = clock_gettime(ClockId::Boottime);
            let now = u64::try_from(time.tv_sec).unwrap() * 1_000_000_000;
            let until = |value: [u8; 16]| u64::from_ne_bytes(value[..8].try_into().unwrap());
            map.iter().filter(|entry| until(entry.as_ref().unwrap().1) > now).count()
        })
    }

    /// The kernel holds what the ledger says.
    #[track_caller]
    pub fn agree(&self) {
        if self.matcher == "bpf" {
            assert_eq!(self.in_kernel(), self.blocked());
        } else {
            self.agree_as("nft");
        }
    }

    #[track_caller]
    pub fn agree_as(&self, variant: &str) {
        let [v4, v6] = self.kernel(variant);
        let of = |wanted: &str| {
            let list = self.list();
            let concerns = |entry: &&Value| {
                entry["source"].as_str().is_none_or(|source| source.contains(':') == (wanted == "IPv6"))
            };
            list.iter().filter(concerns).map(id).collect::<BTreeSet<_>>()
        };
        assert_eq!(v4, of("IPv4"), "IPv4");
        assert_eq!(v6, of("IPv6"), "IPv6");
    }
}

fn id(entry: &Value) -> String {
    let account = entry["account"].as_str().unwrap();
    entry["source"].as_str().map_or_else(|| account.to_owned(), |source| format!("{account},{source}"))
}

/// Who is blocked by the rules of a table, as iptables-save prints it.
#[track_caller]
fn offenders(saved: &str) -> BTreeSet<String> {
    let rules = |chain: &str| {
        let start = format!("-A {chain} ");
        saved.lines().filter_map(|line| line.strip_prefix(&start)).map(str::to_owned).collect::<Vec<_>>()
    };
    let target = |rule: &str| rule.rsplit_once("-j ").expect("a target").1.to_owned();
    let mut chains: BTreeSet<&str> = saved
        .lines()
        .filter_map(|line| line.strip_prefix(':')?.split(' ').next())
        .filter(|name| name.starts_with("RF-"))
        .collect();
    let hooks = rules("INPUT").iter().filter(|rule| target(rule) == "RF-BLOCK").count();
    if chains.is_empty() {
        assert_eq!(hooks, 0, "{saved}");
        return BTreeSet::new();
    }
    assert_eq!(hooks, 1, "{saved}");
    assert!(chains.remove("RF-BLOCK") && chains.remove("RF-BLOCK-DENY"), "{saved}");
    let first = rules("RF-BLOCK");
    assert_eq!((pattern(&first[0]).as_str(), target(&first[0]).as_str()), ("username=\"", "RETURN"));
    assert!(rules("RF-BLOCK-DENY").last().is_some_and(|rule| target(rule) == "DROP"), "{saved}");
    let domains: BTreeMap<String, String> =
        first[1..].iter().map(|rule| (target(rule), quoted(rule, "realm"))).collect();
    assert_eq!(domains.len(), first.len() - 1, "{saved}");
    assert!(domains.keys().eq(chains.iter()), "{saved}");
    let mut found = BTreeSet::new();
    for (chain, domain) in &domains {
        for rule in rules(chain) {
            assert_eq!(target(&rule), "RF-BLOCK-DENY");
            let mut id = format!("{}@{domain}", quoted(&rule, "username"));
            if let Some(source) = rule.strip_prefix("-s ") {
                let (address, rest) = source.split_once('/').unwrap();
                assert!(rest.starts_with("32 ") || rest.starts_with("128 "), "{rule}");
                id.extend([",", address]);
            }
            assert!(found.insert(id), "twice: {rule}");
        }
    }
    found
}

/// What is between the quotes of `name="..."`, which is the whole pattern of the rule.
#[track_caller]
fn quoted(rule: &str, name: &str) -> String {
    let pattern = pattern(rule);
    let inner = pattern.strip_prefix(&format!("{name}=\"")).and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or_else(|| panic!("{rule}")).to_owned()
}

/// The text that a rule looks for.
#[track_caller]
fn pattern(rule: &str) -> String {
    if let Some((_, rest)) = rule.split_once("--hex-string \"|") {
        let hex = rest.split('|').next().unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        return String::from_utf8((0..hex.len()).step_by(2).map(byte).collect()).unwrap();
    }
    let (_, rest) = rule.split_once("--string \"").unwrap_or_else(|| panic!("{rule}"));
    let (mut text, mut rest) = (String::new(), rest.chars());
    loop {
        match rest.next().expect("a closing quote") {
            '"' => return text,
            '\\' => text.extend(rest.next()),
            c => text.push(c),
        }
    }
}
