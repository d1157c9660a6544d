use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Sampler;

/// Where prompts come from: exactly one kind. `S` says what a synthetic workload is made of.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Data")]
pub enum Data<S = Synthetic> {
    /// Random text of an exact length under the model's tokenizer; every prompt is different.
    Synthetic(S),
    /// One JSON object a line with a `text_input`, a `prompt`, or `messages` of a chat.
    Jsonl(PromptFile),
    /// Conversations of a ShareGPT file: JSON with `conversations` of `from` and `value`.
    Sharegpt(PromptFile),
    /// A file of a Hugging Face data set: parquet, JSON or JSON lines.
    HfDataset(PromptFile),
    /// A CSV file with a header.
    Csv(PromptFile),
    /// Lengths and moments of recorded requests. The prompts are random text of those exact lengths.
    Trace(TraceFile),
}

/// Random text of an exact length under the model's tokenizer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Synthetic {
    /// Input tokens of each turn.
    pub isl: Amount,
    pub prefix: Option<SharedPrefix>,
    /// Requests of each conversation.
    pub turns: Amount,
    /// From the end of an answer to the next turn, in ms.
    pub think_time_ms: Option<Amount>,
    /// Send the ids of tokens in place of text.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub token_ids: bool,
}

/// What prompts have in common, as with a system prompt.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SharedPrefix {
    /// The first so many of a prompt's tokens are shared; its length is still `isl`. A drawn length that leaves nothing
    /// of its own becomes one token longer than the prefix.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub tokens: u32,
    /// How many different prefixes there are; each conversation takes one of them at random.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default = "one")]
    pub groups: u32,
    /// The part of the conversations that begin with a shared prefix.
    #[schemars(range(min = 0.0, max = 1.0))]
    #[serde(default = "all")]
    pub share: f64,
}

fn one() -> u32 {
    1
}

fn all() -> f64 {
    1.0
}

/// A file of prompts.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptFile {
    /// Relative to the manifest.
    pub path: PathBuf,
    /// The field or column of the prompt: a text, or a list of messages with `role` and `content` (or `from` and
    /// `value`). By default the first there is of `text_input`, `prompt`, `messages` and `conversations`.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// The field or column of the given answer to a text; `output: {tokens: from_data}` takes its length. Messages have
    /// their answers among them.
    #[schemars(length(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_column: Option<String>,
    /// Which requests a list of messages becomes: `history` by default, for `sharegpt` it is `first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Turns>,
    /// From the end of an answer to the next turn, in ms; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_time_ms: Option<Amount>,
    /// `sharegpt` only: how requests are chosen, as LMDeploy's scripts did it. The same seed gives the same prompts in the
    /// same order as the script: the text of the first entry of each conversation, and the length of the second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// So many random tokens before each conversation, different in each request and round, so that no prefix cache
    /// answers for a prompt that was sent before. Every prompt grows by exactly so many tokens.
    #[schemars(range(min = 2, max = 1024))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_prefix: Option<u32>,
}

/// Which requests a list of messages becomes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Turns {
    /// One: the first message of the user, and what stands before it.
    First,
    /// One: everything up to the last message of the user, given answers included.
    History,
    /// One for each message of the user, each after the server's own answer to the one before. Given answers are not
    /// sent.
    All,
}

/// Recorded requests.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TraceFile {
    /// Relative to the manifest.
    pub path: PathBuf,
    pub format: TraceFormat,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// JSON lines with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`: one for each block of 512
    /// tokens. Equal ids at the beginning of two prompts are equal text.
    Mooncake,
    /// CSV with `TIMESTAMP` (date and time), `ContextTokens` and `GeneratedTokens`.
    Azure,
    /// CSV with `Timestamp` (seconds), `Request tokens` and `Response tokens`.
    Burstgpt,
}

/// A whole number from 1: always the same, or drawn anew each time.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Amount {
    Fixed(#[schemars(range(min = 1, max = 10_000_000))] u32),
    Drawn(Distribution),
}

/// How a number is drawn: exactly one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Distribution {
    /// Each number from `min` to `max` is as likely as any other.
    Uniform(Bounds),
    /// Normal, rounded; what falls below `min` or above `max` becomes that.
    Normal(Spread),
    /// Lognormal, rounded; what falls below `min` or above `max` becomes that.
    Lognormal(Spread),
    /// One of `values`, each as likely as its weight says.
    Histogram(Histogram),
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    #[schemars(range(min = 1, max = 10_000_000))]
    pub min: u32,
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max: u32,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Spread {
    /// The mean of the numbers themselves, also for `lognormal`; before `min` and `max`.
    #[schemars(range(min = 1.0, max = 10_000_000.0))]
    pub mean: f64,
    /// The standard deviation of the numbers themselves, also for `lognormal`.
    #[schemars(range(min = 0.0, max = 10_000_000.0))]
    pub stddev: f64,
    #[schemars(range(min = 1, max = 10_000_000))]
    #[serde(default = "one")]
    pub min: u32,
    #[schemars(range(min = 1, max = 10_000_000))]
    #[serde(default = "most")]
    pub max: u32,
}

fn most() -> u32 {
    10_000_000
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    #[schemars(length(min = 1, max = 100_000), inner(range(min = 1, max = 10_000_000)))]
    pub values: Vec<u32>,
    /// One for each value; all alike by default.
    #[schemars(length(min = 1, max = 100_000), inner(range(min = 0.0, max = 1e15)))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<f64>,
}

impl<S> Data<S> {
    /// The file that prompts or lengths are read from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Synthetic(_) => None,
            Self::Jsonl(file) | Self::Sharegpt(file) | Self::HfDataset(file) | Self::Csv(file) => Some(&file.path),
            Self::Trace(file) => Some(&file.path),
        }
    }

    #[must_use]
    pub fn as_synthetic(&self) -> Option<&S> {
        match self {
            Self::Synthetic(synthetic) => Some(synthetic),
            Self::Jsonl(_) | Self::Sharegpt(_) | Self::HfDataset(_) | Self::Csv(_) | Self::Trace(_) => None,
        }
    }

    pub fn path_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Synthetic(_) => None,
            Self::Jsonl(file) | Self::Sharegpt(file) | Self::HfDataset(file) | Self::Csv(file) => Some(&mut file.path),
            Self::Trace(file) => Some(&mut file.path),
        }
    }
}

impl Data {
    /// Single prompts of `isl` random tokens.
    #[must_use]
    pub fn synthetic(isl: u32) -> Self {
        let (isl, turns) = (Amount::Fixed(isl), Amount::Fixed(1));
        Self::Synthetic(Synthetic { isl, prefix: None, turns, think_time_ms: None, token_ids: false })
    }
}

impl PromptFile {
    /// A file that is read as it comes.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            column: None,
            answer_column: None,
            turns: None,
            think_time_ms: None,
            sampler: None,
            unique_prefix: None,
        }
    }
}

impl Amount {
    /// The number, if it is always the same.
    #[must_use]
    pub fn fixed(&self) -> Option<u32> {
        match self {
            Self::Fixed(number) => Some(*number),
            Self::Drawn(_) => None,
        }
    }

    /// The largest number that can come.
    #[must_use]
    pub fn largest(&self) -> u32 {
        match self {
            Self::Fixed(number) => *number,
            Self::Drawn(Distribution::Uniform(bounds)) => bounds.max,
            Self::Drawn(Distribution::Normal(spread) | Distribution::Lognormal(spread)) => spread.max,
            Self::Drawn(Distribution::Histogram(histogram)) => histogram.values.iter().copied().max().unwrap_or(1),
        }
    }
}
