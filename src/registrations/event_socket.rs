//! FreeSWITCH itself: `sofia xmlstatus` of every profile.

use std::time::Duration;

use anyhow::{Context, bail};
use quick_xml::Reader;
use quick_xml::events::Event;

use super::{Found, Question, live};
use crate::deadline::Deadline;
use crate::event_socket::EventSocket;

/// So long before the deadline we want to know what went wrong, to say it.
const MARGIN: Duration = Duration::from_millis(15);

pub(super) fn look(
    address: &str,
    password: &str,
    question: &Question,
    deadline: Deadline,
) -> anyhow::Result<Found> {
    converse(address, password, question, deadline.earlier_by(MARGIN))
        .with_context(|| format!("event socket {address}"))
}

fn converse(address: &str, password: &str, question: &Question, deadline: Deadline) -> anyhow::Result<Found> {
    let mut socket = EventSocket::connect(address, password, deadline)?;
    let mut found = Found { complete: true, ..Found::default() };
    let status = socket.api("sofia xmlstatus")?;
    for profile in profiles(&status)? {
        let status = socket.api(&format!("sofia xmlstatus profile {profile} reg"))?;
        if status.starts_with(b"Invalid Profile") {
            // It was stopped between the two questions: nobody is registered there.
            continue;
        }
        let registrations = registrations(&status).with_context(|| format!("profile {profile}"))?;
        let registrations: Vec<_> = registrations.into_iter().filter(|(_, seconds)| *seconds > 0).collect();
        for (ip, seconds) in &registrations {
            found.add(ip, question.now.saturating_add(*seconds));
        }
        found.notes.push(format!("profile {profile}: {}", live(registrations.len())));
    }
    Ok(found)
}

/// The names of the profiles; aliases and gateways are none.
fn profiles(status: &[u8]) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    let mut name = String::new();
    for_each_text(status, b"profiles", |path, text| match path {
        [_, b"profile", b"name"] => text.clone_into(&mut name),
        // A profile with TLS is listed twice.
        [_, b"profile", b"type"] if text == "profile" && !names.contains(&name) => {
            names.push(std::mem::take(&mut name));
        }
        _ => {}
    })?;
    // A name is put into a command.
    if let Some(name) = names
        .iter()
        .find(|name| name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        bail!("a profile has the name {name:?}");
    }
    Ok(names)
}

/// Network address and seconds to live of every registration.
fn registrations(status: &[u8]) -> anyhow::Result<Vec<(String, i64)>> {
    let mut all = Vec::new();
    let mut seconds = 0;
    for_each_text(status, b"profile", |path, text| match path {
        [.., b"registration", b"status"] => {
            // "Registered(UDP)(unknown) exp(2026-11-20 14:26:23) expsecs(3657)": what stands before the
            // last bracket may be the client's.
            seconds = text
                .rsplit_once(" expsecs(")
                .and_then(|(_, rest)| rest.strip_suffix(')')?.parse().ok())
                .unwrap_or(0);
        }
        [.., b"registration", b"network-ip"] => all.push((text.to_owned(), std::mem::take(&mut seconds))),
        _ => {}
    })?;
    Ok(all)
}

/// Calls `f` with the path and the text of every element that has text.
///
/// The client's text in it is escaped, and may hold control characters or Latin-1 that no strict XML
/// parser would take.
fn for_each_text(xml: &[u8], root: &[u8], mut f: impl FnMut(&[&[u8]], &str)) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(xml);
    let mut reader = Reader::from_str(&text);
    let mut path: Vec<Vec<u8>> = Vec::new();
    let mut content = String::new();
    let mut rooted = false;
    loop {
        match reader
            .read_event()
            .with_context(|| format!("the answer is no XML at byte {}", reader.error_position()))?
        {
            Event::Start(element) => {
                let name = element.name().as_ref().to_vec();
                rooted |= path.is_empty() && name == root;
                path.push(name);
                content.clear();
            }
            // References (`&quot;`) come as events of their own; no text that matters to us has any.
            Event::Text(text) => content.push_str(&String::from_utf8_lossy(&text)),
            Event::End(_) => {
                let trimmed = content.trim();
                if !trimmed.is_empty() {
                    f(&path.iter().map(Vec::as_slice).collect::<Vec<_>>(), trimmed);
                }
                content.clear();
                path.pop();
            }
            Event::Eof if rooted && path.is_empty() => return Ok(()),
            Event::Eof => bail!(
                "the answer is not the XML it should be: {:?}",
                text.chars().take(60).collect::<String>()
            ),
            _ => {}
        }
    }
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

    fn registration(contact: &str, status: &str, ip: &str) -> String {
        format!(
            "<registration><call-id>x</call-id><contact>{contact}</contact><status>{status}</status><network-ip>{ip}</network-ip></registration>"
        )
    }

    fn profile(registrations: &str) -> Vec<u8> {
        format!("<?xml version=\"1.0\"?>\n<profile>\n  <registrations>\n{registrations}  </registrations>\n</profile>\n").into_bytes()
    }

    #[test]
    fn every_profile_once_and_nothing_else() {
        assert_eq!(profiles(PROFILES.as_bytes()).unwrap(), ["internal", "internal-ipv6"]);
    }

    #[test]
    fn the_clients_text_cannot_forge_an_address_or_a_time() {
        let hostile = "&lt;network-ip&gt;198.51.100.11&lt;/network-ip&gt; \u{1b}[31m \u{1}";
        let status = "Registered(UDP)(x) expsecs(9) exp(2026) expsecs(-3)";
        let xml = profile(
            &(registration(hostile, status, "203.0.113.66")
                + &registration("", "Registered(UDP) exp(x) expsecs(60)", "203.0.113.20")),
        );
        assert_eq!(
            registrations(&xml).unwrap(),
            [("203.0.113.66".to_owned(), -3), ("203.0.113.20".to_owned(), 60)]
        );
        let mut latin1 = profile(&registration("caf?", "Registered(UDP) exp(x) expsecs(60)", "203.0.113.20"));
        let place = latin1.iter().rposition(|byte| *byte == b'?').unwrap();
        latin1[place] = 0xe9;
        assert_eq!(registrations(&latin1).unwrap(), [("203.0.113.20".to_owned(), 60)]);
    }

    #[test]
    fn a_cut_or_other_answer_is_an_error() {
        for answer in
            ["", "hello", "<profile><registrations>", "<other></other>", "<profile></registrations>"]
        {
            assert!(registrations(answer.as_bytes()).is_err(), "{answer:?}");
        }
        assert!(
            profiles(b"<profiles><profile><name>a b</name><type>profile</type></profile></profiles>")
                .is_err()
        );
    }
}
