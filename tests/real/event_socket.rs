//! FreeSWITCH's event socket: a server that replays recorded sessions, and servers that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use ringfence::deadline::Deadline;
use ringfence::registrations::Source;
use ringfence::registrations::devices::Whose;

use crate::support::{World, data, now, wanted};

/// Serves one conversation after the other on a port of its own, as long as the test runs.
fn serve(talk: impl FnMut(TcpStream) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(talk));
    port
}

/// The recorded chunks of a session: who sent what.
fn recorded(name: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(data("esl").join(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter_map(|chunk| Some((chunk["from"].as_str()?.to_owned(), chunk["data"].as_str()?.to_owned())))
        .collect()
}

/// What the recorded server answers to a command.
fn reply(session: &[(String, String)], command: &str) -> Option<String> {
    let at = session.iter().position(|(from, data)| from == "client" && data.trim_end() == command)?;
    Some(
        session[at + 1..]
            .iter()
            .take_while(|(from, _)| from == "server")
            .map(|(_, data)| data.as_str())
            .collect(),
    )
}

fn api(body: &str) -> String {
    format!("Content-Type: api/response\nContent-Length: {}\n\n{body}", body.len())
}

/// FreeSWITCH as recorded. The list of profiles is not in the recording: it is as `mod_sofia` writes it.
fn freeswitch(mut stream: TcpStream) {
    let session = recorded("registrations.jsonl");
    let profiles = "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<profiles>\n\
        <profile>\n<name>internal</name>\n<type>profile</type>\n<data>sip:mod_sofia@198.51.100.1:5060</data>\n<state>RUNNING (0)</state>\n</profile>\n\
        <alias>\n<name>a.example.com</name>\n<type>alias</type>\n<data>internal</data>\n<state>ALIASED</state>\n</alias>\n\
        <profile>\n<name>external</name>\n<type>profile</type>\n<data>sip:x</data>\n<state>RUNNING (0)</state>\n</profile>\n</profiles>\n";
    stream.write_all(session[0].1.as_bytes()).unwrap();
    let mut pending = String::new();
    loop {
        let mut chunk = [0; 4096];
        let Ok(length @ 1..) = stream.read(&mut chunk) else { return };
        pending.push_str(std::str::from_utf8(&chunk[..length]).unwrap());
        while let Some((command, rest)) = pending.split_once("\n\n") {
            let answer = match command {
                "api sofia xmlstatus" => api(profiles),
                "api sofia xmlstatus profile external reg" => api("Invalid Profile!\n"),
                command => reply(&session, command).unwrap_or_else(|| {
                    "Content-Type: command/reply\nReply-Text: -ERR command not found\n\n".into()
                }),
            };
            // In pieces, as a network delivers it.
            for piece in answer.as_bytes().chunks(100) {
                if stream.write_all(piece).is_err() {
                    return;
                }
            }
            pending = rest.to_owned();
        }
    }
}

fn world(port: u16, more: &str) -> World {
    let world = World::empty();
    configure(&world, port, more);
    world
}

fn configure(world: &World, port: u16, more: &str) {
    world.configure(&format!("source = \"event-socket\"\nevent-socket = {{ address = \"127.0.0.1:{port}\", password = \"ClueCon\" }}\n{more}"));
}

#[test]
fn asks_every_profile() {
    let world = world(serve(freeswitch), "");
    assert!(world.keeps("198.51.100.11"));
    assert!(world.keeps("203.0.113.20"));
    assert!(!world.keeps("203.0.113.66"));
    world.reboot();
    let explained = world.explain("203.0.113.20");
    assert!(explained.contains("profile internal: 2 live registrations"), "{explained}");
    assert!(!explained.contains("ClueCon"), "{explained}");
}

#[test]
fn everyone_and_their_accounts() {
    let port = serve(freeswitch);
    let source = Source::EventSocket { address: format!("127.0.0.1:{port}"), password: "ClueCon".into() };
    let soon = || Deadline::after(Instant::now(), Duration::from_secs(10));
    let now = now();
    let everyone = source.everyone(now, soon()).unwrap();
    let expires = u32::try_from(now).unwrap() + 3657;
    let expected = ["198.51.100.11", "203.0.113.20"].map(|address| (address.parse().unwrap(), expires));
    assert_eq!(everyone.registered.into_iter().collect::<Vec<_>>(), expected);
    assert!(everyone.complete && everyone.failures.is_empty());
    for (address, accounts) in [
        ("203.0.113.20", vec!["102@a.example.com"]),
        ("::ffff:198.51.100.11", vec!["101@a.example.com"]),
        ("203.0.113.66", vec![]),
    ] {
        assert_eq!(source.accounts(address.parse().unwrap(), now, soon()).unwrap(), accounts, "{address}");
    }
    for whose in [
        Whose::Address("203.0.113.20".parse().unwrap()),
        Whose::Account(&"102@a.example.com".parse().unwrap()),
    ] {
        let devices: Vec<_> = source.devices(whose, now, soon()).unwrap().into_iter().collect();
        let [device] = devices.as_slice() else { panic!("{devices:?}") };
        assert_eq!((device.account.as_str(), device.until), ("102@a.example.com", now + 3657));
        assert_eq!(device.address.to_string(), "203.0.113.20");
        assert!(!device.user_agent.is_empty());
    }
}

#[test]
fn only_the_very_device_is_registered() {
    let port = serve(freeswitch);
    let source = Source::EventSocket { address: format!("127.0.0.1:{port}"), password: "ClueCon".into() };
    let devices = [
        ("101@a.example.com", "198.51.100.11", true),
        ("101@A.EXAMPLE.COM", "::ffff:198.51.100.11", true),
        ("102@a.example.com", "203.0.113.20", true),
        ("102@a.example.com", "198.51.100.11", false),
        ("102@b.example.com", "203.0.113.20", false),
        ("10@a.example.com", "198.51.100.11", false),
        ("103@a.example.com", "203.0.113.66", false),
        ("101@A.EXAMPLE.COM", "", true),
        ("102@a.example.com", "", true),
        ("102@b.example.com", "", false),
        ("10@a.example.com", "", false),
        ("103@a.example.com", "", false),
    ];
    let soon = Deadline::after(Instant::now(), Duration::from_secs(10));
    let (asked, expected) = wanted(&devices);
    assert_eq!(source.registered(&asked, now(), soon).unwrap(), expected);

    let silent = serve(std::mem::forget);
    let source = Source::EventSocket { address: format!("127.0.0.1:{silent}"), password: "ClueCon".into() };
    assert!(source.registered(&[], now(), soon).unwrap().is_empty());
    let hurry = Deadline::after(Instant::now(), Duration::from_millis(200));
    assert!(source.registered(&asked, now(), hurry).is_err());
}

#[test]
fn auto_finds_it_from_freeswitchs_files() {
    let world = World::empty();
    let port = serve(freeswitch);
    let conf = format!(
        "<configuration><settings><param name=\"listen-ip\" value=\"::\"/><param name=\"listen-port\" value=\"{port}\"/>\
         <param name=\"password\" value=\"ClueCon\"/></settings></configuration>"
    );
    std::fs::write(world.path("freeswitch/autoload_configs/event_socket.conf.xml"), conf).unwrap();
    world.configure("source = \"auto\"\nsqlite-dir = \"/nonexistent\"");
    assert!(world.keeps("203.0.113.20"), "{:?}", world.journal());
}

#[test]
fn a_wrong_password_is_said() {
    let session = recorded("auth-wrong.jsonl");
    let port = serve(move |mut stream| {
        stream.write_all(session[0].1.as_bytes()).unwrap();
        let _ = stream.read(&mut [0; 100]);
        stream.write_all(reply(&session, "auth wrong").unwrap().as_bytes()).unwrap();
    });
    let world = world(port, "");
    assert!(!world.keeps("203.0.113.20"));
    let detail = world.journal().pop().unwrap()["detail"].to_string();
    assert!(detail.contains("FreeSWITCH refuses the password"), "{detail}");
}

#[test]
fn whoever_misbehaves_is_named_within_the_deadline() {
    let auth = "Content-Type: auth/request\n\n";
    let ok = "Content-Type: command/reply\nReply-Text: +OK accepted\n\n";
    let many = "x".repeat(100_000);
    let cases: Vec<(Vec<String>, &str)> = vec![
        (vec![], "the connection was closed"),
        (
            vec!["Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n".into()],
            "access list refuses this host",
        ),
        (vec!["SSH-2.0-OpenSSH_9.2\r\n\n\n".into()], "not an event socket"),
        (vec!["Content-Type: text/html\n\n".into()], "greets with \\\"text/html\\\""),
        (vec![many], "no end of its header"),
        (vec![auth.into(), "Content-Type: command/reply\n\n".into()], "refuses the password"),
        (
            vec![
                auth.into(),
                ok.into(),
                "Content-Type: api/response\nContent-Length: 99999999999\n\n".into(),
            ],
            "it announces",
        ),
        (
            vec![auth.into(), ok.into(), "Content-Type: api/response\nContent-Length: -1\n\n".into()],
            "Content-Length is no number",
        ),
        (
            vec![auth.into(), ok.into(), "Content-Type: api/response\nContent-Length: 100\n\nshort".into()],
            "the connection was closed",
        ),
        (vec![auth.into(), ok.into(), api("-ERR sofia Command not found!\n")], "Command not found!"),
        (vec![auth.into(), ok.into(), api("<html><body>no</body></html>")], "not what it should be"),
        (vec![auth.into(), ok.into(), api("<profiles><!-- ")], "not what it should be"),
    ];
    for (answers, says) in cases {
        let port = serve(move |mut stream| {
            for (number, answer) in answers.iter().enumerate() {
                if number > 0 {
                    let _ = stream.read(&mut [0; 1000]);
                }
                let _ = stream.write_all(answer.as_bytes());
            }
            // A last word may still be on its way when the socket is closed.
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let world = world(port, "");
        let call = world.call(&["203.0.113.20"]);
        assert_eq!((call.code, call.stderr.as_str()), (1, ""), "{says}");
        assert!(call.took < Duration::from_secs(3), "{says}: {:?}", call.took);
        let detail = world.journal().pop().unwrap()["detail"].to_string();
        assert!(detail.contains(says), "{says}: {detail}");
    }
}

#[test]
fn silence_and_dribble_cost_at_most_the_deadline() {
    let silent = serve(std::mem::forget);
    let dribble = serve(|mut stream| {
        for _ in 0..100 {
            if stream.write_all(b"C").is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    for port in [silent, dribble] {
        let world = world(port, "deadline = \"400ms\"\non-error = \"keep\"");
        let call = world.call(&["203.0.113.20"]);
        assert_eq!(call.code, 0);
        assert!(call.took < Duration::from_secs(2), "{:?}", call.took);
        assert_eq!(world.last_reason(), "source-unreadable");
    }
}
