//! Searches for a server's limit, and rounds until they agree, against a server in the test whose limit is known.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::env::{CONFIG, Row, TestEnv, column, eventually, json, json_lines};

/// How long the n-th completion takes, from 0, when so many others are under way; `None` refuses it.
type Service = fn(usize, usize) -> Option<Duration>;

/// Serves completions on a port of its own for as long as the test runs.
fn serve(service: Service) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, under_way) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    thread::spawn(move || {
        for socket in listener.incoming() {
            let (asked, under_way) = (Arc::clone(&asked), Arc::clone(&under_way));
            // The client hangs up when it likes.
            thread::spawn(move || drop(converse(&socket.unwrap(), service, &asked, &under_way)));
        }
    });
    url
}

fn converse(mut socket: &TcpStream, service: Service, asked: &AtomicUsize, under_way: &AtomicUsize) -> io::Result<()> {
    const ANSWER: &str = r#"{"choices": [{"text": "a b c d", "finish_reason": "length"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 4}}"#;
    let mut reader = BufReader::new(socket);
    while let Some(path) = read_request(&mut reader)? {
        let (status, body) = if path.ends_with("/completions") {
            let time = service(asked.fetch_add(1, Ordering::SeqCst), under_way.fetch_add(1, Ordering::SeqCst));
            thread::sleep(time.unwrap_or_default());
            // Before the answer: who has it may ask again.
            under_way.fetch_sub(1, Ordering::SeqCst);
            if time.is_some() { (200, ANSWER) } else { (503, "{}") }
        } else {
            (200, "{}")
        };
        let length = body.len();
        socket.write_all(format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{body}").as_bytes())?;
    }
    Ok(())
}

/// The path of the next request; `None` when the client has hung up.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let Some(path) = line.split(' ').nth(1).map(str::to_owned) else { return Ok(None) };
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim_end().parse().unwrap();
        }
    }
    reader.read_exact(&mut vec![0; length])?;
    Ok(Some(path))
}

fn manifest(url: &str, phase: &str) -> String {
    format!(
        "name: limit
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engine: {{name: endpoint, settings: {{url: '{url}', served_model: m}}}}
matrix: {{axes: {{precision: [as_served], isl/osl: [[8, 4]]}}}}
benchmarks:
  find: {{protocol: openai-completions, streaming: false, {phase}}}
"
    )
}

const SIX_AT_A_TIME: Service = |_, under_way| (under_way < 6).then_some(Duration::from_millis(60));
/// A generous bound on the time of an answer; what tells is that the server refuses a seventh request.
const SEARCH: &str = "requests: 20, search: {concurrency: {to: 32}}, thresholds: {e2e_ms_p99: {max: 60000}}";

#[test]
fn a_search_finds_the_limit_and_is_decided_again_without_measuring() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest(&serve(SIX_AT_A_TIME), SEARCH));
    let plan = env.expect(10, &["plan", "m.yaml", "--detailed-exitcode"]);
    plan.prints("find search concurrency 1 to 32 to 5 %, first c1  run").prints("1 load point to measure (1 planned)");

    let found = "concurrency 6 keeps the thresholds, concurrency 7 does not: requests_failed is ";
    let ended = env.expect(0, &["apply", "m.yaml"]);
    ended.says(found).says("search ended (found): concurrency 6, after 8 tries");
    let rows = env.rows("limit");
    assert_eq!(tries(&rows), ["1 1", "2 1", "4 1", "6 1", "6 2", "7 1", "7 2", "8 1"]);
    let workloads: BTreeSet<&str> = column(&rows, "workload").into_iter().collect();
    assert_eq!(workloads.len(), rows.len(), "no two tries send the same prompts");

    let run = env.latest("limit");
    let files =
        ["searches.csv", "searches.json"].map(|name| (run.join(name), fs::read_to_string(run.join(name)).unwrap()));
    let search = &json(&files[1].0)["searches"][0];
    assert_eq!((&search["search"], &search["outcome"]), (&"concurrency".into(), &"found".into()));
    assert_eq!((search["limit"].as_f64(), search["missed_at"].as_f64()), (Some(6.0), Some(7.0)));
    assert_eq!((search["tries"].as_u64(), search["requests_ok"].as_f64()), (Some(8), Some(20.0)));
    assert!(search["load_s"].as_f64().unwrap() > 0.2, "{search}");
    for (path, _) in &files {
        fs::remove_file(path).unwrap();
    }
    env.expect(0, &["report", "limit"]).prints(found);
    for (path, text) in files {
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }

    env.expect(0, &["store", "gc"]);
    env.expect(0, &["plan", "m.yaml", "--detailed-exitcode"]).prints("cached: 8 measured");
    let again = env.expect(0, &["apply", "m.yaml"]);
    again.says("nothing to do: 8 load points measured before").says(found);
    assert_eq!(tries(&env.rows("limit")), tries(&rows));
}

/// Concurrency and round of each row.
fn tries(rows: &[Row]) -> Vec<String> {
    rows.iter().map(|row| format!("{} {}", row["concurrency"], row["round"])).collect()
}

#[test]
fn a_killed_search_goes_on_where_it_was() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest(&serve(SIX_AT_A_TIME), SEARCH));
    let running = env.start(env.command(&["apply", "m.yaml"]));
    eventually("some tries are made", || points(&env, "point_finished").len() >= 4);
    running.signal(Signal::KILL);
    running.end();
    env.assert_nothing_runs();
    let kept = env.stored("bench").len();
    assert!((4..8).contains(&kept), "{kept}");

    env.expect(0, &["plan", "m.yaml"]).prints(&format!("{kept} cached, next c"));
    env.expect(0, &["apply", "m.yaml"]).says("concurrency 6 keeps the thresholds, concurrency 7 does not");
    assert_eq!(tries(&env.rows("limit")), ["1 1", "2 1", "4 1", "6 1", "6 2", "7 1", "7 2", "8 1"]);
    assert_eq!(points(&env, "point_started").len(), 8 - kept, "what was there is not measured again");
}

/// The load points of an event in the newest run.
fn points(env: &TestEnv, event: &str) -> Vec<String> {
    let text = fs::read_to_string(env.home().join("runs/limit/latest/events.jsonl")).unwrap_or_default();
    let events = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|it| it["event"] == event).map(|it| it["point"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_search_without_a_limit_in_its_range_is_told_apart() {
    let env = TestEnv::new();
    let url = serve(SIX_AT_A_TIME);
    // Nothing keeps this, which is a missed threshold of the manifest.
    let nothing = "requests: 4, search: {concurrency: {to: 32}, repeats: 1}, thresholds: {e2e_ms_p50: {max: 0.001}}";
    env.write("m.yaml", &manifest(&url, nothing));
    let ended = env.expect(5, &["apply", "m.yaml"]);
    ended.says(
        "threshold missed: tiny/as_served/isl8/osl4 find: not even concurrency 1 keeps the thresholds: e2e_ms_p50",
    );
    assert_eq!(tries(&env.rows("limit")), ["1 1"]);

    env.write("m.yaml", &manifest(&url, &SEARCH.replace("to: 32", "to: 3")));
    env.expect(0, &["apply", "m.yaml"]).says("the end of the range is reached: concurrency 3 keeps the thresholds");

    // Refused requests may be allowed, and open loop has a time of its own.
    let open = "duration: 500ms, search: {request_rate: {from: 5, to: 40}, repeats: 1, budget: 1s}, \
        thresholds: {requests_failed: {max: 1000}}";
    env.write("m.yaml", &manifest(&url, open));
    env.expect(0, &["apply", "m.yaml"]).says("the time is used up: ");
    let rows = env.rows("limit");
    assert!((1..4).contains(&rows.len()), "{rows:?}");
    assert_eq!(rows[0]["request_rate"], "5.0");
}

#[test]
fn a_load_under_which_every_request_fails_is_beyond_the_limit() {
    let env = TestEnv::new();
    // Four of one load point are served, and nothing ever after.
    let breaks: Service = |asked, _| (asked < 4).then_some(Duration::ZERO);
    let phase = "requests: 4, warmup_requests: 0, search: {concurrency: {to: 2}, repeats: 1}, \
        thresholds: {e2e_ms_p99: {max: 60000}}";
    env.write("m.yaml", &manifest(&serve(breaks), phase));
    let found = "concurrency 1 keeps the thresholds, concurrency 2 does not: no request succeeded";
    env.expect(0, &["apply", "m.yaml"]).says(found);
    assert_eq!(column(&env.rows("limit"), "status"), ["ok", "failed"]);
    // Nobody knows whether it was the load: it is tried again.
    assert_eq!(env.stored("bench").len(), 1);

    env.write("m.yaml", &manifest(&serve(|_, _| None), phase));
    env.expect(4, &["apply", "m.yaml"]).says("no request succeeded").says("threshold missed: ");
}

#[test]
fn rounds_go_on_until_they_agree() {
    let env = TestEnv::new();
    // The interval of three rounds is 2.5 standard deviations wide to each side, on a host that does other things, too.
    let steady: Service = |_, _| Some(Duration::from_millis(100));
    env.write("m.yaml", &manifest(&serve(steady), "concurrency: [1], requests: 3, until: {ci: 90%, max_rounds: 9}"));
    env.expect(10, &["plan", "m.yaml", "--detailed-exitcode"])
        .prints("find c1 until ± 90 %, at most 9 rounds, first c1  run");
    env.expect(0, &["apply", "m.yaml"]).says("c1: 3 rounds close enough: ± ");
    assert_eq!(tries(&env.rows("limit")), ["1 1", "1 2", "1 3"]);
    let figure = &json(&env.latest("limit").join("rounds.json"))["load_points"][0]["figures"]["output_tokens_per_s"];
    assert!(figure["ci95_relative_half_width"].as_f64().unwrap() <= 0.9, "{figure}");
    env.expect(0, &["apply", "m.yaml"]).says("nothing to do: 3 load points");
}

#[test]
fn rounds_that_never_agree_end_at_the_last() {
    let env = TestEnv::new();
    // Each round of four takes twice as long as the one before.
    let erratic: Service = |asked, _| Some(Duration::from_millis(5 << (asked / 4)));
    let phase =
        "concurrency: [1], requests: 4, warmup_requests: 0, until: {ci: 5%, max_rounds: 5, figures: [e2e_ms_p50]}";
    env.write("m.yaml", &manifest(&serve(erratic), phase));
    env.expect(0, &["apply", "m.yaml"]).says("c1: 5 rounds still too far apart: ± ");
    assert_eq!(env.rows("limit").len(), 5);
    let events = json_lines(&env.latest("limit").join("events.jsonl"));
    let ended = events.iter().find(|event| event["event"] == "rounds_ended").unwrap();
    assert_eq!((ended["enough"].as_bool(), ended["rounds"].as_u64()), (Some(false), Some(5)));
}

#[test]
fn the_example_plans() {
    let env = TestEnv::new();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/manifests/find-the-limit.yaml");
    let plan = env.expect(0, &["plan", path]);
    plan.prints("rate search 1 to 256 requests/s to 10 %, at most 300 s, first rate1  run")
        .prints("users search concurrency 1 to 64 to 5 %, at most 120 s, first c1  run")
        .prints("agreed c4 until ± 10 %, at most 8 rounds, first c4  run")
        .prints("6 load points to measure (6 planned)");
}
