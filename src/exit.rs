//! What a tool's exit status says; the same three answers in every tool.

use std::process::ExitCode;

/// The answer of a tool as its exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, yes, keep.
    Yes,
    /// 1: no, refused, kept the old.
    No,
    /// 2: the command line is wrong, or the tool is broken.
    Broken,
}

impl Exit {
    /// The number a shell or fail2ban sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Yes => 0,
            Self::No => 1,
            Self::Broken => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
