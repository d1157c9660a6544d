//! What a server says of itself, beside what the client saw.

use std::fs;

use crate::env::{TestEnv, column, json, json_lines, one_cell};
use crate::served::serve;

#[test]
fn the_embedded_engine_counts_what_was_sent() {
    let env = TestEnv::new();
    env.write("sweep.yaml", &one_cell());
    let ended = env.expect(0, &["apply", "sweep.yaml"]);
    assert!(!ended.stderr.contains("the check"), "{}", ended.stderr);
    let rows = env.rows("small");
    for row in &rows {
        let checks = &row["server_checks"];
        assert!(checks.starts_with("requests=ok input_tokens=ok output_tokens=ok littles_law="), "{checks}");
        let number = |name: &str| row[name].parse::<f64>().unwrap_or_else(|_| panic!("`{name}` of {row:?}"));
        assert!(number("server_ttft_ms_mean") > 0.0 && number("server_ttft_ms_p99") > 0.0);
        assert!(number("server_queue_ms_mean") <= number("server_ttft_ms_mean"), "{row:?}");
        assert!(number("server_cpu_cores_mean") >= 0.0 && number("host_rss_mib_peak") > 1.0);
        assert!(["measured", "all"].contains(&row["server_window"].as_str()));
        assert_eq!((row["gpu_power_w_mean"].as_str(), row["server_kv_cache_usage_peak"].as_str()), ("", ""));
    }

    let run = env.latest("small");
    let points: Vec<_> = walk(&run.join("cells")).into_iter().filter(|path| path.ends_with("metrics.jsonl")).collect();
    assert_eq!(points.len(), rows.len(), "beside each requests.jsonl");
    for path in &points {
        let lines = json_lines(path);
        assert_eq!(lines.first().unwrap()["moment"], "before");
        assert_eq!(lines.last().unwrap()["moment"], "after");
        let finished = "benchrun_engine_requests_finished_total";
        let counts: Vec<f64> = lines.iter().filter_map(|line| line["changed"][finished].as_f64()).collect();
        let requests = json_lines(&path.with_file_name("requests.jsonl"));
        assert_eq!(counts.last().unwrap() - counts[0], requests.len() as f64);
    }
}

#[test]
fn bench_reads_the_metrics_that_it_is_told_of() {
    let served = serve();
    let env = &served.env;
    let http = &served.http;
    env.write("prompts.jsonl", "{\"text_input\": \"one two\"}\n{\"text_input\": \"three\"}\n");
    let common = ["bench", "-u", http, "-i", "openai", "-m", "model", "--input-data", "prompts.jsonl"];
    let bench = |url: &str| env.expect(0, &[&common[..], &["--max-tokens", "4", "--metrics-url", url]].concat());

    bench(&format!("{http}/metrics"));
    let rows = env.rows("bench");
    let checks = column(&rows, "server_checks")[0];
    assert_eq!(checks, "requests=ok input_tokens=ok output_tokens=ok littles_law=unknown");
    let point = json(&env.latest("bench").join("cells/server/bench/c1/point.json"));
    assert_eq!(point["server"]["metrics"]["checks"][0]["server"], 3.0, "a warm-up request and two others");

    // What is not there is said, and harms nothing.
    bench(&format!("{http}/nowhere")).says("/nowhere` does not answer with status 200");
    assert_eq!(column(&env.rows("bench"), "server_checks"), [""]);
    bench(&format!("{http}/health")).says("/health` has a known name");
    assert_eq!(column(&env.rows("bench"), "status"), ["ok"]);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
