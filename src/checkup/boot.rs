//! What the next boot brings: rules that somebody saved, with ours among them or sets of ours in them.

use std::path::Path;

use super::Subject::Boot;
use super::units::Scheduler;
use super::{Finding, Root, text, unreadable};
use crate::firewall::SAVED;
use crate::services;

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
                findings.extend(of(Path::new(path), &rules, scheduler));
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

fn of(path: &Path, rules: &str, scheduler: &Scheduler) -> Option<Finding> {
    let rules: Vec<_> =
        rules.lines().filter(|line| line.starts_with("-A ") || line.contains("] -A ")).collect();
    let ours = rules.iter().filter(|rule| rule.contains(OURS)).count();
    let naming = rules.iter().filter(|rule| rule.contains(SETS)).count();
    let path = path.display();
    let without_sets = if naming > 0 && !scheduler.has(&services::SETS) {
        " Without the sets that they name, none of the file is loaded, not even the host's own rules."
    } else {
        ""
    };
    if ours > 0 {
        return Some(
            Finding::needs(
                Boot,
                "saved-rules",
                format!(
                    "{path} holds {} of Ringfence's: a boot brings back what is over by then.{without_sets}",
                    super::counted(ours, "rule", "rules")
                ),
                format!(
                    "sed -i.bak '/--comment \"ringfence /d' {path}; Ringfence brings in its own at each boot."
                ),
            )
            .about(path.to_string()),
        );
    }
    let naming = super::counted(naming, "rule", "rules");
    if !without_sets.is_empty() && !scheduler.is_systemd() {
        return Some(Finding::unknown(
            Boot,
            "saved-rules",
            format!("{naming} of {path} name sets of Ringfence's; whether something makes them before is not known.{without_sets}"),
            "In the boot scripts of this host, ahead of what loads them: ringfence-ban prepare; ringfence-lists load",
        ).about(path.to_string()));
    }
    (!without_sets.is_empty()).then(|| {
        Finding::needs(
            Boot,
            "saved-rules",
            format!("{naming} of {path} name sets of Ringfence's, which nothing makes before they are loaded.{without_sets}"),
            format!("systemctl enable {}", services::SETS.name),
        )
        .about(path.to_string())
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
            let mut files = vec![("/etc/iptables/rules.v4", rules), ("/run/systemd/system/x", "")];
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
        let (_dir, root) = host::with(&[("/etc/iptables.rules", theirs)]);
        let found = saved_rules(&root, &Scheduler::read(&root).unwrap()).remove(0);
        assert_eq!(found.verdict, Verdict::NotChecked);
        assert!(found.remedy.ends_with("ringfence-ban prepare; ringfence-lists load"), "{found:?}");
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
