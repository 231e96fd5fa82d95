//! Black- and whitelists that never hurt the host: downloads, checks and loads them.

fn main() -> std::process::ExitCode {
    ringfence::commands::lists::main()
}
