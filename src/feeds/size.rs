//! Whether a list is of a size that can be believed.

use crate::address_set::AddressSet;
use crate::config::lists::{Kind, List, Source};

/// Smaller lists may change as they like: one phone more or less is a large share of them.
const SHRINKS_FREELY: u128 = 20;
const GROWS_FREELY: u128 = 1_000;

/// Addresses that a list may come to cover, however few it had: an IPv4 /12, an IPv6 /19.
const COVERS_FREELY_V4: u128 = 1 << (32 - 12);
const COVERS_FREELY_V6: u128 = 1 << (128 - 19);

/// No block list means more of the Internet: the largest country has a third of IPv4.
const MOST_V4: u128 = 1 << 31;
const MOST_V6: u128 = 1 << 120;

/// Whether the list is of about the size it had, and covers no more than a list can mean.
pub fn has_kept_its_size(list: &List, before: Option<&AddressSet>, after: &AddressSet) -> anyhow::Result<()> {
    // What the settings themselves say is meant so; APIBAN's pages only add single addresses, and it is us who let them go.
    if matches!(list.source, Source::Entries(_) | Source::Apiban { .. }) {
        return Ok(());
    }
    if list.kind == Kind::Block && (after.v4.addresses() > MOST_V4 || after.v6.addresses() > MOST_V6) {
        anyhow::bail!("it covers more than half of IPv4, or an IPv6 /8; --force takes it");
    }
    let Some(before) = before else { return Ok(()) };
    let entries = |set: &AddressSet| set.count_networks().iter().sum::<usize>() as u128;
    let (old, new) = (entries(before), entries(after));
    // Of an allow list of others, each entry may be a carrier.
    let freely = if list.kind == Kind::Allow && list.is_foreign() { 0 } else { SHRINKS_FREELY };
    let (max_shrink, max_growth) = (list.max_shrink, list.max_growth);
    let fewer = old.saturating_sub(new);
    if old > 0 && new == 0 || old >= freely && fewer > max_shrink.of(old) {
        anyhow::bail!(
            "it shrank from {old} to {new} networks, more than max-shrink ({max_shrink}) allows; --force takes it"
        );
    }
    // One's own file may grow as it likes.
    let foreign = list.is_foreign();
    let grew =
        |old: u128, new: u128, freely| foreign && new > freely && new > old && new - old > max_growth.of(old);
    let measures = [
        ("networks", old, new, GROWS_FREELY),
        ("IPv4 addresses", before.v4.addresses(), after.v4.addresses(), COVERS_FREELY_V4),
        ("IPv6 addresses", before.v6.addresses(), after.v6.addresses(), COVERS_FREELY_V6),
    ];
    match measures.into_iter().find(|(_, old, new, freely)| grew(*old, *new, *freely)) {
        Some((what, old, new, _)) => anyhow::bail!(
            "it grew from {old} to {new} {what}, more than max-growth ({max_growth}) allows; --force takes it"
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address_set::AddressRange;
    use crate::config::Config;

    fn verdict(keys: &str, before: Option<&str>, after: &str) -> Result<(), String> {
        let text = format!("[lists.x]\n{keys}\n");
        let config = Config::parse("r.toml".as_ref(), text.as_bytes()).unwrap();
        let set = |text: &str| -> AddressSet {
            text.split_whitespace().map(|range| range.parse::<AddressRange>().unwrap()).collect()
        };
        has_kept_its_size(&config.lists["x"], before.map(set).as_ref(), &set(after))
            .map_err(|error| error.to_string())
    }

    const BLOCK: &str = "kind = \"block\"\nurl = \"https://lists.example/\"";
    const ALLOW: &str = "kind = \"allow\"\nurl = \"https://lists.example/\"";
    const OWN: &str = "kind = \"allow\"\nfile = \"/own\"";
    const ENTRIES: &str = "kind = \"allow\"\nentries = []";

    #[test]
    fn no_list_becomes_empty_but_by_its_administrator() {
        for keys in [BLOCK, ALLOW, OWN] {
            assert!(verdict(keys, Some("203.0.113.5"), "").is_err(), "{keys}");
            assert_eq!(verdict(keys, None, ""), Ok(()), "{keys}");
        }
        assert_eq!(verdict(ENTRIES, Some("203.0.113.5"), ""), Ok(()));
    }

    #[test]
    fn small_lists_of_ones_own_shrink_freely_and_allow_lists_of_others_do_not() {
        let before = Some("203.0.113.1 203.0.113.3 203.0.113.5");
        assert_eq!(verdict(BLOCK, before, "203.0.113.1"), Ok(()));
        assert_eq!(verdict(OWN, before, "203.0.113.1"), Ok(()));
        assert_eq!(
            verdict(ALLOW, before, "203.0.113.1").unwrap_err(),
            "it shrank from 3 to 1 networks, more than max-shrink (50%) allows; --force takes it"
        );
    }

    #[test]
    fn no_list_blocks_the_internet() {
        let eighths = (0..=255).map(|first| format!("{first}.0.0.0/8")).collect::<Vec<_>>().join(" ");
        assert!(verdict(BLOCK, None, &eighths).is_err());
        assert!(verdict(BLOCK, None, "2000::/7").is_err());
        assert!(verdict(BLOCK, Some("203.0.113.5"), "203.0.113.5 2000::/16").is_err(), "IPv6 grew");
        assert_eq!(verdict(ALLOW, None, &eighths), Ok(()));
        assert_eq!(verdict(BLOCK, None, "9.0.0.0/8 2001:db8::/32"), Ok(()));
    }
}
