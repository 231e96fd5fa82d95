//! The recorded sessions of `tests/data/esl`, from bytes to lines.

use std::time::Instant;

use super::event::Event;
use super::line::Known;
use super::refusals::{PATIENCE, Refusals};
use super::registrations;
use crate::account::SipAccount;
use crate::event_socket::frames::Frames;
use crate::event_socket::recorded;

fn known(account: &SipAccount) -> Known {
    let known = match account.domain() {
        "a.example.com" => ["101", "102", "103", "104", "105", "106"].contains(&account.user()),
        "b.example.com" => ["101", "102"].contains(&account.user()),
        _ => false,
    };
    if known { Known::Yes } else { Known::No }
}

fn log(session: &[u8]) -> String {
    let (mut frames, mut refusals, mut log) = (Frames::new(1 << 20), Refusals::default(), String::new());
    let now = Instant::now();
    frames.push(session);
    while let Some(frame) = frames.next().unwrap() {
        let Some(event) = Event::parse(&frame).unwrap() else { continue };
        if let Some(line) = registrations::line(&event) {
            line.append_to(&mut log);
        }
        for refusal in refusals.push(event, now) {
            refusal
                .lines(refusal.sip_account().map_or(Known::Unknown, |account| known(&account)))
                .iter()
                .for_each(|line| line.append_to(&mut log));
        }
    }
    assert_eq!(refusals.overdue(now + PATIENCE), None);
    log
}

#[test]
fn recordings_yield_these_lines() {
    let found: Vec<_> =
        recorded::streams().iter().map(|(name, session)| format!("# {name}\n{}", log(session))).collect();
    assert_eq!(found.concat(), include_str!("../../tests/data/events.log"));
}
