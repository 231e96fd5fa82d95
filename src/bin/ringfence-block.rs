//! Blocks one SIP account in the kernel, and lets it go again.

fn main() -> std::process::ExitCode {
    ringfence::commands::block::main()
}
