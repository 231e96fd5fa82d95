//! What the kernel can do of what we need: sets, the matches of our rules, and programs.

use std::time::Duration;

use super::Finding;
use super::Subject::Kernel;
use crate::config::Config;
use crate::firewall::{self, Variant};
use crate::kernel_sets::{Ipset, SETS};
use crate::matcher::{Wanted, bpf};
use crate::state_file;

/// No trial takes longer.
const TIME: Duration = Duration::from_secs(10);

/// A rule with each match that rules of ours have, and the kernel's module for it.
const MATCHES: [(&str, &str, &str); 6] = [
    ("comment", "xt_comment", "-m comment --comment x"),
    ("multiport", "xt_multiport", "-p udp -m multiport --dports 5060"),
    ("string", "xt_string", "-p udp -m string --algo bm --string x"),
    (
        "hashlimit",
        "xt_hashlimit",
        "-m hashlimit --hashlimit-name rf-doctor --hashlimit-mode srcip --hashlimit-above 1/second",
    ),
    ("conntrack", "xt_conntrack", "-m conntrack --ctstate ESTABLISHED"),
    ("time", "xt_time", "-m time --datestop 2026-01-01T00:00:00"),
];

/// The kernel's sets.
#[must_use]
pub fn sets() -> Finding {
    match Ipset::open().and_then(|mut kernel| kernel.names()) {
        Ok(_) => Finding::fine(Kernel, "ipset", "it has sets (ip_set)"),
        Err(error) if state_file::effective_user() != 0 => Finding::unknown(
            Kernel,
            "ipset",
            format!("Whether the kernel has sets is not known: {error}."),
            "Run ringfence doctor as root.",
        ),
        Err(error) => Finding::needs(
            Kernel,
            "ipset",
            format!(
                "The kernel has no sets: {error}. Lists, allowed phones and bans of ringfence-ban cannot come into the kernel."
            ),
            "modprobe ip_set (in a container: on its host)",
        ),
    }
}

/// Whether the sets of lists are there, where the settings have some: what names them, as saved rules do, needs them.
#[must_use]
pub fn list_sets(config: &Config) -> Option<Finding> {
    const CHECK: &str = "sets";
    if config.lists.is_empty() {
        return None;
    }
    // Where it has no sets at all, that is said.
    let there = Ipset::open().and_then(|mut kernel| kernel.names()).ok()?;
    let wanted = SETS.into_iter().map(|set| set.name);
    let missing: Vec<_> = wanted.filter(|name| !there.iter().any(|set| set == name)).collect();
    if missing.is_empty() {
        return Some(Finding::fine(Kernel, CHECK, "the sets of lists are there"));
    }
    let what = format!("There are lists, and their sets are not in the kernel: {}.", missing.join(", "));
    Some(Finding::needs(
        Kernel,
        CHECK,
        what,
        "ringfence-lists load (or refresh, if nothing was downloaded yet)",
    ))
}

/// The matches of our rules, tried in a network namespace that is gone a moment later. Nothing of this host's rules is touched.
#[must_use]
pub fn matches(variant: Variant) -> Finding {
    const CHECK: &str = "matches";
    let program = format!("iptables-{variant}-restore");
    let tried = || -> anyhow::Result<Vec<(&str, &str)>> {
        let path = firewall::installed("iptables", &program)?;
        let path = path.to_string_lossy();
        let mut missing = vec![];
        let works = |rules: &str| -> anyhow::Result<bool> {
            let input = format!("*filter\n{rules}COMMIT\n");
            let args = ["--net", "--", &path, "--noflush"];
            Ok(firewall::output("util-linux", "unshare", &args, &input, TIME)?.status.success())
        };
        let rule = |spec: &str| format!("-A INPUT {spec} -j RETURN\n");
        // All at once, and one by one only where that fails.
        let all: String = MATCHES.iter().map(|(.., spec)| rule(spec)).collect();
        if works(&all)? {
            return Ok(missing);
        }
        anyhow::ensure!(works("")?, "no rules can be loaded in a network namespace of its own");
        for (name, module, spec) in MATCHES {
            if !works(&rule(spec))? {
                missing.push((name, module));
            }
        }
        Ok(missing)
    };
    match tried() {
        Ok(missing) if missing.is_empty() => {
            let names: Vec<_> = MATCHES.iter().map(|(name, ..)| *name).collect();
            Finding::fine(Kernel, CHECK, format!("it has the matches of our rules: {}", names.join(", ")))
        }
        Ok(missing) => {
            let (names, modules): (Vec<_>, Vec<_>) = missing.into_iter().unzip();
            Finding::needs(
                Kernel,
                CHECK,
                format!(
                    "The kernel takes no rules with {}: what needs them cannot be brought in.",
                    names.join(", ")
                ),
                format!("modprobe -a {} (in a container: on its host)", modules.join(" ")),
            )
        }
        Err(error) => Finding::unknown(
            Kernel,
            CHECK,
            format!("Which matches it has is not known: {error:#}."),
            "Run ringfence doctor as root; ringfence-firewall verify --probe tries whole rules.",
        ),
    }
}

/// The program that tells accounts, where the settings ask for it.
#[must_use]
pub fn program(config: &Config) -> Finding {
    const CHECK: &str = "bpf";
    match Wanted::new(config) {
        Wanted::Strings(_) => {
            Finding::fine(Kernel, CHECK, "accounts are blocked by patterns, as the settings say")
        }
        Wanted::Bpf { or_strings } => match bpf::impossible(&config.run_dir) {
            None => Finding::fine(Kernel, CHECK, "it takes the program that blocks accounts (bpf)"),
            Some(why) if or_strings => Finding::fine(
                Kernel,
                CHECK,
                format!("accounts are blocked by patterns, as it takes no program: {why}"),
            ),
            Some(why) => Finding::needs(
                Kernel,
                CHECK,
                format!("matcher = \"bpf\", and no account is blocked: {why}."),
                "In /etc/ringfence/ringfence.toml, [block]: matcher = \"auto\"",
            ),
        },
    }
}
