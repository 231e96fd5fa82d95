use proptest::option;
use proptest::prelude::*;

use super::*;

/// The kinds and their keys, as documented.
const KINDS: [(&str, &str); 10] = [
    ("failure", "address method account [claimed] known [id] profile agent"),
    ("success", "address account expires profile agent"),
    ("unregister", "address account profile agent"),
    ("expire", "address account profile agent"),
    ("ip-domain", "address method account profile agent"),
    ("realm-mismatch", "address method account realm profile agent"),
    ("flood", "address rate"),
    ("spray", "address accounts"),
    ("alarm", "address sources"),
    ("excused", "address method account [claimed] known [id] profile agent"),
];

fn account(user: &[u8], domain: &[u8]) -> Account {
    Account { user: Text::new(user), domain: Text::new(domain) }
}

fn client(agent: &[u8]) -> Client {
    Client { profile: Text::new(b"internal"), agent: Text::new(agent) }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().unwrap())
}

fn line(entry: Entry) -> Line {
    Line { time: Time::from("2026-11-21T14:12:03.1239Z".parse::<Timestamp>().unwrap()), entry }
}

#[test]
fn is_written_as_documented() {
    let device = address("::ffff:203.0.113.66");
    let known = account(b"101", b"A.example.com");
    for (entry, expected) in [
        (
            Entry::Failure(Failure::new(
                device,
                Method::Register,
                known.clone(),
                None,
                Known::Yes,
                client(b"LabPhone 1.0"),
            )),
            "failure address=203.0.113.66 method=REGISTER account=101@A.example.com known=yes id=101@a.example.com,203.0.113.66 profile=internal agent=LabPhone%201.0",
        ),
        (
            Entry::Failure(Failure::new(
                device,
                Method::Unknown,
                account(b"-", b""),
                Some(account(b"\xff\n", b"a~b")),
                Known::No,
                client(b"-"),
            )),
            "failure address=203.0.113.66 method=unknown account=%2D@- claimed=%FF%0A@a%7Eb known=no profile=internal agent=%2D",
        ),
        (
            Entry::Success {
                address: address("2001:DB8::1"),
                account: known.clone(),
                expires: Some(300),
                client: client(b""),
            },
            "success address=2001:db8::1 account=101@A.example.com expires=300 profile=internal agent=-",
        ),
        (
            Entry::Success {
                address: device,
                account: known.clone(),
                expires: None,
                client: client(&[b'x'; 129]),
            },
            &format!(
                "success address=203.0.113.66 account=101@A.example.com expires=- profile=internal agent={}~",
                "x".repeat(128)
            ),
        ),
        (
            Entry::Unregister { address: None, account: known.clone(), client: client(b"--") },
            "unregister address=- account=101@A.example.com profile=internal agent=--",
        ),
        (
            Entry::Expire { address: Some(device), account: known.clone(), client: client(&[b' '; 43]) },
            &format!(
                "expire address=203.0.113.66 account=101@A.example.com profile=internal agent={}~",
                "%20".repeat(42)
            ),
        ),
        (
            Entry::IpDomain {
                address: device,
                method: Method::Verto,
                account: account(b"1@2", b"::1"),
                client: client(b"="),
            },
            "ip-domain address=203.0.113.66 method=VERTO account=1%402@%3A%3A1 profile=internal agent=%3D",
        ),
        (
            Entry::RealmMismatch {
                address: device,
                method: Method::Invite,
                account: known.clone(),
                realm: Text::new(b"1.1.1.1] from 198.51.100.11 "),
                client: client(b""),
            },
            "realm-mismatch address=203.0.113.66 method=INVITE account=101@A.example.com realm=1.1.1.1%5D%20from%20198.51.100.11%20 profile=internal agent=-",
        ),
        (Entry::Flood { address: device, rate: 0 }, "flood address=203.0.113.66 rate=0"),
        (Entry::Spray { address: device, accounts: 12 }, "spray address=203.0.113.66 accounts=12"),
        (Entry::Alarm { sources: u64::MAX }, "alarm address=- sources=18446744073709551615"),
        (
            Entry::Excused(Failure::new(device, Method::Register, known, None, Known::Unknown, client(b""))),
            "excused address=203.0.113.66 method=REGISTER account=101@A.example.com known=unknown profile=internal agent=-",
        ),
    ] {
        let line = line(entry);
        let expected = format!("2026-11-21T14:12:03.123Z v1 {expected}");
        assert_eq!(line.to_string(), expected);
        assert_eq!(Line::parse(expected.as_bytes()), Ok(line.clone()));
        let mut log = "x\n".to_owned();
        line.append_to(&mut log);
        assert_eq!(log, format!("x\n{expected}\n"));
    }
}

#[test]
fn an_id_is_only_of_who_can_be_named() {
    let id = |user: &[u8], domain: &[u8], known| {
        let account = account(user, domain);
        let failure =
            Failure::new(address("2001:db8::1"), Method::Register, account, None, known, client(b""));
        failure.id().map(ToString::to_string)
    };
    assert_eq!(id(b"a_B.1+-", b"D.example", Known::Yes).as_deref(), Some("a_B.1+-@d.example,2001:db8::1"));
    for (user, domain) in [
        (&b"101"[..], &b""[..]),
        (b"", b"d"),
        (b"-", b"d"),
        (b"a b", b"d"),
        (b"a,1.2.3.4", b"d"),
        (b"a\xc3\xb6", b"d"),
        (b"a\xff", b"d"),
        (b"101", b"-d"),
        (b"101", b"d..e"),
        (b"101", b"d+e"),
        (b"101", b"[::1]"),
        (&[b'a'; MAX_USER + 1], b"d"),
        (b"a", &[b'd'; MAX_DOMAIN + 1]),
    ] {
        assert_eq!(id(user, domain, Known::Yes), None, "{:?}", String::from_utf8_lossy(user));
    }
    for known in [Known::No, Known::Unknown] {
        assert_eq!(id(b"101", b"d", known), None);
    }
}

#[test]
fn reads_nothing_else() {
    use NotALine::{Key, Kind, Spelling, Value, Version};
    let good = "2026-11-21T14:12:03.123Z v1 failure address=203.0.113.66 method=REGISTER account=101@a.example.com \
        claimed=102@b known=yes id=101@a.example.com,203.0.113.66 profile=internal agent=LabPhone%201.0";
    assert!(Line::parse(good.as_bytes()).is_ok());
    for (from, to, why) in [
        ("2026-11-21T", "2026-11-21 ", NotALine::Time),
        ("2026-", "-2026-", NotALine::Time),
        (".123Z", "Z", Spelling),
        (".123Z", ".1234Z", Spelling),
        ("03.123Z", "03.123+00", Spelling),
        ("v1", "v2", Version),
        ("v1 failure", "v1", Kind),
        ("failure", "Failure", Kind),
        ("failure", "success", Key("account")),
        ("address=", " address=", Key("address")),
        ("203.0.113.66 ", "x ", Value("address")),
        ("address=203.0.113.66", "address=-", Value("address")),
        ("address=203.0.113.66", "address=::ffff:203.0.113.66", Spelling),
        ("address=203.0.113.66", "address=203.0.113.67", Spelling),
        ("method=REGISTER", "method=register", Value("method")),
        ("method=REGISTER ", "", Key("method")),
        ("account=101@", "account=101%40", Value("account")),
        ("account=101", "account=%31%30%31", Spelling),
        ("account=101", "account=-", Spelling),
        ("account=101", "account=", Spelling),
        ("account=101", "account=101~", Value("account")),
        ("claimed=102@b", "claimed=101@A.example.com", Spelling),
        ("claimed=102@b", "claimed=102@b@c", Spelling),
        ("known=yes", "known=", Value("known")),
        ("known=yes", "known=no", Spelling),
        (" id=101@a.example.com,203.0.113.66", "", Spelling),
        ("id=101", "id=102", Spelling),
        ("agent=LabPhone%201.0", "agent=", Spelling),
        ("LabPhone%201.0", "LabPhone%2", Value("agent")),
        ("LabPhone%20", "LabPhone%2g", Value("agent")),
        ("LabPhone%201.0", "LabPhone%c3", Spelling),
        ("LabPhone%201.0", "LabPhone%", Value("agent")),
        ("LabPhone", "Lab\"Phone", Spelling),
        ("1.0", "1.0 ", Spelling),
        ("1.0", "1.0\n", Spelling),
        ("1.0", "1.0 more=x", Spelling),
        ("profile=internal", "profile=internal profile=internal", Key("agent")),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        assert_eq!(Line::parse(bad.as_bytes()), Err(why), "{bad}");
    }
    assert_eq!(Line::parse(b"\xff"), Err(Spelling));
    assert_eq!(Line::parse(b""), Err(NotALine::Time));
    let flood = "2026-11-21T14:12:03.123Z v1 flood address=203.0.113.66 rate=";
    for (rate, why) in [("01", Spelling), ("+1", Spelling), ("-1", Value("rate")), ("", Value("rate"))] {
        assert_eq!(Line::parse(format!("{flood}{rate}").as_bytes()), Err(why), "{rate}");
    }
}

#[test]
fn times_have_milliseconds_and_four_digits() {
    for (time, expected) in [
        ("2026-11-21T14:12:03.9999999Z", "2026-11-21T14:12:03.999Z"),
        ("-000100-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ("1969-12-31T23:59:59.9999Z", "1970-01-01T00:00:00.000Z"),
        ("9999-12-30T21:59:59.9999Z", "9999-12-30T21:59:59.999Z"),
        ("9999-12-30T22:00:00.9999Z", "9999-12-30T22:00:00.000Z"),
    ] {
        let time = Time::from(time.parse::<Timestamp>().unwrap());
        assert_eq!(time.to_string(), expected);
        assert_eq!(Time::from(time.get()), time);
    }
}

/// The kind that a filter for it would find: its word, and its keys in their order.
fn matching(line: &str) -> Vec<&'static str> {
    let mut words = line.split(' ').skip(1);
    let (version, kind) = (words.next().unwrap(), words.next().unwrap());
    assert_eq!(version, "v1");
    let keys: Vec<_> = words.map(|word| word.split_once('=').unwrap().0).collect();
    let fits = |pattern: &str| {
        let mut keys = keys.iter().peekable();
        let found =
            pattern.split(' ').all(|key| match key.strip_prefix('[').and_then(|key| key.strip_suffix(']')) {
                Some(optional) => {
                    keys.next_if(|key| **key == optional);
                    true
                }
                None => keys.next_if(|found| **found == key).is_some(),
            });
        found && keys.next().is_none()
    };
    KINDS.iter().filter(|(word, keys)| *word == kind && fits(keys)).map(|(word, _)| *word).collect()
}

/// Bytes of all kinds, those that would do harm among them.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        "[a-zA-Z0-9._+-]{0,300}".prop_map(String::into_bytes),
        "( v1 | failure |address=1.2.3.4|id=|@|~|-|%41|\n|\"|\\]|[a-z0-9]{0,9}){0,20}"
            .prop_map(String::into_bytes),
    ]
}

prop_compose! {
    fn any_account()(user in bytes(), domain in bytes()) -> Account {
        account(&user, &domain)
    }
}

prop_compose! {
    fn any_client()(profile in bytes(), agent in bytes()) -> Client {
        Client { profile: Text::new(&profile), agent: Text::new(&agent) }
    }
}

fn any_method() -> impl Strategy<Value = Method> {
    proptest::sample::select(vec![Method::Register, Method::Invite, Method::Verto, Method::Unknown])
}

fn any_address() -> impl Strategy<Value = Address> {
    any::<IpAddr>().prop_map(Address::from)
}

fn any_failure() -> impl Strategy<Value = Failure> {
    let known = proptest::sample::select(vec![Known::Yes, Known::No, Known::Unknown]);
    let of = (any_address(), any_method(), any_account(), option::of(any_account()), known, any_client());
    of.prop_map(|(address, method, account, claimed, known, client)| {
        Failure::new(address, method, account, claimed, known, client)
    })
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let of = || (any_address(), any_account(), any_client());
    prop_oneof![
        any_failure().prop_map(Entry::Failure),
        any_failure().prop_map(Entry::Excused),
        (of(), any::<Option<u64>>()).prop_map(|((address, account, client), expires)| Entry::Success {
            address,
            account,
            expires,
            client
        }),
        (of(), any::<bool>()).prop_map(|((address, account, client), any)| {
            let address = Some(address).filter(|_| any);
            Entry::Unregister { address, account, client }
        }),
        (of(), any::<bool>()).prop_map(|((address, account, client), any)| {
            let address = Some(address).filter(|_| any);
            Entry::Expire { address, account, client }
        }),
        (of(), any_method()).prop_map(|((address, account, client), method)| Entry::IpDomain {
            address,
            method,
            account,
            client
        }),
        (of(), any_method(), bytes()).prop_map(|((address, account, client), method, realm)| {
            Entry::RealmMismatch { address, method, account, realm: Text::new(&realm), client }
        }),
        (any_address(), any::<u64>()).prop_map(|(address, rate)| Entry::Flood { address, rate }),
        (any_address(), any::<u64>()).prop_map(|(address, accounts)| Entry::Spray { address, accounts }),
        any::<u64>().prop_map(|sources| Entry::Alarm { sources }),
    ]
}

proptest! {
    #[test]
    fn no_bytes_do_harm(entry in any_entry(), second in 0i64..253_402_207_200) {
        let time = Time::from(Timestamp::from_second(second).unwrap());
        let line = Line { time, entry };
        let written = line.to_string();
        prop_assert!(written.len() < MAX_LINE, "{}", written.len());
        let harmless = |c: char| c.is_ascii_alphanumeric() || "._+-%@,:=~ ".contains(c);
        prop_assert!(written.chars().all(harmless), "{}", written);
        prop_assert_eq!(matching(&written), [line.entry.kind()]);
        prop_assert_eq!(Line::parse(written.as_bytes()), Ok(line));
    }

    #[test]
    fn a_text_is_whole_or_cut_where_it_must_be(bytes in bytes()) {
        let text = Text::<MAX_USER>::new(&bytes);
        let mut written = String::new();
        write!(written, "{}", Field::from(&text)).unwrap();
        prop_assert!(bytes.starts_with(text.bytes()));
        prop_assert_eq!(text.is_cut(), text.bytes().len() < bytes.len());
        prop_assert_eq!(text.is_cut(), written.ends_with('~'));
        let written = written.trim_end_matches('~');
        prop_assert!(written.len() <= MAX_USER && (!text.is_cut() || written.len() + ENCODED > MAX_USER));
    }

    #[test]
    fn ids_name_offenders(failure in any_failure()) {
        if let Some(id) = failure.id() {
            prop_assert_eq!(id.to_string().parse::<Offender>().unwrap(), id.clone());
        }
    }

    #[test]
    fn what_is_read_is_what_would_be_written(
        line in "2026-11-21T14:12:03.123Z v1 (flood|success) address=(-|1.2.3.4|::1) (rate=[0-9]{1,3}|account=(a|%41|-|%2D|~)@b expires=-? profile=x agent=[x%0-9A-Fa-f~-]{0,6})",
    ) {
        if let Ok(read) = Line::parse(line.as_bytes()) {
            prop_assert_eq!(read.to_string(), line);
        }
    }

    #[test]
    fn nothing_panics(line: Vec<u8>) {
        let _ = Line::parse(&line);
    }
}
