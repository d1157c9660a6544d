use std::collections::HashSet;

use serde_json::Value;

use super::{Report, entries, is_misspelled, method};
use crate::manifest::problem::KeyPath;
use crate::manifest::tree::Complaint;

/// What is sent, and how long the answers are.
pub(super) fn check(phase: &Value, path: &KeyPath, axes: &HashSet<&str>, report: &mut Report<'_>) {
    let data = phase.get("data");
    let kind = |name: &str| data.and_then(|data| data.get(name));
    let data_path = path.key("data");
    check_output(phase, path, axes, report);
    if phase.get("trace").is_some() && kind("trace").is_none() {
        let complaint = Complaint::new("only a trace says when its requests are due");
        let hint = "give `data: {trace: {path: ..., format: mooncake}}`, or load the server in another way";
        report.at_key(path.key("trace"), complaint.with_hint(hint));
    }
    let synthetic = kind("synthetic");
    let has_isl = synthetic.is_some_and(|synthetic| synthetic.get("isl").is_some()) || axes.contains("isl");
    if (data.is_none() || synthetic.is_some()) && !has_isl && !is_misspelled(phase, &["data"]) {
        let complaint = Complaint::new("nothing says how long the prompts are");
        report.at_key(path.clone(), complaint.with_hint("give `data: {synthetic: {isl: 128}}` or an axis `isl`"));
    }
    if let Some(synthetic) = synthetic {
        check_synthetic(synthetic, &data_path.key("synthetic"), report);
    }
    for name in ["jsonl", "sharegpt", "hf_dataset", "csv"] {
        if let Some(file) = kind(name) {
            check_file(name, file, &data_path.key(name), report);
        }
    }
    check_amount(phase.pointer("/output/tokens"), &path.key("output").key("tokens"), report);
}

fn check_output(phase: &Value, path: &KeyPath, axes: &HashSet<&str>, report: &mut Report<'_>) {
    let is_trace = phase.pointer("/data/trace").is_some();
    let is_synthetic = phase.get("data").is_none() || phase.pointer("/data/synthetic").is_some();
    let is_sampled = phase.pointer("/data/sharegpt").is_some() && method::of(phase).is_some();
    let at_tokens = path.key("output").key("tokens");
    match phase.pointer("/output/tokens") {
        None if !is_trace && !axes.contains("osl") && !is_sampled && !is_misspelled(phase, &["output"]) => {
            let complaint = Complaint::new("nothing says how long the answers are");
            report.at_key(path.clone(), complaint.with_hint("give `output: {tokens: 128}` or an axis `osl`"));
        }
        Some(Value::String(word)) if word == "from_data" && is_synthetic => {
            let complaint = Complaint::new("synthetic prompts have no answers to take the length of");
            report.at_value(at_tokens, complaint.with_hint("give a number or a distribution"));
        }
        Some(tokens) if is_trace && !tokens.is_string() => {
            let complaint = Complaint::new("a trace says how long each answer is");
            report.at_key(at_tokens, complaint.with_hint("remove it"));
        }
        None | Some(_) => {}
    }
}

fn check_synthetic(synthetic: &Value, path: &KeyPath, report: &mut Report<'_>) {
    if synthetic.get("think_time_ms").is_some() && synthetic.get("turns").is_none() {
        let complaint = Complaint::new("`think_time_ms` is between turns, and each conversation has one");
        report.at_key(path.key("think_time_ms"), complaint.with_hint("give `turns: 4`, or remove it"));
    }
    for field in ["isl", "turns", "think_time_ms"] {
        check_amount(synthetic.get(field), &path.key(field), report);
    }
    let isl = synthetic.get("isl").and_then(Value::as_u64);
    let prefix = synthetic.pointer("/prefix/tokens").and_then(Value::as_u64);
    if let (Some(isl), Some(prefix)) = (isl, prefix)
        && prefix >= isl
    {
        let complaint = Complaint::new(format!("a prefix of {prefix} tokens leaves nothing of a prompt of {isl}"));
        let hint = "`isl` is the length of the whole prompt: raise it, or shorten the prefix";
        report.at_value(path.key("prefix").key("tokens"), complaint.with_hint(hint));
    }
}

fn check_file(kind: &str, file: &Value, path: &KeyPath, report: &mut Report<'_>) {
    let turns = file.get("turns");
    if kind != "sharegpt" && file.get("sampler").is_some() {
        let complaint = Complaint::new("a sampler chooses requests out of a ShareGPT file");
        report.at_key(path.key("sampler"), complaint.with_hint("remove it, or use `sharegpt`"));
    }
    if kind == "csv" && turns.is_some() {
        let complaint = Complaint::new("a line of a CSV file is one request, without turns");
        report.at_key(path.key("turns"), complaint.with_hint("remove it, or use `jsonl` with `messages`"));
    }
    if file.get("think_time_ms").is_some() && turns.and_then(Value::as_str) != Some("all") {
        let complaint = Complaint::new("`think_time_ms` is between turns, and each conversation has one");
        report.at_key(path.key("think_time_ms"), complaint.with_hint("give `turns: all`, or remove it"));
    }
    check_amount(file.get("think_time_ms"), &path.key("think_time_ms"), report);
}

/// A distribution from which a number can be drawn.
fn check_amount(amount: Option<&Value>, path: &KeyPath, report: &mut Report<'_>) {
    for (kind, settings) in entries(amount) {
        let path = path.key(kind);
        let number = |name: &str| settings.get(name).and_then(Value::as_f64);
        if let (Some(min), Some(max)) = (number("min"), number("max"))
            && min > max
        {
            let message = format!("`min` ({min}) is greater than `max` ({max}), so there is no number between them");
            report.at_key(path.clone(), Complaint::new(message));
        }
        let list = |name: &str| settings.get(name).and_then(Value::as_array);
        if let (Some(values), Some(weights)) = (list("values"), list("weights")) {
            let (values, counted) = (values.len(), weights.len());
            if values != counted {
                let message = format!("{counted} weights for {values} values: there is one for each");
                report.at_key(path.key("weights"), Complaint::new(message));
            } else if weights.iter().all(|weight| weight.as_f64() == Some(0.0)) {
                let complaint = Complaint::new("all weights are 0, so no value can be drawn");
                report.at_key(path.key("weights"), complaint);
            }
        }
    }
}
