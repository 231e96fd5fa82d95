use clap::CommandFactory;

use super::*;

fn verdict(mode: Mode, keep: bool, because: Because) -> Verdict {
    Verdict { subject: "203.0.113.20".into(), mode, keep, because, answer: None }
}

#[test]
fn the_command_line_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn observe_keeps_nobody() {
    let because = || Because::Found(Exemption::Standing(Standing::Registered { until: 0 }));
    assert_eq!(verdict(Mode::Enforce, true, because()).exit(), Exit::Yes);
    assert_eq!(verdict(Mode::Enforce, false, because()).exit(), Exit::No);
    assert_eq!(verdict(Mode::Observe, true, because()).exit(), Exit::No);
    let decision = verdict(Mode::Observe, true, because()).decision();
    assert_eq!((decision.decision.as_str(), decision.mode.as_str()), ("keep", "observe"));
}

#[test]
fn every_reason_has_a_word() {
    let unreadable = crate::allow::Unreadable { path: "allow.table".into(), error: io::Error::other("x") };
    for (because, word) in [
        (Because::NoAddress, "not-an-address"),
        (Because::ConfigBroken, "config-broken"),
        (Because::Found(Exemption::Allowed { list: "office".into() }), "allow-list"),
        (Because::Found(Exemption::AllowListUnreadable(unreadable)), "allow-list-unreadable"),
        (Because::Found(Exemption::Standing(Standing::Registered { until: 0 })), "registered"),
        (Because::Found(Exemption::Standing(Standing::NotRegistered)), "not-registered"),
        (Because::Found(Exemption::Standing(Standing::SeenLately { at: 0 })), "seen-lately"),
        (Because::Found(Exemption::Standing(Standing::Unknown)), "source-unreadable"),
    ] {
        assert_eq!(verdict(Mode::Enforce, true, because).decision().reason, word);
    }
}

#[test]
fn some_time_is_left_to_leave() {
    for (deadline, working) in [(40, 35), (800, 700), (30_000, 29_900)] {
        let ms = Duration::from_millis;
        assert_eq!(working_time(ms(deadline)).as_millis(), ms(working).as_millis());
    }
}
