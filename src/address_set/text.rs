//! Addresses, networks and ranges as text, one to a line; fast in both directions.
//!
//! Accepted are an address, `address/prefix` (bits behind the prefix are cleared) and `first-last`, of IPv4 or
//! IPv6, with white space around. Not accepted are octal or shortened IPv4 (`010.0.0.1`, `10.1`), zone ids,
//! ports, brackets, net masks, host names.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{AddressRange, AddressSet, Range};

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// One of the accepted forms.
    Range(AddressRange),
    /// None of them.
    Other(&'a [u8]),
}

/// The lines of a list with their numbers, from 1 on, without those that are blank. `#` and `;` start a comment,
/// also behind an entry; a line ends with LF or CRLF; a byte order mark is passed over.
#[must_use]
pub fn lines(text: &[u8]) -> Lines<'_> {
    Lines { rest: text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text), number: 0 }
}

/// Made by [`lines`].
#[derive(Debug)]
pub struct Lines<'a> {
    rest: &'a [u8],
    number: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, Line<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while !self.rest.is_empty() {
            self.number += 1;
            // Nearly every line of a list is one IPv4 address or network and nothing else.
            if let Some((range, length)) = leading_v4(self.rest)
                && let Some(end @ (b"\n" | b"")) = self.rest.get(length..(length + 1).min(self.rest.len()))
            {
                self.rest = &self.rest[length + end.len()..];
                return Some((self.number, Line::Range(AddressRange::V4(range))));
            }
            let end = memchr::memchr(b'\n', self.rest);
            let line = &self.rest[..end.unwrap_or(self.rest.len())];
            self.rest = end.map_or(&[], |end| &self.rest[end + 1..]);
            let comment = memchr::memchr2(b'#', b';', line);
            let entry = line[..comment.unwrap_or(line.len())].trim_ascii();
            if !entry.is_empty() {
                return Some((self.number, range(entry).map_or(Line::Other(entry), Line::Range)));
            }
        }
        None
    }
}

/// One address, network or range without anything around it.
#[must_use]
pub fn range(text: &[u8]) -> Option<AddressRange> {
    if let Some((range, length)) = leading_v4(text)
        && length == text.len()
    {
        return Some(AddressRange::V4(range));
    }
    // No form is longer than two IPv6 addresses with an embedded IPv4 address each.
    let text = std::str::from_utf8(text).ok().filter(|text| text.len() <= 100)?;
    if let Some((first, last)) = text.split_once('-') {
        return AddressRange::between(address(first.trim_ascii_end())?, address(last.trim_ascii_start())?);
    }
    match text.split_once('/') {
        Some((network, bits)) => AddressRange::network(address(network)?, prefix(bits)?),
        None => address(text).map(AddressRange::from),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn prefix(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

/// The IPv4 address or network that `text` starts with, and its length.
fn leading_v4(text: &[u8]) -> Option<(Range<u32>, usize)> {
    let mut bits = 0;
    let mut at = 0;
    for part in 0..4 {
        if part > 0 {
            if text.get(at) != Some(&b'.') {
                return None;
            }
            at += 1;
        }
        let (number, length) = leading_number(&text[at..])?;
        bits = bits << 8 | u32::from(number);
        at += length;
    }
    if text.get(at) != Some(&b'/') {
        return Some((Range { start: bits, end: bits }, at));
    }
    let (prefix, length) = leading_number(&text[at + 1..])?;
    Some((Range::network(bits, prefix)?, at + 1 + length))
}

/// The number of one to three digits, without leading zeros, that `text` starts with, and its length.
fn leading_number(text: &[u8]) -> Option<(u8, usize)> {
    let digit = |at: usize| text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10);
    let first = digit(0)?;
    let Some(second) = digit(1) else { return Some((first, 1)) };
    if first == 0 {
        return None;
    }
    let two = first * 10 + second;
    let Some(third) = digit(2) else { return Some((two, 2)) };
    let three = u16::from(two) * 10 + u16::from(third);
    // A fourth digit is left to whoever looks behind: no form goes on with one.
    u8::try_from(three).ok().map(|three| (three, 3))
}

/// Writes the smallest equal list of networks, a line each, in order, IPv4 first. A single address is written
/// without its prefix.
pub fn write(set: &AddressSet, out: &mut impl Write) -> std::io::Result<()> {
    let mut lines = Vec::with_capacity(FLUSH + 64);
    for block in set.v4.blocks() {
        push_v4(&mut lines, block.start);
        if block.prefix < 32 {
            lines.push(b'/');
            push_number(&mut lines, block.prefix);
        }
        lines.push(b'\n');
        flush(&mut lines, FLUSH, out)?;
    }
    for block in set.v6.blocks() {
        let address = Ipv6Addr::from(block.start);
        if block.prefix < 128 {
            writeln!(lines, "{address}/{}", block.prefix)?;
        } else {
            writeln!(lines, "{address}")?;
        }
        flush(&mut lines, FLUSH, out)?;
    }
    flush(&mut lines, 1, out)
}

const FLUSH: usize = 1 << 16;

fn flush(lines: &mut Vec<u8>, at_least: usize, out: &mut impl Write) -> std::io::Result<()> {
    if lines.len() >= at_least {
        out.write_all(lines)?;
        lines.clear();
    }
    Ok(())
}

fn push_v4(out: &mut Vec<u8>, bits: u32) {
    let [a, b, c, d] = Ipv4Addr::from(bits).octets();
    push_number(out, a);
    for part in [b, c, d] {
        out.push(b'.');
        push_number(out, part);
    }
}

fn push_number(out: &mut Vec<u8>, number: u8) {
    if number >= 100 {
        out.push(b'0' + number / 100);
    }
    if number >= 10 {
        out.push(b'0' + number / 10 % 10);
    }
    out.push(b'0' + number % 10);
}
