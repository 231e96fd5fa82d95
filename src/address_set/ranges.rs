//! The algebra, over numbers of 32 or 128 bits.

use std::fmt::{self, Debug};
use std::hash::Hash;

use ipnetwork::{Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

/// An address as a number.
pub trait Bits: Copy + Ord + Debug + Hash {
    /// Bits of the number.
    const WIDTH: u8;
    /// The number behind this one.
    fn next(self) -> Option<Self>;
    /// The number before this one.
    fn previous(self) -> Option<Self>;
    /// This number with the low `count` bits cleared.
    #[must_use]
    fn cleared(self, count: u8) -> Self;
    /// This number with the low `count` bits set.
    #[must_use]
    fn filled(self, count: u8) -> Self;
    /// Bits below the lowest set bit; all of them for 0.
    fn low_zeros(self) -> u8;
    /// The largest `n` for which 2^n numbers lie between `self` and `end`, both included.
    fn room(self, end: Self) -> u8;
    /// How many numbers lie between `self` and `end`, both included; stays at the largest value for all of 128 bits.
    fn count(self, end: Self) -> u128;
}

macro_rules! bits {
    ($number:ty, $width:literal) => {
        impl Bits for $number {
            const WIDTH: u8 = $width;

            fn next(self) -> Option<Self> {
                self.checked_add(1)
            }

            fn previous(self) -> Option<Self> {
                self.checked_sub(1)
            }

            fn cleared(self, count: u8) -> Self {
                self & !0.filled(count)
            }

            fn filled(self, count: u8) -> Self {
                self | Self::MAX.checked_shr(u32::from($width - count)).unwrap_or(0)
            }

            fn low_zeros(self) -> u8 {
                u8::try_from(self.trailing_zeros()).unwrap_or($width)
            }

            fn room(self, end: Self) -> u8 {
                let count = (end - self).checked_add(1);
                count.and_then(|count| u8::try_from(count.ilog2()).ok()).unwrap_or($width)
            }

            fn count(self, end: Self) -> u128 {
                u128::from(end - self).saturating_add(1)
            }
        }
    };
}

bits!(u32, 32);
bits!(u128, 128);

/// All numbers from a first to a last, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Range<T> {
    pub(super) start: T,
    pub(super) end: T,
}

/// A network: all numbers that share the first `prefix` bits of `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<T> {
    /// The first number.
    pub start: T,
    /// How many leading bits are shared.
    pub prefix: u8,
}

impl From<Ipv4Network> for Block<u32> {
    fn from(network: Ipv4Network) -> Self {
        Self { start: network.network().into(), prefix: network.prefix() }
    }
}

impl From<Ipv6Network> for Block<u128> {
    fn from(network: Ipv6Network) -> Self {
        Self { start: network.network().into(), prefix: network.prefix() }
    }
}

impl<T: Bits> Range<T> {
    /// `None` if `end` comes before `start`.
    pub fn new(start: T, end: T) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// The network of `prefix` bits around `number`; `None` if there are not so many bits.
    pub fn network(number: T, prefix: u8) -> Option<Self> {
        let free = T::WIDTH.checked_sub(prefix)?;
        Some(Self { start: number.cleared(free), end: number.filled(free) })
    }

    /// The first number.
    pub fn start(&self) -> T {
        self.start
    }

    /// The last number.
    pub fn end(&self) -> T {
        self.end
    }

    /// How many numbers; stays at the largest value for all of 128 bits.
    pub fn count(&self) -> u128 {
        self.start.count(self.end)
    }

    /// The range as one network, if it is one.
    pub fn as_block(&self) -> Option<Block<T>> {
        let (block, rest) = self.split_block();
        rest.is_none().then_some(block)
    }

    /// The largest network at its start, and what is left.
    fn split_block(&self) -> (Block<T>, Option<Self>) {
        let free = self.start.low_zeros().min(self.start.room(self.end));
        let rest = self.start.filled(free).next().and_then(|start| Self::new(start, self.end));
        (Block { start: self.start, prefix: T::WIDTH - free }, rest)
    }
}

/// Ranges in order, none of which overlap or touch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Range<T>>", bound(deserialize = "T: Bits + Deserialize<'de>"))]
pub struct Ranges<T>(Vec<Range<T>>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Stored ranges that are not in order, overlap or touch.
#[derive(Clone, Copy, Debug)]
pub struct Disorder;

impl fmt::Display for Disorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("address ranges are not in order")
    }
}

impl<T: Bits> TryFrom<Vec<Range<T>>> for Ranges<T> {
    type Error = Disorder;

    fn try_from(ranges: Vec<Range<T>>) -> Result<Self, Disorder> {
        let apart = |pair: &[Range<T>]| pair[0].end.next().is_some_and(|next| next < pair[1].start);
        let right = ranges.iter().all(|range| range.start <= range.end) && ranges.windows(2).all(apart);
        if right { Ok(Self(ranges)) } else { Err(Disorder) }
    }
}

impl<T: Bits> Ranges<T> {
    /// From ranges in any order, overlapping or not.
    #[must_use]
    pub fn merge(mut ranges: Vec<Range<T>>) -> Self {
        ranges.sort_unstable_by_key(|range| range.start);
        ranges.dedup_by(|next, last| {
            let joined = last.end.next().is_none_or(|behind| next.start <= behind);
            if joined {
                last.end = last.end.max(next.end);
            }
            joined
        });
        Self(ranges)
    }

    /// The numbers that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        if self.is_empty() || other.is_empty() {
            return if self.is_empty() { other.clone() } else { self.clone() };
        }
        // Two sorted runs: the standard library's stable sort finds them and merges once.
        let mut all = Vec::with_capacity(self.0.len() + other.0.len());
        all.extend_from_slice(&self.0);
        all.extend_from_slice(&other.0);
        all.sort_by_key(|range| range.start);
        Self::merge(all)
    }

    /// The numbers that are in `self` and not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let (mut left, mut cuts) = (self.0.as_slice(), other.0.as_slice());
        let mut out = Vec::with_capacity(left.len());
        while let Some(range) = left.first() {
            cuts = &cuts[before(cuts, range.start)..];
            let untouched = cuts.first().map_or(left.len(), |cut| before(left, cut.start));
            out.extend_from_slice(&left[..untouched]);
            left = &left[untouched..];
            let (Some(range), Some(cut)) = (left.first(), cuts.first()) else { continue };
            if cut.end < range.start {
                continue;
            }
            cut_out(*range, cuts, &mut out);
            left = &left[1..];
        }
        Self(out)
    }

    /// The numbers that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.as_slice(), other.0.as_slice());
        let mut out = Vec::new();
        while let (Some(a), Some(b)) = (left.first(), right.first()) {
            if a.end < b.start {
                left = &left[before(left, b.start)..];
            } else if b.end < a.start {
                right = &right[before(right, a.start)..];
            } else {
                out.push(Range { start: a.start.max(b.start), end: a.end.min(b.end) });
                if a.end < b.end {
                    left = &left[1..];
                } else {
                    right = &right[1..];
                }
            }
        }
        Self(out)
    }

    /// The range that `number` is in.
    #[must_use]
    pub fn around(&self, number: T) -> Option<&Range<T>> {
        self.0.get(before(&self.0, number)).filter(|range| range.start <= number)
    }

    /// Whether there is no number in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<T>> {
        self.0.iter()
    }

    /// How many numbers are in it; stays at the largest value for all of 128 bits.
    #[must_use]
    pub fn addresses(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, range| sum.saturating_add(range.count()))
    }

    /// The smallest list of networks that is equal to it, in order.
    pub fn blocks(&self) -> impl Iterator<Item = Block<T>> {
        self.0.iter().flat_map(|range| {
            let mut rest = Some(*range);
            std::iter::from_fn(move || {
                let (block, left) = rest?.split_block();
                rest = left;
                Some(block)
            })
        })
    }
}

/// Puts what of `range` is in none of `cuts` behind `out`. `cuts` are in order, and the first ends in or behind it.
fn cut_out<T: Bits>(range: Range<T>, cuts: &[Range<T>], out: &mut Vec<Range<T>>) {
    let mut start = range.start;
    for cut in cuts.iter().take_while(|cut| cut.start <= range.end) {
        let before = cut.start.previous().and_then(|end| Range::new(start, end));
        out.extend(before);
        match cut.end.next() {
            Some(next) => start = next,
            None => return,
        }
    }
    out.extend(Range::new(start, range.end));
}

/// How many of `ranges` end before `number`. Doubling steps first: few are asked where the answer is near.
fn before<T: Bits>(ranges: &[Range<T>], number: T) -> usize {
    let ends_before = |range: &Range<T>| range.end < number;
    let mut step = 1;
    while step < ranges.len() && ends_before(&ranges[step - 1]) {
        step *= 2;
    }
    let (low, high) = (step / 2, step.min(ranges.len()));
    low + ranges[low..high].partition_point(ends_before)
}
