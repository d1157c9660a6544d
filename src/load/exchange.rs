use std::time::Instant;

use bytes::Bytes;

use crate::record::{RequestError, RequestKind};

/// The one monotonic clock of a load point: nanoseconds since it began.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A request's place in the load point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) request: u64,
    pub(super) kind: RequestKind,
}

/// A piece of an answer as it left the connection: an HTTP body frame or a gRPC message.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) at_ns: u64,
    pub(super) bytes: Bytes,
}

/// How the transport saw a request end. Whether the answer is any good is found out later, from its bytes.
#[derive(Debug)]
pub(super) enum End {
    Complete,
    /// The server answered with an HTTP status that is no success; the body says why.
    Refused {
        status: u16,
    },
    Failed(RequestError),
    /// Ended by us before its time.
    CutOff,
}

impl End {
    pub(super) fn failed(kind: &str, message: String) -> Self {
        Self::Failed(RequestError { kind: kind.to_owned(), message })
    }
}

/// All that was seen of one request: times and bytes, nothing parsed.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) ticket: Ticket,
    pub(super) worker: u32,
    pub(super) due_ns: u64,
    pub(super) sent_ns: u64,
    pub(super) arrivals: Vec<Arrival>,
    pub(super) end_ns: u64,
    pub(super) end: End,
}
