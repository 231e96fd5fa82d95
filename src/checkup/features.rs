//! What the kernel and iptables have of what our rules need: the matches, the targets and the kinds of sets, tried in a network
//! namespace that is gone a moment later. Nothing of this host's rules is touched.
//!
//! ```text
//! ringfence doctor        what these settings need
//!   unshare --net         the same program: makes our sets, and a rule with each feature, over IPv4 and IPv6
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Finding;
use super::Subject::Kernel;
use crate::config::block::Tcp;
use crate::config::firewall::ConnectionTracking;
use crate::config::{Config, Mode};
use crate::firewall::{Firewall, Variant, Version};
use crate::kernel_sets::{self, Ipset};
use crate::programs;

const CHECK: &str = "matches";

/// No trial takes longer.
const TIME: Duration = Duration::from_secs(10);

/// All of them together.
const ALL: Duration = Duration::from_secs(30);

/// Kinds of sets, as the kernel's modules.
const SET_MODULES: &str = "ip_set_hash_ip ip_set_hash_net ip_set_bitmap_port ip_set_list_set";

/// A match or target of iptables.
struct Feature {
    /// As rules have it.
    name: &'static str,
    /// The kernel's module for it, of IPv4 and of IPv6.
    modules: [&'static str; 2],
    /// A rule with it, behind the name of the chain, over IPv4 and over IPv6.
    rules: [&'static str; 2],
    /// What does not work without it, for people.
    needs: &'static str,
    /// Whether rules by these settings have it.
    is_needed: fn(&Config) -> bool,
}

impl Feature {
    const fn same(
        name: &'static str,
        module: &'static str,
        rule: &'static str,
        needs: &'static str,
        is_needed: fn(&Config) -> bool,
    ) -> Self {
        Self { name, modules: [module; 2], rules: [rule; 2], needs, is_needed }
    }
}

const fn at(version: Version) -> usize {
    match version {
        Version::V4 => 0,
        Version::V6 => 1,
    }
}

fn always(_: &Config) -> bool {
    true
}

fn is_tracked(config: &Config) -> bool {
    config.firewall.connection_tracking != ConnectionTracking::Off
}

fn is_logged(config: &Config) -> bool {
    let prefixes = [&config.firewall.log_prefix, &config.block.log_prefix];
    config.firewall_mode() == Mode::Observe || prefixes.iter().any(|prefix| prefix.get().is_some())
}

/// What our rules have, as `src/firewall`, `src/matcher` and `src/bans` write them.
const FEATURES: [Feature; 15] = [
    Feature::same("comment", "xt_comment", "-m comment --comment x -j RETURN", "each rule of ours", always),
    Feature::same(
        "multiport",
        "xt_multiport",
        "-p udp -m multiport --dports 5060,5080:5081 -j RETURN",
        "all rules about the ports of SIP, and bans of jails with ports",
        always,
    ),
    Feature::same("tcp", "xt_tcpudp", "-p tcp -m tcp --syn -j RETURN", "the checks of TCP's flags", always),
    Feature::same(
        "udp",
        "xt_tcpudp",
        "-p udp -m udp --dport 4569 -j RETURN",
        "iax-limit, the limit of IAX2",
        |config| config.firewall.iax_limit.rate().is_some(),
    ),
    Feature {
        name: "set",
        modules: ["xt_set"; 2],
        rules: ["-m set --match-set rf-known4 src -j RETURN", "-m set --match-set rf-known6 src -j RETURN"],
        needs: "lists, allowed phones, and bans by ringfence-ban",
        is_needed: always,
    },
    Feature {
        name: "SET",
        modules: ["xt_set"; 2],
        rules: [
            "-j SET --add-set rf-slam-ip4 src --exist --timeout 60",
            "-j SET --add-set rf-slam-ip6 src --exist --timeout 60",
        ],
        needs: "the memory of who exceeded a limit",
        is_needed: always,
    },
    Feature::same(
        "string",
        "xt_string",
        "-p udp -m string --algo bm --icase --hex-string \"|78|\" -j RETURN",
        "limits of SIP's requests, scanners by name, and accounts blocked by patterns",
        always,
    ),
    Feature {
        name: "hashlimit",
        modules: ["xt_hashlimit"; 2],
        rules: [
            "-m hashlimit --hashlimit-name rf-doctor4 --hashlimit-mode srcip --hashlimit-above 1/second -j RETURN",
            "-m hashlimit --hashlimit-name rf-doctor6 --hashlimit-mode srcip --hashlimit-srcmask 64 --hashlimit-above 1/second -j RETURN",
        ],
        needs: "all limits (register-limit, invite-limit, options-limit, iax-limit, limits)",
        is_needed: always,
    },
    Feature::same(
        "u32",
        "xt_u32",
        "-p udp -m u32 --u32 \"48>>31=1\" -j RETURN",
        "iax-limit, the limit of IAX2",
        |config| config.firewall.iax_limit.rate().is_some(),
    ),
    Feature::same(
        "conntrack",
        "xt_conntrack",
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "the quick way of running connections past our rules",
        is_tracked,
    ),
    Feature {
        name: "socket",
        modules: ["nf_socket_ipv4", "nf_socket_ipv6"],
        rules: ["-m socket -j RETURN"; 2],
        needs: "connections that are older than their tracking, which would be cut",
        is_needed: is_tracked,
    },
    Feature::same(
        "limit",
        "xt_limit",
        "-m limit --limit 10/min --limit-burst 20 -j RETURN",
        "log-prefix and observing, which log no more than ten lines a minute",
        is_logged,
    ),
    Feature::same("LOG", "xt_LOG", "-j LOG --log-prefix \"x \"", "log-prefix and observing", is_logged),
    Feature {
        name: "REJECT",
        modules: ["ipt_REJECT", "ip6t_REJECT"],
        rules: ["-p tcp -j REJECT --reject-with tcp-reset"; 2],
        needs: "tcp = \"reset\" of [block]",
        is_needed: |config| config.block.tcp == Tcp::Reset,
    },
    Feature::same(
        "time",
        "xt_time",
        "-m time --datestop 2026-01-01T00:00:00 -j RETURN",
        "ringfence pause, which the kernel ends by it",
        always,
    ),
];

/// What is tried.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Trial {
    variant: Variant,
    versions: Vec<Version>,
    features: Vec<String>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tried {
    /// Why our sets cannot be made.
    sets: Option<String>,
    /// What needs sets, of which there are none at all.
    untried: Vec<String>,
    /// Over which no rule at all can be made, and why.
    closed: Vec<(Version, String)>,
    missing: Vec<Missing>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Missing {
    feature: String,
    version: Version,
    /// iptables has no file for it, whatever the kernel has.
    of_iptables: bool,
}

impl Trial {
    /// Of what rules by these settings need on a host with this packet filter.
    #[must_use]
    pub fn new(config: &Config, there: &Firewall) -> Self {
        let needed = FEATURES.iter().filter(|feature| (feature.is_needed)(config));
        Self {
            variant: there.variant(),
            versions: [Version::V4, Version::V6].into_iter().filter(|version| there.has(*version)).collect(),
            features: needed.map(|feature| feature.name.to_owned()).collect(),
        }
    }

    /// Has it tried by `program`, which calls [`Trial::run`], in a network namespace of its own.
    pub fn start(&self, program: &str, args: &[&str]) -> anyhow::Result<Tried> {
        let args = [&["--net", "--", program], args].concat();
        let told = programs::run("util-linux", "unshare", &args, &serde_json::to_string(self)?, ALL)?;
        serde_json::from_str(&told).context("the trial broke off")
    }

    /// Tries it in this network namespace, which must be nobody's.
    pub fn run(&self) -> anyhow::Result<Tried> {
        let mut tried = Tried::default();
        // Without any sets there is no set to ask; that is said by another check.
        let sets = Ipset::open().and_then(|mut kernel| kernel.names().map(|_| kernel));
        let made = sets.map(|mut kernel| {
            kernel_sets::make_missing(&mut kernel, []).and_then(|()| kernel_sets::make_standing(&mut kernel))
        });
        let has_sets = matches!(made, Ok(Ok(())));
        tried.sets = made.ok().and_then(Result::err).map(|error| format!("{error:#}"));
        let needed = FEATURES.iter().filter(|feature| self.features.iter().any(|name| name == feature.name));
        let (features, untried): (Vec<_>, Vec<_>) =
            needed.partition(|feature| has_sets || !feature.name.eq_ignore_ascii_case("set"));
        tried.untried = untried.iter().map(|feature| feature.name.to_owned()).collect();
        for version in &self.versions {
            self.over(*version, &features, &mut tried)?;
        }
        Ok(tried)
    }

    /// All at once, and one by one only where that fails.
    fn over(&self, version: Version, features: &[&Feature], tried: &mut Tried) -> anyhow::Result<()> {
        let program = format!("{}-{}-restore", version.program(), self.variant);
        let refused = |rules: String| -> anyhow::Result<Option<String>> {
            let input = format!("*filter\n{rules}COMMIT\n");
            let output = programs::output("iptables", &program, &["--noflush"], &input, TIME)?;
            Ok((!output.status.success()).then_some(output.stderr))
        };
        let rule = |feature: &&Feature| format!("-A INPUT {}\n", feature.rules[at(version)]);
        if refused(features.iter().map(rule).collect())?.is_none() {
            return Ok(());
        }
        if let Some(said) = refused(String::new())? {
            let said = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
            tried.closed.push((version, said.to_owned()));
            return Ok(());
        }
        for feature in features {
            if let Some(said) = refused(rule(feature))? {
                tried.missing.push(Missing {
                    feature: feature.name.to_owned(),
                    version,
                    of_iptables: said.contains("Couldn't load "),
                });
            }
        }
        Ok(())
    }
}

/// What is missing, and what depends on it; an error is that it could not be tried.
#[must_use]
pub fn judge(trial: &Trial, tried: anyhow::Result<Tried>) -> Vec<Finding> {
    let tried = match tried {
        Ok(tried) => tried,
        Err(error) => {
            let what = format!("Which matches it has is not known: {error:#}.");
            let remedy = "ringfence-firewall verify --probe (in a container, it needs CAP_SYS_ADMIN)";
            return vec![Finding::unknown(Kernel, CHECK, what, remedy)];
        }
    };
    let mut findings = vec![];
    if let Some(why) = &tried.sets {
        let what = format!(
            "The kernel cannot make the sets of Ringfence: {why}. Lists, allowed phones and bans of ringfence-ban cannot come into it."
        );
        findings.push(Finding::needs(Kernel, "set-types", what, modprobe(SET_MODULES)));
    }
    for (version, why) in &tried.closed {
        let what = format!(
            "No rules can be made over {}: {why}. Nothing of Ringfence's is in force there.",
            family(*version)
        );
        let module = match (trial.variant, version) {
            (Variant::Nft, _) => "nf_tables nft_compat",
            (Variant::Legacy, Version::V4) => "iptable_filter",
            (Variant::Legacy, Version::V6) => "ip6table_filter",
        };
        findings.push(Finding::needs(Kernel, "rules", what, modprobe(module)).about(family(*version)));
    }
    findings.extend(FEATURES.iter().filter_map(|feature| feature.finding(&tried.missing)));
    if findings.is_empty() {
        let over: Vec<_> = trial.versions.iter().map(|version| family(*version)).collect();
        let has = trial.features.iter().filter(|name| !tried.untried.contains(name)).cloned();
        let what = format!(
            "it has what rules by these settings need, over {}: {}",
            over.join(" and "),
            has.collect::<Vec<_>>().join(", ")
        );
        findings.push(Finding::fine(Kernel, CHECK, what));
    }
    findings
}

impl Feature {
    fn finding(&self, missing: &[Missing]) -> Option<Finding> {
        let missing: Vec<_> = missing.iter().filter(|missing| missing.feature == self.name).collect();
        if missing.is_empty() {
            return None;
        }
        let over: Vec<_> = missing.iter().map(|missing| family(missing.version)).collect();
        let of_iptables = missing.iter().all(|missing| missing.of_iptables);
        let who = if of_iptables { "iptables" } else { "The kernel" };
        let what = format!(
            "{who} takes no rules with `{}`, over {}. What needs it: {}.",
            self.name,
            over.join(" and "),
            self.needs
        );
        let remedy = if of_iptables {
            "apt-get install --reinstall iptables".to_owned()
        } else {
            let modules: BTreeSet<_> =
                missing.iter().map(|missing| self.modules[at(missing.version)]).collect();
            modprobe(&modules.into_iter().collect::<Vec<_>>().join(" "))
        };
        Some(Finding::needs(Kernel, CHECK, what, remedy).about(self.name))
    }
}

const fn family(version: Version) -> &'static str {
    match version {
        Version::V4 => "IPv4",
        Version::V6 => "IPv6",
    }
}

fn modprobe(modules: &str) -> String {
    format!(
        "modprobe -a {modules}; where it is not found: apt-get install linux-modules-extra-$(uname -r) (in a container: on its host)"
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bans::{self, Reach};
    use crate::checkup::Verdict;
    use crate::config::ListName;
    use crate::firewall::order;
    use crate::matcher::strings;

    const ALL_ON: &str = "\
        [lists.office]\nkind = \"allow\"\nentries = [\"203.0.113.0/24\", \"2001:db8::/32\"]\n\
        [firewall]\nlog-prefix = \"x \"\nagents = [\"sipvicious\"]\nlimits = [{ ports = [\"22\"], rate = \"6/minute\" }]\n\
        restrict = [{ ports = [\"5080\"], to = [\"office\"] }]\n[block]\nmatcher = \"strings\"\nlog-prefix = \"x \"\ntcp = \"reset\"\n";

    /// Matches and targets of a rule, without chains.
    fn parts(rule: &str) -> Vec<String> {
        let words: Vec<_> = rule.split(' ').collect();
        let pairs = words.windows(2);
        let parts = pairs.filter(|pair| matches!(pair[0], "-m" | "-j")).map(|pair| pair[1].to_owned());
        let chains = ["RINGFENCE", "RF-"];
        let built_in = ["ACCEPT", "DROP", "RETURN"];
        parts
            .filter(|part| !built_in.contains(&part.as_str()) && !chains.iter().any(|c| part.starts_with(c)))
            .collect()
    }

    #[test]
    fn all_that_our_rules_have_is_tried() {
        let config = Config::parse("r.toml".as_ref(), ALL_ON.as_bytes()).unwrap();
        let office = ListName::try_from("office".to_owned()).unwrap();
        let order = order::Settings::new(&config, true, &[(office, [1, 1])].into()).unwrap();
        let offenders = ["101@a.example.com".parse().unwrap()];
        let jail = bans::Jail::new("sip", Reach::parse("5060", "udp", Path::new("/nowhere")).unwrap(), 0);
        let mut there = BTreeSet::from(["time".to_owned()]);
        for version in [Version::V4, Version::V6] {
            for layout in [
                order.layout(version),
                strings::layout(&offenders, version, &strings::Settings::new(&config)),
                bans::layout(&[&jail], version),
            ] {
                let chains = layout.chains.iter().flat_map(|chain| &chain.rules);
                let rules = chains.chain(layout.hooks.iter().map(|hook| &hook.rule));
                there.extend(rules.flat_map(|rule| parts(&rule.to_string())));
            }
        }
        let tried: BTreeSet<_> = FEATURES.iter().map(|feature| feature.name.to_owned()).collect();
        assert_eq!(there, tried);
        assert!(FEATURES.iter().all(|feature| (feature.is_needed)(&config)));
        for feature in &FEATURES {
            assert!(feature.rules.iter().all(|rule| parts(rule).iter().any(|part| part == feature.name)));
        }
    }

    fn trial(variant: Variant) -> Trial {
        Trial {
            variant,
            versions: vec![Version::V4, Version::V6],
            features: FEATURES.iter().map(|feature| feature.name.to_owned()).collect(),
        }
    }

    #[test]
    fn this_kernel_has_all_of_it() {
        for variant in [Variant::Nft, Variant::Legacy] {
            crate::netlink::apart(move || assert_eq!(trial(variant).run().unwrap(), Tried::default()));
        }
        let found = judge(&trial(Variant::Nft), Ok(Tried::default()));
        assert!(found[0].verdict == Verdict::Fine && found[0].what.contains("IPv4 and IPv6: comment, "));
        assert!(found[0].what.contains(", set, "), "{found:?}");
        let tried = Tried { untried: vec!["set".to_owned(), "SET".to_owned()], ..Tried::default() };
        let found = judge(&trial(Variant::Nft), Ok(tried));
        assert!(found[0].verdict == Verdict::Fine && !found[0].what.contains(", set, "), "{found:?}");
    }

    #[test]
    fn what_is_missing_is_named_with_what_needs_it_and_what_helps() {
        let missing = |feature: &str, version, of_iptables| Missing {
            feature: feature.to_owned(),
            version,
            of_iptables,
        };
        let tried = Tried {
            sets: Some("hash:net: not supported".to_owned()),
            untried: vec![],
            closed: vec![(Version::V6, "no table".to_owned())],
            missing: vec![
                missing("u32", Version::V4, false),
                missing("REJECT", Version::V4, false),
                missing("REJECT", Version::V6, false),
                missing("time", Version::V4, true),
            ],
        };
        let found = judge(&trial(Variant::Legacy), Ok(tried));
        let shown: Vec<_> = found
            .iter()
            .map(|finding| {
                (finding.about.as_str(), finding.what.as_str(), finding.remedy.split(';').next().unwrap())
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "",
                    "The kernel cannot make the sets of Ringfence: hash:net: not supported. Lists, allowed phones and bans of \
                     ringfence-ban cannot come into it.",
                    "modprobe -a ip_set_hash_ip ip_set_hash_net ip_set_bitmap_port ip_set_list_set"
                ),
                (
                    "IPv6",
                    "No rules can be made over IPv6: no table. Nothing of Ringfence's is in force there.",
                    "modprobe -a ip6table_filter"
                ),
                (
                    "u32",
                    "The kernel takes no rules with `u32`, over IPv4. What needs it: iax-limit, the limit of IAX2.",
                    "modprobe -a xt_u32"
                ),
                (
                    "REJECT",
                    "The kernel takes no rules with `REJECT`, over IPv4 and IPv6. What needs it: tcp = \"reset\" of [block].",
                    "modprobe -a ip6t_REJECT ipt_REJECT"
                ),
                (
                    "time",
                    "iptables takes no rules with `time`, over IPv4. What needs it: ringfence pause, which the kernel ends by it.",
                    "apt-get install --reinstall iptables"
                ),
            ]
        );
    }
}
