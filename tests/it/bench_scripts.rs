//! `benchrun bench` with the command lines of LMDeploy's scripts.

use std::fs;

use serde_json::{Value, json};

use crate::env::{TestEnv, column, eventually, json as read_json, json_lines};
use crate::served::{Served, serve};

/// A server, and conversations to draw from: five words are asked and four are answered.
fn served() -> Served {
    let served = serve();
    let entry = |text: String| json!({"from": "human", "value": text});
    let talk =
        |index| json!({"conversations": [entry(format!("one two three four {index}")), entry("a b c d".into())]});
    served.env.write("talks.json", &(0..30).map(talk).collect::<Value>().to_string());
    served
}

fn lines(env: &TestEnv, file: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(env.path(file)).unwrap();
    let lines = text.strip_suffix("\r\n").unwrap().split("\r\n");
    lines.map(|line| line.split(',').map(ToOwned::to_owned).collect()).collect()
}

#[test]
fn an_api_command_line_sends_what_the_phase_of_a_manifest_sends() {
    let served = served();
    let env = &served.env;
    let script = ["bench", "lmdeploy-api", &served.http, "model", "talks.json", "--concurrency", "2"];
    let flags = ["--num_prompts", "6", "--stream_output", "True", "--csv", "out.csv", "--seed", "3"];
    let ended = env.expect(0, &[&script[..], &flags].concat());
    let shown = &ended.says("out.csv").stdout;
    assert!(shown.contains("the script's") && shown.contains("correct"), "{shown}");
    let found = lines(env, "out.csv");
    assert_eq!(found[0][..5], ["batch", "num_prompts", "RPS", "RPM", "FTL(ave)(s)"]);
    assert_eq!((found.len(), &found[1][..2]), (2, &["2".to_owned(), "6".to_owned()][..]));
    let manifest = json!({
        "name": "small",
        "seed": 3,
        "models": {"model": {"path": "model"}},
        "engine": {"name": "endpoint", "settings": {"url": served.http, "served_model": "model"}},
        "matrix": {"axes": {"model": ["model"]}},
        "benchmarks": {"bench": {
            "method": "lmdeploy-api@v0.1.0",
            "data": {"sharegpt": {"path": "talks.json"}},
            "concurrency": [2],
            "requests": 6,
        }},
    });
    env.write("small.yaml", &manifest.to_string());
    env.expect(0, &["apply", "small.yaml"]);
    let workload = |run: &str, cell: &str| {
        let point = read_json(&env.latest(run).join("cells").join(cell).join("bench/c2/point.json"));
        point["workload"].as_str().unwrap().to_owned()
    };
    assert_eq!(workload("bench", "server"), workload("small", "model"));
}

#[test]
fn todays_command_line_adds_lines_to_its_file() {
    let served = served();
    let env = &served.env;
    let script = ["bench", "lmdeploy-api@v0.16.0", "--backend", "vllm", "--base-url", &served.http];
    let data = ["--dataset-path", "talks.json", "--tokenizer", "model", "--output-file", "out.csv"];
    let common = [&script[..], &data].concat();
    env.expect(0, &[&common[..], &["--num-prompts", "5", "--sharegpt-output-len", "4"]].concat());
    let sent = json_lines(&env.latest("bench").join("cells/server/bench/c5/requests.jsonl"));
    assert_eq!(sent.iter().filter(|request| request["kind"] == "warmup").count(), 1);
    let rates = ["--num-prompts", "3", "--multi", "--request-rate-range", "40,60", "--disable-warmup"];
    env.expect(0, &[&common[..], &rates, &["--disable-stream", "--disable-tqdm"]].concat())
        .says("note: `--disable-tqdm`");
    let found = lines(env, "out.csv");
    let told: Vec<_> = found.iter().map(|line| (line[0].as_str(), line[2].as_str(), line[6].as_str())).collect();
    let header = ("backend", "sharegpt_output_len", "request_rate");
    assert_eq!(told, [header, ("vllm", "4", "inf"), ("vllm", "", "40.0"), ("vllm", "", "60.0")]);
    assert!(found[2][15].parse::<f64>().unwrap() > 0.0, "without streaming an answer's end is its first token");
}

#[test]
fn lengths_are_paired_and_go_through_each_number_of_workers() {
    let served = served();
    let env = &served.env;
    let script = ["bench", "lmdeploy-static", "model", "--url", &served.http, "--csv", "out.csv", "--tp", "2"];
    let cases = ["--concurrency", "1", "2", "--prompt-tokens", "1", "8", "--completion-tokens", "4", "3"];
    env.expect(0, &[&script[..], &cases, &["--test-round", "2", "--warmup-round", "0"]].concat())
        .says("note: `--tp`")
        .says("concurrency 2, 8 tokens to 3: 4 requests");
    let told: Vec<Vec<String>> = lines(env, "out.csv").iter().skip(1).map(|line| line[..3].to_vec()).collect();
    assert_eq!(told, [["1", "1", "4"], ["1", "8", "3"], ["2", "1", "4"], ["2", "8", "3"]]);
    assert_eq!(column(&env.rows("bench"), "requests_ok"), ["2", "2", "4", "4"]);
}

#[test]
fn a_throughput_command_line_streams() {
    let served = served();
    let env = &served.env;
    let script = ["bench", "lmdeploy-throughput", "talks.json", "model", "--url", &served.http, "--csv", "out.csv"];
    let flags = ["--concurrency", "4", "--num-prompts", "8", "--cache-count", "0.5"];
    env.expect(0, &[&script[..], &flags].concat()).says("note: `--cache-count`");
    let found = lines(env, "out.csv");
    assert_eq!((found[0][1].as_str(), &found[1][..2]), ("num_promts", &["4".to_owned(), "8".to_owned()][..]));
    assert_ne!(found[1][4], "-");
    env.expect(0, &[&script[..], &flags, &["--nostream_output"]].concat());
    assert_eq!(lines(env, "out.csv")[1][4], "-");
}

#[test]
fn a_triton_command_line_calls_lmdeploys_models() {
    let served = served();
    let env = &served.env;
    let null = ["engine", "--null", "--ttft", "30ms", "--port", "0", "--port-file", "port.json"];
    let _null = env.start(env.command(&null));
    eventually("the server writes its port", || env.path("port.json").exists());
    let address = read_json(&env.path("port.json"))["address"].as_str().unwrap().to_owned();
    let script = ["bench", "lmdeploy-tis", &address, "model", "talks.json", "--concurrency", "3", "--num_prompts", "9"];
    env.expect(0, &[&script[..], &["--csv", "out.csv"]].concat()).says("the script's");
    let found = lines(env, "out.csv");
    assert_eq!(found[0][..5], ["batch", "num_prompts", "RPS", "RPM", "FTL(ave)(s)"]);
    assert_eq!((found.len(), &found[1][..2]), (2, &["3".to_owned(), "9".to_owned()][..]));
    assert!(found[1][5].parse::<f64>().unwrap() >= 0.03, "a first token is not there before its time");
    let rows = env.rows("bench");
    assert_eq!(column(&rows, "requests_ok"), ["9"]);
    assert_eq!(
        [column(&rows, "protocol"), column(&rows, "output_tokens_source")],
        [["lmdeploy-triton"], ["server_tensor"]]
    );
    let a1 = [&["bench", "lmdeploy-tis@v0.1.0a1"], &script[2..], &["--nostream_output", "--top-k", "4"]].concat();
    env.expect(0, &a1);
    let found = lines(env, "profile_tis.csv");
    assert_eq!((found[0][2].as_str(), &found[1][4..7]), ("prompt_tokens", &["-", "-", "-"].map(str::to_owned)[..]));
    let refused = ["bench", "lmdeploy-tis", "127.0.0.1:1", "model", "talks.json", "--num_prompts", "1"];
    let shown = env.expect(4, &refused).stdout;
    assert!(shown.contains("cannot use LMDeploy's models on `http://127.0.0.1:1`"), "{shown}");
}

#[test]
fn what_a_script_means_and_we_cannot_do_is_refused() {
    let env = TestEnv::new();
    let today = ["bench", "lmdeploy-api@v0.16.0", "--dataset-path", "a.json", "--tokenizer", "model"];
    let lmdeploy = [&today[..], &["--backend", "lmdeploy"]].concat();
    for (args, status, said) in [
        (&today[..], 3, "SGLang's own endpoint"),
        (&[&today[..], &["--backend", "vllm-chat"]].concat(), 3, "only completions"),
        (&[&lmdeploy[..], &["--dataset-name", "random", "--random-input-len", "8"]].concat(), 3, "random lengths"),
        (&[&lmdeploy[..], &["--extra-request-body", "{}"]].concat(), 3, "no others"),
        (&[&lmdeploy[..], &["--request-rate", "0"]].concat(), 3, "0.001"),
        (&lmdeploy[..4], 3, "SGLang's own endpoint"),
        (&["bench", "lmdeploy-api@v0.16.0", "--backend", "lmdeploy"], 2, "give `--tokenizer`"),
        (&["bench", "lmdeploy-static", "model", "--prompt-tokens", "1", "2"], 2, "each pair is a case"),
        (&["bench", "lmdeploy-static@v0.1.0a1", "model", "--warmup-round", "1"], 3, "always warms up"),
        (&["bench", "lmdeploy-api", "http://127.0.0.1:1", "model", "a.json", "--csv", "no/a.csv"], 4, "no/a.csv"),
        (&["bench", "--isl", "3", "lmdeploy-api", "http://127.0.0.1:1", "model", "a.json"], 2, "cannot be used with"),
    ] {
        env.expect(status, args).says(said);
    }
}
