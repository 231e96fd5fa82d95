//! `ringfence completions`: what a shell needs to complete our command lines, from their definitions.

use std::io::{self, Write as _};

use clap::builder::PossibleValuesParser;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;

use crate::commands::{allow, ban, block, events, firewall, ignore, lists};
use crate::exit::Exit;

/// The command line of `completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which shell
    shell: Shell,

    /// Which of our tools
    #[arg(default_value = super::TOOL, value_parser = PossibleValuesParser::new(TOOLS.map(|(name, _)| name)))]
    tool: String,
}

/// A tool's name, and its command line.
type Tool = (&'static str, fn() -> Command);

/// All our tools.
const TOOLS: [Tool; 8] = [
    (super::TOOL, super::Args::command),
    ("ringfence-allow", allow::Args::command),
    ("ringfence-ban", ban::Args::command),
    ("ringfence-block", block::Args::command),
    ("ringfence-events", events::Args::command),
    ("ringfence-firewall", firewall::Args::command),
    ("ringfence-ignore", ignore::Args::command),
    ("ringfence-lists", lists::Args::command),
];

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    io::stdout().lock().write_all(&script(args.shell, &args.tool))?;
    Ok(Exit::Yes)
}

fn script(shell: Shell, tool: &str) -> Vec<u8> {
    let mut script = vec![];
    for (name, command) in TOOLS.iter().filter(|(name, _)| *name == tool) {
        clap_complete::generate(shell, &mut command(), *name, &mut script);
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_is_called_as_its_script_says() {
        for (name, command) in TOOLS {
            assert_eq!(command().get_name(), name);
            for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
                let script = String::from_utf8(script(shell, name)).unwrap();
                for command in command().get_subcommands().filter(|command| !command.is_hide_set()) {
                    assert!(script.contains(command.get_name()), "{name} {shell}: {}", command.get_name());
                }
                assert!(script.contains(name), "{name} {shell}");
            }
        }
    }
}
