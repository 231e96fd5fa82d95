//! Puts the base rules into the kernel, in their order, and takes them back if nobody confirms them.

fn main() -> std::process::ExitCode {
    ringfence::commands::firewall::main()
}
