//! The real Triton server on a CPU. `scripts/check.sh` installs it and runs these tests where it can; `TRITON_CPU` names the
//! folder that `scripts/triton_cpu/setup.sh` laid out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use benchrun::recipe::Part;
use serde_json::{Value, json};

use crate::env::{Ended, Row, Running, TestEnv, column, json as read_json, json_lines};
use crate::tensorrt_llm::{VERSIONS, recipe, rendered, variants};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn triton() -> PathBuf {
    #[expect(clippy::disallowed_methods, reason = "this is where the tests learn of the server")]
    let folder = std::env::var("TRITON_CPU");
    PathBuf::from(folder.expect("`TRITON_CPU` is the folder that scripts/triton_cpu/setup.sh laid out"))
}

/// A user beside whose manifest the server lies.
fn user(manifest: &str) -> TestEnv {
    let env = TestEnv::new();
    std::os::unix::fs::symlink(triton(), env.path(".triton-cpu")).unwrap();
    env.write("m.yaml", manifest);
    env
}

fn manifest() -> String {
    fs::read_to_string(root().join("manifests/triton-cpu.yaml")).unwrap()
}

/// One cell, and these phases instead of the manifest's own.
fn with_phases(reuse: &str, phases: &str) -> String {
    let text = manifest().replace("kv_cache_reuse: [false, true]", &format!("kv_cache_reuse: [{reuse}]"));
    let (before, rest) = text.split_once("benchmarks:").unwrap();
    let (_, after) = rest.split_once("time_limits:").unwrap();
    format!("{before}benchmarks:\n{phases}\ntime_limits:{after}")
}

fn command(env: &TestEnv, args: &[&str]) -> Command {
    let mut command = env.command(args);
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", triton().join("bin").display()));
    command
}

fn apply(env: &TestEnv, status: i32) -> Ended {
    env.start(command(env, &["apply", "m.yaml"])).end().expect(status)
}

/// What `tritonserver` answers on its HTTP port.
fn get(port: &str, path: &str) -> Option<Value> {
    let mut socket = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: triton\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = Vec::new();
    // The server may reset the connection after its answer, which then is there all the same.
    let _ = socket.read_to_end(&mut answer);
    serde_json::from_str(str::from_utf8(&answer).ok()?.split_once("\r\n\r\n")?.1).ok()
}

/// The HTTP port in the recorded command of a cell's server.
fn http_port(cell: &Path) -> Option<String> {
    let record =
        cell.join("logs/bench/command.json").exists().then(|| read_json(&cell.join("logs/bench/command.json")))?;
    let argv: Vec<String> = serde_json::from_value(record["argv"].clone()).unwrap();
    argv.iter().find_map(|word| word.strip_prefix("--http-port=").map(ToOwned::to_owned))
}

/// The parameter as each cell's running server itself says it. Which of the two comes first is not said.
fn reuse_in_configs(env: &TestEnv, running: &mut Running) -> BTreeMap<bool, Value> {
    let mut said = BTreeMap::new();
    running.waits_until("both servers have told their configuration", |running| {
        for reuse in [false, true] {
            let cell = format!("kv_cache_reuse-{reuse}");
            if said.contains_key(&reuse) || !running.stderr().contains(&format!("{cell} until-eos c1: started")) {
                continue;
            }
            let cell = env.latest("triton-cpu").join("cells/tiny-qwen2/fp16/bs4/isl64/osl16").join(cell);
            let port = http_port(&cell).unwrap();
            let config = get(&port, "/v2/models/tensorrt_llm/config");
            // A server for all addresses would answer here, too.
            assert!(TcpStream::connect(format!("127.0.0.2:{port}")).is_err(), "only 127.0.0.1 is served");
            // A server that is ending answers with an error.
            let parameters = config.and_then(|config| config.get("parameters").cloned());
            said.extend(parameters.map(|it| (reuse, it["enable_kv_cache_reuse"]["string_value"].clone())));
        }
        said.len() == 2
    });
    said
}

#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn every_phase_of_the_manifest_runs_and_is_counted_alike() {
    let env = user(&manifest());
    let mut running = env.start(command(&env, &["apply", "m.yaml"]));
    let said = BTreeMap::from([(false, json!("False")), (true, json!("True"))]);
    assert_eq!(reuse_in_configs(&env, &mut running), said, "the servers' own configurations");
    running.end().expect(0);
    let rows = env.rows("triton-cpu");
    assert_eq!(column(&rows, "status"), ["ok"; 12]);
    for row in &rows {
        for check in ["requests=ok", "statistics_requests=ok"] {
            assert!(row["server_checks"].split(' ').any(|it| it == check), "{check} {row:?}");
        }
        assert_eq!((row["input_tokens_mean"].as_str(), row["output_tokens_source"].as_str()), ("64.0", "tokenizer"));
        match row["phase"].as_str() {
            // One to twelve tokens, as the prompt decides.
            "until-eos" => assert!((1.0..=12.0).contains(&number(row, "output_tokens_mean")), "{row:?}"),
            _ => assert_eq!(row["output_tokens_mean"], "16.0"),
        }
        if row["phase"] != "generate" {
            assert!((5.0..100.0).contains(&number(row, "itl_ms_p50")), "paced at 10 ms: {row:?}");
        }
    }
    // NVIDIA's own classes read what was loaded.
    check_pbtxt(&env, &env.latest("triton-cpu")).prints("10 of 10 files");
    env.assert_nothing_runs();
}

#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn nvidias_classes_read_every_configuration() {
    let env = TestEnv::new();
    let recipe = recipe();
    let mut files = 0;
    for version in VERSIONS {
        for (number, mut values) in variants().into_iter().enumerate() {
            values["version"] = json!(version);
            for precision in ["fp16", "fp8", "int8_wo"] {
                for (file, text) in rendered(&recipe, Part::Render, precision, &values).files {
                    env.write(&format!("rendered/{version}-{number}-{precision}/{file}"), &text);
                    files += 1;
                }
            }
        }
    }
    assert_eq!(files, VERSIONS.len() * variants().len() * 3 * 5);
    check_pbtxt(&env, &env.path("rendered")).prints(&format!("{files} of {files} files"));
}

fn number(row: &Row, name: &str) -> f64 {
    row[name].parse().unwrap_or_else(|_| panic!("`{name}` of {row:?}"))
}

fn check_pbtxt(env: &TestEnv, folder: &Path) -> Ended {
    let script = root().join("scripts/check_pbtxt.py");
    let python = triton().join("venv/bin/python3");
    let args = [script.to_str().unwrap(), folder.to_str().unwrap()];
    env.start(env.program(python.to_str().unwrap(), &args)).end().expect(0)
}

#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn the_servers_token_counts_are_ours() {
    let phases = "  until-eos: {protocol: triton-grpc, output: {mode: at_most}, concurrency: [2], requests: 16}
  fixed-length: {protocol: triton-generate-stream, concurrency: [4], requests: 16}
";
    let env = user(&with_phases("true", phases).replace("version: \"0.11.0\"", "version: \"1.2.1\""));
    apply(&env, 0);
    let cell = env.latest("triton-cpu").join("cells/tiny-qwen2/fp16/bs4/isl64/osl16/kv_cache_reuse-true");
    for (point, fixed) in [("until-eos/c2", false), ("fixed-length/c4", true)] {
        let requests = json_lines(&cell.join(point).join("requests.jsonl"));
        for request in &requests {
            assert_eq!(request["output_tokens_source"], "server_tensor");
            assert_eq!(request["input_tokens"], request["input_tokens_sent"]);
            let chunks = request["chunk_ns"].as_array().unwrap().len();
            assert_eq!(request["output_tokens"], chunks, "one response a token");
            assert!(!fixed || chunks == 16, "{request}");
        }
        let lengths: std::collections::BTreeSet<String> =
            requests.iter().map(|request| request["output_tokens"].to_string()).collect();
        assert_eq!(lengths.len() > 1, !fixed, "{lengths:?}");
    }
    for row in env.rows("triton-cpu") {
        let of = |name: &str| number(&row, name);
        // Its first token is one step of 10 ms after it was scheduled, and the client sees it later than the server.
        assert!(of("server_request_queue_ms_mean") + 5.0 < of("server_request_ttft_ms_mean"), "{row:?}");
        assert!(of("server_request_ttft_ms_mean") <= of("ttft_ms_mean"), "{row:?}");
        assert_eq!(of("server_reused_blocks_mean"), 0.0, "no two prompts begin alike: {row:?}");
    }
    check_pbtxt(&env, &env.latest("triton-cpu")).prints("5 of 5 files");
}

#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn the_server_tells_which_blocks_it_had() {
    let phases =
        "  grpc: {protocol: triton-grpc, data: {synthetic: {prefix: {tokens: 40}}}, concurrency: [1], requests: 4}
  sse: {protocol: triton-generate-stream, data: {synthetic: {prefix: {tokens: 40}}}, concurrency: [1], requests: 4}
  whole: {protocol: triton-generate, data: {synthetic: {prefix: {tokens: 40}}}, concurrency: [1], requests: 4}
";
    let env = user(&with_phases("false, true", phases).replace("version: \"0.11.0\"", "version: \"1.2.1\""));
    apply(&env, 0);
    for row in env.rows("triton-cpu") {
        // One block of 32 tokens is within the 40 that all prompts of a phase share; the warm-up leaves it behind.
        let expected = if row["kv_cache_reuse"] == "true" { 1.0 } else { 0.0 };
        assert_eq!(number(&row, "server_reused_blocks_mean"), expected, "{row:?}");
        assert!(number(&row, "server_request_ttft_ms_p99") > 5.0, "{row:?}");
    }
}

/// The model that runs the other three itself answers as the ensemble does, with each text by itself or with all so far.
#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn the_bls_model_answers_like_the_ensemble() {
    let phases = "  grpc: {protocol: triton-grpc, concurrency: [2], requests: 4}
  sse: {protocol: triton-generate-stream, concurrency: [2], requests: 4}
";
    let models = "kv_cache_reuse: [false]\n    request_model: [ensemble, tensorrt_llm_bls]\n    accumulate_tokens: [false, true]";
    for version in ["0.11.0", "1.2.1"] {
        let text = with_phases("false", phases).replace("kv_cache_reuse: [false]", models);
        let env = user(&text.replace("version: \"0.11.0\"", &format!("version: \"{version}\"")));
        apply(&env, 0);
        let rows = env.rows("triton-cpu");
        assert_eq!(column(&rows, "status"), ["ok"; 8], "{version}");
        for row in &rows {
            assert_eq!(row["output_tokens_mean"], "16.0", "each text once: {row:?}");
            assert!((5.0..100.0).contains(&number(row, "itl_ms_p50")), "paced at 10 ms: {row:?}");
        }
        let answers = |model: &str, accumulated: bool| -> BTreeMap<String, Value> {
            let cells = env.latest("triton-cpu").join("cells/tiny-qwen2/fp16/bs4/isl64/osl16/kv_cache_reuse-false");
            let cell = cells.join(format!("request_model-{model}/accumulate_tokens-{accumulated}"));
            let requests = json_lines(&cell.join("grpc/c2/requests.jsonl")).into_iter();
            requests.map(|request| (request["request"].to_string(), request["output_text"].clone())).collect()
        };
        let ensemble = answers("ensemble", false);
        assert!(
            ensemble.len() >= 4 && ensemble.values().all(|text| !text.as_str().unwrap().is_empty()),
            "{ensemble:?}"
        );
        for accumulated in [false, true] {
            assert_eq!(answers("tensorrt_llm_bls", accumulated), ensemble, "{version} {accumulated}");
        }
    }
}

/// A server that does not stream answers in one piece, over every protocol.
#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn a_server_that_does_not_stream_answers_whole() {
    let phases = "  grpc: {protocol: triton-grpc, streaming: false, concurrency: [2], requests: 4}
  http: {protocol: triton-generate, streaming: false, concurrency: [2], requests: 4}
";
    for version in ["0.11.0", "1.2.1"] {
        let text = with_phases("false", phases)
            .replace(
                "kv_cache_reuse: [false]",
                "kv_cache_reuse: [false]\n    request_model: [ensemble, tensorrt_llm_bls]",
            )
            .replace("    family: qwen\n", "    family: qwen\n    decoupled: false\n")
            .replace("version: \"0.11.0\"", &format!("version: \"{version}\""));
        let env = user(&text);
        apply(&env, 0);
        let rows = env.rows("triton-cpu");
        assert_eq!(column(&rows, "status"), ["ok"; 4], "{version}");
        for row in &rows {
            assert_eq!((row["output_tokens_mean"].as_str(), row["itl_ms_p50"].as_str()), ("16.0", ""), "{row:?}");
            assert!(number(row, "e2e_ms_p50") > 100.0, "16 steps of 10 ms: {row:?}");
        }
    }
}

/// TensorRT-LLM's PyTorch path under Triton: one Python model, which streams the whole text so far.
#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn the_llm_api_model_streams_and_is_not_asked_for_what_it_cannot() {
    let phases = "  grpc: {protocol: triton-grpc, output: {mode: at_most}, concurrency: [2], requests: 8}
  sse: {protocol: triton-generate-stream, output: {mode: at_most}, concurrency: [2], requests: 8}
  fixed-length: {protocol: triton-grpc, concurrency: [1], requests: 2}
";
    let text = with_phases("false", phases)
        .replace("tensorrt-llm\n  version: \"0.11.0\"", "triton-llmapi")
        .replace("    family: qwen\n    examples: .triton-cpu/examples\n", "")
        .replace("    preprocessing_instance_count: 1\n    postprocessing_instance_count: 1\n", "");
    let env = user(&text);
    apply(&env, 4).says("`tensorrt_llm` cannot be kept from ending an answer early");
    let rows = env.rows("triton-cpu");
    assert_eq!(column(&rows, "status"), ["ok", "ok", "failed"]);
    for row in &rows[..2] {
        assert!(row["server_checks"].starts_with("requests=ok"), "{row:?}");
        assert_eq!(row["output_tokens_mean"], "16.0", "each text once: {row:?}");
        assert!((5.0..100.0).contains(&number(row, "itl_ms_p50")), "paced at 10 ms: {row:?}");
    }
    check_pbtxt(&env, &env.latest("triton-cpu")).prints("1 of 1 files");
}

/// It reads as a model configuration, so only the server can know that its models do not fit together.
#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn a_configuration_that_the_server_refuses_fails_its_cell_and_no_other() {
    let phases = "  fixed-length: {protocol: triton-grpc, concurrency: [1], requests: 2}\n";
    let text =
        with_phases("true, false", phases).replace("name: tensorrt-llm\n", "name: tensorrt-llm\n  recipes: mine\n");
    let env = user(&text);
    let template = fs::read_to_string(root().join("templates/tensorrt-llm/triton/0.11/ensemble.j2")).unwrap();
    let wrong = template.replace(r#""QUERY": "#, r#"("NO_SUCH" if kv_cache_reuse else "QUERY"): "#);
    assert_ne!(wrong, template);
    env.write("mine/tensorrt-llm/triton/0.11/ensemble.j2", &wrong);
    let ended = apply(&env, 4);
    ended.says("the server exited with").says("NO_SUCH");
    assert_eq!(column(&env.rows("triton-cpu"), "status"), ["failed", "ok"]);
    env.assert_nothing_runs();
}

/// Behind an ensemble, Triton goes on with a request that its client gave up.
#[test]
#[ignore = "needs a Triton server: scripts/check.sh installs one"]
fn what_a_cut_off_phase_left_behind_is_waited_for() {
    let phases = "  long: {protocol: triton-grpc, output: {tokens: 400}, concurrency: [2], requests: 2, warmup_requests: 0, point_timeout: 1s}
  after: {protocol: triton-grpc, concurrency: [1], requests: 2}
";
    let text = with_phases("false", phases).replace("isl/osl: [[64, 16]]", "isl/osl: [[64, 400]]");
    let env = user(&text);
    let ended = apply(&env, 4);
    ended.says("requests were given up: waited ");
    assert_eq!(column(&env.rows("triton-cpu"), "status"), ["failed", "ok"]);
    env.assert_nothing_runs();
}
