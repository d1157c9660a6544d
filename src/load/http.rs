//! One HTTP/1.1 connection, opened and given up by whoever sends over it. A pool would hide when a connection is made;
//! this cannot. Reads are stamped as they return from the socket, before anything looks at them.

use std::io;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use http::uri::PathAndQuery;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::address::Address;
use super::connection::{ClosedByServer, failure};
use super::exchange::{Clock, End, Exchange};
use super::http1::Framing;
use crate::record::RequestError;

/// Room for at least this much before each read.
const LEAST_ROOM: usize = 2048;

pub(super) struct HttpConnection {
    socket: TcpStream,
    /// At least one answer came through.
    used: bool,
    /// Between two requests, and not known to be closed.
    idle: bool,
}

impl HttpConnection {
    pub(super) async fn open(address: &Address) -> Result<Self, RequestError> {
        let failed = |error: io::Error| failure("connect", &error);
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        Ok(Self { socket, used: false, idle: true })
    }

    /// Whether a request can be sent: nothing is under way, and the server has neither closed the connection nor said
    /// anything unasked.
    pub(super) fn is_ready(&mut self) -> bool {
        let mut nothing = [0; 1];
        self.idle = self.idle
            && matches!(self.socket.try_read(&mut nothing), Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.idle
    }

    /// Sends one request and keeps what comes back, each read with its time. `heard_ns` is the time of the last one.
    pub(super) async fn exchange(
        &mut self,
        request: &[u8],
        clock: Clock,
        seen: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> Result<End, ClosedByServer> {
        self.idle = false;
        // A server may refuse a request before it has read all of it: what it says then is worth more than our error.
        let sent = self.socket.write_all(request).await;
        let mut framing = Framing::new();
        let broken = loop {
            let received = &mut seen.received;
            received.tail.reserve(LEAST_ROOM);
            let read = self.socket.read_buf(&mut received.tail).await;
            let at_ns = clock.now_ns();
            match read {
                Ok(0) => break None,
                Ok(_) => {}
                Err(error) => break Some(error),
            }
            received.mark(at_ns, received.tail.len());
            heard_ns.store(at_ns, Ordering::Relaxed);
            match framing.has_ended(&received.tail) {
                Ok(false) => framing.forget(received.pack(framing.done(received.tail.len()))),
                Ok(true) => {
                    self.used = true;
                    self.idle = sent.is_ok() && framing.leaves_connection_open(&received.tail);
                    return Ok(End::Complete);
                }
                Err(problem) => return Ok(End::failed("stream", problem)),
            }
        };
        if seen.received.is_empty() && self.used {
            return Err(ClosedByServer);
        }
        Ok(match broken.or(sent.err()) {
            Some(error) => End::Failed(failure("stream", &error)),
            None if framing.ends_with_connection() => End::Complete,
            None => End::failed("stream", "the server closed the connection before the answer's end".to_owned()),
        })
    }
}

/// A request as it travels, head and body in one piece, so that one write sends it. Its number finds it again in the
/// logs of servers that keep request ids.
pub(super) fn post(address: &Address, path: &PathAndQuery, body: &[u8], request: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256 + body.len());
    // Writing to memory does not fail.
    let _ = write!(
        bytes,
        "POST {path} HTTP/1.1\r\nhost: {}\r\naccept: */*\r\nx-request-id: {request}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        address.authority,
        body.len()
    );
    bytes.extend_from_slice(body);
    bytes
}
