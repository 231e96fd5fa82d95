//! From what is there to what should be, in one transaction.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write;

use super::layout::INPUT;
use super::saved::{Saved, SavedRule};
use super::{Chain, Counters, Hook, Layout, Rule, Tag};
use crate::pause::Pause;

/// What iptables-restore is to be told, with `--noflush --counters`; `None` if all is as it should be.
///
/// Only what differs is named. Rules that stay keep their counters.
pub(super) fn text(saved: &Saved, layout: &Layout) -> Option<String> {
    let mut declared = String::new();
    let mut body = String::new();
    let counters: HashMap<Tag, Counters> = saved.ours().collect();

    body += &hooks(saved, layout);
    for chain in &layout.chains {
        fill(saved, layout, chain, &counters, &mut declared, &mut body);
    }
    body += &leftovers(saved, layout);
    transaction(&declared, &body)
}

/// The same, that the first chains of these owners begin and end a pause together; nothing else is touched.
pub(super) fn pause_text(saved: &Saved, owners: &[&str], pause: Pause) -> Option<String> {
    let (mut declared, mut body) = (String::new(), String::new());
    let counters: HashMap<Tag, Counters> = saved.ours().collect();
    for owner in owners {
        // A chain that somebody wrote by hand under our name is his.
        if saved.rules(owner).iter().any(|rule| rule.tag.is_some()) {
            let layout = Layout::of(saved, owner).paused(pause);
            let first = layout.chains.iter().filter(|chain| chain.name == *owner);
            first.for_each(|chain| fill(saved, &layout, chain, &counters, &mut declared, &mut body));
        }
    }
    transaction(&declared, &body)
}

fn transaction(declared: &str, body: &str) -> Option<String> {
    (!declared.is_empty() || !body.is_empty()).then(|| format!("*filter\n{declared}{body}COMMIT\n"))
}

/// Makes a chain hold its rules.
fn fill(
    saved: &Saved,
    layout: &Layout,
    Chain { name, rules }: &Chain,
    counters: &HashMap<Tag, Counters>,
    declared: &mut String,
    body: &mut String,
) {
    let there = saved.chains.get(name).map(Vec::as_slice);
    // Jumps of other tools of ours come first, and stay.
    let guests = there.unwrap_or_default().iter().take_while(|rule| layout.is_guest(rule)).count();
    let (guests, there) = (&there.unwrap_or_default()[..guests], there.map(|there| &there[guests..]));
    if let Some(Edits { surplus, missing }) = there.and_then(|there| edits(there, rules)) {
        // From the end: the places of the others stay what they are.
        for at in surplus.into_iter().rev() {
            let _ = writeln!(body, "-D {name} {}", guests.len() + at + 1);
        }
        for at in missing {
            let _ = writeln!(body, "-I {name} {} {}", guests.len() + at + 1, rules[at]);
        }
        return;
    }
    // This empties a chain that is there.
    let _ = writeln!(declared, ":{name} - [0:0]");
    for SavedRule { spec, counters: Counters { packets, bytes }, .. } in guests {
        let _ = writeln!(body, "[{packets}:{bytes}] -A {name} {spec}");
    }
    for rule in rules {
        let Counters { packets, bytes } = counters.get(&rule.tag()).copied().unwrap_or_default();
        let _ = writeln!(body, "[{packets}:{bytes}] -A {name} {rule}");
    }
}

/// How a chain becomes what it should be, one rule after another.
struct Edits {
    /// The places of rules that must go.
    surplus: Vec<usize>,
    /// The places, then, of rules that must come.
    missing: Vec<usize>,
}

/// `None` if that does not do, or they are so many that the chain is better filled anew.
///
/// Worth the trouble because nft makes who deletes a rule wait for 15 ms, until no packet can be in it any more; and because
/// `ip6tables-nft` of iptables 1.8.9 takes no counters, so that only a rule that stays keeps its own.
fn edits(there: &[SavedRule], wanted: &[Rule]) -> Option<Edits> {
    const FEW: usize = 32;
    let tags: BTreeSet<Tag> = wanted.iter().map(Rule::tag).collect();
    let (kept, surplus): (Vec<_>, Vec<_>) =
        there.iter().enumerate().partition(|(_, rule)| tags.contains(&rule.id()));
    let mut kept = kept.into_iter().map(|(_, rule)| rule.id()).peekable();
    let missing: Vec<usize> = wanted
        .iter()
        .enumerate()
        .filter(|(_, rule)| kept.next_if_eq(&rule.tag()).is_none())
        .map(|(at, _)| at)
        .collect();
    let surplus: Vec<usize> = surplus.into_iter().map(|(at, _)| at).collect();
    (kept.next().is_none() && missing.len() + surplus.len() <= FEW).then_some(Edits { surplus, missing })
}

/// Puts the jumps to this layout where they belong, once each: in INPUT behind the leading rules of fail2ban and `event_guard`, and
/// above all others, that to fail2ban's bans first; in a chain of another tool of ours at its head. What somebody else put above them later is left there only if
/// it is such a rule too.
fn hooks(saved: &Saved, layout: &Layout) -> String {
    let ours = |rule: &SavedRule| rule.target().is_some_and(|target| layout.owns(&target));
    let place = |hook: &Hook| hook.chains.iter().find(|chain| saved.chains.contains_key(*chain)).cloned();
    let mut wanted: BTreeMap<String, Vec<&Rule>> = BTreeMap::new();
    for hook in &layout.hooks {
        // A table that is not there yet has an INPUT all the same.
        wanted.entry(place(hook).unwrap_or_else(|| INPUT.to_owned())).or_default().push(&hook.rule);
    }
    let chains = saved.chains.keys().map(String::as_str).chain([INPUT]).filter(|chain| !layout.owns(chain));
    let chains: BTreeSet<&str> = chains.collect();
    let mut text = String::new();
    for chain in chains {
        let (rules, wanted) = (saved.rules(chain), wanted.get(chain).map_or(&[][..], Vec::as_slice));
        let there: Vec<_> = rules.iter().filter(|rule| ours(rule)).collect();
        // A jump by somebody else, out of a chain of his own, is his business.
        if wanted.is_empty() && chain != INPUT && there.iter().all(|rule| rule.tag.is_none()) {
            continue;
        }
        let leads = |rule: &&SavedRule| {
            ours(rule) || chain == INPUT && (rule.is_ban() || rule.tag.is_some() && !layout.precedes(rule))
        };
        let leading = rules.iter().take_while(leads);
        let right = there.iter().map(|rule| rule.id()).eq(wanted.iter().map(|rule| rule.tag()))
            && leading.clone().filter(|rule| ours(rule)).count() == there.len();
        if right {
            continue;
        }
        for rule in there {
            let _ = writeln!(text, "-D {chain} {}", rule.spec);
        }
        let first = leading.filter(|rule| !ours(rule)).count() + 1;
        for (at, rule) in wanted.iter().enumerate() {
            let _ = writeln!(text, "-I {chain} {} {rule}", first + at);
        }
    }
    text
}

/// Takes away chains of ours that are no longer wanted. One that somebody else's rule jumps to is only emptied: it could not be
/// taken away, and with it nothing else would be done.
fn leftovers(saved: &Saved, layout: &Layout) -> String {
    let wanted: BTreeSet<&str> = layout.chains.iter().map(|chain| chain.name.as_str()).collect();
    let ours = |name: &str| layout.owns(name);
    let left: Vec<&str> =
        saved.chains.keys().map(String::as_str).filter(|name| ours(name) && !wanted.contains(name)).collect();
    if left.is_empty() {
        return String::new();
    }
    let jumped_to: BTreeSet<String> = saved
        .chains
        .iter()
        .filter(|(name, _)| !ours(name) && *name != INPUT)
        // Our own jumps have been taken away.
        .flat_map(|(_, rules)| rules.iter().filter(|rule| rule.tag.is_none()).filter_map(SavedRule::target))
        .collect();
    let mut text = String::new();
    for name in &left {
        if !jumped_to.contains(*name) || !saved.rules(name).is_empty() {
            let _ = writeln!(text, "-F {name}");
        }
    }
    for name in left.iter().filter(|name| !jumped_to.contains(**name)) {
        let _ = writeln!(text, "-X {name}");
    }
    text
}
