//! Any bytes as the body of a feed, in each of the forms that feeds have, packed or not: nothing panics, nothing grows beyond
//! what is allowed, no more is taken than there are lines, and what is shown of it does no harm.

#![no_main]

use bytesize::ByteSize;
use libfuzzer_sys::fuzz_target;
use ringfence::config::lists::Format;
use ringfence::feeds::body;
use ringfence::feeds::format::{self, Parsed, Wide};
use ringfence::feeds::secrets::Secrets;

const LIMIT: ByteSize = ByteSize::kib(64);
const SECRET: &str = "sekret";

fuzz_target!(|data: &[u8]| {
    let Ok(content) = body::unpack(data, LIMIT) else { return };
    let mut secrets = Secrets::default();
    secrets.add(SECRET);
    assert!(content.len() <= data.len().max(1 << 16));
    for format in [Format::Plain, Format::Spamhaus, Format::Dshield, Format::Apiban] {
        for wide in [Wide::Taken, Wide::LeftOut] {
            let Ok(parsed) = format::parse(format, &content, wide) else { continue };
            let Parsed { set, lines, bad, wide: left_out } = &parsed;
            assert!(bad.count + left_out.count <= *lines);
            assert!(set.ranges().count() <= lines - bad.count - left_out.count);
            assert!(wide == Wide::LeftOut || left_out.count == 0);
            assert!(*lines <= content.iter().filter(|byte| **byte == b'\n').count() + 1);
            let shown = bad.shown(&secrets) + &left_out.shown(&secrets);
            assert!(!shown.contains(char::is_control) && !shown.contains(SECRET), "{shown}");
        }
    }
});
