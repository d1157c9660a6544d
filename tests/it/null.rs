//! The null server in another process: every protocol of the load generator, on the timetable that it was told.

use std::collections::HashMap;

use rustix::process::Signal;
use serde_json::Value;

use crate::env::{Running, TestEnv, column, eventually, json, json_lines};

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

struct Null {
    env: TestEnv,
    url: String,
    server: Running,
}

/// `spelling` is the subcommand.
fn serve(spelling: &str, flags: &[&str]) -> Null {
    let env = TestEnv::new();
    let common = ["engine", spelling, "--port", "0", "--port-file", "port.json", "--truth", "truth.jsonl"];
    let server = env.start(env.command(&[&common[..], flags].concat()));
    eventually("the server writes its port", || env.path("port.json").exists());
    let url = format!("http://{}", json(&env.path("port.json"))["address"].as_str().unwrap());
    Null { env, url, server }
}

/// A load point as its client saw it.
struct Seen {
    /// The zero of its times on CLOCK_MONOTONIC.
    began_ns: u64,
    measured: Vec<Value>,
}

impl Null {
    /// Measures 12 requests of 7 tokens, 4 at a time.
    fn measure(&self, wire: &str) -> Seen {
        let env = &self.env;
        env.write("prompts.jsonl", "{\"text_input\": \"one two\"}\n{\"text_input\": \"three four\"}\n");
        let server = ["bench", "-u", &self.url, "-i", wire, "-m", "any", "--input-data", "prompts.jsonl"];
        let load = ["--concurrency", "4", "--requests", "12", "--max-tokens", "7", "--exact"];
        env.expect(0, &[&server[..], &load].concat());
        let rows = env.rows("bench");
        assert_eq!(column(&rows, "requests_ok"), ["12"], "{wire}");
        assert_eq!(column(&rows, "output_tokens_mean"), ["7.0"], "{wire}");
        assert!(column(&rows, "output_tokens_source")[0].starts_with("server_"), "the server counts: {wire}");
        let folder = env.latest("bench").join("cells/server/bench/c4");
        let mut measured = json_lines(&folder.join("requests.jsonl"));
        measured.retain(|record| record["kind"] == "measure");
        let began_ns = json(&folder.join("point.json"))["client"]["began_monotonic_ns"].as_u64().unwrap();
        Seen { began_ns, measured }
    }

    /// Ends the server. What it wrote: the requests of each protocol by the client's number.
    fn truth(self) -> HashMap<(String, String), Value> {
        self.server.signal(Signal::TERM);
        self.server.end().expect(0);
        let lines = json_lines(&self.env.path("truth.jsonl"));
        assert_eq!(lines[0]["monotonic_start_ns"], 0);
        let name = |line: &Value, field: &str| line[field].as_str().unwrap().to_owned();
        lines[1..].iter().map(|line| ((name(line, "protocol"), name(line, "client_id")), line.clone())).collect()
    }
}

fn times(request: &Value, field: &str) -> Vec<u64> {
    request[field].as_array().unwrap().iter().map(|time| time.as_u64().unwrap()).collect()
}

#[test]
fn every_protocol_gets_its_chunks_when_they_are_due_and_not_before() {
    let flags = ["--ttft", "20ms", "--itl", "5ms", "--tokens-per-chunk", "2", "--chunk-bytes", "12"];
    let null = serve("--null", &flags);
    let wires = [
        ("openai", "openai-completions", 4),
        ("openai-chat", "openai-chat", 4),
        ("http-stream", "triton-generate-stream", 4),
        ("grpc", "triton-grpc", 4),
        ("http", "triton-generate", 1),
    ];
    let seen = wires.map(|(wire, protocol, chunks)| (protocol, chunks, null.measure(wire)));
    let truth = null.truth();
    for (protocol, chunks, Seen { began_ns, measured }) in seen {
        assert_eq!(measured.len(), 12, "{protocol}");
        for record in measured {
            let told = &truth[&(protocol.to_owned(), record["request"].to_string())];
            assert_eq!(told["complete"], true, "{told}");
            assert_eq!(record["output_text"], " nulln".repeat(7), "{protocol}");
            let arrival = told["arrival_ns"].as_u64().unwrap();
            assert!(began_ns + record["sent_ns"].as_u64().unwrap() <= arrival, "{protocol}: {told}");
            let sent = times(told, "chunks_ns");
            assert_eq!(sent.len(), chunks, "{protocol}: {told}");
            // An answer in one piece comes when its last chunk would.
            let due = |index: usize| arrival + 20 * MS + (index + 4 - chunks) as u64 * 5 * MS;
            assert!(sent.iter().enumerate().all(|(index, at)| *at >= due(index)), "{protocol}: {told}");
            let received = times(&record, "chunk_ns");
            if chunks > 1 {
                assert_eq!(received.len(), chunks, "{protocol}: a chunk is one write, and so one read");
            }
            assert!(received.iter().zip(&sent).all(|(at, sent)| began_ns + at >= *sent), "{protocol}: {record}");
        }
    }
}

#[test]
fn without_a_timetable_chunks_come_as_fast_as_they_can() {
    let null = serve("null", &["--threads", "2"]);
    for wire in ["openai", "grpc"] {
        let seen = null.measure(wire);
        assert!(seen.measured.iter().all(|record| record["output_text"] == " null".repeat(7)), "{wire}");
    }
    assert!(null.truth().values().all(|told| times(told, "chunks_ns").len() == 7));
}

#[test]
fn a_port_that_is_taken_ends_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    TestEnv::new().expect(4, &["engine", "--null", "--port", &port]).says("cannot listen on port");
}
