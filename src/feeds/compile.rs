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

/// What became of the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All together.
    pub compiled: Compiled,
    /// What was cut out of each block list.
    pub hits: BTreeMap<ListName, Vec<Hit>>,
    /// Allow lists without any copy: without them nobody may be blocked who was not before, see
    /// [`Compiled::hold_back`].
    pub missing: Vec<ListName>,
}

impl Compiled {
    /// Blocks nobody whom `last` did not block.
    pub fn hold_back(&mut self, last: &Self) {
        self.block = self.block.intersection(&last.block);
    }
}

/// Puts the copies together. `carriers` are the names behind the list of that name; `protected` is who is protected beside
/// those on allow lists.
#[must_use]
pub fn compile(
    lists: &BTreeMap<ListName, List>,
    copies: &BTreeMap<ListName, Arc<Copy>>,
    carriers: &[Protected],
    protected: &[Protected],
) -> Outcome {
    let of = |kind| lists.iter().filter(move |(_, list)| list.kind == kind);
    let mut outcome = Outcome::default();
    let mut protected = [carriers, protected, &guard::special()].concat();
    for (name, list) in of(Kind::Allow) {
        let Some(copy) = copies.get(name) else {
            outcome.missing.push(name.clone());
            continue;
        };
        let set = copy.set();
        let compiled = &mut outcome.compiled;
        if list.exempts.limits {
            compiled.allow = compiled.allow.union(&set);
        } else if list.exempts.blocklists {
            compiled.unblocked = compiled.unblocked.union(&set);
        }
        if list.exempts.fail2ban {
            compiled.fail2ban.push((name.clone(), set.clone()));
        }
        if list.exempts.blocklists {
            // The carriers by their names come before: this is for those whose names are lost.
            let why = if matches!(list.source, Source::Carriers) { Why::Carrier } else { Why::Allowed };
            protected.push(Protected { why, name: name.to_string(), addresses: set });
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
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_set::AddressRange;
    use crate::config::Config;
    use crate::feeds::copy::Part;
    use crate::feeds::dated::Dated;

    fn set(text: &str) -> AddressSet {
        text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
    }

    fn copy(text: &str) -> Arc<Copy> {
        let content = Dated::default().becomes(&set(text), 1);
        Arc::new(Copy { parts: vec![Part { content, ..Part::default() }], ..Copy::default() })
    }

    fn put_together(settings: &str, copies: &[(&str, &str)]) -> Outcome {
        let config = Config::parse("r.toml".as_ref(), settings.as_bytes()).unwrap();
        let name = |name: &str| ListName::try_from(name.to_owned()).unwrap();
        let copies = copies.iter().map(|(list, text)| (name(list), copy(text))).collect();
        let phone = Protected { why: Why::Registered, name: String::new(), addresses: set("192.0.2.20") };
        compile(&config.lists, &copies, &[], &[phone])
    }

    const URL: &str = "url = \"https://lists.example/\"";

    #[test]
    fn allow_lists_exempt_from_what_they_say() {
        let settings = format!(
            "[lists.bad]\nkind = \"block\"\n{URL}\n\
             [lists.office]\nkind = \"allow\"\nentries = []\n\
             [lists.country]\nkind = \"allow\"\ncountry = \"au\"\n\
             [lists.quiet]\nkind = \"allow\"\nentries = []\nexempts = [\"fail2ban\"]\n"
        );
        let copies = [
            ("bad", "192.0.2.0/24"),
            ("office", "192.0.2.1"),
            ("country", "192.0.2.128/25"),
            ("quiet", "192.0.2.2"),
        ];
        let Outcome { compiled, hits, missing } = put_together(&settings, &copies);
        assert_eq!(missing, []);
        assert_eq!(compiled.allow, set("192.0.2.1"));
        assert_eq!(compiled.unblocked, set("192.0.2.128/25"));
        assert_eq!(compiled.block, set("192.0.2.0/25").minus(&set("192.0.2.1 192.0.2.20")));
        let fail2ban: Vec<_> =
            compiled.fail2ban.iter().map(|(name, set)| (name.as_str(), set.clone())).collect();
        assert_eq!(fail2ban, [("office", set("192.0.2.1")), ("quiet", set("192.0.2.2"))]);
        assert_eq!(
            guard::sentences(&hits["bad"]),
            [
                "would have blocked 1 registered phone: 192.0.2.20",
                "would have blocked 2 allowed ranges: country 192.0.2.128/25, office 192.0.2.1",
            ]
        );
    }

    #[test]
    fn nobody_is_blocked_without_the_whitelist() {
        let settings = format!(
            "[lists.bad]\nkind = \"block\"\n{URL}\n[lists.friends]\nkind = \"allow\"\n{URL}\n[lists.new]\nkind = \"block\"\n{URL}\n"
        );
        let mut outcome = put_together(&settings, &[("bad", "192.0.2.0/30")]);
        assert_eq!(outcome.missing.iter().map(ListName::as_str).collect::<Vec<_>>(), ["friends"]);
        outcome.compiled.hold_back(&Compiled { block: set("192.0.2.1 192.0.2.99"), ..Compiled::default() });
        assert_eq!(outcome.compiled.block, set("192.0.2.1"), "who was blocked before and still is on a list");
        let outcome = put_together(&settings, &[("bad", "192.0.2.1"), ("friends", "")]);
        assert_eq!((outcome.compiled.block, outcome.missing), (set("192.0.2.1"), vec![]));
    }

    #[test]
    fn an_observed_list_blocks_nobody_and_tells_all_the_same() {
        let settings = format!("[lists.bad]\nkind = \"block\"\nmode = \"observe\"\n{URL}\n");
        let outcome = put_together(&settings, &[("bad", "192.0.2.0/24")]);
        assert!(outcome.compiled.block.is_empty());
        assert_eq!(outcome.hits["bad"].len(), 1);
    }
}
