//! The load generator against servers with scripted answers.

#![expect(clippy::unwrap_used, reason = "a test may panic, and so may what it is built of")]

mod driver;
mod grpc;
mod grpc_server;
mod http;
mod http_server;
mod lmdeploy;
mod methods;
mod open;
mod turns;

use std::fs;
use std::sync::Arc;

use benchrun::load::{self, LoadJob, PointRun, RecordSink, Target};
use benchrun::record::RequestRecord;
use benchrun::spec::{Arrival, Data, LoadPoint, Output, OutputMode, OutputTokens, Protocol, Sampling, Volume};
use benchrun::workload::{Prompt, Workload};
use tokio_util::sync::CancellationToken;

/// A load point of one request at a time, which tests change as they need.
fn point(protocol: Protocol) -> LoadPoint {
    LoadPoint {
        phase: "load".to_owned(),
        method: None,
        protocol,
        streaming: true,
        data: Data::synthetic(1),
        output: Output { mode: OutputMode::AtMost, tokens: OutputTokens::fixed(3) },
        sampling: Sampling::default(),
        beam_width: 1,
        arrival: Arrival::Closed { concurrency: 1 },
        volume: Volume::Requests(1),
        drain_s: None,
        warmup_requests: 0,
        round: 1,
        prompt_seed: 0,
        sampling_seed: 7,
        arrival_seed: 7,
        cold_connections: false,
        retries: 0,
        idle_timeout_s: None,
        request_timeout_s: 30.0,
        point_timeout_s: 60.0,
    }
}

/// `point` with the prompts `p0`, `p1`, `p2`.
fn job(url: &str, point: LoadPoint) -> LoadJob {
    let prompts: Vec<Prompt> = (0..3).map(|number| Prompt::of_text(format!("p{number}"), Some(1))).collect();
    let target = Target { protocol: point.protocol, base_url: url.to_owned(), model: "tiny".to_owned() };
    let workload = Workload { prompts: Arc::from(prompts), due_ns: None };
    LoadJob { target, point, workload, tokenizer: None }
}

/// Runs `point` and reads its records back, in order of sending.
async fn run(url: &str, point: LoadPoint, cancel: CancellationToken) -> (PointRun, Vec<RequestRecord>) {
    run_job(job(url, point), cancel).await
}

async fn run_job(job: LoadJob, cancel: CancellationToken) -> (PointRun, Vec<RequestRecord>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl");
    let (ended, last_progress) = std::sync::mpsc::channel();
    let progress = move |requests| ended.send(requests).unwrap();
    let outcome = load::run(job, RecordSink::create(&path).unwrap(), progress, cancel).await.unwrap();

    let text = fs::read_to_string(&path).unwrap();
    let mut records: Vec<RequestRecord> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.sort_by_key(|record| record.request);
    assert_eq!(outcome.records, records.len() as u64);
    assert_eq!(last_progress.iter().last().unwrap_or_default(), outcome.records);
    (outcome, records)
}

/// The one record of a point with one request.
async fn run_one(url: &str, point: LoadPoint) -> RequestRecord {
    let (_, mut records) = run(url, point, CancellationToken::new()).await;
    assert_eq!(records.len(), 1);
    records.remove(0)
}

/// Why `point` cannot be carried out at all.
async fn run_to_error(url: &str, point: LoadPoint) -> String {
    run_into("/dev/null", url, point).await
}

async fn run_into(file: &str, url: &str, point: LoadPoint) -> String {
    let sink = RecordSink::create(file.as_ref()).unwrap();
    load::run(job(url, point), sink, |_| {}, CancellationToken::new()).await.unwrap_err().to_string()
}

#[track_caller]
fn check_error(record: &RequestRecord, kind: &str, part_of_message: &str) {
    let error = record.error.as_ref().expect("the request failed");
    assert_eq!(error.kind, kind, "{error:?}");
    assert!(error.message.contains(part_of_message), "{error:?}");
}

/// Times of a record rise, whatever happened.
#[track_caller]
fn check_times(record: &RequestRecord) {
    let mut times = vec![record.due_ns, record.sent_ns];
    times.extend(record.first_response_ns);
    times.extend(&record.chunk_ns);
    times.push(record.end_ns);
    assert!(times.is_sorted(), "{times:?}");
}
