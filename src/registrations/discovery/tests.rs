use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::config::{Config, Registrations};

/// Settings that look for everything below `dir` only.
fn settings(dir: &Path, more: &str) -> Registrations {
    let text = format!(
        "[registrations]\nfreeswitch-config = {:?}\nfusionpbx-config = {:?}\n{more}",
        dir.join("freeswitch"),
        dir.join("config.conf")
    );
    Config::parse(Path::new("r.toml"), text.as_bytes()).unwrap().registrations
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn core_db_dsn(dir: &Path, dsn: &str) {
    let xml = format!("<settings><param name=\"core-db-dsn\" value=\"{dsn}\"/></settings>");
    write(&dir.join("freeswitch/autoload_configs/switch.conf.xml"), &xml);
}

fn found(dir: &Path, more: &str) -> String {
    discover(&settings(dir, more)).unwrap().source.to_string()
}

#[test]
fn the_cores_word_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(&dir.join("db/core.db"), "x");
    write(
        &dir.join("config.conf"),
        &format!("database.1.type = sqlite\ndatabase.1.path = {}\n", dir.join("db").display()),
    );
    assert_eq!(found(dir, ""), format!("sqlite in {}", dir.join("db").display()));
    core_db_dsn(dir, "pgsql://hostaddr=192.0.2.1 dbname=freeswitch user=fs");
    assert_eq!(found(dir, ""), "postgres freeswitch as fs on 192.0.2.1:5432");
    // The settings know a better role for the same database.
    assert_eq!(
        found(dir, "postgres = \"host=192.0.2.1 dbname=freeswitch user=reader\""),
        "postgres freeswitch as reader on 192.0.2.1:5432"
    );
    // And the administrator's word comes before all.
    assert_eq!(found(dir, "source = \"sqlite\""), format!("sqlite in {}", dir.join("db").display()));
}

#[test]
fn every_directory_that_somebody_names_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(&dir.join("shm/core.db"), "x");
    write(&dir.join("db/sofia_reg_internal.db"), "x");
    write(&dir.join("db/fifo.db"), "x");
    write(&dir.join("db/sofia_reg_internal.db-journal"), "x");
    core_db_dsn(dir, &format!("sqlite://{}/core.db", dir.join("shm").display()));
    write(&dir.join("config.conf"), &format!("switch.database.dir = {}\n", dir.join("db").display()));
    let Source::Sqlite(files) = discover(&settings(dir, "")).unwrap().source else { panic!("no files") };
    assert_eq!(files, [dir.join("shm/core.db"), dir.join("db/sofia_reg_internal.db")]);
    // One that is set is the only one.
    let only = format!("sqlite-dir = {:?}", dir.join("db"));
    let Source::Sqlite(files) = discover(&settings(dir, &only)).unwrap().source else { panic!("no files") };
    assert_eq!(files, [dir.join("db/sofia_reg_internal.db")]);
}

#[test]
fn without_files_the_event_socket_then_the_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let no_files = "sqlite-dir = \"/nonexistent\"\n";
    write(
        &dir.join("config.conf"),
        "database.0.type = pgsql\ndatabase.0.host = 192.0.2.1\ndatabase.0.username = fusionpbx\n",
    );
    assert_eq!(found(dir, no_files), "postgres freeswitch as fusionpbx on 192.0.2.1:5432");
    let socket = "switch.event_socket.host = 127.0.0.1\nswitch.event_socket.port = 8022\nswitch.event_socket.password = x\n";
    write(&dir.join("config.conf"), socket);
    assert_eq!(found(dir, no_files), "event-socket 127.0.0.1:8022");
    assert_eq!(
        found(dir, &format!("{no_files}event-socket = {{ address = \"192.0.2.1:8021\" }}")),
        "event-socket 192.0.2.1:8021"
    );
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let error = |more: &str| format!("{:#}", discover(&settings(dir, more)).unwrap_err());
    assert!(error("sqlite-dir = \"/nonexistent\"").contains("no registrations found: "));
    assert!(
        error("source = \"sqlite\"\nsqlite-dir = \"/nonexistent\"")
            .ends_with("in /nonexistent; is registrations.sqlite-dir right?")
    );
    assert!(error("source = \"postgres\"\npostgres = { file = \"/nonexistent\" }").contains("/nonexistent"));
    std::fs::create_dir(dir.join("config.conf")).unwrap();
    assert!(error("").contains("registrations.fusionpbx-config"));
    core_db_dsn(dir, "pgsql://hostaddr=192.0.2.1 passwd=hunter2");
    let error = error("");
    assert!(error.contains("config.conf") && !error.contains("hunter2"), "{error}");
}

#[test]
fn an_unreadable_password_is_not_guessed() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    write(&secret, "\n");
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let more = format!("source = \"event-socket\"\nevent-socket = {{ password = {{ file = {secret:?} }} }}");
    let error = format!("{:#}", discover(&settings(dir.path(), &more)).unwrap_err());
    assert!(error.starts_with("registrations.event-socket: cannot read the secret"), "{error}");
}
