use super::change::text;
use super::*;

fn layout(rules: &[&str]) -> Layout {
    let rule = |text: &&str| Rule::new(*text, "DROP");
    Layout {
        prefix: "RF-T".to_owned(),
        chains: if rules.is_empty() {
            vec![]
        } else {
            vec![Chain { name: "RF-T".into(), rules: rules.iter().map(rule).collect() }]
        },
        hooks: if rules.is_empty() { vec![] } else { vec![Hook::in_input(hook())] },
    }
}

fn hook() -> Rule {
    Rule::new("-p udp", "RF-T")
}

/// As iptables-save prints a rule of ours.
fn saved_rule(chain: &str, rule: &Rule, packets: u64) -> String {
    format!("[{packets}:{}] -A {chain} {rule}\n", packets * 100)
}

fn change(saved: &str, layout: &Layout) -> String {
    text(&Saved::parse(saved), layout).unwrap_or_default()
}

const EMPTY: &str = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";

#[test]
fn nothing_is_wanted_and_nothing_is_there() {
    assert_eq!(change(EMPTY, &layout(&[])), "");
    assert_eq!(change("", &layout(&[])), "");
}

#[test]
fn brings_in_what_is_missing_and_keeps_the_counters() {
    let wanted = layout(&["-s 192.0.2.1", "-s 192.0.2.2"]);
    let [first, second] = &wanted.chains[0].rules[..] else { panic!() };
    let hook = hook();
    assert_eq!(
        change(EMPTY, &wanted),
        format!(
            "*filter\n:RF-T - [0:0]\n-I INPUT 1 {hook}\n[0:0] -A RF-T {first}\n[0:0] -A RF-T {second}\nCOMMIT\n"
        )
    );
    let there = |rules: &str| {
        format!("*filter\n:INPUT DROP [0:0]\n:RF-T - [0:0]\n{}{rules}COMMIT\n", saved_rule("INPUT", &hook, 9))
    };
    let first_there = saved_rule("RF-T", first, 7);
    assert_eq!(
        change(&there(&first_there), &wanted),
        format!("*filter\n-I RF-T 2 {second}\nCOMMIT\n"),
        "what is there stays untouched"
    );
    let other = saved_rule("RF-T", &hook, 1);
    assert_eq!(
        change(&there(&(other + &first_there)), &wanted),
        format!("*filter\n-D RF-T 1\n-I RF-T 2 {second}\nCOMMIT\n")
    );
    let [other, first_again] = [&hook, first].map(|rule| saved_rule("RF-T", rule, 1));
    assert_eq!(
        change(&there(&(first_there.clone() + &other + &first_again + &other)), &layout(&["-s 192.0.2.1"])),
        format!("*filter\n:RF-T - [0:0]\n[1:100] -A RF-T {first}\nCOMMIT\n"),
        "what is doubled is filled anew"
    );
    assert_eq!(
        change(&there(&(other.clone() + &first_there + &other)), &layout(&["-s 192.0.2.1"])),
        "*filter\n-D RF-T 3\n-D RF-T 1\nCOMMIT\n"
    );
    let both = first_there.clone() + &saved_rule("RF-T", second, 0);
    assert_eq!(change(&there(&both), &wanted), "");
    assert_eq!(
        change(&there(&(saved_rule("RF-T", second, 0) + &first_there)), &wanted),
        format!("*filter\n:RF-T - [0:0]\n[7:700] -A RF-T {first}\n[0:0] -A RF-T {second}\nCOMMIT\n"),
        "order is content"
    );
}

#[test]
fn the_hook_stands_behind_bans_and_above_all_else() {
    let wanted = layout(&["-s 192.0.2.1"]);
    let body = saved_rule("RF-T", &wanted.chains[0].rules[0], 0);
    let with = |input: &[&str]| {
        let rules: Vec<_> = input.iter().map(|rule| format!("[1:2] -A INPUT {rule}\n")).collect();
        let rules = rules.concat();
        let change =
            change(&format!("*filter\n:INPUT ACCEPT [0:0]\n:RF-T - [0:0]\n{rules}{body}COMMIT\n"), &wanted);
        change.trim_start_matches("*filter\n").trim_end_matches("COMMIT\n").to_owned()
    };
    let ours = hook().to_string();
    let f2b = "-p tcp -m multiport --dports 22 -j f2b-sshd";
    let set = "-p udp -m set --match-set f2b-sip src -j REJECT --reject-with icmp-port-unreachable";
    let guard = "-j sip-auth-ip";
    let established = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT";
    let trap = "-m comment --comment \"f2b-x -j RF-T\" -j ACCEPT";

    assert_eq!(with(&[f2b, set, guard, established]), format!("-I INPUT 4 {ours}\n"));
    assert_eq!(with(&[trap, f2b]), format!("-I INPUT 1 {ours}\n"), "what is quoted is no target");
    assert_eq!(with(&[f2b, &ours, established]), "");
    assert_eq!(with(&[&ours, f2b, established, f2b]), "", "a ban that came later");
    assert_eq!(with(&[f2b, established, &ours]), format!("-D INPUT {ours}\n-I INPUT 2 {ours}\n"));
    assert_eq!(with(&[&ours, &ours]), format!("-D INPUT {ours}\n-D INPUT {ours}\n-I INPUT 1 {ours}\n"));
    // One that the administrator wrote, without our comment, is not doubled but replaced.
    assert_eq!(with(&["-p udp -j RF-T"]), format!("-D INPUT -p udp -j RF-T\n-I INPUT 1 {ours}\n"));
}

#[test]
fn a_pause_is_the_first_rule_and_touches_nothing_else() {
    let wanted = layout(&["-s 192.0.2.1", "-s 192.0.2.2"]);
    let [first, second] = &wanted.chains[0].rules[..] else { panic!() };
    let (first, second) = (saved_rule("RF-T", first, 7), saved_rule("RF-T", second, 8));
    let hook = saved_rule("INPUT", &hook(), 9);
    let with = |rules: &str| {
        format!(
            "*filter\n:INPUT DROP [0:0]\n:RF-T - [0:0]\n:RF-U - [0:0]\n{hook}{rules}[0:0] -A RF-U -j DROP\nCOMMIT\n"
        )
    };
    let paused = |until: i64| {
        let rule = wanted.clone().paused(Pause::Until(until)).chains[0].rules[0].clone();
        assert!(rule.to_string().ends_with("-j RETURN"), "{rule}");
        rule
    };
    let (pause, other) = (paused(1_795_184_343), paused(1_795_184_344));
    assert!(
        pause.to_string().starts_with("-m time --datestop 2026-11-20T14:19:02 "),
        "its last second: {pause}"
    );
    let (there, others) = (saved_rule("RF-T", &pause, 1), saved_rule("RF-T", &other, 1));
    let both = [first.as_str(), &second].concat();
    let until = Pause::Until(1_795_184_343);
    for (what, there, pause, wanted) in [
        ("it begins", both.clone(), until, format!("*filter\n-I RF-T 1 {pause}\nCOMMIT\n")),
        ("it is there", there.clone() + &both, until, String::new()),
        (
            "another one was",
            others + &both,
            until,
            format!("*filter\n-D RF-T 1\n-I RF-T 1 {pause}\nCOMMIT\n"),
        ),
        ("it ends", there.clone() + &both, Pause::Not, "*filter\n-D RF-T 1\nCOMMIT\n".to_owned()),
        ("it is over", there + &both, Pause::Over(1_795_184_343), "*filter\n-D RF-T 1\nCOMMIT\n".to_owned()),
        ("there was none", both, Pause::Not, String::new()),
    ] {
        let saved = Saved::parse(&with(&there));
        let text = change::pause_text(&saved, &["RF-T", "RF-U", "RF-V"], pause).unwrap_or_default();
        assert_eq!(text, wanted, "{what}");
        // Whoever makes the rules makes the same.
        let layout = layout(&["-s 192.0.2.1", "-s 192.0.2.2"]);
        assert_eq!(
            super::change::text(&saved, &layout.clone().paused(pause)).unwrap_or_default(),
            wanted,
            "{what}"
        );
        // What was kept of an earlier time is as of now.
        assert_eq!(
            Layout::of(&saved, "RF-T").paused(pause).chains,
            Layout::of(&Saved::parse(&with(&[first.as_str(), &second].concat())), "RF-T")
                .paused(pause)
                .chains,
            "{what}"
        );
        let looked = super::change::text(&saved, &layout.paused_as(pause, &saved)).unwrap_or_default();
        assert_eq!(looked, if what == "it is over" { "" } else { &wanted }, "{what}");
    }
}

#[test]
fn takes_away_what_is_no_longer_wanted() {
    let saved = format!(
        "*filter\n:INPUT ACCEPT [0:0]\n:OTHER - [0:0]\n:RF-T - [0:0]\n:RF-T-1 - [0:0]\n:RF-T-2 - [0:0]\n{}[0:0] -A RF-T -j RF-T-1\n\
         [0:0] -A RF-T-2 -j DROP\n[0:0] -A OTHER -j RF-T-2\nCOMMIT\n",
        saved_rule("INPUT", &hook(), 1)
    );
    assert_eq!(
        change(&saved, &layout(&[])),
        format!("*filter\n-D INPUT {}\n-F RF-T\n-F RF-T-1\n-F RF-T-2\n-X RF-T\n-X RF-T-1\nCOMMIT\n", hook())
    );
    // The name of another's chain may begin like ours.
    let saved = "*filter\n:INPUT ACCEPT [0:0]\n:RF-TABOO - [0:0]\n[0:0] -A INPUT -j RF-TABOO\n[0:0] -A RF-TABOO -j DROP\nCOMMIT\n";
    assert_eq!(change(saved, &layout(&[])), "");
    // What cannot be taken away, and is empty, is left alone.
    let saved = "*filter\n:OTHER - [0:0]\n:RF-T-2 - [0:0]\n[0:0] -A OTHER -g RF-T-2\nCOMMIT\n";
    assert_eq!(change(saved, &layout(&[])), "");
}

#[test]
fn foreign_rules_are_told_from_ours() {
    let ours = saved_rule("INPUT", &hook(), 3);
    let saved = Saved::parse(&format!(
        "# Generated\n*filter\n:INPUT DROP [1:2]\n:FORWARD ACCEPT [0:0]\n[5:6] -A INPUT -i lo -j ACCEPT\n\
         [0:0] -A INPUT -m comment --comment \"ringfence rules\" -j ACCEPT\n{ours}COMMIT\nnonsense\n[x] -A INPUT\n"
    ));
    assert_eq!(saved.foreign(), 3, "two rules and a policy");
    let ours: Vec<_> = saved.ours().collect();
    assert_eq!(ours, [(hook().tag(), Counters { packets: 3, bytes: 300 })]);
}

#[test]
fn tags_stand_for_content() {
    assert_ne!(Rule::new("-p udp", "DROP").tag(), Rule::new("-p tcp", "DROP").tag());
    assert_ne!(Rule::new("-p udp", "DROP").tag(), Rule::new("-p udp", "ACCEPT").tag());
    assert_ne!(hook().counting_for("somebody").tag(), hook().tag());
    assert_eq!(
        hook()
            .counting_for("somebody")
            .to_string()
            .replace(&hook().counting_for("somebody").tag().to_string(), "x"),
        hook().to_string().replace(&hook().tag().to_string(), "x")
    );
    assert_eq!(Tag::parse(&hook().tag().to_string()), Some(hook().tag()));
    assert_eq!(Tag::parse("0123"), None);
}
