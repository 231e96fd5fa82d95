//! Whether fail2ban must leave an address alone: the allow lists first, then who is registered.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::allow;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::registrations::{Answer, Registry, Standing};

/// What is known of an address, and so whether it is exempt.
#[derive(Debug)]
pub enum Exemption {
    /// It is on an allow list that exempts from fail2ban.
    Allowed {
        /// The name of the list.
        list: String,
    },
    /// It is not known to be registered, and may be on the allow lists, which cannot be read.
    AllowListUnreadable(allow::Unreadable),
    /// No allow list that could be read has it: its registrations decide.
    Standing(Standing),
}

impl Exemption {
    /// `None` where nobody knows.
    #[must_use]
    pub fn holds(&self) -> Option<bool> {
        match self {
            Self::Allowed { .. }
            | Self::Standing(Standing::Registered { .. } | Standing::SeenLately { .. }) => Some(true),
            Self::Standing(Standing::NotRegistered) => Some(false),
            Self::Standing(Standing::Unknown) | Self::AllowListUnreadable(_) => None,
        }
    }
}

/// Finds it out at `now`, by `deadline` whatever happens; with what the registrations say, unless an allow list has the
/// address.
#[must_use]
pub fn find(
    config: &Config,
    address: IpAddr,
    now: Timestamp,
    deadline: Deadline,
) -> (Exemption, Option<Answer>) {
    let allowed = allow::find(&config.state_dir, address, now);
    if let Ok(Some(list)) = allowed {
        return (Exemption::Allowed { list }, None);
    }
    let answer = Registry::new(config).standing(address, now.as_millisecond(), deadline);
    let exemption = match (allowed, answer.standing) {
        // It may be on the list that we cannot read.
        (Err(error), Standing::NotRegistered | Standing::Unknown) => Exemption::AllowListUnreadable(error),
        (_, standing) => Exemption::Standing(standing),
    };
    (exemption, Some(answer))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::allow::Allowed;
    use crate::registrations::Found;

    const NOW: Timestamp = Timestamp::constant(1_795_183_743, 0);

    /// What is found with a source where nobody listens.
    fn ask(config: &Config, address: &str) -> (Exemption, Option<Answer>) {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        find(config, address.parse().unwrap(), NOW, deadline)
    }

    #[test]
    fn either_is_enough_and_both_must_be_read_to_deny() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "state-dir = {:?}\nrun-dir = {:?}\n[registrations]\nsource = \"event-socket\"\n\
             event-socket = {{ address = \"127.0.0.1:1\", password = \"x\" }}",
            dir.path().join("state"),
            dir.path().join("run"),
        );
        let config: Config = toml::from_str(&text).unwrap();
        std::fs::create_dir(&config.state_dir).unwrap();
        let (exemption, answer) = ask(&config, "203.0.113.20");
        assert!(matches!(exemption, Exemption::Standing(Standing::Unknown)), "{exemption:?}");
        assert!(exemption.holds().is_none() && answer.unwrap().failure.is_some());

        let network = "203.0.113.0/24".parse().unwrap();
        allow::write(&config.state_dir, &[Allowed { network, list: "office", until: None }], NOW).unwrap();
        let (exemption, answer) = ask(&config, "203.0.113.20");
        assert!(matches!(&exemption, Exemption::Allowed { list } if list == "office"), "{exemption:?}");
        assert!(exemption.holds() == Some(true) && answer.is_none());

        std::fs::write(allow::path(&config.state_dir), "damaged").unwrap();
        let (exemption, answer) = ask(&config, "203.0.113.20");
        assert!(matches!(exemption, Exemption::AllowListUnreadable(_)), "{exemption:?}");
        assert!(exemption.holds().is_none() && answer.is_some());
        let mut found = Found { complete: true, ..Found::default() };
        found.registered.insert("203.0.113.20".parse().unwrap(), u32::MAX);
        Registry::new(&config).remember(&found, NOW.as_millisecond()).unwrap();
        let (exemption, _) = ask(&config, "203.0.113.20");
        assert!(matches!(exemption, Exemption::Standing(Standing::SeenLately { .. })), "{exemption:?}");
        assert_eq!(exemption.holds(), Some(true));
        assert_eq!(Exemption::Standing(Standing::NotRegistered).holds(), Some(false));
    }
}
