//! `ringfence test`: what would become of an address, rule by rule.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::complain;
use crate::account::SipAccount;
use crate::commands::screen::{self, Columns};
use crate::commands::{an_address, duration, pause};
use crate::config::{Config, Mode};
use crate::evidence::{visible, visible_within};
use crate::exit::Exit;
use crate::firewall::path::{Holds, Step};
use crate::state_file;

mod failing;
mod packets;
mod walk;

use failing::Failing;
pub(super) use packets::Outcome;
use packets::{Kernel, Sender, Trial, What, listed};

/// How much of a rule is shown, in bytes.
const SHOWN: usize = 120;

/// The command line of `test`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the packets come from
    #[arg(value_name = "ADDRESS", value_parser = an_address)]
    address: IpAddr,

    /// Who registers
    #[arg(value_name = "USER@DOMAIN", value_parser = an_account)]
    account: Option<SipAccount>,

    /// Walk through a real failed registration: the address is on the allow list meanwhile, and each thing
    /// that happens is told as it comes
    ///
    /// The address is put on the allow list as by `ringfence-allow add --for`, and is taken off at the end if it was not there
    /// before; if the walk is killed, a minute after its time. Then let a phone at that address register with a wrong password:
    /// the log of ringfence-events(1), or FreeSWITCH's own, is watched, and each failure told with what the jails make of it. It
    /// ends soon after the first failure, with its time, or with Ctrl-C. Ctrl-C, SIGTERM and a lost terminal undo the allowance.
    ///
    /// Refused where a failure could cost a ban: where event_guard's chains are, where fail2ban does not answer, or where a jail
    /// that reads the watched log, or FreeSWITCH's own, neither asks ringfence-ignore nor has the address in ignoreip. What
    /// fail2ban asked about the address within the last 20 s, it may not ask again.
    #[arg(long)]
    walk: bool,

    /// The walk ends after this time, also where nothing came
    ///
    /// It may be 1s to 1h.
    #[arg(long = "for", value_name = "T", default_value = "5m", value_parser = a_walk, requires = "walk")]
    time: Duration,

    /// Print JSON
    ///
    /// Of a walk, it comes at its end.
    #[arg(long)]
    json: bool,
}

fn an_account(text: &str) -> Result<SipAccount, String> {
    text.parse().map_err(|error: crate::account::NotAnAccount| error.to_string())
}

fn a_walk(text: &str) -> Result<Duration, String> {
    duration(text, Duration::from_secs(1)..=Duration::from_hours(1))
}

pub(super) fn run(config: &Config, args: &Args) -> anyhow::Result<Exit> {
    if args.walk {
        return walk::run(config, args);
    }
    let answer = Answer::find(config, args, Timestamp::now()).map_err(|error| {
        let root = state_file::effective_user() == 0;
        if root { error } else { error.context("this needs root") }
    })?;
    screen::print(args.json, &answer, || answer.render())?;
    if !args.json {
        for problem in &answer.problems {
            complain(problem);
        }
    }
    Ok(answer.exit())
}

/// All of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Answer {
    address: IpAddr,
    account: Option<SipAccount>,
    /// Until then nothing of Ringfence blocks anybody; null where there is no pause.
    paused_until: Option<Timestamp>,
    /// Whether a REGISTER gets through, to any of SIP's ports; null where that is not known.
    let_in: Option<bool>,
    packets: Vec<Trial>,
    if_it_fails: Failing,
    /// What could not be looked at.
    problems: Vec<String>,
    #[serde(skip)]
    words: std::collections::HashMap<crate::firewall::Tag, String>,
    #[serde(skip)]
    now: Timestamp,
}

impl Answer {
    fn find(config: &Config, args: &Args, now: Timestamp) -> anyhow::Result<Self> {
        let (address, account) = (args.address.to_canonical(), args.account.as_ref());
        let sender = Sender { address, account };
        let mut kernel = Kernel::read(config, &sender, now)?;
        let packets = kernel.try_all(config, &sender);
        let Kernel { mut problems, words, .. } = kernel;
        let if_it_fails = Failing::foresee(config, address, account, now, &mut problems);
        if config.mode == Mode::Observe {
            problems.push("mode is observe: Ringfence blocks nobody".to_owned());
        }
        Ok(Self {
            address,
            account: account.cloned(),
            paused_until: pause::look(config).until().and_then(|until| Timestamp::from_second(until).ok()),
            let_in: let_in(&packets),
            packets,
            if_it_fails,
            problems,
            words,
            now,
        })
    }

    fn exit(&self) -> Exit {
        match self.let_in {
            Some(true) => Exit::Yes,
            Some(false) => Exit::No,
            None => Exit::Broken,
        }
    }

    fn render(&self) -> String {
        let paused = self.paused_until.map(|until| pause::sentence(until.as_second(), self.now) + "\n");
        let mut text = paused.unwrap_or_default() + &self.summary();
        text += &self.table();
        for trial in &self.packets {
            text += &self.steps(trial);
        }
        text + &self.failing()
    }

    /// The answer, in a sentence or two.
    fn summary(&self) -> String {
        let who = self.account.as_ref().map_or_else(String::new, |account| format!(" of {account}"));
        let ways = ways(&self.packets);
        let packet = format!("a REGISTER{who}");
        let mut text = match self.let_in {
            Some(true) if ways.len() > 1 => {
                format!("{} is let in: {packet} gets through over UDP and TCP.\n", self.address)
            }
            Some(true) => {
                let (over, unknown) = (ways.join(" and "), |trial: &Trial| trial.outcome == Outcome::Unknown);
                let alone = if self.packets.iter().any(unknown) { "" } else { " alone" };
                format!("{} is let in over {over}{alone}: {packet} gets through there.\n", self.address)
            }
            Some(false) => {
                let first = self.packets.iter().find(|trial| trial.sip && trial.outcome != Outcome::LetIn);
                let by = first
                    .map_or_else(String::new, |trial| format!("{} by {}", trial.outcome.words(), trial.by));
                format!("{} is blocked: {packet} is {by}.\n", self.address)
            }
            None => format!("It cannot be told whether {} is let in.\n", self.address),
        };
        let fails = &self.if_it_fails;
        let banned = fails
            .jails
            .iter()
            .find(|jail| jail.counts == failing::Counts::Address && jail.spared.is_none() && jail.certain);
        let nothing = if fails.event_guard == Some(true) { "no ban of its" } else { "nothing" };
        let _ = match (banned, fails.fail2ban) {
            (Some(jail), _) => {
                writeln!(
                    text,
                    "If it went on failing, fail2ban would ban it, in {}: {}.",
                    jail.jail, fails.standing
                )
            }
            (None, Some(false)) => {
                writeln!(text, "fail2ban does not run: {nothing} would follow if it failed.")
            }
            (None, None) => Ok(()),
            (None, Some(true)) => {
                writeln!(text, "If it failed, no jail that is known here would ban it: {}.", fails.standing)
            }
        };
        visible_lines(&text)
    }

    fn table(&self) -> String {
        let mut columns = Columns::new(&["PACKET", "PORTS", "IS", "BY", "BUT"], &[]);
        for trial in &self.packets {
            columns.row([
                trial.packet.words().to_owned(),
                listed(&trial.ports),
                trial.outcome.words().to_owned(),
                visible_within(&trial.by, 2 * SHOWN),
                visible_within(&trial.unless.join("; "), 2 * SHOWN),
            ]);
        }
        format!("\n{}", columns.render())
    }

    /// The rules that it meets, in order.
    fn steps(&self, trial: &Trial) -> String {
        let port = trial.ports.first().copied().unwrap_or_default();
        let title = format!("\nThe rules that a {} to port {port} meets:\n", trial.packet.words());
        if trial.rules.steps.is_empty() {
            return format!("{title}None of them; the policy decides.\n");
        }
        let programs: BTreeSet<_> =
            trial.rules.steps.iter().filter(|step| step.program != "nft").map(|step| &step.program).collect();
        let two = programs.len() > 1;
        let mut columns = Columns::new(&["CHAIN", "NO", "RULE", "MATCHES", "THEN"], &[1]);
        for step in &trial.rules.steps {
            let table = if step.table == "filter" { String::new() } else { format!("{} ", step.table) };
            let program =
                if two && step.program != "nft" { format!("{} ", step.program) } else { String::new() };
            let chain = format!("{program}{table}{}", step.chain);
            columns.row([chain, step.number.to_string(), self.rule(step), matches(step), then(step)]);
        }
        let passed: usize = trial.rules.passed.iter().map(|passed| passed.rules).sum();
        let others = match passed {
            0 => String::new(),
            1 => "1 other rule does not match it.\n".to_owned(),
            count => format!("{count} other rules do not match it.\n"),
        };
        format!("{title}{}{others}", columns.render())
    }

    /// What it is for, or what it says.
    fn rule(&self, step: &Step) -> String {
        let said = step.tag.and_then(|tag| self.words.get(&tag)).cloned().or_else(|| step.comment.clone());
        let conditions = step.rule.split(" -m comment ").next().unwrap_or_default();
        let conditions = conditions.split(" -j ").next().unwrap_or_default();
        let spec =
            if conditions.starts_with("-j ") || conditions.starts_with("-g ") { "" } else { conditions };
        visible_within(
            &said.unwrap_or_else(|| if spec.is_empty() { "(all)".to_owned() } else { spec.to_owned() }),
            SHOWN,
        )
    }

    fn failing(&self) -> String {
        let fails = &self.if_it_fails;
        let mut text = "\nIf a login from there failed:\n".to_owned();
        let keeps = match fails.exempt {
            Some(true) => "ringfence-ignore keeps it",
            Some(false) => "ringfence-ignore does not keep it",
            None => "ringfence-ignore cannot tell",
        };
        let _ = writeln!(text, "{keeps}: {}.", fails.standing);
        if fails.event_guard == Some(true) {
            text += "FusionPBX's event_guard (its chains sip-auth-* are there) may block it at the first failure, whoever allows it.\n";
        }
        if let (Some(known), Some(account)) = (&fails.account, &self.account) {
            let _ = writeln!(text, "{account}: {}; {}.", known.words, known.outcome());
        }
        match (fails.fail2ban, fails.jails.is_empty()) {
            (Some(true), true) => text += "No jail of fail2ban counts it.\n",
            (Some(true), false) => {
                let mut columns = Columns::new(&["JAIL", "COUNTS", "WHICH IS"], &[]);
                for jail in &fails.jails {
                    columns.row([jail.jail.clone(), jail.counts.words().to_owned(), jail.then()]);
                }
                text = visible_lines(&text) + "\n" + &columns.render();
                return text;
            }
            (Some(false), _) => text += "fail2ban does not run.\n",
            (None, _) => {}
        }
        visible_lines(&text)
    }
}

/// Each line harmless.
fn visible_lines(text: &str) -> String {
    text.lines().map(|line| visible(line) + "\n").collect::<Vec<_>>().concat()
}

/// Whether a REGISTER gets through in any way.
fn let_in(trials: &[Trial]) -> Option<bool> {
    if !ways(trials).is_empty() {
        return Some(true);
    }
    let known = trials.iter().filter(|trial| trial.sip).all(|trial| trial.outcome != Outcome::Unknown);
    known.then_some(false)
}

/// Over which protocols it gets through to any port.
fn ways(trials: &[Trial]) -> Vec<&'static str> {
    let mut ways = vec![];
    let passes = |what: What| {
        trials.iter().any(|trial| trial.sip && trial.packet == what && trial.outcome == Outcome::LetIn)
    };
    let refused = |what: What, port: u16| {
        let of = |trial: &&Trial| trial.packet == what && trial.ports.contains(&port);
        trials.iter().find(of).is_some_and(|trial| trial.outcome != Outcome::LetIn)
    };
    if passes(What::Register) {
        ways.push("UDP");
    }
    // What is left out of the table fares as the connection does.
    let opened = trials
        .iter()
        .filter(|trial| trial.sip && trial.packet == What::Connection && trial.outcome == Outcome::LetIn);
    if opened.flat_map(|trial| &trial.ports).any(|port| !refused(What::RegisterOverTcp, *port)) {
        ways.push("TCP");
    }
    ways
}

fn matches(step: &Step) -> String {
    match &step.holds {
        Holds::Yes => "yes".to_owned(),
        Holds::Perhaps { why, usually: true } => format!("usually, {why}"),
        Holds::Perhaps { why, usually: false } => visible_within(why, SHOWN),
        Holds::Unclear { why } => visible_within(&format!("depends on {why}"), SHOWN),
    }
}

/// Where the rule sends packets.
fn then(step: &Step) -> String {
    match step.target.as_deref() {
        None => "counts".to_owned(),
        Some("ACCEPT") => "let in".to_owned(),
        Some("DROP") => "drop".to_owned(),
        Some("REJECT") => "reject".to_owned(),
        Some("RETURN") => "back".to_owned(),
        Some("LOG" | "NFLOG") => "log".to_owned(),
        Some("SET") => "remember".to_owned(),
        Some(chain) => format!("to {chain}"),
    }
}
