//! fail2ban itself, and its jails for SIP: how they ask whom to leave alone, and whether they read anything.

use std::path::Path;
use std::time::Duration;

use super::Subject::{Fail2ban, Jail as OneJail};
use super::{Finding, Root};
use crate::config::Config;
use crate::fail2ban::jails::{self, Configuration, Jail};
use crate::fail2ban::{self, CONFIG, Running};
use crate::programs;

/// No call of fail2ban's client takes longer.
const TIME: Duration = Duration::from_secs(10);

/// What the argument of `ignorecommand` must be.
const ADDRESS: &str = "\"<ip>\"";

/// As in jail.d/ringfence-defaults.conf.
const IGNORECOMMAND: &str = "ignorecommand = exec /usr/bin/ringfence-ignore \"<ip>\"";
const IGNORECACHE: &str = "ignorecache = key=\"<ip>\", max-count=1000, max-time=20s";

const RELOAD: &str = "fail2ban-client reload";

/// A phone that registers meanwhile is not recognised for longer.
const LONGEST_CACHE: i64 = 60;

/// Its version, as three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// What its programs print: `Fail2Ban v1.0.2`, `1.1.0`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let word = text.split_whitespace().map(|word| word.trim_start_matches('v'));
        let number =
            word.filter(|word| word.starts_with(|c: char| c.is_ascii_digit())).find(|w| w.contains('.'))?;
        let mut parts = number.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
        Some(Self([0; 3].map(|_: u32| parts.next().unwrap_or(0))))
    }

    /// A ban that is restored hands its id to the shell as it is.
    #[must_use]
    pub fn hands_over_restored_ids(self) -> bool {
        self <= Self([1, 0, 2])
    }
}

/// Whether fail2ban is there, runs, and understands its configuration; and that, where it could be read.
#[must_use]
pub fn daemon(config: &Config, root: &Root) -> (Vec<Finding>, Option<(Version, Configuration)>) {
    if let Err(error) = programs::installed("fail2ban", "fail2ban-client") {
        let remedy = "apt-get install fail2ban, and then Ringfence's jails: see jail.local in its examples.";
        return (vec![Finding::needs(Fail2ban, "installed", format!("{error:#}."), remedy)], None);
    }
    let said = match programs::output("fail2ban", "fail2ban-client", &["--version"], "", TIME) {
        Ok(output) => output.stdout + &output.stderr,
        Err(error) => {
            let remedy = "See what it says: fail2ban-client --version. The jails are not checked until then.";
            return (vec![Finding::needs(Fail2ban, "version", format!("{error:#}."), remedy)], None);
        }
    };
    let mut findings = vec![];
    let version = Version::parse(&said).unwrap_or(Version([0; 3]));
    findings.push(of_version(version));
    findings.push(runs(&config.fail2ban.socket));
    let dir = root.at(CONFIG);
    match jails::configuration(&dir, TIME) {
        Ok(configuration) => {
            findings.push(voip_jails(config, &configuration.jails));
            (findings, Some((version, configuration)))
        }
        Err(error) => {
            let what = format!("Its configuration in {} is refused: {error:#}.", dir.display());
            let remedy = "Mend that, then: fail2ban-client -t. The jails are not checked until then.";
            findings.push(Finding::needs(Fail2ban, "configuration", what, remedy));
            (findings, None)
        }
    }
}

fn of_version(version: Version) -> Finding {
    let Version([major, minor, patch]) = version;
    let name = format!("version {major}.{minor}.{patch}");
    if version < Version([1, 0, 0]) {
        let what = format!("It is {name}: Ringfence's filters and actions are for 1.0 and newer.");
        return Finding::needs(Fail2ban, "version", what, "Upgrade fail2ban to 1.0.2 or newer.");
    }
    Finding::fine(Fail2ban, "version", name)
}

fn runs(socket: &Path) -> Finding {
    let socket = socket.display().to_string();
    match programs::output("fail2ban", "fail2ban-client", &["-s", &socket, "ping"], "", TIME) {
        Ok(output) if output.status.success() => Finding::fine(Fail2ban, "runs", "it runs, and answers"),
        Ok(_) => Finding::needs(
            Fail2ban,
            "runs",
            format!("It does not answer at {socket}: nobody is banned."),
            "systemctl start fail2ban; if that fails, why: fail2ban-client -t. With another socket, name it as socket in [fail2ban].",
        ),
        Err(error) => Finding::needs(
            Fail2ban,
            "runs",
            format!(
                "It does not answer at {socket}: {error:#}. A program that it calls may hang, which holds up every jail."
            ),
            "See which: pstree -a $(pgrep -o fail2ban-serv); then systemctl restart fail2ban.",
        ),
    }
}

fn voip_jails(config: &Config, jails: &[Jail]) -> Finding {
    // One that adds who succeeds bans nobody.
    let ban = jails.iter().filter(|jail| is_voip(jail, config) && !jail.acts_with("ringfence-allow"));
    let names: Vec<_> = ban.map(|jail| jail.name.as_str()).collect();
    if names.is_empty() {
        return Finding::needs(
            Fail2ban,
            "jails",
            "No jail for SIP is enabled: nobody is banned who guesses passwords.",
            "In /etc/fail2ban/jail.local: [ringfence-freeswitch] and below it enabled = true (or another of jail.d/ringfence-*.conf); \
             then fail2ban-client reload.",
        );
    }
    Finding::fine(Fail2ban, "jails", format!("jails for SIP: {}", names.join(", ")))
}

/// Jails of ours that count the same failures, each behind the one that is to be preferred.
const TWICE: [(&str, &[&str]); 6] = [
    ("ringfence-events", &["ringfence-freeswitch", "ringfence-mod-fail2ban", "ringfence-verto"]),
    ("ringfence-events-account", &["ringfence-account"]),
    ("ringfence-events-domain", &["ringfence-ip-domain"]),
    ("ringfence-events-flood", &["ringfence-challenge"]),
    ("ringfence-freeswitch", &["ringfence-mod-fail2ban"]),
    ("ringfence-asterisk", &["ringfence-ast-notice"]),
];

/// Jails that count what another one counts, too: two bans for the same failures, each with an end of its own.
#[must_use]
pub fn twice(jails: &[Jail]) -> Vec<Finding> {
    let is_enabled = |name: &str| jails.iter().any(|jail| jail.name == name);
    let pairs =
        TWICE.iter().flat_map(|(preferred, others)| others.iter().map(move |other| (*preferred, *other)));
    let both = pairs.filter(|(preferred, other)| is_enabled(preferred) && is_enabled(other));
    let finding = |(preferred, other): (&str, &str)| {
        Finding::needs(
            OneJail,
            "twice",
            format!("{other}: it counts the same failures as {preferred}: whom one of them lets go, the other may hold."),
            format!("In jail.local, or where it is enabled, [{other}]: enabled = false; then: fail2ban-client reload."),
        )
        .about(other)
    };
    both.map(finding).collect()
}

/// Whether a jail is about what a PBX logs.
#[must_use]
pub fn is_voip(jail: &Jail, config: &Config) -> bool {
    const WORDS: [&str; 8] =
        ["sofia", "freeswitch", "asterisk", "pjsip", "chan_sip", "opensips", "kamailio", "SecurityEvent"];
    const PORTS: [&str; 6] = ["5060", "5061", "5080", "5081", "sip", "sip-tls"];
    let says = |text: &str| WORDS.iter().any(|word| text.contains(word));
    let port = |ports: &str| ports.split([',', ':']).any(|port| PORTS.contains(&port.trim()));
    says(&jail.name)
        || says(&jail.filter.plain())
        || jail.logs.iter().any(|log| *log == config.events_path() || says(&log.to_string_lossy()))
        || jail.actions.iter().any(|action| port(&action.ports))
}

/// What fail2ban runs; `None` where it does not run or answer, which [`daemon`] says.
#[must_use]
pub fn running(config: &Config) -> Option<Vec<Running>> {
    fail2ban::running(&config.fail2ban.socket, TIME).ok().flatten().map(|jails| jails.known)
}

/// What an enabled jail for SIP is like, and whether fail2ban runs it so.
#[must_use]
pub fn jail(jail: &Jail, version: Version, running: Option<&[Running]>) -> Vec<Finding> {
    let mut findings: Vec<_> = [logs(jail), asks(jail, version), remembers(jail), runs_so(jail, running)]
        .into_iter()
        .flatten()
        .collect();
    if findings.is_empty() {
        let asks = if leaves_nobody_alone(jail) { "bans no addresses" } else { "asks whom to leave alone" };
        findings.push(Finding::fine(OneJail, "jail", format!("{}: reads its log, {asks}", jail.name)));
    }
    findings.into_iter().map(|finding| finding.about(&jail.name)).collect()
}

/// fail2ban reads its settings only when it is told to.
fn runs_so(jail: &Jail, running: Option<&[Running]>) -> Option<Finding> {
    let name = &jail.name;
    // What cannot run is said.
    let running = running.filter(|_| logs(jail).is_none());
    let what = match running?.iter().find(|running| running.name == *name) {
        None => "fail2ban does not run it, though it is enabled: nobody is banned by it".to_owned(),
        Some(running) => {
            let differs: Vec<_> = [
                ("ignorecommand", running.ignore_command.trim() != jail.ignorecommand.trim()),
                ("maxretry", i64::from(running.max_retry) != jail.maxretry),
                // Its tags are written out in what runs.
                ("failregex", running.fail_regexes.len() != jail.filter.fail.len()),
            ]
            .into_iter()
            .filter_map(|(key, differs)| differs.then_some(key))
            .collect();
            if differs.is_empty() {
                return None;
            }
            format!("fail2ban runs it with another {} than its files have by now", differs.join(" and "))
        }
    };
    let remedy = format!("{RELOAD}; where that does not help, why: tail /var/log/fail2ban.log");
    Some(Finding::needs(OneJail, "running", format!("{name}: {what}."), remedy))
}

/// Its bans are no bans of addresses: a success jail's are our allow, an account's are `ringfence-block`'s.
fn leaves_nobody_alone(jail: &Jail) -> bool {
    jail.acts_with("ringfence-allow") || jail.acts_with("ringfence-block")
}

fn logs(jail: &Jail) -> Option<Finding> {
    (jail.reads_files() && jail.logs.is_empty()).then(|| {
        Finding::needs(
            OneJail,
            "logpath",
            format!("{}: its logpath matches no file. fail2ban 1.0.2 does not start at all then, newer ones leave it out.", jail.name),
            format!(
                "See which: fail2ban-client -t. Name the right file in jail.local, [{}] logpath, or set backend = systemd where the PBX \
                 writes to the journal; then: {RELOAD}.",
                jail.name
            ),
        )
    })
}

fn asks(jail: &Jail, version: Version) -> Option<Finding> {
    let name = &jail.name;
    let needs = |what: &str, remedy: String| {
        Some(Finding::needs(OneJail, "ignorecommand", format!("{name}: {what}"), remedy))
    };
    let section = format!("In jail.local, [{name}]:");
    let command = jail.ignorecommand.trim();
    let nothing = || format!("{section} ignorecommand = (nothing behind it); then: {RELOAD}.");
    if version.hands_over_restored_ids() && jail.bans_text() && !command.is_empty() {
        let what = "it bans what clients write, and has an ignorecommand: when a ban is restored, this fail2ban hands that text to a shell, \
                    and anybody may run programs here.";
        return needs(what, nothing());
    }
    if leaves_nobody_alone(jail) {
        return match (command, jail.acts_with("ringfence-allow")) {
            ("", _) => None,
            (_, true) => {
                needs("it has an ignorecommand, and so adds nobody who is left alone already.", nothing())
            }
            (_, false) => needs(
                "it bans accounts, and has an ignorecommand, which is about addresses: a process for each line, for nothing.",
                nothing(),
            ),
        };
    }
    if command.is_empty() {
        return needs(
            "it has no ignorecommand: an office with registered phones is banned like anybody else.",
            format!("{section} {IGNORECOMMAND}, and {IGNORECACHE}; then: {RELOAD}."),
        );
    }
    let program =
        command.strip_prefix("exec ").and_then(|rest| rest.trim().strip_suffix(ADDRESS)).map(str::trim);
    match program {
        Some(program) if !program.is_empty() && !program.contains(['<', '$', '`', ';', '|', '&']) => {
            let path = program.split_whitespace().next().unwrap_or_default();
            (!Path::new(path).is_file()).then(|| {
                Finding::needs(
                    OneJail,
                    "ignorecommand",
                    format!("{name}: its ignorecommand is {path}, which is not there: everybody is banned, with an error for each line."),
                    format!("Install it, or in{} {IGNORECOMMAND}; then: {RELOAD}.", section.trim_start_matches("In")),
                )
            })
        }
        _ => needs(
            &format!(
                "its ignorecommand is `{command}`. Only `exec PROGRAM \"<ip>\"` is safe: other tags, and one without quotes, hand a \
                 client's text to a shell, or come to the program as they stand."
            ),
            format!("{section} {IGNORECOMMAND}; then: {RELOAD}."),
        ),
    }
}

/// Only where a program is asked.
fn remembers(jail: &Jail) -> Option<Finding> {
    let (name, cache) = (&jail.name, jail.ignorecache.trim());
    if jail.ignorecommand.trim().is_empty() || leaves_nobody_alone(jail) {
        return None;
    }
    let needs = |what: String| {
        let remedy = format!("In jail.local, [{name}]: {IGNORECACHE}; then: {RELOAD}.");
        Some(Finding::needs(OneJail, "ignorecache", format!("{name}: {what}"), remedy))
    };
    if cache.is_empty() {
        return needs(
            "it has no ignorecache: each line starts a process, under one lock for all jails, and an attack of 100 lines a second \
             holds all of them up."
                .to_owned(),
        );
    }
    let option = |key: &str| {
        let mut at = cache.match_indices(key).map(|(at, _)| &cache[at + key.len()..]);
        at.find_map(|rest| rest.trim_start().strip_prefix('=')).map(str::trim_start)
    };
    match option("key") {
        Some(key) if key.starts_with(ADDRESS) => {}
        _ => {
            return needs(format!(
                "its ignorecache is not kept by \"<ip>\" alone: `{cache}`. A client's text breaks it."
            ));
        }
    }
    let seconds =
        option("max-time").map(|time| jails::seconds(time.split([',', ' ']).next().unwrap_or_default()));
    match seconds.flatten() {
        Some(seconds) if seconds > LONGEST_CACHE => needs(format!(
            "its ignorecache keeps an answer for {seconds} s: so long a phone that registers meanwhile is not recognised."
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Verdict;
    use crate::fail2ban::jails::{Action, Filter};

    const OLD: Version = Version([1, 0, 2]);
    const NEW: Version = Version([1, 1, 0]);

    /// A jail as ours are; `/bin/true` is there.
    fn good() -> Jail {
        Jail {
            name: "sip".into(),
            backend: "auto".into(),
            ignorecommand: "exec /bin/true \"<ip>\"".into(),
            ignorecache: IGNORECACHE.split_once(" = ").unwrap().1.into(),
            logs: vec!["/var/log/x.log".into()],
            ..Jail::default()
        }
    }

    fn with_ban(jail: Jail, ban: &str) -> Jail {
        Jail { actions: vec![Action { ban: ban.into(), ..Action::default() }], ..jail }
    }

    /// The names of the checks that are not fine, and what they say.
    fn found(jail: &Jail, version: Version) -> Vec<(&'static str, String)> {
        let found = super::jail(jail, version, None).into_iter();
        found
            .filter(|finding| finding.verdict != Verdict::Fine)
            .map(|finding| (finding.check, finding.what))
            .collect()
    }

    #[test]
    fn versions_in_every_form() {
        for (text, expected) in [
            ("Fail2Ban v1.0.2\n\nCopyright (c) 2004-2008", Some([1, 0, 2])),
            ("1.1.0", Some([1, 1, 0])),
            ("Fail2Ban v1.1.1.dev1", Some([1, 1, 1])),
            ("Fail2Ban v0.11.2", Some([0, 11, 2])),
            ("nothing", None),
        ] {
            assert_eq!(Version::parse(text), expected.map(Version), "{text}");
        }
        assert!(OLD.hands_over_restored_ids() && !NEW.hands_over_restored_ids());
        assert_eq!(of_version(Version([0, 11, 2])).verdict, Verdict::NeedsDoing);
        assert_eq!(of_version(OLD).verdict, Verdict::Fine);
    }

    #[test]
    fn a_jail_must_ask_in_the_one_safe_form() {
        assert_eq!(found(&good(), OLD), []);
        for (command, says) in [
            ("", "it has no ignorecommand"),
            ("/bin/true \"<ip>\"", "Only `exec PROGRAM \"<ip>\"` is safe"),
            ("exec /bin/true <ip>", "Only `exec"),
            ("exec /bin/true '<ip>'", "Only `exec"),
            ("exec /bin/true \"<F-USER>\" \"<ip>\"", "Only `exec"),
            ("exec /bin/true; x \"<ip>\"", "Only `exec"),
            ("exec /nonexistent/ignore \"<ip>\"", "is /nonexistent/ignore, which is not there"),
        ] {
            let found = found(&Jail { ignorecommand: command.into(), ..good() }, OLD);
            assert!(found.len() == 1 && found[0].0 == "ignorecommand", "{command}: {found:?}");
            assert!(found[0].1.contains(says), "{found:?}");
        }
        let cached = |cache: &str| found(&Jail { ignorecache: cache.into(), ..good() }, OLD);
        for (cache, says) in [
            ("", "it has no ignorecache"),
            ("key=\"<F-USER>\", max-count=100", "is not kept by"),
            ("max-count=100", "is not kept by"),
            ("key=\"<ip>\", max-count=100, max-time=5m", "keeps an answer for 300 s"),
        ] {
            let found = cached(cache);
            assert!(
                found.len() == 1 && found[0].0 == "ignorecache" && found[0].1.contains(says),
                "{found:?}"
            );
        }
        assert_eq!(cached("key = \"<ip>\", max-time = 20"), []);
        assert_eq!(found(&Jail { logs: vec![], ..good() }, OLD)[0].0, "logpath");
        assert_eq!(found(&Jail { logs: vec![], backend: "systemd".into(), ..good() }, OLD), []);
    }

    #[test]
    fn jails_that_ban_no_addresses_ask_nobody() {
        let account = with_ban(good(), "exec /usr/bin/ringfence-block ban -- \"<fid>\"");
        let account =
            Jail { filter: Filter { fail: vec!["<F-ID>x</F-ID>".into()], ..Filter::default() }, ..account };
        assert!(account.bans_text());
        assert!(found(&account, OLD)[0].1.contains("anybody may run programs here"));
        assert!(found(&account, NEW)[0].1.contains("a process for each line"));
        assert_eq!(found(&Jail { ignorecommand: String::new(), ..account }, OLD), []);
        let success = with_ban(good(), "exec /usr/bin/ringfence-allow add -- \"<ip>\"");
        assert!(found(&success, NEW)[0].1.contains("adds nobody who is left alone already"));
    }

    #[test]
    fn the_same_failures_count_once() {
        let jail = |name: &str| Jail { name: name.into(), ..good() };
        let found = |names: &[&str]| {
            let jails: Vec<_> = names.iter().map(|name| jail(name)).collect();
            twice(&jails).into_iter().map(|finding| finding.about).collect::<Vec<_>>()
        };
        let events = ["ringfence-events", "ringfence-events-account", "ringfence-events-device"];
        assert_eq!(found(&events), [""; 0]);
        assert_eq!(found(&["ringfence-freeswitch", "ringfence-account", "ringfence-verto"]), [""; 0]);
        let shipped = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fail2ban/jail.d")).unwrap();
        let shipped: String =
            shipped.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
        for name in TWICE.iter().flat_map(|(preferred, others)| others.iter().chain([preferred])) {
            assert!(shipped.contains(&format!("\n[{name}]\n")), "{name}");
        }
        let both = [&events[..], &["ringfence-freeswitch", "ringfence-account"]].concat();
        assert_eq!(found(&both), ["ringfence-freeswitch", "ringfence-account"]);
    }

    #[test]
    fn what_is_about_sip() {
        let config = Config::default();
        let jail = |name: &str| Jail { name: name.into(), ..Jail::default() };
        assert!(is_voip(&jail("my-freeswitch"), &config) && !is_voip(&jail("sshd"), &config));
        assert!(is_voip(&Jail { logs: vec![config.events_path()], ..jail("x") }, &config));
        let ports = |ports: &str| Jail {
            actions: vec![Action { ports: ports.into(), ..Action::default() }],
            ..jail("x")
        };
        assert!(is_voip(&ports("22,5060"), &config) && is_voip(&ports("5060:5091"), &config));
        assert!(!is_voip(&ports("22,15060"), &config));
        let regex = Filter { fail: vec![r"^x sofia_reg\.c:\d+ <HOST>$".into()], ..Filter::default() };
        assert!(is_voip(&Jail { filter: regex, ..jail("x") }, &config));
        assert!(voip_jails(&config, &[jail("sshd")]).verdict == Verdict::NeedsDoing);
        let success = with_ban(jail("my-asterisk"), "exec /usr/bin/ringfence-allow add -- \"<ip>\"");
        assert!(voip_jails(&config, &[success]).verdict == Verdict::NeedsDoing, "it bans nobody");
    }

    #[test]
    fn what_runs_may_be_another_thing() {
        let jail = Jail { maxretry: 5, ..good() };
        let same = Running {
            name: jail.name.clone(),
            ignore_command: jail.ignorecommand.clone(),
            max_retry: 5,
            ..Running::default()
        };
        let other = Running { ignore_command: String::new(), max_retry: 6, ..same.clone() };
        let what = |running: &[Running]| runs_so(&jail, Some(running)).map(|found| found.what);
        assert_eq!(what(&[same]), None);
        assert!(what(&[other]).unwrap().contains("another ignorecommand and maxretry than"));
        assert!(what(&[]).unwrap().contains("does not run it"));
        assert_eq!(runs_so(&jail, None), None);
    }
}
