//! What would follow if a login of an address failed: by fail2ban's jails, and by blocks of accounts.

use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use ipnetwork::IpNetwork;
use jiff::Timestamp;
use serde::Serialize;

use crate::account::SipAccount;
use crate::commands::block::{self, Foresight, Outcome};
use crate::commands::causes;
use crate::commands::screen::{counted, span};
use crate::config::{Config, Mode};
use crate::deadline::Deadline;
use crate::exemption::{self, Exemption};
use crate::fail2ban::{self, Running};
use crate::firewall::Firewall;
use crate::host;
use crate::registrations::Standing;

/// Whether an address is exempt is found out in this time, and what fail2ban says.
const PATIENCE: Duration = Duration::from_secs(1);
const FAIL2BAN: Duration = Duration::from_secs(10);

/// So long somebody is asked what this host's name stands for.
const NAMES: Duration = Duration::from_secs(1);

/// As jails call it in `ignorecommand`.
const IGNORE: &str = "ringfence-ignore";

/// What would follow.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Failing {
    /// Whether ringfence-ignore keeps the address; null where nobody knows.
    pub(super) exempt: Option<bool>,
    /// Why, for people.
    pub(super) standing: String,
    /// What is known of the account, if one was named.
    pub(super) account: Option<Known>,
    /// Those that count it; none where fail2ban does not run.
    pub(super) jails: Vec<Counting>,
    /// Whether fail2ban runs; null where it does not answer.
    pub(super) fail2ban: Option<bool>,
    /// Whether chains of FusionPBX's `event_guard` are there; null where the rules cannot be read.
    pub(super) event_guard: Option<bool>,
    #[serde(skip)]
    running: fail2ban::Jails,
    /// Whether the address is the host's own; asked only where a jail would leave it alone then.
    #[serde(skip)]
    own: Own,
}

/// Whether an address is this host's own, for `ignoreself`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Own {
    #[default]
    No,
    /// The host's name stands for it, by which every fail2ban knows it.
    ByName,
    /// It is on an interface, which fail2ban asks since 1.1.
    OnInterface,
    /// Nobody says what the host's name stands for.
    Unknown,
}

impl Own {
    fn find(address: IpAddr) -> Self {
        let named = host::named_addresses(NAMES);
        match &named {
            Ok(named) if address.is_loopback() || named.contains(&address) => Self::ByName,
            _ if host::addresses().is_ok_and(|own| own.contains(&address)) => Self::OnInterface,
            Ok(_) => Self::No,
            Err(_) => Self::Unknown,
        }
    }

    /// Why such a jail leaves it alone, and whether that is certain.
    fn spares(self) -> Option<(String, bool)> {
        match self {
            Self::No => None,
            Self::ByName => Some(("ignoreself has it: it is this host's own address".to_owned(), true)),
            Self::OnInterface => Some((
                "ignoreself has it: it is this host's own address, which fail2ban before 1.1 does not know"
                    .to_owned(),
                false,
            )),
            Self::Unknown => Some((
                "ignoreself has it: nobody says which addresses this host's name stands for".to_owned(),
                false,
            )),
        }
    }
}

/// What is known of an account.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Known {
    /// Null where nobody says so.
    pub(super) exists: Option<bool>,
    pub(super) words: String,
    /// Why ringfence-block would not block it; null: it would.
    pub(super) not_blocked: Option<String>,
    /// Who makes way for it, where there are as many blocks as there may be.
    pub(super) makes_way: Option<String>,
    /// Of a block everywhere, and of one of its device at the address.
    #[serde(skip)]
    everywhere: Outcome,
    #[serde(skip)]
    device: Outcome,
}

impl Known {
    fn new(foresight: Foresight) -> Self {
        let Foresight { exists, words, everywhere, device, .. } = foresight;
        // What does not exist is blocked everywhere, what does by its device.
        let Outcome { refused, makes_way } = if exists == Some(true) { &device } else { &everywhere }.clone();
        Self { exists, words, not_blocked: refused, makes_way, everywhere, device }
    }

    /// What ringfence-block would make of it, for people.
    pub(super) fn outcome(&self) -> String {
        match (&self.not_blocked, &self.makes_way) {
            (Some(why), _) => format!("ringfence-block would not block it: {why}"),
            (None, Some(who)) => format!("ringfence-block would block it, and {who}"),
            (None, None) => "ringfence-block would block it".to_owned(),
        }
    }
}

/// A jail that counts a failure.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Counting {
    pub(super) jail: String,
    pub(super) counts: Counts,
    pub(super) failures: u32,
    pub(super) within_seconds: i64,
    pub(super) for_seconds: i64,
    /// Why it bans nobody all the same; null: it does.
    pub(super) spared: Option<String>,
    /// Whether it is known that it does or does not.
    pub(super) certain: bool,
}

/// What a jail counts failures of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Counts {
    Address,
    Account,
    /// An account at an address.
    Device,
}

impl Counts {
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Address => "the address",
            Self::Account => "the account",
            Self::Device => "the account at this address",
        }
    }
}

impl Counting {
    /// Whether enough failures ban the address, as far as anybody knows.
    pub(super) fn bans_address(&self) -> bool {
        self.counts == Counts::Address && (self.spared.is_none() || !self.certain)
    }

    /// What comes of it, for people.
    pub(super) fn then(&self) -> String {
        let length = if self.for_seconds < 0 {
            "for good".to_owned()
        } else {
            format!("for {}", span(self.for_seconds))
        };
        let does = if self.counts == Counts::Address { "banned" } else { "blocked" };
        let after = counted(self.failures, "failure", "failures");
        let ban = format!("{does} {length} after {after} within {}", span(self.within_seconds));
        match (&self.spared, self.certain) {
            (None, true) => ban,
            (None, false) => format!("perhaps {ban}"),
            (Some(why), true) => format!("not {does}: {why}"),
            (Some(why), false) => format!("{ban}, unless {why}"),
        }
    }
}

impl Failing {
    /// What cannot be asked is added to `problems`.
    pub(super) fn foresee(
        config: &Config,
        address: IpAddr,
        account: Option<&SipAccount>,
        now: Timestamp,
        problems: &mut Vec<String>,
    ) -> Self {
        let deadline = Deadline::after(Instant::now(), PATIENCE);
        let (exemption, answer) = exemption::find(config, address, now, deadline);
        let standing = match &exemption {
            Exemption::Standing(Standing::Unknown) => {
                let why = answer.and_then(|answer| answer.failure).unwrap_or_default();
                format!("nobody knows whether it is registered: {why}")
            }
            Exemption::AllowListUnreadable(fault) => {
                format!("{} cannot be read: {}", fault.path.display(), fault.error)
            }
            Exemption::Allowed { list } => format!("it is on the allow list {list}"),
            Exemption::Standing(Standing::Registered { .. }) => "it has a live registration".to_owned(),
            Exemption::Standing(Standing::SeenLately { .. }) => "it was seen registered lately".to_owned(),
            Exemption::Standing(Standing::NotRegistered) => {
                "it is not registered, and on no allow list".to_owned()
            }
        };
        let account = account.map(|account| {
            let foresight = block::foresee(config, account, address, now);
            problems.extend(foresight.unread.clone());
            Known::new(foresight)
        });
        let jails = fail2ban::running(&config.fail2ban.socket, FAIL2BAN);
        let fail2ban = jails.as_ref().map(Option::is_some).ok();
        let jails = jails.unwrap_or_else(|error| {
            problems.push(format!("fail2ban's jails are not looked at: {}", causes(&error)));
            None
        });
        let event_guard = Firewall::read().and_then(|there| Ok(there.has_event_guard()?)).ok();
        let running = jails.unwrap_or_default();
        let odd = running.unknown.iter();
        problems.extend(
            odd.map(|jail| format!("the jail {jail:?} of fail2ban is not looked at: its name is odd")),
        );
        let asks = running.known.iter().any(|jail| jail.ignores_self && counts(jail).is_some());
        let own = if asks { Own::find(address) } else { Own::No };
        let jails = vec![];
        let exempt = exemption.holds();
        let mut failing = Self { exempt, standing, account, jails, fail2ban, event_guard, running, own };
        let known = failing.running.known.iter();
        failing.jails = known.filter_map(|jail| failing.counting(config, jail, address)).collect();
        failing
    }

    /// Why a failure that stands in these logs may cost the address a ban though it is on our allow list.
    pub(super) fn risk(&self, config: &Config, address: IpAddr, logs: &[&Path]) -> Option<String> {
        if self.event_guard != Some(false) {
            let there = if self.event_guard.is_some() { "is there" } else { "may be there" };
            return Some(format!(
                "FusionPBX's event_guard {there}, which blocks at the first failure, whoever allows the address; stop its service, \
                 and remove its chains sip-auth-ip and sip-auth-fail"
            ));
        }
        if self.fail2ban.is_none() {
            return Some("fail2ban does not say which jails it runs".to_owned());
        }
        let observes = config.registrations_mode() == Mode::Observe;
        let spares = |jail: &Running| {
            ignored(jail, address).is_some() || (!observes && jail.ignore_command.contains(IGNORE))
        };
        let known = self.running.known.iter();
        let mut risky =
            known.filter(|jail| counts_failures(jail, logs) && !spares(jail)).map(|jail| &jail.name);
        let jail = risky.next().or(self.running.unknown.first())?;
        Some(format!(
            "the jail {jail} may ban it, whoever allows it; let the jail ask ringfence-ignore, or stop it"
        ))
    }

    fn counting(&self, config: &Config, jail: &Running, address: IpAddr) -> Option<Counting> {
        let counts = counts(jail)?;
        let exists = self.account.as_ref().and_then(|account| account.exists);
        let (spared, certain) = match counts {
            Counts::Address => self.spared(config, jail, address),
            // These are of accounts that do not exist, and of those that do.
            Counts::Account if exists == Some(true) => return None,
            Counts::Device if exists == Some(false) => return None,
            Counts::Account => self.blocked(|account| &account.everywhere),
            Counts::Device => self.blocked(|account| &account.device),
        };
        Some(Counting {
            jail: jail.name.clone(),
            counts,
            failures: jail.max_retry,
            within_seconds: jail.find_time,
            for_seconds: jail.ban_time,
            spared,
            certain,
        })
    }

    /// Why an account is not blocked, and whether that is certain.
    fn blocked(&self, outcome: impl Fn(&Known) -> &Outcome) -> (Option<String>, bool) {
        let known = self.account.as_ref();
        known.map_or((None, false), |known| (outcome(known).refused.clone(), known.exists.is_some()))
    }

    /// Why a jail leaves the address alone, and whether that is certain.
    fn spared(&self, config: &Config, jail: &Running, address: IpAddr) -> (Option<String>, bool) {
        if let Some(ignored) = ignored(jail, address) {
            return (Some(format!("ignoreip has {ignored}")), true);
        }
        let own = if jail.ignores_self { self.own.spares() } else { None };
        if let Some((why, true)) = &own {
            return (Some(why.clone()), true);
        }
        let (why, certain) = self.spared_by_command(config, jail);
        let name = jail.ignored.iter().find(|text| text.parse::<IpNetwork>().is_err());
        match name {
            Some(name) if !(why.is_some() && certain) => {
                (Some(format!("ignoreip means it by {name}, which is not asked for here")), false)
            }
            _ if why.is_some() && certain => (why, certain),
            _ => own.map_or((why, certain), |(own, certain)| (Some(own), certain)),
        }
    }

    fn spared_by_command(&self, config: &Config, jail: &Running) -> (Option<String>, bool) {
        if jail.ignore_command.is_empty() {
            return (None, true);
        }
        if !jail.ignore_command.contains(IGNORE) {
            return (Some(format!("`{}` keeps it", jail.ignore_command)), false);
        }
        if config.registrations_mode() == Mode::Observe {
            return (None, true);
        }
        match self.exempt {
            Some(true) => (Some(format!("ringfence-ignore keeps it, as {}", self.standing)), true),
            Some(false) => (None, true),
            None => (Some("ringfence-ignore keeps it, which it cannot know now".to_owned()), false),
        }
    }
}

/// The address or network of `ignoreip` that has the address.
fn ignored(jail: &Running, address: IpAddr) -> Option<&String> {
    let has = |text: &&String| text.parse::<IpNetwork>().is_ok_and(|network| network.contains(address));
    jail.ignored.iter().find(has)
}

/// Whether a jail may count a failure of these logs for the address.
fn counts_failures(jail: &Running, logs: &[&Path]) -> bool {
    let reads = jail.logs.iter().any(|log| logs.contains(&Path::new(log)));
    let of_account = |regex: &String| regex.contains("(?P<fid>");
    // Events of ours that are no failures.
    let other_event = |regex: &String| {
        ["flood", "spray", "success"].iter().any(|kind| regex.contains(&format!("v1 {kind} ")))
    };
    let harmless = jail.fail_regexes.iter().all(|regex| of_account(regex) || other_event(regex));
    !harmless && (reads || counts(jail) == Some(Counts::Address))
}

/// What a jail counts of a login that failed, by what its filter asks for; `None` if that is something else.
pub(super) fn counts(jail: &Running) -> Option<Counts> {
    jail.fail_regexes.iter().find_map(|regex| {
        let has = |text: &str| regex.contains(text);
        let by_account = has("(?P<fid>");
        if has("v1 failure address=") {
            return Some(match by_account {
                true if has("known=yes") => Counts::Device,
                true => Counts::Account,
                false => Counts::Address,
            });
        }
        let asks = [
            "SIP auth failure",
            "SIP auth (?:failure|challenge)",
            "SIP auth (?:challenge|failure)",
            "Can't find user",
            "A registration failed user",
            "SecurityEvent=\"InvalidPassword\"",
            "SecurityEvent=\"ChallengeResponseFailed\"",
            "SecurityEvent=\"InvalidAccountID\"",
        ];
        // An address for a domain is another matter.
        let other = has("@(?:\\d{1,3}");
        (asks.iter().any(|text| has(text)) && !other).then_some(if by_account {
            Counts::Account
        } else {
            Counts::Address
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jail(regex: &str, log: &str, ignored: &[&str], command: &str) -> Running {
        Running {
            name: "sip".to_owned(),
            fail_regexes: vec![regex.to_owned()],
            logs: vec![log.to_owned()],
            ignored: ignored.iter().map(|&text| text.to_owned()).collect(),
            ignore_command: command.to_owned(),
            ..Running::default()
        }
    }

    fn failing(event_guard: Option<bool>, known: Vec<Running>, unknown: Vec<String>) -> Failing {
        Failing {
            exempt: Some(false),
            standing: String::new(),
            account: None,
            jails: vec![],
            fail2ban: Some(true),
            event_guard,
            running: fail2ban::Jails { known, unknown },
            own: Own::No,
        }
    }

    const ADDRESS: &str = "203.0.113.20";

    #[test]
    fn a_jail_that_reads_the_log_must_ask_us_or_ignore_the_address() {
        let risk = |event_guard, known: Vec<Running>, unknown: &[&str]| {
            let unknown = unknown.iter().map(|&name| name.to_owned()).collect();
            let failing = failing(event_guard, known, unknown);
            failing.risk(&Config::default(), ADDRESS.parse().unwrap(), &[Path::new("/var/log/sip")])
        };
        let (any, failure, log) = ("SIP/(?P<ip4>x)", "^ v1 failure address=(?P<ip4>x)", "/var/log/sip");
        for (jail, safe) in [
            (jail(any, log, &[], ""), false),
            (jail(any, log, &[], "/usr/bin/other <ip>"), false),
            (jail(any, log, &[], "exec /usr/bin/ringfence-ignore \"<ip>\""), true),
            (jail(any, log, &["203.0.113.0/24"], ""), true),
            (jail(any, log, &["198.51.100.0/24", "phone.example.com"], ""), false),
            (jail(any, "/var/log/auth.log", &[], ""), true),
            (jail(failure, "/var/log/copy", &[], ""), false),
            (jail("^ v1 failure address=(?P<src>x) account=(?P<fid>x)", log, &[], ""), true),
            (jail("^ v1 spray address=(?P<ip4>x)", log, &[], ""), true),
        ] {
            assert_eq!(risk(Some(false), vec![jail.clone()], &[]).is_none(), safe, "{jail:?}");
        }
        assert_eq!(risk(Some(false), vec![], &[]), None);
        assert!(risk(Some(false), vec![], &["it's"]).unwrap().contains("the jail it's"));
        assert!(risk(Some(true), vec![], &[]).unwrap().contains("event_guard is there"));
        assert!(risk(None, vec![], &[]).unwrap().contains("event_guard may be there"));
    }

    #[test]
    fn a_host_by_name_makes_a_ban_uncertain() {
        let spared = |jail: Running| {
            failing(Some(false), vec![], vec![]).spared(&Config::default(), &jail, ADDRESS.parse().unwrap())
        };
        let name = Some("ignoreip means it by phone.example.com, which is not asked for here".to_owned());
        assert_eq!(spared(jail("x", "x", &[], "")), (None, true));
        assert_eq!(spared(jail("x", "x", &["::1", "phone.example.com"], "")), (name.clone(), false));
        assert_eq!(spared(jail("x", "x", &["phone.example.com"], "ringfence-ignore")), (name, false));
        let known = jail("x", "x", &["phone.example.com", ADDRESS], "");
        assert_eq!(spared(known), (Some(format!("ignoreip has {ADDRESS}")), true));
    }

    #[test]
    fn a_jail_leaves_the_hosts_own_addresses_alone() {
        let spared = |own: Own, ignores_self: bool, command: &str| {
            let failing = Failing { own, ..failing(Some(false), vec![], vec![]) };
            let jail = Running { ignores_self, ..jail("x", "x", &[], command) };
            let (why, certain) = failing.spared(&Config::default(), &jail, ADDRESS.parse().unwrap());
            (why.is_some(), certain)
        };
        assert_eq!(spared(Own::ByName, true, ""), (true, true));
        assert_eq!(spared(Own::ByName, false, ""), (false, true));
        assert_eq!(spared(Own::OnInterface, true, "ringfence-ignore"), (true, false));
        assert_eq!(spared(Own::Unknown, true, ""), (true, false));
        assert_eq!(spared(Own::No, true, ""), (false, true));
    }

    #[test]
    fn what_a_filter_counts_is_told_by_what_it_asks_for() {
        let of =
            |regex: &str| counts(&Running { fail_regexes: vec![regex.to_owned()], ..Running::default() });
        for (regex, expected) in [
            ("^ v1 failure address=X known=(?:yes(?: id=x)?|no|unknown)$", Some(Counts::Address)),
            ("^ v1 failure address=(?P<src>x) account=(?P<fid>x) known=no x$", Some(Counts::Account)),
            ("^ v1 failure address=x known=yes id=(?P<fid>x) x$", Some(Counts::Device)),
            ("^ v1 flood address=x", None),
            ("SIP auth failure \\(REGISTER\\) x", Some(Counts::Address)),
            ("SIP auth failure \\(REGISTER\\) for (?P<fid>x)", Some(Counts::Account)),
            ("SIP auth challenge \\(REGISTER\\) x", None),
            ("SIP auth (?:failure|challenge) x", Some(Counts::Address)),
            ("Failed password for x", None),
        ] {
            assert_eq!(of(regex), expected, "{regex}");
        }
    }
}
