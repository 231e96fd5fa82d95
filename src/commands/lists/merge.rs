//! `ringfence-lists merge`: the smallest equal list.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::address_set::Builder;
use crate::address_set::text::{self, Line};
use crate::evidence::visible;
use crate::exit::Exit;

/// So many lines that cannot be read are shown.
const SHOWN: usize = 10;

/// The command line of `merge`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Files to read; none, or -, is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<Exit> {
    let stdin = [PathBuf::from("-")];
    let files = if args.files.is_empty() { &stdin[..] } else { &args.files };
    let mut builder = Builder::default();
    let mut bad = 0;
    for file in files {
        let mut content = Vec::new();
        let name = open(file)
            .and_then(|(name, mut file)| file.read_to_end(&mut content).map(|_| name))
            .with_context(|| format!("cannot read {}", file.display()))?;
        for (number, line) in text::lines(&content) {
            match line {
                Line::Range(range) => builder.add(range),
                Line::Other(text) => {
                    bad += 1;
                    if bad <= SHOWN {
                        let text: String = visible(&String::from_utf8_lossy(text)).chars().take(60).collect();
                        complain(&format!("{name}:{number}: {text:?} is no address, network or range"));
                    }
                }
            }
        }
    }
    if bad > 0 {
        complain(&format!("{bad} {} left out", if bad == 1 { "line" } else { "lines" }));
    }
    let mut out = io::stdout().lock();
    text::write(&builder.build(), &mut out)?;
    out.flush()?;
    Ok(if bad == 0 { Exit::Yes } else { Exit::No })
}

fn complain(text: &str) {
    // Nobody may be listening any more.
    let _ = writeln!(io::stderr(), "{}: {text}", super::TOOL);
}

fn open(path: &Path) -> io::Result<(String, Box<dyn Read>)> {
    Ok(if path == Path::new("-") {
        ("(standard input)".to_owned(), Box::new(io::stdin().lock()))
    } else {
        (path.display().to_string(), Box::new(File::open(path)?))
    })
}
