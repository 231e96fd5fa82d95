//! `ringfence doctor`: whether this host is as it should be, and what to do where it is not.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::json;

use crate::checkup::features::{self, Trial};
use crate::checkup::secrets::Trusted;
use crate::checkup::units::{self, Scheduler};
use crate::checkup::{self, Finding, Root, Subject, Verdict};
use crate::commands::screen::{Columns, counted, print};
use crate::commands::{firewall, pause};
use crate::config::{self, Config, Mode};
use crate::deadline::Deadline;
use crate::exit::Exit;
use crate::fail2ban::jails::{Configuration, Jail};
use crate::fail2ban::regex::Scratch;
use crate::firewall::Firewall;
use crate::firewall::concerns::{self, Concern, Severity};
use crate::freeswitch;
use crate::fusionpbx::{self, profiles};
use crate::{services, state_file};

/// Each look at a database takes no longer, whatever `deadline` is for `ringfence-ignore`.
const PATIENCE: Duration = Duration::from_secs(3);

/// So many filters are tried at once: each is a process that takes its time to start.
const AT_ONCE: usize = 2;

/// What a reload of nftables loads.
const NFTABLES: &str = "/etc/nftables.conf";

/// Where `ringfence-ignore` is, unless it is beside us.
const IGNORE: &str = "/usr/bin/ringfence-ignore";

/// The command line of `doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print JSON: all findings
    #[arg(long)]
    json: bool,

    /// Be the one who tries what rules need, in a network namespace of its own
    #[arg(long, hide = true)]
    trial: bool,
}

pub(super) fn run(settings: Option<&Path>, args: &Args) -> anyhow::Result<Exit> {
    if args.trial {
        return try_features();
    }
    // What nobody else may read would look broken.
    ensure!(state_file::effective_user() == 0, "this needs root: sudo ringfence doctor");
    let mut findings = vec![];
    let config = Config::load(settings).unwrap_or_else(|error| {
        let remedy = "Mend that line; ringfence validate looks at it again. Until then, only some of the settings are heeded.";
        findings.push(Finding::needs(Subject::Settings, "settings", format!("{error}."), remedy));
        Config::salvage(settings)
    });
    let host = Host { config, settings, root: Root::default(), now: Timestamp::now() };
    findings.extend(host.examine());
    findings.sort();
    let needs = findings.iter().any(|finding| finding.verdict == Verdict::NeedsDoing);
    print(args.json, &json!({ "findings": findings }), || render(&findings))?;
    Ok(if needs { Exit::No } else { Exit::Yes })
}

/// What [`Trial::start`] starts.
fn try_features() -> anyhow::Result<Exit> {
    // Whatever ends the one who wants to know ends us.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let trial: Trial = serde_json::from_reader(io::stdin().lock()).context("this is for doctor alone")?;
    serde_json::to_writer(io::stdout().lock(), &trial.run()?)?;
    Ok(Exit::Yes)
}

/// What is examined.
struct Host<'a> {
    config: Config,
    settings: Option<&'a Path>,
    root: Root,
    now: Timestamp,
}

impl Host<'_> {
    /// All of it; what does not depend on each other at once.
    fn examine(&self) -> Vec<Finding> {
        let Self { config, root, .. } = self;
        let (mut findings, fail2ban) = checkup::fail2ban::daemon(config, root);
        let (version, configuration) = fail2ban.unzip();
        if let Some(configuration) = &configuration {
            let deadline = Deadline::after(Instant::now(), PATIENCE);
            findings.extend(checkup::remembered::database(config, configuration, deadline));
        }
        let configuration = configuration.unwrap_or_default();
        let all = &configuration.jails;
        let is_voip = |jail: &&Jail| checkup::fail2ban::is_voip(jail, config);
        let jails: Vec<Jail> = all.iter().filter(is_voip).cloned().collect();
        if let Some(version) = version {
            let running = checkup::fail2ban::running(config);
            let of = |jail| checkup::fail2ban::jail(jail, version, running.as_deref());
            findings.extend(jails.iter().flat_map(of));
            findings.extend(checkup::fail2ban::twice(&jails));
        }
        // Before we ask ourselves.
        let events = jails.iter().any(|jail| jail.logs.contains(&config.events_path()));
        findings.push(checkup::registrations::snapshots(config, events, self.now));
        // By itself: what else runs would slow it down.
        findings.push(checkup::ignore::latency(&ignore(), self.settings, config));
        let parts: [&(dyn Fn() -> Vec<Finding> + Sync); 4] =
            [&|| filters(&jails), &|| self.firewall(), &|| self.registrations(), &|| {
                self.rest(&configuration, &jails)
            }];
        std::thread::scope(|scope| {
            let threads: Vec<_> = parts.iter().map(|part| scope.spawn(part)).collect();
            for thread in threads {
                findings.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
        });
        findings
    }

    /// Whether anything is blocked at all.
    fn blocks(&self) -> Option<Finding> {
        if let Some(paused) = pause::words(&self.config) {
            return Some(Finding::needs(Subject::Settings, "pause", paused, "ringfence pause --end"));
        }
        let observes = self.config.mode == Mode::Observe;
        observes.then(|| Finding::fine(Subject::Settings, "mode", "mode is observe: nothing is blocked"))
    }

    /// What only needs files, and systemd. `jails` are those for SIP.
    fn rest(&self, configuration: &Configuration, jails: &[Jail]) -> Vec<Finding> {
        let Self { config, root, now, .. } = self;
        let mut findings: Vec<_> = self.blocks().into_iter().collect();
        let file = self.settings.unwrap_or(Path::new(config::DEFAULT_PATH));
        let passwd = std::fs::read_to_string(root.at("/etc/passwd")).unwrap_or_default();
        findings.extend(checkup::secrets::permissions(config, file, &Trusted::new(&passwd)));
        findings.extend(self.freeswitch(jails));
        findings.extend(checkup::asterisk::settings(root, jails));
        findings.push(checkup::kernel::sets());
        findings.extend(checkup::kernel::list_sets(config));
        findings.push(checkup::kernel::program(config));
        match Scheduler::read(root) {
            Ok(scheduler) => {
                let needed = services::needed(config, &configuration.jails, *now);
                let states = scheduler.is_systemd().then(units::ask);
                findings.extend(units::running(&needed, &scheduler, states.as_ref()));
                findings.extend(checkup::boot::saved_rules(root, &scheduler));
                findings.push(checkup::clock::synchronised(scheduler.is_systemd()));
            }
            Err(error) => findings.push(Finding::unknown(
                Subject::Timers,
                "enabled",
                format!("What is scheduled cannot be read: {error}."),
                "Run ringfence doctor as root.",
            )),
        }
        findings.extend(checkup::syslog::rsyslog(root, jails));
        let of_journal: Vec<_> = jails.iter().filter(|jail| !jail.reads_files()).collect();
        if !of_journal.is_empty() {
            findings.extend(checkup::journal::limits(root, &of_journal));
            findings.extend(checkup::journal::dropped(&of_journal));
        }
        findings.extend(checkup::selinux::denials(root, *now));
        findings.push(checkup::clock::sane(
            *now,
            &[config.log_dir.join("decisions.jsonl"), config.events_path()],
        ));
        let database = Path::new(&configuration.database).parent().filter(|dir| dir.is_absolute());
        let own = [
            ("state-dir", config.state_dir.as_path()),
            ("run-dir", &config.run_dir),
            ("log-dir", &config.log_dir),
        ];
        let dirs: Vec<_> = own.into_iter().chain(database.map(|dir| ("dbfile of fail2ban", dir))).collect();
        findings.extend(checkup::disk::room(&dirs));
        findings
    }

    fn registrations(&self) -> Vec<Finding> {
        let Self { config, root, now, .. } = self;
        let deadline = || Deadline::after(Instant::now(), PATIENCE);
        let mut findings = vec![checkup::registrations::source(config, root, *now, deadline())];
        findings.extend(checkup::registrations::directory(config, deadline()));
        findings
    }

    fn freeswitch(&self, jails: &[Jail]) -> Vec<Finding> {
        let registrations = &self.config.registrations;
        let usual = || {
            freeswitch::USUAL_DIRS
                .map(PathBuf::from)
                .into_iter()
                .map(|dir| self.root.at(dir))
                .find(|dir| dir.is_dir())
        };
        let Some(dir) = registrations.freeswitch_config.clone().or_else(usual) else { return vec![] };
        let unknown = |check: &'static str, error: &anyhow::Error| {
            let what = format!("FreeSWITCH's settings are not known: {error:#}.");
            Finding::unknown(
                Subject::FreeSwitch,
                check,
                what,
                "Run ringfence doctor as root; see freeswitch-config in [registrations].",
            )
        };
        let mut findings = match freeswitch::read(&dir) {
            Ok(settings) => {
                let file = freeswitch::event_socket_conf(&dir).display().to_string();
                checkup::freeswitch::event_socket(&settings, &file)
            }
            Err(error) => vec![unknown("event-socket", &error)],
        };
        // Where there is a FusionPBX, FreeSWITCH gets its profiles from there.
        let profiles = match fusionpbx::own_database(&self.config) {
            Ok(Some(target)) => profiles::read(&target, Deadline::after(Instant::now(), PATIENCE))
                .map(|profiles| (profiles, "FusionPBX's database".to_owned())),
            Ok(None) => freeswitch::profiles(&dir)
                .map(|profiles| (profiles, dir.join("sip_profiles").display().to_string())),
            Err(error) => Err(error),
        };
        findings.push(match profiles {
            Ok((profiles, whose)) => checkup::freeswitch::log_auth_failures(jails, &profiles, &whose),
            Err(error) => unknown("log-auth-failures", &error),
        });
        findings
    }

    /// The rules that are there: what works against us, and whether ours are as they were applied.
    fn firewall(&self) -> Vec<Finding> {
        const ORDER: &str = "order";
        let there = match Firewall::read() {
            Ok(there) => there,
            Err(error) => {
                let what = format!("The rules of this host are not known: {error:#}.");
                return vec![Finding::unknown(
                    Subject::Firewall,
                    "rules",
                    what,
                    "Run ringfence doctor as root.",
                )];
            }
        };
        let trial = Trial::new(&self.config, &there);
        // Not /proc/self: that would be unshare.
        let us = format!("/proc/{}/exe", std::process::id());
        let mut findings = features::judge(&trial, trial.start(&us, &["doctor", "--trial"]));
        let concerns = there.concerns(&self.root.at(NFTABLES));
        findings.extend(concerns.iter().filter_map(of_concern));
        findings.extend(match not_as_applied(&self.config, self.now) {
            Ok(None) => {
                vec![Finding::fine(Subject::Firewall, ORDER, "no rules of ringfence-firewall were applied")]
            }
            Ok(Some(wrong)) if wrong.is_empty() => {
                vec![Finding::fine(
                    Subject::Firewall,
                    ORDER,
                    "Ringfence's rules are there, in their order, with their sets",
                )]
            }
            Ok(Some(wrong)) => wrong
                .into_iter()
                .map(|(what, why)| {
                    Finding::needs(
                        Subject::Firewall,
                        ORDER,
                        format!("Not as applied: {what}. {}.", sentence(&why)),
                        "ringfence-firewall restore",
                    )
                })
                .collect(),
            Err(error) => vec![Finding::unknown(
                Subject::Firewall,
                ORDER,
                format!("Whether Ringfence's rules are as they were applied is not known: {error:#}."),
                "See: ringfence-firewall verify",
            )],
        });
        let variant = format!("the host's rules are those of iptables-{}", there.variant());
        if !findings
            .iter()
            .any(|finding| finding.subject == Subject::Firewall && finding.verdict == Verdict::NeedsDoing)
        {
            findings.push(Finding::fine(Subject::Firewall, "rules", variant));
        }
        findings
    }
}

/// Notes need nothing; `ringfence-firewall plan` has them.
fn of_concern(concern: &Concern) -> Option<Finding> {
    let check = concern.kind.name();
    match (concern.severity, concern.kind) {
        (Severity::Warning, _) => {
            Some(Finding::needs(Subject::Firewall, check, &concern.text, &concern.remedy))
        }
        (Severity::Note, concerns::Kind::Unknown) => {
            Some(Finding::unknown(Subject::Firewall, check, &concern.text, &concern.remedy))
        }
        (Severity::Note, _) => None,
    }
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// What the filters of these jails do.
fn filters(jails: &[Jail]) -> Vec<Finding> {
    if jails.is_empty() {
        return vec![];
    }
    let next = AtomicUsize::new(0);
    match Scratch::of_process(&std::env::temp_dir()) {
        Ok(scratch) => {
            let work = || {
                let mut found = vec![];
                while let Some(jail) = jails.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let of = checkup::filters::of(jail, &scratch).into_iter();
                    found.extend(of.map(|finding| finding.about(&jail.name)));
                }
                found
            };
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
                threads
                    .into_iter()
                    .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                    .collect()
            })
        }
        Err(error) => {
            let what = format!("The filters were not tried: {error:#}.");
            vec![Finding::unknown(
                Subject::Jail,
                "filter",
                what,
                "Make room there, or name another directory as TMPDIR.",
            )]
        }
    }
}

/// Beside us, or where the package puts it.
fn ignore() -> PathBuf {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("ringfence-ignore"));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| IGNORE.into())
}

fn render(findings: &[Finding]) -> String {
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let [needs, unknown, fine] = [Verdict::NeedsDoing, Verdict::NotChecked, Verdict::Fine].map(count);
    let mut text = match needs {
        0 => "Nothing needs doing".to_owned(),
        needs => counted(u64::try_from(needs).unwrap_or(u64::MAX), "thing needs doing", "things need doing"),
    };
    if unknown > 0 {
        let _ = write!(text, ", {unknown} could not be checked");
    }
    let _ = writeln!(text, ", {fine} {} fine.\n", if fine == 1 { "is" } else { "are" });
    let mut columns = Columns::new(&["VERDICT", "SUBJECT", "WHAT"], &[]);
    for finding in findings {
        let (verdict, subject) = (finding.verdict.words(), finding.subject.name());
        columns.row([verdict.to_owned(), subject.to_owned(), finding.what.clone()]);
        if !finding.remedy.is_empty() {
            columns.row([String::new(), String::new(), format!("-> {}", finding.remedy)]);
        }
    }
    text + &columns.render()
}
/// What of our rules is not as it was applied, and why; `None` where nothing was.
fn not_as_applied(config: &Config, now: Timestamp) -> anyhow::Result<Option<Vec<(String, String)>>> {
    let checks = firewall::overview(config, now)?.map(|overview| overview.checks.into_iter());
    Ok(checks.map(|checks| checks.filter_map(|check| Some((check.what, check.wrong?))).collect()))
}
