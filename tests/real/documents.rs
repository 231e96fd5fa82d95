//! README.md, docs/ and the other documents: every block is parsed, and what they name is there.

use std::collections::BTreeSet;
use std::path::Path;

use clap::CommandFactory as _;
use clap::error::ErrorKind;
use quick_xml::events::Event;
use ringfence::commands::{allow, ban, block, events, firewall, ignore, lists, ringfence as admin};

use crate::support::{Fail2ban, Host, World, project, run};

/// A document, by its path in the project.
struct Document {
    name: String,
    text: String,
}

/// What stands between two fences.
struct Block<'a> {
    /// Which document, and in which line its text begins.
    place: String,
    language: &'a str,
    text: String,
}

/// All of them.
fn documents() -> Vec<Document> {
    let mut names: Vec<_> = ["README.md", "SECURITY.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    let docs = std::fs::read_dir(project("docs")).unwrap();
    names.extend(docs.map(|entry| format!("docs/{}", entry.unwrap().file_name().display())));
    names.sort();
    let read = |name: String| Document { text: std::fs::read_to_string(project(&name)).unwrap(), name };
    names.into_iter().map(read).collect()
}

impl Document {
    fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = vec![];
        let mut lines = self.text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(language) = line.strip_prefix("```") else { continue };
            let text = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
            let text = text.fold(String::new(), |text, line| text + line + "\n");
            blocks.push(Block { place: format!("{}:{}", self.name, number + 2), language, text });
        }
        blocks
    }

    /// Its lines that are no block, with their numbers.
    fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut fenced = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            let fence = line.starts_with("```");
            fenced ^= fence;
            (!fenced && !fence).then_some((number + 1, line))
        })
    }

    /// What stands between backticks, and where.
    fn code(&self) -> Vec<(String, &str)> {
        let of_line = |(number, line)| {
            let place = format!("{}:{number}", self.name);
            <str>::split(line, '`').skip(1).step_by(2).map(move |code| (place.clone(), code))
        };
        self.prose().flat_map(of_line).collect()
    }

    /// Where its links lead, and where they stand.
    fn links(&self) -> Vec<(String, &str)> {
        let of_line = |(number, line)| {
            let place = format!("{}:{number}", self.name);
            let ends = <str>::split(line, "](").skip(1).filter_map(|rest| rest.split_once(')'));
            ends.map(move |(link, _)| (place.clone(), link))
        };
        self.prose().flat_map(of_line).collect()
    }

    /// The names by which links reach its headings.
    fn anchors(&self) -> BTreeSet<String> {
        let heading = |line: &str| Some(line.trim_start_matches('#').strip_prefix(' ')?.to_lowercase());
        let headings = self.prose().filter(|(_, line)| line.starts_with('#'));
        let anchor = |text: String| -> String {
            let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        };
        headings.filter_map(|(_, line)| heading(line)).map(anchor).collect()
    }
}

/// The command line of one of our tools.
fn tool(name: &str) -> Option<clap::Command> {
    Some(match name {
        "ringfence" => admin::Args::command(),
        "ringfence-allow" => allow::Args::command(),
        "ringfence-ban" => ban::Args::command(),
        "ringfence-block" => block::Args::command(),
        "ringfence-events" => events::Args::command(),
        "ringfence-firewall" => firewall::Args::command(),
        "ringfence-ignore" => ignore::Args::command(),
        "ringfence-lists" => lists::Args::command(),
        _ => return None,
    })
}

/// The names of files in one of the project's directories.
fn files_in(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(project(directory)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Our jails.
fn jails() -> BTreeSet<String> {
    let of_file = |name: String| {
        let text = std::fs::read_to_string(project("fail2ban/jail.d").join(name)).unwrap();
        let section = |line: &str| Some(line.strip_prefix('[')?.strip_suffix(']')?.to_owned());
        text.lines().filter_map(section).collect::<Vec<_>>()
    };
    files_in("fail2ban/jail.d").into_iter().flat_map(of_file).filter(|name| name != "DEFAULT").collect()
}

/// Whether something of ours goes by this name: a tool, a jail, a filter, an action, a unit or an example.
fn is_ours(name: &str) -> bool {
    let files = |directory| files_in(directory).into_iter();
    let stem = |file: &str| file.rsplit_once('.').map(|(stem, _)| stem.to_owned());
    tool(name).is_some()
        || jails().contains(name)
        || is_unit(name)
        || files("fail2ban/filter.d")
            .chain(files("fail2ban/action.d"))
            .any(|file| stem(&file).as_deref() == Some(name))
        || files("fail2ban/examples").any(|file| file == name)
}

/// Whether this is one of our units; without an ending it is a service.
fn is_unit(name: &str) -> bool {
    let file = if name.contains('.') { name.to_owned() } else { format!("{name}.service") };
    project("packaging/systemd").join(file).is_file()
}

/// The words of a line as a shell would tell them, but for its `{,}`; a command each.
fn commands(line: &str) -> Vec<Vec<String>> {
    let (mut commands, mut words, mut word) = (vec![], vec![], None::<String>);
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(end), c) if c == end => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '&' | '|' | ';') => {
                words.extend(word.take());
                if c != ' ' && !words.is_empty() {
                    commands.push(std::mem::take(&mut words));
                }
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert_eq!(quote, None, "a quote without its end: {line}");
    words.extend(word);
    commands.push(words);
    commands
}

/// What a shell makes of `{a,b}` in a word.
fn expanded(word: &str) -> Vec<String> {
    let Some((before, (within, after))) =
        word.split_once('{').and_then(|(before, rest)| Some((before, rest.split_once('}')?)))
    else {
        return vec![word.to_owned()];
    };
    within.split(',').flat_map(|part| expanded(&format!("{before}{part}{after}"))).collect()
}

/// Whether a file of the project has this path; `*` stands for a part of a name.
fn is_in_project(path: &str) -> bool {
    let Some((before, after)) = path.split_once('*') else { return project(path).exists() };
    let (directory, start) = before.rsplit_once('/').unwrap();
    files_in(directory).iter().any(|name| name.starts_with(start) && name.ends_with(after))
}

/// Directories of the project whose files are named in the documents.
const DIRECTORIES: [&str; 9] =
    ["benches/", "bpf/", "demo/", "docs/", "fail2ban/", "packaging/", "scripts/", "src/", "tests/"];

/// What is wrong with a word that may be one of our paths.
fn wrong_path(word: &str) -> Option<String> {
    let wrong = |path: &str| Some(format!("{path} is not there"));
    if DIRECTORIES.iter().any(|directory| word.starts_with(directory)) {
        return if is_in_project(word) { None } else { wrong(word) };
    }
    if let Some(name) = word.strip_prefix("/usr/share/ringfence/sql/") {
        return if name.is_empty() || is_in_project(&format!("packaging/sql/{name}")) {
            None
        } else {
            wrong(word)
        };
    }
    if let Some(name) = word.strip_prefix("/usr/share/doc/ringfence/examples/") {
        let is_there = |name| name == "ringfence.cron" || is_in_project(&format!("fail2ban/examples/{name}"));
        return if name.is_empty() || is_there(name) { None } else { wrong(word) };
    }
    let program = word.strip_prefix("/usr/bin/").or_else(|| word.strip_prefix("target/release/"));
    match program.filter(|name| name.starts_with("ringfence")) {
        Some(name) if tool(name).is_none() => wrong(word),
        _ => None,
    }
}

/// Programs of others that the documents may call; a package of Debian's, of a PBX or of Rust has them.
const OTHERS: [&str; 19] = [
    "/usr/libexec/ringfence/take-away",
    "apt",
    "asterisk",
    "cargo",
    "dnf",
    "editor",
    "fail2ban-client",
    "grep",
    "install",
    "ipset",
    "iptables",
    "logger",
    "make",
    "psql",
    "rm",
    "sha256sum",
    "systemctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
];

/// What is wrong with a command.
fn wrong(words: &[String]) -> Option<String> {
    // As whom, and the settings of its environment, come first.
    let words = if words.starts_with(&["sudo", "-u"].map(str::to_owned)) { &words[3..] } else { words };
    let words: Vec<_> = words
        .iter()
        .skip_while(|word| {
            word.split_once('=')
                .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        })
        .flat_map(|word| expanded(word))
        .collect();
    let program = words.first()?.as_str();
    if let Some(wrong) = words.iter().find_map(|word| wrong_path(word)) {
        return Some(wrong);
    }
    if let Some(command) = tool(program) {
        return match command.try_get_matches_from(&words) {
            Err(error) if !matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
                Some(error.to_string())
            }
            _ => None,
        };
    }
    let arguments = &words[1..];
    match program {
        "make" => {
            let targets = arguments.iter().filter(|word| !word.contains('='));
            targets.filter(|target| !is_target(target)).map(|target| format!("no target {target}")).next()
        }
        "systemctl" => {
            let ours = arguments.iter().filter(|word| word.starts_with("ringfence-"));
            ours.filter(|unit| !is_unit(unit)).map(|unit| format!("no unit {unit}")).next()
        }
        "cargo" => {
            let commands = ["build", "install", "test", "clippy", "fmt"];
            let known = arguments.first().is_some_and(|word| commands.contains(&word.as_str()));
            (!known).then(|| "a command of cargo that is not known here".to_owned())
        }
        "fail2ban-client" => {
            let commands = ["-t", "reload", "restart", "set", "status", "unban", "banned"];
            let known = arguments.first().is_some_and(|word| commands.contains(&word.as_str()));
            (!known).then(|| "a command of fail2ban-client that is not known here".to_owned())
        }
        _ => (!OTHERS.contains(&program)).then(|| format!("{program} is no program that is known here")),
    }
}

fn is_target(name: &str) -> bool {
    let makefile = std::fs::read_to_string(project("Makefile")).unwrap();
    makefile.lines().any(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))
}

/// The command lines of a block: all of them, or those behind a prompt.
fn command_lines(block: &Block<'_>) -> Vec<String> {
    let text = block.text.replace("\\\n", " ");
    let lines = text.lines();
    if block.language == "console" {
        let behind =
            |line: &str| line.strip_prefix("# ").or_else(|| line.strip_prefix("$ ")).map(str::to_owned);
        return lines.filter_map(behind).collect();
    }
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

/// The columns of a table that a tool prints, if the line is the head of one.
fn columns(line: &str) -> Vec<&str> {
    let head = line.contains("  ") && line.chars().all(|c| c.is_ascii_uppercase() || c == ' ');
    if head { line.split("  ").map(str::trim).filter(|name| !name.is_empty()).collect() } else { vec![] }
}

/// All of our tools' text.
fn source() -> String {
    let mut text = String::new();
    let mut directories = vec![project("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    text
}

#[test]
fn every_block_is_of_a_language_that_is_tested() {
    for document in documents() {
        assert_eq!(document.text.matches("```").count() % 2, 0, "{}", document.name);
        for block in document.blocks() {
            let tested = ["toml", "ini", "xml", "sh", "console", "text"].contains(&block.language);
            assert!(tested, "{}: a block of {:?}", block.place, block.language);
            assert!(!block.text.is_empty(), "{}", block.place);
        }
    }
}

#[test]
fn settings_are_settings() {
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.language == "toml") {
            let settings = ringfence::config::Config::parse(Path::new(&block.place), block.text.as_bytes());
            if let Err(error) = settings {
                panic!("{}: {error}", block.place);
            }
        }
    }
}

#[test]
fn xml_is_xml() {
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.language == "xml") {
            let mut reader = quick_xml::Reader::from_str(&block.text);
            loop {
                match reader.read_event() {
                    Ok(Event::Eof) => break,
                    Ok(_) => {}
                    Err(error) => panic!("{}: {error}", block.place),
                }
            }
        }
    }
}

#[test]
fn every_command_is_one_that_its_program_knows() {
    let source = source();
    let mut found = vec![];
    for document in documents() {
        for block in document.blocks() {
            if !["sh", "console"].contains(&block.language) {
                continue;
            }
            let lines = command_lines(&block);
            assert!(!lines.is_empty(), "{}: no command", block.place);
            for line in lines {
                let wrongs = commands(&line).iter().filter_map(|words| wrong(words)).collect::<Vec<_>>();
                found.extend(wrongs.iter().map(|wrong| format!("{}: {line}\n    {wrong}", block.place)));
            }
            for column in block.text.lines().flat_map(columns) {
                if !source.contains(&format!("\"{column}\"")) {
                    found.push(format!("{}: no tool has the column {column}", block.place));
                }
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// `ringfence-lists show` in a sentence: the command is there, and so are its options.
#[test]
fn what_is_named_in_sentences_is_there() {
    for document in documents() {
        for (place, code) in document.code() {
            let words: Vec<_> = code.split_whitespace().collect();
            let Some(first) = words.first() else { continue };
            if let Some(wrong) = words.iter().find_map(|word| wrong_path(word)) {
                panic!("{place}: {wrong}");
            }
            let name = first.strip_suffix(".conf").unwrap_or(first);
            if name.starts_with("ringfence-") && !name.contains(['/', '*']) {
                assert!(is_ours(name), "{place}: {name}");
            }
            if *first == "make" {
                assert!(words.get(1).is_none_or(|target| is_target(target)), "{place}: {code}");
            }
            if *first == "man" {
                let pages = files_in("packaging/man");
                let page = |name: &str| pages.iter().any(|file| file.rsplit_once('.').unwrap().0 == name);
                assert!(words.get(1).is_some_and(|name| page(name)), "{place}: {code}");
            }
            let Some(mut command) = tool(first) else { continue };
            command.build();
            let mut names = words[1..].iter().filter(|word| !word.starts_with('-'));
            if command.has_subcommands()
                && let Some(name) = names.next().filter(|name| name.chars().all(|c| c.is_ascii_lowercase()))
            {
                let found = command.find_subcommand(name).cloned();
                command = found.unwrap_or_else(|| panic!("{place}: no command {name} in {code}"));
            }
            for option in
                words.iter().filter_map(|word| word.strip_prefix("--")).filter(|word| !word.is_empty())
            {
                let known = command.get_arguments().any(|argument| argument.get_long() == Some(option));
                assert!(known || ["help", "version"].contains(&option), "{place}: no --{option} in {code}");
            }
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let documents = documents();
    let mut reached = BTreeSet::from(["README.md".to_owned()]);
    for document in &documents {
        for (place, link) in document.links() {
            if link.starts_with("https://") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let directory = Path::new(&document.name).parent().unwrap();
            let target = match path.strip_prefix("../") {
                _ if path.is_empty() => document.name.clone(),
                Some(path) => path.to_owned(),
                None => directory.join(path).display().to_string(),
            };
            assert!(project(&target).exists(), "{place}: {link}");
            if !anchor.is_empty() {
                let document = documents.iter().find(|document| document.name == target);
                let anchors = document.unwrap_or_else(|| panic!("{place}: {link}")).anchors();
                assert!(anchors.contains(anchor), "{place}: {link} is none of {anchors:?}");
            }
            if document.name == "README.md" {
                reached.insert(target);
            }
        }
    }
    for document in &documents {
        assert!(reached.contains(&document.name), "README.md does not lead to {}", document.name);
    }
}

/// Our files and this as jail.local: fail2ban takes it, and starts the jails that it enables.
#[test]
fn jails_are_taken_by_fail2ban() {
    let (host, world) = (Host::new(), World::empty());
    run(host.command("mount").args(["-t", "tmpfs", "tmpfs", "/var/log"]));
    run(host.command("mount").args(["-t", "tmpfs", "tmpfs", "/usr/local"]));
    let logs = [
        "/var/log/freeswitch/freeswitch.log",
        "/usr/local/freeswitch/log/freeswitch.log",
        "/var/log/ringfence/events/events.log",
        "/var/log/asterisk/security",
        "/var/log/asterisk/messages",
        "/var/log/asterisk/full",
    ];
    run(host.command("install").args(["-D", "-m", "644", "-t", "/var/log", "/dev/null"]));
    for log in logs {
        run(host.command("install").args(["-D", "-m", "644", "/dev/null", log]));
    }
    let fail2ban = Fail2ban::start(&host, &world, "", &std::env::var("PATH").unwrap());
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.language == "ini") {
            std::fs::write(world.path("fail2ban/jail.local"), &block.text).unwrap();
            let dump = fail2ban.dump();
            let mut jail = "";
            for line in block.text.lines() {
                if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                    jail = name;
                    let ours = name.starts_with("ringfence-");
                    assert!(!ours || jails().contains(name), "{}: no jail {name}", block.place);
                }
                let words: Vec<_> = line.split_whitespace().collect();
                let key = words.first().copied().unwrap_or_default();
                if words == ["enabled", "=", "true"] {
                    assert!(
                        dump.contains(&format!("['start', '{jail}']")),
                        "{}: {jail} in {dump}",
                        block.place
                    );
                } else if key.starts_with("ringfence_") {
                    let defaults =
                        std::fs::read_to_string(project("fail2ban/jail.d/ringfence-defaults.conf")).unwrap();
                    assert!(defaults.contains(&format!("\n{key} ")), "{}: {key}", block.place);
                } else if key == "banaction" || key == "banaction_allports" {
                    let action = format!("fail2ban/action.d/{}.conf", words[2]);
                    assert!(is_in_project(&action), "{}: {action}", block.place);
                }
            }
        }
    }
}

/// What the scripts of block lists, APIBAN's client and `event_guard` leave behind.
const LEFT_BEHIND: &str = "
    ipset create voipbl hash:net
    iptables -I INPUT -m set --match-set voipbl src -j DROP
    iptables -N APIBAN
    iptables -I INPUT -j APIBAN
    iptables -I FORWARD -j APIBAN
    iptables -A APIBAN -s 192.0.2.4 -j REJECT
    iptables -N BLACKLIST-INPUT
    iptables -I INPUT -j BLACKLIST-INPUT
    iptables -A BLACKLIST-INPUT -s 192.0.2.5 -j DROP
    for chain in sip-auth-ip sip-auth-fail; do
        iptables -N $chain
        iptables -I INPUT -j $chain
        iptables -A $chain -s 192.0.2.9 -j DROP
    done";

/// The commands of iptables and ipset in the documents, one after the other, take all of it away again.
#[test]
fn what_others_leave_behind_goes_by_the_commands_of_the_documents() {
    let host = Host::new();
    let held = || host.shell("iptables -S; ipset list -n");
    let before = held();
    host.shell(LEFT_BEHIND);
    assert_ne!(held(), before);
    for document in documents() {
        for block in document.blocks().iter().filter(|block| ["sh", "console"].contains(&block.language)) {
            for words in command_lines(block).iter().flat_map(|line| commands(line)) {
                if ["iptables", "ipset"].contains(&words[0].as_str()) {
                    run(host.command(&words[0]).args(&words[1..]));
                }
            }
        }
    }
    assert_eq!(held(), before);
}

/// Whatever make sets up is something that scripts/setup knows.
#[test]
fn make_sets_up_what_there_is() {
    let makefile = std::fs::read_to_string(project("Makefile")).unwrap();
    let words: Vec<&str> =
        makefile.lines().filter_map(|line| line.trim().strip_prefix("@scripts/setup ")).collect();
    let refused = std::process::Command::new(project("scripts/setup")).arg("nonsense").output().unwrap();
    let usage = String::from_utf8(refused.stderr).unwrap();
    let (_, known) = usage.trim().rsplit_once(' ').unwrap();
    let known: Vec<&str> = known.split('|').collect();
    assert!(words.len() > 8 && words.iter().all(|word| known.contains(word)), "{words:?}: {usage}");
}
