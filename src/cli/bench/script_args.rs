//! The command lines of LMDeploy's benchmark scripts: their names of flags and their defaults.

use std::path::PathBuf;

use clap::{ArgAction, Args, Subcommand, ValueEnum};

/// A script, by the name of its method.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Script {
    /// `profile_restful_api.py` of LMDeploy v0.1.0.
    #[command(name = "lmdeploy-api@v0.1.0", visible_alias = "lmdeploy-api")]
    Api(ApiArgs),
    /// The same script of v0.1.0a1: other columns.
    #[command(name = "lmdeploy-api@v0.1.0a1")]
    ApiA1(ApiArgs),
    /// `profile_restful_api.py` of LMDeploy v0.16.0.
    #[command(name = "lmdeploy-api@v0.16.0")]
    Serving(ServingArgs),
    /// `profile_generation.py` of LMDeploy v0.1.0, over HTTP.
    #[command(name = "lmdeploy-static@v0.1.0", visible_alias = "lmdeploy-static")]
    Static(StaticArgs),
    /// The same script of v0.1.0a1: other rounds and columns.
    #[command(name = "lmdeploy-static@v0.1.0a1")]
    StaticA1(StaticArgs),
    /// `profile_throughput.py` of LMDeploy at 223831aca, over HTTP.
    #[command(name = "lmdeploy-throughput@223831aca", visible_alias = "lmdeploy-throughput")]
    Throughput(ThroughputArgs),
    /// `profile_serving.py` of LMDeploy v0.1.0.
    #[command(name = "lmdeploy-tis@v0.1.0", visible_alias = "lmdeploy-tis")]
    Tis(TisArgs),
    /// The same script of v0.1.0a1: other columns.
    #[command(name = "lmdeploy-tis@v0.1.0a1")]
    TisA1(TisArgs),
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ApiArgs {
    /// The server: `http://0.0.0.0:23333`.
    pub server_addr: String,
    /// Folder with the model's `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// The ShareGPT file.
    pub dataset: PathBuf,
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    #[arg(long, alias = "num_prompts", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub num_prompts: u64,
    #[arg(long, alias = "top_p", default_value_t = 1.0)]
    pub top_p: f64,
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    #[command(flatten)]
    pub stream: StreamOutput,
    #[arg(long, value_name = "FILE", default_value = "./profile_api_server.csv")]
    pub csv: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// As the scripts' command line reads a `bool`.
#[derive(Args, Debug)]
pub(in crate::cli) struct StreamOutput {
    /// Ask for tokens as they are made.
    #[arg(
        long,
        alias = "stream_output",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "True|False",
        ignore_case = true,
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    stream_output: Option<bool>,
    #[arg(long, alias = "nostream_output", hide = true, conflicts_with = "stream_output")]
    nostream_output: bool,
}

impl StreamOutput {
    pub(super) fn or(&self, default: bool) -> bool {
        !self.nostream_output && self.stream_output.unwrap_or(default)
    }
}

#[derive(Args, Debug)]
pub(in crate::cli) struct TisArgs {
    /// The Triton server's gRPC address: `0.0.0.0:33337`.
    pub server_addr: String,
    /// Folder with the model's `tokenizer.json`.
    pub tokenizer_path: PathBuf,
    /// The ShareGPT file.
    pub dataset: PathBuf,
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    #[arg(long, alias = "num_prompts", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub num_prompts: u64,
    #[arg(long, alias = "top_k", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: u32,
    #[arg(long, alias = "top_p", default_value_t = 1.0)]
    pub top_p: f64,
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    #[command(flatten)]
    pub stream: StreamOutput,
    #[arg(long, value_name = "FILE", default_value = "./profile_tis.csv")]
    pub csv: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
}

/// The server that does what the script's own engine did.
#[derive(Args, Debug)]
pub(in crate::cli) struct Served {
    /// The server. (The script has its engine in its own process.)
    #[arg(short = 'u', long, default_value = "http://0.0.0.0:23333")]
    pub url: String,
    /// The server decides this.
    #[arg(long, value_name = "NUMBER")]
    pub tp: Option<u32>,
    /// The server decides this.
    #[arg(long, alias = "log_level", value_name = "LEVEL")]
    pub log_level: Option<String>,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct StaticArgs {
    /// Folder with the model's `tokenizer.json`.
    pub model_path: PathBuf,
    #[command(flatten)]
    pub served: Served,
    #[arg(long, num_args = 1.., default_values_t = [1, 16, 32, 64], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: Vec<u32>,
    /// One for each of `--completion-tokens`.
    #[arg(long, num_args = 1.., default_values_t = [1, 128, 128, 2048, 2048], value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: Vec<u32>,
    #[arg(long, num_args = 1.., default_values_t = [128, 128, 2048, 128, 2048], value_parser = clap::value_parser!(u32).range(1..))]
    pub completion_tokens: Vec<u32>,
    #[arg(long = "top_k", alias = "top-k", value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: Option<u32>,
    #[arg(long = "top_p", alias = "top-p")]
    pub top_p: Option<f64>,
    #[arg(long)]
    pub temperature: Option<f64>,
    #[arg(long, value_name = "FILE", default_value = "profile_generation.csv")]
    pub csv: PathBuf,
    /// Rounds of each worker: 6, of v0.1.0a1 10.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub test_round: Option<u64>,
    /// Rounds of each worker beforehand: 1, of v0.1.0a1 2, where it is no flag.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=100_000))]
    pub warmup_round: Option<u64>,
    /// Send ids of tokens, as the script does, in place of text of as many tokens. The server has to take them.
    #[arg(long)]
    pub token_ids: bool,
}

#[derive(Args, Debug)]
pub(in crate::cli) struct ThroughputArgs {
    /// The ShareGPT file.
    pub dataset: PathBuf,
    /// Folder with the model's `tokenizer.json`.
    pub model_path: PathBuf,
    #[command(flatten)]
    pub served: Served,
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub concurrency: u32,
    #[arg(long, alias = "num_prompts", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub num_prompts: u64,
    #[arg(long, alias = "top_k", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub top_k: u32,
    #[arg(long, alias = "top_p", default_value_t = 1.0)]
    pub top_p: f64,
    #[arg(long, default_value_t = 1.0)]
    pub temperature: f64,
    #[command(flatten)]
    pub stream: StreamOutput,
    #[arg(long, value_name = "FILE", default_value = "./profile_throughput.csv")]
    pub csv: PathBuf,
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The server decides this.
    #[arg(long, alias = "cache_count", value_name = "SHARE")]
    pub cache_count: Option<f64>,
    /// The server decides this.
    #[arg(long, alias = "model_format", value_name = "FORMAT")]
    pub model_format: Option<String>,
}

#[derive(Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(in crate::cli) struct ServingArgs {
    #[arg(long, value_enum, default_value_t = Backend::Sglang)]
    pub backend: Backend,
    /// The server, if not by `--host` and `--port`.
    #[arg(long, value_name = "URL")]
    pub base_url: Option<String>,
    #[arg(long, default_value = "0.0.0.0")]
    pub host: String,
    /// The backend's own if absent.
    #[arg(long)]
    pub port: Option<u16>,
    #[arg(long, value_enum, default_value_t = DatasetName::Sharegpt)]
    pub dataset_name: DatasetName,
    /// The ShareGPT file.
    #[arg(long, value_name = "FILE")]
    pub dataset_path: Option<PathBuf>,
    /// The model's name on the server; the first of its models if absent.
    #[arg(long)]
    pub model: Option<String>,
    /// Folder with the model's `tokenizer.json`, if `--tokenizer` does not say.
    #[arg(long, value_name = "DIR")]
    pub model_path: Option<PathBuf>,
    /// Folder with the model's `tokenizer.json`.
    #[arg(long, value_name = "DIR")]
    pub tokenizer: Option<PathBuf>,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub num_prompts: u64,
    /// In place of the lengths in the file.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(4..))]
    pub sharegpt_output_len: Option<u32>,
    /// Flags of the data sets that are not there.
    #[arg(
        long = "random-input-len",
        aliases = [
            "random-output-len", "random-range-ratio", "image-count", "image-resolution", "image-format", "image-content",
        ],
        hide = true,
        action = ArgAction::Append
    )]
    pub of_other_data: Vec<String>,
    /// Requests a second; `inf` sends all at once.
    #[arg(long, default_value_t = f64::INFINITY)]
    pub request_rate: f64,
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Several rates, one after the other.
    #[arg(long)]
    pub multi: bool,
    /// For `--multi`: START,STOP,STEP, or a list that has not three numbers.
    #[arg(long, value_delimiter = ',', default_value = "2,34,2", value_parser = clap::value_parser!(u32).range(1..))]
    pub request_rate_range: Vec<u32>,
    /// The CSV file, to which lines are added; named by backend, day and requests if absent.
    #[arg(long, alias = "csv", value_name = "FILE")]
    pub output_file: Option<PathBuf>,
    /// Changes nothing.
    #[arg(long)]
    pub disable_tqdm: bool,
    #[arg(long)]
    pub disable_stream: bool,
    #[arg(long)]
    pub disable_ignore_eos: bool,
    /// Not there.
    #[arg(long, value_name = "JSON")]
    pub extra_request_body: Option<String>,
    #[arg(long)]
    pub disable_warmup: bool,
    /// Changes nothing: no code of a model runs here.
    #[arg(long)]
    pub trust_remote_code: bool,
}

/// Which server, and which of its ways of asking.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(in crate::cli) enum Backend {
    Sglang,
    SglangNative,
    SglangOai,
    SglangOaiChat,
    Vllm,
    VllmChat,
    Lmdeploy,
    LmdeployChat,
    Trt,
    Gserver,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(in crate::cli) enum DatasetName {
    Sharegpt,
    Random,
    Image,
}
