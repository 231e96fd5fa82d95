//! What our rules are for, in words.

use std::collections::HashMap;

use jiff::Timestamp;

use super::wanted::Wanted;
use crate::bans;
use crate::config::Config;
use crate::firewall::{Firewall, Layout, Tag, Version};

/// The words of those that are as the settings would have them; others have none.
pub(in crate::commands) fn words(config: &Config, there: &Firewall, now: Timestamp) -> HashMap<Tag, String> {
    let wanted = Wanted::new(config, there, now).ok();
    let jails = bans::read(&config.run_dir).unwrap_or_default();
    let jails: Vec<_> = jails.iter().collect();
    let layouts = [Version::V4, Version::V6].into_iter().flat_map(|version| {
        let order = wanted.as_ref().map(|wanted| wanted.layout(version));
        order.into_iter().chain([bans::layout(&jails, version)])
    });
    layouts.flat_map(|layout| said(&layout)).collect()
}

fn said(layout: &Layout) -> Vec<(Tag, String)> {
    let hooks = layout.hooks.iter().map(|hook| &hook.rule);
    let rules = layout.chains.iter().flat_map(|chain| &chain.rules).chain(hooks);
    let said = rules.filter(|rule| !rule.words().is_empty());
    said.map(|rule| (rule.tag(), rule.words().to_owned())).collect()
}
