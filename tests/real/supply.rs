//! What is linked into the tools, as `make sbom` lists it.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::{project, run};

#[test]
fn the_list_has_all_that_is_linked_and_nothing_else() {
    let list = || run(Command::new(project("scripts/sbom")).current_dir(project("")));
    let text = list();
    assert_eq!(text, list(), "the same twice");
    let list: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&list["bomFormat"], &list["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    assert_eq!(list["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let mut names = BTreeSet::new();
    for component in list["components"].as_array().unwrap() {
        let checksum = component["hashes"][0]["content"].as_str();
        assert!(checksum.is_some_and(|checksum| checksum.len() == 64), "{component}");
        assert!(component["licenses"][0]["expression"].is_string(), "{component}");
        names.insert(component["name"].as_str().unwrap());
    }
    for (name, linked) in [
        ("clap", true),
        ("libsqlite3-sys", true),
        ("ring", true),
        ("ringfence", false),
        ("assert_cmd", false),
        ("proptest", false),
        ("windows-sys", false),
    ] {
        assert_eq!(names.contains(name), linked, "{name}");
    }
}
