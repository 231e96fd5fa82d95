//! Hosts as gateways have them: `host[:port]`, with or without the rest of a SIP URI around it.

use std::net::IpAddr;

use crate::address;

/// The host of a gateway's proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// An address as it is.
    Address(IpAddr),
    /// A name to look up.
    Name {
        /// Lower case, without a final dot.
        name: String,
        /// Whether no port is given: only then SRV records are asked for (RFC 3263, section 4.2).
        services: bool,
    },
}

/// Reads `host[:port]`, `[v6]:port`, and those with `sip:`, `sips:`, `<`, a user, parameters; what is no host is
/// `None`.
pub(super) fn parse(text: &str) -> Option<Host> {
    let text = text.trim();
    let text = text.strip_prefix('<').unwrap_or(text);
    let text = ["sips:", "sip:"].iter().find_map(|scheme| strip_scheme(text, scheme)).unwrap_or(text);
    let text = text.split([';', '?', '>']).next()?.trim();
    let text = text.rsplit_once('@').map_or(text, |(_, host)| host);
    if let Some(address) = address::parse_text(text) {
        return Some(Host::Address(address));
    }
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        let port = port.strip_prefix(':').or(port.is_empty().then_some(""))?;
        return (port.is_empty() || is_port(port))
            .then(|| address::parse_text(address).map(Host::Address))?;
    }
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
    if port.is_some_and(|port| !is_port(port)) {
        return None;
    }
    if let Some(address) = address::parse_text(host) {
        return Some(Host::Address(address));
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    is_name(name).then(|| Host::Name { name: name.to_ascii_lowercase(), services: port.is_none() })
}

fn strip_scheme<'a>(text: &'a str, scheme: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(scheme.len())?;
    head.eq_ignore_ascii_case(scheme).then_some(rest)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok_and(|port| port > 0)
}

/// A host name of RFC 1123, and with `_`, which some have. Its last label is no number: `10.1` is a broken address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253
        && text.split('.').all(is_label)
        && text.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_gateways_have() {
        for (text, name, services) in [
            ("sip.acme.example", "sip.acme.example", true),
            ("SIP.Acme.Example.", "sip.acme.example", true),
            ("sip.acme.example:5080", "sip.acme.example", false),
            (" sip:sip.acme.example;transport=tcp ", "sip.acme.example", true),
            ("sips:sip.acme.example:5061;transport=tls", "sip.acme.example", false),
            ("<SIP:trunk@sip.acme.example:5060?x=y>", "sip.acme.example", false),
            ("sip.acme.example;fs_path=sip:10.0.0.1", "sip.acme.example", true),
            ("sbc", "sbc", true),
            ("sip:5060x", "5060x", true),
            ("sip.1und1.de", "sip.1und1.de", true),
            ("my_sbc.acme.example", "my_sbc.acme.example", true),
        ] {
            assert_eq!(parse(text), Some(Host::Name { name: name.into(), services }), "{text}");
        }
        for (text, address) in [
            ("203.0.113.7", "203.0.113.7"),
            ("203.0.113.7:5080", "203.0.113.7"),
            ("sip:203.0.113.7:5080;transport=tcp", "203.0.113.7"),
            ("[2001:db8::7]:5060", "2001:db8::7"),
            ("sip:[2001:db8::7];transport=udp", "2001:db8::7"),
            ("2001:db8::7", "2001:db8::7"),
            ("::ffff:203.0.113.7", "203.0.113.7"),
        ] {
            assert_eq!(parse(text), Some(Host::Address(address.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        for text in [
            "",
            ".",
            "sip:",
            "sip:5060",
            "10.1",
            "203.0.113.256",
            "203.0.113.7/24",
            "sip.acme.example:",
            "sip.acme.example:x",
            "sip.acme.example:70000",
            "sip.acme.example:+5060",
            "sip.acme.example:0",
            "[2001:db8::7",
            "[203.0.113.7]x",
            "[]",
            "${domain}",
            "a..b",
            "-a.example",
            "a b",
            "sip.acme.example\n",
            "caf\u{e9}.example",
            "a\u{0}.example",
            &"a.".repeat(200),
            &"a".repeat(64),
        ] {
            let expected = (text == "sip.acme.example\n").then(|| parse("sip.acme.example")).flatten();
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_plain(text in "(sips?:)?[<a-z0-9.:@;?\\[\\]>\\PC-]{0,40}") {
            if let Some(Host::Name { name, .. }) = parse(&text) {
                prop_assert!(is_name(&name) && name.parse::<IpAddr>().is_err());
            }
        }

        #[test]
        fn nothing_panics(text: String) {
            let _ = parse(&text);
        }
    }
}
