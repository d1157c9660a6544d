//! What of the server's answers lies unread in the kernel while the load goes on: time that no stamp of the client shows.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use procfs::net::{TcpNetEntry, TcpState, tcp, tcp6};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rand_distr::{Distribution as _, Exp1};

use super::address::Address;
use crate::record::SocketQueue;

/// Between two looks, on average, at least.
const PAUSE: Duration = Duration::from_millis(100);
/// And so many times the CPU time of a look, which is some 3 us for each socket of the host: 1 % of a core.
const PAUSE_TO_LOOK: u32 = 100;

/// Fewer bytes in a connection are no piece of an answer, but frames of HTTP/2's own that may come while it is idle.
const LEAST_PIECE: u32 = 64;

/// What was seen from the first look on.
#[derive(Debug, Default)]
pub(super) struct Seen {
    looks: u64,
    looks_unread: u64,
    bytes: u64,
    bytes_max: u64,
    seconds: f64,
}

/// Looks until the sender's side of `end` is dropped. Blocks: runs on a thread of its own.
///
/// The moments are those of a Poisson process, which sees what is there on average: a server sends at regular ones.
pub(super) fn watch(server: &Address, end: &Receiver<()>) -> Seen {
    let servers: Vec<SocketAddr> =
        (server.host.as_str(), server.port).to_socket_addrs().into_iter().flatten().collect();
    let mut random = ChaCha8Rng::seed_from_u64(0);
    let (mut seen, began, mut pause) = (Seen::default(), Instant::now(), PAUSE);
    loop {
        let gap: f64 = Exp1.sample(&mut random);
        if end.recv_timeout(pause.mul_f64(gap)) != Err(RecvTimeoutError::Timeout) {
            break;
        }
        let from = thread_cpu_time();
        // A host that does not tell has no figures.
        let Some(bytes) = unread(&servers) else { break };
        pause = PAUSE.max(thread_cpu_time().saturating_sub(from) * PAUSE_TO_LOOK);
        seen.add(bytes);
    }
    seen.seconds = began.elapsed().as_secs_f64();
    seen
}

fn thread_cpu_time() -> Duration {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Bytes that lie unread in this host's connections to `servers`.
fn unread(servers: &[SocketAddr]) -> Option<u64> {
    let mut sockets: Vec<TcpNetEntry> = Vec::new();
    if servers.iter().any(SocketAddr::is_ipv4) {
        sockets.extend(tcp().ok()?);
    }
    if servers.iter().any(SocketAddr::is_ipv6) {
        sockets.extend(tcp6().ok()?);
    }
    let ours = |it: &&TcpNetEntry| it.state == TcpState::Established && servers.contains(&it.remote_address);
    let bytes = sockets.iter().filter(ours).map(|it| it.rx_queue).filter(|&bytes| bytes >= LEAST_PIECE);
    Some(bytes.map(u64::from).sum())
}

impl Seen {
    fn add(&mut self, bytes: u64) {
        self.looks += 1;
        self.looks_unread += u64::from(bytes > 0);
        self.bytes += bytes;
        self.bytes_max = self.bytes_max.max(bytes);
    }

    /// `None` without a look. `received` are the bytes of all answers meanwhile.
    pub(super) fn facts(&self, received: u64) -> Option<SocketQueue> {
        let mean = (self.looks > 0).then(|| self.bytes as f64 / self.looks as f64)?;
        Some(SocketQueue {
            looks: self.looks,
            looks_unread: self.looks_unread,
            bytes_max: self.bytes_max,
            wait_ms_mean: (received > 0).then(|| mean * self.seconds * 1e3 / received as f64),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    /// A client's and the server's end of a connection.
    fn connection() -> (TcpStream, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        (client, server.accept().unwrap().0)
    }

    #[test]
    fn what_a_client_does_not_read_is_seen_until_it_does() {
        let (mut client, mut server) = connection();
        let servers = [client.peer_addr().unwrap()];
        server.write_all(&[0; 50]).unwrap();
        // Peeking waits until it is there.
        client.peek(&mut [0; 1]).unwrap();
        assert_eq!(unread(&servers), Some(0), "too little for an answer");
        client.read_exact(&mut [0; 50]).unwrap();
        server.write_all(&[0; 1000]).unwrap();
        client.peek(&mut [0; 1]).unwrap();
        assert_eq!(unread(&servers), Some(1000));
        client.write_all(&[0; 100]).unwrap();
        client.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unread(&servers), Some(0), "what the server has not read is not the client's");
    }

    #[test]
    fn the_mean_wait_is_what_lies_there_over_what_comes_in_a_second() {
        let mut seen = Seen { seconds: 2.0, ..Seen::default() };
        assert_eq!(seen.facts(1000), None);
        for bytes in [0, 300, 0, 100] {
            seen.add(bytes);
        }
        // 100 bytes on average, of 10,000 a second.
        let expected = SocketQueue { looks: 4, looks_unread: 2, bytes_max: 300, wait_ms_mean: Some(10.0) };
        assert_eq!(seen.facts(20_000), Some(expected));
        assert_eq!(seen.facts(0).unwrap().wait_ms_mean, None);
    }
}
