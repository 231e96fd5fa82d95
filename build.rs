//! Builds the kernel program, where clang is there; else the one that was built before is taken, and that is said. What clang does not
//! compile is an error: what was built before would be something else than the sources.

use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCES: [&str; 2] = ["bpf/ringfence.c", "bpf/kernel.h"];

/// What the sources gave; a test compares it.
const BUILT: &str = "bpf/ringfence.o";

fn main() {
    for path in SOURCES.into_iter().chain([BUILT, "build.rs"]) {
        println!("cargo::rerun-if-changed={path}");
    }
    for name in ["CLANG", "LLVM_STRIP"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let to = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where")).join("ringfence.o");
    let compiler = match Compiler::find() {
        Ok(compiler) => {
            if let Err(error) = compiler.compile(&to) {
                panic!(
                    "{error}\nWith CLANG=none, the kernel program is taken from {BUILT}, as it was built before."
                );
            }
            compiler.version
        }
        Err(absence) => {
            let absence = absence.lines().next().unwrap_or_default();
            println!(
                "cargo::warning={absence}; the kernel program is taken from {BUILT}, as it was built before"
            );
            std::fs::copy(BUILT, &to).unwrap_or_else(|error| panic!("{BUILT}: {error}"));
            String::new()
        }
    };
    println!("cargo::rustc-env=RINGFENCE_CLANG={compiler}");
}

/// A clang that runs.
struct Compiler {
    clang: String,
    version: String,
}

impl Compiler {
    fn find() -> Result<Self, String> {
        let clang = program("CLANG", "clang");
        let version = run(Command::new(&clang).arg("-dumpversion"), &clang)?;
        Ok(Self { clang, version: version.trim().to_owned() })
    }

    /// Compiles the program. An error is one of the sources, or of a clang that does not know the kernel's machine.
    fn compile(&self, to: &Path) -> Result<(), String> {
        // Where it is built does not show in what is built.
        let mut compile = Command::new(&self.clang);
        compile
            .current_dir("bpf")
            .args(["-target", "bpfel", "-mcpu=v3", "-O2", "-g", "-Wall", "-Wextra", "-Werror"]);
        compile.args(["-fdebug-compilation-dir=.", "-c", "ringfence.c", "-o"]).arg(to);
        run(&mut compile, &self.clang)?;
        // For the kernel, the description of types (BTF) is enough. What is for debuggers does no harm.
        let strip = program("LLVM_STRIP", "llvm-strip");
        let _ = run(Command::new(&strip).arg("--strip-debug").arg(to), &strip);
        Ok(())
    }
}

fn program(variable: &str, usual: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| usual.to_owned())
}

fn run(command: &mut Command, name: &str) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{name}: {error}"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{name} failed: {}", stderr.trim_end()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
