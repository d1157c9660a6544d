use crate::record::{RequestKind, RequestRecord, RequestStatus, TokenSource};

/// The client's side of a load point: what the server's own counts are checked against.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sent {
    /// Requests with status `ok`, warm-up included.
    pub(super) ok: u64,
    /// Requests with another status, warm-up included: the server may or may not have counted them.
    pub(super) not_ok: u64,
    pub(super) warmup: u64,
    /// Requests that were sent again count once more for each time.
    pub(super) repeats: u64,
    /// Sums over the requests that are ok, for as long as none of them lacks its count.
    pub(super) input_tokens: Tokens,
    pub(super) output_tokens: Tokens,
    /// Nanoseconds of the load point's clock over the measured requests.
    pub(super) first_sent_ns: Option<u64>,
    pub(super) last_end_ns: u64,
    /// Sum of end - sent over the measured requests, in nanoseconds.
    pub(super) under_way_ns: u64,
}

/// A sum of token counts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Tokens {
    pub sum: u64,
    /// Requests whose count is not the server's.
    pub counted_here: u64,
    /// Requests without a count.
    pub missing: u64,
}

impl Sent {
    /// Takes in one record.
    pub fn add(&mut self, record: &RequestRecord) {
        self.repeats += u64::from(record.attempts.saturating_sub(1));
        if record.kind == RequestKind::Warmup {
            self.warmup += 1;
        } else {
            self.first_sent_ns = Some(self.first_sent_ns.map_or(record.sent_ns, |first| first.min(record.sent_ns)));
            self.last_end_ns = self.last_end_ns.max(record.end_ns);
            self.under_way_ns += record.end_ns.saturating_sub(record.sent_ns);
        }
        if record.status != RequestStatus::Ok {
            self.not_ok += 1;
            return;
        }
        self.ok += 1;
        let source = record.output_tokens_source;
        // Of the sources only `usage` has the prompt's tokens as well.
        self.input_tokens.add(record.input_tokens, source == Some(TokenSource::ServerUsage));
        let is_exact =
            matches!(source, Some(TokenSource::ServerUsage | TokenSource::ServerTensor | TokenSource::TokenIds));
        self.output_tokens.add(record.output_tokens, is_exact);
    }

    /// Requests of every status, warm-up included.
    pub(super) fn all(&self) -> u64 {
        self.ok + self.not_ok
    }

    /// The measured part in seconds of the load point's clock.
    pub(super) fn measured_s(&self) -> Option<(f64, f64)> {
        let seconds = |ns: u64| ns as f64 / 1e9;
        self.first_sent_ns.map(|first| (seconds(first), seconds(self.last_end_ns)))
    }
}

impl Tokens {
    fn add(&mut self, count: Option<u32>, by_server: bool) {
        self.sum += u64::from(count.unwrap_or_default());
        self.counted_here += u64::from(!by_server);
        self.missing += u64::from(count.is_none());
    }
}
