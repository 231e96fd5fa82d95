//! Writes down what FreeSWITCH tells of registrations and logins.

fn main() -> std::process::ExitCode {
    ringfence::commands::events::main()
}
