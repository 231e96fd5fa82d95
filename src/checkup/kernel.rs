//! What the kernel can do of what we need: sets, and programs.

use super::Finding;
use super::Subject::Kernel;
use crate::config::Config;
use crate::kernel_sets::{Ipset, SETS};
use crate::matcher::{Wanted, bpf};
use crate::state_file;

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
