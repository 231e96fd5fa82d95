//! Decisions that were taken back.

use serde::Serialize;

use crate::evidence::Decision;

/// How a decision was taken back, or not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reversal {
    /// A ban that ended before its time.
    LetGoEarly,
    /// Somebody lifted a block of an account by hand.
    UnblockedByHand,
    /// Somebody released an address or an account from all that blocked it.
    Released,
    /// All blocks of a jail, at once.
    Flushed,
    /// The account that did not exist was made.
    AccountExists,
    /// The device that failed is registered.
    Registered,
    /// A block turned out to be part of an alarm.
    Suspended,
    /// Somebody took an allowance back.
    AllowanceWithdrawn,
    /// A list would have blocked somebody who must not be.
    CutOut,
    /// A failure that was part of an alarm.
    Excused,
}

impl Reversal {
    /// The one that a decision is; a ban that ends says nothing about its time.
    pub(super) fn of(decision: &Decision) -> Option<Self> {
        let Decision { tool, decision, reason, .. } = decision;
        Some(match (tool.as_str(), decision.as_str(), reason.as_str()) {
            ("ringfence-block", "unblock", "by-hand") => Self::UnblockedByHand,
            ("ringfence-block", "unblock", "account-exists") => Self::AccountExists,
            ("ringfence-block", "unblock", "registered") => Self::Registered,
            ("ringfence-block", "unblock", "suspended") => Self::Suspended,
            ("ringfence-block", "flush", _) => Self::Flushed,
            ("ringfence-allow", "remove", "by-hand") => Self::AllowanceWithdrawn,
            ("ringfence-lists", "cut-out", _) => Self::CutOut,
            ("ringfence", "release", "by-hand" | "released-in-part") => Self::Released,
            _ => return None,
        })
    }

    /// In a sentence without its end.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::LetGoEarly => "Ban lifted before its time",
            Self::UnblockedByHand => "Account block lifted by hand",
            Self::Released => "Released by the administrator",
            Self::Flushed => "All blocks of a jail lifted at once",
            Self::AccountExists => "Account block ended: the account exists now",
            Self::Registered => "Device block ended: the device is registered",
            Self::Suspended => "Block withdrawn: part of an alarm",
            Self::AllowanceWithdrawn => "Allowance taken back by hand",
            Self::CutOut => "Cut out of a block list that named a protected address",
            Self::Excused => "Failure excused: part of an alarm",
        }
    }
}
