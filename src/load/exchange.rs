use std::time::Instant;

use super::received::Received;
use crate::record::{RequestError, RequestKind};

/// The one monotonic clock of a load point: nanoseconds since it began.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    began: Instant,
    began_monotonic_ns: Option<u64>,
}

impl Clock {
    pub(super) fn start() -> Self {
        let monotonic = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let nanoseconds =
            || Some(u64::try_from(monotonic.tv_sec).ok()? * 1_000_000_000 + u64::try_from(monotonic.tv_nsec).ok()?);
        Self { began: Instant::now(), began_monotonic_ns: nanoseconds() }
    }

    /// Its zero on the host's CLOCK_MONOTONIC, in nanoseconds: what other programs' traces are compared by.
    pub(super) fn began_monotonic_ns(self) -> Option<u64> {
        self.began_monotonic_ns
    }

    pub(super) fn now_ns(self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A request's place in the load point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) request: u64,
    pub(super) kind: RequestKind,
    /// Index of its turn in the workload.
    pub(super) prompt: usize,
    /// The conversation that it belongs to, counted from the first of the load point; `None` if all have one turn.
    pub(super) conversation: Option<u64>,
}

/// What came, in one piece, and up to where it was there when. Nothing is looked into: HTTP bytes with their head and
/// framing, or gRPC messages side by side.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) bytes: Vec<u8>,
    pub(super) marks: Vec<Mark>,
}

/// The bytes before `end` had arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    pub(super) at_ns: u64,
    pub(super) end: usize,
}

impl Arrivals {
    /// Marks all bytes that are there as arrived.
    #[cfg(test)]
    pub(super) fn mark(&mut self, at_ns: u64) {
        self.marks.push(Mark { at_ns, end: self.bytes.len() });
    }

    /// Each piece with its time.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let mut from = 0;
        self.marks.iter().map(move |mark| {
            let piece = &self.bytes[from..mark.end];
            from = mark.end;
            (mark.at_ns, piece)
        })
    }
}

/// How the transport saw a request end. Whether the answer is any good is found out later, from its bytes.
#[derive(Debug)]
pub(super) enum End {
    Complete,
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
    /// Tokens that the answer was to have.
    pub(super) wanted_tokens: u32,
    /// The closed-loop worker; 0 in open loop.
    pub(super) worker: u32,
    pub(super) due_ns: u64,
    /// When the bound on requests under way let it go, if that was later than due.
    pub(super) free_ns: Option<u64>,
    /// Spent on opening a connection for it before it was sent.
    pub(super) connect_ns: Option<u64>,
    pub(super) sent_ns: u64,
    /// How often it was sent.
    pub(super) attempts: u32,
    pub(super) received: Received,
    pub(super) end_ns: u64,
    pub(super) end: End,
}
