use indexmap::IndexSet;

use super::phase::PHASE_AXES;
use super::values::KNOWN_AXES;
use crate::base::Scalar;
use crate::manifest::{AxisValue, Document, KeyPath, Manifest, PhaseData, Problem, did_you_mean};
use crate::recipe::{LoadedRecipe, Part, Setting, SettingKind};
use crate::spec::Protocol;

/// What is wrong with a manifest in the light of its recipe: settings that the engine does not have or that are out of
/// range, axes that nothing uses, an unknown version. All mistakes, each at its place in the file.
#[must_use]
pub fn check(document: &Document<Manifest>, recipe: &LoadedRecipe) -> Vec<Problem> {
    let check = Check { document, recipe };
    let mut problems = Vec::new();
    problems.extend(check.version());
    for (name, value) in &document.value.engine.settings {
        problems.extend(check.setting(name, value));
    }
    for (name, values) in &document.value.matrix.axes {
        problems.extend(check.axis(&KeyPath::of_keys(&["matrix", "axes", name]), name, values));
    }
    for (model, axes) in &document.value.matrix.per_model {
        for (name, values) in axes {
            problems.extend(check.axis(&KeyPath::of_keys(&["matrix", "per_model", model, name]), name, values));
        }
    }
    problems
}

struct Check<'a> {
    document: &'a Document<Manifest>,
    recipe: &'a LoadedRecipe,
}

impl Check<'_> {
    fn version(&self) -> Option<Problem> {
        let known = &self.recipe.recipe.versions;
        let version = self.document.value.engine.version.as_ref().filter(|version| !known.contains(version))?;
        let message = format!("engine `{}` has no version `{version}`", self.recipe.recipe.engine);
        let problem = self.document.problem(KeyPath::of_keys(&["engine", "version"]), message);
        Some(problem.with_hint(format!("known versions: {}", known.join(", "))))
    }

    fn setting(&self, name: &str, value: &Scalar) -> Option<Problem> {
        let path = KeyPath::of_keys(&["engine", "settings", name]);
        match self.recipe.recipe.settings.get(name) {
            Some(setting) => wrong(setting, value).map(|message| self.document.problem(path, message)),
            None => {
                let message = format!("engine `{}` has no setting `{name}`", self.recipe.recipe.engine);
                let known: Vec<&str> = self.recipe.recipe.settings.keys().map(String::as_str).collect();
                let problem = self.document.problem(path, message);
                Some(problem.with_hint(did_you_mean(name, "settings", &known)))
            }
        }
    }

    fn axis(&self, path: &KeyPath, name: &str, values: &[AxisValue]) -> Vec<Problem> {
        let mut problems = Vec::new();
        let together = name.contains('/');
        for (position, part) in name.split('/').enumerate() {
            if !self.is_used(part) {
                let message = format!("nothing uses the axis `{part}`");
                let problem = self.document.problem(path.clone(), message);
                problems.push(problem.with_hint(self.instead_of(part)));
            }
            let of_phase = phase_field(part);
            let Some(setting) = of_phase.as_ref().or_else(|| self.recipe.recipe.settings.get(part)) else { continue };
            for (index, value) in values.iter().enumerate() {
                let value = match value {
                    AxisValue::One(value) => Some(value),
                    AxisValue::Together(values) => values.get(position),
                };
                let at = path.index(index);
                let at = if together { at.index(position) } else { at };
                let message = value.and_then(|value| wrong(setting, value));
                problems.extend(message.map(|message| self.document.problem(at, message)));
            }
        }
        problems
    }

    /// What to do about an axis that nothing uses.
    fn instead_of(&self, axis: &str) -> String {
        let settings = self.recipe.recipe.settings.keys().map(String::as_str);
        let known: IndexSet<&str> = KNOWN_AXES.into_iter().chain(PHASE_AXES).chain(settings).collect();
        let known: Vec<&str> = known.into_iter().collect();
        if known.contains(&axis) {
            return format!(
                "every phase has its own, and engine `{}` needs none: remove it",
                self.recipe.recipe.engine
            );
        }
        did_you_mean(axis, "axes", &known)
    }

    fn is_used(&self, axis: &str) -> bool {
        let manifest = &self.document.value;
        match axis {
            // Without a value in the phase itself, the axis is what the phase takes.
            "isl" => {
                self.in_templates(axis)
                    || manifest.benchmarks.values().any(|phase| match &phase.data {
                        PhaseData::Synthetic(synthetic) => synthetic.isl.is_none(),
                        PhaseData::Jsonl(_) => false,
                    })
            }
            "osl" => self.in_templates(axis) || manifest.benchmarks.values().any(|phase| phase.output.tokens.is_none()),
            "model" | "precision" => true,
            // What benchrun itself tells the templates.
            "quant" | "version" | "host" | "port" | "fetch" | "quantize" | "build" | "render" | "output" | "index" => {
                false
            }
            _ => PHASE_AXES.contains(&axis) || self.recipe.uses(axis),
        }
    }

    /// Whether a step or the server looks the value up; a limit alone does not make a difference.
    fn in_templates(&self, axis: &str) -> bool {
        Part::ALL.iter().any(|&part| self.recipe.used(part).contains(axis))
    }
}

/// The bounds of a phase's field, for an axis of its name.
fn phase_field(name: &str) -> Option<Setting> {
    let (kind, min, max) = match name {
        "streaming" => (SettingKind::Bool, None, None),
        "protocol" => (SettingKind::Text, None, None),
        "temperature" => (SettingKind::Float, Some(0.0), Some(10.0)),
        "top_p" => (SettingKind::Float, Some(0.0), Some(1.0)),
        "top_k" => (SettingKind::Int, Some(1.0), Some(f64::from(u32::MAX))),
        "concurrency" => (SettingKind::Int, Some(1.0), Some(100_000.0)),
        "request_rate" => (SettingKind::Float, Some(0.001), Some(1_000_000.0)),
        "requests" | "isl" | "osl" => (SettingKind::Int, Some(1.0), Some(10_000_000.0)),
        "warmup_requests" => (SettingKind::Int, Some(0.0), Some(10_000_000.0)),
        "rounds" => (SettingKind::Int, Some(1.0), Some(1000.0)),
        _ => return None,
    };
    let protocols = Protocol::ALL.iter().map(|protocol| Scalar::from(protocol.name()));
    let one_of = if name == "protocol" { protocols.collect() } else { Vec::new() };
    Some(Setting { kind, about: String::new(), default: None, min, max, one_of, ask: Vec::new() })
}

/// What is wrong with a setting's value, if anything.
fn wrong(setting: &Setting, value: &Scalar) -> Option<String> {
    let expected = match setting.kind {
        SettingKind::Bool => "a boolean",
        SettingKind::Int => "an integer",
        SettingKind::Float => "a number",
        SettingKind::Text => "a string",
    };
    let number = match (setting.kind, value) {
        (SettingKind::Int | SettingKind::Float, Scalar::Int(value)) => Some(*value as f64),
        (SettingKind::Float, Scalar::Float(value)) => Some(*value),
        (SettingKind::Bool, Scalar::Bool(_)) | (SettingKind::Text, Scalar::Text(_)) => None,
        _ => return Some(format!("expected {expected}, found {} `{value}`", value.kind())),
    };
    if let (Some(number), Some(min)) = (number, setting.min)
        && number < min
    {
        return Some(format!("`{value}` is below the least value, {min}"));
    }
    if let (Some(number), Some(max)) = (number, setting.max)
        && number > max
    {
        return Some(format!("`{value}` is above the largest value, {max}"));
    }
    if !setting.one_of.is_empty() && !setting.one_of.contains(value) {
        let known: Vec<String> = setting.one_of.iter().map(ToString::to_string).collect();
        return Some(format!("`{value}` is none of {}", known.join(", ")));
    }
    None
}
