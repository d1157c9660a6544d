use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::NAME;
use super::script::ScriptFile;
use crate::cli::args::{BenchArgs, Wire};
use crate::cli::failure::Failure;
use crate::spec::{
    Arrival, Data, LoadPoint, Output, OutputMode, OutputTokens, PromptFile, Protocol, Sampling, Spacing, Volume,
};
use crate::workload::{AnswerLengths, Source, Tokenizer};

/// What `bench` is to do, whichever command line says it.
pub(super) struct Task {
    pub(super) url: String,
    /// Its name on the server.
    pub(super) model: String,
    pub(super) metrics_url: Option<String>,
    /// As the rows of the results name it.
    pub(super) engine: String,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// `None` for synthetic prompts.
    pub(super) source: Option<Source>,
    /// One at least, all of one protocol.
    pub(super) points: Vec<LoadPoint>,
    /// Between two of them.
    pub(super) pause: Duration,
    /// Where every request's times go in the form of perf_analyzer's profile export.
    pub(super) export: Option<PathBuf>,
    /// Of a published method.
    pub(super) csv: Option<ScriptFile>,
    /// What of the command line changes nothing.
    pub(super) notes: Vec<String>,
}

impl Task {
    pub(super) fn export_failed(&self, source: io::Error) -> Failure {
        Failure::File { doing: "write", path: self.export.clone().unwrap_or_default(), source }
    }
}

/// Reads and checks the data file.
pub(super) fn of_flags(mut args: BenchArgs) -> Result<Task, Failure> {
    let tokenizer = args.tokenizer_path.as_deref().map(Tokenizer::load).transpose()?.map(Arc::new);
    let source = source(&args)?;
    args.concurrency.sort_unstable();
    args.concurrency.dedup();
    let closed = args.concurrency.iter().map(|&concurrency| Arrival::Closed { concurrency });
    let open = args.request_rate.iter().map(|&rate| Arrival::Open {
        spacing: Spacing::default(),
        rate,
        max_concurrency: None,
    });
    let arrivals: Vec<Arrival> = if args.request_rate.is_empty() { closed.collect() } else { open.collect() };
    let all = source.as_ref().map_or(0, Source::requests);
    Ok(Task {
        points: arrivals.into_iter().map(|arrival| point(&args, all, arrival)).collect(),
        pause: Duration::from_secs(args.measurement_interval.into()),
        url: args.url,
        model: args.model,
        metrics_url: args.metrics_url,
        engine: "endpoint".to_owned(),
        tokenizer,
        source,
        export: args.profile_export_file,
        csv: None,
        notes: Vec::new(),
    })
}

/// `None` for synthetic prompts.
fn source(args: &BenchArgs) -> Result<Option<Source>, Failure> {
    if args.input_data.is_none() && args.isl.is_none() {
        return Err(Failure::Usage {
            problem: "there is nothing to send".to_owned(),
            hint: "give `--input-data FILE.jsonl`, or `--isl TOKENS --tokenizer-path DIR`".to_owned(),
        });
    }
    let data = data(args);
    let path = data.path().unwrap_or(Path::new(""));
    Source::read(&data, AnswerLengths::Optional, path).map_err(Failure::Prompts)
}

fn data(args: &BenchArgs) -> Data {
    match &args.input_data {
        Some(path) => Data::Jsonl(PromptFile::at(path.clone())),
        None => Data::synthetic(args.isl.unwrap_or_default()),
    }
}

/// `all` requests are in the data file.
fn point(args: &BenchArgs, all: u64, arrival: Arrival) -> LoadPoint {
    let concurrency = u64::from(arrival.concurrency().unwrap_or_default());
    let requests = || Volume::Requests(args.requests.unwrap_or(all.max(concurrency).max(1)));
    let mode = if args.exact { OutputMode::Exact } else { OutputMode::AtMost };
    LoadPoint {
        phase: NAME.to_owned(),
        method: None,
        protocol: protocol(args.protocol),
        streaming: true,
        data: data(args),
        output: Output { mode, tokens: OutputTokens::fixed(args.max_tokens) },
        sampling: Sampling::default(),
        beam_width: 1,
        arrival,
        volume: args.duration.map_or_else(requests, |duration| Volume::DurationS(duration.as_secs_f64())),
        drain_s: None,
        warmup_requests: args.warmup_requests.unwrap_or(concurrency),
        round: 1,
        prompt_seed: args.seed,
        sampling_seed: args.seed,
        arrival_seed: args.seed,
        cold_connections: false,
        retries: 0,
        idle_timeout_s: None,
        request_timeout_s: f64::from(args.request_timeout),
        point_timeout_s: 24.0 * 3600.0,
    }
}

fn protocol(wire: Wire) -> Protocol {
    match wire {
        Wire::Grpc => Protocol::TritonGrpc,
        Wire::Http => Protocol::TritonGenerate,
        Wire::HttpStream => Protocol::TritonGenerateStream,
        Wire::Openai => Protocol::OpenaiCompletions,
        Wire::OpenaiChat => Protocol::OpenaiChat,
    }
}
