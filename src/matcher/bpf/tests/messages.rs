//! Messages, and what each matcher makes of them where 999@a.example.com is blocked.

/// A message, and who drops it.
pub(super) struct Case {
    pub(super) what: &'static str,
    pub(super) message: Message,
    /// The kernel program, and its model.
    pub(super) bpf: bool,
    /// Patterns in iptables.
    pub(super) strings: bool,
}

#[derive(Clone, Copy)]
pub(super) enum Message {
    /// In a request whose From is somebody else.
    Headers(&'static str),
    /// As it is.
    Whole(&'static str),
    /// A header with credentials behind so many bytes of others.
    Behind(usize),
}

use Message::{Behind, Headers, Whole};

/// A `REGISTER` of somebody else with these header lines.
pub(super) fn register(headers: &str) -> String {
    format!(
        "REGISTER sip:a.example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.66:5060;branch=z9hG4bK-524287;rport\r\n\
         From: <sip:998@b.example.com>;tag=7f3b\r\nTo: <sip:998@b.example.com>\r\nCall-ID: 1-4711@203.0.113.66\r\n\
         CSeq: 2 REGISTER\r\n{headers}\r\nContact: <sip:999@203.0.113.66:5060>\r\nContent-Length: 0\r\n\r\n"
    )
}

pub(super) fn filled(message: Message) -> Vec<u8> {
    let text = match message {
        Headers(headers) => register(headers),
        Whole(text) => text.to_owned(),
        Behind(bytes) => {
            let header = "Authorization: Digest username=\"999\", realm=\"a.example.com\"";
            let with = |fill: usize| register(&format!("X-Filler: {}\r\n{header}", "x".repeat(fill)));
            let least = with(0).find(header).unwrap() + header.len();
            with(bytes - least)
        }
    };
    text.into_bytes()
}

const fn case(what: &'static str, message: Message, bpf: bool, strings: bool) -> Case {
    Case { what, message, bpf, strings }
}

pub(super) const CASES: &[Case] = &[
    // What phones send.
    case(
        "usual",
        Headers("Authorization: Digest username=\"999\", realm=\"a.example.com\", nonce=\"5f\""),
        true,
        true,
    ),
    case(
        "a proxy's",
        Headers("Proxy-Authorization: Digest username=\"999\",realm=\"a.example.com\",nonce=\"5f\""),
        true,
        true,
    ),
    case(
        "realm first",
        Headers(
            "Authorization:  Digest realm=\"a.example.com\", nonce=\"5f\", algorithm=MD5, username=\"999\",  qop=auth",
        ),
        true,
        true,
    ),
    case(
        "at the end",
        Headers("Authorization: Digest nonce=\"5f\", qop=auth, realm=\"a.example.com\", username=\"999\""),
        true,
        true,
    ),
    case(
        "folded",
        Headers("Authorization: Digest username=\"999\",realm=\"a.example.com\",\r\n  nonce=\"5f\""),
        true,
        true,
    ),
    case(
        "folded between",
        Headers("Authorization: Digest\r\n username=\"999\"\r\n\t,\r\n realm=\"a.example.com\""),
        true,
        true,
    ),
    case(
        "the domain in capitals",
        Headers("Authorization: Digest username=\"999\", realm=\"A.Example.COM\""),
        true,
        true,
    ),
    case(
        "the header in capitals",
        Headers("AUTHORIZATION : digest username=\"999\", realm=\"a.example.com\""),
        true,
        true,
    ),
    case("a tab", Headers("Authorization:\tDIGEST\tusername=\"999\",\trealm=\"a.example.com\""), true, true),
    // What FreeSWITCH understands, and the strings matcher misses.
    case(
        "parameters in capitals",
        Headers("Authorization: Digest USERNAME=\"999\", Realm=\"a.example.com\""),
        true,
        false,
    ),
    case("no quotes", Headers("Authorization: Digest username=999, realm=a.example.com"), true, false),
    case(
        "no quotes, and nothing behind",
        Headers("Authorization: Digest realm=a.example.com,username=999"),
        true,
        false,
    ),
    case(
        "blanks around the sign",
        Headers("Authorization: Digest username = \"999\", realm =\"a.example.com\""),
        true,
        false,
    ),
    case(
        "folded around the sign",
        Headers("Authorization: Digest username\r\n =\r\n \"999\", realm= \"a.example.com\""),
        true,
        false,
    ),
    // Others.
    case(
        "another user",
        Headers("Authorization: Digest username=\"998\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "another domain",
        Headers("Authorization: Digest username=\"999\", realm=\"b.example.com\""),
        false,
        false,
    ),
    case(
        "a longer user",
        Headers("Authorization: Digest username=\"9999\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "a user with a blank",
        Headers("Authorization: Digest username=\" 999\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "a longer domain",
        Headers("Authorization: Digest username=\"999\", realm=\"a.example.com.\""),
        false,
        false,
    ),
    case(
        "a user that is escaped",
        Headers("Authorization: Digest username=\"%3999\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "a user with a backslash",
        Headers("Authorization: Digest username=\"\\999\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "a user over two lines",
        Headers("Authorization: Digest username=\"99\r\n 9\", realm=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "another scheme",
        Headers("Authorization: Basic username=\"999\", realm=\"a.example.com\""),
        false,
        true,
    ),
    case(
        "a longer scheme",
        Headers("Authorization: Digestive username=\"999\", realm=\"a.example.com\""),
        false,
        true,
    ),
    case("no scheme", Headers("Authorization: username=\"999\", realm=\"a.example.com\""), false, true),
    case(
        "another header",
        Headers("X-Authorization: Digest username=\"999\", realm=\"a.example.com\""),
        false,
        true,
    ),
    case(
        "a challenge",
        Headers("WWW-Authenticate: Digest realm=\"a.example.com\", nonce=\"5f\""),
        false,
        false,
    ),
    case("no user", Headers("Authorization: Digest realm=\"a.example.com\", nonce=\"5f\""), false, false),
    case("no domain", Headers("Authorization: Digest username=\"999\", nonce=\"5f\""), false, false),
    case("nothing", Headers("Authorization:"), false, false),
    // The words where they mean nothing.
    case(
        "the words in a string",
        Headers(
            "Authorization: Digest nonce=\"username=\\\"999\\\", realm=\\\"a.example.com\\\"\", username=\"998\", realm=\"b\"",
        ),
        false,
        false,
    ),
    case(
        "the words in an open string",
        Headers("Authorization: Digest nonce=\", username=\"999\", realm=\"a.example.com\""),
        false,
        true,
    ),
    case(
        "a backslash at the end of a string",
        Headers("Authorization: Digest opaque=\"x\\\\\", username=\"999\", realm=\"a.example.com\""),
        true,
        true,
    ),
    case(
        "a comma in a string",
        Headers("Authorization: Digest opaque=\",realm=b,\", username=\"999\", realm=\"a.example.com\""),
        true,
        true,
    ),
    case(
        "longer names",
        Headers("Authorization: Digest xusername=\"999\", xrealm=\"a.example.com\""),
        false,
        true,
    ),
    case(
        "names that go on",
        Headers("Authorization: Digest username*=\"999\", realm*=\"a.example.com\""),
        false,
        false,
    ),
    case(
        "the first of several",
        Headers(
            "Authorization: Digest username=\"999\", username=\"998\", realm=\"a.example.com\", realm=\"b\"",
        ),
        true,
        true,
    ),
    case(
        "not the second",
        Headers("Authorization: Digest username=\"998\", username=\"999\", realm=\"a.example.com\""),
        false,
        true,
    ),
    case(
        "empty parameters",
        Headers("Authorization: Digest ,, ,username=\"999\",,realm=\"a.example.com\",,"),
        true,
        true,
    ),
    case(
        "no equals sign",
        Headers("Authorization: Digest stale, username=\"999\", realm=\"a.example.com\""),
        true,
        true,
    ),
    case(
        "a comma that is missing",
        Headers("Authorization: Digest username=\"999\" realm=\"a.example.com\""),
        false,
        true,
    ),
    // Several headers.
    case(
        "the second header",
        Headers(
            "Authorization: Digest username=\"1\", realm=\"a.example.com\"\r\nProxy-Authorization: Digest username=\"999\", realm=\"a.example.com\"",
        ),
        true,
        true,
    ),
    case(
        "half in each",
        Headers(
            "Authorization: Digest username=\"999\", realm=\"b\"\r\nProxy-Authorization: Digest username=\"1\", realm=\"a.example.com\"",
        ),
        false,
        true,
    ),
    case(
        "an open string does not reach the next",
        Headers(
            "Authorization: Digest nonce=\"5f\r\nProxy-Authorization: Digest username=\"999\", realm=\"a.example.com\"",
        ),
        true,
        true,
    ),
    case(
        "in the body",
        Whole(
            "MESSAGE sip:x SIP/2.0\r\nContent-Length: 60\r\n\r\nAuthorization: Digest username=\"999\", realm=\"a.example.com\"\r\n",
        ),
        false,
        true,
    ),
    // From.
    case(
        "From",
        Whole("REGISTER sip:a.example.com SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        true,
        false,
    ),
    case(
        "the short From",
        Whole("SUBSCRIBE sip:x SIP/2.0\r\nf:sip:999@A.EXAMPLE.com;tag=1\r\nv: x\r\n\r\n"),
        true,
        false,
    ),
    case(
        "a name before it",
        Whole(
            "REGISTER sip:x SIP/2.0\r\nFrom: Front desk <sips:999:secret@a.example.com:5061;transport=tls>\r\n\r\n",
        ),
        true,
        false,
    ),
    case(
        "a name with brackets",
        Whole("REGISTER sip:x SIP/2.0\r\nFROM : \"<sip:1@b>\\\"\" <sip:999@a.example.com>\r\n\r\n"),
        true,
        false,
    ),
    case(
        "only in the name",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: \"<sip:999@a.example.com>\" <sip:1@b>\r\n\r\n"),
        false,
        false,
    ),
    case(
        "folded From",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom:\r\n Front\r\n\tdesk\r\n <sip:999@a.example.com>\r\n\r\n"),
        true,
        false,
    ),
    case(
        "escapes in From",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:%399%39@a.example.com>\r\n\r\n"),
        true,
        false,
    ),
    case(
        "what is no escape",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:9%9@a.example.com>\r\n\r\n"),
        false,
        false,
    ),
    case(
        "lines that end with LF",
        Whole("REGISTER sip:x SIP/2.0\nFrom: <sip:999@a.example.com>\n\n"),
        true,
        false,
    ),
    case("no empty line", Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>"), true, false),
    case(
        "empty lines before",
        Whole("\r\n\r\n\nREGISTER sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>\r\n\r\n"),
        true,
        false,
    ),
    case(
        "the first From",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:1@b>\r\nf: <sip:999@a.example.com>\r\n\r\n"),
        false,
        false,
    ),
    case("no user", Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:a.example.com>\r\n\r\n"), false, false),
    case(
        "a telephone number",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: <tel:999@a.example.com>\r\n\r\n"),
        false,
        false,
    ),
    case(
        "To is no matter",
        Whole(
            "REGISTER sip:999@a.example.com SIP/2.0\r\nFrom: <sip:1@b>\r\nTo: <sip:999@a.example.com>\r\n\r\n",
        ),
        false,
        false,
    ),
    case(
        "From beside credentials",
        Whole(
            "REGISTER sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>\r\nAuthorization: Digest username=\"1\", realm=\"b\"\r\n\r\n",
        ),
        false,
        false,
    ),
    case(
        "From beside what should be credentials",
        Whole("REGISTER sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>\r\nAuthorization: Basic OTk5\r\n\r\n"),
        false,
        false,
    ),
    case(
        "From in the body",
        Whole("PUBLISH sip:x SIP/2.0\r\nContent-Length: 9\r\n\r\nFrom: <sip:999@a.example.com>\r\n"),
        false,
        false,
    ),
    case(
        "PUBLISH, From",
        Whole("PUBLISH sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        true,
        false,
    ),
    case(
        "a tab behind the method",
        Whole("REGISTER\tsip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        true,
        false,
    ),
    case(
        "nothing but the method",
        Whole("REGISTER \r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        true,
        false,
    ),
    // From, where it may be anything.
    case(
        "INVITE, a caller's From passes",
        Whole("INVITE sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "MESSAGE, From",
        Whole("MESSAGE sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "OPTIONS, the short From",
        Whole("OPTIONS sip:x SIP/2.0\r\nf: sip:999@a.example.com\r\n\r\n"),
        false,
        false,
    ),
    case(
        "NOTIFY, From",
        Whole("NOTIFY sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "a method in lower case",
        Whole("register sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "a longer method",
        Whole("REGISTERED sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "a longer one",
        Whole("SUBSCRIBER sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "a shorter one",
        Whole("SUBSCRIB sip:x SIP/2.0\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "no blank behind the method",
        Whole("PUBLISH\r\nFrom: <sip:999@a.example.com>;tag=1\r\n\r\n"),
        false,
        false,
    ),
    case(
        "INVITE with credentials",
        Whole(
            "INVITE sip:x SIP/2.0\r\nFrom: <sip:1@b>\r\nProxy-Authorization: Digest username=\"999\", realm=\"a.example.com\"\r\n\r\n",
        ),
        true,
        true,
    ),
    // What is no request.
    case("a response", Whole("SIP/2.0 200 OK\r\nFrom: <sip:999@a.example.com>\r\n\r\n"), false, false),
    case(
        "a response with the words",
        Whole("sip/2.0 200 OK\r\nAuthorization: Digest username=\"999\", realm=\"a.example.com\"\r\n\r\n"),
        false,
        true,
    ),
    case("a keep-alive", Whole("\r\n\r\n"), false, false),
    case("one byte", Whole("\0"), false, false),
    case("a binary protocol", Whole("\0\u{1}\0\0\nFrom: <sip:999@a.example.com>\n\n"), false, false),
    case("only a line", Whole("REGISTER"), false, false),
    case(
        "a carriage return is no line",
        Whole("REGISTER sip:x SIP/2.0\rFrom: <sip:999@a.example.com>\r\r"),
        false,
        false,
    ),
    // Where reading ends.
    case("within 2048 bytes", Behind(2048), true, true),
    case("the last quote behind them", Behind(2049), false, true),
    case("far behind", Behind(3000), false, true),
];
