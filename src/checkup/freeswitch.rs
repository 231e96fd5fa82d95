//! What FreeSWITCH's own settings do to ours: whether it logs failures, and who may command it.

use super::Finding;
use super::Subject::FreeSwitch as About;
use crate::event_socket::DEFAULT_PASSWORD;
use crate::evidence::visible_within;
use crate::fail2ban::jails::Jail;
use crate::freeswitch::{FreeSwitch, Profile};

/// Whether failures are logged, where a jail counts them. `whose` are the settings of the profiles.
#[must_use]
pub fn log_auth_failures(jails: &[Jail], profiles: &[Profile], whose: &str) -> Finding {
    const CHECK: &str = "log-auth-failures";
    let needing = jails.iter().filter(|jail| jail.filter.plain().contains("SIP auth "));
    let needing: Vec<_> = needing.map(|jail| jail.name.as_str()).collect();
    if needing.is_empty() {
        return Finding::fine(About, CHECK, "no jail needs log-auth-failures");
    }
    if profiles.is_empty() {
        let what = format!("Whether log-auth-failures is on is not known: {whose} has no SIP profiles.");
        return Finding::unknown(
            About,
            CHECK,
            what,
            "Name the directory as freeswitch-config in [registrations].",
        );
    }
    let silent: Vec<_> = profiles
        .iter()
        .filter(|profile| !profile.logs_failures)
        .map(|profile| profile.name.as_str())
        .collect();
    if silent.is_empty() {
        return Finding::fine(About, CHECK, "log-auth-failures is on in all SIP profiles");
    }
    Finding::needs(
        About,
        CHECK,
        format!(
            "Failures in the SIP profiles {} are not logged, by {whose}: no wrong password there is seen by {}.",
            silent.join(", "),
            needing.join(", ")
        ),
        "In each profile: <param name=\"log-auth-failures\" value=\"true\"/> (FusionPBX: Advanced > SIP Profiles), then: fs_cli -x \
         'sofia profile PROFILE restart'. Or run ringfence-events and use its jails, which need no log-auth-failures.",
    )
}

/// Who may come to the event socket where its settings do not say.
const LOOPBACK: &str = "loopback.auto";

/// Who may command FreeSWITCH. `file` has the settings.
#[must_use]
pub fn event_socket(settings: &FreeSwitch, file: &str) -> Vec<Finding> {
    const CHECK: &str = "event-socket";
    let Some(address) = &settings.event_socket_address else { return vec![] };
    let mut findings = vec![];
    let listens = settings.event_socket_listens.as_deref().unwrap_or_default();
    let is_near = |ip: std::net::IpAddr| ip.is_loopback();
    let is_far = listens.trim_matches(['[', ']']).parse().is_ok_and(|ip| !is_near(ip));
    let acl = settings.event_socket_acl.as_deref().unwrap_or(LOOPBACK);
    if is_far && acl != LOOPBACK {
        findings.push(Finding::needs(
            About,
            CHECK,
            format!(
                "The event socket listens at {listens}, for whom the ACL {} permits: whoever of them has its password may run programs here.",
                visible_within(acl, 60)
            ),
            format!("In {file}: <param name=\"listen-ip\" value=\"127.0.0.1\"/>, then: fs_cli -x 'reload mod_event_socket'"),
        ));
    }
    if settings.event_socket_password.as_deref().is_none_or(|password| password == DEFAULT_PASSWORD) {
        findings.push(Finding::needs(
            About,
            CHECK,
            "The event socket has FreeSWITCH's default password, which everybody knows: any user of this host may run programs as \
             FreeSWITCH's.",
            format!(
                "Another password in {file} and wherever it is used (FusionPBX: switch.event_socket.password of its config.conf; fs_cli: \
                 /etc/fs_cli.conf), then: fs_cli -x 'reload mod_event_socket'"
            ),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::fine(
            About,
            CHECK,
            format!("the event socket is at {address}, with a password of its own"),
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Verdict;
    use crate::fail2ban::jails::Filter;

    #[test]
    fn failures_must_be_logged_where_a_jail_counts_them() {
        let jail = |regex: &str| Jail {
            name: "sip".into(),
            filter: Filter { fail: vec![regex.into()], ..Filter::default() },
            ..Jail::default()
        };
        let profile = |name: &str, logs_failures| Profile { name: name.into(), logs_failures };
        let counts = [jail(r"SIP\ auth failure")];
        let check =
            |jails: &[Jail], profiles: &[Profile]| log_auth_failures(jails, profiles, "/etc/freeswitch");
        let mixed = [profile("internal", false), profile("external", true)];
        let found = check(&counts, &mixed);
        assert_eq!(found.verdict, Verdict::NeedsDoing);
        assert!(found.what.starts_with("Failures in the SIP profiles internal are not logged"), "{found:?}");
        assert_eq!(check(&counts, &mixed[1..]).verdict, Verdict::Fine);
        assert_eq!(check(&counts, &[]).verdict, Verdict::NotChecked);
        assert_eq!(check(&[jail("v1 failure")], &mixed).verdict, Verdict::Fine);
    }

    #[test]
    fn the_event_socket_is_for_nobody_else() {
        let near = |listens: &str, password: &str| FreeSwitch {
            event_socket_address: Some("127.0.0.1:8021".into()),
            event_socket_listens: Some(listens.into()),
            event_socket_password: Some(password.into()),
            ..FreeSwitch::default()
        };
        let socket = |listens: &str, password: &str| FreeSwitch {
            event_socket_acl: Some("lan".into()),
            ..near(listens, password)
        };
        let count = |settings: &FreeSwitch| {
            let found = event_socket(settings, "x.xml");
            found.iter().filter(|finding| finding.verdict == Verdict::NeedsDoing).count()
        };
        assert_eq!(count(&socket("127.0.0.1", "own")), 0);
        assert_eq!(count(&near("::", "own")), 0, "its own default lets nobody in");
        assert_eq!(count(&socket("::", "own")), 1);
        assert_eq!(count(&socket("203.0.113.10", "own")), 1);
        assert_eq!(count(&socket("0.0.0.0", "ClueCon")), 2);
        assert!(event_socket(&FreeSwitch::default(), "x").is_empty());
    }
}
