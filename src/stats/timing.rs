use crate::record::RequestRecord;

/// The times of one good request, and what they come to.
///
/// A load point of a million requests keeps a million of these, and nothing else of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timing {
    due_ns: u64,
    /// When the bound on requests under way let it go.
    free_ns: u64,
    /// When nothing but the client itself kept it from being sent.
    ready_ns: u64,
    pub(super) sent_ns: u64,
    first_token_ns: Option<u64>,
    /// When the user had the whole answer; `None` for an answer without text.
    answered_ns: Option<u64>,
    end_ns: u64,
    output_tokens: Option<u32>,
}

impl Timing {
    pub(super) fn of(record: &RequestRecord) -> Self {
        let end_of_text = (!record.output_text.is_empty()).then_some(record.end_ns);
        let free_ns = record.free_ns.unwrap_or_default().max(record.due_ns);
        Self {
            due_ns: record.due_ns,
            free_ns,
            ready_ns: free_ns.saturating_add(record.connect_ns.unwrap_or_default()).min(record.sent_ns),
            sent_ns: record.sent_ns,
            first_token_ns: record.first_token_ns,
            answered_ns: record.last_token_ns.or(end_of_text),
            end_ns: record.end_ns,
            output_tokens: record.output_tokens,
        }
    }

    /// The last chunk with text; the end where that is not known.
    pub(super) fn answered_ns(&self) -> u64 {
        self.answered_ns.unwrap_or(self.end_ns)
    }

    /// How late the client was: sent - due, less what was not its own doing, a wait for the bound on requests under way
    /// and the making of a connection.
    pub(super) fn dispatch_lag_ms(&self) -> Option<f64> {
        milliseconds(self.ready_ns, self.sent_ns)
    }

    pub(super) fn ttft_ms(&self) -> Option<f64> {
        milliseconds(self.sent_ns, self.first_token_ns?)
    }

    pub(super) fn e2e_ms(&self) -> Option<f64> {
        milliseconds(self.sent_ns, self.answered_ns?)
    }

    pub(super) fn e2e_from_due_ms(&self) -> Option<f64> {
        milliseconds(self.due_ns, self.answered_ns?)
    }

    pub(super) fn ttft_from_due_ms(&self) -> Option<f64> {
        milliseconds(self.due_ns, self.first_token_ns?)
    }

    /// How long the bound on requests under way kept it; 0 if it did not.
    pub(super) fn cap_wait_ms(&self) -> Option<f64> {
        milliseconds(self.due_ns, self.free_ns)
    }

    /// (E2E - TTFT) / (n - 1); `None` below two output tokens.
    pub(super) fn tpot_ms(&self) -> Option<f64> {
        let tokens = self.output_tokens.filter(|&tokens| tokens >= 2)?;
        Some((self.e2e_ms()? - self.ttft_ms()?).max(0.0) / f64::from(tokens - 1))
    }

    /// Whether the answer has a second token to wait for; `None` where nobody counted.
    pub(super) fn has_gaps(&self) -> Option<bool> {
        self.output_tokens.map(|tokens| tokens >= 2)
    }

    /// Output tokens that came between two moments; unknown when the request's tokens are.
    ///
    /// The first came with the first chunk, the others evenly from there to the last chunk. So this is exact but for a
    /// request under way at one of the two moments. An answer in one piece came at its end.
    pub(super) fn tokens_between(&self, from_ns: u64, to_ns: u64) -> Option<f64> {
        let tokens = f64::from(self.output_tokens?);
        let last_ns = self.answered_ns();
        let first_ns = self.first_token_ns.unwrap_or(last_ns).min(last_ns);
        let before = |moment_ns: u64| {
            if moment_ns <= first_ns {
                0.0
            } else if moment_ns > last_ns {
                tokens
            } else {
                1.0 + (tokens - 1.0) * (moment_ns - first_ns) as f64 / (last_ns - first_ns) as f64
            }
        };
        Some((before(to_ns) - before(from_ns)).max(0.0))
    }
}

/// `None` when the times are not in order, which no honest record has.
fn milliseconds(from_ns: u64, to_ns: u64) -> Option<f64> {
    to_ns.checked_sub(from_ns).map(|ns| ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{MS, answered, streamed};

    #[track_caller]
    fn check(timing: Timing, from_ms: u64, to_ms: u64, expected: f64) {
        let found = timing.tokens_between(from_ms * MS, to_ms * MS).unwrap();
        assert!((found - expected).abs() < 1e-9, "{from_ms} to {to_ms} ms: {found} is not {expected}");
    }

    #[test]
    fn tokens_are_counted_where_they_came() {
        // Five tokens, at 200, 225, 250, 275 and 300 ms.
        let spread = Timing::of(&streamed(100, &[200, 300], 5));
        check(spread, 0, 1000, 5.0);
        check(spread, 0, 200, 0.0);
        check(spread, 0, 250, 3.0);
        check(spread, 250, 1000, 2.0);
        check(spread, 301, 1000, 0.0);
        let at_once = Timing::of(&answered(100, 300, 8));
        check(at_once, 100, 300, 0.0);
        check(at_once, 300, 301, 8.0);
    }
}
