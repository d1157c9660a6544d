use indexmap::IndexSet;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::phase::PHASE_AXES;
use super::values::KNOWN_AXES;
use crate::base::Scalar;
use crate::manifest::{Draft, KeyPath, did_you_mean};
use crate::recipe::{LoadedRecipe, Part, Setting, SettingKind};
use crate::spec::Protocol;

/// An engine of a manifest that is being read.
pub struct EngineDraft {
    /// Where the manifest has it: `engine`, or `engines.NAME`.
    pub path: KeyPath,
    pub label: String,
    /// What the manifest has there.
    pub said: Value,
    pub recipe: LoadedRecipe,
}

/// Complains of what is wrong with a manifest in the light of its recipes: settings that an engine does not have or that
/// are out of range, axes that nothing uses, an unknown version. All mistakes, each at its place in the file.
///
/// What has the wrong type is passed over, and so is what would follow from it: reading has said it.
pub fn check(draft: &mut Draft, engines: &[EngineDraft]) {
    let manifest = draft.json();
    let mut check = Check { manifest: &manifest, engines, draft };
    for engine in engines {
        check.engine(engine);
    }
    let matrix = KeyPath::of_keys(&["matrix"]);
    for (name, values) in entries(manifest.pointer("/matrix/axes")) {
        check.axis(&matrix.key("axes").key(name), name, values);
    }
    for (model, axes) in entries(manifest.pointer("/matrix/per_model")) {
        for (name, values) in entries(Some(axes)) {
            check.axis(&matrix.key("per_model").key(model).key(name), name, values);
        }
    }
    for (index, cell) in items(manifest.pointer("/matrix/include")) {
        check.include(&matrix.key("include").index(index), cell);
    }
    for (index, exclude) in items(manifest.pointer("/matrix/exclude")) {
        for (name, value) in entries(exclude.get("where")) {
            let path = matrix.key("exclude").index(index).key("where").key(name);
            match value {
                Value::Array(values) => check.each(&path, name, values),
                value => check.value(path, name, value),
            }
        }
    }
}

/// Whether the manifest makes anything of an axis for an engine: its recipe looks the value up, or the phases do.
#[must_use]
pub fn knows(manifest: &Value, recipe: &LoadedRecipe, axis: &str) -> bool {
    match axis {
        // Without a value in the phase itself, the axis is what the phase takes.
        "isl" => in_templates(recipe, axis) || !every_phase_has(manifest, &HAS_ISL),
        "osl" => in_templates(recipe, axis) || !every_phase_has(manifest, &HAS_OSL),
        "model" | "engine" | "precision" => true,
        // What benchrun itself tells the templates.
        "quant" | "version" | "host" | "port" | "fetch" | "quantize" | "build" | "render" | "output" | "index" => false,
        _ => PHASE_AXES.contains(&axis) || recipe.uses(axis),
    }
}

/// Whether there are phases, and each of them has one of these fields.
fn every_phase_has(manifest: &Value, fields: &[&str]) -> bool {
    let mut phases = entries(manifest.get("benchmarks")).peekable();
    phases.peek().is_some() && phases.all(|(_, phase)| fields.iter().any(|field| phase.pointer(field).is_some()))
}

/// Whether a step or the server looks the value up; a limit alone does not make a difference.
fn in_templates(recipe: &LoadedRecipe, axis: &str) -> bool {
    Part::ALL.iter().any(|&part| recipe.used(part).contains(axis))
}

/// The entries of a map; none of anything else.
fn entries(value: Option<&Value>) -> impl Iterator<Item = (&String, &Value)> {
    value.and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// The items of a list; none of anything else.
fn items(value: Option<&Value>) -> impl Iterator<Item = (usize, &Value)> {
    value.and_then(Value::as_array).into_iter().flatten().enumerate()
}

/// Where a phase says how long its prompts are, or that its data do.
const HAS_ISL: [&str; 6] =
    ["/data/synthetic/isl", "/data/jsonl", "/data/sharegpt", "/data/hf_dataset", "/data/csv", "/data/trace"];
/// Where a phase says how long its answers are, or that its data do.
const HAS_OSL: [&str; 2] = ["/output/tokens", "/data/trace"];

struct Check<'a> {
    manifest: &'a Value,
    engines: &'a [EngineDraft],
    draft: &'a mut Draft,
}

impl Check<'_> {
    fn engine(&mut self, engine: &EngineDraft) {
        let EngineDraft { path, said, recipe, .. } = engine;
        let recipe = &recipe.recipe;
        let version = said.get("version").and_then(Value::as_str);
        if let Some(version) = version.filter(|version| !recipe.versions.iter().any(|known| known == version)) {
            let message = format!("engine `{}` has no version `{version}`", recipe.engine);
            let hint = format!("known versions: {}", recipe.versions.join(", "));
            self.draft.complain(path.key("version"), message, Some(hint));
        }
        for (name, value) in entries(said.get("settings")) {
            let path = path.key("settings").key(name);
            if let Some(setting) = recipe.settings.get(name) {
                self.complain_of(path, wrong_json(setting, value));
            } else {
                let message = format!("engine `{}` has no setting `{name}`", recipe.engine);
                let known: Vec<&str> = recipe.settings.keys().map(String::as_str).collect();
                self.draft.complain(path, message, Some(did_you_mean(name, "settings", &known)));
            }
        }
    }

    fn complain_of(&mut self, path: KeyPath, problem: Option<String>) {
        if let Some(message) = problem {
            self.draft.complain(path, message, None);
        }
    }

    fn axis(&mut self, path: &KeyPath, name: &str, values: &Value) {
        let together = name.contains('/');
        for (position, part) in name.split('/').enumerate() {
            if !self.engines.iter().any(|engine| knows(self.manifest, &engine.recipe, part)) {
                let message = format!("nothing uses the axis `{part}`");
                self.draft.complain(path.clone(), message, Some(self.instead_of(part)));
            }
            for (index, value) in items(Some(values)) {
                let at = path.index(index);
                if !together {
                    self.value(at, part, value);
                } else if let Some(value) = value.get(position) {
                    self.value(at.index(position), part, value);
                }
            }
        }
    }

    /// A cell of its own. One for an engine by name gives only what that engine knows.
    fn include(&mut self, path: &KeyPath, cell: &Value) {
        let label = cell.get("engine").and_then(Value::as_str);
        let engine = self.engines.iter().find(|engine| label == Some(&*engine.label));
        for (name, value) in entries(Some(cell)) {
            let path = path.key(name);
            if let Some(engine) = engine.filter(|engine| !knows(self.manifest, &engine.recipe, name)) {
                let message = format!("engine `{}` makes nothing of the axis `{name}`", engine.label);
                self.draft.complain(path.clone(), message, Some("leave it out".to_owned()));
            }
            let setting = engine.and_then(|engine| engine.recipe.recipe.settings.get(name));
            match setting {
                Some(setting) => self.complain_of(path, wrong_json(setting, value)),
                None => self.value(path, name, value),
            }
        }
    }

    fn each(&mut self, path: &KeyPath, name: &str, values: &[Value]) {
        for (index, value) in values.iter().enumerate() {
            self.value(path.index(index), name, value);
        }
    }

    /// Complains of an axis' value that no engine takes. One that only some take makes cells of the others `unsupported`.
    fn value(&mut self, path: KeyPath, axis: &str, value: &Value) {
        if let Some(field) = phase_field(axis) {
            return self.complain_of(path, wrong_json(&field, value));
        }
        let settings = self.engines.iter().filter_map(|engine| engine.recipe.recipe.settings.get(axis));
        let problems: Option<Vec<String>> = settings.map(|setting| wrong_json(setting, value)).collect();
        self.complain_of(path, problems.and_then(|problems| problems.into_iter().next()));
    }

    /// What to do about an axis that nothing uses.
    fn instead_of(&self, axis: &str) -> String {
        let settings = self.engines.iter().flat_map(|engine| engine.recipe.recipe.settings.keys().map(String::as_str));
        let known: IndexSet<&str> = KNOWN_AXES.into_iter().chain(PHASE_AXES).chain(settings).collect();
        let known: Vec<&str> = known.into_iter().collect();
        if !known.contains(&axis) {
            return did_you_mean(axis, "axes", &known);
        }
        match self.engines {
            [one] => {
                format!("every phase has its own, and engine `{}` needs none: remove it", one.recipe.recipe.engine)
            }
            _ => "every phase has its own, and no engine needs one: remove it".to_owned(),
        }
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

/// What is wrong with a value as the manifest has it; nothing of one that is no scalar, which reading has said.
fn wrong_json(setting: &Setting, value: &Value) -> Option<String> {
    wrong(setting, &Scalar::deserialize(value).ok()?)
}

/// What is wrong with a setting's value, if anything.
pub(super) fn wrong(setting: &Setting, value: &Scalar) -> Option<String> {
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
