//! `benchrun bench` against a server that is up already.

use std::fs;
use std::net::TcpListener;

use serde_json::Value;

use crate::env::{TestEnv, column, json, json_lines};
use crate::served::serve;

#[test]
fn prompts_of_a_file_go_over_grpc_and_http() {
    let served = serve();
    let env = &served.env;
    // As in the guide's data, the last line has no end.
    env.write(
        "prompts.jsonl",
        "{\"text_input\": \"one two\"}\n{\"text_input\": \"three\"}\n{\"text_input\": \"four\"}",
    );
    for (wire, url, protocol) in [
        ("grpc", &served.grpc, "triton-grpc"),
        ("http", &served.http, "triton-generate"),
        ("http-stream", &served.http, "triton-generate-stream"),
        ("openai", &served.http, "openai-completions"),
        ("openai-chat", &served.http, "openai-chat"),
    ] {
        let model = if protocol.starts_with("triton") { "ensemble" } else { "model" };
        let common = ["bench", "-u", url, "-i", wire, "-m", model, "--concurrency", "1,2", "--max-tokens", "4"];
        let files =
            ["--input-data", "prompts.jsonl", "--tokenizer-path", "model", "--profile-export-file", "my export.json"];
        env.expect(0, &[&common[..], &files].concat()).says("concurrency 2: 5 requests").says("results.csv");
        let rows = env.rows("bench");
        assert_eq!(column(&rows, "status"), ["ok", "ok"], "{wire}");
        assert_eq!(column(&rows, "protocol"), [protocol, protocol]);
        assert_eq!(column(&rows, "concurrency"), ["1", "2"]);
        assert_eq!(column(&rows, "requests_ok"), ["3", "3"], "every prompt once");
        check_export(
            &json(&env.path("my export.json")),
            protocol,
            &rows.iter().map(|row| &row["output_tokens"]).collect::<Vec<_>>(),
        );
        fs::remove_file(env.path("my export.json")).unwrap();
    }
}

/// What readers of perf_analyzer's export need is there.
fn check_export(export: &Value, protocol: &str, output_tokens: &[&String]) {
    assert_eq!(export["service_kind"], if protocol.starts_with("triton") { "triton" } else { "openai" });
    let experiments = export["experiments"].as_array().unwrap();
    assert_eq!(experiments.len(), 2);
    for (concurrency, (experiment, tokens)) in (1..).zip(experiments.iter().zip(output_tokens)) {
        assert_eq!(experiment["experiment"]["mode"], "concurrency");
        assert_eq!(experiment["experiment"]["value"], concurrency);
        let requests = experiment["requests"].as_array().unwrap();
        assert_eq!(requests.len(), 3, "warm-up is no part of an export");
        for request in requests {
            let sent = request["timestamp"].as_u64().unwrap();
            let answers = request["response_timestamps"].as_array().unwrap();
            let answers: Vec<u64> = answers.iter().map(|time| time.as_u64().unwrap()).collect();
            assert!(!answers.is_empty() && answers.is_sorted() && sent < answers[0], "{request}");
            assert!(!request["response_outputs"][0]["text_output"].as_str().unwrap().is_empty());
        }
        assert!(tokens.parse::<u64>().unwrap() <= 12);
    }
}

#[test]
fn made_prompts_have_exactly_the_tokens_asked_for() {
    let served = serve();
    let env = &served.env;
    for (wire, url, model) in [("grpc", &served.grpc, "ensemble"), ("openai", &served.http, "model")] {
        let common = ["bench", "-u", url, "-i", wire, "-m", model, "--concurrency", "2", "--tokenizer-path", "model"];
        let lengths = ["--isl", "9", "--max-tokens", "5", "--exact", "--requests", "4", "--warmup-requests", "1"];
        env.expect(0, &[&common[..], &lengths].concat());
        let rows = env.rows("bench");
        assert_eq!(column(&rows, "input_tokens_mean"), ["9.0"]);
        assert_eq!(column(&rows, "output_tokens_mean"), ["5.0"]);
        let requests = json_lines(&env.latest("bench").join("cells/server/bench/c2/requests.jsonl"));
        assert_eq!(requests.iter().filter(|line| line["kind"] == "warmup").count(), 1);
        assert_eq!(requests.len(), 5);
    }
    let before = fs::read_to_string(env.latest("bench").join("results.csv")).unwrap();
    assert_eq!(env.expect(0, &["report", "bench", "--format", "csv"]).stdout, before);
}

#[test]
fn a_dead_server_fails_with_what_happened() {
    let env = TestEnv::new();
    env.write("prompts.jsonl", "{\"text_input\": \"one\"}");
    // Nobody listens on a port that was just given back.
    let url = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for wire in ["openai", "http", "grpc"] {
        let args = ["bench", "-u", &url, "-i", wire, "-m", "m", "--input-data", "prompts.jsonl", "--max-tokens", "4"];
        let ended = env.expect(4, &args);
        let said = ended.stdout + &ended.stderr;
        assert!(said.to_lowercase().contains("connection refused"), "{wire}: {said}");
    }
}

#[test]
fn what_cannot_be_sent_is_refused() {
    let env = TestEnv::new();
    let url = "http://127.0.0.1:1";
    env.expect(2, &["bench", "-u", url, "-m", "m"]).says("there is nothing to send").says("--input-data");
    env.expect(2, &["bench", "-u", url, "-m", "m", "--isl", "4"]).says("--tokenizer-path");
    env.expect(2, &["bench", "-u", url, "-m", "m", "--concurrency", "0"]).says("--concurrency");
    env.expect(2, &["bench", "-u", url, "-i", "smoke", "-m", "m"]).says("smoke").says("grpc");
    env.write("bad.jsonl", "{\"text_input\": \"one\"}\nnonsense\n");
    env.expect(3, &["bench", "-u", url, "-m", "m", "--input-data", "bad.jsonl"]).says("line 2 of `bad.jsonl`");
}
