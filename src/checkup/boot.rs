//! What the next boot brings: rules that somebody saved, with ours among them or sets of ours in them.

use std::path::Path;

use super::Subject::Boot;
use super::units::Scheduler;
use super::{Finding, Root, text, unreadable};
use crate::services;

/// What netfilter-persistent and the services of other distributions load.
const SAVED: [&str; 4] = [
    "/etc/iptables/rules.v4",
    "/etc/iptables/rules.v6",
    "/etc/sysconfig/iptables",
    "/etc/sysconfig/ip6tables",
];

/// Every rule of ours has such a comment.
const OURS: &str = "--comment \"ringfence ";

/// Every set of ours has such a name.
const SETS: &str = "--match-set rf-";

/// The saved rules of this host.
#[must_use]
pub fn saved_rules(root: &Root, scheduler: &Scheduler) -> Vec<Finding> {
    let mut findings = vec![];
    let mut there = vec![];
    for path in SAVED {
        match text(&root.at(path)) {
            Ok(None) => {}
            Ok(Some(rules)) => {
                there.push(path);
                findings.extend(of(Path::new(path), &rules, scheduler.has(services::SETS.name)));
            }
            Err(error) => findings.push(unreadable(Boot, "saved-rules", &root.at(path), &error)),
        }
    }
    if findings.is_empty() {
        let what = match there[..] {
            [] => "no rules are saved for the next boot".to_owned(),
            _ => format!("no saved rules are Ringfence's, or need its sets: {}", there.join(", ")),
        };
        findings.push(Finding::fine(Boot, "saved-rules", what));
    }
    findings
}

fn of(path: &Path, rules: &str, sets_first: bool) -> Option<Finding> {
    let rules: Vec<_> =
        rules.lines().filter(|line| line.starts_with("-A ") || line.contains("] -A ")).collect();
    let ours = rules.iter().filter(|rule| rule.contains(OURS)).count();
    let naming = rules.iter().filter(|rule| rule.contains(SETS)).count();
    let path = path.display();
    let without_sets = if naming > 0 && !sets_first {
        " Without the sets that they name, none of the file is loaded, not even the host's own rules."
    } else {
        ""
    };
    if ours > 0 {
        return Some(Finding::needs(
            Boot,
            "saved-rules",
            format!(
                "{path} holds {} of Ringfence's: a boot brings back what is over by then.{without_sets}",
                super::counted(ours, "rule", "rules")
            ),
            format!(
                "sed -i.bak '/--comment \"ringfence /d' {path}; Ringfence brings in its own at each boot."
            ),
        ));
    }
    (!without_sets.is_empty()).then(|| {
        Finding::needs(
            Boot,
            "saved-rules",
            format!("{} of {path} name sets of Ringfence's, which nothing makes before they are loaded.{without_sets}", super::counted(naming, "rule", "rules")),
            format!("systemctl enable {}", services::SETS.name),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::{Verdict, host};

    #[test]
    fn saved_rules_of_ours_are_a_trap() {
        let check = |rules: &str, sets: bool| {
            let unit = "/etc/systemd/system/sysinit.target.wants/ringfence-sets.service";
            let mut files = vec![("/etc/iptables/rules.v4", rules)];
            if sets {
                files.push((unit, ""));
            }
            let (_dir, root) = host::with(&files);
            let found = saved_rules(&root, &Scheduler::read(&root).unwrap());
            assert_eq!(found.len(), 1);
            found.into_iter().next().unwrap()
        };
        let own = "*filter\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(check(own, false).verdict, Verdict::Fine);
        let theirs = "-A INPUT -m set --match-set rf-allow-ip4 src -j ACCEPT\n";
        let found = check(theirs, false);
        assert!(
            found.what.starts_with("1 rule of /etc/iptables/rules.v4 name")
                && found.what.contains("none of the file")
        );
        assert_eq!(found.remedy, "systemctl enable ringfence-sets.service");
        assert_eq!(check(theirs, true).verdict, Verdict::Fine);
        let ours = "[1:2] -A INPUT -m comment --comment \"ringfence 0a1b\" -j RINGFENCE\n-A RINGFENCE -m set --match-set rf-x src -m \
                    comment --comment \"ringfence 0a1c\" -j DROP\n";
        let found = check(ours, true);
        assert!(
            found.what.contains("holds 2 rules of Ringfence's") && !found.what.contains("none of the file"),
            "{found:?}"
        );
        assert!(check(ours, false).what.contains("none of the file"));
    }
}
