//! Name servers, resolv.conf(5).

use std::path::Path;

use super::{Gathered, address, quoted};

/// No such file is longer.
const MAX_LENGTH: u64 = 1 << 20;

/// Takes in the servers that a file names; a file that is not there names none.
pub(super) fn read(file: &Path, found: &mut Gathered) {
    let Some(content) = found.read(file, MAX_LENGTH, "name servers in") else { return };
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
