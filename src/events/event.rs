//! An event as FreeSWITCH's event socket sends it, and of it what the log needs.
//!
//! Names are `mod_sofia`'s, which has its own idea of directions: in `register_attempt`, `register` and `unregister`,
//! `from-user` and `from-host` are the account that is to be registered (or that an INVITE is from), which
//! `register_failure` calls `to-user` and `to-host`, and `expire` `user` and `host`.

use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::address;
use crate::event_socket::frames::Frame;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subclass {
    /// `sofia::pre_register`: a challenge, which every healthy phone gets.
    PreRegister,
    /// `sofia::register_attempt`: credentials were checked.
    Attempt,
    /// `sofia::register_failure`: they are refused.
    Failure,
    /// `sofia::register`
    Register,
    /// `sofia::unregister`: by the phone, or since its connection ended.
    Unregister,
    /// `sofia::expire`
    Expire,
    /// `verto::login`, refused or not.
    VertoLogin,
}

/// What came of the credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They are good.
    Accepted,
    /// They are wrong, or their account does not exist. Nothing else is surely a refusal: with a nonce that has become
    /// `STALE`, a healthy phone just tries again.
    Refused,
    /// Neither, or the event does not say.
    Open,
}

/// How a client authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// SIP REGISTER.
    Register,
    /// SIP INVITE, and what else begins outside a registration.
    Invite,
    /// A login over Verto's WebSocket.
    Verto,
    /// The event does not say.
    Unknown,
}

/// A user at a host, as a client writes them: any bytes, perhaps none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// Before the `@`.
    pub user: Vec<u8>,
    /// Behind it.
    pub host: Vec<u8>,
}

/// One event. Texts are whatever a client sent, and are empty where there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub subclass: Subclass,
    /// When, by FreeSWITCH's clock.
    pub time: Timestamp,
    /// Where the packet came from; `unregister` and `expire` do not say it, all others do.
    pub address: Option<IpAddr>,
    /// Its source port.
    pub port: Option<u16>,
    /// `from-user` and `from-host`.
    pub from: Party,
    /// `to-user` and `to-host`, or `user` and `host`.
    pub to: Party,
    /// The credentials' `username` and `realm`, or Verto's login.
    pub digest: Party,
    /// `user-agent`
    pub agent: Vec<u8>,
    /// `auth-result`, or Verto's success.
    pub verdict: Verdict,
    /// `registration-type`
    pub method: Method,
    /// `call-id`
    pub call_id: Vec<u8>,
    /// The SIP or Verto profile.
    pub profile: Vec<u8>,
    /// Seconds until the registration ends; for `expire`, when it ended.
    pub expires: Option<u64>,
}

/// Why an event cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAnEvent {
    /// Its body is not the JSON that FreeSWITCH writes.
    Json(String),
    /// It has no `Event-Date-Timestamp`, or one that is no time.
    Time,
    /// Its address is none, or is missing.
    Address,
}

impl Event {
    /// Reads a frame. None if it holds no event, or one of another subclass.
    pub fn parse(frame: &Frame) -> Result<Option<Self>, NotAnEvent> {
        let headers = match frame.content_type.as_str() {
            "text/event-json" => Headers::from_json(&frame.body)?,
            "text/event-plain" => Headers::from_plain(&frame.body),
            _ => return Ok(None),
        };
        let Some(subclass) = Subclass::named(headers.get(Header::Subclass)) else { return Ok(None) };
        Self::new(subclass, headers).map(Some)
    }

    /// The account that is to be registered or called from, as To or From names it.
    #[must_use]
    pub fn claimed(&self) -> &Party {
        match self.subclass {
            Subclass::Failure | Subclass::Expire => &self.to,
            _ => &self.from,
        }
    }

    fn new(subclass: Subclass, mut headers: Headers) -> Result<Self, NotAnEvent> {
        let number = |headers: &Headers, header| text(headers.get(header))?.parse::<u64>().ok();
        let time = text(headers.get(Header::Time))
            .and_then(|time| Timestamp::from_microsecond(time.parse().ok()?).ok())
            .ok_or(NotAnEvent::Time)?;
        let (address, port) = match subclass {
            Subclass::VertoLogin => socket_address(headers.get(Header::VertoAddress)),
            _ => (address_of(headers.get(Header::Address)), number(&headers, Header::Port)),
        };
        let silent = matches!(subclass, Subclass::Unregister | Subclass::Expire)
            && headers.get(Header::Address).is_empty();
        if address.is_none() && !silent {
            return Err(NotAnEvent::Address);
        }
        let (verdict, method) = match subclass {
            Subclass::VertoLogin if headers.get(Header::VertoSuccess) == b"1" => {
                (Verdict::Accepted, Method::Verto)
            }
            Subclass::VertoLogin => (Verdict::Refused, Method::Verto),
            _ => (headers.verdict(), headers.method()),
        };
        let digest = match subclass {
            Subclass::VertoLogin => Party::split(&headers.take(Header::VertoLogin)),
            _ => Party { user: headers.take(Header::Username), host: headers.take(Header::Realm) },
        };
        Ok(Self {
            subclass,
            time,
            address,
            port: port.and_then(|port| port.try_into().ok()),
            from: Party { user: headers.take(Header::FromUser), host: headers.take(Header::FromHost) },
            to: Party { user: headers.take(Header::ToUser), host: headers.take(Header::ToHost) },
            digest,
            agent: headers.take(Header::Agent),
            verdict,
            method,
            call_id: headers.take(Header::CallId),
            profile: headers.take(Header::Profile),
            expires: number(&headers, Header::Expires),
        })
    }
}

impl Subclass {
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"sofia::pre_register" => Self::PreRegister,
            b"sofia::register_attempt" => Self::Attempt,
            b"sofia::register_failure" => Self::Failure,
            b"sofia::register" => Self::Register,
            b"sofia::unregister" => Self::Unregister,
            b"sofia::expire" => Self::Expire,
            b"verto::login" => Self::VertoLogin,
            _ => return None,
        })
    }
}

impl Party {
    /// At the last `@`; all is the user where there is none.
    fn split(login: &[u8]) -> Self {
        match memchr::memrchr(b'@', login) {
            Some(at) => Self { user: login[..at].to_vec(), host: login[at + 1..].to_vec() },
            None => Self { user: login.to_vec(), host: Vec::new() },
        }
    }

    /// Whether there is neither a user nor a host.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.user.is_empty() && self.host.is_empty()
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn address_of(bytes: &[u8]) -> Option<IpAddr> {
    address::parse_text(text(bytes)?)
}

/// `ADDR:PORT`, where IPv6 may stand in brackets.
fn socket_address(bytes: &[u8]) -> (Option<IpAddr>, Option<u64>) {
    let Some((host, port)) = text(bytes).and_then(|text| text.rsplit_once(':')) else {
        return (None, None);
    };
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    (address::parse_text(inner.unwrap_or(host)), port.parse().ok())
}

/// The headers that are read; [`Header::named`] has their names.
#[derive(Clone, Copy)]
enum Header {
    Subclass,
    Time,
    Address,
    Port,
    FromUser,
    FromHost,
    ToUser,
    ToHost,
    Username,
    Realm,
    Agent,
    Verdict,
    Method,
    CallId,
    Profile,
    Expires,
    VertoSuccess,
    VertoAddress,
    VertoLogin,
}

const HEADERS: usize = Header::VertoLogin as usize + 1;

/// No name that is read is longer.
const MAX_NAME: usize = 24;

/// Of a value, so many bytes are kept: more than any line has room for, and few where many events wait.
const MAX_VALUE: usize = 256;

impl Header {
    fn named(name: &[u8]) -> Option<Self> {
        let mut lower = [0; MAX_NAME];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        Some(match &*lower {
            b"event-subclass" => Self::Subclass,
            b"event-date-timestamp" => Self::Time,
            b"network-ip" => Self::Address,
            b"network-port" => Self::Port,
            b"from-user" => Self::FromUser,
            b"from-host" => Self::FromHost,
            b"to-user" | b"user" => Self::ToUser,
            b"to-host" | b"host" => Self::ToHost,
            b"username" => Self::Username,
            b"realm" => Self::Realm,
            b"user-agent" => Self::Agent,
            b"auth-result" => Self::Verdict,
            b"registration-type" => Self::Method,
            b"call-id" => Self::CallId,
            b"profile-name" | b"verto_profile_name" => Self::Profile,
            b"expires" => Self::Expires,
            b"verto_success" => Self::VertoSuccess,
            b"verto_client_address" => Self::VertoAddress,
            b"verto_login" => Self::VertoLogin,
            _ => return None,
        })
    }
}

/// The values of the headers that are read; of one that comes twice, the first.
#[derive(Default)]
struct Headers([Option<Vec<u8>>; HEADERS]);

impl Headers {
    fn from_json(body: &[u8]) -> Result<Self, NotAnEvent> {
        serde_json::from_slice(body).map_err(|error| NotAnEvent::Json(error.to_string()))
    }

    /// `Name: value` lines with percent-encoded values, up to an empty line; an event's own body follows it.
    fn from_plain(body: &[u8]) -> Self {
        let mut headers = Self::default();
        for line in body.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.is_empty() {
                break;
            }
            let Some(colon) = memchr::memchr(b':', line) else { continue };
            if let Some(header) = Header::named(&line[..colon]) {
                headers.set(header, || percent_decoded(line[colon + 1..].trim_ascii()));
            }
        }
        headers
    }

    fn set(&mut self, header: Header, value: impl FnOnce() -> Vec<u8>) {
        self.0[header as usize].get_or_insert_with(|| {
            let mut value = value();
            if value.len() > MAX_VALUE {
                value.truncate(MAX_VALUE);
                value.shrink_to_fit();
            }
            value
        });
    }

    fn get(&self, header: Header) -> &[u8] {
        self.0[header as usize].as_deref().unwrap_or_default()
    }

    fn take(&mut self, header: Header) -> Vec<u8> {
        self.0[header as usize].take().unwrap_or_default()
    }

    fn verdict(&self) -> Verdict {
        match self.get(Header::Verdict) {
            b"SUCCESS" | b"RENEWED" => Verdict::Accepted,
            b"FORBIDDEN" => Verdict::Refused,
            _ => Verdict::Open,
        }
    }

    fn method(&self) -> Method {
        match self.get(Header::Method) {
            b"REGISTER" => Method::Register,
            b"INVITE" => Method::Invite,
            _ => Method::Unknown,
        }
    }
}

/// What is no percent-encoding stays as it is.
fn percent_decoded(text: &[u8]) -> Vec<u8> {
    percent_encoding::percent_decode(text).collect()
}

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Headers, A::Error> {
                let mut headers = Headers::default();
                while let Some(Name(header)) = map.next_key()? {
                    if let Some(header) = header {
                        let Value(value) = map.next_value()?;
                        headers.set(header, || value);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(headers)
            }
        }

        json.deserialize_map(Object)
    }
}

struct Name(Option<Header>);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Name;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }

            fn visit_bytes<E: de::Error>(self, name: &[u8]) -> Result<Name, E> {
                Ok(Name(Header::named(name)))
            }
        }

        json.deserialize_bytes(Bytes)
    }
}

/// A string, which need not be UTF-8: FreeSWITCH passes on what it got.
struct Value(Vec<u8>);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl<'de> Visitor<'de> for Bytes {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<Value, E> {
                Ok(Value(value.to_vec()))
            }

            /// FreeSWITCH makes a list of a text that has `ARRAY::` in it. A plain event has the text.
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut text = b"ARRAY::".to_vec();
                while let Some(Value(item)) = list.next_element()? {
                    if text.len() > b"ARRAY::".len() {
                        text.extend(b"|:");
                    }
                    text.extend(item);
                }
                Ok(Value(text))
            }
        }

        json.deserialize_bytes(Bytes)
    }
}

impl fmt::Display for NotAnEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json(error) => write!(f, "an event is not the JSON that it should be: {error}"),
            Self::Time => f.write_str("an event has no Event-Date-Timestamp that is a time"),
            Self::Address => f.write_str("an event has no network-ip that is an address"),
        }
    }
}

impl std::error::Error for NotAnEvent {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::event_socket::frames::Frames;
    use crate::event_socket::recorded;

    fn event(form: &str, body: &[u8]) -> Result<Option<Event>, NotAnEvent> {
        let content_type = format!("text/event-{form}");
        Event::parse(&Frame { content_type, reply: String::new(), body: body.to_vec() })
    }

    fn recording(name: &str) -> Vec<Event> {
        let mut frames = Frames::new(1 << 20);
        for chunk in recorded::chunks(name) {
            frames.push(chunk.bytes());
        }
        let frames = std::iter::from_fn(|| frames.next().unwrap());
        frames.filter_map(|frame| Event::parse(&frame).unwrap()).collect()
    }

    fn party(user: &str, host: &str) -> Party {
        Party { user: user.into(), host: host.into() }
    }

    #[test]
    fn json_and_plain_tell_the_same() {
        for scenario in ["02", "03b"] {
            let [json, plain] = ["json", "plain"].map(|form| {
                let mut events = recording(&format!("events-{form}-{scenario}.jsonl"));
                for event in &mut events {
                    assert!(event.port.is_some());
                    (event.time, event.port) = (Timestamp::UNIX_EPOCH, None);
                    event.call_id.clear();
                }
                events
            });
            assert_eq!(json.len(), 3);
            assert_eq!(json, plain, "{scenario}");
        }
    }

    #[test]
    fn reads_what_the_log_needs() {
        let events = recording("events-json-05b.jsonl");
        let attempt = Event {
            subclass: Subclass::Attempt,
            time: "2026-11-20T13:31:24.94443Z".parse().unwrap(),
            address: Some("203.0.113.66".parse().unwrap()),
            port: Some(34295),
            from: party("101", "a.example.com"),
            to: party("102", "a.example.com"),
            digest: party("102", "a.example.com"),
            agent: b"LabPhone 1.0".into(),
            verdict: Verdict::Refused,
            method: Method::Unknown,
            call_id: b"be58f2b3@lab".into(),
            profile: b"internal".into(),
            expires: Some(300),
        };
        let failure = Event {
            subclass: Subclass::Failure,
            from: Party::default(),
            to: party("101", "a.example.com"),
            digest: Party::default(),
            verdict: Verdict::Open,
            method: Method::Invite,
            call_id: vec![],
            expires: None,
            ..attempt.clone()
        };
        assert_eq!(events[1..], [attempt, failure]);
        assert_eq!(events[1].claimed(), events[2].claimed());

        let register = &recording("events-json-01.jsonl")[2];
        assert_eq!((register.subclass, register.expires), (Subclass::Register, Some(300)));
    }

    const TIME: &str = "Event-Date-Timestamp: 1795181484944430\n";

    fn plain(subclass: &str, headers: &str) -> Result<Option<Event>, NotAnEvent> {
        let subclass = subclass.replace(':', "%3A");
        event("plain", format!("EVENT-subclass: {subclass}\r\n{TIME}{headers}").as_bytes())
    }

    #[test]
    fn verto_names_an_address_and_a_port() {
        for (address, expected) in [
            ("203.0.113.66%3A34295", Some(("203.0.113.66", 34295))),
            ("%5B2001:DB8::66%5D:1", Some(("2001:db8::66", 1))),
            ("2001:db8::66:443", Some(("2001:db8::66", 443))),
            ("[::ffff:203.0.113.66]:443", Some(("203.0.113.66", 443))),
            ("203.0.113.66", None),
            ("", None),
            ("[203.0.113.66:1", None),
        ] {
            let headers =
                format!("verto_client_address: {address}\nverto_success: 0\nverto_login: a%40b%40c\n");
            let read = plain("verto::login", &headers).map(|event| {
                let event = event.unwrap();
                assert_eq!((event.verdict, event.method), (Verdict::Refused, Method::Verto));
                assert_eq!(event.digest, party("a@b", "c"));
                (event.address.unwrap().to_string(), event.port.unwrap())
            });
            let expected = expected.map(|(address, port)| (address.to_owned(), port));
            assert_eq!(read, expected.ok_or(NotAnEvent::Address), "{address}");
        }
        let headers =
            "verto_client_address: [::1]:1\nverto_success: 1\nverto_profile_name: p\nverto_login: x";
        let login = plain("verto::login", headers).unwrap().unwrap();
        assert_eq!((login.verdict, login.digest), (Verdict::Accepted, party("x", "")));
        assert_eq!(login.profile, b"p");
    }

    #[test]
    fn an_expiry_has_names_of_its_own() {
        for headers in ["user: 101\nhost: a", "to-user: 101\nto-host: a", "USER: 101\nto-host: a"] {
            let event = plain("sofia::expire", headers).unwrap().unwrap();
            assert_eq!((event.claimed(), event.address), (&party("101", "a"), None));
        }
        let event = plain("sofia::expire", "network-ip: %3A%3A1").unwrap().unwrap();
        assert_eq!(event.address, Some("::1".parse().unwrap()));
    }

    #[test]
    fn others_are_none_and_wrong_ones_an_error() {
        let frame = |content_type: &str| Frame {
            content_type: content_type.into(),
            reply: String::new(),
            body: b"Event-Subclass: sofia::expire".to_vec(),
        };
        assert_eq!(Event::parse(&frame("command/reply")), Ok(None));
        assert_eq!(Event::parse(&frame("text/event-plain")), Err(NotAnEvent::Time));
        assert!(matches!(Event::parse(&frame("text/event-json")), Err(NotAnEvent::Json(_))));
        assert_eq!(plain("sofia::gateway_state", ""), Ok(None));
        assert_eq!(plain("", ""), Ok(None));
        for address in ["", "x", "1.2.3", "1.2.3.4:5060", "fe80::1%25eth0", "1.2.3.4%0A"] {
            let headers = format!("network-ip: {address}\n");
            assert_eq!(plain("sofia::register_failure", &headers), Err(NotAnEvent::Address), "{address}");
        }
        assert_eq!(plain("sofia::expire", "network-ip: x"), Err(NotAnEvent::Address));
        let late = b"Event-Subclass: sofia::expire\nEvent-Date-Timestamp: 9223372036854775807\n";
        assert_eq!(event("plain", late), Err(NotAnEvent::Time));
        for json in ["", "[]", "{", "{\"a\":", "{\"Event-Subclass\":1}", "{} x"] {
            assert!(matches!(event("json", json.as_bytes()), Err(NotAnEvent::Json(_))), "{json}");
        }
        for json in ["{}", "{\"a\":[1,{\"b\":null}],\"Event-Subclass\":\"CUSTOM\"}"] {
            assert_eq!(event("json", json.as_bytes()), Ok(None), "{json}");
        }
    }

    #[test]
    fn an_events_own_body_is_none_of_its_headers() {
        let headers = "network-ip: 1.2.3.4\nContent-Length: 20\n\nuser-agent: forged\n\n";
        assert_eq!(plain("sofia::register_failure", headers).unwrap().unwrap().agent, b"");
        let headers =
            "network-ip: 1.2.3.4\nnetwork-ip: 5.6.7.8\nuser-agent: one%0Auser-agent: two\nuser-agent: 3";
        let event = plain("sofia::register_failure", headers).unwrap().unwrap();
        assert_eq!(event.address, Some("1.2.3.4".parse().unwrap()));
        assert_eq!(event.agent, b"one\nuser-agent: two");
    }

    #[test]
    fn values_are_any_bytes() {
        for (json, plain, value) in [
            (&b"\"\xff\xfe\""[..], "%FF%fe", &b"\xff\xfe"[..]),
            (b"\"a\\n\\u0000\\\"\"", "a%0A%00%22", b"a\n\0\""),
            (b"\"100%\"", "100%", b"100%"),
            (b"\"%4\"", "%4", b"%4"),
            (b"\"%zz%\"", "%zz%", b"%zz%"),
            (b"\"+\"", "+", b"+"),
            (b"[\"a\",\"b\"]", "ARRAY%3A%3Aa%7C:b", b"ARRAY::a|:b"),
            (b"[\"\xff\"]", "ARRAY::%FF", b"ARRAY::\xff"),
        ] {
            let head = b"{\"Event-Subclass\":\"sofia::expire\",\"Event-Date-Timestamp\":\"0\",\"user\":";
            let json = event("json", &[head, json, b"}"].concat()).unwrap().unwrap();
            assert_eq!(json.to.user, value, "{plain}");
            let plain = format!("Event-Subclass: sofia::expire\nEvent-Date-Timestamp: 0\nuser: {plain}\n");
            assert_eq!(event("plain", plain.as_bytes()).unwrap().unwrap(), json);
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(body: Vec<u8>, json in "[{}\\[\\]\",:a-zA-Z0-9%\\\\-]{0,200}") {
            let _ = (event("json", &body), event("plain", &body));
            let _ = event("json", json.as_bytes());
        }

        #[test]
        fn percent_encoding_is_undone(value: Vec<u8>) {
            let encoded: String = value.iter().flat_map(|byte| ['%'.to_string(), format!("{byte:02X}")]).collect();
            prop_assert_eq!(percent_decoded(encoded.as_bytes()), value);
        }
    }
}
