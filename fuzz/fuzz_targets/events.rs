//! Any bytes from an event socket: however they are cut, the frames and events are the same; and whatever an event says, the log
//! gets whole lines that read as they were written, and nothing that could be taken for something else.

#![no_main]

use std::time::Instant;

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use ringfence::event_socket::frames::{Frame, Frames};
use ringfence::events::event::{Event, Party};
use ringfence::events::line::{Account, Client, Entry, Known, Line, MAX_LINE, Text, Time};
use ringfence::events::refusals::{PATIENCE, Refusals};
use ringfence::events::registrations;

const LIMIT: usize = 1 << 16;

fuzz_target!(|data: &[u8]| {
    let frames = frames([data]);
    assert_eq!(frames, self::frames(data.chunks(1)));
    let forms = ["json", "plain"].map(|form| Frame {
        content_type: format!("text/event-{form}"),
        reply: String::new(),
        body: data.to_vec(),
    });
    let events: Vec<Event> =
        frames.iter().chain(&forms).filter_map(|frame| Event::parse(frame).ok().flatten()).collect();
    let now = Instant::now();
    let mut refusals = Refusals::default();
    for event in events {
        registrations::line(&event).iter().for_each(check);
        let told = refusals.push(event, now);
        assert!(told.len() <= 1);
        told.iter().flat_map(|refusal| refusal.lines(Known::Yes)).for_each(|line| check(&line));
    }
    while let Some(refusal) = refusals.overdue(now + PATIENCE) {
        refusal.lines(Known::Yes).iter().for_each(check);
    }
    assert_eq!(refusals.due(), None);

    let (user, host) = data.split_at(data.len() / 2);
    let account = Account::from(&Party { user: user.to_vec(), host: host.to_vec() });
    let client = Client { profile: Text::new(host), agent: Text::new(data) };
    let time = Time::from(Timestamp::UNIX_EPOCH);
    check(&Line { time, entry: Entry::Expire { address: None, account, client } });

    if let Ok(line) = Line::parse(data) {
        assert_eq!(line.to_string().as_bytes(), data);
    }
});

fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Frame> {
    let (mut decoder, mut frames) = (Frames::new(LIMIT), vec![]);
    for piece in pieces {
        decoder.push(piece);
        while let Ok(Some(frame)) = decoder.next() {
            frames.push(frame);
        }
    }
    frames
}

fn check(line: &Line) {
    let mut log = String::new();
    line.append_to(&mut log);
    assert!(log.len() <= MAX_LINE, "{log}");
    let text = log.strip_suffix('\n').unwrap();
    assert!(
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-%@,:=~ ".contains(&byte)),
        "{text}"
    );
    assert_eq!(Line::parse(text.as_bytes()).as_ref(), Ok(line), "{text}");
}
