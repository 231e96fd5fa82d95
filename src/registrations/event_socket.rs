//! FreeSWITCH itself: `sofia xmlstatus` of every profile.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};

use super::devices::{Device, Whose};
use super::{Found, live, network_ip};
use crate::account::{Offender, SipAccount};
use crate::deadline::Deadline;
use crate::event_socket::EventSocket;

/// So long before the deadline we want to know what went wrong, to say it.
const MARGIN: Duration = Duration::from_millis(15);

pub(super) fn look(address: &str, password: &str, now: i64, deadline: Deadline) -> anyhow::Result<Found> {
    let mut found = Found { complete: true, ..Found::default() };
    converse(address, password, deadline, |profile, registrations| {
        for registration in registrations {
            found.add(registration.network_ip, now.saturating_add(registration.seconds));
        }
        found.notes.push(format!("profile {profile}: {}", live(registrations.len())));
    })?;
    Ok(found)
}

/// The accounts that are registered from the address of a phone.
pub(super) fn accounts(
    address: &str,
    password: &str,
    phone: IpAddr,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<String>> {
    let mut accounts = BTreeSet::new();
    converse(address, password, deadline, |_, registrations| {
        let here =
            registrations.iter().filter(|registration| network_ip(registration.network_ip) == Some(phone));
        accounts.extend(here.map(|registration| registration.user.to_owned()));
    })?;
    Ok(accounts)
}

/// The devices that are registered.
pub(super) fn devices(
    address: &str,
    password: &str,
    whose: Whose<'_>,
    now: i64,
    deadline: Deadline,
) -> anyhow::Result<BTreeSet<Device>> {
    let mut devices = BTreeSet::new();
    converse(address, password, deadline, |_, registrations| {
        let meant = |registration: &&Registration<'_>| match whose {
            Whose::Address(address) => network_ip(registration.network_ip) == Some(address),
            Whose::Account(wanted) => registration.accounts().any(|account| account == *wanted),
        };
        let device = |registration: &Registration<'_>| {
            let Registration { user, network_ip, agent, seconds, .. } = *registration;
            Device::new(user, network_ip, agent, now.saturating_add(seconds))
        };
        devices.extend(registrations.iter().filter(meant).filter_map(device));
    })?;
    Ok(devices)
}

/// Which of these are registered.
pub(super) fn registered(
    address: &str,
    password: &str,
    offenders: &[Offender],
    deadline: Deadline,
) -> anyhow::Result<Vec<bool>> {
    let mut live = HashSet::new();
    converse(address, password, deadline, |_, registrations| {
        for registration in registrations {
            let source = network_ip(registration.network_ip);
            for account in registration.accounts() {
                live.insert(Offender { account: account.clone(), source });
                live.insert(Offender { account, source: None });
            }
        }
    })?;
    Ok(offenders.iter().map(|offender| live.contains(offender)).collect())
}

/// Hands the live registrations of each profile to `each`.
fn converse(
    address: &str,
    password: &str,
    deadline: Deadline,
    mut each: impl FnMut(&str, &[Registration<'_>]),
) -> anyhow::Result<()> {
    let deadline = deadline.earlier_by(MARGIN);
    let mut converse = || {
        let mut socket = EventSocket::connect(address, password, deadline)?;
        let status = socket.api("sofia xmlstatus")?;
        for profile in profiles(&status)? {
            let status = socket.api(&format!("sofia xmlstatus profile {profile} reg"))?;
            if status.starts_with(b"Invalid Profile") {
                // It was stopped between the two questions: nobody is registered there.
                continue;
            }
            let mut registrations = registrations(&status).with_context(|| format!("profile {profile}"))?;
            registrations.retain(|registration| registration.seconds > 0);
            each(&profile, &registrations);
        }
        anyhow::Ok(())
    };
    converse().with_context(|| format!("event socket {address}"))
}

/// The names of the profiles; aliases and gateways are none.
fn profiles(status: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut name = String::new();
    for (element, text) in elements(status, "</profiles>")? {
        match element {
            "name" => text.clone_into(&mut name),
            // A profile with TLS is listed twice.
            "type" if text == "profile" && !names.contains(&name) => names.push(std::mem::take(&mut name)),
            _ => {}
        }
    }
    // A name is put into a command.
    if let Some(name) = names
        .iter()
        .find(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        bail!("a profile has the name {name:?}");
    }
    Ok(names)
}

/// A registration as FreeSWITCH shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Registration<'a> {
    /// `user@domain`.
    user: &'a str,
    /// What the client calls itself.
    agent: &'a str,
    network_ip: &'a str,
    /// To live.
    seconds: i64,
    /// As in its credentials, percent-encoded.
    auth_user: &'a str,
    auth_realm: &'a str,
}

impl Registration<'_> {
    /// Whose it is: the address of record, and the name and realm of the credentials.
    fn accounts(&self) -> impl Iterator<Item = SipAccount> {
        // FreeSWITCH encodes no `%` that looks encoded: what has one may be one of two names.
        let auth = SipAccount::new(self.auth_user, self.auth_realm).ok();
        let auth = auth.filter(|_| !self.auth_user.contains('%'));
        self.user.parse().ok().into_iter().chain(auth)
    }
}

/// Every registration, in the order of the elements that each has: user, agent, status, address, credentials.
fn registrations(status: &[u8]) -> anyhow::Result<Vec<Registration<'_>>> {
    let mut all = Vec::new();
    let mut next = Registration::default();
    for (element, text) in elements(status, "</profile>")? {
        match element {
            "user" => next.user = text,
            "agent" => next.agent = text,
            // "Registered(UDP)(unknown) exp(2026-11-20 14:26:23) expsecs(3657)": what stands before the last
            // bracket may be the client's.
            "status" => {
                let left =
                    text.rsplit_once(" expsecs(").and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok());
                next.seconds = left.unwrap_or(0);
            }
            "network-ip" => all.push(Registration { network_ip: text, ..std::mem::take(&mut next) }),
            "sip-auth-user" => {
                if let Some(last) = all.last_mut() {
                    last.auth_user = text;
                }
            }
            "sip-auth-realm" => {
                if let Some(last) = all.last_mut() {
                    last.auth_realm = text;
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Name and text of each element that has a line to itself, as FreeSWITCH writes them.
///
/// Read as lines and not as XML: a client's Call-ID stands in it unescaped, so that `<!--` would hide other
/// customers, and `<` make all of it unreadable. An answer that does not end in `last` was cut.
fn elements<'a>(status: &'a [u8], last: &str) -> anyhow::Result<impl Iterator<Item = (&'a str, &'a str)>> {
    let status = status.trim_ascii();
    if !status.ends_with(last.as_bytes()) {
        let start = String::from_utf8_lossy(&status[..status.len().min(60)]);
        bail!("the answer is not what it should be, or was cut: {start:?}");
    }
    // A line that is not UTF-8 is a client's own text.
    let lines = status.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    Ok(lines.filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix('<')?.split_once('>')?;
        let text = rest.strip_suffix('>')?.strip_suffix(name)?.strip_suffix("</")?;
        Some((name, text))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILES: &str = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<profiles>\n\
        <profile>\n<name>internal</name>\n<type>profile</type>\n<data>sip:mod_sofia@198.51.100.1:5060</data>\n<state>RUNNING (0)</state>\n</profile>\n\
        <profile>\n<name>internal</name>\n<type>profile</type>\n<data>sip:x;transport=tls</data>\n<state>RUNNING (0) (TLS)</state>\n</profile>\n\
        <gateway>\n<name>carrier</name>\n<type>gateway</type>\n<data>sip:c</data>\n<state>TRYING</state>\n</gateway>\n (retry: 30s)\n\
        <alias>\n<name>a.example.com</name>\n<type>alias</type>\n<data>internal</data>\n<state>ALIASED</state>\n</alias>\n\
        <profile>\n<name>internal-ipv6</name>\n<type>profile</type>\n</profile>\n</profiles>\n";

    /// As `show_reg_callback_xml` of `mod_sofia` writes it.
    fn registration(call_id: &str, agent: &str, status: &str, ip: &str) -> String {
        format!(
            "    <registration>\n        <call-id>{call_id}</call-id>\n        <user>101@{ip}</user>\n        <agent>{agent}</agent>\n        \
             <status>{status}</status>\n        <network-ip>{ip}</network-ip>\n        \
             <network-port>5060</network-port>\n        <sip-auth-user>1%2B1</sip-auth-user>\n        \
             <sip-auth-realm>b.example.com</sip-auth-realm>\n    </registration>\n"
        )
    }

    fn profile(registrations: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?>\n<profile>\n  <registrations>\n{registrations}  </registrations>\n</profile>\n")
            .into_bytes()
    }

    #[test]
    fn every_profile_once_and_nothing_else() {
        assert_eq!(profiles(PROFILES.as_bytes()).unwrap(), ["internal", "internal-ipv6"]);
    }

    #[test]
    fn no_clients_text_hides_or_forges_anything() {
        let live = "Registered(UDP)(x) expsecs(9) exp(2026) expsecs(60)";
        let hostile = "&lt;network-ip&gt;198.51.100.11&lt;/network-ip&gt; \u{1b}[31m \u{1}";
        for call_id in [
            "<!--",
            "a<b",
            "]]>",
            "<registration>",
            "</profile>",
            "<network-ip>198.51.100.11</network-ip>",
            "<user>1@a</user>",
        ] {
            let xml = profile(
                &(registration(call_id, hostile, live, "203.0.113.66")
                    + &registration("x@y", "phone", "Registered(UDP) exp(x) expsecs(-3)", "203.0.113.20")
                    + &registration("-->", "caf?", live, "203.0.113.21")),
            );
            let latin1: Vec<u8> = xml.iter().map(|byte| if *byte == b'?' { 0xe9 } else { *byte }).collect();
            let expected = [
                ("101@203.0.113.66", "203.0.113.66", 60),
                ("101@203.0.113.20", "203.0.113.20", -3),
                ("101@203.0.113.21", "203.0.113.21", 60),
            ];
            let expected = expected.map(|(user, network_ip, seconds)| Registration {
                user,
                agent: "",
                network_ip,
                seconds,
                auth_user: "1%2B1",
                auth_realm: "b.example.com",
            });
            for status in [&xml, &latin1] {
                let found = registrations(status).unwrap();
                let agents: Vec<_> = found.iter().map(|registration| registration.agent).collect();
                assert_eq!(agents[1], "phone");
                let found = found.into_iter().map(|registration| Registration { agent: "", ..registration });
                assert!(found.eq(expected.clone()), "{call_id}");
            }
        }
    }

    #[test]
    fn a_registration_is_of_the_accounts_that_it_names_exactly() {
        for (user, auth_user, auth_realm, accounts) in [
            ("101@A.example.com", "101", "a.example.com", vec!["101@a.example.com"; 2]),
            ("101@a.example.com", "alice", "b.example.com", vec!["101@a.example.com", "alice@b.example.com"]),
            ("101@a.example.com", "1%2B1", "a.example.com", vec!["101@a.example.com"]),
            ("x@y@a.example.com", "", "", vec![]),
            ("@", "101", "", vec![]),
        ] {
            let registration = Registration { user, auth_user, auth_realm, ..Registration::default() };
            let found: Vec<_> = registration.accounts().map(|account| account.to_string()).collect();
            assert_eq!(found, accounts);
        }
    }

    #[test]
    fn a_cut_or_other_answer_is_an_error() {
        let whole = profile(&registration("x", "y", "z", "203.0.113.20"));
        for answer in [&b""[..], b"hello", b"<other></other>", &whole[..whole.len() - 5], &whole[..100]] {
            assert!(registrations(answer).is_err(), "{answer:?}");
        }
        let spaced =
            b"<profiles>\n<profile>\n<name>a b</name>\n<type>profile</type>\n</profile>\n</profiles>";
        assert!(profiles(spaced).is_err());
    }
}
