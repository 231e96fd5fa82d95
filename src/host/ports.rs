//! Where programs listen for connections of TCP, as /proc/net/tcp has it, proc(5).

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::Context;

/// `TCP_LISTEN`, in `net/tcp_states.h`.
const LISTEN: &str = "0A";

/// Where somebody listens in the network namespace of this thread, in order; :: is also for IPv4, unless it says otherwise, which
/// the kernel does not tell.
pub fn listening() -> anyhow::Result<Vec<SocketAddr>> {
    let mut found = vec![];
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match std::fs::read_to_string(file) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(listener)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot read {file}")),
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// `sl local_address rem_address st ...`.
fn listener(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_whitespace().skip(1);
    let local = words.next()?;
    (words.nth(1)? == LISTEN).then_some(())?;
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Words of 32 bits in the byte order of the host, each as a number.
    let word =
        |at: usize| u32::from_str_radix(address.get(at * 8..at * 8 + 8)?, 16).ok().map(u32::to_ne_bytes);
    let address: IpAddr = match address.len() {
        8 => word(0)?.into(),
        32 => {
            let words: Option<Vec<_>> = (0..4).map(word).collect();
            Ipv6Addr::from(<[u8; 16]>::try_from(words?.concat()).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn who_listens_is_found() {
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|at| TcpListener::bind(at).unwrap());
        let all = listening().unwrap();
        for socket in &sockets {
            assert!(all.contains(&socket.local_addr().unwrap()), "{all:?}");
        }
        let line = |state| {
            format!(
                "   0: 00000000:13C4 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0"
            )
        };
        assert_eq!(listener(&line("0A")), Some("0.0.0.0:5060".parse().unwrap()));
        assert_eq!(listener(&line("01")), None);
        assert_eq!(listener("nonsense"), None);
    }
}
