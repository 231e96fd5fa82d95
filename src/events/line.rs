//! The log that fail2ban reads, format version 1: one event a line, which no client can forge.
//!
//! ```text
//! 2026-11-21T14:12:03.123Z v1 KIND address=ADDRESS KEY=VALUE ...
//! ```
//!
//! The time is UTC and FreeSWITCH's, in milliseconds. One blank stands between the parts, and a line feed at the end. The
//! kinds, and the keys of each, which are always in this order; those in brackets are there only when there is something
//! to say:
//!
//! | kind | what happened | keys |
//! |---|---|---|
//! | `failure` | credentials were refused | `address method account [claimed] known [id] profile agent` |
//! | `success` | a phone registered, or logged in | `address account expires profile agent` |
//! | `unregister` | a phone registers no longer | `address account profile agent` |
//! | `expire` | a registration ended by itself | `address account profile agent` |
//! | `ip-domain` | a failure's or challenge's domain is an IP address | `address method account profile agent` |
//! | `realm-mismatch` | a failure's realm is not its domain | `address method account realm profile agent` |
//! | `flood` | an address asks without credentials very often | `address rate` |
//! | `spray` | an address fails on many accounts that exist | `address accounts` |
//! | `alarm` | many known sources begin to fail at once | `address sources` |
//! | `excused` | a known source fails during an alarm | as of `failure` |
//!
//! `ip-domain` and `realm-mismatch` come besides the `failure`, behind it; of challenges, `ip-domain` comes alone, and at most
//! once a second for each address.
//!
//! - `address`: where the packet came from, IPv4, or IPv6 as of RFC 5952, never an IPv4-mapped one. `-` in each `alarm`,
//!   and in `unregister` and `expire` where FreeSWITCH does not say it.
//! - `method`: `REGISTER`, `INVITE` or `VERTO`; `unknown` where FreeSWITCH's word on it is missing.
//! - `account`: `USER@DOMAIN`, which is the credentials' user name and realm; where they name no user, the account that To
//!   or From names. In `realm-mismatch`, always the latter.
//! - `claimed`: `USER@DOMAIN`, the account that To or From names, where it is another one than `account`. Domains are
//!   compared without regard to case.
//! - `known`: whether `account` exists: `yes`, `no`, or `unknown` where nobody could be asked, where it has no domain,
//!   or where it does not exist, and its realm is not the domain that is claimed: that may be a realm for many domains.
//! - `id`: `USER@DOMAIN,ADDRESS`, this device of this account, as `ringfence-block` takes it; the domain is in lower case.
//!   There only if `known=yes`, user and domain are of `A-Z a-z 0-9 . _ + -` alone, not cut, and a SIP account's, and the
//!   address is not the unspecified one.
//! - `realm`: the credentials' realm.
//! - `expires`: in so many seconds; `-` where FreeSWITCH does not say it.
//! - `rate`: so many within the second, which are more than may be; it may have become more.
//! - `accounts`, `sources`: so many different accounts, of which no more than 20 are counted, or addresses.
//! - `profile`: the SIP or Verto profile.
//! - `agent`: what the client calls itself.
//!
//! Numbers are decimal, without a sign or leading zeros. In users, domains, `realm`, `profile` and `agent`, each byte but
//! `A-Z a-z 0-9 . _ + -` is written `%XX`, its value in two upper-case hexadecimal digits. One that is empty is
//! `-`, one that is a lone `-` is `%2D`. An account is a user and a domain so written, with an `@` between them.
//!
//! A text that would be too long is cut between two bytes, and a `~` follows; there is no other `~`. So many bytes are
//! written at most, the `~` not counted: user 96, domain and `realm` 95, `profile` 64, `agent` 128. No line has more
//! than 1,000 bytes, its line feed included.
//!
//! Other keys, other kinds or another order will have another `v`.

use std::fmt::{self, Write};
use std::net::IpAddr;

use jiff::Timestamp;

use super::event::{Method, Party};
use crate::account::{Offender, SipAccount};
use crate::address;
use crate::evidence::visible;

/// No line is longer, in bytes, its line feed included.
pub const MAX_LINE: usize = 1_000;

/// So many bytes of a user are written at most.
pub const MAX_USER: usize = 96;

/// So many bytes of a domain or realm are written at most.
pub const MAX_DOMAIN: usize = 95;

/// So many bytes of a profile's name are written at most.
pub const MAX_PROFILE: usize = 64;

/// So many bytes of a user agent are written at most.
pub const MAX_AGENT: usize = 128;

/// All kinds of lines.
pub const KINDS: [&str; 10] = [
    "failure",
    "success",
    "unregister",
    "expire",
    "ip-domain",
    "realm-mismatch",
    "flood",
    "spray",
    "alarm",
    "excused",
];

/// A byte is written as at most so many.
const ENCODED: usize = 3;

/// A line of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub time: Time,
    /// What.
    pub entry: Entry,
}

/// What a line says; the module's documentation has the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the keys")]
pub enum Entry {
    /// Credentials were refused.
    Failure(Failure),
    /// A phone registered, or logged in. `expires` is in seconds.
    Success { address: Address, account: Account, expires: Option<u64>, client: Client },
    /// A phone registers no longer.
    Unregister { address: Option<Address>, account: Account, client: Client },
    /// A registration ended by itself.
    Expire { address: Option<Address>, account: Account, client: Client },
    /// The domain of what fails is an IP address.
    IpDomain { address: Address, method: Method, account: Account, client: Client },
    /// The realm of what fails is not its domain.
    RealmMismatch {
        address: Address,
        method: Method,
        account: Account,
        realm: Text<MAX_DOMAIN>,
        client: Client,
    },
    /// An address asks without credentials very often: so many requests within a second.
    Flood { address: Address, rate: u64 },
    /// An address fails on so many accounts that exist.
    Spray { address: Address, accounts: u64 },
    /// So many known sources begin to fail at once.
    Alarm { sources: u64 },
    /// A failure of a known source during an alarm: the PBX is in trouble, not he, and nobody is to be banned for it.
    Excused(Failure),
}

/// Refused credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    address: Address,
    method: Method,
    account: Account,
    claimed: Option<Account>,
    known: Known,
    id: Option<Offender>,
    client: Client,
}

/// Whether an account exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Whoever knows could not be asked.
    Unknown,
}

/// What an entry says of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The profile that it talks to.
    pub profile: Text<MAX_PROFILE>,
    /// What it calls itself.
    pub agent: Text<MAX_AGENT>,
}

/// A user at a domain, both any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Before the `@`.
    pub user: Text<MAX_USER>,
    /// Behind it.
    pub domain: Text<MAX_DOMAIN>,
}

/// A key's value.
#[derive(Clone, Copy, Debug)]
pub enum Field<'a> {
    /// None where it is not known.
    Address(Option<Address>),
    /// One of few words.
    Word(&'static str),
    /// A user at a domain.
    Account(&'a Account),
    /// A device of an account.
    Id(&'a Offender),
    /// Any bytes, cut or not.
    Text {
        /// What is left of them.
        bytes: &'a [u8],
        /// Whether there were more.
        cut: bool,
    },
    /// None where it is not known.
    Number(Option<u64>),
}

/// Any bytes, or the first of them: so many as can be written as `MAX` bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<const MAX: usize> {
    bytes: Box<[u8]>,
    cut: bool,
}

/// An address that is no IPv4-mapped one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(IpAddr);

/// A millisecond of the years 1970 to 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(Timestamp);

/// Why a text is no line of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotALine {
    /// There is no time at its start.
    Time,
    /// It is of another version.
    Version,
    /// There is no such kind.
    Kind,
    /// This key does not stand where it should.
    Key(&'static str),
    /// This key's value is none.
    Value(&'static str),
    /// It means something, and would be written otherwise.
    Spelling,
}

impl Line {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else.
    pub fn parse(line: &[u8]) -> Result<Self, NotALine> {
        let text = std::str::from_utf8(line).map_err(|_| NotALine::Spelling)?;
        let mut words = Words(text.split(' '));
        let time = words.0.next().and_then(|time| time.parse::<Timestamp>().ok()).ok_or(NotALine::Time)?;
        if words.0.next() != Some("v1") {
            return Err(NotALine::Version);
        }
        let entry = words.entry()?;
        let line = Self { time: Time::from(time), entry };
        // Reading need not know all that is never written.
        let mut rest = Expected(text);
        if line.write(&mut rest).is_ok() && rest.0.is_empty() { Ok(line) } else { Err(NotALine::Spelling) }
    }

    /// Writes the line and its line feed behind what `log` has.
    pub fn append_to(&self, log: &mut String) {
        // A String takes everything.
        let _ = self.write(log);
        log.push('\n');
    }

    fn write(&self, out: &mut impl Write) -> fmt::Result {
        let mut written = write!(out, "{} v1 {}", self.time, self.entry.kind());
        self.entry.each(|key, value| written = written.and_then(|()| write!(out, " {key}={value}")));
        written
    }
}

impl Entry {
    /// The word behind the version.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Failure(_) => "failure",
            Self::Success { .. } => "success",
            Self::Unregister { .. } => "unregister",
            Self::Expire { .. } => "expire",
            Self::IpDomain { .. } => "ip-domain",
            Self::RealmMismatch { .. } => "realm-mismatch",
            Self::Flood { .. } => "flood",
            Self::Spray { .. } => "spray",
            Self::Alarm { .. } => "alarm",
            Self::Excused(_) => "excused",
        }
    }

    /// All keys with their values, in the log's order.
    pub fn each<'a>(&'a self, mut each: impl FnMut(&'static str, Field<'a>)) {
        match self {
            Self::Failure(failure) | Self::Excused(failure) => failure.each(each),
            Self::Success { address, account, expires, client } => {
                each("address", Field::Address(Some(*address)));
                each("account", Field::Account(account));
                each("expires", Field::Number(*expires));
                client.each(each);
            }
            Self::Unregister { address, account, client } | Self::Expire { address, account, client } => {
                each("address", Field::Address(*address));
                each("account", Field::Account(account));
                client.each(each);
            }
            Self::IpDomain { address, method, account, client } => {
                each("address", Field::Address(Some(*address)));
                each("method", Field::Word(method.word()));
                each("account", Field::Account(account));
                client.each(each);
            }
            Self::RealmMismatch { address, method, account, realm, client } => {
                each("address", Field::Address(Some(*address)));
                each("method", Field::Word(method.word()));
                each("account", Field::Account(account));
                each("realm", realm.into());
                client.each(each);
            }
            Self::Flood { address, rate } => {
                each("address", Field::Address(Some(*address)));
                each("rate", Field::Number(Some(*rate)));
            }
            Self::Spray { address, accounts } => {
                each("address", Field::Address(Some(*address)));
                each("accounts", Field::Number(Some(*accounts)));
            }
            Self::Alarm { sources } => {
                each("address", Field::Address(None));
                each("sources", Field::Number(Some(*sources)));
            }
        }
    }
}

impl Failure {
    /// A failure of `account`, which To or From perhaps call something else.
    #[must_use]
    pub fn new(
        address: Address,
        method: Method,
        account: Account,
        claimed: Option<Account>,
        known: Known,
        client: Client,
    ) -> Self {
        let claimed = claimed.filter(|claimed| !claimed.is_same(&account));
        let id = if known == Known::Yes { account.at(address) } else { None };
        Self { address, method, account, claimed, known, id, client }
    }

    /// Where it came from.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The account of the credentials; if there are none, the one that is claimed.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The account that To or From names, if it is another one.
    #[must_use]
    pub fn claimed(&self) -> Option<&Account> {
        self.claimed.as_ref()
    }

    /// Whether the account exists.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known
    }

    /// The device that fails, if its account exists and can be written plainly.
    #[must_use]
    pub fn id(&self) -> Option<&Offender> {
        self.id.as_ref()
    }

    /// What is known of the client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    fn each<'a>(&'a self, mut each: impl FnMut(&'static str, Field<'a>)) {
        each("address", Field::Address(Some(self.address)));
        each("method", Field::Word(self.method.word()));
        each("account", Field::Account(&self.account));
        if let Some(claimed) = &self.claimed {
            each("claimed", Field::Account(claimed));
        }
        each("known", Field::Word(self.known.word()));
        if let Some(id) = &self.id {
            each("id", Field::Id(id));
        }
        self.client.each(each);
    }
}

impl Known {
    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

impl Method {
    fn word(self) -> &'static str {
        match self {
            Self::Register => "REGISTER",
            Self::Invite => "INVITE",
            Self::Verto => "VERTO",
            Self::Unknown => "unknown",
        }
    }
}

impl Client {
    fn each<'a>(&'a self, mut each: impl FnMut(&'static str, Field<'a>)) {
        each("profile", (&self.profile).into());
        each("agent", (&self.agent).into());
    }
}

impl Account {
    /// Whether both are one account: domains are compared without regard to case.
    fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.domain, &other.domain);
        self.user == other.user && one.cut == two.cut && one.bytes.eq_ignore_ascii_case(&two.bytes)
    }

    /// Its device there, if nothing of it would have to be encoded, and somebody may have the address.
    fn at(&self, address: Address) -> Option<Offender> {
        let account = SipAccount::new(self.user.plain()?, self.domain.plain()?).ok()?;
        let somebody = Some(address.0).filter(|address| !address.is_unspecified());
        somebody.map(|source| Offender { account, source: Some(source) })
    }

    fn parse(text: &str) -> Option<Self> {
        let (user, domain) = text.split_once('@')?;
        Some(Self { user: Text::parse(user)?, domain: Text::parse(domain)? })
    }
}

impl From<&Party> for Account {
    fn from(party: &Party) -> Self {
        Self { user: Text::new(&party.user), domain: Text::new(&party.host) }
    }
}

impl<'a, const MAX: usize> From<&'a Text<MAX>> for Field<'a> {
    fn from(text: &'a Text<MAX>) -> Self {
        Self::Text { bytes: &text.bytes, cut: text.cut }
    }
}

impl<const MAX: usize> Text<MAX> {
    /// These bytes, cut if they are too many.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut length = 0;
        let fits = |byte: &&u8| {
            length += if is_plain(**byte) { 1 } else { ENCODED };
            length <= MAX
        };
        let fitting = bytes.iter().take_while(fits).count();
        Self { bytes: bytes[..fitting].into(), cut: fitting < bytes.len() }
    }

    /// What is left of the bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether there were more.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// The text, if it is whole and nothing of it is encoded.
    fn plain(&self) -> Option<&str> {
        let plain = !self.cut && self.bytes.iter().all(|byte| is_plain(*byte)) && *self.bytes != *b"-";
        std::str::from_utf8(&self.bytes).ok().filter(|_| plain)
    }

    fn parse(text: &str) -> Option<Self> {
        let (text, cut) = text.strip_suffix('~').map_or((text, false), |text| (text, true));
        // It was cut for want of space, and ends where the next byte would not have had any.
        if text.len() > MAX || cut && text.len() + ENCODED <= MAX {
            return None;
        }
        if text == "-" {
            return Some(Self::new(b""));
        }
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(if byte == b'%' { digit(rest.next()?)? << 4 | digit(rest.next()?)? } else { byte });
        }
        Some(Self { bytes: bytes.into(), cut })
    }
}

impl Field<'_> {
    /// As people read it: nothing encoded, control characters made visible, a cut marked, and `-` where there is nothing.
    #[must_use]
    pub fn readable(self) -> String {
        match self {
            Self::Text { bytes: [], .. } => "-".to_owned(),
            Self::Text { bytes, cut } => {
                visible(&String::from_utf8_lossy(bytes)) + if cut { "\u{2026}" } else { "" }
            }
            Self::Account(Account { user, domain }) => {
                format!("{}@{}", Field::from(user).readable(), Field::from(domain).readable())
            }
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Field<'_> {
    /// As the log has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(Some(address)) => address.fmt(f),
            Self::Number(Some(number)) => number.fmt(f),
            Self::Address(None) | Self::Number(None) => f.write_char('-'),
            Self::Word(word) => f.write_str(word),
            Self::Id(id) => id.fmt(f),
            Self::Account(account) => {
                write!(f, "{}@{}", Field::from(&account.user), Field::from(&account.domain))
            }
            Self::Text { bytes, cut } => write_text(bytes, *cut, f),
        }
    }
}

fn write_text(bytes: &[u8], cut: bool, out: &mut impl Write) -> fmt::Result {
    match bytes {
        [] => return out.write_char('-'),
        b"-" => return out.write_str("%2D"),
        _ => {}
    }
    for piece in bytes.chunk_by(|one, next| is_plain(*one) == is_plain(*next)) {
        match std::str::from_utf8(piece) {
            Ok(plain) if is_plain(piece[0]) => out.write_str(plain)?,
            _ => piece.iter().try_for_each(|byte| write_encoded(*byte, out))?,
        }
    }
    if cut { out.write_char('~') } else { Ok(()) }
}

/// Whether a byte is written as it is.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'+' | b'-')
}

fn write_encoded(byte: u8, out: &mut impl Write) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.write_char('%')?;
    out.write_char(DIGITS[usize::from(byte >> 4)].into())?;
    out.write_char(DIGITS[usize::from(byte & 15)].into())
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| digit.try_into().ok())
}

impl Address {
    /// The address.
    #[must_use]
    pub fn get(self) -> IpAddr {
        self.0
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(address.to_canonical())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Time {
    /// The point in time.
    #[must_use]
    pub fn get(self) -> Timestamp {
        self.0
    }
}

impl From<Timestamp> for Time {
    /// Rounds down to a millisecond; what is before or behind these years is their first or last one.
    fn from(time: Timestamp) -> Self {
        let millisecond = time.as_millisecond().clamp(0, Timestamp::MAX.as_second() * 1_000);
        Self(Timestamp::from_millisecond(millisecond).unwrap_or_default())
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3}", self.0)
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f)
    }
}

/// What is still to be written, and nothing else.
struct Expected<'a>(&'a str);

impl Write for Expected<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 = self.0.strip_prefix(text).ok_or(fmt::Error)?;
        Ok(())
    }
}

/// What is left of a line, word by word.
struct Words<'a>(std::str::Split<'a, char>);

impl<'a> Words<'a> {
    fn entry(&mut self) -> Result<Entry, NotALine> {
        let kind = self.0.next();
        Ok(match kind.ok_or(NotALine::Kind)? {
            "failure" => Entry::Failure(self.failure()?),
            "excused" => Entry::Excused(self.failure()?),
            "success" => Entry::Success {
                address: self.address()?,
                account: self.account()?,
                expires: self
                    .value("expires", |text| if text == "-" { Some(None) } else { number(text).map(Some) })?,
                client: self.client()?,
            },
            "unregister" => Entry::Unregister {
                address: self.address_if_any()?,
                account: self.account()?,
                client: self.client()?,
            },
            "expire" => Entry::Expire {
                address: self.address_if_any()?,
                account: self.account()?,
                client: self.client()?,
            },
            "ip-domain" => Entry::IpDomain {
                address: self.address()?,
                method: self.method()?,
                account: self.account()?,
                client: self.client()?,
            },
            "realm-mismatch" => Entry::RealmMismatch {
                address: self.address()?,
                method: self.method()?,
                account: self.account()?,
                realm: self.value("realm", Text::parse)?,
                client: self.client()?,
            },
            "flood" => Entry::Flood { address: self.address()?, rate: self.value("rate", number)? },
            "spray" => Entry::Spray { address: self.address()?, accounts: self.value("accounts", number)? },
            "alarm" => {
                self.value("address", |text| (text == "-").then_some(()))?;
                Entry::Alarm { sources: self.value("sources", number)? }
            }
            _ => return Err(NotALine::Kind),
        })
    }

    fn failure(&mut self) -> Result<Failure, NotALine> {
        let (address, method, account) = (self.address()?, self.method()?, self.account()?);
        let claimed = self.value_if_any("claimed", Account::parse)?;
        let known = self.value("known", |text| {
            [Known::Yes, Known::No, Known::Unknown].into_iter().find(|known| known.word() == text)
        })?;
        // It is known from the others, and is compared with all else.
        self.value_if_any("id", Some)?;
        Ok(Failure::new(address, method, account, claimed, known, self.client()?))
    }

    fn address(&mut self) -> Result<Address, NotALine> {
        self.value("address", |text| address::parse_text(text).map(Address))
    }

    fn address_if_any(&mut self) -> Result<Option<Address>, NotALine> {
        let read = |text| address::parse_text(text).map(|address| Some(Address(address)));
        self.value("address", |text| if text == "-" { Some(None) } else { read(text) })
    }

    fn method(&mut self) -> Result<Method, NotALine> {
        let methods = [Method::Register, Method::Invite, Method::Verto, Method::Unknown];
        self.value("method", |text| methods.into_iter().find(|method| method.word() == text))
    }

    fn account(&mut self) -> Result<Account, NotALine> {
        self.value("account", Account::parse)
    }

    fn client(&mut self) -> Result<Client, NotALine> {
        Ok(Client { profile: self.value("profile", Text::parse)?, agent: self.value("agent", Text::parse)? })
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<T, NotALine> {
        self.value_if_any(key, read)?.ok_or(NotALine::Key(key))
    }

    /// None if another key comes next.
    fn value_if_any<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&'a str) -> Option<T>,
    ) -> Result<Option<T>, NotALine> {
        let word = self.0.clone().next();
        let Some(value) = word.and_then(|word| word.strip_prefix(key)?.strip_prefix('=')) else {
            return Ok(None);
        };
        self.0.next();
        read(value).map(Some).ok_or(NotALine::Value(key))
    }
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok()
}

impl fmt::Display for NotALine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => f.write_str("it does not begin with a time"),
            Self::Version => f.write_str("it is not of version v1"),
            Self::Kind => f.write_str("there is no such kind of line"),
            Self::Key(key) => write!(f, "{key}= is not where it should be"),
            Self::Value(key) => write!(f, "the value of {key}= is none"),
            Self::Spelling => f.write_str("it is not written as the log writes it"),
        }
    }
}

impl std::error::Error for NotALine {}

#[cfg(test)]
mod tests;
