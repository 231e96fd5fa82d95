//! The manual pages: packaging/man has what the definitions of the command lines, packaging/ringfence.toml and the texts beside
//! them (`*.in`) say. `make man` writes them.

#![expect(unreachable_pub, reason = "a test has no outside")]

mod roff;
mod settings;
mod tool;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::CommandFactory as _;
use ringfence::commands::{allow, ban, block, events, firewall, ignore, lists, ringfence as admin};
use ringfence::config::Config;

use crate::settings::Settings;

/// All tools.
fn tools() -> [clap::Command; 8] {
    let mut tools = [
        admin::Args::command(),
        allow::Args::command(),
        ban::Args::command(),
        block::Args::command(),
        events::Args::command(),
        firewall::Args::command(),
        ignore::Args::command(),
        lists::Args::command(),
    ];
    // Options of all commands are handed down.
    tools.iter_mut().for_each(clap::Command::build);
    tools
}

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The pages by their files' names, as they should be.
fn pages() -> Vec<(String, String)> {
    let mut pages: Vec<_> = tools()
        .iter()
        .map(|tool| {
            let name = format!("{}.1", tool.get_name());
            let text = template(&name)
                .replace("@commands@\n", &tool::all_commands(tool))
                .replace("@options@\n", &tool::options(tool));
            let page = format!("{}{}{text}", title(&name), tool::beginning(tool));
            (name, page)
        })
        .collect();
    let settings = Settings::parse(&read(&project("packaging/ringfence.toml")));
    let (name, concepts) = ("ringfence.toml.5", "ringfence.7");
    pages.push((name.to_owned(), format!("{}{}", title(name), settings.fill(&template(name)))));
    pages.push((concepts.to_owned(), format!("{}{}", title(concepts), template(concepts))));
    pages
}

fn page_file(name: &str) -> PathBuf {
    project("packaging/man").join(name)
}

/// What people wrote of a page.
fn template(name: &str) -> String {
    read(&page_file(&format!("{name}.in")))
}

/// How each page begins.
fn title(name: &str) -> String {
    let (title, section) = name.rsplit_once('.').unwrap();
    let (title, version) = (roff::literal(&title.to_uppercase()), env!("CARGO_PKG_VERSION"));
    format!(
        ".\\\" Made by \"make man\": change {name}.in, the definitions of the command line, or ringfence.toml.\n\
         .TH {title} {section} \"\" \"Ringfence {version}\" \"Ringfence\"\n{}",
        roff::COPIABLE
    )
}

#[test]
fn the_pages_are_what_the_definitions_say() {
    let write = std::env::var_os("MAKE_MAN").is_some();
    let mut names = vec![];
    for (name, page) in pages() {
        let file = page_file(&name);
        if write {
            std::fs::write(&file, &page).unwrap();
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        let differs = there.lines().zip(page.lines()).position(|(one, other)| one != other);
        assert!(
            there == page,
            "{name}, line {}: not as defined; run `make man`",
            differs.map_or(0, |line| line + 1)
        );
        names.push(name.clone());
        names.push(format!("{name}.in"));
    }
    for entry in std::fs::read_dir(project("packaging/man")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(names.contains(&name), "packaging/man/{name} is nobody's page");
    }
}

#[test]
fn the_pages_render_without_a_warning() {
    for (name, _) in pages() {
        let man = Command::new("man")
            .args(["-l", "--warnings", "-E", "UTF-8"])
            .arg(page_file(&name))
            .envs([("LC_ALL", "C.UTF-8"), ("MANWIDTH", "80"), ("MANROFFSEQ", ""), ("MANPAGER", "cat")])
            .output()
            .expect("man is installed by scripts/setup test");
        let stderr = String::from_utf8_lossy(&man.stderr);
        assert!(man.status.success() && stderr.is_empty(), "{name}: {stderr}");
        let text = String::from_utf8_lossy(&man.stdout);
        assert!(text.contains("NAME") && text.contains("SEE ALSO"), "{name}: {text}");
        let wide: Vec<_> = text.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{name}: too wide: {wide:#?}");
        let mandoc = Command::new("mandoc")
            .args(["-T", "lint", "-W", "warning"])
            .arg(page_file(&name))
            .output()
            .expect("mandoc is installed by scripts/setup test");
        let said = String::from_utf8_lossy(&mandoc.stdout);
        // No date: a page is made anew for each version, which it names.
        let said: Vec<_> = said.lines().filter(|line| !line.contains("missing date")).collect();
        assert!(said.is_empty(), "{}", said.join("\n"));
    }
}

#[test]
fn the_examples_of_settings_are_right() {
    let page = template("ringfence.toml.5");
    let examples: Vec<_> =
        page.split("\n.nf\n").skip(1).map(|rest| rest.split("\n.fi").next().unwrap()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        let config = Config::parse(Path::new("example"), example.as_bytes()).unwrap();
        config.firewall.restricted_to(&config.lists).unwrap();
    }
}

/// Each example is an entry: its command line, then what it is for.
#[test]
fn the_examples_of_commands_are_right() {
    for tool in tools() {
        let name = format!("{}.1", tool.get_name());
        let page = template(&name);
        let examples = page.split(".SH EXAMPLES\n").nth(1).unwrap().split(".SH ").next().unwrap();
        let lines: Vec<_> = examples.lines().filter_map(|line| line.strip_prefix(".B ringfence")).collect();
        assert!(!lines.is_empty(), "{name}");
        for line in lines {
            let line = format!("ringfence{}", line.replace("\\-", "-").replace("\\(dq", "\""));
            // Every other part is in quotes.
            let words = line.split('"').enumerate().flat_map(|(index, part)| {
                if index % 2 == 1 { vec![part] } else { part.split_whitespace().collect() }
            });
            if let Err(error) = tool.clone().try_get_matches_from(words) {
                panic!("{name}: {line}: {error}");
            }
        }
    }
}

/// Pages and units name pages of ours that there are.
#[test]
fn references_lead_somewhere() {
    let pages = pages();
    let exists =
        |name: &str, section: &str| pages.iter().any(|(page, _)| *page == format!("{name}.{section}"));
    let mut texts: Vec<_> = pages.iter().map(|(name, page)| (name.clone(), page.clone())).collect();
    for entry in std::fs::read_dir(project("packaging/systemd")).unwrap() {
        let path = entry.unwrap().path();
        texts.push((path.display().to_string(), read(&path)));
    }
    for (place, text) in texts {
        // As it is read: without fonts, and the quotes and blanks of requests.
        let text = text.replace("\\fB", "").replace("\\fR", "").replace("\\-", "-").replace(" (", "(");
        for (at, _) in text.match_indices("ringfence") {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !c.is_ascii_lowercase() && c != '-' && c != '.').unwrap_or(rest.len());
            let Some(section) = rest[end..].strip_prefix('(').and_then(|rest| rest.get(..2)) else {
                continue;
            };
            if let Some(section) = section.strip_suffix(')') {
                assert!(exists(&rest[..end], section), "{place}: {}({section})", &rest[..end]);
            }
        }
    }
}
