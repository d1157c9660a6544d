//! `benchrun apply`, for real: what a run leaves, what a second run does again, and the protocols.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::env::{LOAD, TestEnv, column, identity, json, json_lines, manifest, one_cell, rows_of};

#[test]
fn a_sweep_runs_from_the_model_to_the_results() {
    let env = TestEnv::new();
    let text = manifest("precision: [fp32, int8_wo], batch_size: [1, 2]", LOAD);
    env.write("sweep.yaml", &text);
    let ended = env.expect(0, &["apply", "sweep.yaml"]);
    ended.prints("tiny/int8_wo/bs2/isl8/osl4").says("finished in").says("results.csv");

    let rows = env.rows("small");
    assert_eq!(rows.len(), 8);
    for row in &rows {
        assert_eq!((row["status"].as_str(), row["reason"].as_str()), ("ok", ""), "{row:?}");
        assert_eq!((row["requests_sent"].as_str(), row["requests_ok"].as_str()), ("3", "3"), "{row:?}");
        assert_eq!(number(&row["input_tokens_mean"]), 8.0, "{row:?}");
        assert_eq!(number(&row["output_tokens_mean"]), 4.0, "{row:?}");
        for measured in ["ttft_ms_p50", "e2e_ms_mean", "output_tokens_per_s"] {
            assert!(row[measured].parse().is_ok_and(|value: f64| value > 0.0), "{measured} of {row:?}");
        }
    }
    let run = env.latest("small");
    assert_eq!(fs::read_to_string(run.join("manifest.yaml")).unwrap(), text);
    check_results_json(&run, &rows);
    check_requests(&run.join("cells/tiny/int8_wo/bs2/isl8/osl4/load/c2/requests.jsonl"));
    check_events(&run);
    assert!(fs::read_to_string(run.join("lock.yaml")).unwrap().contains("\nlocked:\n"));
    assert_eq!(json(&run.join("plan.json"))["cells"].as_array().unwrap().len(), 4);

    let cells = ["fp32/bs1", "fp32/bs2", "int8_wo/bs1", "int8_wo/bs2"];
    let cells = cells.map(|cell| run.join("cells/tiny").join(cell).join("isl8/osl4"));
    check_servers(&run, &cells);
    assert!(checkpoint_bytes(&cells[2]) < checkpoint_bytes(&cells[0]) / 2, "int8 weights take a quarter of fp32's");
    env.assert_nothing_runs();
}

fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

fn check_results_json(run: &Path, rows: &[crate::env::Row]) {
    let results = json(&run.join("results.json"));
    let listed = results["rows"].as_array().unwrap();
    assert_eq!(results["contract"], 1);
    assert_eq!(listed.len(), rows.len());
    for (listed, row) in listed.iter().zip(rows) {
        assert_eq!(listed["cell"], row["cell"]);
        // serde_json reads a float to within one unit in the last place.
        let (in_json, in_csv) = (listed["ttft_ms_p99"].as_f64().unwrap(), number(&row["ttft_ms_p99"]));
        assert!((in_json - in_csv).abs() <= in_csv.abs() * 1e-14, "{in_json} is not {in_csv}");
        assert_eq!(listed["request_rate"], Value::Null);
    }
}

/// Every line has the contract's fields, and its times are in order.
fn check_requests(path: &Path) {
    let lines = json_lines(path);
    let of_kind = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!((of_kind("warmup"), of_kind("measure")), (2, 3));
    for line in &lines {
        let times = ["due_ns", "sent_ns", "first_response_ns", "first_token_ns", "last_token_ns", "end_ns"];
        let times = times.map(|name| line[name].as_u64().unwrap());
        assert!(times.is_sorted(), "{line}");
        assert_eq!(line["status"], "ok");
        assert_eq!(line["output_tokens"], 4);
        assert_eq!(line["output_tokens_source"], "server_usage");
        assert_eq!(line["finish_reason"], "length");
        assert!(!line["chunk_ns"].as_array().unwrap().is_empty());
        assert!(!line["output_text"].as_str().unwrap().is_empty());
        assert!(line["request"].is_u64() && line["prompt"].is_u64());
    }
}

fn check_events(run: &Path) {
    let events = json_lines(&run.join("events.jsonl"));
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!((names[0], names[names.len() - 1]), ("run_started", "run_finished"));
    let count = |name: &str| names.iter().filter(|&&other| other == name).count();
    for (event, expected) in [("server_ready", 4), ("server_stopped", 4), ("point_finished", 8), ("interrupted", 0)] {
        assert_eq!(count(event), expected, "{event}");
    }
    assert!(events.iter().all(|event| event["time"].as_str().unwrap().ends_with('Z')));
}

/// Each cell had a process of its own that served its own engine with its own configuration.
fn check_servers(run: &Path, cells: &[std::path::PathBuf]) {
    let events = json_lines(&run.join("events.jsonl"));
    let starts = events.iter().filter(|event| event["event"] == "server_starting");
    let pids: BTreeSet<u64> = starts.map(|event| event["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 4);
    let mut engines = BTreeSet::new();
    for cell in cells {
        for step in ["quantize", "build", "bench"] {
            let record = json(&cell.join("logs").join(step).join("command.json"));
            assert_eq!(record["status"]["code"], 0, "{step} of {}", cell.display());
            assert!(record["seconds"].is_f64() && record["env"].is_object());
        }
        let record = json(&cell.join("logs/bench/command.json"));
        let engine = record["argv"][3].as_str().unwrap();
        let built = json(&Path::new(engine).join("engine.json"));
        let precision = if cell.iter().any(|part| part == "int8_wo") { "int8_wo" } else { "fp32" };
        assert_eq!(built["precision"], precision, "{built}");
        engines.insert(engine.to_owned());
        let size = if cell.iter().any(|part| part == "bs1") { 1 } else { 2 };
        assert!(
            fs::read_to_string(cell.join("rendered/serve.yaml"))
                .unwrap()
                .contains(&format!("max_batch_size: {size}\n"))
        );
        assert!(fs::read_to_string(cell.join("logs/bench/stderr.log")).unwrap().contains("to serve HTTP at"));
    }
    assert_eq!(engines.len(), 4);
}

/// The size of the weights that a cell's engine was built from.
fn checkpoint_bytes(cell: &Path) -> u64 {
    let record = json(&cell.join("logs/build/command.json"));
    fs::metadata(Path::new(record["argv"][3].as_str().unwrap()).join("model.safetensors")).unwrap().len()
}

#[test]
fn a_second_apply_measures_nothing_and_says_so() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    env.expect(0, &["apply", "m.yaml"]);
    let first = env.latest("small");
    let second = env.expect(0, &["apply", "m.yaml"]);
    second.says("nothing to do: 2 load points measured before").says("--rerun bench");
    assert!(!second.stderr.contains("starting server"), "{}", second.stderr);
    let rows = env.rows("small");
    assert_eq!(column(&rows, "measured_in"), [run_id(&first), run_id(&first)]);
    for (mut old, mut new) in rows_of(&first).into_iter().zip(rows) {
        assert_ne!(old.remove("run"), new.remove("run"));
        assert_eq!(old, new);
    }
    env.expect(0, &["plan", "m.yaml", "--detailed-exitcode"])
        .prints("quantize tiny fp32  cached")
        .prints("c1 c2  cached");

    env.expect(0, &["apply", "m.yaml", "--rerun", "bench"]);
    let third = env.latest("small");
    assert_eq!(column(&env.rows("small"), "measured_in"), [run_id(&third), run_id(&third)]);
    assert!(!third.join("cells/tiny/fp32/isl8/osl4/logs/quantize").exists(), "only the measurement is done anew");
}

fn run_id(run: &Path) -> &str {
    run.file_name().unwrap().to_str().unwrap()
}

#[test]
fn a_changed_manifest_does_again_what_the_change_reaches() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp16]", LOAD));
    env.expect(0, &["apply", "m.yaml"]);
    let first = env.latest("small");

    env.write("m.yaml", &manifest("precision: [fp16]", &LOAD.replace("[1, 2]", "[1, 2, 3]")));
    env.expect(10, &["plan", "m.yaml", "--detailed-exitcode"])
        .prints("0 steps, 1 server to start, 1 load point to measure");
    env.expect(0, &["apply", "m.yaml"]).says("2 of 3 load points were measured before");
    let second = env.latest("small");
    assert_eq!(column(&env.rows("small"), "measured_in"), [run_id(&first), run_id(&first), run_id(&second)]);

    env.write("m.yaml", &manifest("precision: [int8_wo]", &LOAD.replace("[1, 2]", "[1, 2, 3]")));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    plan.prints("fetch tiny  cached");
    plan.prints("quantize tiny int8_wo  stale because precision changed from fp16 to int8_wo");
    plan.prints("build tiny int8_wo  stale because its quantize changed");
    plan.prints("3 load points to measure");
}

/// Every protocol, streamed and whole, closed by number and by time, from made prompts and from a file.
const ALL_PHASES: &str = "
  completions: {protocol: openai-completions, concurrency: [1], requests: 2},
  completions-whole: {protocol: openai-completions, streaming: false, concurrency: [1], requests: 2},
  chat: {protocol: openai-chat, concurrency: [1], requests: 2},
  chat-whole: {protocol: openai-chat, streaming: false, concurrency: [1], requests: 2},
  grpc: {protocol: triton-grpc, concurrency: [1], requests: 2, rounds: 2},
  generate: {protocol: triton-generate, concurrency: [1], requests: 2},
  generate-stream: {protocol: triton-generate-stream, concurrency: [1], requests: 2},
  from-file: {protocol: openai-completions, data: {jsonl: {path: prompts.jsonl}}, output: {mode: at_most, tokens: 6},
    concurrency: [1], requests: 3},
  for-a-while: {protocol: openai-completions, concurrency: [1], duration: 200ms,
    thresholds: {ttft_ms_p50: {max: 0.0001}, requests_per_s: {min: 0.001}}}
";

#[test]
fn every_protocol_is_measured_and_a_missed_threshold_is_its_own_exit_code() {
    let env = TestEnv::new();
    env.write("prompts.jsonl", "{\"text_input\": \"one two three\"}\n{\"text_input\": \"你好\"}");
    env.write("m.yaml", &manifest("precision: [fp32], concurrency: [1, 2], temperature: [0, 0.8]", ALL_PHASES));
    let ended = env.expect(5, &["apply", "m.yaml"]);
    ended.says("threshold missed: ").says("ttft_ms_p50 is ").says("above 0.0001");
    assert!(!ended.stderr.contains("requests_per_s is "), "{}", ended.stderr);

    let rows = env.rows("small");
    assert_eq!(rows.len(), 4 * 10, "two concurrencies, two temperatures, nine phases, one of them twice");
    let protocols: BTreeSet<&str> = column(&rows, "protocol").into_iter().collect();
    assert_eq!(protocols.len(), 5);
    for row in &rows {
        assert_eq!((row["status"].as_str(), row["reason"].as_str()), ("ok", ""), "{row:?}");
        assert!(row["cell"].contains(&format!("concurrency-{}", row["concurrency"])), "{row:?}");
        let whole = row["phase"].ends_with("whole") || row["phase"] == "generate";
        assert_eq!(row["ttft_ms_p50"].is_empty(), whole, "{row:?}");
        assert!(number(&row["e2e_ms_p50"]) > 0.0);
        let output = number(&row["output_tokens_mean"]);
        match row["phase"].as_str() {
            "from-file" => assert!((1.0..=6.0).contains(&output), "{row:?}"),
            "chat" | "chat-whole" => assert!(number(&row["input_tokens_mean"]) > 8.0 && output == 4.0, "{row:?}"),
            _ => assert_eq!((number(&row["input_tokens_mean"]), output), (8.0, 4.0), "{row:?}"),
        }
        let source = if row["protocol"].starts_with("triton") { "server_tensor" } else { "server_usage" };
        assert_eq!(row["output_tokens_source"], source);
    }
    let for_a_while = rows.iter().filter(|row| row["phase"] == "for-a-while");
    assert!(for_a_while.map(|row| number(&row["duration_s"])).all(|seconds| seconds >= 0.15));
    let rounds: Vec<&str> = rows.iter().filter(|row| row["phase"] == "grpc").map(|row| row["round"].as_str()).collect();
    assert_eq!(rounds, ["1", "2"].repeat(4));
}

#[test]
fn two_runs_at_once_share_the_work() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32, int8_wo]", LOAD));
    let [one, other] = [(); 2].map(|()| env.start(env.command(&["apply", "m.yaml"])));
    one.end().expect(0);
    other.end().expect(0);
    let runs = env.runs("small");
    let [one, other] = [rows_of(&runs[0]), rows_of(&runs[1])];
    assert_eq!(one.len(), 4);
    for (mut one, mut other) in one.into_iter().zip(other) {
        assert_eq!(one["status"], "ok");
        assert_ne!(one.remove("run"), other.remove("run"));
        assert_eq!(one, other, "both runs have the row of whoever measured it");
    }
    // A command's record tells who did a step: one of the runs.
    for step in ["quantize", "build"] {
        let records = runs.iter().flat_map(|run| {
            let cell = |precision: &str| run.join("cells/tiny").join(precision).join("isl8/osl4/logs");
            ["fp32", "int8_wo"].map(|precision| cell(precision).join(step).join("command.json"))
        });
        assert_eq!(records.filter(|record| record.exists()).count(), 2, "{step}");
    }
    env.assert_nothing_runs();
}

#[test]
fn a_run_says_what_it_waits_for() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    let path = env.tmp().join(format!("benchrun-{}.lock", rustix::process::getuid().as_raw()));
    let lock = fs::File::create(path).unwrap();
    lock.lock().unwrap();
    let mut running = env.start(env.command(&["apply", "m.yaml"]));
    running.waits_until("it says what it waits for", |running| {
        running.stderr().contains("another benchrun has this machine")
    });
    assert!(!running.has_ended());
    drop(lock);
    running.end().expect(0).says("2 ok");
}

#[test]
fn results_go_where_run_dir_says() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    env.expect(0, &["apply", "m.yaml", "--run-dir", "my results", "--only", "precision=fp32"]);
    assert_eq!(rows_of(&env.path("my results")).iter().map(identity).collect::<Vec<_>>().len(), 2);
    assert!(!env.home().join("runs/small").exists());
    env.expect(0, &["report", "my results", "--format", "csv"]).prints("tiny/fp32/isl8/osl4");
}

#[test]
fn a_sweep_without_cells_to_measure_is_done() {
    let env = TestEnv::new();
    let text = manifest("precision: [fp32]", LOAD)
        .replace("benchmarks:", "  exclude: [{where: {precision: fp32}, because: nothing but a test}]\nbenchmarks:");
    env.write("excluded.yaml", &text);
    env.expect(0, &["plan", "excluded.yaml", "--detailed-exitcode"]).prints("excluded: nothing but a test");
    env.expect(0, &["apply", "excluded.yaml"]).prints("skipped: nothing but a test");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["skipped", "skipped"]);
    assert_eq!(column(&rows, "reason"), ["nothing but a test", "nothing but a test"]);

    env.write("unsupported.yaml", &manifest("precision: [fp32, fp8], pp: [1, 2], concurrency: [1]", LOAD));
    env.expect(0, &["apply", "unsupported.yaml"]).prints("no pipeline parallelism (pp is 2)");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["ok", "unsupported", "unsupported", "unsupported"]);
    assert!(rows[1]["reason"].contains("pp is 2"), "{rows:?}");
    assert!(rows[2]["reason"].contains("no precision `fp8` (it has fp32, fp16, int8_wo)"), "{rows:?}");
}

#[test]
fn secrets_of_the_environment_stay_there() {
    let env = TestEnv::new();
    let secret = "hf_quite_secret_0123456789";
    env.write("m.yaml", &one_cell());
    let mut command = env.command(&["apply", "m.yaml"]);
    command.env("HF_TOKEN", secret).env("HUGGING_FACE_HUB_TOKEN", secret);
    let ended = env.start(command).end().expect(0);
    assert!(!ended.stdout.contains(secret) && !ended.stderr.contains(secret));
    let files = files_below(&env.home());
    assert!(files.len() > 30);
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let told = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!told, "{} tells the token", file.display());
    }
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(files_below(&entry.path()));
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    files
}
