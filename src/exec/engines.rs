use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::PrepareError;
use super::prepare::{Purpose, Request};
use super::programs::{FoundProgram, Places, ask, find};
use super::venv::{Venv, WantedVenv};
use crate::base::Scalar;
use crate::manifest::{ChosenEngine, Draft, KeyPath, Manifest, Runtime, did_you_mean};
use crate::plan::{EngineDraft, EngineInputs};
use crate::recipe::{LoadedRecipe, RecipeError, RecipeFiles};
use crate::store::Store;

/// An engine of a manifest, and what was found out about it.
#[derive(Debug)]
pub(super) struct PreparedEngine {
    /// How the manifest calls it.
    pub label: String,
    pub recipe: LoadedRecipe,
    pub runtime: Runtime,
    /// By the name under the recipe's `programs`; empty for an engine that no chosen cell has.
    pub programs: BTreeMap<String, FoundProgram>,
    /// The environment of a `venv` runtime.
    pub venv: Option<Venv>,
    /// Whether any chosen cell has it.
    pub is_wanted: bool,
    asked: BTreeMap<String, Scalar>,
}

/// Where engines are looked for, and what for.
pub(super) struct Search<'a> {
    pub request: &'a Request,
    pub manifest: &'a Manifest,
    /// The folder that relative paths of the manifest count from.
    pub base: &'a Path,
    pub store: &'a Store,
    pub cancel: &'a CancellationToken,
}

impl Search<'_> {
    /// Makes the engine's environment if the plan is to be carried out, and asks its programs for their versions. Of an
    /// engine that no chosen cell has, nothing is asked.
    pub(super) async fn engine(
        &self,
        chosen: &ChosenEngine<'_>,
        recipe: LoadedRecipe,
        is_wanted: bool,
        announce: &mut impl FnMut(&str),
    ) -> Result<PreparedEngine, PrepareError> {
        let (label, runtime) = (chosen.label.to_owned(), chosen.runtime.clone());
        let (programs, venv, asked) = (BTreeMap::new(), None, BTreeMap::new());
        let mut engine = PreparedEngine { label, recipe, runtime, programs, venv, is_wanted, asked };
        if is_wanted {
            let path = &self.request.path;
            engine.venv = self.venv(chosen, path, announce).await?;
            let places = Places { path, venv: engine.venv.as_ref(), chosen: &chosen.said.programs, base: self.base };
            (engine.programs, engine.asked) = tokio::join!(
                find(&engine.recipe, &engine.runtime, &places, self.cancel),
                ask(&engine.recipe, chosen.said, path, self.cancel),
            );
        }
        Ok(engine)
    }

    async fn venv(
        &self,
        chosen: &ChosenEngine<'_>,
        path: &OsStr,
        announce: &mut impl FnMut(&str),
    ) -> Result<Option<Venv>, PrepareError> {
        let Runtime::Venv(runtime) = chosen.runtime else { return Ok(None) };
        let locked = self.manifest.locked.as_ref().and_then(|locked| locked.engines.get(chosen.label));
        let pins = locked.map(|engine| engine.packages.clone()).unwrap_or_default();
        let wanted = WantedVenv::of(runtime, pins, self.store.root());
        if let Some(venv) = wanted.made() {
            return Ok(Some(venv));
        }
        match self.request.purpose {
            Purpose::Look => Ok(None),
            Purpose::Carry => {
                announce(&wanted.announcement());
                Ok(Some(wanted.make(path, self.manifest.time_limits.fetch.as_std(), self.cancel).await?))
            }
        }
    }
}

impl PreparedEngine {
    pub(super) fn inputs<'a>(&'a self, chosen: ChosenEngine<'a>) -> EngineInputs<'a> {
        let versions = self.programs.iter().map(|(name, program)| (name.clone(), program.version.clone()));
        EngineInputs { chosen, recipe: &self.recipe, programs: versions.collect(), asked: self.asked.clone() }
    }

    /// Whether its environment is still to be made.
    pub(super) fn lacks_venv(&self) -> bool {
        self.is_wanted && self.venv.is_none() && matches!(self.runtime, Runtime::Venv(_))
    }
}

/// The recipes of a manifest's engines; `None` when there is a complaint about the name of one.
pub(super) fn load_recipes(draft: &mut Draft, base: &Path) -> Result<Option<Vec<EngineDraft>>, RecipeError> {
    let manifest = draft.json();
    let path = KeyPath::of_keys(&["engine"]);
    let one = manifest.get("engine").map(|said| Said { path, label: None, engine: said });
    let several = manifest
        .get("engines")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(label, engine)| Said { path: KeyPath::of_keys(&["engines", label]), label: Some(label), engine });
    let loaded: Result<Vec<_>, _> = one.into_iter().chain(several).map(|said| said.load_recipe(draft, base)).collect();
    let engines: Option<Vec<EngineDraft>> = loaded?.into_iter().collect();
    Ok(engines.filter(|engines| !engines.is_empty()))
}

/// What a manifest says of an engine, at its place.
struct Said<'a> {
    path: KeyPath,
    /// For one of several.
    label: Option<&'a str>,
    engine: &'a Value,
}

impl Said<'_> {
    fn load_recipe(self, draft: &mut Draft, base: &Path) -> Result<Option<EngineDraft>, RecipeError> {
        let Self { path, label, engine } = self;
        let at_name = if engine.get("name").is_some() { path.key("name") } else { path.clone() };
        let name = engine.get("name").map_or(label, Value::as_str).filter(|_| !draft.is_wrong_in(&path.key("name")));
        let Some(name) = name else { return Ok(None) };
        let folder = engine.get("recipes").and_then(Value::as_str).map(|folder| base.join(folder));
        let files = RecipeFiles::find(name, folder.as_deref())
            .map_err(|source| RecipeError::Files { engine: name.to_owned(), source });
        match files.and_then(LoadedRecipe::load) {
            Ok(recipe) => {
                let label = label.unwrap_or(name).to_owned();
                Ok(Some(EngineDraft { path, label, said: engine.clone(), recipe }))
            }
            // It may follow from another mistake: a misspelled folder of recipes, for instance.
            Err(RecipeError::Unknown { .. }) if draft.is_wrong_in(&path) => Ok(None),
            Err(RecipeError::Unknown { engine, known }) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let hint = did_you_mean(&engine, "engines", &known);
                draft.complain(at_name, format!("no recipe for engine `{engine}`"), Some(hint));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
