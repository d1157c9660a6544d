use std::num::NonZero;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use super::bench::script_args::Script;
use crate::engine::Precision;
use crate::event::StepKind;

/// Deploys, measures and compares LLM serving setups from one manifest.
#[derive(Debug, Parser)]
#[command(name = "benchrun", version, max_term_width = 110)]
pub(super) struct Arguments {
    /// Folder of the store and of the runs.
    #[arg(
        long,
        global = true,
        env = "BENCHRUN_HOME",
        default_value = ".benchrun",
        value_name = "DIR",
        hide_env_values = true
    )]
    pub home: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a commented starter manifest that plans as it stands.
    Init(InitArgs),
    /// Read and check manifests; print every mistake at once.
    Validate(ValidateArgs),
    /// Show what a manifest comes to: cells, steps, servers, load points.
    Plan(PlanArgs),
    /// Carry a manifest out: deploy, measure, report. Goes on where an earlier run was interrupted.
    Apply(ApplyArgs),
    /// Put load on a server that is already up, without a manifest.
    Bench(Box<BenchArgs>),
    /// Explain what decides a step's key, and what changed since it last ran.
    Why(WhyArgs),
    /// Write the rendered files of one cell.
    Render(RenderArgs),
    /// Rebuild the reports of a run from its records.
    Report(ReportArgs),
    /// Compare two runs: differences, 95 % intervals and a verdict for each load point.
    Compare(CompareArgs),
    /// List, show and remove runs.
    Runs(RunsArgs),
    /// Show and clean the store of step outputs.
    Store(StoreArgs),
    /// Print the manifest's JSON Schema, for editors.
    Schema,
    /// The embedded CPU engine.
    Engine(EngineArgs),
    /// Print a shell's completion script.
    Completions(CompletionsArgs),
}

#[derive(Args, Debug)]
pub(super) struct InitArgs {
    /// Where to write it.
    #[arg(default_value = "benchrun.yaml")]
    pub path: PathBuf,
    /// The engine to write it for.
    #[arg(long, default_value = "embedded", value_name = "NAME")]
    pub engine: String,
}

#[derive(Args, Debug)]
pub(super) struct ValidateArgs {
    #[arg(required = true, value_name = "MANIFEST")]
    pub manifests: Vec<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct PlanArgs {
    pub manifest: PathBuf,
    #[arg(long, value_enum, default_value_t = PlanFormat::Text)]
    pub format: PlanFormat,
    /// Only cells with these axis values: `precision=fp8,tp=1|4`.
    #[arg(long, value_name = "EXPR")]
    pub only: Option<String>,
    /// Exit with 10 when there is work to do, with 0 when there is none.
    #[arg(long)]
    pub detailed_exitcode: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PlanFormat {
    Text,
    Json,
    /// The graph of steps, for Graphviz.
    Dot,
}

#[derive(Args, Debug)]
pub(super) struct ApplyArgs {
    pub manifest: PathBuf,
    /// Only cells with these axis values: `precision=fp8,tp=1|4`.
    #[arg(long, value_name = "EXPR")]
    pub only: Option<String>,
    /// Keep this run here instead of under the home folder.
    #[arg(long, value_name = "DIR")]
    pub run_dir: Option<PathBuf>,
    /// Stop at the first failure.
    #[arg(long)]
    pub fail_fast: bool,
    /// Do steps of this kind anew, whatever the store holds; may be given several times.
    #[arg(long, value_enum, value_name = "STEP-KIND")]
    pub rerun: Vec<Kind>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Fetch,
    Quantize,
    Build,
    Render,
    Bench,
}

impl From<Kind> for StepKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Fetch => Self::Fetch,
            Kind::Quantize => Self::Quantize,
            Kind::Build => Self::Build,
            Kind::Render => Self::Render,
            Kind::Bench => Self::Bench,
        }
    }
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct BenchArgs {
    /// The command line of one of LMDeploy's benchmark scripts, in place of the flags below.
    #[command(subcommand)]
    pub script: Option<Script>,
    /// The server: `http://127.0.0.1:8000`, or `127.0.0.1:8001`.
    #[arg(short = 'u', long, alias = "uri", default_value = "localhost:8001")]
    pub url: String,
    /// How requests travel.
    #[arg(short = 'i', long = "protocol", value_enum, ignore_case = true, default_value_t = Wire::Grpc)]
    pub protocol: Wire,
    /// The model's name on the server.
    #[arg(short = 'm', long, alias = "triton-model", default_value = "ensemble")]
    pub model: String,
    /// The server's Prometheus metrics, to put its own figures beside: `http://127.0.0.1:8000/metrics`.
    #[arg(long, value_name = "URL")]
    pub metrics_url: Option<String>,
    /// Requests under way at a time; each is a load point.
    #[arg(long, value_delimiter = ',', default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Vec<u32>,
    /// Requests a second, sent at random moments whatever the answers do (Poisson), in place of `--concurrency`; each is a
    /// load point.
    #[arg(long, value_delimiter = ',', value_name = "PER-SECOND", conflicts_with = "concurrency", value_parser = rate)]
    pub request_rate: Vec<f64>,
    /// How long each load point is measured, in place of a number of requests, like `30s`.
    #[arg(long, value_name = "DURATION", conflicts_with = "requests", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,
    /// Pause between two load points.
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(..=86_400))]
    pub measurement_interval: u32,
    /// Folder with the model's `tokenizer.json`: for synthetic prompts, and where the server does not count tokens.
    #[arg(long, value_name = "DIR")]
    pub tokenizer_path: Option<PathBuf>,
    /// Prompts: one JSON object a line with a `text_input`, a `prompt`, or `messages` of a chat, and perhaps its own
    /// `max_tokens`.
    #[arg(long, value_name = "FILE")]
    pub input_data: Option<PathBuf>,
    /// Synthetic prompts of this many tokens, instead of a file.
    #[arg(long, value_name = "TOKENS", conflicts_with = "input_data", requires = "tokenizer_path")]
    pub isl: Option<u32>,
    /// Output tokens of each request.
    #[arg(long, default_value_t = 300, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Exactly `--max-tokens` output tokens, whatever the model would stop at.
    #[arg(long)]
    pub exact: bool,
    /// Measured requests of each load point; all prompts once, and at least the concurrency, if absent.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub requests: Option<u64>,
    /// Requests before the measured ones; the concurrency if absent, none with `--request-rate`.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=10_000_000))]
    pub warmup_requests: Option<u64>,
    /// The seed of synthetic prompts.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Seconds after which a request has failed.
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub request_timeout: u32,
    /// Write every request's times in the form of perf_analyzer's profile export.
    #[arg(long, value_name = "FILE")]
    pub profile_export_file: Option<PathBuf>,
}

/// The bounds are those of a manifest.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| (1e-3..=1e6).contains(rate));
    rate.ok_or_else(|| "give a number from 0.001 to 1000000".to_owned())
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Wire {
    /// Triton, ModelStreamInfer.
    Grpc,
    /// Triton, generate.
    Http,
    /// Triton, `generate_stream`.
    HttpStream,
    /// OpenAI completions.
    Openai,
    /// OpenAI chat completions.
    OpenaiChat,
}

#[derive(Args, Debug)]
pub(super) struct WhyArgs {
    pub manifest: PathBuf,
    /// A kind of step, the start of a key, or words of a step's label; all steps if absent.
    pub step: Option<String>,
}

#[derive(Args, Debug)]
pub(super) struct RenderArgs {
    pub manifest: PathBuf,
    /// The cell, as `benchrun plan` names it.
    #[arg(long, value_name = "ID")]
    pub cell: String,
    /// The folder to write to.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct ReportArgs {
    /// A run's folder, its id, a manifest's name, or `latest`.
    #[arg(default_value = "latest")]
    pub run: String,
    #[arg(long, value_enum, default_value_t = ReportFormat::Table)]
    pub format: ReportFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ReportFormat {
    Table,
    Csv,
    Json,
}

#[derive(Args, Debug)]
pub(super) struct CompareArgs {
    /// What to compare with: a run's folder, its id, a manifest's name, or `latest`.
    pub base: String,
    /// The run to judge, named in the same way.
    pub new: String,
    #[arg(long, value_enum, default_value_t = CompareFormat::Text)]
    pub format: CompareFormat,
    /// Exit with 5 when a figure got worse beyond chance.
    #[arg(long, value_enum, value_name = "WHEN")]
    pub fail_on: Option<FailOn>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum CompareFormat {
    Text,
    Json,
    Csv,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FailOn {
    Worse,
}

#[derive(Args, Debug)]
pub(super) struct RunsArgs {
    #[command(subcommand)]
    pub command: Option<RunsCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// All runs, oldest first: what `runs` does by itself.
    List,
    /// One run: where it is and how it ended.
    Show { run: String },
    /// Remove runs. Results stay in the store until `store gc`.
    Remove {
        #[arg(required = true)]
        runs: Vec<String>,
    },
}

#[derive(Args, Debug)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    pub command: Option<StoreCommand>,
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// Every output with its size.
    List,
    /// Bytes by kind of step: what `store` does by itself.
    Size,
    /// Remove outputs that no run refers to.
    Gc {
        /// Only say what would be removed.
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Args, Debug)]
pub(super) struct EngineArgs {
    #[command(subcommand)]
    pub command: EngineCommand,
}

#[derive(Debug, Subcommand)]
pub(super) enum EngineCommand {
    /// Make a model with random weights and a real tokenizer.
    Dummy {
        /// The Hugging Face folder to make.
        out: PathBuf,
        /// A Hugging Face `config.json`; a small Qwen2 if absent.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        #[arg(long, default_value_t = 0)]
        seed: u64,
    },
    /// Write a model's weights in another precision.
    Quantize {
        /// A Hugging Face folder.
        model: PathBuf,
        /// fp32, fp16 or int8_wo.
        #[arg(long)]
        precision: Precision,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make the servable artefact of a checkpoint.
    Build {
        checkpoint: PathBuf,
        /// Sequences computed at a time.
        #[arg(long)]
        max_batch_size: usize,
        /// Input and output tokens of a sequence together.
        #[arg(long)]
        max_seq_len: usize,
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Serve a built engine or a Hugging Face folder: OpenAI and Triton HTTP on one port, Triton gRPC on another.
    Serve(ServeArgs),
    /// Serve without a model, on an exact timetable, to measure clients: all protocols on one port.
    #[command(long_flag = "null")]
    Null(NullArgs),
}

#[derive(Args, Debug)]
pub(super) struct NullArgs {
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    /// 0 is any free port.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// Write the address that is served, as JSON, once it is open.
    #[arg(long, value_name = "FILE")]
    pub port_file: Option<PathBuf>,
    /// From a request's arrival to its first chunk, like `20ms`.
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttft: Duration,
    /// How much longer that takes at most, evenly spread over the requests.
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub ttft_spread: Duration,
    /// From one chunk to the next; 0 is as fast as possible.
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub itl: Duration,
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub tokens_per_chunk: NonZero<u32>,
    /// Text of a whole chunk, in bytes; a token has two at least.
    #[arg(long, default_value_t = 5, value_name = "NUMBER")]
    pub chunk_bytes: u32,
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub threads: NonZero<usize>,
    /// Write when each request came and when each of its chunks left: JSON lines, in nanoseconds of CLOCK_MONOTONIC.
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct ServeArgs {
    pub folder: PathBuf,
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, default_value_t = 8000)]
    pub http_port: u16,
    #[arg(long, default_value_t = 8001)]
    pub grpc_port: u16,
    /// A YAML file with `served_model`, `max_batch_size` and `threads`; the flags below win.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The model's name in requests; the folder's name if nothing says.
    #[arg(long, value_name = "NAME")]
    pub served_model: Option<String>,
    /// Sequences computed at a time; others wait their turn.
    #[arg(long)]
    pub max_batch_size: Option<usize>,
    /// CPU threads; all cores if 0 or absent.
    #[arg(long)]
    pub threads: Option<usize>,
}

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    pub shell: Shell,
}
