//! Keeps an address on the allow list for a time.

fn main() -> std::process::ExitCode {
    ringfence::commands::allow::main()
}
