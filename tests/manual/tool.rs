//! What a tool's definition of its command line says of its page: NAME, SYNOPSIS, COMMANDS, OPTIONS.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::roff::{COPIABLE, bold, italic, literal, prose};

/// A repeated text that is longer than this is given once.
const SHORT: usize = 80;

/// The sections that come first.
pub fn beginning(tool: &Command) -> String {
    let about = tool.get_about().unwrap().to_string();
    let name = tool.get_name();
    let mut text =
        format!(".SH NAME\n{} \\- {}\n.SH SYNOPSIS\n", literal(name), literal(&uncapitalized(&about)));
    if !tool.has_subcommands() {
        synopsis(&mut text, name, tool, tool);
    }
    for command in commands(tool) {
        synopsis(&mut text, &format!("{name} {}", command.get_name()), tool, command);
    }
    // A synopsis ends both.
    text.push_str(COPIABLE);
    text
}

/// Each command, with its options; what `tool` has for all of them comes in [`options`].
pub fn all_commands(tool: &Command) -> String {
    let mut text = ".SH COMMANDS\n".to_owned();
    let mut told: Vec<((String, String), &str)> = vec![];
    for command in commands(tool) {
        let mut heading = bold(command.get_name());
        for arg in own(command).filter(|arg| arg.is_positional()) {
            let _ = write!(heading, " {}", usage(arg));
        }
        let _ = writeln!(text, ".SS \"{}\"", heading.replace('"', "\\(dq"));
        let values = values(command);
        let about = command.get_long_about().or(command.get_about()).unwrap().to_string();
        let paragraphs: Vec<_> = about.split("\n\n").map(|paragraph| prose(paragraph, &values)).collect();
        let _ = writeln!(text, "{}", paragraphs.join("\n.PP\n"));
        let (positional, named): (Vec<_>, Vec<_>) = own(command).partition(|arg| arg.is_positional());
        for arg in positional.into_iter().chain(named) {
            let (tag, body) = (tag(arg), meaning(arg, &values));
            let first = told.iter().find(|(entry, _)| *entry == (tag.clone(), body.clone()));
            match first {
                Some((_, first)) if body.len() > SHORT => {
                    let _ = writeln!(text, ".TP\n{tag}\nAs with {}.", bold(first));
                }
                _ => {
                    let _ = writeln!(text, ".TP\n{tag}\n{body}");
                    told.push(((tag, body), command.get_name()));
                }
            }
        }
    }
    text
}

/// The options of a tool without commands, or those that all its commands have.
pub fn options(tool: &Command) -> String {
    let values = values(tool);
    let mut text = ".SH OPTIONS\n".to_owned();
    for arg in tool.get_arguments().filter(|arg| !arg.is_hide_set()) {
        let _ = writeln!(text, ".TP\n{}\n{}", tag(arg), meaning(arg, &values));
    }
    text
}

fn commands(tool: &Command) -> impl Iterator<Item = &Command> {
    tool.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
}

/// What is this command's alone.
fn own(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| {
        !arg.is_hide_set() && !arg.is_global_set() && !matches!(arg.get_id().as_str(), "help" | "version")
    })
}

/// One line of the synopsis; what excludes each other is in one pair of brackets.
fn synopsis(text: &mut String, name: &str, tool: &Command, command: &Command) {
    let _ = writeln!(text, ".SY \"{}\"", literal(name));
    let (positional, mut args): (Vec<_>, Vec<_>) = own(command).partition(|arg| arg.is_positional());
    args.extend(tool.get_arguments().filter(|arg| arg.is_global_set()));
    args.extend(positional);
    while !args.is_empty() {
        let first = args.remove(0);
        let (either, rest): (Vec<_>, Vec<_>) = args.into_iter().partition(|arg| exclude(command, first, arg));
        args = rest;
        if either.is_empty() {
            let _ = writeln!(text, "{}", usage(first));
        } else {
            let all: Vec<_> = [first].into_iter().chain(either).map(bare).collect();
            let _ = writeln!(text, "[{}]", all.join("\\~|\\~"));
        }
    }
    text.push_str(".YS\n");
}

/// Whether only one of two may be given.
fn exclude(command: &Command, one: &Arg, other: &Arg) -> bool {
    let names = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    names(one, other) || names(other, one)
}

/// An argument as it is in a synopsis, in brackets where it may be left out.
fn usage(arg: &Arg) -> String {
    let mut usage = bare(arg);
    if !arg.is_required_set() {
        usage = format!("[{usage}]");
    }
    if matches!(arg.get_action(), ArgAction::Append) {
        usage.push_str("...\\&");
    }
    usage
}

fn bare(arg: &Arg) -> String {
    spelled(arg, "\\~|\\~").replace(' ', "\\~")
}

/// An argument as what is said of it begins.
fn tag(arg: &Arg) -> String {
    spelled(arg, ", ")
}

fn spelled(arg: &Arg, or: &str) -> String {
    if arg.is_positional() {
        return italic(&value(arg));
    }
    let long = arg.get_long().map(|long| bold(&format!("--{long}")));
    let short = arg.get_short().map(|short| bold(&format!("-{short}")));
    let name = [short, long].into_iter().flatten().collect::<Vec<_>>().join(or);
    if arg.get_action().takes_values() { format!("{name} {}", italic(&value(arg))) } else { name }
}

/// What is put in place of its value.
fn value(arg: &Arg) -> String {
    arg.get_value_names().map_or_else(|| arg.get_id().as_str().to_uppercase(), |names| names[0].to_string())
}

/// The names of all values that a command's help may speak of.
fn values(command: &Command) -> Vec<String> {
    command.get_arguments().filter(|arg| arg.get_action().takes_values()).map(value).collect()
}

/// What an argument does.
fn meaning(arg: &Arg, values: &[String]) -> String {
    match arg.get_id().as_str() {
        "help" => return prose("Print help; `-h` is the summary", &[]),
        "version" => return prose("Print the version", &[]),
        _ => {}
    }
    let help =
        arg.get_long_help().or(arg.get_help()).unwrap_or_else(|| panic!("{arg} has no help")).to_string();
    // The first has no full stop.
    let paragraphs: Vec<_> = help.split("\n\n").map(|paragraph| paragraph.trim_end_matches('.')).collect();
    let (mut text, mut default) = (paragraphs.join(". "), None);
    // Where it is not a fixed one, the help has it in words.
    if let Some((before, rest)) = text.clone().split_once(" [default: ")
        && let Some((written, after)) = rest.split_once(']')
    {
        default = Some(written.to_owned());
        text = format!("{before}{after}");
    }
    if arg.get_action().takes_values() {
        let names: Vec<_> = arg
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| value.get_name().to_owned())
            .collect();
        if !names.is_empty() {
            text = format!("{text}: {}", names.join(", "));
        }
        let fixed: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        if !fixed.is_empty() {
            default = Some(fixed.join(" "));
        }
    }
    if let Some(default) = default {
        text = format!("{text}. Default: {default}");
    }
    prose(&text, values)
}

fn uncapitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}
