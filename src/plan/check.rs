use indexmap::IndexSet;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::phase::PHASE_AXES;
use super::values::KNOWN_AXES;
use crate::base::Scalar;
use crate::manifest::{Draft, KeyPath, did_you_mean};
use crate::recipe::{LoadedRecipe, Part, Setting, SettingKind};
use crate::spec::Protocol;

/// Complains of what is wrong with a manifest in the light of its recipe: settings that the engine does not have or that
/// are out of range, axes that nothing uses, an unknown version. All mistakes, each at its place in the file.
///
/// What has the wrong type is passed over, and so is what would follow from it: reading has said it.
pub fn check(draft: &mut Draft, recipe: &LoadedRecipe) {
    let manifest = draft.json();
    let mut check = Check { manifest: &manifest, recipe, draft };
    check.version();
    for (name, value) in entries(manifest.pointer("/engine/settings")) {
        check.setting(name, value);
    }
    for (name, values) in entries(manifest.pointer("/matrix/axes")) {
        check.axis(&KeyPath::of_keys(&["matrix", "axes", name]), name, values);
    }
    for (model, axes) in entries(manifest.pointer("/matrix/per_model")) {
        for (name, values) in entries(Some(axes)) {
            check.axis(&KeyPath::of_keys(&["matrix", "per_model", model, name]), name, values);
        }
    }
}

/// The entries of a map; none of anything else.
fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// Where a phase says how long its prompts are, or that its data do.
const HAS_ISL: [&str; 6] =
    ["/data/synthetic/isl", "/data/jsonl", "/data/sharegpt", "/data/hf_dataset", "/data/csv", "/data/trace"];
/// Where a phase says how long its answers are, or that its data do.
const HAS_OSL: [&str; 2] = ["/output/tokens", "/data/trace"];

struct Check<'a> {
    manifest: &'a Value,
    recipe: &'a LoadedRecipe,
    draft: &'a mut Draft,
}

impl Check<'_> {
    fn version(&mut self) {
        let recipe = &self.recipe.recipe;
        let version = self.manifest.pointer("/engine/version").and_then(Value::as_str);
        if let Some(version) = version.filter(|version| !recipe.versions.iter().any(|known| known == version)) {
            let message = format!("engine `{}` has no version `{version}`", recipe.engine);
            let hint = format!("known versions: {}", recipe.versions.join(", "));
            self.draft.complain(KeyPath::of_keys(&["engine", "version"]), message, Some(hint));
        }
    }

    fn setting(&mut self, name: &str, value: &Value) {
        let path = KeyPath::of_keys(&["engine", "settings", name]);
        let recipe = &self.recipe.recipe;
        if let Some(setting) = recipe.settings.get(name) {
            self.value(path, setting, value);
        } else {
            let message = format!("engine `{}` has no setting `{name}`", recipe.engine);
            let known: Vec<&str> = recipe.settings.keys().map(String::as_str).collect();
            self.draft.complain(path, message, Some(did_you_mean(name, "settings", &known)));
        }
    }

    fn value(&mut self, path: KeyPath, setting: &Setting, value: &Value) {
        if let Some(message) = Scalar::deserialize(value).ok().and_then(|value| wrong(setting, &value)) {
            self.draft.complain(path, message, None);
        }
    }

    fn axis(&mut self, path: &KeyPath, name: &str, values: &Value) {
        let together = name.contains('/');
        for (position, part) in name.split('/').enumerate() {
            if !self.is_used(part) {
                let message = format!("nothing uses the axis `{part}`");
                self.draft.complain(path.clone(), message, Some(self.instead_of(part)));
            }
            let of_phase = phase_field(part);
            let Some(setting) = of_phase.as_ref().or_else(|| self.recipe.recipe.settings.get(part)) else { continue };
            for (index, value) in values.as_array().into_iter().flatten().enumerate() {
                let at = path.index(index);
                if !together {
                    self.value(at, setting, value);
                } else if let Some(value) = value.get(position) {
                    self.value(at.index(position), setting, value);
                }
            }
        }
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
        match axis {
            // Without a value in the phase itself, the axis is what the phase takes.
            "isl" => self.in_templates(axis) || !self.every_phase_has(&HAS_ISL),
            "osl" => self.in_templates(axis) || !self.every_phase_has(&HAS_OSL),
            "model" | "precision" => true,
            // What benchrun itself tells the templates.
            "quant" | "version" | "host" | "port" | "fetch" | "quantize" | "build" | "render" | "output" | "index" => {
                false
            }
            _ => PHASE_AXES.contains(&axis) || self.recipe.uses(axis),
        }
    }

    /// Whether there are phases, and each of them has one of these fields.
    fn every_phase_has(&self, fields: &[&str]) -> bool {
        let mut phases = entries(self.manifest.get("benchmarks")).peekable();
        phases.peek().is_some() && phases.all(|(_, phase)| fields.iter().any(|field| phase.pointer(field).is_some()))
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
