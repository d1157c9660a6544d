//! What a step is asked to do: types only, shared by the manifest, the planner and the load generator.
//!
//! **Invariant:** no behaviour beyond naming; every value here can be written to disk and read back.

mod arrival;
mod data;
mod method;
mod series;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::Digest;

pub use arrival::{Arrival, ConcurrencyStage, Gamma, RateStage, Spacing};
pub use data::{
    Amount, Bounds, Data, Distribution, Histogram, PromptFile, SharedPrefix, Spread, Synthetic, TraceFile, TraceFormat,
    Turns,
};
pub use method::{Method, MethodAmount, MethodDefaults, Sampler};
pub use series::{Bound, Search, SearchEnd, Searched, Series, Until};

/// How a request travels to the server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// `POST /v1/completions`, streamed as server-sent events.
    OpenaiCompletions,
    /// `POST /v1/chat/completions`, streamed as server-sent events.
    OpenaiChat,
    /// KServe v2 `ModelStreamInfer` with the tensors of TensorRT-LLM's ensemble.
    TritonGrpc,
    /// Triton's `POST /v2/models/M/generate`: one JSON answer.
    TritonGenerate,
    /// Triton's `POST /v2/models/M/generate_stream`: server-sent events without a final marker.
    TritonGenerateStream,
    /// LMDeploy's three Triton models `preprocessing`, `turbomind` and `postprocessing`, called over gRPC as its own client of
    /// 2023 does: the last one after each token.
    LmdeployTriton,
    /// The engine called in its own process by `scripts/engine_driver.py`, which takes the times there: no transport counts.
    InProcess,
}

impl Protocol {
    pub const ALL: [Self; 7] = [
        Self::OpenaiCompletions,
        Self::OpenaiChat,
        Self::TritonGrpc,
        Self::TritonGenerate,
        Self::TritonGenerateStream,
        Self::LmdeployTriton,
        Self::InProcess,
    ];

    #[must_use]
    pub fn is_triton(self) -> bool {
        matches!(self, Self::TritonGrpc | Self::TritonGenerate | Self::TritonGenerateStream)
    }

    /// Over gRPC, and not HTTP/1.1.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::TritonGrpc | Self::LmdeployTriton)
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenaiCompletions => "openai-completions",
            Self::OpenaiChat => "openai-chat",
            Self::TritonGrpc => "triton-grpc",
            Self::TritonGenerate => "triton-generate",
            Self::TritonGenerateStream => "triton-generate-stream",
            Self::LmdeployTriton => "lmdeploy-triton",
            Self::InProcess => "in-process",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long an answer is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputMode {
    /// Exactly `tokens` tokens: the server is told to ignore the end-of-sequence token, and a shorter answer fails.
    Exact,
    /// At most `tokens` tokens: the model's end-of-sequence token may end the answer earlier.
    AtMost,
}

/// The length of each answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Output {
    pub mode: OutputMode,
    pub tokens: OutputTokens,
}

/// The tokens of each answer.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(untagged)]
pub enum OutputTokens {
    Amount(Amount),
    Data(FromData),
}

/// What the data say: a trace's length, a line's `output_tokens` or `max_tokens`, or the tokens of the given answer.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FromData {
    FromData,
}

impl OutputTokens {
    #[must_use]
    pub const fn fixed(tokens: u32) -> Self {
        Self::Amount(Amount::Fixed(tokens))
    }

    pub const FROM_DATA: Self = Self::Data(FromData::FromData);

    /// The number, if it is the same for all answers.
    #[must_use]
    pub fn number(&self) -> Option<u32> {
        match self {
            Self::Amount(amount) => amount.fixed(),
            Self::Data(FromData::FromData) => None,
        }
    }
}

/// How the next token is chosen. Greedy unless a temperature above 0 is given.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy decoding.
    #[schemars(range(min = 0.0, max = 10.0))]
    pub temperature: f64,
    /// The number of most likely tokens to draw from.
    #[schemars(range(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// The probability mass to draw from.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
}

/// Bounds that a single request must keep to count as good.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("minProperties" = 1))]
#[serde(deny_unknown_fields, default)]
pub struct Slo {
    /// Milliseconds to the first token.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Milliseconds for each further token, in the mean of the answer.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
    /// Milliseconds for the whole answer.
    #[schemars(range(min = 0.0))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub e2e_ms: Option<f64>,
}

/// When a load point ends.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Volume {
    /// This many measured requests.
    Requests(u64),
    /// No new request after this many seconds; those under way finish.
    DurationS(f64),
}

/// One load point, resolved: everything the load generator needs besides the server's address.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LoadPoint {
    pub phase: String,
    /// The published method that this reproduces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    pub protocol: Protocol,
    /// Ask the server to send tokens as they come. `false` measures E2E only: there is no first token to see.
    pub streaming: bool,
    pub data: Data,
    pub output: Output,
    pub sampling: Sampling,
    /// Answers that the server keeps in view for each request; 1 is no beam search.
    #[serde(default = "one_beam", skip_serializing_if = "is_one_beam")]
    pub beam_width: u32,
    pub arrival: Arrival,
    pub volume: Volume,
    /// Seconds that requests under way have to end after the last one was due; no limit but their own if `None`.
    pub drain_s: Option<f64>,
    /// Requests before the measured ones, recorded with kind `warmup`. In open loop they are the first of the schedule.
    pub warmup_requests: u64,
    /// The round, from 1.
    pub round: u32,
    /// The seed that [`LoadPoint::own_prompt_seed`] starts from.
    pub prompt_seed: u64,
    pub sampling_seed: u64,
    /// The seed that moments of arrival are drawn from.
    pub arrival_seed: u64,
    /// A new connection for each request; its making counts as part of the request.
    pub cold_connections: bool,
    /// How often a request that the server refused for now is sent again, after the time it names: HTTP status 429 or 503,
    /// over gRPC RESOURCE_EXHAUSTED or UNAVAILABLE, or Triton's message that its queue is full.
    pub retries: u32,
    /// Seconds after which a request counts as failed with kind `timeout`.
    pub request_timeout_s: f64,
    /// Seconds without a byte, once an answer has begun, after which a request has failed with kind `stall`.
    pub idle_timeout_s: Option<f64>,
    /// Seconds after which the whole point is cut off.
    pub point_timeout_s: f64,
}

const fn one_beam() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_one_beam(beams: &u32) -> bool {
    *beams == one_beam()
}

impl LoadPoint {
    /// Whether tokens come as they are made.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.streaming && self.protocol != Protocol::TritonGenerate
    }

    /// The seed of this load point's prompts. It differs between load points and rounds, so that a prefix cache filled by
    /// one does not flatter the next; it is the same in every cell, so that cells can be compared.
    #[must_use]
    pub fn own_prompt_seed(&self) -> u64 {
        self.own_seed(self.prompt_seed)
    }

    /// The seed of this load point's moments of arrival.
    #[must_use]
    pub fn own_arrival_seed(&self) -> u64 {
        self.own_seed(self.arrival_seed)
    }

    fn own_seed(&self, seed: u64) -> u64 {
        let text = format!("{seed} {} {} {}", self.phase, self.arrival.label(), self.round);
        let digest = Digest::of(text.as_bytes());
        u64::from_str_radix(&digest[..16], 16).expect("a digest is hexadecimal")
    }
}
