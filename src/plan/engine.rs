use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::check::wrong;
use super::values::{Places, Values, ValuesOf};
use crate::base::Scalar;
use crate::manifest::{ChosenEngine, Manifest};
use crate::recipe::{LoadedRecipe, Part, RecipeError};

/// One engine of the manifest, and what was found out about it.
pub struct EngineInputs<'a> {
    pub chosen: ChosenEngine<'a>,
    pub recipe: &'a LoadedRecipe,
    /// Versions by the name under the recipe's `programs`.
    pub programs: BTreeMap<String, String>,
    /// What settings with an `ask` are on this machine.
    pub asked: BTreeMap<String, Scalar>,
}

/// One engine of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct PlanEngine {
    /// How the manifest calls it.
    #[serde(rename = "engine")]
    pub label: String,
    pub recipe: String,
    pub version: String,
}

impl EngineInputs<'_> {
    /// The version that the manifest names, or the recipe's default.
    pub(super) fn version(&self) -> String {
        self.chosen.said.version.as_ref().or(self.recipe.recipe.versions.first()).cloned().unwrap_or_default()
    }

    pub(super) fn plan_engine(&self) -> PlanEngine {
        let (label, recipe) = (self.chosen.label.to_owned(), self.chosen.recipe.to_owned());
        PlanEngine { label, recipe, version: self.version() }
    }
}

/// An engine while its cells are planned: which values its templates look up, and how cells get them.
pub(super) struct Known<'a> {
    pub inputs: &'a EngineInputs<'a>,
    pub values_of: ValuesOf,
    /// What a key has in place of folders and ports.
    pub places: Places,
    /// What decides whether the engine can do a cell.
    pub limit_names: Vec<String>,
    pub part_names: BTreeMap<Part, Vec<String>>,
    pub server_names: Vec<String>,
}

impl<'a> Known<'a> {
    pub(super) fn new(index: usize, manifest: &Manifest, inputs: &'a EngineInputs<'a>, axes: &[String]) -> Self {
        let recipe = inputs.recipe;
        let values_of = ValuesOf::new(index, manifest, inputs, axes);
        let names = |part| recipe.used(part).iter().filter(|name| values_of.may_have(name)).cloned().collect();
        let used = Part::ALL.into_iter().flat_map(|part| recipe.used(part)).filter(|name| values_of.may_have(name));
        let server_names: BTreeSet<String> = used.cloned().chain(["model".to_owned()]).collect();
        let mut limit_names = recipe.used_by_limits();
        limit_names.insert("precision".to_owned());
        limit_names.extend(axes.iter().filter(|axis| recipe.recipe.settings.contains_key(*axis)).cloned());
        Self {
            inputs,
            places: Places::symbolic(inputs.chosen.runtime, recipe),
            limit_names: limit_names.into_iter().collect(),
            part_names: Part::ALL.into_iter().map(|part| (part, names(part))).collect(),
            server_names: server_names.into_iter().collect(),
            values_of,
        }
    }

    /// Why the engine cannot do a cell with these values, if it cannot.
    pub(super) fn unsupported(&self, values: &Values) -> Result<Option<String>, RecipeError> {
        let recipe = &self.inputs.recipe.recipe;
        let precision = values.get("precision").map(ToString::to_string).unwrap_or_default();
        if !recipe.precisions.contains_key(&precision) {
            let known: Vec<&str> = recipe.precisions.keys().map(String::as_str).collect();
            let (engine, known) = (&recipe.engine, known.join(", "));
            return Ok(Some(format!("engine `{engine}` has no precision `{precision}` (it has {known})")));
        }
        // What no engine takes was refused when the manifest was checked; another engine may take this.
        for (name, setting) in &recipe.settings {
            if let Some(problem) = values.axis(name).and_then(|value| wrong(setting, value)) {
                return Ok(Some(format!("engine `{}` does not take this `{name}`: {problem}", recipe.engine)));
            }
        }
        self.inputs.recipe.limit_met(&values.with(&self.places))
    }
}
