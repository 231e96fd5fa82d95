use super::*;
use crate::config::Config;

/// A registry whose source is a port where nobody listens, in directories of its own.
struct World {
    dir: tempfile::TempDir,
    config: Config,
}

const ADDRESS: &str = "203.0.113.20";
const NOW: i64 = 1_795_183_743_000;

impl World {
    fn new(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "state-dir = {:?}\nrun-dir = {:?}\n[registrations]\nsource = \"event-socket\"\n\
             event-socket = {{ address = \"127.0.0.1:1\" }}\nfreeswitch-config = \"/nonexistent\"\n\
             fusionpbx-config = \"/nonexistent\"\n{more}",
            dir.path().join("state"),
            dir.path().join("run")
        );
        let config = Config::parse("r.toml".as_ref(), text.as_bytes()).unwrap();
        for dir in [&config.state_dir, &config.run_dir] {
            std::fs::create_dir_all(dir).unwrap();
        }
        Self { dir, config }
    }

    fn ask(&self, now: i64) -> Answer {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(5));
        Registry::new(&self.config).standing(ADDRESS.parse().unwrap(), now, deadline)
    }

    /// As a look at `then` found it.
    fn snapshot(&self, then: i64, registered: &[&str]) {
        let found = Found {
            registered: registered.iter().map(|address| (address.parse().unwrap(), u32::MAX)).collect(),
            complete: true,
            ..Found::default()
        };
        let network = IpNetwork::from(ADDRESS.parse::<IpAddr>().unwrap());
        let question = Question { network, now: then / 1000, all: true };
        let fingerprint = snapshot::fingerprint(&self.config.registrations);
        snapshot::write(&self.config.run_dir, fingerprint, &question, &found, then, Duration::from_secs(2))
            .unwrap();
        seen::update(&self.config.state_dir, network, &found, then).unwrap();
    }
}

#[test]
fn a_fresh_snapshot_answers() {
    let world = World::new("");
    world.snapshot(NOW, &[ADDRESS]);
    let answer = world.ask(NOW + 1999);
    assert_eq!(answer.standing, Standing::Registered { until: u32::MAX });
    assert_eq!(answer.via, Via::Snapshot { age: Duration::from_millis(1999), addresses: 1 });
    assert!(matches!(world.ask(NOW + 2000).via, Via::Memory), "it is too old");
    world.snapshot(NOW, &[]);
    assert_eq!(world.ask(NOW).standing, Standing::NotRegistered);
}

/// As `ringfence-events` keeps it.
fn live(world: &World, then: i64, registered: &[&str]) {
    let registered = registered.iter().map(|address| (address.parse().unwrap(), u32::MAX));
    crate::registrations::live::Feed::new(&world.config).write(registered, true, then).unwrap();
}

#[test]
fn the_fresher_snapshot_counts() {
    let world = World::new("");
    let registered = Standing::Registered { until: u32::MAX };
    live(&world, NOW, &[ADDRESS]);
    let answer = world.ask(NOW + 1999);
    assert_eq!((answer.standing, answer.via()), (registered, "events"));
    assert!(matches!(world.ask(NOW + 2000).via, Via::Memory), "it is too old");
    world.snapshot(NOW + 1_000, &[]);
    assert_eq!(world.ask(NOW + 1_500).standing, Standing::NotRegistered, "ours is fresher");
    live(&world, NOW + 1_001, &[ADDRESS]);
    assert_eq!(world.ask(NOW + 1_500).standing, registered, "the other one is");
    let answer = world.ask(NOW + 2_999);
    assert_eq!(answer.via, Via::Events { age: Duration::from_millis(1998), addresses: 1 });
}

#[test]
fn a_live_snapshot_is_remembered_as_long_as_stale_ok_says() {
    let world = World::new("stale-ok = \"10m\"");
    live(&world, NOW, &[ADDRESS]);
    assert_eq!(world.ask(NOW + 600_000).standing, Standing::SeenLately { at: NOW / 1000 });
    assert_eq!(world.ask(NOW + 601_000).standing, Standing::Unknown);
}

#[test]
fn seen_lately_counts_as_long_as_stale_ok_says() {
    let world = World::new("stale-ok = \"10m\"");
    world.snapshot(NOW, &[ADDRESS]);
    let seen = Standing::SeenLately { at: NOW / 1000 };
    assert_eq!(world.ask(NOW + 600_000).standing, seen);
    assert_eq!(world.ask(NOW + 601_000).standing, Standing::Unknown);
    // Without what a boot takes away.
    std::fs::remove_dir_all(&world.config.run_dir).unwrap();
    assert_eq!(world.ask(NOW + 600_000).standing, seen);
    assert!(world.ask(NOW + 600_000).failure.unwrap().contains("127.0.0.1:1"));
}

#[test]
fn a_failure_is_remembered_and_then_one_tries_again() {
    let world = World::new("");
    assert!(world.ask(NOW).discovery.is_some(), "it asked");
    for later in [1, 9_999] {
        let answer = world.ask(NOW + later);
        assert!(answer.discovery.is_none() && answer.failure.is_some(), "it did not ask");
    }
    assert!(world.ask(NOW + 12_000).discovery.is_some(), "it asked again");
    // While one tries, the others do not wait.
    let memory = Memory::open(&world.config.run_dir).unwrap();
    assert!(memory.try_lock().unwrap());
    let start = Instant::now();
    let answer = world.ask(NOW + 30_000);
    assert!(answer.discovery.is_none() && start.elapsed() < Duration::from_secs(2));
}

#[test]
fn who_waits_gets_the_answer_of_who_asked() {
    let world = World::new("");
    let memory = Memory::open(&world.config.run_dir).unwrap();
    assert!(memory.try_lock().unwrap());
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| world.ask(NOW));
        std::thread::sleep(Duration::from_millis(50));
        world.snapshot(NOW, &[ADDRESS]);
        assert!(matches!(waits.join().unwrap().via, Via::Snapshot { .. }));
    });
}

#[test]
fn a_clock_that_was_set_back_makes_nothing_fresh() {
    let world = World::new("");
    world.snapshot(NOW, &[ADDRESS]);
    let answer = world.ask(NOW - 3_600_000);
    assert_eq!((answer.standing, answer.via), (Standing::Unknown, Via::Memory));
    assert!(world.dir.path().exists());
}
