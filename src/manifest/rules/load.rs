use std::collections::HashSet;

use serde_json::Value;

use super::series::Series;
use super::{Report, is_misspelled, items, method};
use crate::manifest::problem::KeyPath;
use crate::manifest::tree::Complaint;

/// The fields that say how a phase loads the server; a phase has one of them.
const KINDS: [&str; 5] = ["concurrency", "request_rate", "stages", "trace", "search"];

/// How a phase loads the server, and when it ends.
pub(super) fn check(phase: &Value, path: &KeyPath, axes: &HashSet<&str>, report: &mut Report<'_>) {
    let given: Vec<&str> = KINDS.into_iter().filter(|kind| phase.get(kind).is_some()).collect();
    match given.as_slice() {
        [] if ["concurrency", "request_rate"].iter().any(|axis| axes.contains(axis)) => {
            check_volume(phase, path, axes, report);
        }
        [] if is_misspelled(phase, &KINDS) || method::of(phase).is_some() => {}
        [] => {
            let complaint = Complaint::new("nothing says how the server is loaded");
            let hint = "give `concurrency: [1, 8]` (closed loop), `request_rate: [2.5]` (open loop), `stages`, `trace` or `search`";
            report.at_key(path.clone(), complaint.with_hint(hint));
        }
        ["concurrency" | "request_rate"] => check_volume(phase, path, axes, report),
        ["stages"] => check_stages(phase, path, report),
        ["search"] => {
            check_volume(phase, path, axes, report);
            Series { phase, path, axes }.check_search(report);
        }
        [_] => {}
        [first, second, ..] => {
            let complaint = Complaint::new(format!("both `{first}` and `{second}` are given"));
            let hint = "a phase loads the server in one way: make two phases of it";
            report.at_key(path.key(second), complaint.with_hint(hint));
        }
    }
    if phase.get("until").is_some() {
        Series { phase, path, axes }.check_until(report);
    }
    let closed_search = phase.pointer("/search/concurrency").is_some();
    if given == ["concurrency"] || given == ["search"] && closed_search {
        for field in ["spacing", "max_concurrency"].into_iter().filter(|field| phase.get(field).is_some()) {
            let complaint = Complaint::new(format!("`{field}` means nothing in a closed loop"));
            report.at_key(path.key(field), complaint.with_hint("remove it, or give `request_rate` for an open loop"));
        }
    }
}

fn check_volume(phase: &Value, path: &KeyPath, axes: &HashSet<&str>, report: &mut Report<'_>) {
    let given = |field: &str| phase.get(field).is_some() || axes.contains(field);
    match (given("requests"), given("duration")) {
        (true, true) => {
            let complaint = Complaint::new("both `requests` and `duration` are given");
            report.at_key(path.clone(), complaint.with_hint("a load point ends by one of them: remove the other"));
        }
        (false, false) if is_misspelled(phase, &["requests", "duration"]) || method::of(phase).is_some() => {}
        (false, false) => {
            let complaint = Complaint::new("neither `requests` nor `duration` is given");
            let hint = "say when a load point ends: `requests: 100` or `duration: 30s`";
            report.at_key(path.clone(), complaint.with_hint(hint));
        }
        (true, false) | (false, true) => {}
    }
}

fn check_stages(phase: &Value, path: &KeyPath, report: &mut Report<'_>) {
    for field in ["requests", "duration"].into_iter().filter(|field| phase.get(field).is_some()) {
        let complaint = Complaint::new(format!("`{field}` is given beside `stages`"));
        report.at_key(path.key(field), complaint.with_hint("stages end by their own durations: remove it"));
    }
    let path = path.key("stages");
    let mut first: Option<&str> = None;
    for (index, stage) in items(phase.get("stages")).filter(|(_, stage)| stage.is_object()) {
        let kind = match (stage.get("concurrency").is_some(), stage.get("request_rate").is_some()) {
            (true, false) => "concurrency",
            (false, true) => "request_rate",
            (true, true) | (false, false) => {
                let complaint = Complaint::new("a stage has exactly one of `concurrency` and `request_rate`");
                report.at_key(path.index(index), complaint);
                continue;
            }
        };
        if *first.get_or_insert(kind) != kind {
            let complaint = Complaint::new("a closed loop and an open loop in one phase");
            let hint = "give all stages a `concurrency`, or all of them a `request_rate`";
            report.at_key(path.index(index), complaint.with_hint(hint));
        }
    }
}
