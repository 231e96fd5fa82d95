use std::fmt::Write;

use proptest::prelude::*;

use super::*;

fn offenders(ids: &[&str]) -> Vec<Offender> {
    ids.iter().map(|id| id.parse().unwrap()).collect()
}

fn settings(toml: &str) -> Settings {
    Settings::new(&Config::parse("r.toml".as_ref(), toml.as_bytes()).unwrap())
}

fn shown(ids: &[&str], version: Version, toml: &str) -> String {
    let layout = layout(&offenders(ids), version, &settings(toml));
    let mut text = String::new();
    for Hook { rule, .. } in &layout.hooks {
        let _ = writeln!(text, "INPUT {}", plain(rule));
    }
    for chain in &layout.chains {
        for rule in &chain.rules {
            let _ = writeln!(text, "{} {}", chain.name, plain(rule));
        }
    }
    text
}

/// A rule with its patterns in letters, and without its comment.
fn plain(rule: &Rule) -> String {
    let text = rule.to_string();
    let (matches, rest) = text.split_once("-m comment").unwrap();
    let (_, target) = rest.split_once("\" -j ").unwrap();
    match matches.split_once("\"|") {
        Some((before, hex)) => {
            let hex = hex.trim_end_matches("|\" ");
            let bytes: Vec<u8> = (0..hex.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            format!("{before}{} -j {target}", String::from_utf8(bytes).unwrap())
        }
        None => format!("{matches}-j {target}"),
    }
}

#[test]
fn nobody_is_nothing() {
    assert_eq!(shown(&[], Version::V4, ""), "");
    assert_eq!(shown(&["101@d,2001:db8::1"], Version::V4, ""), "");
}

#[test]
fn a_chain_for_each_domain_and_a_rule_for_each_account() {
    let ids = [
        "999@a.example.com",
        "998@a.example.com,203.0.113.20",
        "997@a.example.com,2001:db8::1",
        "1@b.example",
    ];
    let (a, b) =
        (chain_name("a.example.com", &mut HashSet::new()), chain_name("b.example", &mut HashSet::new()));
    assert_eq!(
        shown(&ids, Version::V4, ""),
        format!(
            "INPUT ! -i lo -p udp -m multiport --dports 5060:5061,5080:5081 -j RF-BLOCK\n\
             RF-BLOCK -m string --algo bm ! --hex-string username=\" -j RETURN\n\
             RF-BLOCK -m string --algo bm --icase --hex-string realm=\"a.example.com\" -j {a}\n\
             RF-BLOCK -m string --algo bm --icase --hex-string realm=\"b.example\" -j {b}\n\
             RF-BLOCK-DENY -j DROP\n\
             {a} -s 203.0.113.20 -m string --algo bm --hex-string username=\"998\" -j RF-BLOCK-DENY\n\
             {a} -m string --algo bm --hex-string username=\"999\" -j RF-BLOCK-DENY\n\
             {b} -m string --algo bm --hex-string username=\"1\" -j RF-BLOCK-DENY\n"
        )
    );
    assert!(shown(&ids, Version::V6, "").contains("-s 2001:db8::1 "));
}

#[test]
fn each_account_is_counted_by_itself() {
    let all = offenders(&["1@a", "2@a", "1@b", "1@a,192.0.2.1", "1@a,2001:db8::1"]);
    let tags: BTreeSet<_> = all.iter().map(|offender| leaf(offender).tag()).collect();
    assert_eq!(tags.len(), all.len());
}

#[test]
fn settings_show_in_the_rules() {
    let toml = "[block]\ntcp = \"reset\"\nlog-prefix = \"rf: $(x)\"\n[firewall]\nsip-ports = [\"5060\"]";
    let text = shown(&["1@d"], Version::V4, toml);
    for line in [
        "INPUT ! -i lo -p udp -m multiport --dports 5060 -j RF-BLOCK\nINPUT ! -i lo -p tcp -m multiport --dports 5060 -j RF-BLOCK\n",
        "RF-BLOCK-DENY -m limit --limit 10/min --limit-burst 20 -j LOG --log-prefix \"rf: $(x)\"\n\
         RF-BLOCK-DENY -p tcp -j REJECT --reject-with tcp-reset\nRF-BLOCK-DENY -j DROP\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn patterns_have_a_limit() {
    let account =
        |user: usize, domain: usize| SipAccount::new(&"u".repeat(user), &"d".repeat(domain)).unwrap();
    assert_eq!(check(&account(116, 119)), Ok(()));
    assert_eq!(
        check(&account(117, 1)).unwrap_err().to_string(),
        "its user part is longer than 116 bytes, and iptables has no longer patterns"
    );
    assert_eq!(check(&account(1, 120)).unwrap_err().limit, 119);
    let longest = format!("username=\"{}\"", "u".repeat(116));
    let longest = Rule::new(Pattern::new(&longest, Case::Heeded).to_string(), DENY);
    assert!(longest.to_string().contains(&"75".repeat(116)));
}

#[test]
fn chain_names_are_short_and_never_shared() {
    let mut taken = HashSet::new();
    let name = chain_name("a.example.com", &mut taken);
    assert_eq!(name.len(), 25);
    assert_eq!(chain_name("a.example.com", &mut taken), name + "x");
}

proptest! {
    /// Nothing of an account reaches iptables but as hexadecimal digits.
    #[test]
    fn foreign_text_is_only_in_hexadecimal(user in "\\PC{1,30}", domain in "[a-zA-Z0-9.-]{1,30}") {
        if let Ok(account) = SipAccount::new(&user, &domain) {
            let offender = Offender { account, source: None };
            let Layout { chains, .. } = layout([&offender], Version::V4, &settings(""));
            let text: String = chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.to_string() + "\n").collect();
            let plain = |c: char| c.is_ascii_alphanumeric() || " -\"|!\n".contains(c);
            prop_assert!(text.chars().all(plain), "{}", text);
            prop_assert_eq!(text.lines().count(), 4);
        }
    }
}
