//! Text that packets have in them, as `-m string` looks for it.

use std::fmt;

/// Whether `A` is `a`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// It is not.
    Heeded,
    /// It is.
    Ignored,
}

/// Text in a packet, of at most 127 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Pattern<'a> {
    text: &'a str,
    case: Case,
    absent: bool,
    within: Option<(u16, u16)>,
}

impl<'a> Pattern<'a> {
    /// Anywhere in the packet.
    #[must_use]
    pub const fn new(text: &'a str, case: Case) -> Self {
        Self { text, case, absent: false, within: None }
    }

    /// The packet must not have it.
    #[must_use]
    pub const fn absent(self) -> Self {
        Self { absent: true, ..self }
    }

    /// Only between these bytes, counted from the packet's IP header.
    #[must_use]
    pub const fn within(self, from: u16, to: u16) -> Self {
        Self { within: Some((from, to)), ..self }
    }
}

impl fmt::Display for Pattern<'_> {
    /// In hexadecimal: whatever stands in it, nobody takes it for anything else.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("-m string --algo bm")?;
        if let Some((from, to)) = self.within {
            write!(f, " --from {from} --to {to}")?;
        }
        if self.case == Case::Ignored {
            f.write_str(" --icase")?;
        }
        if self.absent {
            f.write_str(" !")?;
        }
        f.write_str(" --hex-string \"|")?;
        for byte in self.text.bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str("|\"")
    }
}
