use serde::{Deserialize, Serialize};

/// Whether a request belongs to the measurement.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    Warmup,
    Measure,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestStatus {
    Ok,
    Failed,
    /// Ended by us: a time limit of the point or an interruption.
    CutOff,
}

/// Where `output_tokens` was read, best first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    ServerUsage,
    ServerTensor,
    TokenIds,
    Chunks,
    Tokenizer,
}

impl TokenSource {
    /// The word used in records and result rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ServerUsage => "server_usage",
            Self::ServerTensor => "server_tensor",
            Self::TokenIds => "token_ids",
            Self::Chunks => "chunks",
            Self::Tokenizer => "tokenizer",
        }
    }
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RequestError {
    /// A short word to count by: `connect`, `timeout`, `http_503`, `grpc_unavailable`, `stream`, `parse`, `length` …
    pub kind: String,
    pub message: String,
}

/// What a server says of one request, by its own clock. Triton's TensorRT-LLM models do, where they list
/// `return_perf_metrics`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct ServerSaid {
    /// From its arrival in the batcher until it was first scheduled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ns: Option<u64>,
    /// From its arrival in the batcher until its first token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ns: Option<u64>,
    /// Blocks of the KV cache that were there already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reused_blocks: Option<u64>,
}

/// Raw facts of one request. Times are nanoseconds on one monotonic clock since the phase began.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct RequestRecord {
    /// Number within the load point, in order of sending, from 0.
    pub request: u64,
    pub kind: RequestKind,
    /// Index of the prompt in the point's data, from 0.
    pub prompt: u64,
    /// The conversation that it is a turn of, from 0; none if all conversations have one turn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<u64>,
    /// The closed-loop worker, from 0; always 0 in open loop.
    pub worker: u32,
    /// When the request was due: in a closed loop, when its worker became free.
    pub due_ns: u64,
    /// When the bound on requests under way let it go; only if that was later than due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free_ns: Option<u64>,
    /// Nanoseconds spent on a connection for it, before it was sent; none if one was at hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ns: Option<u64>,
    /// When its first byte was handed to the connection.
    pub sent_ns: u64,
    /// How often it was sent; its times are those of the first attempt and of the last answer.
    #[serde(default = "once", skip_serializing_if = "is_once")]
    pub attempts: u32,
    /// First chunk of the answer, with or without text.
    pub first_response_ns: Option<u64>,
    /// First chunk with non-empty text; unknown for an answer that does not stream.
    pub first_token_ns: Option<u64>,
    /// Last chunk with text.
    pub last_token_ns: Option<u64>,
    pub end_ns: u64,
    /// Arrival of every chunk that carries text.
    pub chunk_ns: Vec<u64>,
    /// Bytes of text in each of these chunks; empty in records of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chunk_bytes: Vec<u32>,
    pub status: RequestStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RequestError>,
    /// The server's own count where it gives one, otherwise ours.
    pub input_tokens: Option<u32>,
    /// Our count of the prompt under the model's tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens_sent: Option<u32>,
    pub output_tokens: Option<u32>,
    /// Tokens that the answer was to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens_asked: Option<u32>,
    pub output_tokens_source: Option<TokenSource>,
    pub finish_reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSaid>,
    pub output_text: String,
}

fn once() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde asks for")]
fn is_once(attempts: &u32) -> bool {
    *attempts <= 1
}
