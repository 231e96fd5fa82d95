use std::os::unix::ffi::OsStrExt;

use super::*;

fn args(line: &str) -> Result<Args, clap::Error> {
    Args::try_parse_from(std::iter::once(TOOL).chain(line.split_whitespace()))
}

#[test]
fn the_command_line_is_sound() {
    use clap::CommandFactory;
    Args::command().debug_assert();
}

#[test]
fn two_ways_to_name_an_address() {
    let whom = |id: &str, source: Option<&str>| Whom {
        jail: None,
        source: source.map(|source| source.parse().unwrap()),
        id: id.into(),
    };
    let offender = |whom: Whom| whom.offender().unwrap().unwrap().to_string();
    assert_eq!(offender(whom("1@d", Some("192.0.2.1"))), "1@d,192.0.2.1");
    assert_eq!(offender(whom("1@d,192.0.2.1", None)), "1@d,192.0.2.1");
    assert_eq!(offender(whom("1@d,192.0.2.1", Some("192.0.2.1"))), "1@d,192.0.2.1");
    assert!(whom("1@d,192.0.2.1", Some("192.0.2.2")).offender().is_err());
    let latin1 = Whom { id: std::ffi::OsStr::from_bytes(b"\xfc@d").into(), ..whom("", None) };
    assert_eq!(latin1.offender().unwrap(), Err(NotAnAccount::Encoding));
}

#[test]
fn options_are_not_taken_from_accounts() {
    assert!(args("ban -rf@x").is_err());
    assert!(args("ban -- -rf@x").is_ok());
    assert!(args("ban --jail= --seen-from= --at=1795183743.25 --for=-1 -- 1@d").is_ok());
    for wrong in
        ["ban", "ban 1@d 2@d", "ban --at=x 1@d", "ban --for=0 1@d", "ban --source=x 1@d", "unban --for=1 1@d"]
    {
        assert!(args(wrong).is_err(), "{wrong}");
    }
}
