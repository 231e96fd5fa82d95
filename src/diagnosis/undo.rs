//! What undoes a block, as a command that can be pasted, and as what a program does.

use std::fmt::Write;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::Serialize;

use crate::account::Offender;
use crate::address;
use crate::evidence::visible;
use crate::firewall::Banned;
use crate::firewall::native::Refusal;

/// One step that undoes a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Undo {
    /// What it does, for people.
    pub what: String,
    /// The command, as arguments.
    pub argv: Vec<String>,
    /// Who else goes free by it, in words; nothing: nobody.
    pub also: Option<String>,
    /// The same, for a program of ours.
    #[serde(skip)]
    pub act: Act,
}

/// What a program of ours does instead of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// fail2ban lets an id of a jail go.
    Unban {
        /// The jail.
        jail: String,
        /// As fail2ban has it.
        id: String,
    },
    /// `ringfence-ban` takes a network out of the jail's sets.
    TakeOut {
        /// The jail.
        jail: String,
        /// As it is in the set.
        network: IpNetwork,
    },
    /// `ringfence-block` lets an offender go.
    Unblock(Offender),
    /// A rule of fail2ban's or `event_guard`'s is taken away.
    Delete(Banned),
    /// A rule of `event_guard`'s in a table of nftables is taken away, which refuses this address.
    DeleteRule {
        /// The rule.
        refusal: Refusal,
        /// Whom.
        address: IpAddr,
    },
    /// An address is taken out of a set of nftables', as `inet f2b-table` and its name.
    DeleteElement {
        /// Family and name.
        table: String,
        /// The set.
        set: String,
        /// Whom.
        address: IpAddr,
    },
    /// The address is taken out of a set of those that exceeded a limit.
    Forget {
        /// The set.
        set: String,
        /// As it is in there.
        network: IpNetwork,
    },
    /// The address is allowed for a time.
    Allow,
    /// Nothing: only the administrator can know whether he may.
    ByHand,
}

impl Undo {
    /// A command that does something.
    #[must_use]
    pub fn new<T: Into<String>>(
        what: impl Into<String>,
        argv: impl IntoIterator<Item = T>,
        act: Act,
    ) -> Self {
        Self { what: what.into(), argv: argv.into_iter().map(Into::into).collect(), also: None, act }
    }

    /// The same where it is done to a network: for one address, that is more than was asked for.
    #[must_use]
    pub(super) fn of_network(self, network: IpNetwork) -> Self {
        let also = address::single(network).is_none().then(|| size(network));
        Self { also, ..self }
    }

    /// Whether `ringfence release` does it: it frees nobody else, and needs no administrator to decide.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.act != Act::ByHand && self.also.is_none()
    }

    /// As it is pasted into a shell.
    #[must_use]
    pub fn line(&self) -> String {
        command_line(&self.argv)
    }
}

/// A network and its size, in words.
pub(super) fn size(network: IpNetwork) -> String {
    let bits = if network.is_ipv4() { 32 } else { 128 } - network.prefix();
    match bits {
        0..=20 => format!("{network}, {} addresses", 1_u32 << bits),
        _ => format!("{network}, 2^{bits} addresses"),
    }
}

/// A line for a shell that runs the program with exactly these arguments. It is safe to print: what steers a terminal is written as
/// bash's `$'\u202e'`.
#[must_use]
pub fn command_line(argv: &[String]) -> String {
    argv.iter().map(|argument| quoted(argument)).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@,+%=".contains(c);
    if !argument.is_empty() && argument.chars().all(plain) {
        return argument.to_owned();
    }
    if visible(argument) == argument {
        return format!("'{}'", argument.replace('\'', r"'\''"));
    }
    let mut text = "$'".to_owned();
    for c in argument.chars() {
        match c {
            '\'' | '\\' => text.extend(['\\', c]),
            c if visible(c.encode_utf8(&mut [0; 4])).chars().eq([c]) => text.push(c),
            c => {
                let _ = write!(text, "\\u{:04x}", u32::from(c));
            }
        }
    }
    text + "'"
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_shell_gets_exactly_the_arguments() {
        for (argument, line) in [
            ("203.0.113.7", "203.0.113.7"),
            ("101@d,203.0.113.7", "101@d,203.0.113.7"),
            ("", "''"),
            ("o'neil@d", r"'o'\''neil@d'"),
            ("$(touch x)@d", "'$(touch x)@d'"),
            ("a b*;&|<>`~!#@d", "'a b*;&|<>`~!#@d'"),
            ("\u{202e}'x\\@d", r"$'\u202e\'x\\@d'"),
        ] {
            assert_eq!(quoted(argument), line);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]
        #[test]
        fn bash_reads_back_what_was_quoted(arguments in prop::collection::vec("[^\0]{0,12}", 1..4)) {
            let line = command_line(&arguments);
            prop_assert!(!line.contains(|c: char| c.is_control()));
            let script = format!("printf '%s\\0' {line}");
            let output = Command::new("bash").args(["-c", &script]).env("LC_ALL", "C.UTF-8").output().unwrap();
            let expected: String = arguments.iter().flat_map(|argument| [argument.as_str(), "\0"]).collect();
            prop_assert_eq!(String::from_utf8(output.stdout).unwrap(), expected, "{}", script);
        }
    }
}
