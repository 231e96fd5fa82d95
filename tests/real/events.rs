//! `ringfence-events`: from the event socket to the log, with servers that misbehave, disks that are full, and rotations.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::Signal;

use crate::support::event_source::{GREETING, command, event, failure, now_us, recorded, ten_accounts};
use crate::support::{
    EventSource, Events, Host, Postgres, World, call, copy_program, data, project, run, wait_for,
};

const SESSIONS: [&str; 7] = [
    "events-json-01.jsonl",
    "events-json-02.jsonl",
    "events-json-03b.jsonl",
    "events-json-05b.jsonl",
    "events-json-06d.jsonl",
    "events-plain-02.jsonl",
    "events-plain-03b.jsonl",
];

fn configure(world: &World, port: u16, more: &str) {
    let socket =
        format!("event-socket = {{ address = \"127.0.0.1:{port}\", password = \"ClueCon\" }}\n{more}");
    world.configure(&format!("source = \"sqlite\"\n{socket}"));
}

/// A world, an event source, the service, and its connection.
fn set_up() -> (World, EventSource, Events, TcpStream) {
    let (world, source) = (World::with_databases(), EventSource::new());
    configure(&world, source.port, "");
    let events = Events::start(&world);
    let stream = source.listener();
    (world, source, events, stream)
}

/// The lines about the recorded sessions, where nobody knows the accounts, without their times.
fn expected() -> Vec<String> {
    let text = std::fs::read_to_string(data("events.log")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let unknown = |line: &str| {
        let keys = line.split(' ').skip(1).filter(|key| !key.starts_with("id="));
        // What can be no account is none, whoever says so.
        let asked = |key: &str| key.starts_with("known=") && !line.contains("%5D");
        let keys = keys.map(|key| if asked(key) { "known=unknown" } else { key });
        keys.collect::<Vec<_>>().join(" ")
    };
    lines.map(unknown).collect()
}

#[test]
fn recordings_become_lines_however_they_are_cut() {
    let (_world, _source, events, mut stream) = set_up();
    let sessions: String = SESSIONS.iter().map(|name| recorded(name)).collect();
    let expected = expected();
    for (round, size) in (1..).zip([1, 997, usize::MAX]) {
        // In the same second, that many requests were a flood.
        std::thread::sleep(Duration::from_millis(1_100));
        for piece in sessions.as_bytes().chunks(size.min(sessions.len())) {
            stream.write_all(piece).unwrap();
        }
        let log = events.log_of(round * expected.len());
        let (times, lines): (Vec<_>, Vec<_>) =
            log.lines().skip((round - 1) * expected.len()).map(|line| line.split_once(' ').unwrap()).unzip();
        assert_eq!(lines, expected, "pieces of {size}");
        // The recorded times are long ago, as those of a FreeSWITCH whose clock went its own way.
        let hour = jiff::Timestamp::now().as_second() - 3_600;
        assert!(times.iter().all(|time| time.parse::<jiff::Timestamp>().unwrap().as_second() > hour));
    }
    let said = events.stderr();
    assert!(said.lines().count() == 1 && said.contains("FreeSWITCH's clock is not this host's"), "{said}");
}

#[test]
fn whoever_misbehaves_is_left_and_comes_again() {
    let (_world, source, events, mut stream) = set_up();
    for (nonsense, says) in [
        ("", "the connection was closed"),
        ("SSH-2.0-OpenSSH_9.2\r\n\n\n", "not an event socket: it says"),
        ("Content-Length: 99999999999\nContent-Type: text/event-json\n\n", "it announces 99999999999 bytes"),
        (
            "Content-Type: text/disconnect-notice\nContent-Length: 5\n\nbye.\n",
            "FreeSWITCH ends the connection",
        ),
    ] {
        stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
        stream.write_all(nonsense.as_bytes()).unwrap();
        if nonsense.is_empty() {
            drop(stream);
        } else {
            let _ = stream.read_to_end(&mut vec![]);
        }
        stream = source.listener();
        assert!(events.stderr().contains(says), "{says}: {}", events.stderr());
    }
    stream.write_all(b"Content-Length: 2\nContent-Type: text/event-json\n\n{]").unwrap();
    stream.write_all(b"Content-Length: 2\nContent-Type: text/event-json\n\n{]").unwrap();
    stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    let log = events.log_of(5);
    assert_eq!(log.lines().filter(|line| line.contains(" failure ")).count(), 5, "{log}");
    let stderr = events.stderr();
    assert_eq!(stderr.matches("an event is not the JSON").count(), 1, "{stderr}");
    assert_eq!(stderr.matches("again\n").count(), 4, "{stderr}");
}

#[test]
fn a_stall_in_the_middle_of_an_event_loses_nothing() {
    let (_world, _source, events, mut stream) = set_up();
    for at in [5, 60, 300, 600] {
        let failure = failure("101", "203.0.113.66", now_us());
        let (one, other) = failure.split_at(at);
        let before = events.log().lines().count();
        stream.write_all(one.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(1_200));
        stream.write_all(other.as_bytes()).unwrap();
        events.log_of(before + 1);
    }
    assert!(events.log().lines().count() <= 5, "the second event of one was late: {}", events.log());
    assert_eq!(events.stderr(), "");
}

#[test]
fn who_refuses_us_is_named_once() {
    let rude = "Content-Type: text/rude-rejection\nContent-Length: 24\n\nAccess Denied, go away.\n";
    let wrong = "Content-Type: command/reply\nReply-Text: -ERR invalid\n\n";
    for (greeting, reply, says) in [
        (rude, "", "FreeSWITCH's access list refuses this host"),
        (GREETING, wrong, "FreeSWITCH refuses the password"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "", "not an event socket"),
    ] {
        let world = World::with_databases();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        configure(&world, socket.local_addr().unwrap().port(), "");
        let mut events = Events::start(&world);
        let (mut stream, _) = socket.accept().unwrap();
        stream.write_all(greeting.as_bytes()).unwrap();
        if !reply.is_empty() {
            assert_eq!(command(&mut stream).as_deref(), Some("auth ClueCon"));
            stream.write_all(reply.as_bytes()).unwrap();
        }
        let _ = stream.read_to_end(&mut vec![]);
        wait_for(says, || events.stderr().contains(says));
        assert!(events.is_running());
        assert_eq!(events.stderr().lines().count(), 1, "{}", events.stderr());
        assert!(!events.stderr().contains("ClueCon"));
        if greeting != "HTTP/1.1 400 Bad Request\r\n\r\n" {
            socket.set_nonblocking(true).unwrap();
            std::thread::sleep(Duration::from_secs(3));
            assert!(socket.accept().is_err(), "it is tried again much later");
        }
    }
}

#[test]
fn a_peer_that_is_gone_without_a_word_is_noticed() {
    let (_world, source, events, mut stream) = set_up();
    let start = Instant::now();
    assert_eq!(command(&mut stream).as_deref(), Some("api uptime"), "after half a minute of silence");
    assert!(start.elapsed() > Duration::from_secs(20));
    // An answer is a sign of life.
    stream.write_all(b"Content-Type: api/response\nContent-Length: 2\n\n42").unwrap();
    assert!(source.listener_within(Duration::from_secs(10)).is_none());
    assert_eq!(command(&mut stream).as_deref(), Some("api uptime"));
    let mut stream = source.listener_within(Duration::from_secs(12)).expect("it comes again");
    assert!(events.stderr().contains("nobody answers any more"), "{}", events.stderr());
    stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    events.log_of(1);
}

#[test]
fn what_came_during_a_pause_counts() {
    let (_world, source, events, mut stream) = set_up();
    // As where a whole machine is stopped for a while, longer than FreeSWITCH may be silent.
    events.signal(Signal::STOP);
    for number in 0..4 {
        stream.write_all(failure(&number.to_string(), "203.0.113.66", now_us()).as_bytes()).unwrap();
    }
    std::thread::sleep(Duration::from_secs(37));
    events.signal(Signal::CONT);
    events.log_of(4);
    assert!(source.listener_within(Duration::from_secs(2)).is_none(), "{}", events.stderr());
}

#[test]
fn it_comes_again_when_freeswitch_does() {
    let world = World::with_databases();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    configure(&world, address.port(), "");
    drop(socket);
    let events = Events::start(&world);
    wait_for("it says so", || events.stderr().contains("cannot connect"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(events.stderr().lines().count(), 1, "once: {}", events.stderr());
    let source = EventSource::on(TcpListener::bind(address).unwrap());
    source.listener().write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    events.log_of(1);
    assert!(events.stderr().contains("listening to FreeSWITCH at 127.0.0.1:"), "{}", events.stderr());
}

#[test]
fn rotation_loses_no_line() {
    const LINES: usize = 5_000;
    let (world, _source, mut events, mut stream) = set_up();
    let log = |name: &str| world.path("log/events").join(name);
    let now = now_us();
    for number in 0..LINES {
        stream.write_all(failure(&number.to_string(), "203.0.113.66", now).as_bytes()).unwrap();
        if number % 1_000 == 500 {
            std::fs::rename(log("events.log"), log(&format!("events.log.{number}"))).unwrap();
            if number % 2_000 == 500 {
                events.signal(Signal::HUP);
            }
            wait_for("a new file", || log("events.log").exists());
        }
    }
    // What is still on its way is read.
    wait_for("the last line", || events.log().contains(&format!("account={}@", LINES - 1)));
    assert_eq!(events.end().0, Some(0));
    let files = std::fs::read_dir(log("")).unwrap().flatten();
    let text: String = files.map(|file| std::fs::read_to_string(file.path()).unwrap()).collect();
    let mut users: Vec<usize> = text
        .lines()
        .map(|line| line.split_once(" account=").unwrap().1.split_once('@').unwrap().0.parse().unwrap())
        .collect();
    users.sort_unstable();
    assert!(users.into_iter().eq(0..LINES));
}

/// With the file that is shipped, but for its user's name.
#[test]
fn logrotate_loses_no_line() {
    const LINES: usize = 3_000;
    let (world, source) = (World::with_databases(), EventSource::new());
    configure(&world, source.port, "");
    let mut events = Events::spawn(&world, &mut unprivileged(&world));
    let mut stream = source.listener();
    let log = world.path("log/events/events.log");
    let shipped = std::fs::read_to_string(project("packaging/logrotate/ringfence")).unwrap();
    let ours = shipped
        .replace("/var/log/ringfence/events/events.log", &log.display().to_string())
        .replace("su ringfence ringfence", "su nobody nogroup")
        .replace("--reuid ringfence --regid ringfence", "--reuid nobody --regid nogroup");
    assert!(!ours.contains("ringfence ") && ours.contains("    su nobody nogroup\n"), "{ours}");
    std::fs::write(world.path("logrotate.conf"), ours).unwrap();
    let rotate = || {
        let state = world.path("logrotate.state");
        run(Command::new("logrotate").arg("-f").arg("-s").arg(state).arg(world.path("logrotate.conf")));
    };
    for number in 0..LINES {
        stream.write_all(failure(&number.to_string(), "203.0.113.66", now_us()).as_bytes()).unwrap();
        if number % 1_000 == 500 {
            wait_for("lines to rotate", || !events.log().is_empty());
            rotate();
            assert!(log.exists(), "fail2ban needs it");
        }
    }
    wait_for("the last line", || events.log().contains(&format!("account={}@", LINES - 1)));
    assert_eq!((events.end().0, events.stderr().as_str()), (Some(0), ""));
    let since = jiff::Timestamp::UNIX_EPOCH;
    let mut users: Vec<usize> = vec![];
    let odd = ringfence::failures::event_log::since(&log, since, |failure| {
        users.push(failure.account.user.parse().unwrap());
    });
    assert_eq!(odd.unwrap(), 0);
    users.sort_unstable();
    assert!(users.into_iter().eq(0..LINES));
    assert!(log.with_extension("log.2.gz").exists() && log.with_extension("log.1").exists());
}

#[test]
fn a_full_disk_keeps_nobody_waiting_and_lost_lines_are_counted() {
    const FAILURES: usize = 40_000;
    let (host, world) = (Host::new(), World::with_databases());
    let source = EventSource::on(host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    configure(&world, source.port, "");
    let dir = world.path("log/events");
    std::fs::create_dir_all(&dir).unwrap();
    let dir = dir.display().to_string();
    run(host.command("mount").args(["-t", "tmpfs", "-o", "size=64k,mode=0750", "tmpfs", &dir]));
    let mut events = Events::spawn(&world, &mut host.call(&world.events_command(&["run"])));
    let mut stream = source.listener();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let now = now_us();
    for number in 0..FAILURES {
        let failure = failure(&number.to_string(), "203.0.113.66", now);
        stream.write_all(failure.as_bytes()).expect("it is read");
    }
    wait_for("it says so", || {
        events.stderr().contains("No space left") && events.stderr().contains("lines are lost")
    });
    // All is read by now.
    stream.write_all(event("sofia::register", now, &[("network-ip", "203.0.113.1")]).as_bytes()).unwrap();
    run(host.command("mount").args(["-o", "remount,size=64m", &dir]));
    let written = || run(host.command("cat").arg(format!("{dir}/events.log")));
    wait_for("what waited", || written().len() > 2_000_000);
    assert_eq!(events.end().0, Some(0));
    let lines = written().lines().count();
    assert!((10_000..FAILURES).contains(&lines), "{lines}");
    let text = written();
    assert!(text.lines().all(|line| line.ends_with(" agent=LabPhone%201.0")), "whole lines only");
    let mut unique: Vec<_> = text.lines().collect();
    unique.dedup();
    assert_eq!(unique.len(), lines, "none twice");
}

#[test]
fn a_disk_that_hangs_keeps_nobody_waiting() {
    let (host, world) = (Host::new(), World::with_databases());
    let source = EventSource::on(host.inside(|| TcpListener::bind("127.0.0.1:0").unwrap()));
    configure(&world, source.port, "");
    let dir = world.path("log/events");
    std::fs::create_dir_all(&dir).unwrap();
    let (dir, image) = (dir.display().to_string(), world.path("image").display().to_string());
    host.shell(&format!(
        "truncate -s 16M {image} && mkfs.ext4 -q {image} && mount -o loop {image} {dir} && chmod 750 {dir}"
    ));
    let mut events = Events::spawn(&world, &mut host.call(&world.events_command(&["run"])));
    let mut stream = source.listener();
    stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
    let log = || host.shell(&format!("cat {dir}/events.log"));
    let mut fail = |number: usize| {
        stream
            .write_all(failure(&number.to_string(), "203.0.113.66", now_us()).as_bytes())
            .expect("it is read");
    };
    fail(0);
    wait_for("the first line", || log().lines().count() == 1);
    run(host.command("fsfreeze").args(["-f", &dir]));
    (1..40_000).for_each(&mut fail);
    wait_for("it says so", || events.stderr().contains("lines are lost"));
    run(host.command("fsfreeze").args(["-u", &dir]));
    fail(40_000);
    wait_for("the last line", || log().contains(" account=40000@"));
    assert_eq!(events.end().0, Some(0), "{}", events.stderr());
    let users: Vec<usize> = log()
        .lines()
        .map(|line| line.split_once(" account=").unwrap().1.split_once('@').unwrap().0.parse().unwrap())
        .collect();
    assert!((10_000..40_000).contains(&users.len()) && users.is_sorted(), "{}", users.len());
    run(host.command("umount").arg(&dir));
}

#[test]
fn who_listens_to_nothing_that_it_says_keeps_nobody_waiting() {
    let (world, source) = (World::with_databases(), EventSource::new());
    configure(&world, source.port, "");
    let _manager = UnixDatagram::bind(world.path("notify")).unwrap();
    let (_reader, writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    let mut command = world.events_command(&["run"]);
    command.env("NOTIFY_SOCKET", world.path("notify")).env("WATCHDOG_USEC", "2000");
    let mut events = Events::spawn_with(&world, &mut command, writer.into());
    let mut stream = source.listener();
    // By then the service manager's queue is full, too.
    std::thread::sleep(Duration::from_secs(2));
    for number in 1..=3 {
        stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
        events.log_of(number);
        stream.write_all(b"nonsense\n\n").unwrap();
        stream = source.listener();
    }
    let (code, took) = events.end();
    assert_eq!(code, Some(0));
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[test]
fn it_ends_at_once_and_says_how_it_is() {
    let (world, source) = (World::with_databases(), EventSource::new());
    configure(&world, source.port, "");
    let manager = UnixDatagram::bind(world.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut command = world.events_command(&["run"]);
    command.env("NOTIFY_SOCKET", world.path("notify")).env("WATCHDOG_USEC", "400000");
    let mut events = Events::spawn(&world, &mut command);
    let mut stream = source.listener();
    let heard = || {
        let mut buffer = [0; 1000];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut said = vec![];
    while said.iter().filter(|said: &&String| said.contains("WATCHDOG=1")).count() < 6 {
        said.push(heard());
    }
    let ready = said.iter().position(|said| said.contains("READY=1")).expect("ready");
    assert!(said[ready].contains("STATUS=listening to FreeSWITCH at 127.0.0.1:"), "{said:?}");
    stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let (code, took) = events.end();
    assert_eq!(code, Some(0), "{}", events.stderr());
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(events.log().lines().count(), 1);
    while !heard().contains("STOPPING=1") {}

    // Without FreeSWITCH it is ready, too.
    configure(&world, 1, "");
    let mut command = world.events_command(&["run"]);
    command.env("NOTIFY_SOCKET", world.path("notify"));
    let mut events = Events::spawn(&world, &mut command);
    let said = heard();
    assert!(said.contains("READY=1") && said.contains("STATUS=not listening to FreeSWITCH"), "{said}");
    assert!(events.end().1 < Duration::from_secs(1));
}

/// A phone registers, as an event tells.
fn register(address: &str) -> String {
    let headers =
        [("network-ip", address), ("from-user", "102"), ("from-host", "a.example.com"), ("expires", "300")];
    event("sofia::register", now_us(), &headers)
}

#[test]
fn ringfence_ignore_asks_nobody_as_long_as_events_come() {
    let (world, source) = (World::with_databases(), EventSource::new());
    world.register("sofia_reg_internal.db", "203.0.113.20", 3600);
    configure(&world, source.port, "");
    let mut events = Events::start(&world);
    let mut stream = source.listener();
    wait_for("a snapshot", || world.path("run/events/registrations.snapshot").exists());
    // No source can be read any more.
    std::fs::rename(world.path("db"), world.path("hidden")).unwrap();
    assert!(world.keeps("203.0.113.20"));
    assert!(!world.keeps("203.0.113.21"));
    assert_eq!(world.journal().last().unwrap()["source"], "events");
    let explained = world.explain("203.0.113.20");
    assert!(explained.contains(" s ago, by ringfence-events\nread       1 address with live"), "{explained}");
    stream.write_all(register("203.0.113.21").as_bytes()).unwrap();
    let start = Instant::now();
    wait_for("the phone that registered", || world.keeps("203.0.113.21"));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    assert!(!world.path("run/registrations.snapshot").exists(), "nobody looked at the source");

    // It asks again by itself when the events end.
    std::fs::rename(world.path("hidden"), world.path("db")).unwrap();
    events.signal(Signal::KILL);
    wait_for("its end", || !events.is_running());
    wait_for("a look at the source", || !world.keeps("203.0.113.21"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(world.keeps("203.0.113.20"));
    assert!(world.path("run/registrations.snapshot").exists());
}

#[test]
fn a_lost_connection_is_a_reason_to_ask_by_oneself() {
    let (world, source, _events, stream) = set_up();
    wait_for("a snapshot", || world.path("run/events/registrations.snapshot").exists());
    world.register("core.db", "203.0.113.20", 3600);
    assert!(!world.keeps("203.0.113.20"), "no event told of it");
    drop(source);
    drop(stream);
    wait_for("a look at the source", || world.keeps("203.0.113.20"));
}

#[test]
fn a_forged_snapshot_counts_for_nothing() {
    let (world, source, mut events, _stream) = set_up();
    let (dir, snapshot) = (world.path("run/events"), world.path("run/events/registrations.snapshot"));
    wait_for("a snapshot", || snapshot.exists());
    drop(source);
    // It stays fresh for so long.
    let settings = std::fs::read_to_string(world.config()).unwrap() + "cache = \"1m\"\n";
    std::fs::write(world.config(), settings).unwrap();
    assert_eq!(events.end().0, Some(0));
    let mut stranger = 0;
    let mut asks = || {
        stranger += 1;
        assert!(!world.keeps(&format!("203.0.113.{stranger}")));
        let source = world.journal().last().unwrap()["source"].as_str().unwrap().to_owned();
        let _ = std::fs::remove_file(world.path("run/registrations.snapshot"));
        source == "sqlite"
    };
    let mode = |path: &Path, bits| std::fs::set_permissions(path, PermissionsExt::from_mode(bits)).unwrap();
    assert!(!asks(), "it is ours");
    chown(&dir, Some(65_534), None).unwrap();
    assert!(!asks(), "it is root's, in somebody's directory");
    chown(&snapshot, Some(65_534), None).unwrap();
    assert!(!asks(), "it is his to whom we gave the directory");
    chown(&snapshot, Some(1), None).unwrap();
    assert!(asks(), "it is a stranger's");
    chown(&snapshot, Some(65_534), None).unwrap();
    mode(&dir, 0o777);
    assert!(asks(), "others may write to the directory");
    mode(&dir, 0o755);
    mode(&world.path("run"), 0o777);
    assert!(asks(), "others may write to the directory above");
    mode(&world.path("run"), 0o755);
    assert!(!asks(), "all is as it was");
    std::fs::rename(&dir, world.path("run/real")).unwrap();
    symlink(world.path("run/real"), &dir).unwrap();
    assert!(asks(), "a link");
}

#[test]
fn known_says_what_fusionpbx_says() {
    let server = Postgres::with_fusionpbx(
        "INSERT INTO v_domains (domain_uuid, domain_name, domain_enabled) VALUES
             ('11111111-1111-1111-1111-111111111111', 'a.example.com', 'true');
         INSERT INTO v_extensions (extension_uuid, domain_uuid, extension, enabled) VALUES
             (gen_random_uuid(), '11111111-1111-1111-1111-111111111111', '101', 'true')",
    );
    let (world, source) = (World::with_databases(), EventSource::new());
    let target = format!(
        "[fusionpbx]\npostgres = \"host={} port={} dbname=fusionpbx user=ringfence\"",
        server.socket_dir().display(),
        server.port
    );
    configure(&world, source.port, &target);
    let events = Events::start(&world);
    let mut stream = source.listener();
    let mut says = |user: &str, word: &str| {
        wait_for(word, || {
            let before = events.log().lines().count();
            stream.write_all(failure(user, "203.0.113.66", now_us()).as_bytes()).unwrap();
            events.log_of(before + 1).lines().last().unwrap().contains(word)
        });
    };
    says("101", " known=yes id=101@a.example.com,203.0.113.66 ");
    says("999", " known=no profile=");
    // Answers count for a minute; others are unknown, and nobody waits.
    server.freeze();
    says("101", " known=yes ");
    says("998", " known=unknown ");
    wait_for("it says so", || events.stderr().contains("whether accounts exist is not known: "));
    says("997", " known=unknown ");
    assert_eq!(events.stderr().lines().count(), 1, "{}", events.stderr());
}

#[test]
fn floods_sprays_and_alarms() {
    let server = ten_accounts();
    let (world, source) = (World::with_databases(), EventSource::new());
    let target = format!(
        "[events]\nflood = 3\n[fusionpbx]\npostgres = \"host={} port={} dbname=fusionpbx user=ringfence\"",
        server.socket_dir().display(),
        server.port
    );
    configure(&world, source.port, &target);
    let events = Events::start(&world);
    let mut stream = source.listener();
    let now = now_us() / 1_000_000 * 1_000_000;
    for _ in 0..10 {
        let headers = [("network-ip", "203.0.113.66"), ("from-user", "1"), ("from-host", "198.51.100.1")];
        stream.write_all(event("sofia::pre_register", now, &headers).as_bytes()).unwrap();
    }
    let log = events.log_of(2);
    assert!(log.contains(" ip-domain address=203.0.113.66 method=unknown account=1@198.51.100.1 "), "{log}");
    assert!(log.ends_with(" flood address=203.0.113.66 rate=4\n"), "{log}");
    let has = |word: &str| events.log().contains(word);
    let mut round = 0;
    wait_for("a spray", || {
        round += 1;
        for user in 101..106 {
            let failure = failure(&user.to_string(), "203.0.113.67", now + round);
            stream.write_all(failure.as_bytes()).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        has(" spray address=203.0.113.67 accounts=5\n")
    });
    // The database takes its time: what it says in the end counts.
    server.freeze();
    for user in 106..=110 {
        let failure = failure(&user.to_string(), "203.0.113.68", now_us());
        stream.write_all(failure.as_bytes()).unwrap();
    }
    let late = || {
        events
            .log()
            .lines()
            .filter(|line| line.contains("=203.0.113.68 ") && line.contains("=unknown "))
            .count()
    };
    wait_for("their lines", || late() == 5);
    server.thaw();
    wait_for("another spray", || has(" spray address=203.0.113.68 accounts=5\n"));
    for phone in 1..=6 {
        stream.write_all(register(&format!("198.51.100.{phone}")).as_bytes()).unwrap();
        let failure = failure("101", &format!("198.51.100.{phone}"), now_us());
        stream.write_all(failure.as_bytes()).unwrap();
    }
    wait_for("an alarm", || has(" alarm address=- sources=6\n"));
    wait_for("an excuse", || has(" excused address=198.51.100.6 method=REGISTER account=101@a.example.com "));
}

#[test]
fn a_failure_is_in_the_log_within_milliseconds() {
    let (_world, _source, events, mut stream) = set_up();
    let mut took: Vec<_> = (1..=100)
        .map(|number| {
            std::thread::sleep(Duration::from_millis(5));
            let failure = failure("101", "203.0.113.66", now_us());
            let start = Instant::now();
            stream.write_all(failure.as_bytes()).unwrap();
            while events.log().lines().count() < number {
                assert!(start.elapsed() < Duration::from_secs(5));
                std::thread::yield_now();
            }
            start.elapsed()
        })
        .collect();
    took.sort();
    println!("event to log: median {:?}, slowest {:?}", took[50], took[99]);
}

#[test]
fn it_is_idle_when_nothing_happens() {
    let (_world, _source, events, _stream) = set_up();
    std::thread::sleep(Duration::from_secs(1));
    let before = events.cpu();
    std::thread::sleep(Duration::from_secs(5));
    let spent = events.cpu().saturating_sub(before);
    assert!(spent < Duration::from_millis(250), "{spent:?} of 5 s");
}

/// `make soak`, which lets it try the tools as they are released; `SOAK_TIME` has the seconds.
#[test]
#[ignore = "takes ten minutes"]
fn memory_stays_flat() {
    /// Events a second.
    const RATE: u64 = 20_000;
    /// KiB.
    const MOST: u64 = 20 << 10;
    const POOL: u64 = 5_000;
    let seconds = std::env::var("SOAK_TIME").map_or(600, |seconds| seconds.parse().unwrap());
    let (world, source, mut events, mut stream) = set_up();
    let mut random = fastrand::Rng::with_seed(7);
    // 250 events; this many of ten are from anywhere, since sources can be forged.
    let mut batch = |forged: u8| {
        let one = |turn| {
            let n = random.u64(..POOL);
            let address = if random.u8(..10) < forged {
                std::net::Ipv4Addr::from(random.u32(..)).to_string()
            } else {
                format!("198.18.{}.{}", n / 250, n % 250)
            };
            let source = ("network-ip", address.as_str());
            match turn % 4 {
                0 => register(&address),
                1 => event("sofia::unregister", now_us(), &[("from-user", "1"), source]),
                2 => event("sofia::pre_register", now_us(), &[("from-host", "10.0.0.1"), source]),
                _ => failure(&random.u64(..POOL).to_string(), &address, now_us()),
            }
        };
        (0..200).map(one).collect::<String>()
    };
    // All that remembers is full from now on.
    for _ in 0..2_000 {
        stream.write_all(batch(10).as_bytes()).unwrap();
    }
    let (start, end) = (Instant::now(), Duration::from_secs(seconds));
    let elapsed = || u64::try_from(start.elapsed().as_millis()).unwrap();
    let (cpu, mut sent, mut early, mut rotations, mut connects) = (events.cpu(), 0, 0, 0, 1);
    while start.elapsed() < end {
        stream.write_all(batch(1).as_bytes()).unwrap();
        sent += 250;
        std::thread::sleep(Duration::from_millis((sent * 1_000 / RATE).saturating_sub(elapsed())));
        if sent / 1_000_000 >= connects {
            connects += 1;
            stream.write_all(b"nonsense\n\n").unwrap();
            stream = source.listener();
        }
        if sent / 500_000 > rotations {
            rotations += 1;
            let log = world.path("log/events/events.log");
            std::fs::rename(&log, log.with_extension("log.1")).unwrap();
            wait_for("a new file", || log.exists());
        }
        if start.elapsed() < end / 3 {
            early = early.max(events.memory()[0]);
        }
    }
    let rate = sent * 1_000 / elapsed();
    stream.write_all(failure("last", "203.0.113.66", now_us()).as_bytes()).unwrap();
    wait_for("the last line", || events.log().contains(" account=last@"));
    let cpu = (events.cpu().saturating_sub(cpu)).as_secs_f64() / start.elapsed().as_secs_f64();
    let [now, most] = events.memory();
    println!(
        "{sent} events, {rate} a second, {:.0} % of a core, {rotations} rotations, {connects} connections\n\
         {early} KiB at most in the first third, {now} KiB at the end, {most} KiB at most",
        cpu * 100.0
    );
    assert!(now <= early + early / 10, "{early} KiB, then {now} KiB");
    assert!(most <= MOST, "{most} KiB");
    let stderr = events.stderr();
    assert!(!stderr.contains("lost:") && !stderr.contains("are lost"), "{stderr}");
    assert_eq!(events.end().0, Some(0));
}

/// As the service's own user runs it.
fn unprivileged(world: &World) -> Command {
    std::fs::set_permissions(world.dir(), PermissionsExt::from_mode(0o755)).unwrap();
    for dir in ["run/events", "log/events"] {
        std::fs::create_dir_all(world.path(dir)).unwrap();
        chown(world.path(dir), Some(65_534), Some(65_534)).unwrap();
    }
    let tool = world.path("ringfence-events");
    copy_program(world.events_command(&[]).get_program(), &tool);
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--no-new-privs",
    ]);
    command.arg(tool).arg("--config").arg(world.config()).arg("run");
    command
}

#[test]
fn it_needs_no_privileges() {
    let (world, source) = (World::with_databases(), EventSource::new());
    configure(&world, source.port, "");
    let mut command = unprivileged(&world);
    let mut events = Events::spawn(&world, &mut command);
    let mut stream = source.listener();
    stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    stream.write_all(register("203.0.113.20").as_bytes()).unwrap();
    events.log_of(2);
    wait_for("root believes it", || world.keeps("203.0.113.20"));
    assert_eq!(world.journal().last().unwrap()["source"], "events");
    assert_eq!((events.end().0, events.stderr().as_str()), (Some(0), ""));
}

#[test]
fn a_second_one_is_refused() {
    let (world, _source, mut events, _stream) = set_up();
    let refused = call(&mut world.events_command(&["run"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("another ringfence-events writes it"), "{}", refused.stderr);
    assert_eq!(events.end().0, Some(0));
}

#[test]
fn a_directory_of_others_is_refused() {
    let world = World::with_databases();
    configure(&world, 1, "");
    std::fs::create_dir_all(world.path("log/events")).unwrap();
    std::fs::set_permissions(world.path("log/events"), PermissionsExt::from_mode(0o777)).unwrap();
    let refused = call(&mut world.events_command(&["run"]));
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("that nobody else may write to"), "{}", refused.stderr);
    let tail = || call(&mut world.events_command(&["tail"]));
    assert!(tail().code == 2 && tail().stderr.contains("others could have written it"), "{}", tail().stderr);
    std::fs::set_permissions(world.path("log/events"), PermissionsExt::from_mode(0o750)).unwrap();
    assert_eq!(tail().code, 2);
    assert!(tail().stderr.contains("it is there once ringfence-events run has run"), "{}", tail().stderr);
}

#[test]
fn metrics_are_written_whole() {
    let (world, source) = (World::with_databases(), EventSource::new());
    let path = world.path("ringfence.prom");
    configure(&world, source.port, &format!("[events]\nmetrics = {path:?}"));
    let tool = world.events_command(&["run"]);
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$0\" run"]).arg(tool.get_program());
    let mut events = Events::spawn(&world, command.env("RINGFENCE_CONFIG", world.config()));
    let mut stream = source.listener();
    stream.write_all(failure("101", "203.0.113.66", now_us()).as_bytes()).unwrap();
    stream.write_all(register("203.0.113.20").as_bytes()).unwrap();
    events.log_of(2);
    wait_for("a snapshot", || world.path("run/events/registrations.snapshot").exists());
    wait_for("the first", || path.exists());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(events.end().0, Some(0));
    let text = std::fs::read_to_string(&path).unwrap();
    for line in [
        "ringfence_events_lines_total{kind=\"failure\"} 1",
        "ringfence_events_connects_total 1",
        "ringfence_events_registered_addresses 1",
        "ringfence_events_connected 0",
        "ringfence_events_dropped_lines_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn tail_shows_people_what_happened() {
    let (world, _source, mut events, mut stream) = set_up();
    stream.write_all(failure("e\u{1b}[31mvil", "203.0.113.66", now_us()).as_bytes()).unwrap();
    stream.write_all(register("203.0.113.20").as_bytes()).unwrap();
    events.log_of(2);
    let path = world.path("log/events/events.log");
    let tail = |args: &[&str]| {
        let mut command = world.events_command(&["tail"]);
        call(command.args(args).env("TZ", "UTC"))
    };
    let shown = tail(&[]);
    assert_eq!((shown.code, shown.stderr.as_str()), (0, ""));
    assert!(shown.stdout.contains("  e\u{fffd}[31mvil@a.example.com  "), "{}", shown.stdout);
    assert!(!shown.stdout.contains('\u{1b}'), "{}", shown.stdout);
    let last = tail(&["--lines", "1", "--json"]).stdout;
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!((&last["kind"], &last["address"]), (&"success".into(), &"203.0.113.20".into()));
    let mut follow = world.events_command(&["tail", "-f", "-n", "0"]);
    let out = world.path("followed");
    let mut follow = follow.stdout(std::fs::File::create(&out).unwrap()).spawn().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    std::fs::rename(&path, world.path("log/events/events.log.1")).unwrap();
    events.signal(Signal::HUP);
    stream.write_all(failure("999", "203.0.113.66", now_us()).as_bytes()).unwrap();
    wait_for("what comes", || std::fs::read_to_string(&out).unwrap().contains("999@a.example.com"));
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(events.end().0, Some(0));
    let text = std::fs::read_to_string(&path).unwrap() + "nonsense\n";
    std::fs::write(&path, text).unwrap();
    let shown = tail(&[]);
    assert!(shown.stderr.contains("1 line is none of the log's format"), "{}", shown.stderr);
}
