//! Name servers, resolv.conf(5).

use std::io;
use std::path::Path;

use super::{Gathered, address, quoted};
use crate::state_file;

/// No such file is longer.
const MAX_LENGTH: u64 = 1 << 20;

/// Takes in the servers that a file names; a file that is not there names none.
pub(super) fn read(file: &Path, found: &mut Gathered) {
    let content = match state_file::read_regular(file, MAX_LENGTH) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            found.problems.push(format!("cannot read the name servers in {}: {error}", file.display()));
            return;
        }
    };
    for (number, line) in String::from_utf8_lossy(&content).lines().enumerate() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        let server = words.next().unwrap_or_default();
        match address(server) {
            Some(address) => drop(found.addresses.insert(address)),
            None => found.problems.push(format!(
                "{}:{}: the name server {} is no IP address; write one, or remove the line",
                file.display(),
                number + 1,
                quoted(server)
            )),
        }
    }
}
