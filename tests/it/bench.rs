//! `benchrun bench` against a server that is up already.

use std::fs;
use std::net::TcpListener;

use serde_json::{Value, json};

use crate::env::{TestEnv, column, json as read_json, json_lines};
use crate::served::serve;

const PROMPTS: [&str; 3] = ["one two", "three", "four"];

#[test]
fn prompts_of_a_file_go_over_grpc_and_http() {
    let served = serve();
    let env = &served.env;
    // As in the guide's data, the last line has no end.
    env.write("prompts.jsonl", &PROMPTS.map(|prompt| json!({"text_input": prompt}).to_string()).join("\n"));
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
        env.expect(0, &[&common[..], &files].concat())
            .says("concurrency 2: 5 requests")
            .says("warning: c2: 5 requests share 3 prompts")
            .says("results.csv");
        let rows = env.rows("bench");
        assert_eq!(column(&rows, "status"), ["ok", "ok"], "{wire}");
        assert_eq!(column(&rows, "protocol"), [protocol, protocol]);
        assert_eq!(column(&rows, "concurrency"), ["1", "2"]);
        assert_eq!(column(&rows, "requests_ok"), ["3", "3"], "every prompt once");
        let answers = json_lines(&env.latest("bench").join("cells/server/bench/c2/requests.jsonl"));
        check_export(&read_json(&env.path("my export.json")), protocol, &answers);
        fs::remove_file(env.path("my export.json")).unwrap();
    }
}

/// What GenAI-Perf's parser reads is there, and is what was recorded.
fn check_export(export: &Value, protocol: &str, answers: &[Value]) {
    let (service, endpoint) = match protocol {
        "openai-completions" => ("openai", "v1/completions"),
        "openai-chat" => ("openai", "v1/chat/completions"),
        _ => ("triton", ""),
    };
    assert_eq!((&export["service_kind"], &export["endpoint"]), (&json!(service), &json!(endpoint)));
    let experiments = export["experiments"].as_array().unwrap();
    let loads: Vec<&Value> = experiments.iter().map(|experiment| &experiment["experiment"]).collect();
    assert_eq!(loads, [&json!({"mode": "concurrency", "value": 1}), &json!({"mode": "concurrency", "value": 2})]);
    let requests = experiments[1]["requests"].as_array().unwrap();
    let measured: Vec<&Value> = answers.iter().filter(|answer| answer["kind"] == "measure").collect();
    assert_eq!(requests.len(), measured.len(), "warm-up is no part of an export");
    let window: Vec<u64> = serde_json::from_value(experiments[1]["window_boundaries"].clone()).unwrap();
    for (request, answer) in requests.iter().zip(measured) {
        let sent = request["timestamp"].as_u64().unwrap();
        let ttft = |first: &Value, sent: u64| first.as_u64().unwrap() - sent;
        let first = &request["response_timestamps"][0];
        assert_eq!(ttft(first, sent), ttft(&answer["chunk_ns"][0], answer["sent_ns"].as_u64().unwrap()));
        assert_eq!(
            request["response_timestamps"].as_array().unwrap().len(),
            answer["chunk_ns"].as_array().unwrap().len()
        );
        assert!(
            window[0] <= sent && first.as_u64().unwrap() <= window[1] && sent > 1_700_000_000_000_000_000,
            "{window:?}"
        );
        assert_eq!(sent_text(request, protocol), PROMPTS[usize::try_from(answer["prompt"].as_u64().unwrap()).unwrap()]);
        let outputs = request["response_outputs"].as_array().unwrap();
        let texts: Vec<String> = outputs.iter().map(|output| text_of(output, protocol)).collect();
        assert_eq!(texts.concat(), answer["output_text"].as_str().unwrap());
        assert!(texts.iter().all(|text| !text.is_empty()), "GenAI-Perf drops empty events, and their times: {texts:?}");
    }
}

fn sent_text(request: &Value, protocol: &str) -> String {
    let inputs = &request["request_inputs"];
    let body: Value = serde_json::from_str(inputs["payload"].as_str().unwrap_or("{}")).unwrap();
    let text = match protocol {
        "openai-completions" => &body["prompt"][0],
        "openai-chat" => &body["messages"][0]["content"],
        _ => &inputs["text_input"],
    };
    text.as_str().unwrap().to_owned()
}

fn text_of(output: &Value, protocol: &str) -> String {
    let event: Value = match output["response"].as_str() {
        Some(event) => serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap(),
        None => output.clone(),
    };
    let text = match protocol {
        "openai-completions" => &event["choices"][0]["text"],
        "openai-chat" => &event["choices"][0]["delta"]["content"],
        _ => &event["text_output"],
    };
    text.as_str().unwrap().to_owned()
}

/// The guide's own, and every flag that llm_perf.py has.
#[test]
fn command_lines_of_the_guide_work_as_they_stand() {
    let served = serve();
    let env = &served.env;
    env.write("openorca_10.jsonl", &PROMPTS.map(|prompt| json!({"text_input": prompt}).to_string()).join("\n"));
    let url = served.grpc.trim_start_matches("http://");
    // llm_perf.py asks for 300 tokens, which this small model has no room for.
    let files = ["--tokenizer-path", "model", "--input-data", "./openorca_10.jsonl", "--max-tokens", "4"];
    env.expect(
        0,
        &[&["bench", "-u", url, "-i", "grpc", "-m", "ensemble", "--concurrency", "2,4,8,16"], &files[..]].concat(),
    );
    let rows = env.rows("bench");
    assert_eq!(column(&rows, "concurrency"), ["2", "4", "8", "16"]);
    assert_eq!(column(&rows, "status"), ["ok"; 4]);
    let long =
        ["bench", "--uri", url, "--protocol", "GRPC", "--triton-model", "ensemble", "--measurement-interval", "1"];
    let export = ["--concurrency", "1", "--profile-export-file", "profiling_results.json"];
    env.expect(0, &[&long[..], &export, &files].concat());
    assert_eq!(column(&env.rows("bench"), "protocol"), ["triton-grpc"]);
    assert_eq!(read_json(&env.path("profiling_results.json"))["service_kind"], "triton");
}

#[test]
fn an_export_that_cannot_be_written_is_refused_before_anything_is_measured() {
    let env = TestEnv::new();
    env.write("prompts.jsonl", "{\"text_input\": \"one\"}");
    env.write("file", "");
    let export = ["--profile-export-file", "file/export.json"];
    env.expect(4, &[&["bench", "--input-data", "prompts.jsonl"][..], &export].concat())
        .says("cannot write `file/export.json`");
    assert!(!env.path(".benchrun/runs").exists());
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
fn requests_may_come_at_a_rate_and_for_a_time() {
    let served = serve();
    let env = &served.env;
    env.write("prompts.jsonl", "{\"text_input\": \"one\"}");
    let common = ["bench", "-u", &served.http, "-i", "openai", "-m", "model", "--input-data", "prompts.jsonl"];
    let load = ["--request-rate", "20,40", "--duration", "500ms", "--max-tokens", "2"];
    env.expect(0, &[&common[..], &load].concat()).says("rate20: 0.5 s");
    let rows = env.rows("bench");
    assert_eq!(column(&rows, "arrival"), ["poisson", "poisson"]);
    assert_eq!(column(&rows, "request_rate"), ["20.0", "40.0"]);
    env.expect(2, &[&common[..], &["--request-rate", "20", "--concurrency", "2"]].concat()).says("cannot be used with");
    env.expect(2, &[&common[..], &["--request-rate", "0"]].concat()).says("from 0.001");
}

#[test]
fn a_dead_server_fails_with_what_happened() {
    let env = TestEnv::new();
    env.write("prompts.jsonl", "{\"text_input\": \"one\"}");
    // Nobody listens on a port that was just given back.
    let url = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for wire in ["openai", "http", "grpc"] {
        let args =
            ["bench", "-u", &url, "-i", wire, "-m", "m", "--input-data", "prompts.jsonl", "--concurrency", "1,2"];
        env.expect(4, &args);
        // What one load point finds does not keep the next from being tried.
        let rows = env.rows("bench");
        assert_eq!(column(&rows, "status"), ["failed", "failed"], "{wire}");
        for reason in column(&rows, "reason") {
            assert!(reason.to_lowercase().contains("connection refused"), "{wire}: {reason}");
        }
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
