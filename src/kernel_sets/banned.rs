//! The sets of whom fail2ban's jails ban: two for each jail, in which every entry ends by itself.

use anyhow::Context;
use ipnetwork::IpNetwork;

use super::ipset::{Family, Ipset, Make, Type};
use super::timed::{self, Pair};
use super::{live, make};

/// What their names begin with.
const PREFIX: &str = "rf-ban-";

/// Those beside, which are filled and then swapped in.
const BESIDE: Pair<'static> = Pair { v4: "rf-ban.new4", v6: "rf-ban.new6" };

/// Room in each: a botnet is to fit.
const ROOM: u32 = 1_000_000;

/// The two sets of a jail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Banned {
    v4: String,
    v6: String,
}

impl Banned {
    /// Those of the jail with this name. Names of sets have at most 31 characters, those of jails more: what is too long, or is more than
    /// letters, digits and `-_.`, is cut, and made unique by a hash.
    #[must_use]
    pub fn of(jail: &str) -> Self {
        const LONGEST: usize = 22;
        const CUT: usize = LONGEST - 9;
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let name = if jail.len() <= LONGEST && jail.chars().all(plain) {
            jail.to_owned()
        } else {
            let start: String = jail.chars().filter(|c| plain(*c)).take(CUT).collect();
            format!("{start}~{:08x}", fnv(jail.as_bytes()))
        };
        Self { v4: format!("{PREFIX}{name}-4"), v6: format!("{PREFIX}{name}-6") }
    }

    /// Those of which a set has this name; `None` if no jail's has.
    #[must_use]
    pub fn with_set(name: &str) -> Option<Self> {
        const LONGEST: usize = 31;
        let jail = name.strip_prefix(PREFIX)?;
        let jail = jail.strip_suffix("-4").or_else(|| jail.strip_suffix("-6"))?;
        let sets = Self { v4: format!("{PREFIX}{jail}-4"), v6: format!("{PREFIX}{jail}-6") };
        (!jail.is_empty() && name.len() <= LONGEST).then_some(sets)
    }

    /// The name of that of a family.
    #[must_use]
    pub fn name(&self, family: Family) -> &str {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    fn pair(&self) -> Pair<'_> {
        Pair { v4: &self.v4, v6: &self.v6 }
    }

    /// Makes those that are missing; whether one was.
    pub fn make(&self, kernel: &mut Ipset) -> anyhow::Result<bool> {
        let mut made = false;
        for (name, family) in self.pair().each() {
            made |= make(kernel, name, empty(family, 0))?;
        }
        Ok(made)
    }

    /// Replaces what is in them: each network for so many seconds, with none for ever. Only who has the turn to change rules may.
    pub fn replace(&self, kernel: &mut Ipset, entries: &[(IpNetwork, u32)]) -> anyhow::Result<()> {
        self.make(kernel)?;
        let room = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        for (name, family) in BESIDE.each() {
            kernel.destroy(name).with_context(|| format!("cannot remove the set {name}"))?;
            make(kernel, name, empty(family, room))?;
        }
        timed::put(kernel, BESIDE, entries.iter().copied())?;
        for ((beside, _), (name, _)) in BESIDE.each().into_iter().zip(self.pair().each()) {
            kernel.swap(beside, name).with_context(|| format!("cannot swap the set {name}"))?;
            kernel.destroy(beside).with_context(|| format!("cannot remove the set {beside}"))?;
        }
        Ok(())
    }

    /// Puts networks in, each for so many seconds, with none for ever; for those that are there they begin anew.
    pub fn put(
        &self,
        kernel: &mut Ipset,
        entries: impl IntoIterator<Item = (IpNetwork, u32)>,
    ) -> anyhow::Result<()> {
        timed::put(kernel, self.pair(), entries)
    }

    /// Takes networks out, where they are in.
    pub fn take_out(
        &self,
        kernel: &mut Ipset,
        networks: impl IntoIterator<Item = IpNetwork>,
    ) -> anyhow::Result<()> {
        timed::take_out(kernel, self.pair(), networks)
    }

    /// Takes everybody out.
    pub fn clear(&self, kernel: &mut Ipset) -> anyhow::Result<()> {
        for (name, _) in self.pair().each() {
            kernel.flush(name).with_context(|| format!("cannot empty the set {name}"))?;
        }
        Ok(())
    }

    /// Removes them, and what a crash left beside; no rule names them any more. Only who has the turn to change rules may.
    pub fn remove(&self, kernel: &mut Ipset) -> anyhow::Result<()> {
        for (name, _) in self.pair().each().into_iter().chain(BESIDE.each()) {
            kernel.destroy(name).with_context(|| format!("cannot remove the set {name}"))?;
        }
        Ok(())
    }

    /// How many are in them, of IPv4 and IPv6; `None` where one is missing.
    pub fn count(&self, kernel: &mut Ipset) -> anyhow::Result<Option<[u32; 2]>> {
        let mut counts = [0; 2];
        for (count, (name, family)) in counts.iter_mut().zip(self.pair().each()) {
            match live(kernel, name, Type::Networks, Some(family))? {
                Some(header) => *count = header.entries,
                None => return Ok(None),
            }
        }
        Ok(Some(counts))
    }
}

/// A day, where nobody says: fail2ban always does.
const fn empty(family: Family, entries: u32) -> Make {
    Make { timeout: Some(24 * 60 * 60), room: ROOM, ..Make::plain(Type::Networks, Some(family), entries) }
}

/// FNV-1a: the same in every build, so that an upgrade finds its sets again.
fn fnv(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_tell_jails_apart() {
        let names = [
            "ringfence-freeswitch",
            "sshd",
            "a-jail-of-more-than-22-characters",
            "a-jail-of-more-than-22-letters",
            "a b\"c",
        ]
        .map(|jail| Banned::of(jail).v4);
        assert_eq!(names[0], "rf-ban-ringfence-freeswitch-4");
        assert_eq!(names[1], "rf-ban-sshd-4");
        assert!(names[2].starts_with("rf-ban-a-jail-of-mor~"), "{}", names[2]);
        assert_ne!(names[2], names[3]);
        assert!(names[4].starts_with("rf-ban-abc~"), "{}", names[4]);
        assert!(names.iter().all(|name| name.len() <= 31));
        for name in &names {
            assert_eq!(Banned::with_set(name).unwrap().v4, *name);
        }
        assert_eq!(Banned::with_set("rf-ban-sshd-6"), Some(Banned::of("sshd")));
        assert_eq!(
            ["rf-ban-sshd", "rf-ban--4", "rf-block-ip4", "-4"].map(Banned::with_set),
            [None, None, None, None]
        );
        assert_eq!(fnv(b"foobar"), 0xbf9c_f968, "as its authors say");
    }
}
