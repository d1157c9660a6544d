//! The client's certificate: what the client adds is measured before each load point, and a client that is the limit is
//! called so before its figures are wrong.

use std::fs;
use std::path::Path;

use benchrun::stats::percentile;
use rustix::process::Signal;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use crate::env::{CONFIG, Row, Running, TestEnv, column, eventually, json, json_lines};

const TTFT_MS: f64 = 50.0;
const ITL_MS: f64 = 5.0;

/// The served timetable in another process, and a manifest that measures it.
struct Served {
    env: TestEnv,
    server: Running,
}

fn served(phases: &str) -> Served {
    served_at(TTFT_MS, ITL_MS, phases)
}

fn served_at(ttft_ms: f64, itl_ms: f64, phases: &str) -> Served {
    let env = TestEnv::new();
    let (ttft, itl) = (format!("{ttft_ms}ms"), format!("{itl_ms}ms"));
    let place = ["--port", "0", "--port-file", "port.json", "--truth", "truth.jsonl"];
    let server = env.start(env.command(&[&["engine", "--null", "--ttft", &ttft, "--itl", &itl], &place[..]].concat()));
    eventually("the server writes its port", || env.path("port.json").exists());
    let address = json(&env.path("port.json"))["address"].as_str().unwrap().to_owned();
    env.write("prompts.jsonl", "{\"text_input\": \"one two\"}\n{\"text_input\": \"three four\"}\n");
    env.write(
        "m.yaml",
        &format!(
            "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engine: {{name: endpoint, settings: {{url: 'http://{address}', served_model: any}}}}
matrix: {{axes: {{precision: [as_served]}}}}
benchmarks: {{{phases}}}
"
        ),
    );
    Served { env, server }
}

fn phase(name: &str, more: &str) -> String {
    phase_of(20, name, more)
}

fn phase_of(tokens: u32, name: &str, more: &str) -> String {
    format!(
        "{name}: {{protocol: openai-completions, data: {{jsonl: {{path: prompts.jsonl}}}}, output: {{mode: exact, tokens: {tokens}}}{more}}}"
    )
}

#[test]
fn a_row_carries_what_the_client_adds_also_when_it_is_read_again() {
    let certified = phase("certified", ", concurrency: [2], requests: 6, rounds: 2");
    let plain = phase("plain", ", concurrency: [2], requests: 2, certify: false");
    // One request at 0 s and one at 2.5 s, then ten at once: the five seconds before the first answers are its easiest.
    let burst = phase(
        "burst",
        ", spacing: constant, stages: [{request_rate: 0.4, duration: 5s}, {request_rate: 100, duration: 100ms}]",
    );
    let Served { env, server } = served(&format!("{certified}, {plain}, {burst}"));
    env.expect(0, &["apply", "m.yaml"]);
    let rows = env.rows("small");
    assert_eq!(column(&rows, "certified_requests")[3], "11", "the window with the burst");
    assert!(column(&rows, "certified_concurrency")[3].parse::<u64>().unwrap() >= 2, "{rows:?}");
    // The server is faster than the cadence of 10 ms that is assumed at first, so it was replayed once more, as it is.
    assert_eq!(column(&rows, "certified_requests")[..2], ["6", "6"]);
    let columns = ["client_ttft_ms_p99", "client_itl_ms_p99", "client_dispatch_lag_ms_p99", "certified_at_itl_ms"];
    for name in columns {
        let values = column(&rows, name);
        assert!(values[..2].iter().all(|value| value.parse::<f64>().is_ok()), "{name}: {values:?}");
        assert_eq!(values[2], "", "{name} of a phase that wants no certificate");
    }
    let paced: Vec<f64> = column(&rows, "certified_at_itl_ms")[..2].iter().map(|itl| itl.parse().unwrap()).collect();
    assert!(paced.iter().all(|itl| (0.0..8.0).contains(itl)), "{paced:?}");

    let results = fs::read(env.latest("small").join("results.csv")).unwrap();
    fs::remove_file(env.latest("small").join("results.csv")).unwrap();
    env.expect(0, &["report", "small"]);
    assert_eq!(fs::read(env.latest("small").join("results.csv")).unwrap(), results);
    env.expect(0, &["apply", "m.yaml"]);
    for name in columns {
        assert_eq!(column(&env.rows("small"), name), column(&rows, name), "from the store");
    }
    server.signal(Signal::TERM);
    server.end().expect(0);
    env.assert_nothing_runs();
}

/// Lets this thread, and what it starts meanwhile, run on one core alone.
fn on_core<T>(core: usize, start: impl FnOnce() -> T) -> T {
    let before = sched_getaffinity(None).unwrap();
    let mut one = CpuSet::new();
    one.set(core);
    sched_setaffinity(None, &one).unwrap();
    let started = start();
    sched_setaffinity(None, &before).unwrap();
    started
}

fn a_core() -> usize {
    let mine = sched_getaffinity(None).unwrap();
    (0..CpuSet::MAX_CPU).find(|core| mine.is_set(*core)).unwrap()
}

#[test]
fn a_starved_client_is_called_the_limit_before_its_figures_are_wrong() {
    let Served { env, server } = served(&phase("load", ", concurrency: [8], requests: 40"));
    env.expect(0, &["apply", "m.yaml"]);
    let mut rows = env.rows("small");
    // Each with the same priority as the client, or a much higher one.
    rows.extend([(1, "0"), (3, "0"), (2, "10"), (3, "15")].map(|(others, niceness)| starved(&env, others, niceness)));
    server.signal(Signal::TERM);
    server.end().expect(0);
    let truth = json_lines(&env.path("truth.jsonl"));
    let mut off = 0.0;
    for (row, run) in rows.iter().zip(env.runs("small")) {
        off = error(row, &truth, &run.join("cells/tiny/as_served/load/c8"));
        assert!(off <= 0.05 || row["client_verdict"] == "client_limited", "off by {off}: {row:?}");
        assert_eq!(row["client_verdict"] == "client_limited", !row["client_limits"].is_empty());
    }
    assert!(off > 0.05, "the most starved client's figures are right to {off}, which shows nothing");
}

#[test]
fn a_client_with_little_to_do_is_ok() {
    // 4 % of a second: a client that adds so much is rare even on a busy host, and not five times in a row.
    let little = phase_of(3, "load", ", concurrency: [1], requests: 1");
    let Served { env, server } = served_at(1000.0, 1000.0, &little);
    let verdicts = (0..5).map(|_| {
        env.expect(0, &["apply", "m.yaml", "--rerun", "bench"]);
        env.rows("small").remove(0)
    });
    let mut rows = verdicts.inspect(|row| assert_ne!(row["client_verdict"], "", "{row:?}"));
    assert!(rows.any(|row| row["client_verdict"] == "ok" && row["client_limits"].is_empty()));
    server.signal(Signal::TERM);
    server.end().expect(0);
}

/// Measures once more with the client on a core that so many others want, at this niceness.
fn starved(env: &TestEnv, others: usize, niceness: &str) -> Row {
    let core = a_core();
    let start = || (0..others).map(|_| env.start(env.program("sh", &["-c", "while :; do :; done"]))).collect();
    let others: Vec<Running> = on_core(core, start);
    let args = ["-n", niceness, env!("CARGO_BIN_EXE_benchrun"), "apply", "m.yaml", "--rerun", "bench"];
    on_core(core, || env.start(env.program("nice", &args))).end().expect(0);
    drop(others);
    env.rows("small").remove(0)
}

#[test]
fn what_a_client_leaves_unread_is_in_its_row() {
    let Served { env, server } = served(&phase("load", ", concurrency: [8], duration: 3s, certify: false"));
    env.expect(0, &["apply", "m.yaml"]);
    let wait_ms = |row: &Row| row["client_socket_wait_ms_mean"].parse::<f64>().unwrap();
    let calm = env.rows("small").remove(0);
    assert!(wait_ms(&calm) < ITL_MS, "{calm:?}");
    // Whoever looks is starved as well, and often comes to look when the rest has just read.
    let seen = (0..5).map(|_| starved(&env, 2, "10")).find(|row| row["client_socket_bytes_max"] != "0");
    assert!(wait_ms(&seen.expect("one of the looks finds something unread")) > 0.0);
    server.signal(Signal::TERM);
    server.end().expect(0);
}

/// By which share the worse of the 99th percentiles of TTFT and ITL is off from what the server did meanwhile.
fn error(row: &Row, truth: &[Value], point: &Path) -> f64 {
    let began_ns = json(&point.join("point.json"))["client"]["began_monotonic_ns"].as_u64().unwrap();
    let mut records = json_lines(&point.join("requests.jsonl"));
    records.retain(|record| record["kind"] == "measure");
    let times =
        |field: &str| records.iter().map(|record| began_ns + record[field].as_u64().unwrap()).collect::<Vec<_>>();
    let (from, to) = (times("sent_ns").into_iter().min().unwrap(), times("end_ns").into_iter().max().unwrap());
    let (mut ttft_ms, mut itl_ms) = (Vec::new(), Vec::new());
    for told in &truth[1..] {
        let arrival = told["arrival_ns"].as_u64().unwrap();
        if (from..to).contains(&arrival) {
            let chunks: Vec<u64> =
                told["chunks_ns"].as_array().unwrap().iter().map(|it| it.as_u64().unwrap()).collect();
            ttft_ms.push((chunks[0] - arrival) as f64 / 1e6);
            itl_ms.extend(chunks.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6));
        }
    }
    assert_eq!(ttft_ms.len(), records.len(), "every measured request and no other");
    let off = |column: &str, true_ms: Vec<f64>| {
        let true_ms = p99(true_ms);
        (row[column].parse::<f64>().unwrap() - true_ms).abs() / true_ms
    };
    off("ttft_ms_p99", ttft_ms).max(off("itl_ms_p99", itl_ms))
}

fn p99(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    percentile(&values, 99.0).unwrap()
}
