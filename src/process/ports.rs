use std::collections::BTreeSet;
use std::io;
use std::net::TcpListener;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use procfs::net::{TcpState, tcp, tcp6};
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{ProcError, ProcResult};

use crate::process::error::ProcessError;
use crate::process::family::descendants;

/// Who listens on a TCP port of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortOwner {
    /// Processes of the server, and nobody else.
    Ours,
    NotListening,
    /// Someone else, on this port of this or another local address.
    Other {
        pid: i32,
        name: String,
    },
    /// Someone else, whom we are not permitted to see: another user's process, for instance.
    Unknown,
}

/// Who listens on `port`: `root`'s descendants or others, by the sockets that each process holds open.
pub(super) fn port_owner(root: i32, port: u16) -> Result<PortOwner, ProcessError> {
    find_owner(root, port).map_err(|source| ProcessError::ProcessTable { source })
}

fn find_owner(root: i32, port: u16) -> ProcResult<PortOwner> {
    let mut listening = listening_sockets(port)?;
    if listening.is_empty() {
        return Ok(PortOwner::NotListening);
    }
    for pid in descendants(root)? {
        // A worker that has just ended holds nothing.
        for socket in Process::new(pid).map(|process| sockets(&process)).unwrap_or_default() {
            listening.remove(&socket);
        }
    }
    // One foreign socket is enough to refuse: with SO_REUSEPORT, or for `localhost`, requests could go there.
    if listening.is_empty() {
        return Ok(PortOwner::Ours);
    }
    for process in all_processes()?.flatten() {
        if sockets(&process).iter().any(|socket| listening.contains(socket)) {
            let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
            return Ok(PortOwner::Other { pid: process.pid(), name });
        }
    }
    Ok(PortOwner::Unknown)
}

fn listening_sockets(port: u16) -> ProcResult<BTreeSet<u64>> {
    let v6 = match tcp6() {
        // A kernel without IPv6 has no such table.
        Err(ProcError::NotFound(_)) => Vec::new(),
        other => other?,
    };
    let listens = tcp()?.into_iter().chain(v6).filter(|entry| entry.state == TcpState::Listen);
    Ok(listens.filter(|entry| entry.local_address.port() == port).map(|entry| entry.inode).collect())
}

/// The sockets that a process holds open; none when we may not look.
fn sockets(process: &Process) -> Vec<u64> {
    let Ok(files) = process.fd() else { return Vec::new() };
    files
        .flatten()
        .filter_map(|file| match file.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect()
}

/// Ports handed out by this process. Two servers that start at the same time must not get the same one.
static HANDED_OUT: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Below the ports that Linux gives to outgoing connections by default: one of those, of the load generator for instance,
/// could take the port before the server does.
const PORTS: Range<u16> = 20_000..32_000;

/// A TCP port on which nobody listens, never the same one twice in the life of this process.
///
/// Another program may still take it before the server does: [`Server::owns_port`](crate::process::Server::owns_port)
/// tells.
///
/// # Errors
/// When `host` is no address of this host, or no port is left.
pub fn free_port(host: &str) -> Result<u16, ProcessError> {
    // So many misses mean that nearly all were handed out.
    const TRIES: u32 = 100_000;
    let failed = |source| ProcessError::NoFreePort { host: host.to_owned(), source };
    for _ in 0..TRIES {
        let port = rand::random_range(PORTS);
        if !HANDED_OUT.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            continue;
        }
        match TcpListener::bind((host, port)) {
            Ok(_) => return Ok(port),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Err(failed(io::ErrorKind::AddrInUse.into()))
}

/// Whether someone listens on this port already, so that a server could not.
#[must_use]
pub fn port_in_use(host: &str, port: u16) -> bool {
    TcpListener::bind((host, port)).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: BTreeSet<u16> = (0..500).map(|_| free_port("127.0.0.1").unwrap()).collect();
        assert_eq!(ports.len(), 500);
    }

    #[test]
    fn a_host_that_is_not_ours_is_named() {
        let error = free_port("192.0.2.1").unwrap_err();
        assert_eq!(error.to_string(), "cannot find a free port on `192.0.2.1`");
    }

    #[test]
    fn a_listener_makes_its_port_used() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(port_in_use("127.0.0.1", port));
        assert!(!port_in_use("127.0.0.1", 0), "port 0 is any free one");
    }
}
