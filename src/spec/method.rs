use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Arrival, Protocol, Sampling};

/// A published benchmark method of LMDeploy, reproduced as its script of that version did it: prompts, requests, figures
/// and CSV file. docs/lmdeploy-methods.md says what each old figure is, and how the correct one differs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Method {
    /// `profile_serving.py` against a Triton server.
    #[serde(rename = "lmdeploy-tis@v0.1.0")]
    Tis,
    /// As `lmdeploy-tis@v0.1.0`, with the CSV columns of the release before.
    #[serde(rename = "lmdeploy-tis@v0.1.0a1")]
    TisA1,
    /// `profile_restful_api.py` against an api_server: a closed loop over chat completions.
    #[serde(rename = "lmdeploy-api@v0.1.0")]
    Api,
    /// As `lmdeploy-api@v0.1.0`, with the CSV columns of the release before.
    #[serde(rename = "lmdeploy-api@v0.1.0a1")]
    ApiA1,
    /// Today's `profile_restful_api.py`: all requests at once or at a rate, over completions.
    #[serde(rename = "lmdeploy-api@v0.16.0")]
    Serving,
    /// `profile_generation.py`: prompts and answers of fixed lengths. The script calls the engine in its own process; here
    /// the requests go over HTTP.
    #[serde(rename = "lmdeploy-static@v0.1.0")]
    Static,
    /// As `lmdeploy-static@v0.1.0`, with the rounds and CSV columns of the release before.
    #[serde(rename = "lmdeploy-static@v0.1.0a1")]
    StaticA1,
    /// `profile_throughput.py`: the whole set through many workers. The script calls the engine in its own process; here
    /// the requests go over HTTP.
    #[serde(rename = "lmdeploy-throughput@223831aca")]
    Throughput,
}

/// How requests are chosen out of a ShareGPT file, as LMDeploy's scripts did it in so many versions.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum Sampler {
    /// To v0.2.5: all conversations are counted, and of those of fitting length some are drawn.
    #[serde(rename = "lmdeploy@v0.1.0")]
    AllThenDraw,
    /// v0.2.6 to v0.6.1: of some that are drawn first, those of fitting length are drawn from again.
    #[serde(rename = "lmdeploy@v0.2.6")]
    DrawTwice,
    /// Since v0.6.2: the first of fitting length in a shuffled order, counted with special tokens.
    #[serde(rename = "lmdeploy@v0.16.0")]
    Shuffle,
}

/// A script's own settings where its user gives none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MethodDefaults {
    pub protocol: Protocol,
    /// Of a ShareGPT file; `None` for prompts made of random tokens.
    pub sampler: Option<Sampler>,
    /// Load points; none where all requests are sent at once or at a rate.
    pub concurrency: &'static [u32],
    pub amount: MethodAmount,
    pub sampling: Sampling,
    /// The script opens a connection for each request.
    pub cold_connections: bool,
}

/// How many requests a script sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MethodAmount {
    Requests {
        measured: u64,
        warmup: u64,
    },
    /// So many for each worker.
    Rounds {
        measured: u64,
        warmup: u64,
    },
}

const DRAWN: Sampling = Sampling { temperature: 1.0, top_k: None, top_p: Some(1.0) };
const GREEDY: Sampling = Sampling { temperature: 1.0, top_k: Some(1), top_p: Some(1.0) };

impl Method {
    #[must_use]
    pub fn defaults(self) -> MethodDefaults {
        let requests = |measured| MethodAmount::Requests { measured, warmup: 0 };
        let api = MethodDefaults {
            protocol: Protocol::OpenaiChat,
            sampler: Some(Sampler::AllThenDraw),
            concurrency: &[64],
            amount: requests(2000),
            sampling: DRAWN,
            cold_connections: true,
        };
        let in_process =
            MethodDefaults { protocol: Protocol::OpenaiCompletions, sampling: GREEDY, cold_connections: false, ..api };
        let fixed_lengths = MethodDefaults { sampler: None, concurrency: &[1, 16, 32, 64], ..in_process };
        match self {
            Self::Tis | Self::TisA1 => MethodDefaults {
                protocol: Protocol::LmdeployTriton,
                concurrency: &[32],
                amount: requests(1000),
                sampling: GREEDY,
                cold_connections: false,
                ..api
            },
            Self::Api | Self::ApiA1 => api,
            Self::Serving => MethodDefaults {
                protocol: Protocol::OpenaiCompletions,
                sampler: Some(Sampler::Shuffle),
                concurrency: &[],
                amount: MethodAmount::Requests { measured: 1000, warmup: 1 },
                sampling: Sampling { temperature: 0.0, top_k: None, top_p: None },
                ..api
            },
            Self::Static => MethodDefaults { amount: MethodAmount::Rounds { measured: 6, warmup: 1 }, ..fixed_lengths },
            // The first release left the engine its own sampling, whatever the command line said.
            Self::StaticA1 => MethodDefaults {
                amount: MethodAmount::Rounds { measured: 10, warmup: 2 },
                sampling: Sampling { temperature: 0.8, top_k: Some(40), top_p: Some(0.8) },
                ..fixed_lengths
            },
            Self::Throughput => MethodDefaults { concurrency: &[256], amount: requests(5000), ..in_process },
        }
    }
}

impl MethodAmount {
    #[must_use]
    pub fn requests(self, arrival: &Arrival) -> u64 {
        match self {
            Self::Requests { measured, .. } => measured,
            Self::Rounds { measured, .. } => measured * u64::from(arrival.concurrency().unwrap_or(1)),
        }
    }

    #[must_use]
    pub fn warmup_requests(self, arrival: &Arrival) -> u64 {
        match self {
            Self::Requests { warmup, .. } => warmup,
            Self::Rounds { warmup, .. } => warmup * u64::from(arrival.concurrency().unwrap_or(1)),
        }
    }
}
