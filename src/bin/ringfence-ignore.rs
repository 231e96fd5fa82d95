//! fail2ban's `ignorecommand`: exit 0 when the address must not be banned.

fn main() -> std::process::ExitCode {
    ringfence::commands::ignore::main()
}
