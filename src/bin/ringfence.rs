//! The administrator's tool: who fails, and why.

fn main() -> std::process::ExitCode {
    ringfence::commands::ringfence::main()
}
