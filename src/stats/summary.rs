use std::fmt;

use crate::record::TokenSource;
use crate::stats::{ClientLimit, Distribution, Goodput, Steady};

/// The figures of one load point, in the groups of the results' columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// From the load point's begin to the end of its last request, in seconds, warm-up included.
    pub load_s: f64,
    pub requests: Requests,
    pub volume: Volume,
    pub rates: Rates,
    /// Only where the phase sets bounds on single requests.
    pub goodput: Option<Goodput>,
    pub latency: Latency,
    pub steady: Option<Steady>,
    pub trust: Trust,
    /// Joules of the server's GPUs / output tokens.
    pub energy_j_per_output_token: Option<f64>,
}

/// How many measured requests ended in which way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Requests {
    /// All measured requests: `ok`, `failed` and `cut_off` together.
    pub sent: u64,
    pub ok: u64,
    pub failed: u64,
    /// Ended by us: a time limit of the load point, or an interruption.
    pub cut_off: u64,
    /// Those of any status that were sent more than 1 ms after they were due, whatever the cause: the bound on requests
    /// under way, a connection to be made, a slow client. Open loop only.
    pub late: Option<u64>,
    /// Those of any status that the bound on requests under way kept waiting; open loop with such a bound only.
    pub held: Option<u64>,
}

/// How much was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// The window: first sent -> last chunk with text, in seconds. A request whose last chunk's time is not known (no
    /// text at all, or an answer in one piece) counts until its end.
    pub duration_s: Option<f64>,
    /// Sum over requests, in tokens; unknown when it is for any of them.
    pub input_tokens: Option<u64>,
    /// Sum over requests, in tokens; unknown when it is for any of them.
    pub output_tokens: Option<u64>,
    /// `input_tokens` / requests ok.
    pub input_tokens_mean: Option<f64>,
    /// `output_tokens` / requests ok.
    pub output_tokens_mean: Option<f64>,
    pub output_tokens_source: Option<OutputTokensSource>,
}

/// Where the counts of output tokens were read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OutputTokensSource {
    /// The same source for every request.
    All(TokenSource),
    /// Several sources: the counts of these requests may not be comparable.
    Mixed,
}

impl OutputTokensSource {
    /// The word used in result rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::All(source) => source.name(),
            Self::Mixed => "mixed",
        }
    }
}

/// What was done in each second of the window.
#[derive(Clone, Debug, PartialEq)]
pub struct Rates {
    /// Requests ok / window.
    pub requests_per_s: Option<f64>,
    /// `requests_per_s` × 60.
    pub requests_per_min: Option<f64>,
    /// Sum of input tokens / window.
    pub input_tokens_per_s: Option<f64>,
    /// Sum of output tokens / window.
    pub output_tokens_per_s: Option<f64>,
    /// Sum of input and output tokens / window.
    pub total_tokens_per_s: Option<f64>,
    /// Mean of 1 / TPOT over the requests with a TPOT above 0, in tokens a second: what one user sees. An answer that
    /// came in one piece has a TPOT of 0, which says nothing about speed.
    pub output_tokens_per_s_per_user: Option<f64>,
    /// `output_tokens_per_s` / GPUs of the server; unknown without GPUs.
    pub output_tokens_per_s_per_gpu: Option<f64>,
}

/// How long things took, in milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// First chunk with text - sent, over the requests that streamed.
    pub ttft_ms: Option<Distribution>,
    /// Gaps between consecutive chunks with text, pooled over requests; a chunk with several tokens gives one gap.
    pub itl_ms: Option<Distribution>,
    /// (E2E - TTFT) / (n - 1), over the requests that streamed n ≥ 2 output tokens.
    pub tpot_ms: Option<Distribution>,
    /// Last chunk with text - sent, over the requests with text; for an answer in one piece, its end.
    pub e2e_ms: Option<Distribution>,
    /// Last chunk with text - due, over the requests with text; open loop only.
    pub e2e_from_due_ms: Option<Distribution>,
    /// First chunk with text - due, over the requests that streamed; open loop only.
    pub ttft_from_due_ms: Option<Distribution>,
    /// When the bound on requests under way let a request go - due, 0 for one that did not wait, over all requests; open
    /// loop with such a bound only.
    pub cap_wait_ms: Option<Distribution>,
}

/// Whether the client measured the server or itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Trust {
    /// 99th percentile of sent - due, in milliseconds.
    pub dispatch_lag_ms_p99: Option<f64>,
    /// Limited by any of `client_limits`. Unknown unless both the client's CPU share and its dispatch lag are known.
    pub client_verdict: Option<ClientVerdict>,
    /// Every sign that the client was the limit.
    pub client_limits: Vec<ClientLimit>,
    /// (n - 1) / (last sent - first sent) over the n measured requests of any status, a second; open loop only.
    pub request_rate_reached: Option<f64>,
    /// `None` when every count agrees, or when nothing can be compared.
    pub input_tokens_difference: Option<InputTokensDifference>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientVerdict {
    Ok,
    /// The client was too slow to show what the server can do.
    ClientLimited,
}

impl ClientVerdict {
    /// The word used in result rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientLimited => "client_limited",
        }
    }
}

/// How the recorded input tokens (the server's count, where it gives one) differ from our count of the prompts sent.
///
/// Over the requests that have both counts. Its text is a sentence for a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InputTokensDifference {
    /// Requests that have both counts.
    pub compared: u64,
    /// Those among them whose counts differ.
    pub differing: u64,
    /// The smallest and the largest (recorded - sent) of the differing ones, in tokens.
    pub least: i64,
    pub most: i64,
}

impl fmt::Display for InputTokensDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, differing, least, most } = self;
        write!(
            f,
            "in {differing} of {compared} requests the server's count of input tokens differs from what was sent "
        )?;
        if least == most {
            write!(f, "by {least:+}: most often a token or a template that the server adds")
        } else {
            write!(f, "by {least:+} to {most:+}: the server may use another tokenizer, or cut prompts")
        }
    }
}
