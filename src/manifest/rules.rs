//! What a JSON Schema cannot say of a manifest. Anything of the wrong type is passed over here: the schema reports it.

mod data;
mod load;
mod method;
mod series;

use serde_json::Value;

use crate::manifest::axes;
use crate::manifest::columns::known_columns;
use crate::manifest::problem::{KeyPath, closest, did_you_mean};
use crate::manifest::tree::{Complaint, Finding, Node};

pub(super) fn check(root: &Node) -> Vec<Finding> {
    let manifest = root.to_json();
    let mut report = Report { root, findings: Vec::new() };
    let axes = axes::check(&manifest, &mut report);
    check_name(&manifest, &mut report);
    check_engines(&manifest, &mut report);
    check_secrets(&manifest, &mut report);
    let columns = known_columns();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    for (name, phase) in entries(manifest.get("benchmarks")) {
        let path = KeyPath::of_keys(&["benchmarks", name]);
        check_phase_name(name, &path, &mut report);
        if phase.is_object() {
            method::check(phase, &path, axes.contains("protocol"), &mut report);
            load::check(phase, &path, &axes, &mut report);
            data::check(phase, &path, &axes, &mut report);
            check_thresholds(phase, &path, &columns, &mut report);
            series::check_figures(phase, &path, &columns, &mut report);
        }
    }
    report.findings
}

pub(super) struct Report<'n> {
    root: &'n Node,
    findings: Vec<Finding>,
}

impl Report<'_> {
    pub(super) fn at_key(&mut self, path: KeyPath, complaint: Complaint) {
        self.findings.push(Finding { offset: self.root.find(&path).key_offset, path, complaint });
    }

    pub(super) fn at_value(&mut self, path: KeyPath, complaint: Complaint) {
        self.findings.push(Finding { offset: self.root.find(&path).value_offset, path, complaint });
    }
}

/// The entries of a map; none of anything else.
pub(super) fn entries(value: Option<&Value>) -> impl Iterator<Item = (&str, &Value)> {
    value.and_then(Value::as_object).into_iter().flatten().map(|(key, value)| (key.as_str(), value))
}

/// The items of a list; none of anything else.
pub(super) fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    value.and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// Whether a key of this map is a slip of one of these names: then nothing else is to be said of their absence.
fn is_misspelled(map: &Value, names: &[&str]) -> bool {
    entries(Some(map)).any(|(key, _)| !names.contains(&key) && closest(key, names).is_some())
}

/// `latest` is how commands call the newest run.
fn check_name(manifest: &Value, report: &mut Report<'_>) {
    if manifest.get("name").and_then(Value::as_str) == Some("latest") {
        let complaint = Complaint::new("`latest` is how commands call the newest run");
        report.at_value(KeyPath::of_keys(&["name"]), complaint.with_hint("give the sweep another name"));
    }
}

/// One engine with a name, or several by name; the name is a part of cell ids and a key of the lock.
fn check_engines(manifest: &Value, report: &mut Report<'_>) {
    let engines = KeyPath::of_keys(&["engines"]);
    match (manifest.get("engine"), manifest.get("engines")) {
        (None, None) if manifest.is_object() && !is_misspelled(manifest, &["engine", "engines"]) => {
            let complaint = Complaint::new("missing key `engine`");
            report.at_value(
                KeyPath::default(),
                complaint.with_hint("`engine` for one serving system, `engines` for several"),
            );
        }
        (Some(_), Some(_)) => {
            let complaint = Complaint::new("only one of the keys `engine`, `engines` can be given");
            report.at_key(engines.clone(), complaint.with_hint("put all of them under `engines`"));
        }
        (Some(engine @ Value::Object(said)), None)
            if !said.contains_key("name") && !is_misspelled(engine, &["name"]) =>
        {
            let complaint = Complaint::new("missing key `name`").with_hint("`name`: the recipe");
            report.at_value(KeyPath::of_keys(&["engine"]), complaint);
        }
        _ => {}
    }
    for (label, _) in entries(manifest.get("engines")) {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !label.starts_with(|c: char| c.is_ascii_alphanumeric()) || !label.chars().all(plain) || label.len() > 60 {
            let complaint = Complaint::new("the engine's name does not have the right form");
            let hint = "use at most 60 letters, digits, `.`, `_` and `-`, a letter or digit first";
            report.at_key(engines.key(label), complaint.with_hint(hint));
        }
    }
}

/// A manifest is copied into every run, so a secret in it would be, too.
fn check_secrets(manifest: &Value, report: &mut Report<'_>) {
    let one = manifest.get("engine").map(|engine| (engine, KeyPath::of_keys(&["engine"])));
    let several = entries(manifest.get("engines"));
    let several = several.map(|(label, engine)| (engine, KeyPath::of_keys(&["engines", label])));
    for (place, path) in std::iter::once((manifest, KeyPath::default())).chain(one).chain(several) {
        for (kind, runtime) in entries(place.get("runtime")) {
            check_environment(kind, runtime, &path.key("runtime").key(kind), report);
        }
    }
}

fn check_environment(kind: &str, runtime: &Value, path: &KeyPath, report: &mut Report<'_>) {
    const ENDINGS: [&str; 5] = ["TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIALS"];
    for (name, _) in entries(runtime.get("env")) {
        if ENDINGS.iter().any(|ending| name.to_uppercase().ends_with(ending)) {
            let complaint =
                Complaint::new(format!("`{name}` looks like a secret, and a manifest is copied into every run"));
            let hint = match kind {
                "docker" => format!("export it before `benchrun apply` instead, and name it under `{path}.pass_env`"),
                _ => {
                    "export it before `benchrun apply` instead: commands and servers inherit the environment".to_owned()
                }
            };
            report.at_key(path.key("env").key(name), complaint.with_hint(hint));
        }
    }
}

/// A phase is a folder in the run directory.
fn check_phase_name(name: &str, path: &KeyPath, report: &mut Report<'_>) {
    // A cell's folder has these beside the phases.
    let reserved = ["logs", "rendered"].contains(&name);
    let fits = !name.is_empty()
        && !reserved
        && name.len() <= 100
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control());
    if !fits {
        let complaint = Complaint::new("the phase's name cannot be the name of a folder");
        let hint = "use at most 100 characters, no slash, no dot at the start, and neither `logs` nor `rendered`";
        report.at_key(path.clone(), complaint.with_hint(hint));
    }
}

fn check_thresholds(phase: &Value, path: &KeyPath, columns: &[&str], report: &mut Report<'_>) {
    for (column, threshold) in entries(phase.get("thresholds")) {
        let path = path.key("thresholds").key(column);
        if !columns.contains(&column) {
            let complaint = Complaint::new(format!("the results have no column `{column}` to bound"));
            report.at_key(path.clone(), complaint.with_hint(did_you_mean(column, "columns", columns)));
        }
        let bound = |name: &str| threshold.get(name).and_then(Value::as_f64);
        if let (Some(min), Some(max)) = (bound("min"), bound("max"))
            && min > max
        {
            let message = format!("`min` ({min}) is greater than `max` ({max}), so nothing can keep it");
            report.at_key(path, Complaint::new(message));
        }
    }
}
