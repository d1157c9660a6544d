//! What a run leaves when it is killed or interrupted, and that the next one goes on from there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use rustix::process::Signal;
use serde_json::Value;

use crate::env::{LOAD, Row, Running, TestEnv, column, eventually, identity, json_lines, manifest};

/// So many moments are tried.
const KILLS: usize = 6;
/// A kill comes at most so long after an event.
const MOST_JITTER: Duration = Duration::from_millis(80);

#[test]
fn a_killed_run_goes_on_where_it_was() {
    let sweep = manifest("precision: [fp32], batch_size: [1, 2]", LOAD);
    let undisturbed = TestEnv::new();
    undisturbed.write("m.yaml", &sweep);
    undisturbed.expect(0, &["apply", "m.yaml"]);
    let expected: Vec<String> = undisturbed.rows("small").iter().map(identity).collect();
    let events = lasting(&json_lines(&undisturbed.latest("small").join("events.jsonl")));
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for kill in 0..KILLS {
        let after = random.random_range(1..events);
        let jitter = random.random_range(Duration::ZERO..MOST_JITTER);
        let env = TestEnv::new();
        env.write("m.yaml", &sweep);
        let running = env.start(env.command(&["apply", "m.yaml"]));
        eventually("the run comes that far", || lasting(&events_of(&env)) >= after);
        // Moments between events count as well.
        std::thread::sleep(jitter);
        running.signal(Signal::KILL);
        running.end();
        let kept = measured_at(&env);
        // Every second time, the next run meets whatever is still ending.
        if kill % 2 == 0 {
            env.assert_nothing_runs();
        }
        env.expect(0, &["apply", "m.yaml"]);
        env.assert_nothing_runs();

        let moment = format!("killed {jitter:?} after event {after} of {events}");
        let rows = env.rows("small");
        assert_eq!(rows.iter().map(identity).collect::<Vec<_>>(), expected, "{moment}");
        assert!(column(&rows, "status").iter().all(|&status| status == "ok"), "{moment}: {rows:?}");
        let finally = measured_at(&env);
        assert_eq!(finally.len(), expected.len(), "{moment}");
        for (key, time) in kept {
            assert_eq!(finally[&key], time, "{moment}: {key} was measured twice");
        }
        check_measured_once(&env, &rows, &moment);
        env.expect(0, &["apply", "m.yaml"]).says("nothing to do");
    }
}

/// How many events every run of a manifest has: signs of progress come as often as there is time for them.
fn lasting(events: &[Value]) -> usize {
    events.iter().filter(|event| !event["event"].as_str().unwrap().ends_with("_progress")).count()
}

/// The events of the only run, as far as they are written whole.
fn events_of(env: &TestEnv) -> Vec<Value> {
    let folder = env.home().join("runs/small/latest/events.jsonl");
    let text = fs::read_to_string(folder).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// When each load point in the store was measured, by key.
fn measured_at(env: &TestEnv) -> BTreeMap<String, SystemTime> {
    let time = |key: &String| {
        let records = env.home().join("store/bench").join(key).join("output/requests.jsonl");
        fs::metadata(records).unwrap().modified().unwrap()
    };
    env.stored("bench").into_iter().map(|key| (key.clone(), time(&key))).collect()
}

/// A row is of the run that measured it, and no later run began to measure it.
fn check_measured_once(env: &TestEnv, rows: &[Row], moment: &str) {
    let last = env.latest("small");
    let begun = begun_points(&last);
    for row in rows {
        let by_last = last.ends_with(&row["measured_in"]);
        assert_eq!(
            begun.contains(&format!("{} {} c{}", row["cell"], row["phase"], row["concurrency"])),
            by_last,
            "{moment}"
        );
    }
}

fn begun_points(run: &Path) -> BTreeSet<String> {
    let events = json_lines(&run.join("events.jsonl")).into_iter();
    let name = |event: Value| ["cell", "phase", "point"].map(|part| event[part].as_str().unwrap().to_owned()).join(" ");
    events.filter(|event| event["event"] == "point_started").map(name).collect()
}

/// A phase that is done at once, one that would take an hour, and one that never gets its turn.
const LONG: &str = "
  quick: {protocol: openai-completions, concurrency: [1], requests: 2},
  long: {protocol: openai-completions, concurrency: [1], duration: 1h},
  later: {protocol: openai-completions, concurrency: [1], requests: 2}
";

fn start_long(env: &TestEnv) -> Running {
    env.write("m.yaml", &manifest("precision: [fp32, int8_wo]", LONG));
    let mut running = env.start(env.command(&["apply", "m.yaml"]));
    let long = |event: &Value| event["event"] == "point_started" && event["phase"] == "long";
    running.waits_until("the long phase has begun", |_| events_of(env).iter().any(long));
    running
}

#[test]
fn an_interrupted_run_stops_its_servers_and_keeps_its_results() {
    for signal in [Signal::INT, Signal::TERM] {
        let env = TestEnv::new();
        let running = start_long(&env);
        running.signal(signal);
        running.end().expect(130).says("interrupted").says("results.csv");
        env.assert_nothing_runs();

        let rows = env.rows("small");
        assert_eq!(rows.len(), 6);
        for row in &rows {
            // The servers' order is free: one of the two precisions had begun.
            let status = row["status"].as_str();
            let reason = row["reason"].as_str();
            match row["phase"].as_str() {
                "quick" => assert!(status == "ok" || (status, reason) == ("skipped", "interrupted"), "{row:?}"),
                "later" => assert_eq!((status, reason), ("skipped", "interrupted"), "{row:?}"),
                _ => assert!(status != "ok" && reason == "interrupted", "{row:?}"),
            }
        }
        let status = |phase: &str, status: &str| {
            rows.iter().filter(|row| row["phase"] == phase && row["status"] == status).count()
        };
        assert_eq!((status("quick", "ok"), status("quick", "skipped")), (1, 1));
        let events = events_of(&env);
        assert!(events.iter().any(|event| event["event"] == "interrupted"));
        assert_eq!(events.last().unwrap()["event"], "run_finished");
        // What was measured before is not measured again.
        let quick: BTreeSet<String> = env.stored("bench");
        assert_eq!(quick.len(), 1);
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    let env = TestEnv::new();
    let running = start_long(&env);
    running.signal(Signal::INT);
    running.signal(Signal::INT);
    running.end().expect(130);
    env.assert_nothing_runs();
}
