use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::args::{BenchArgs, Wire};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color, width};
use super::{block_on, signals};
use crate::base::{CellId, Scalar, write_atomically};
use crate::event::Event;
use crate::load::{self, CutOff, LoadJob, RecordSink, Target};
use crate::observe::{Observation, Sent, Watch};
use crate::record::{PointRecord, PointStatus, RequestKind, RequestRecord};
use crate::report::{self, Row};
use crate::spec::{
    Arrival, Data, LoadPoint, Output as Length, OutputMode, OutputTokens, PromptFile, Protocol, Sampling, Volume,
};
use crate::store::{EventLog, RunFolder, Runs};
use crate::workload::{self, AnswerLengths, Source, Tokenizer, Workload};

/// The name that runs without a manifest are kept under, and their phase.
const NAME: &str = "bench";
/// Between two reads of the server's metrics.
const METRICS_PAUSE: Duration = Duration::from_secs(1);

/// Puts load on a server that is up; keeps records as `apply` does.
pub(super) fn run(mut args: BenchArgs, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let tokenizer = args.tokenizer_path.as_deref().map(Tokenizer::load).transpose()?.map(Arc::new);
    let source = source(&args)?;
    args.concurrency.sort_unstable();
    args.concurrency.dedup();
    let run = Runs::of_home(home).create(NAME, None)?;
    let began = Instant::now();
    let mut log = EventLog::create(&run)?;
    let cancel = CancellationToken::new();
    let mut bench = Bench { args, tokenizer, source, run, rows: Vec::new(), export: Vec::new() };
    let interrupted = block_on(async {
        let _signals = signals::listen(&cancel);
        bench.measure_all(output, &cancel).await
    })?;
    // What was measured is shown and kept, also when a later load point went wrong.
    output.line(report::table(&bench.rows, width(), color()).trim_end())?;
    output.remark(&format!("\nresults: {}", bench.run.path.join("results.csv").display()));
    bench.export()?;
    let failed = bench.rows.iter().filter(|row| row.point.status == PointStatus::Failed).count();
    log.append(Event::RunFinished {
        ok: (bench.rows.len() - failed) as u64,
        failed: failed as u64,
        unsupported: 0,
        skipped: 0,
        cached: 0,
        seconds: began.elapsed().as_secs_f64(),
    })?;
    Ok(match (interrupted?, failed > 0) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

/// The data file, read and checked; `None` for synthetic prompts.
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

struct Bench {
    args: BenchArgs,
    tokenizer: Option<Arc<Tokenizer>>,
    /// `None` for synthetic prompts.
    source: Option<Source>,
    run: RunFolder,
    rows: Vec<Row>,
    /// One experiment a load point, for the profile export.
    export: Vec<Value>,
}

impl Bench {
    /// `true` when interrupted.
    async fn measure_all(&mut self, output: &mut Output, cancel: &CancellationToken) -> Result<bool, Failure> {
        for concurrency in self.args.concurrency.clone() {
            let point = self.point(concurrency);
            let workload = self.workload(&point)?;
            output.remark(&format!("concurrency {concurrency}: {} requests", sent_in_all(&point)));
            if self.measure(&point, workload, output, cancel).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn point(&self, concurrency: u32) -> LoadPoint {
        let args = &self.args;
        let protocol = match args.protocol {
            Wire::Grpc => Protocol::TritonGrpc,
            Wire::Http => Protocol::TritonGenerate,
            Wire::HttpStream => Protocol::TritonGenerateStream,
            Wire::Openai => Protocol::OpenaiCompletions,
            Wire::OpenaiChat => Protocol::OpenaiChat,
        };
        let all = self.source.as_ref().map_or(0, Source::requests);
        let mode = if args.exact { OutputMode::Exact } else { OutputMode::AtMost };
        LoadPoint {
            phase: NAME.to_owned(),
            protocol,
            streaming: true,
            data: data(args),
            output: Length { mode, tokens: OutputTokens::fixed(args.max_tokens) },
            sampling: Sampling::default(),
            arrival: Arrival::Closed { concurrency },
            volume: Volume::Requests(args.requests.unwrap_or(all.max(u64::from(concurrency)))),
            drain_s: None,
            warmup_requests: args.warmup_requests.unwrap_or(u64::from(concurrency)),
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

    fn workload(&self, point: &LoadPoint) -> Result<Workload, Failure> {
        let tokenizer = self.tokenizer.as_deref().ok_or("give `--tokenizer-path DIR`");
        Ok(workload::make(point, self.source.as_ref(), tokenizer)?)
    }

    async fn measure(
        &mut self,
        point: &LoadPoint,
        workload: Workload,
        output: &mut Output,
        cancel: &CancellationToken,
    ) -> Result<bool, Failure> {
        let cell = CellId::new("server".to_owned());
        let folder = self.run.point(&cell, NAME, &point.arrival.label());
        fs::create_dir_all(&folder).map_err(|source| Failure::File {
            doing: "create",
            path: folder.clone(),
            source,
        })?;
        let records = folder.join("requests.jsonl");
        let base_url = with_scheme(&self.args.url);
        let hash = workload.hash(point);
        let job = LoadJob {
            target: Target { protocol: point.protocol, base_url, model: self.args.model.clone() },
            point: point.clone(),
            workload,
            tokenizer: self.tokenizer.clone(),
        };
        let observation = Observation::start(Watch {
            metrics_url: self.args.metrics_url.as_deref().map(with_scheme),
            pause: METRICS_PAUSE,
            model: self.args.model.clone(),
            series: folder.join("metrics.jsonl"),
            processes: None,
            gpus: Vec::new(),
        });
        let observation = observation.await;
        let warmup = observation.marker(point.warmup_requests);
        let progress = move |requests| warmup.ended(requests);
        let ran = load::run(job, RecordSink::create(&records)?, progress, cancel.clone()).await?;
        observation.load_ended();
        let requests = read_records(&records)?;
        let mut sent = Sent::default();
        for record in &requests {
            sent.add(record);
        }
        let (server, complaints) = observation.finish(&sent).await;
        for complaint in complaints {
            output.remark(&format!("warning: {complaint}"));
        }
        let good = requests.iter().any(|record| record.kind == RequestKind::Measure && record.error.is_none());
        let first_error = requests.iter().find_map(|record| record.error.as_ref());
        let reason = match ran.cut_off {
            Some(CutOff::Cancelled) => Some("interrupted".to_owned()),
            Some(CutOff::PointTimeout) => Some("cut off after a day".to_owned()),
            None if good => None,
            None => Some(first_error.map_or_else(String::new, |error| format!("{}: {}", error.kind, error.message))),
        };
        let record = PointRecord {
            order: self.rows.len() as u64,
            cell,
            engine: "endpoint".to_owned(),
            axes: IndexMap::from([("model".to_owned(), Scalar::Text(self.args.model.clone()))]),
            phase: NAME.to_owned(),
            load_point: point.arrival.label(),
            protocol: point.protocol,
            arrival: point.arrival.name().to_owned(),
            concurrency: point.arrival.concurrency(),
            request_rate: point.arrival.rate(),
            constant_load: point.arrival.is_constant(),
            slo: None,
            round: 1,
            series: None,
            status: if reason.is_none() { PointStatus::Ok } else { PointStatus::Failed },
            reason,
            measured_in: Some(self.run.id.clone()),
            workload: Some(hash),
            client: ran.client,
            server,
        };
        let path = folder.join("point.json");
        let text = serde_json::to_vec_pretty(&record).expect("records are plain data");
        write_atomically(&path, &text).map_err(|source| Failure::File { doing: "write", path, source })?;
        self.rows.push(report::read_point(&self.run.id, &folder)?);
        self.export.push(experiment(point, &requests));
        report::save(&self.run.id, &self.rows, &self.run.path)?;
        Ok(ran.cut_off == Some(CutOff::Cancelled))
    }

    /// Writes what `perf_analyzer --profile-export-file` writes, as far as other tools read it.
    fn export(&self) -> Result<(), Failure> {
        let Some(path) = &self.args.profile_export_file else { return Ok(()) };
        let service = match self.args.protocol {
            Wire::Grpc | Wire::Http | Wire::HttpStream => "triton",
            Wire::Openai | Wire::OpenaiChat => "openai",
        };
        let version = env!("CARGO_PKG_VERSION");
        let export = json!({"experiments": self.export, "version": version, "service_kind": service, "endpoint": ""});
        write_atomically(path, export.to_string().as_bytes()).map_err(|source| Failure::File {
            doing: "write",
            path: path.clone(),
            source,
        })
    }
}

fn sent_in_all(point: &LoadPoint) -> u64 {
    match point.volume {
        Volume::Requests(requests) => requests + point.warmup_requests,
        Volume::DurationS(_) => point.warmup_requests,
    }
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

fn read_records(path: &Path) -> Result<Vec<RequestRecord>, Failure> {
    let text =
        fs::read_to_string(path).map_err(|source| Failure::File { doing: "read", path: path.to_owned(), source })?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// Times are nanoseconds since the load point began: one clock, as the readers of these files need it.
fn experiment(point: &LoadPoint, requests: &[RequestRecord]) -> Value {
    let measured = requests.iter().filter(|record| record.kind == RequestKind::Measure && record.error.is_none());
    let requests: Vec<Value> = measured
        .map(|record| {
            json!({
                "timestamp": record.sent_ns,
                "request_inputs": {"max_tokens": point.output.tokens.number()},
                "response_timestamps": record.chunk_ns,
                "response_outputs": [{"text_output": record.output_text}],
            })
        })
        .collect();
    json!({
        "experiment": {"mode": "concurrency", "value": point.arrival.concurrency()}, "requests": requests, "window_boundaries": [],
    })
}
