//! From ranges in any order, overlapping or not, to the sorted, disjoint ones that can be searched.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Entry, Record};

/// Sorted, disjoint records of both families that cover exactly the addresses of `entries`. Where
/// several overlap, the later stamp and then the lower label counts.
pub(super) fn disjoint(entries: impl IntoIterator<Item = Entry>) -> (Vec<Record>, Vec<Record>) {
    let (mut v4, mut v6) = (Vec::new(), Vec::new());
    for Entry { start, end, stamp, label } in entries {
        match (start, end) {
            (IpAddr::V4(start), IpAddr::V4(end)) => v4.push(Record {
                start: u128::from(u32::from(start)),
                end: u128::from(u32::from(end)),
                stamp,
                label,
            }),
            (IpAddr::V6(start), IpAddr::V6(end)) => {
                v6.push(Record { start: u128::from(start), end: u128::from(end), stamp, label });
            }
            _ => unreachable!("both ends of an entry are of one family"),
        }
    }
    (sweep(v4), sweep(v6))
}

/// One pass over the ranges from left to right; those that cover the point reached are kept in the order in
/// which they count, of equals the longest first.
///
/// Pieces of a range that was cut are joined again; ranges that only touch are not.
fn sweep(mut ranges: Vec<Record>) -> Vec<Record> {
    ranges.sort_unstable_by_key(|range| (range.start, range.end));
    if ranges.windows(2).all(|pair| pair[0].end < pair[1].start) {
        return ranges;
    }
    let mut done: Vec<Record> = Vec::with_capacity(ranges.len());
    let mut open: BTreeSet<(Reverse<u32>, u16, Reverse<u128>)> = BTreeSet::new();
    let mut coming = ranges.into_iter().peekable();
    let mut at = 0;
    let mut cut = false;
    loop {
        if open.is_empty() {
            let Some(range) = coming.peek() else { return done };
            at = range.start;
        }
        while let Some(range) = coming.next_if(|range| range.start <= at) {
            open.insert((Reverse(range.stamp), range.label, Reverse(range.end)));
        }
        let &(Reverse(stamp), label, Reverse(whole)) = open.first().expect("a range covers this point");
        // It counts up to its own end, or until a range begins that may count for more.
        let end = coming.peek().map_or(whole, |next| whole.min(next.start - 1));
        match done.last_mut() {
            Some(last) if cut && last.label == label && last.stamp == stamp => last.end = end,
            _ => done.push(Record { start: at, end, stamp, label }),
        }
        cut = end < whole;
        open.retain(|range| range.2.0 > end);
        match end.checked_add(1) {
            Some(next) => at = next,
            None => return done,
        }
    }
}
