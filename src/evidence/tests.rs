use std::os::unix::net::UnixDatagram;

use super::*;

struct World {
    dir: tempfile::TempDir,
    journal: Journal,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let journal =
            Journal::new(&dir.path().join("log"), &dir.path().join("run"), &dir.path().join("dev-log"));
        Self { dir, journal }
    }

    fn record(&self, subject: &str, second: i64) {
        self.journal.record(&decision(subject), Timestamp::from_second(second).unwrap()).unwrap();
    }

    fn lines(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.dir.path().join("log/decisions.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn decision(subject: &str) -> Decision {
    Decision {
        tool: "ringfence-ignore".into(),
        subject: subject.into(),
        decision: "keep".into(),
        reason: "registered".into(),
        source: "sqlite".into(),
        mode: String::new(),
        detail: String::new(),
    }
}

#[test]
fn the_same_decision_is_one_line_a_minute_with_a_count() {
    let world = World::new();
    for second in [1000, 1001, 1059, 1060, 1061, 2000] {
        world.record("203.0.113.20", second);
    }
    let counts: Vec<_> = world.lines().iter().map(|line| line["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [1, 3, 2]);
    assert_eq!(world.lines()[0]["when"], "1970-01-01T00:16:40Z");
    assert_eq!(world.lines()[0]["subject"], "203.0.113.20");
}

#[test]
fn no_count_is_lost_when_a_slot_is_taken_over() {
    let world = World::new();
    let subjects = 3000_u32;
    for subject in 0..subjects {
        for _ in 0..3 {
            world.record(&subject.to_string(), 1000);
        }
    }
    // Those still in the table have two each that no line tells of yet.
    let told: u64 = world.lines().iter().map(|line| line["count"].as_u64().unwrap()).sum();
    let made = u64::from(3 * subjects);
    assert!((made - 2 * 512..made).contains(&told), "{told} of {made}");
    assert!(world.lines().iter().all(|line| line["tool"] == "ringfence-ignore"));
}

#[test]
fn a_full_journal_is_renamed_once() {
    let world = World::new();
    world.record("first", 1000);
    let path = world.dir.path().join("log/decisions.jsonl");
    std::fs::write(&path, vec![b'\n'; usize::try_from(MAX_LENGTH).unwrap()]).unwrap();
    std::thread::scope(|scope| {
        for subject in 0..32 {
            let world = &world;
            scope.spawn(move || world.record(&format!("subject {subject}"), 1000));
        }
    });
    assert_eq!(std::fs::metadata(path.with_extension("jsonl.1")).unwrap().len(), MAX_LENGTH);
    assert_eq!(world.lines().len(), 32);
}

#[test]
fn hostile_text_stays_one_short_clean_line() {
    let world = World::new();
    let text = format!("a\n\"\u{1b}[31m{}", "ü".repeat(10_000));
    let mut decision = decision(&text);
    decision.detail.clone_from(&text);
    world.journal.record(&decision, Timestamp::from_second(1000).unwrap()).unwrap();
    let lines = world.lines();
    assert_eq!(lines.len(), 1);
    let subject = lines[0]["subject"].as_str().unwrap();
    assert!(subject.len() < 220 && !subject.contains(['\n', '\u{1b}']), "{subject:?}");
}

#[test]
fn the_size_is_bounded() {
    let world = World::new();
    let path = world.dir.path().join("log/decisions.jsonl");
    world.record("first", 1000);
    std::fs::write(&path, vec![b'\n'; usize::try_from(MAX_LENGTH).unwrap()]).unwrap();
    world.record("second", 1000);
    assert_eq!(world.lines().len(), 1);
    assert_eq!(std::fs::metadata(path.with_extension("jsonl.1")).unwrap().len(), MAX_LENGTH);
}

#[test]
fn syslog_hears_of_each_kind_once_a_minute() {
    let world = World::new();
    let receiver = UnixDatagram::bind(world.dir.path().join("dev-log")).unwrap();
    receiver.set_nonblocking(true).unwrap();
    for subject in ["203.0.113.20", "203.0.113.21", "203.0.113.22"] {
        world.record(subject, 1000);
    }
    world.record("203.0.113.23", 1060);
    let mut heard = Vec::new();
    let mut buffer = [0; 1024];
    while let Ok(length) = receiver.recv(&mut buffer) {
        heard.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
    }
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].starts_with("<30>ringfence-ignore["), "{heard:?}");
    assert!(heard[0].ends_with("]: keep 203.0.113.20, registered"), "{heard:?}");
    assert!(
        heard[1].ends_with("keep 203.0.113.23, registered (3 of this kind since the last such line)"),
        "{heard:?}"
    );
}

#[test]
fn a_syslog_that_never_reads_costs_no_time() {
    let world = World::new();
    let _deaf = UnixDatagram::bind(world.dir.path().join("dev-log")).unwrap();
    for second in 0..2000 {
        world.record("203.0.113.20", 1000 + second * 60);
    }
    assert_eq!(world.lines().len(), 2000);
}

#[test]
fn an_unwritable_journal_is_an_error_and_syslog_says_so() {
    let world = World::new();
    let receiver = UnixDatagram::bind(world.dir.path().join("dev-log")).unwrap();
    receiver.set_nonblocking(true).unwrap();
    std::fs::write(world.dir.path().join("log"), "a file where the directory should be").unwrap();
    assert!(world.journal.record(&decision("203.0.113.20"), Timestamp::from_second(1000).unwrap()).is_err());
    let mut buffer = [0; 1024];
    let heard: Vec<_> = std::iter::from_fn(|| {
        receiver.recv(&mut buffer).ok().map(|n| String::from_utf8_lossy(&buffer[..n]).into_owned())
    })
    .collect();
    assert!(heard.iter().any(|line| line.starts_with("<28>") && line.contains("evidence-lost")), "{heard:?}");
}
