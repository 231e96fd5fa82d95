//! The conclusion from facts that are made up.

use std::collections::BTreeMap;

use super::*;
use crate::diagnosis::facts::{Enforces, Host, InJail, InSets, Ledgered, Listed, OfAccount, OfAddress, Walk};
use crate::fail2ban::Remembered;
use crate::firewall::path::{End, Path, Protocol, Verdict as Fate};
use crate::kernel_sets::Entry;
use crate::ledger::Block;

const NOW: i64 = 1_795_183_743;
const BAD: &str = "203.0.113.66";

/// Of an address that nobody knows, on a host where all is well.
fn facts() -> Facts {
    Facts {
        subject: BAD.parse().unwrap(),
        now: NOW,
        host: Host {
            enforces: Enforces { bans: true, blocks: true, rules: true },
            socket: None,
            settings: None,
        },
        held: Ok(Some([].into())),
        remembered: Ok(Some(vec![])),
        ledgered: Ok(vec![]),
        devices: Ok(vec![]),
        decisions: Ok(vec![]),
        of_address: Some(OfAddress {
            address: BAD.parse().unwrap(),
            in_jails: Ok(vec![]),
            jails: vec!["sip".to_owned()],
            in_bans: Ok(vec![]),
            event_guard: Ok(None),
            allowed: Ok(vec![]),
            listed: Ok((vec![], None)),
            damaged: vec![],
            in_sets: Ok(InSets::default()),
            ordered: true,
            beside: Ok(vec![]),
            walks: Ok(vec![walk(true)]),
        }),
        of_account: None,
    }
}

fn address(facts: &mut Facts) -> &mut OfAddress {
    facts.of_address.as_mut().unwrap()
}

/// A packet to SIP's port, let in or not by the policy.
fn walk(accepted: bool) -> Walk {
    let by = End::Policy { program: "iptables-nft".to_owned(), chain: "INPUT".to_owned() };
    let verdict = if accepted { Fate::Accepted { by } } else { Fate::Dropped { by } };
    let path = |verdict| Path { steps: vec![], verdict, otherwise: vec![], passed: vec![] };
    let passes = Fate::Accepted { by: End::Policy { program: String::new(), chain: String::new() } };
    Walk { protocol: Protocol::Udp, port: 5060, sip: true, path: path(verdict), rest: path(passes) }
}

fn entry(left: u32) -> Entry {
    Entry { network: BAD.parse().unwrap(), left: Some(left) }
}

fn in_jail() -> InJail {
    InJail {
        jail: "sip".to_owned(),
        set: "rf-ban-sip-4".to_owned(),
        entry: entry(60),
        reach: Some("5060 udp".to_owned()),
        probe: (Protocol::Udp, 5060),
    }
}

fn remembered(until: Option<i64>) -> Remembered {
    Remembered {
        jail: "sip".to_owned(),
        id: BAD.to_owned(),
        since: NOW - 60,
        until,
        times: 3,
        lines: vec!["a line".to_owned()],
    }
}

/// What fail2ban bans.
fn held(id: &str) -> BTreeMap<String, Vec<String>> {
    [("sip".to_owned(), vec![id.to_owned()])].into()
}

fn listed() -> Listed {
    Listed {
        list: "voipbl".to_owned(),
        range: "203.0.113.0/24".to_owned(),
        since: NOW - 86_400,
        confirmed: Some(NOW - 7_200),
        observed: false,
    }
}

/// What blocks; and the checks that say something, with their verdicts.
#[track_caller]
fn concludes(facts: &Facts, closed: &[By], checks: &[(&str, Verdict)]) -> Diagnosis {
    let diagnosis = Diagnosis::of(facts);
    assert_eq!(diagnosis.closed.iter().map(|closed| closed.by).collect::<Vec<_>>(), closed, "{diagnosis:#?}");
    let said = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Nothing);
    let said: Vec<_> = said.map(|check| (check.check, check.verdict)).collect();
    assert_eq!(said, checks, "{diagnosis:#?}");
    diagnosis
}

#[test]
fn nothing_known_is_not_blocked() {
    let diagnosis = concludes(&facts(), &[], &[]);
    assert!(!diagnosis.is_blocked() && diagnosis.unread.is_empty() && diagnosis.undo().is_empty());
}

#[test]
fn a_ban_counts_where_packets_meet_it() {
    let mut facts = facts();
    facts.held = Ok(Some(held(BAD)));
    facts.remembered = Ok(Some(vec![remembered(Some(NOW + 3_600))]));
    address(&mut facts).in_jails = Ok(vec![in_jail()]);
    // Something lets its packets in.
    concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
    address(&mut facts).walks = Ok(vec![walk(false)]);
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    let [closed] = diagnosis.closed.as_slice() else { panic!() };
    assert_eq!(
        (closed.said.since, closed.said.until),
        (Some(NOW - 60), Some(NOW + 60)),
        "the kernel knows it best"
    );
    assert_eq!(
        (closed.reach.as_deref(), closed.lines.as_slice()),
        (Some("5060 udp"), &["a line".to_owned()][..])
    );
    let lines: Vec<_> = diagnosis.undo().iter().map(|undo| undo.line()).collect();
    assert_eq!(
        lines,
        ["fail2ban-client set sip unbanip 203.0.113.66", "ringfence-ban unban --jail=sip -- 203.0.113.66"]
    );
    facts.host.enforces.bans = false;
    concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
}

#[test]
fn what_fail2ban_says_counts_where_the_kernel_has_it_not() {
    let mut facts = facts();
    facts.remembered = Ok(Some(vec![remembered(None)]));
    // It was let go.
    concludes(&facts, &[], &[]);
    facts.held = Ok(None);
    concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
    facts.held = Ok(Some(held(BAD)));
    let diagnosis = concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
    assert_eq!(diagnosis.loose.len(), 1);
    // The jail bans by something else.
    address(&mut facts).jails.clear();
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    assert_eq!(diagnosis.closed[0].ends, Some("for good"));
    // And where nobody answers, nothing is known.
    facts.held = Err("no answer".to_owned());
    facts.remembered = Ok(None);
    let diagnosis = concludes(&facts, &[], &[("fail2ban", Verdict::NotKnown)]);
    assert_eq!(diagnosis.unread, ["no answer"]);
}

#[test]
fn a_block_list_counts_where_nothing_comes_before_it() {
    let mut facts = facts();
    address(&mut facts).listed = Ok((vec![listed()], None));
    concludes(&facts, &[], &[("block lists", Verdict::PassedOver)]);
    address(&mut facts).in_sets = Ok(InSets { block: Some(entry(0)), ..InSets::default() });
    let diagnosis = concludes(&facts, &[By::BlockList], &[("block lists", Verdict::Blocks)]);
    assert_eq!(diagnosis.undo()[0].line(), "ringfence-allow add --for 1d -- 203.0.113.66");
    address(&mut facts).ordered = false;
    concludes(&facts, &[], &[("block lists", Verdict::WouldBlock)]);
    address(&mut facts).ordered = true;
    facts.host.enforces.rules = false;
    concludes(&facts, &[], &[("block lists", Verdict::WouldBlock)]);
    facts.host.enforces.rules = true;
    let sets = InSets { block: Some(entry(0)), seen: Some(entry(9)), ..InSets::default() };
    address(&mut facts).in_sets = Ok(sets);
    let diagnosis =
        concludes(&facts, &[], &[("seen", Verdict::LetsPass), ("block lists", Verdict::PassedOver)]);
    assert_eq!(
        diagnosis.despite[0].text,
        "It is on the block list voipbl, but it is allowed, or was seen registered, and that comes first"
    );
}

#[test]
fn a_closed_policy_for_sip_is_a_block_by_other_rules() {
    let mut facts = facts();
    let mut closed = walk(false);
    closed.rest = closed.path.clone();
    address(&mut facts).walks = Ok(vec![closed.clone()]);
    let diagnosis = concludes(&facts, &[By::Rules], &[("other rules", Verdict::Blocks)]);
    assert!(diagnosis.undo().is_empty());
    // A port of other services that is closed to everybody is none.
    closed.sip = false;
    address(&mut facts).walks = Ok(vec![closed]);
    concludes(&facts, &[], &[]);
    address(&mut facts).walks = Err("no iptables".to_owned());
    let diagnosis = concludes(&facts, &[], &[("other rules", Verdict::NotKnown)]);
    assert_eq!(diagnosis.unread, ["no iptables"]);
}

#[test]
fn an_account_is_blocked_where_the_kernel_has_its_block() {
    let block = Block {
        offender: "999@d".parse().unwrap(),
        jail: "accounts".to_owned(),
        seen_from: None,
        since: NOW - 60,
        until: NOW + 60,
        why: "FusionPBX has no such domain".to_owned(),
        evidence: String::new(),
    };
    let mut facts = facts();
    facts.subject = "999@d".parse().unwrap();
    facts.of_address = None;
    facts.of_account = Some(OfAccount {
        account: "999@d".parse().unwrap(),
        existence: Ok(None),
        failures: Ok(Some(vec![])),
    });
    for (hits, enforced, verdict) in [
        (Some(Some(3)), true, Verdict::Blocks),
        (Some(None), true, Verdict::WouldBlock),
        (Some(None), false, Verdict::WouldBlock),
        // Nobody could ask the kernel.
        (None, true, Verdict::Blocks),
    ] {
        facts.ledgered = Ok(vec![Ledgered { block: block.clone(), hits }]);
        facts.host.enforces.blocks = enforced;
        let closed = if verdict == Verdict::Blocks { &[By::Account][..] } else { &[] };
        let diagnosis = concludes(&facts, closed, &[("blocks", verdict)]);
        assert_eq!(diagnosis.closed.is_empty(), diagnosis.undo().is_empty());
    }
}

#[test]
fn what_cannot_be_told_is_not_taken_for_nothing() {
    let mut facts = facts();
    address(&mut facts).in_sets = Err("no ipset".to_owned());
    let unknown = ["seen", "block lists", "rate limits"].map(|check| (check, Verdict::NotKnown));
    assert_eq!(concludes(&facts, &[], &unknown).unread, ["no ipset"]);
    address(&mut facts).in_sets = Ok(InSets::default());
    // A program decides about packets: whoever is in a jail's set counts as banned.
    let mut queued = walk(true);
    for path in [&mut queued.path, &mut queued.rest] {
        path.verdict = Fate::Unknown { why: "rule 1 of INPUT hands it to a program".to_owned() };
    }
    address(&mut facts).walks = Ok(vec![queued]);
    concludes(&facts, &[], &[("other rules", Verdict::Known)]);
    address(&mut facts).in_jails = Ok(vec![in_jail()]);
    concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks), ("other rules", Verdict::Known)]);
}
