//! The conclusion from facts that are made up.

use std::collections::BTreeMap;

use super::*;
use crate::diagnosis::facts::{
    Enforces, Hits, Host, InBan, InJail, InSets, Ledgered, Listed, OfAccount, OfAddress, Probe, Walk,
};
use crate::diagnosis::undo::Act;
use crate::fail2ban::Remembered;
use crate::firewall::native::{About, Refusal};
use crate::firewall::path::{End, Holds, Path, Protocol, Step, Verdict as Fate};
use crate::firewall::{BANS, Banned, Place, Rule};
use crate::kernel_sets::Entry;
use crate::ledger::Block;

const NOW: i64 = 1_795_183_743;
const BAD: &str = "203.0.113.66";

/// Of an address that nobody knows, on a host where all is well.
fn facts() -> Facts {
    Facts {
        subject: BAD.parse().unwrap(),
        now: NOW,
        paused: None,
        host: Host {
            enforces: Enforces { bans: true, blocks: true, rules: true },
            socket: None,
            settings: None,
        },
        held: Ok(Some([].into())),
        remembered: Ok(Some(vec![])),
        ledgered: Ok(vec![]),
        matched: Ok(()),
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
            refusals: Ok(vec![]),
            program: false,
            unasked: vec![],
            places: vec![],
            walks: Ok(vec![walk(true)]),
        }),
        of_account: None,
    }
}

fn address(facts: &mut Facts) -> &mut OfAddress {
    facts.of_address.as_mut().unwrap()
}

/// A packet to SIP's port, let in by the policy, or dropped as a ban.
fn walk(accepted: bool) -> Walk {
    let passes = || path(vec![], Fate::Accepted { by: policy() });
    Walk {
        protocol: Protocol::Udp,
        port: 5060,
        sip: true,
        path: if accepted { passes() } else { dropped("f2b-x", "-j DROP", false) },
        listed: passes(),
        limited: passes(),
        rest: passes(),
    }
}

fn policy() -> End {
    let [program, table, chain] = ["iptables-nft", "filter", "INPUT"].map(str::to_owned);
    End::Policy { program, table, chain }
}

fn path(steps: Vec<Step>, verdict: Fate) -> Path {
    Path { steps, verdict, otherwise: vec![], passed: vec![] }
}

/// A rule; one of ours has a tag.
fn step(chain: &str, rule: &str, ours: bool) -> Step {
    Step {
        program: "iptables-nft".to_owned(),
        table: "filter".to_owned(),
        chain: chain.to_owned(),
        number: 1,
        rule: rule.to_owned(),
        handle: None,
        comment: None,
        tag: ours.then(|| Rule::new("", rule).tag()),
        holds: Holds::Yes,
        target: rule.rsplit_once(' ').map(|(_, target)| target.to_owned()),
    }
}

/// Where a rule drops it.
fn dropped(chain: &str, rule: &str, ours: bool) -> Path {
    let step = step(chain, rule, ours);
    path(vec![step.clone()], Fate::Dropped { by: End::Rule(Box::new(step)) })
}

/// Where it comes to Ringfence's order of checks, and through it.
fn through() -> Path {
    path(vec![step("INPUT", "-j RINGFENCE", true)], walk(true).path.verdict)
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
        probe: Probe { protocol: Some(Protocol::Udp), port: Some(5060) },
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

fn refusal(set: &str) -> Refusal {
    Refusal {
        about: About::Source,
        table: "inet f2b-table".to_owned(),
        chain: "f2b-chain".to_owned(),
        set: Some(set.to_owned()),
        unless: false,
        network: None,
        handle: Some(5),
        rejects: true,
        protocol: Some(Protocol::Udp),
        ports: vec![(5060, 5061)],
        asks_more: false,
    }
}

/// A rule in a chain of fail2ban's.
fn in_ban(chain: &str, network: &str, reach: Option<&str>) -> InBan {
    let rule = Banned {
        program: "iptables-nft".to_owned(),
        table: "filter",
        chain: chain.to_owned(),
        rule: ["-s", network, "-j", "DROP"].map(str::to_owned).to_vec(),
        network: Some(network.parse().unwrap()),
        set: None,
        reach: reach.map(str::to_owned),
        protocol: None,
        port: None,
    };
    InBan { rule, entry: None, probe: Probe { protocol: None, port: None } }
}

/// What blocks; and the checks that say something, with their verdicts.
#[track_caller]
fn concludes(facts: &Facts, closed: &[By], checks: &[(&str, Verdict)]) -> Diagnosis {
    let diagnosis = Diagnosis::of(facts);
    assert_eq!(diagnosis.closed.iter().map(|closed| closed.by).collect::<Vec<_>>(), closed, "{diagnosis:#?}");
    let said = diagnosis.checks.iter();
    let said = said.filter(|check| ![Verdict::Nothing, Verdict::LetsIn].contains(&check.verdict));
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
    address(&mut facts).walks = Ok(vec![walk(true)]);
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
    // The jail bans by something else: by nothing, or by a table of nftables.
    address(&mut facts).jails.clear();
    let diagnosis = concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
    assert_eq!(diagnosis.loose.len(), 1);
    address(&mut facts).refusals = Ok(vec![refusal("addr-set-sip")]);
    concludes(&facts, &[], &[("fail2ban", Verdict::WouldBlock)]);
    address(&mut facts).walks = Ok(vec![walk(false)]);
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    assert_eq!(diagnosis.closed[0].ends, Some("for good"));
    assert_eq!(diagnosis.undo()[0].line(), "fail2ban-client set sip unbanip 203.0.113.66");
    assert!(diagnosis.loose.is_empty());
    // It was left there.
    facts.held = Ok(Some(BTreeMap::new()));
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    let delete = "nft delete element inet f2b-table addr-set-sip '{ 203.0.113.66 }'";
    assert_eq!(diagnosis.undo()[0].line(), delete);
    address(&mut facts).refusals = Ok(vec![]);
    address(&mut facts).walks = Ok(vec![walk(true)]);
    // And where nobody answers, nothing is known.
    facts.held = Err("no answer".to_owned());
    facts.remembered = Ok(None);
    let diagnosis = concludes(&facts, &[], &[("fail2ban", Verdict::NotKnown)]);
    assert_eq!(diagnosis.unread, ["no answer"]);
}

#[test]
fn a_block_list_and_a_limit_count_where_the_rules_drop_it() {
    let mut facts = facts();
    address(&mut facts).listed = Ok((vec![listed()], None));
    concludes(&facts, &[], &[("block lists", Verdict::PassedOver)]);
    let slamming = || Some(("rf-slam-ip4".to_owned(), entry(9)));
    address(&mut facts).in_sets =
        Ok(InSets { block: Some(entry(0)), slamming: slamming(), ..InSets::default() });
    let would = [("block lists", Verdict::WouldBlock), ("rate limits", Verdict::WouldBlock)];
    concludes(&facts, &[], &would);
    let mut walk = walk(true);
    walk.listed = dropped("RINGFENCE-KNOWN", "-m set --match-set rf-block4 src -j DROP", true);
    walk.limited = dropped("RINGFENCE-SLAMMING", "-j DROP", true);
    walk.path = walk.listed.clone();
    // Something above lets it in on another port.
    let other = Walk { port: 5080, ..self::walk(true) };
    address(&mut facts).walks = Ok(vec![walk, other]);
    let blocks = [("block lists", Verdict::Blocks), ("rate limits", Verdict::Blocks)];
    let diagnosis = concludes(&facts, &[By::BlockList, By::RateLimit], &blocks);
    assert_eq!(diagnosis.undo()[0].line(), "ringfence-allow add --for 1d -- 203.0.113.66");
    assert_eq!(diagnosis.closed[0].reach.as_deref(), Some("all ports but 5080 udp"));
    // Where the rules cannot be read, nothing is known.
    address(&mut facts).walks = Err("no iptables".to_owned());
    let unknown = ["block lists", "rate limits", "restrictions", "other rules"];
    let diagnosis = concludes(&facts, &[], &unknown.map(|check| (check, Verdict::NotKnown)));
    assert_eq!((diagnosis.known_blocked(), diagnosis.is_blocked()), (None, false));
    let mut walk = self::walk(true);
    walk.limited = through();
    address(&mut facts).walks = Ok(vec![walk]);
    facts.host.enforces.rules = false;
    let diagnosis = concludes(&facts, &[], &would);
    assert!(format!("{:?}", diagnosis.checks).contains("not in force: mode is observe"));
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
fn nothing_of_ours_is_in_force_while_it_is_paused() {
    let mut facts = facts();
    facts.paused = Some(NOW + 60);
    address(&mut facts).in_jails = Ok(vec![in_jail()]);
    address(&mut facts).in_sets = Ok(InSets { block: Some(entry(0)), ..InSets::default() });
    facts.ledgered = Ok(vec![Ledgered { block: block("101@d,203.0.113.66"), hits: Hits::Met(3) }]);
    let would = ["fail2ban", "accounts", "block lists"].map(|check| (check, Verdict::WouldBlock));
    let diagnosis = concludes(&facts, &[], &would);
    assert!(diagnosis.undo().is_empty());
    // A chain of fail2ban's own is not paused.
    address(&mut facts).walks = Ok(vec![walk(false)]);
    address(&mut facts).in_bans = Ok(vec![in_ban("f2b-ssh", BAD, Some("all ports"))]);
    assert_eq!(Diagnosis::of(&facts).closed.len(), 1);
}

#[test]
fn a_chain_for_each_protocol_is_one_ban_of_its_jail() {
    let mut facts = facts();
    facts.held = Ok(Some(held(BAD)));
    address(&mut facts).jails.clear();
    address(&mut facts).in_bans =
        Ok(vec![in_ban("f2b-sip-tcp", BAD, Some("5060 tcp")), in_ban("f2b-sip-udp", BAD, Some("5060 udp"))]);
    address(&mut facts).walks = Ok(vec![walk(false)]);
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    assert_eq!(diagnosis.closed[0].said.text, "fail2ban's jail sip");
    assert_eq!(diagnosis.closed[0].reach.as_deref(), Some("5060 tcp,udp"));
    let unban = "fail2ban-client set sip unbanip 203.0.113.66";
    assert_eq!(diagnosis.undo().iter().map(|undo| undo.line()).collect::<Vec<_>>(), [unban]);
    // Whatever the action calls its chain, fail2ban lets go first.
    address(&mut facts).in_bans = Ok(vec![in_ban("f2b-other", BAD, Some("all ports"))]);
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
    assert_eq!(diagnosis.undo()[0].line(), unban);
}

#[test]
fn the_set_of_a_jail_whose_name_ends_in_6_is_its_own() {
    for (program, set, jail) in [
        ("iptables-nft", "f2b-recidive6", "recidive6"),
        ("ip6tables-nft", "f2b-recidive66", "recidive6"),
        ("ip6tables-nft", "f2b-recidive6", "recidive"),
    ] {
        let mut facts = facts();
        facts.held = Ok(Some([(jail.to_owned(), vec![BAD.to_owned()])].into()));
        let mut ban = in_ban("INPUT", BAD, Some("all ports"));
        ban.rule.program = program.to_owned();
        ban.rule.set = Some(set.to_owned());
        ban.entry = Some(entry(60));
        address(&mut facts).in_bans = Ok(vec![ban]);
        address(&mut facts).walks = Ok(vec![walk(false)]);
        let diagnosis = concludes(&facts, &[By::Fail2ban], &[("fail2ban", Verdict::Blocks)]);
        assert_eq!(diagnosis.closed[0].said.text, format!("fail2ban's jail {jail}"));
        assert_eq!(diagnosis.undo().len(), 1);
    }
}

#[test]
fn what_frees_others_too_says_so() {
    let mut facts = facts();
    address(&mut facts).walks = Ok(vec![walk(false)]);
    address(&mut facts).in_bans = Ok(vec![in_ban("f2b-x", "203.0.113.0/24", Some("all ports"))]);
    facts.ledgered = Ok(["101@d,203.0.113.66", "999@d"]
        .map(|id| Ledgered { block: block(id), hits: Hits::Met(0) })
        .into());
    let diagnosis = Diagnosis::of(&facts);
    let undo = diagnosis.undo();
    let also: Vec<_> = undo.iter().map(|undo| (undo.also.as_deref(), undo.is_released())).collect();
    assert_eq!(
        also,
        [(Some("203.0.113.0/24, 256 addresses"), false), (None, true), (Some("999@d everywhere"), false)]
    );
}

#[test]
fn a_rule_of_the_hosts_own_is_only_undone_for_the_one_address() {
    let by_hand = |rule: &str| {
        let mut facts = facts();
        let mut walk = walk(true);
        walk.path = dropped("INPUT", rule, false);
        walk.rest = walk.path.clone();
        walk.sip = false;
        address(&mut facts).walks = Ok(vec![walk]);
        let diagnosis = Diagnosis::of(&facts);
        let undo = diagnosis.undo();
        assert!(undo.iter().all(|undo| undo.act == Act::ByHand));
        diagnosis.is_blocked().then(|| undo.iter().map(|undo| undo.line()).collect::<Vec<_>>().join("; "))
    };
    let accept = Some("iptables-nft -I INPUT 1 -s 203.0.113.66 -j ACCEPT".to_owned());
    for (rule, undo) in [
        ("-s 203.0.113.66/32 -j DROP", Some("iptables-nft -D INPUT -s 203.0.113.66/32 -j DROP".to_owned())),
        ("-s 203.0.113.0/24 -j DROP", accept.clone()),
        ("-m set --match-set cn src -j DROP", accept.clone()),
        ("! -s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j DROP", None),
        ("-m set ! --match-set friends src -j DROP", None),
        ("-m set --match-set mine dst -j DROP", None),
    ] {
        assert_eq!(by_hand(rule), undo, "{rule}");
    }
}

#[test]
fn a_rule_of_another_table_is_undone_there() {
    for (program, table, rule, undo) in [
        (
            "iptables-nft",
            "raw",
            "-s 203.0.113.66/32 -j DROP",
            &["iptables-nft -t raw -D INPUT -s 203.0.113.66/32 -j DROP"][..],
        ),
        (
            "iptables-legacy",
            "mangle",
            "-s 203.0.113.0/24 -j DROP",
            &["iptables-legacy -t mangle -I INPUT 1 -s 203.0.113.66 -j ACCEPT"],
        ),
        ("nft", "inet own", "ip saddr 203.0.113.66 drop", &[]),
        ("nft", "inet own", "ip saddr { 203.0.113.66, 192.0.2.1 } drop", &[]),
    ] {
        let mut facts = facts();
        let of_table =
            |step: &Step| Step { program: program.to_owned(), table: table.to_owned(), ..step.clone() };
        let mut walk = walk(true);
        let step = of_table(&step("INPUT", rule, false));
        walk.path = path(vec![step.clone()], Fate::Dropped { by: End::Rule(Box::new(step)) });
        walk.rest = walk.path.clone();
        walk.sip = false;
        address(&mut facts).walks = Ok(vec![walk]);
        let diagnosis = concludes(&facts, &[By::Rules], &[("other rules", Verdict::Blocks)]);
        assert_eq!(diagnosis.undo().iter().map(|undo| undo.line()).collect::<Vec<_>>(), undo);
    }
}

#[test]
fn whatever_drops_its_packets_is_a_block() {
    for (chain, rule, ours, by) in [
        ("f2b-all", "-s 203.0.113.66/32 -j DROP", false, By::Fail2ban),
        ("sip-auth-ip", "-s 203.0.113.66/32 -j DROP", false, By::EventGuard),
        (BANS, "-m set --match-set rf-ban-x-4 src -j DROP", true, By::Fail2ban),
        ("RINGFENCE-FLAGS", "-j DROP", true, By::RateLimit),
        ("own", "-m set --match-set rf-block4 src -j DROP", false, By::BlockList),
        ("own", "-j DROP", false, By::Rules),
    ] {
        let mut facts = facts();
        let mut walk = walk(true);
        walk.path = dropped(chain, rule, ours);
        address(&mut facts).walks = Ok(vec![walk]);
        concludes(&facts, &[by], &[("other rules", Verdict::Blocks)]);
    }
}

#[test]
fn the_blocked_addresses_of_an_account_are_named() {
    let mut of_address = facts();
    address(&mut of_address).in_jails = Ok(vec![in_jail()]);
    address(&mut of_address).walks = Ok(vec![walk(false)]);
    let mut facts = of_account();
    facts.of_account.as_mut().unwrap().addresses = vec![self::facts(), of_address];
    let diagnosis = concludes(&facts, &[By::Fail2ban], &[("its addresses", Verdict::Blocks)]);
    assert_eq!(diagnosis.closed[0].address, Some(BAD.parse().unwrap()));
    assert_eq!(diagnosis.undo()[0].line(), "ringfence release -- 203.0.113.66");
}

#[test]
fn an_account_is_not_free_where_an_address_of_it_cannot_be_judged() {
    let mut of_address = facts();
    let mut doubtful = walk(true);
    doubtful.path.verdict = Fate::Unknown { why: "rule 1 of INPUT depends on `--ttl-lt 5`".to_owned() };
    address(&mut of_address).walks = Ok(vec![doubtful]);
    let mut facts = of_account();
    facts.of_account.as_mut().unwrap().addresses = vec![of_address];
    let diagnosis = concludes(&facts, &[], &[("its addresses", Verdict::NotKnown)]);
    let doubt = "203.0.113.66: What becomes of its packets to 5060 udp cannot be told: rule 1 of INPUT depends on `--ttl-lt 5`";
    assert_eq!((diagnosis.doubts.as_slice(), diagnosis.known_blocked()), (&[doubt.to_owned()][..], None));
    // What cannot be read is said of the address, but for what the account itself lacks.
    let of_address = &mut facts.of_account.as_mut().unwrap().addresses[0];
    address(of_address).walks = Ok(vec![walk(true)]);
    address(of_address).in_sets = Err("no ipset".to_owned());
    of_address.held = Err("no answer".to_owned());
    facts.held = Err("no answer".to_owned());
    let diagnosis = Diagnosis::of(&facts);
    assert_eq!((diagnosis.doubts.len(), diagnosis.known_blocked()), (0, None));
    assert_eq!(diagnosis.unread, ["no answer", "203.0.113.66: no ipset"]);
}

#[test]
fn what_fail2ban_was_not_asked_about_is_not_called_left_there() {
    let unknown = || Err("no answer".to_owned());
    for (held, remembered, said, released) in [
        (Ok(None), Ok(None), "fail2ban does not know of it: it was left there", true),
        (unknown(), Ok(None), "whether fail2ban holds it is not known", false),
        (Ok(None), Err("no database".to_owned()), "whether fail2ban holds it is not known", false),
    ] {
        let mut facts = facts();
        (facts.held, facts.remembered) = (held, remembered);
        address(&mut facts).walks = Ok(vec![walk(false)]);
        address(&mut facts).in_bans = Ok(vec![in_ban("f2b-x", BAD, Some("all ports"))]);
        address(&mut facts).refusals = Ok(vec![refusal("addr-set-sip")]);
        let diagnosis = Diagnosis::of(&facts);
        let lines: Vec<_> = diagnosis.checks.iter().flat_map(|check| &check.said).collect();
        let left = lines.iter().filter(|line| line.text.ends_with(said)).count();
        let undo: Vec<_> = diagnosis.undo().iter().map(|undo| undo.is_released()).collect();
        assert_eq!((left, undo), (2, vec![released; 2]), "{lines:#?}");
    }
}

#[test]
fn a_chain_is_given_to_a_ban_of_another_name_only_where_it_can_be_no_other() {
    let [sip, web] = ["sip", "web"].map(|jail| format!("fail2ban-client set {jail} unbanip 203.0.113.66"));
    let [one, two] = ["f2b-one", "f2b-two"].map(|chain| format!("iptables-nft -D {chain} -s {BAD} -j DROP"));
    for (jails, chains, undo) in [
        (&["sip"][..], &["f2b-one"][..], vec![&sip]),
        (&["sip", "web"], &["f2b-one"], vec![&sip, &web, &one]),
        (&["sip"], &["f2b-one", "f2b-two"], vec![&sip, &one, &two]),
        (&["sip", "web"], &["f2b-one", "f2b-web"], vec![&sip, &web]),
        (&["sip", "web"], &["f2b-sip", "f2b-web"], vec![&sip, &web]),
    ] {
        let mut facts = facts();
        facts.held = Ok(Some(jails.iter().map(|jail| ((*jail).to_owned(), vec![BAD.to_owned()])).collect()));
        address(&mut facts).jails.clear();
        let in_bans = chains.iter().map(|chain| in_ban(chain, BAD, Some("all ports"))).collect();
        address(&mut facts).in_bans = Ok(in_bans);
        address(&mut facts).walks = Ok(vec![walk(false)]);
        let diagnosis = Diagnosis::of(&facts);
        let lines: Vec<_> = diagnosis.undo().iter().map(|undo| undo.line()).collect();
        assert_eq!(lines.iter().collect::<Vec<_>>(), undo, "{jails:?} {chains:?}");
        assert!(diagnosis.loose.is_empty() && diagnosis.undo().iter().all(|undo| undo.is_released()));
    }
    // A jail of ringfence-ban's has no such chain.
    let mut facts = facts();
    facts.held = Ok(Some(held(BAD)));
    address(&mut facts).in_bans = Ok(vec![in_ban("f2b-one", BAD, Some("all ports"))]);
    address(&mut facts).walks = Ok(vec![walk(false)]);
    let diagnosis = Diagnosis::of(&facts);
    assert_eq!((diagnosis.undo()[0].line(), diagnosis.loose[0].line()), (one, sip));
}

#[test]
fn ports_that_were_tried_are_not_all_that_a_rule_closes() {
    for (rule, open, reach) in [
        ("-s 203.0.113.66/32 -j DROP", false, None),
        ("-s 203.0.113.66/32 -j DROP", true, Some("5060 udp")),
        ("-s 203.0.113.66/32 -p udp -m udp --dport 5060 -j DROP", false, Some("5060 udp")),
        ("-s 203.0.113.66/32 -p udp -m multiport --dports 5060,5080 -j DROP", false, Some("5060 udp")),
        ("-j DROP", false, Some("5060 udp")),
    ] {
        let mut facts = facts();
        let mut closed = walk(true);
        closed.path = dropped("INPUT", rule, false);
        closed.rest = closed.path.clone();
        let other = open.then(|| Walk { port: 22, sip: false, protocol: Protocol::Tcp, ..walk(true) });
        address(&mut facts).walks = Ok([closed].into_iter().chain(other).collect());
        let diagnosis = concludes(&facts, &[By::Rules], &[("other rules", Verdict::Blocks)]);
        assert_eq!(diagnosis.closed[0].reach.as_deref(), reach, "{rule}");
        let said = format!(": closes {}", reach.unwrap_or("all ports"));
        let says = |check: &Check| check.said.iter().any(|line| line.text.ends_with(&said));
        assert!(diagnosis.checks.iter().any(says), "{said}");
    }
}

#[test]
fn a_closed_policy_for_sip_is_a_block_by_other_rules() {
    let mut facts = facts();
    let mut closed = walk(true);
    closed.path = path(vec![], Fate::Dropped { by: policy() });
    closed.rest = closed.path.clone();
    address(&mut facts).walks = Ok(vec![closed.clone()]);
    let diagnosis = concludes(&facts, &[By::Rules], &[("other rules", Verdict::Blocks)]);
    assert!(diagnosis.undo().is_empty());
    // A port of other services that is closed to everybody is none.
    closed.sip = false;
    address(&mut facts).walks = Ok(vec![closed]);
    concludes(&facts, &[], &[]);
    address(&mut facts).walks = Err("no iptables".to_owned());
    let unknown = ["restrictions", "other rules"].map(|check| (check, Verdict::NotKnown));
    let diagnosis = concludes(&facts, &[], &unknown);
    assert_eq!(diagnosis.unread, ["no iptables"]);
}

fn block(id: &str) -> Block {
    Block {
        offender: id.parse().unwrap(),
        jail: "accounts".to_owned(),
        seen_from: None,
        since: NOW - 60,
        until: NOW + 60,
        why: "FusionPBX has no such domain".to_owned(),
        evidence: String::new(),
    }
}

/// Of an account that nobody knows.
fn of_account() -> Facts {
    let of_account = OfAccount {
        account: "999@d".parse().unwrap(),
        existence: Ok(None),
        failures: Ok(Some(vec![])),
        addresses: vec![],
    };
    Facts { subject: "999@d".parse().unwrap(), of_address: None, of_account: Some(of_account), ..facts() }
}

#[test]
fn an_account_is_blocked_where_the_kernel_has_its_block() {
    let mut facts = of_account();
    let block = block("999@d");
    for (hits, enforced, verdict) in [
        (Hits::Met(3), true, Verdict::Blocks),
        (Hits::Absent, true, Verdict::WouldBlock),
        (Hits::Absent, false, Verdict::WouldBlock),
        // Nobody could ask the kernel.
        (Hits::NotKnown, true, Verdict::Blocks),
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
    let diagnosis = concludes(&facts, &[], &[("other rules", Verdict::NotKnown)]);
    let doubt =
        "What becomes of its packets to 5060 udp cannot be told: rule 1 of INPUT hands it to a program";
    assert_eq!((diagnosis.doubts.as_slice(), diagnosis.known_blocked()), (&[doubt.to_owned()][..], None));
    // It is at the place of its rule.
    let place = |diagnosis: &Diagnosis| {
        let check = diagnosis.checks.iter().find(|check| check.verdict == Verdict::NotKnown);
        check.unwrap().at.as_ref().map(|at| at.words.clone())
    };
    assert_eq!(place(&diagnosis), None);
    let rule = |chain: &str| at_place(1, chain, "-j NFQUEUE", false);
    address(&mut facts).places = vec![rule("INPUT-OWN"), rule("INPUT")];
    assert_eq!(place(&Diagnosis::of(&facts)), Some("INPUT 1".to_owned()));
    address(&mut facts).places.clear();
    address(&mut facts).in_jails = Ok(vec![in_jail()]);
    let checks = [("fail2ban", Verdict::Blocks), ("other rules", Verdict::NotKnown)];
    assert_eq!(concludes(&facts, &[By::Fail2ban], &checks).known_blocked(), Some(true));
}

/// A rule that leads to others from INPUT.
fn at_place(number: usize, chain: &str, rule: &str, ours: bool) -> Place {
    Place { step: step(chain, rule, ours), from: "INPUT".to_owned(), number }
}

#[test]
fn checks_are_in_the_order_of_the_hosts_rules() {
    let mut facts = facts();
    let rules = [
        at_place(1, "sip-auth-ip", "-s 198.51.100.7/32 -j DROP", false),
        at_place(2, "RF-BAN", "-m set --match-set rf-ban-ssh-4 src -j DROP", true),
        at_place(2, "RF-BAN", "-m set --match-set rf-ban-sip-4 src -j DROP", true),
        at_place(3, "RINGFENCE-UDP", "-j RF-BLOCK", true),
        at_place(3, "RF-BLOCK", "-j DROP", true),
        at_place(3, "RINGFENCE-KNOWN", "-m set --match-set rf-allow4 src -j RETURN", true),
        at_place(3, "RINGFENCE-KNOWN", "-m set --match-set rf-block4 src -j DROP", true),
        at_place(3, "RINGFENCE-KNOWN", "-m set --match-set rf-slam-ip4 src -g RINGFENCE-SLAMMING", true),
        at_place(4, "INPUT", "-p udp -j ACCEPT", false),
        at_place(5, "f2b-x", "-j RETURN", false),
    ];
    let open = walk(true);
    let end = rules[8].step.clone();
    let accepted = path(vec![end.clone()], Fate::Accepted { by: End::Rule(Box::new(end)) });
    address(&mut facts).walks = Ok(vec![Walk { path: accepted.clone(), rest: accepted, ..open }]);
    address(&mut facts).places = rules.into();
    address(&mut facts).in_jails = Ok(vec![in_jail()]);
    let order = |facts: &Facts| {
        let diagnosis = Diagnosis::of(facts);
        let words = |check: &Check| check.at.as_ref().map_or("", |at| &at.words).to_owned();
        diagnosis.checks.iter().map(|check| (words(check), check.check)).collect::<Vec<_>>()
    };
    let expected = [
        ("INPUT 1 > sip-auth-ip", "event_guard"),
        ("INPUT 2 > RF-BAN", "fail2ban"),
        ("INPUT 3 > RF-BLOCK", "accounts"),
        ("INPUT 3 > RINGFENCE-KNOWN", "allow lists"),
        ("INPUT 3 > RINGFENCE-KNOWN", "seen"),
        ("INPUT 3 > RINGFENCE-KNOWN", "block lists"),
        ("INPUT 3 > RINGFENCE-KNOWN", "rate limits"),
        ("INPUT 4", "other rules"),
        ("", "registrations"),
        ("", "restrictions"),
    ];
    assert_eq!(order(&facts), expected.map(|(at, check)| (at.to_owned(), check)));
    // The rules are of each host: there, bans come behind everything else, and accounts before.
    address(&mut facts).places.rotate_left(3);
    address(&mut facts).program = true;
    let names: Vec<_> = order(&facts).into_iter().map(|(_, check)| check).collect();
    let expected = [
        "accounts",
        "allow lists",
        "seen",
        "block lists",
        "rate limits",
        "other rules",
        "event_guard",
        "fail2ban",
        "registrations",
        "restrictions",
    ];
    assert_eq!(names, expected);
}

#[test]
fn json_has_dates_as_of_rfc_3339() {
    let said = Said::new("x").since(0).until(NOW);
    let json = serde_json::to_value(&said).unwrap();
    assert_eq!(json["since"], "1970-01-01T00:00:00Z");
    assert!(json["until"].as_str().unwrap().ends_with('Z'), "{json}");
    assert!(serde_json::to_value(Said::new("x")).unwrap()["since"].is_null());
    let ledgered = Ledgered { block: block("101@d,203.0.113.66"), hits: Hits::Met(3) };
    let json = serde_json::to_value(&ledgered).unwrap();
    assert!(json["since"].is_string() && json["until"].is_string(), "{json}");
    let json = serde_json::to_value(remembered(Some(NOW))).unwrap();
    assert!(json["since"].is_string() && json["until"].is_string(), "{json}");
}
