//! Holds fail2ban's bans in the kernel.

fn main() -> std::process::ExitCode {
    ringfence::commands::ban::main()
}
