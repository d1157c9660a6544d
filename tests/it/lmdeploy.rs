//! LMDeploy's published methods: what a phase with one leaves in the run's folder.

use std::fs;

use serde_json::{Value, json};

use crate::env::{BENCHRUN, CONFIG, TestEnv, column, eventually, json as json_file, json_lines};

/// A sweep of one cell with this phase, and conversations to draw from: five words are asked and four are answered.
fn env(axes: &str, phase: &str) -> TestEnv {
    let env = TestEnv::new();
    let entry = |text: String| json!({"from": "human", "value": text});
    let talk =
        |index| json!({"conversations": [entry(format!("one two three four {index}")), entry("a b c d".into())]});
    env.write("talks.json", &(0..30).map(talk).collect::<Value>().to_string());
    env.write(
        "sweep.yaml",
        &format!(
            "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engine: {{name: embedded, settings: {{max_seq_len: 64}}}}
matrix: {{axes: {{model: [tiny]{axes}}}}}
benchmarks: {{load: {phase}}}
"
        ),
    );
    env
}

fn applied(axes: &str, phase: &str) -> TestEnv {
    let env = env(axes, phase);
    env.expect(0, &["apply", "sweep.yaml"]);
    env
}

/// The script's file of a cell: its header, and the cells of each line.
fn file(env: &TestEnv, cell: &str) -> (String, Vec<Vec<String>>) {
    let path = env.latest("small").join("cells").join(cell).join("load/lmdeploy.csv");
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.strip_suffix("\r\n").unwrap().split("\r\n");
    let header = lines.next().unwrap().to_owned();
    (header, lines.map(|line| line.split(',').map(ToOwned::to_owned).collect()).collect())
}

const SHAREGPT: &str = "data: {sharegpt: {path: talks.json}}";

#[test]
fn an_api_phase_writes_the_scripts_file_beside_the_results() {
    let env = applied("", &format!("{{method: lmdeploy-api@v0.1.0, {SHAREGPT}, requests: 6, concurrency: [1, 2]}}"));
    let (header, lines) = file(&env, "tiny");
    let columns =
        "batch,num_prompts,RPS,RPM,FTL(ave)(s),FTL(min)(s),FTL(max)(s),throughput(out tok/s),throughput(total tok/s)";
    assert_eq!(header, columns);
    assert_eq!(
        lines.iter().map(|line| (line[0].as_str(), line[1].as_str())).collect::<Vec<_>>(),
        [("1", "6"), ("2", "6")]
    );
    assert!(lines.iter().flatten().all(|cell| cell.parse::<f64>().is_ok()), "{lines:?}");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "requests_ok"), ["6", "6"]);
    assert_eq!(column(&rows, "protocol"), ["openai-chat", "openai-chat"]);
    let requests = json_lines(&env.latest("small").join("cells/tiny/load/c2/requests.jsonl"));
    assert!(requests.iter().all(|request| request["kind"] == "measure"), "the script does not warm up");
    assert!(requests.iter().all(|request| request["connect_ns"].is_u64()), "each has a connection of its own");
    let before = fs::read(env.latest("small").join("cells/tiny/load/lmdeploy.csv")).unwrap();
    env.expect(0, &["apply", "sweep.yaml"]);
    assert_eq!(fs::read(env.latest("small").join("cells/tiny/load/lmdeploy.csv")).unwrap(), before);
}

#[test]
fn without_streaming_there_is_no_first_token() {
    let env = applied(
        "",
        &format!("{{method: lmdeploy-api@v0.1.0a1, streaming: false, {SHAREGPT}, requests: 4, concurrency: [2]}}"),
    );
    let (header, lines) = file(&env, "tiny");
    assert!(header.contains("1st_token_latency(min)(s)") && header.contains("output token thr(tokens/s,"), "{header}");
    assert_eq!(lines[0][4..7], ["-", "-", "-"]);
}

#[test]
fn todays_script_sends_everything_at_once_after_one_request() {
    let env = applied("", &format!("{{method: lmdeploy-api@v0.16.0, {SHAREGPT}, requests: 5}}"));
    let (header, lines) = file(&env, "tiny");
    assert!(header.starts_with("backend,dataset_name,sharegpt_output_len") && header.ends_with("mean_itl_ms"));
    assert_eq!(lines[0][..8], ["lmdeploy", "sharegpt", "", "", "", "0.0", "inf", "5"]);
    let requests = json_lines(&env.latest("small").join("cells/tiny/load/c5/requests.jsonl"));
    let texts: Vec<&Value> = requests.iter().filter(|request| request["kind"] == "warmup").collect();
    assert_eq!((texts.len(), requests.len()), (1, 6));
    assert_eq!(texts[0]["prompt"], 0);
}

#[test]
fn requests_at_a_rate_come_at_the_scripts_moments() {
    let phase =
        format!("{{method: lmdeploy-api@v0.16.0, {SHAREGPT}, requests: 3, request_rate: [50], warmup_requests: 0}}");
    let env = applied("", &phase);
    let (_, lines) = file(&env, "tiny");
    assert_eq!(lines[0][6], "50.0");
    let requests = json_lines(&env.latest("small").join("cells/tiny/load/rate50/requests.jsonl"));
    let mut due: Vec<u64> = requests.iter().map(|request| request["due_ns"].as_u64().unwrap()).collect();
    due.sort_unstable();
    // numpy.random.seed(0); numpy.random.exponential(1 / 50) twice
    for (gap, expected) in [due[1] - due[0], due[2] - due[1]].iter().zip([0.015_917_5, 0.025_118_6]) {
        let gap = *gap as f64 / 1e9;
        assert!((gap - expected).abs() < 1e-6, "{gap} is not {expected}");
    }
}

#[test]
fn fixed_lengths_are_paired_and_sent_in_rounds() {
    for data in ["", ", data: {synthetic: {token_ids: true}}"] {
        let env = applied(
            ", isl/osl: [[1, 4], [8, 3]]",
            &format!("{{method: lmdeploy-static@v0.1.0, concurrency: [1, 2]{data}}}"),
        );
        let (header, lines) = file(&env, "tiny/isl8/osl3");
        assert!(header.starts_with("batch,prompt_tokens,completion_tokens,throughput(out tok/s),mem(GB),FTL(ave)(s)"));
        assert_eq!([&lines[0][..3], &lines[1][..3]], [["1", "8", "3"], ["2", "8", "3"]]);
        let rows = env.rows("small");
        assert_eq!(column(&rows, "requests_ok"), ["6", "12", "6", "12"]);
        assert_eq!(column(&rows, "input_tokens_mean"), ["1.0", "1.0", "8.0", "8.0"]);
        let requests = json_lines(&env.latest("small").join("cells/tiny/isl8/osl3/load/c2/requests.jsonl"));
        assert_eq!(requests.iter().filter(|request| request["kind"] == "warmup").count(), 2);
        assert!(requests.iter().all(|request| request["prompt"] == 0), "one prompt, over and over");
    }
}

#[test]
fn a_throughput_phase_has_percentiles_of_tokens() {
    let env =
        applied("", &format!("{{method: lmdeploy-throughput@223831aca, {SHAREGPT}, requests: 8, concurrency: [4]}}"));
    let (header, lines) = file(&env, "tiny");
    assert!(header.starts_with("batch,num_promts,RPS,RPM,") && header.contains(",50%(s),75%(s),95%(s),99%(s),"));
    assert_eq!(lines[0][..2], ["4", "8"]);
    assert_eq!(column(&env.rows("small"), "output_tokens_source"), ["server_usage"]);
}

#[test]
fn a_triton_phase_is_measured_and_certified_with_all_three_models() {
    let env = env("", "{}");
    let null = ["engine", "--null", "--ttft", "40ms", "--itl", "5ms", "--port", "0", "--port-file", "port.json"];
    let _null = env.start(env.command(&null));
    eventually("the server writes its port", || env.path("port.json").exists());
    let url = format!("http://{}", json_file(&env.path("port.json"))["address"].as_str().unwrap());
    let phase = format!("{{method: lmdeploy-tis@v0.1.0, {SHAREGPT}, requests: 8, concurrency: [2]}}");
    env.write(
        "sweep.yaml",
        &format!(
            "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engine: {{name: endpoint, settings: {{url: '{url}', grpc_url: '{url}', served_model: any}}}}
matrix: {{axes: {{model: [tiny]}}}}
benchmarks: {{load: {phase}, other: {{protocol: lmdeploy-triton, concurrency: [1], requests: 2, output: {{tokens: 3}},
  data: {{synthetic: {{isl: 4}}}}}}}}
"
        ),
    );
    env.expect(0, &["apply", "sweep.yaml"]);
    let (header, lines) = file(&env, "tiny");
    assert!(header.starts_with("batch,num_prompts,RPS,RPM,FTL(ave)(s)"), "{header}");
    assert_eq!(lines[0][..2], ["2", "8"]);
    assert!(lines[0][5].parse::<f64>().unwrap() >= 0.04, "{lines:?}");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "requests_ok"), ["8", "2"]);
    assert_eq!(column(&rows, "output_tokens_mean"), ["4.0", "3.0"]);
    assert_eq!(column(&rows, "certified_requests").len(), 2);
    assert!(column(&rows, "client_ttft_ms_p99").iter().all(|ms| ms.parse::<f64>().is_ok()), "{rows:?}");
    let requests = json_lines(&env.latest("small").join("cells/tiny/load/c2/requests.jsonl"));
    assert!(requests.iter().all(|request| request["kind"] == "measure"), "the script does not warm up");
}

/// With stand-ins for `lmdeploy convert` and Triton.
#[test]
fn lmdeploys_own_server_of_2023_is_converted_configured_and_measured() {
    let env = env("", "{}");
    env.write(
        "sweep.yaml",
        &format!(
            "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engine: {{name: lmdeploy-triton, settings: {{model_name: internlm, instances: 96}}}}
runtime: {{host: {{env: {{CUDA_VISIBLE_DEVICES: MIG-none}}}}}}
certify: false
matrix: {{axes: {{model: [tiny], batch_size: [32, 96]}}}}
benchmarks: {{load: {{method: lmdeploy-tis@v0.1.0, {SHAREGPT}, requests: 4, concurrency: [2]}}}}
"
        ),
    );
    let mut command = env.command(&["apply", "sweep.yaml"]);
    let programs = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/bin/lmdeploy-triton");
    command.env("PATH", format!("{programs}:/usr/local/bin:/usr/bin:/bin")).env("FAKE_SERVER", BENCHRUN);
    env.start(command).end().expect(0);
    assert_eq!(column(&env.rows("small"), "requests_ok"), ["4", "4"]);
    assert_eq!(["quantize", "build"].map(|kind| env.stored(kind).len()), [1, 2], "one conversion serves both");
    let log = env.latest("small").join("cells/tiny/bs96/logs");
    let told = fs::read_to_string(log.join("bench/stderr.log")).unwrap();
    for line in ["    count: 96\n", "max_batch_size = 96\n", "cache_max_entry_count = 0.5\n", "model_name = internlm\n"]
    {
        assert!(told.contains(line), "{line}: {told}");
    }
    assert_eq!(file(&env, "tiny/bs96").1[0][..2], ["2", "4"]);
    env.assert_nothing_runs();
}

#[test]
fn what_is_not_the_method_is_refused() {
    for (phase, complaint) in [
        ("{method: lmdeploy-api@v0.1.0}", "takes its requests out of a ShareGPT file"),
        ("{method: lmdeploy-static@v0.1.0, data: {sharegpt: {path: talks.json}}}", "prompts of fixed lengths"),
        ("{method: lmdeploy-static@v0.1.0, protocol: openai-chat}", "`protocol` is given beside a `method`"),
        ("{method: lmdeploy-api@v9, requests: 1}", "lmdeploy-api@v0.1.0"),
        ("{concurrency: [1], requests: 1, output: {tokens: 1}, data: {synthetic: {isl: 1}}}", "how requests travel"),
        (
            "{method: lmdeploy-api@v0.1.0, protocol: openai-chat, data: {sharegpt: {path: talks.json}}}",
            "`protocol` is given beside a `method`",
        ),
        (
            "{method: lmdeploy-api@v0.16.0, concurrency: [4], data: {sharegpt: {path: talks.json}}}",
            "`concurrency` is given beside a `method`",
        ),
        (
            "{method: lmdeploy-api@v0.1.0, output: {tokens: 4}, data: {sharegpt: {path: talks.json}}}",
            "takes the length of each answer out of the file",
        ),
    ] {
        env(", isl/osl: [[1, 1]]", phase).expect(3, &["validate", "sweep.yaml"]).says(complaint);
    }
}
