use std::collections::BTreeMap;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::base::{Digest, Scalar, StepKey};
use crate::event::StepKind;
use crate::manifest::DummyModel;
use crate::recipe::Rendered;
use crate::spec::LoadPoint;

/// Raised to abandon every stored output.
const FORMAT: u32 = 1;
/// Raised when the load generator measures otherwise than before, so that no earlier figure passes for one of its own.
const MEASURING: u32 = 3;

/// What a model's weights are, whatever machine they lie on.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelIdentity {
    Hf {
        repo: String,
        /// The commit; the revision as the manifest has it where no hub could be asked.
        commit: String,
        pinned: bool,
        /// Glob patterns.
        files: Vec<String>,
    },
    /// sha256 by relative path.
    Path { files: BTreeMap<String, String> },
    Package {
        requirement: String,
        /// Glob patterns.
        files: Vec<String>,
    },
    Dummy {
        model: DummyModel,
        seed: u64,
        /// The version of the code that makes it.
        generator: u32,
    },
}

/// The names by which templates call the steps of a chain, in its order.
pub(super) const ROLES: [&str; 4] = ["fetch", "quantize", "build", "render"];

/// Everything that can change what a step produces, and nothing else, but for the steps that it reads.
#[derive(Serialize)]
pub(super) struct Material<'a> {
    pub format: u32,
    pub kind: StepKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a ModelIdentity>,
    /// The values that the templates looked up.
    pub values: BTreeMap<String, &'a Scalar>,
    /// The recipe's own values among them, worked out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub worked_out: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rendered: Option<Canonical<'a>>,
    /// Where each protocol is served, and under which name of the model.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<&'static str, (String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Versions of the programs that the command starts, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub programs: BTreeMap<&'a str, &'a str>,
    /// What the runtime adds to every command's environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<&'a str, &'a str>,
}

/// A [`Material`], written down once for all the steps that differ only in what they read.
#[derive(Debug)]
pub struct Decided {
    /// The name under the recipe's `programs` of what the step's command starts.
    pub program: Option<String>,
    /// The roles of the steps that are read, in the order of [`ROLES`].
    pub(super) roles: Vec<&'static str>,
    /// What the step takes while it runs.
    pub(super) gpus: u32,
    /// The recipe's own values that its templates name.
    pub(super) worked_out: BTreeMap<String, String>,
    material: Value,
    digest: String,
}

/// A rendered part in an order that the manifest's author cannot change.
#[derive(Serialize)]
pub(super) struct Canonical<'a> {
    command: &'a [String],
    env: BTreeMap<&'a str, &'a str>,
    files: BTreeMap<&'a str, &'a str>,
}

impl<'a> Canonical<'a> {
    pub(super) fn of(rendered: &'a Rendered) -> Self {
        Self { command: &rendered.command, env: sorted(&rendered.env), files: sorted(&rendered.files) }
    }
}

pub(super) fn sorted(map: &IndexMap<String, String>) -> BTreeMap<&str, &str> {
    map.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

impl Material<'_> {
    pub(super) fn new(kind: StepKind) -> Self {
        Self {
            format: FORMAT,
            kind,
            model: None,
            values: BTreeMap::new(),
            worked_out: BTreeMap::new(),
            rendered: None,
            endpoints: BTreeMap::new(),
            gpus: None,
            programs: BTreeMap::new(),
            environment: BTreeMap::new(),
        }
    }

    pub(super) fn decided(&self, program: Option<String>, roles: Vec<&'static str>) -> Decided {
        let material = serde_json::to_value(self).expect("materials are plain data with string keys");
        let digest = Digest::of(material.to_string().as_bytes());
        let (gpus, worked_out) = (self.gpus.unwrap_or_default(), self.worked_out.clone());
        Decided { program, roles, gpus, worked_out, material, digest }
    }
}

impl Decided {
    /// The key of a step that reads steps with these keys: a change travels downstream.
    pub(super) fn key<'a>(&self, inputs: impl Iterator<Item = &'a StepKey>) -> StepKey {
        let mut text = self.digest.clone();
        for (role, key) in self.roles.iter().zip(inputs) {
            text.extend([" ", role, " ", key.as_str()]);
        }
        StepKey::new(Digest::of(text.as_bytes()))
    }

    /// Everything that decides the key. Written beside the output: the key decides, this explains.
    pub(super) fn material<'a>(&self, inputs: impl Iterator<Item = &'a StepKey>) -> Value {
        let mut material = self.material.clone();
        for (role, key) in self.roles.iter().zip(inputs) {
            material["inputs"][*role] = key.as_str().into();
        }
        material
    }
}

/// The material of a load point: its server, its load and its prompts.
pub(super) fn point_material(server: &StepKey, load: &LoadPoint, data: &str) -> Value {
    serde_json::json!({
        "format": FORMAT, "measuring": MEASURING, "kind": "point", "inputs": { "server": server }, "load": load, "data": data,
    })
}

/// The key of a load point, from its server's key and the digest of its load and data: cheap enough for a sweep of
/// hundreds of thousands.
pub(super) fn point_key(server: &StepKey, load_digest: &str) -> StepKey {
    StepKey::new(Digest::of(format!("point {FORMAT} {MEASURING} {server} {load_digest}").as_bytes()))
}

/// One difference between two materials.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Change {
    /// `precision`, `load.concurrency`, `programs.trtllm-build`, or the role of an input.
    pub what: String,
    pub from: Value,
    pub to: Value,
}

/// The differences that explain why a key changed: named values before the command lines that follow from them.
#[must_use]
pub fn changes(old: &Value, new: &Value) -> Vec<Change> {
    let mut all = Vec::new();
    differences("", old, new, &mut all);
    let named: Vec<Change> = all.iter().filter(|change| !change.what.starts_with("rendered")).cloned().collect();
    if named.is_empty() { all } else { named }
}

fn differences(at: &str, old: &Value, new: &Value, found: &mut Vec<Change>) {
    if old == new {
        return;
    }
    let (Value::Object(old_map), Value::Object(new_map)) = (old, new) else {
        let what = ["values.", "worked_out.", "inputs."]
            .iter()
            .find_map(|prefix| at.strip_prefix(prefix))
            .unwrap_or(at)
            .to_owned();
        found.push(Change { what, from: old.clone(), to: new.clone() });
        return;
    };
    let added = new_map.keys().filter(|key| !old_map.contains_key(*key));
    for key in old_map.keys().chain(added) {
        let inner = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
        let side = |map: &serde_json::Map<String, Value>| map.get(key).cloned().unwrap_or(Value::Null);
        differences(&inner, &side(old_map), &side(new_map), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn named_values_explain_before_command_lines() {
        let old = json!({"values": {"precision": "fp16", "tp": 1}, "rendered": {"command": ["q", "fp16"]}});
        let new = json!({"values": {"precision": "int8_wo", "tp": 1}, "rendered": {"command": ["q", "int8_wo"]}});
        let change = Change { what: "precision".to_owned(), from: json!("fp16"), to: json!("int8_wo") };
        assert_eq!(changes(&old, &new), [change]);
    }

    #[test]
    fn a_changed_recipe_shows_as_its_command() {
        let old = json!({"rendered": {"command": ["q", "a"]}});
        let new = json!({"rendered": {"command": ["q", "b"]}});
        assert_eq!(changes(&old, &new)[0].what, "rendered.command");
    }

    #[test]
    fn what_appears_or_goes_is_a_change_from_or_to_nothing() {
        let found = changes(&json!({"inputs": {"build": "1"}}), &json!({"inputs": {"quantize": "2"}}));
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].what.as_str(), &found[0].to), ("build", &Value::Null));
    }
}
