//! All lists together, guarded: what goes into the kernel, and whom fail2ban must leave alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::copy::Copy;
use super::guard::{self, Hit, Protected, Why};
use crate::address_set::AddressSet;
use crate::config::Mode;
use crate::config::lists::{Kind, List, ListName, Source};

/// The result of a fetch, as the load finds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compiled {
    /// Who is exempt from block lists and limits.
    pub allow: AddressSet,
    /// Who is exempt from block lists, and not from limits.
    pub unblocked: AddressSet,
    /// Who is blocked, without all that is protected.
    pub block: AddressSet,
    /// Whom fail2ban must leave alone, for each list that says so.
    pub fail2ban: Vec<(ListName, AddressSet)>,
}

/// What became of each block list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All together.
    pub compiled: Compiled,
    /// What was cut out of each block list.
    pub hits: BTreeMap<ListName, Vec<Hit>>,
}

/// Puts the copies together. `carriers` are the names behind the list of that name; `protected` is who is protected beside
/// those on allow lists.
///
/// An error names allow lists without any copy: without them nothing may be blocked.
pub fn compile(
    lists: &BTreeMap<ListName, List>,
    copies: &BTreeMap<ListName, Arc<Copy>>,
    carriers: &[Protected],
    protected: &[Protected],
) -> Result<Outcome, Vec<ListName>> {
    let of = |kind| lists.iter().filter(move |(_, list)| list.kind == kind);
    let missing: Vec<ListName> =
        of(Kind::Allow).map(|(name, _)| name).filter(|name| !copies.contains_key(*name)).cloned().collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut outcome = Outcome::default();
    let mut protected = [carriers, protected, &guard::special()].concat();
    for (name, list) in of(Kind::Allow) {
        let set = copies[name].set();
        let compiled = &mut outcome.compiled;
        if list.exempts.limits {
            compiled.allow = compiled.allow.union(&set);
        } else if list.exempts.blocklists {
            compiled.unblocked = compiled.unblocked.union(&set);
        }
        if list.exempts.fail2ban {
            compiled.fail2ban.push((name.clone(), set.clone()));
        }
        if list.exempts.blocklists && !matches!(list.source, Source::Carriers) {
            protected.push(Protected { why: Why::Allowed, name: name.to_string(), addresses: set });
        }
    }
    for (name, list) in of(Kind::Block) {
        let Some(copy) = copies.get(name) else { continue };
        let (rest, hits) = guard::cut(&copy.set(), &protected);
        outcome.hits.insert(name.clone(), hits);
        if list.mode != Some(Mode::Observe) {
            outcome.compiled.block = outcome.compiled.block.union(&rest);
        }
    }
    Ok(outcome)
}
