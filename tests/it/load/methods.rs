//! The requests of LMDeploy's scripts, as scripts/lmdeploy_oracle.py recorded them.

use std::fs;
use std::path::{Path, PathBuf};

use benchrun::load::{LoadJob, Target};
use benchrun::spec::{Arrival, Data, LoadPoint, Method, Output, OutputMode, OutputTokens, PromptFile, Volume};
use benchrun::workload::{AnswerLengths, Source, Tokenizer, make};
use tokio_util::sync::CancellationToken;

use super::http_server::{Script, Server};
use super::{point, run_job};

const REQUESTS: u64 = 20;

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What the script of `method` sends for the recorded conversations, one after the other.
pub(super) fn load(method: Method, seed: u64) -> LoadPoint {
    let arrival = Arrival::Closed { concurrency: 1 };
    let defaults = method.defaults();
    let talks = PromptFile::at(root().join("tests/it/fixtures/lmdeploy/talks.json"));
    LoadPoint {
        method: Some(method),
        data: Data::Sharegpt(PromptFile { sampler: defaults.sampler, ..talks }),
        output: Output { mode: OutputMode::Exact, tokens: OutputTokens::FROM_DATA },
        sampling: defaults.sampling,
        volume: Volume::Requests(REQUESTS),
        warmup_requests: defaults.amount.warmup_requests(&arrival),
        arrival,
        prompt_seed: seed,
        cold_connections: defaults.cold_connections,
        ..point(defaults.protocol)
    }
}

pub(super) fn job(url: &str, point: LoadPoint) -> LoadJob {
    let path = point.data.path().map(PathBuf::from).unwrap();
    let source = Source::read(&point.data, AnswerLengths::Needed, &path).unwrap();
    let tokenizer = Tokenizer::load(&root().join("src/dummy")).unwrap();
    let workload = make(&point, source.as_ref(), Ok(&tokenizer)).unwrap();
    let target = Target { protocol: point.protocol, base_url: url.to_owned(), model: "tiny".to_owned() };
    LoadJob { target, point, workload, tokenizer: None }
}

/// The bodies in the order in which they came, field by field.
async fn sent(point: LoadPoint) -> Vec<String> {
    let server =
        Server::start(|_| Script::stream(&["data: {\"choices\": [{\"text\": \"a\"}]}\n\n", "data: [DONE]\n\n"])).await;
    let job = job(&server.url, point);
    let requests = job.workload.prompts.len();
    run_job(job, CancellationToken::new()).await;
    let seen = server.seen();
    assert_eq!(seen.connections, requests, "each has a connection of its own");
    seen.bodies.iter().map(ToString::to_string).collect()
}

fn recorded(version: &str) -> Vec<String> {
    let path = root().join(format!("tests/it/fixtures/lmdeploy/{version}.jsonl"));
    let line = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap().to_string();
    fs::read_to_string(path).unwrap().lines().map(line).collect()
}

#[tokio::test]
async fn the_client_of_2023_is_reproduced() {
    let point = load(Method::Api, 0);
    assert_eq!(sent(point).await, recorded("v0.1.0"));
}

#[tokio::test]
async fn todays_client_is_reproduced() {
    assert_eq!(sent(load(Method::Serving, 1)).await, recorded("v0.16.0"));
}
