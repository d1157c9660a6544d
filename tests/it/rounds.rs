//! Several rounds of a load point, bounds on single requests, and two runs compared.

use std::fs;

use crate::env::{TestEnv, column, json, manifest};

const PHASE: &str = "load: {protocol: openai-completions, concurrency: [1, 2], requests: 3, rounds: 3, \
    slo: {e2e_ms: 60000}, thresholds: {goodput_share: {min: 1}}}";

#[test]
fn rounds_become_a_mean_with_an_interval_and_runs_are_compared() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32]", PHASE));
    env.expect(0, &["apply", "m.yaml"]).prints(" ± ");
    let (first, rows) = (env.latest("small"), env.rows("small"));
    assert_eq!(column(&rows, "goodput_share"), ["1.0"; 6]);
    assert_eq!(column(&rows, "load_point"), ["c1", "c1", "c1", "c2", "c2", "c2"]);

    let rounds = fs::read_to_string(first.join("rounds.csv")).unwrap();
    let load_points = json(&first.join("rounds.json"))["load_points"].as_array().unwrap().clone();
    assert_eq!(load_points.len(), 2);
    for (load_point, rows) in load_points.iter().zip(rows.chunks(3)) {
        let figure = &load_point["figures"]["e2e_ms_p50"];
        let values: Vec<f64> = column(rows, "e2e_ms_p50").iter().map(|value| value.parse().unwrap()).collect();
        let mean = values.iter().sum::<f64>() / 3.0;
        assert!((figure["mean"].as_f64().unwrap() - mean).abs() < 1e-9 * mean, "{figure} of {values:?}");
        assert_eq!(figure["rounds"], 3);
        assert!(figure["ci95_low"].as_f64().unwrap() < mean && figure["ci95_high"].as_f64().unwrap() > mean);
    }
    fs::remove_file(first.join("rounds.csv")).unwrap();
    env.expect(0, &["report", "small"]).prints(" ± ");
    assert_eq!(fs::read_to_string(first.join("rounds.csv")).unwrap(), rounds);

    env.expect(0, &["apply", "m.yaml", "--rerun", "bench"]);
    let base = first.to_str().unwrap();
    let compared = env.expect(0, &["compare", base, "latest"]);
    compared.prints("ttft_ms_p99").prints("95 % interval").prints("verdict");
    for note in ["another host", "workloads differ", "only in"] {
        assert!(!compared.stdout.contains(note), "one host, one workload:\n{}", compared.stdout);
    }
    // Nothing differs between a run and itself, whatever it measured.
    let same = env.expect(0, &["compare", "latest", "small", "--format", "csv", "--fail-on", "worse"]);
    let verdicts = csv::Reader::from_reader(same.stdout.as_bytes())
        .records()
        .map(|record| record.unwrap().iter().next_back().unwrap().to_owned())
        .collect::<Vec<_>>();
    assert_eq!(verdicts.len(), 20);
    assert!(verdicts.iter().all(|verdict| verdict == "no difference shown"), "{verdicts:?}");
}

#[test]
fn a_missed_goodput_is_a_missed_threshold() {
    let env = TestEnv::new();
    let phase = "load: {protocol: openai-completions, concurrency: [1], requests: 3, slo: {ttft_ms: 0.0001}, \
        thresholds: {goodput_share: {min: 0.5}}}";
    env.write("m.yaml", &manifest("precision: [fp32]", phase));
    env.expect(5, &["apply", "m.yaml"]).says("goodput_share is 0, below 0.5");
}
