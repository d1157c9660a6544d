//! The rules of `matrix`.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::manifest::columns::{TAKEN, known_columns};
use crate::manifest::problem::{KeyPath, did_you_mean, listed};
use crate::manifest::rules::{Report, entries, items};
use crate::manifest::tree::Complaint;

/// Axes whose values are counts, from 1.
const COUNTS: &[&str] = &["tp", "pp", "batch_size", "isl", "osl", "concurrency", "requests", "rounds"];
/// Axes whose values are strings.
const TEXTS: &[&str] = &["model", "engine", "precision", "protocol", "duration"];

/// Gives the names of all axes, those that move together one by one.
pub(super) fn check<'m>(manifest: &'m Value, report: &mut Report<'_>) -> HashSet<&'m str> {
    let matrix = manifest.get("matrix");
    let field = |name: &str| matrix.and_then(|matrix| matrix.get(name));
    let path = KeyPath::of_keys(&["matrix"]);
    let models: Vec<&str> = entries(manifest.get("models")).map(|(name, _)| name).collect();
    let engines: Vec<&str> = entries(manifest.get("engines")).map(|(name, _)| name).collect();
    let mut known = names(field("axes"), &path.key("axes"), &engines, report);
    // It is there whether or not it is listed.
    known.extend((!engines.is_empty() && !known.contains(&"engine")).then_some("engine"));
    let mut check = Check { known, models, engines, report };
    for (axis, values) in entries(field("axes")) {
        check.values(axis, values, &path.key("axes").key(axis));
    }
    check.per_model(field("axes"), field("per_model"), &path.key("per_model"));
    for (index, cell) in items(field("include")) {
        for (axis, value) in entries(Some(cell)) {
            let path = path.key("include").index(index).key(axis);
            check.axis(axis, &path);
            check.value(axis, value, path);
        }
    }
    for (index, exclude) in items(field("exclude")) {
        for (axis, value) in entries(exclude.get("where")) {
            let path = path.key("exclude").index(index).key("where").key(axis);
            check.axis(axis, &path);
            check.value(axis, value, path.clone());
            for (index, value) in items(Some(value)) {
                check.value(axis, value, path.index(index));
            }
        }
    }
    check.known.into_iter().collect()
}

/// Checks the names of axes, and gives them in order.
fn names<'m>(axes: Option<&'m Value>, path: &KeyPath, engines: &[&str], report: &mut Report<'_>) -> Vec<&'m str> {
    let measured = known_columns();
    let mut owners: HashMap<&str, &str> = HashMap::new();
    let mut names = Vec::new();
    for (axis, _) in entries(axes) {
        let mut complain = |message: String| report.at_key(path.key(axis), Complaint::new(message));
        for name in axis.split('/') {
            if name.trim().is_empty() {
                complain("an axis must have a name".to_owned());
            } else if let Some(owner) = owners.insert(name, axis) {
                complain(format!("the axis `{name}` is already part of `{owner}`"));
            } else if name == "engine" {
                if engines.is_empty() {
                    complain("there is one engine: several are listed under `engines`".to_owned());
                }
                names.push(name);
            } else if TAKEN.contains(&name) || measured.iter().any(|column| column == name) {
                complain(format!("`{name}` is a column of the results and cannot be the name of an axis"));
            } else {
                names.push(name);
            }
        }
    }
    names
}

struct Check<'a, 'm, 'n> {
    known: Vec<&'m str>,
    models: Vec<&'m str>,
    engines: Vec<&'m str>,
    report: &'a mut Report<'n>,
}

impl Check<'_, '_, '_> {
    fn axis(&mut self, axis: &str, path: &KeyPath) {
        if !self.known.contains(&axis) {
            let complaint = Complaint::new(format!("there is no axis `{axis}`"));
            self.report.at_key(path.clone(), complaint.with_hint(did_you_mean(axis, "axes", &self.known)));
        }
    }

    fn per_model(&mut self, axes: Option<&Value>, per_model: Option<&Value>, path: &KeyPath) {
        let axes: Vec<&str> = entries(axes).map(|(axis, _)| axis).collect();
        for (model, overrides) in entries(per_model) {
            let path = path.key(model);
            if !self.models.contains(&model) {
                self.report.at_key(path.clone(), unknown("model", model, &self.models));
            }
            for (axis, values) in entries(Some(overrides)) {
                let path = path.key(axis);
                if axis.split('/').any(|name| name == "model") {
                    self.report.at_key(path, Complaint::new("a model cannot have other values of the axis `model`"));
                } else if axes.contains(&axis) {
                    self.values(axis, values, &path);
                } else {
                    let complaint = Complaint::new(format!("there is no axis `{axis}`"));
                    self.report.at_key(path, complaint.with_hint(did_you_mean(axis, "axes", &axes)));
                }
            }
        }
    }

    fn values(&mut self, axis: &str, values: &Value, path: &KeyPath) {
        let names: Vec<&str> = axis.split('/').collect();
        for (index, value) in items(Some(values)) {
            let path = path.index(index);
            match (names.as_slice(), value.as_array()) {
                ([_], Some(_)) => {
                    let complaint = Complaint::new("a list cannot be the value of a single axis");
                    self.report.at_value(path, complaint.with_hint("axes that move together are named like `tp/pp`"));
                }
                ([name], None) => self.value(name, value, path),
                (names, Some(parts)) if parts.len() == names.len() => {
                    for (index, (name, part)) in names.iter().zip(parts).enumerate() {
                        self.value(name, part, path.index(index));
                    }
                }
                (names, _) => {
                    let message = format!("expected a list of {} values, one each for {}", names.len(), listed(names));
                    self.report.at_value(path, Complaint::new(message));
                }
            }
        }
    }

    /// Lists and maps are not looked at.
    fn value(&mut self, axis: &str, value: &Value, path: KeyPath) {
        if value.is_null() || value.is_array() || value.is_object() {
            return;
        }
        let count = |value: &Value| value.as_u64().is_some_and(|count| (1..=u64::from(u32::MAX)).contains(&count));
        if COUNTS.contains(&axis) && !count(value) {
            let message = format!("values of the axis `{axis}` are integers from 1, found `{value}`");
            self.report.at_value(path, Complaint::new(message));
        } else if TEXTS.contains(&axis) && !value.is_string() {
            let complaint = Complaint::new(format!("values of the axis `{axis}` are strings, found `{value}`"));
            self.report.at_value(path, complaint.with_hint(format!("put it in quotes: `\"{value}\"`")));
        } else if let Some(name) = value.as_str() {
            let known = match axis {
                "model" => &self.models,
                "engine" if !self.engines.is_empty() => &self.engines,
                _ => return,
            };
            if !known.contains(&name) {
                self.report.at_value(path, unknown(axis, name, known));
            }
        }
    }
}

fn unknown(kind: &str, name: &str, known: &[&str]) -> Complaint {
    Complaint::new(format!("there is no {kind} `{name}`")).with_hint(did_you_mean(name, &format!("{kind}s"), known))
}
