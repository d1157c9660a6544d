use crate::record::TokenSource;
use crate::stats::{
    ClientLimit, Distribution, Goodput, InputTokensDifference, Repeats, ServerFigures, Steady, TokensBelowChunks,
    advice,
};

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
    pub server: ServerFigures,
    /// Joules of the server's GPUs / output tokens.
    pub energy_j_per_output_token: Option<f64>,
}

impl Summary {
    /// What a reader has to know before the figures are believed, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Requests { sent, failed, .. } = self.requests;
        let failures =
            (failed > 0).then(|| format!("{failed} of {sent} requests failed; the figures are those of the others"));
        let trust = &self.trust;
        let all = [
            failures,
            trust.repeats.as_ref().map(Repeats::to_string),
            trust.input_tokens_difference.as_ref().map(InputTokensDifference::to_string),
            trust.tokens_below_chunks.as_ref().map(TokensBelowChunks::to_string),
            advice(&trust.client_limits).map(|limited| format!("client_limited: {limited}")),
        ];
        all.into_iter().flatten().collect()
    }
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
    /// Sum of our own counts of the prompts / requests ok, whatever the server counted.
    pub input_tokens_sent_mean: Option<f64>,
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
    /// `None` when no request has more chunks with text than the server counted tokens.
    pub tokens_below_chunks: Option<TokensBelowChunks>,
    /// `None` when every request had a prompt of its own.
    pub repeats: Option<Repeats>,
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
