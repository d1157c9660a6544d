use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::models::{Origin, ResolvedModel, Unpinned, resolve};
use super::programs::{FoundProgram, find};
use super::{PrepareError, gpus, history, locked};
use crate::base::Digest;
use crate::event::StepKind;
use crate::manifest::{self, Document, Draft, KeyPath, Manifest, PhaseData, Runtime, did_you_mean};
use crate::matrix::{Cells, Only, expand};
use crate::plan::{self, CellState, Inputs, ModelIdentity, Plan, PlannedCell};
use crate::recipe::{LoadedRecipe, Part, RecipeError, RecipeFiles};
use crate::store::{Runs, Store};
use crate::workload::{self, Prompt};

/// What is asked of a manifest.
#[derive(Clone, Debug)]
pub struct Request {
    pub manifest: PathBuf,
    /// Holds `store/` and `runs/`.
    pub home: PathBuf,
    pub only: Option<String>,
    /// Kinds of steps to do anew.
    pub rerun: HashSet<StepKind>,
    /// The PATH on which programs are looked for.
    pub path: OsString,
    /// The `CUDA_VISIBLE_DEVICES` that servers inherit, if any.
    pub visible_gpus: Option<String>,
    pub purpose: Purpose,
}

/// What the plan is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// To look at, on any machine: a missing hub or program is a warning.
    Look,
    /// To carry out: what cannot succeed is refused before anything runs.
    Carry,
}

/// A manifest with all that was found out about it, and the plan.
#[derive(Debug)]
pub struct Prepared {
    pub document: Document<Manifest>,
    /// The folder that relative paths of the manifest count from.
    pub base: PathBuf,
    /// Which cells were chosen, as `--only` says it.
    pub(super) only: Option<String>,
    pub recipe: LoadedRecipe,
    pub plan: Plan,
    pub(super) models: BTreeMap<String, ResolvedModel>,
    pub(super) programs: BTreeMap<String, FoundProgram>,
    pub(super) prompts: HashMap<PathBuf, Vec<Prompt>>,
}

/// Reads and checks a manifest, asks the machine and the hub what they have, and makes the plan.
pub async fn prepare(request: &Request, cancel: &CancellationToken) -> Result<Prepared, PrepareError> {
    let (document, recipe) = read_checked(&request.manifest)?;
    let base = folder_of(&request.manifest).to_owned();
    let cells = expand(&document.value)?;
    let only = only(request, &document.value);
    let chosen = chosen(only.as_deref(), &cells)?;
    let store = Store::of_home(&request.home);
    let unpinned = match request.purpose {
        Purpose::Look => Unpinned::Tolerate,
        Purpose::Carry => Unpinned::Refuse,
    };
    let wanted = models_of(&cells, &chosen);
    let models = resolve(&document.value, &wanted, &base, store.root(), unpinned).await?;
    let programs = find(&recipe, &request.path, cancel).await;
    let (prompts, data_files) = read_data(&document.value, &base)?;
    let identities: BTreeMap<String, ModelIdentity> =
        models.iter().map(|(name, model)| (name.clone(), model.identity.clone())).collect();
    let versions: BTreeMap<String, String> =
        programs.iter().map(|(name, program)| (name.clone(), program.version.clone())).collect();
    let history = history::collect(&store, &Runs::of_home(&request.home), &document.value.name, request.rerun.clone())?;
    let plan = plan::plan(Inputs {
        manifest: &document.value,
        recipe: &recipe,
        cells,
        chosen,
        models: &identities,
        programs: &versions,
        data_files: &data_files,
        history: &history,
    })?;
    let mut prepared = Prepared { document, base, only, recipe, plan, models, programs, prompts };
    if let Some(lock) = &prepared.document.value.locked {
        locked::check(lock, &prepared)?;
    }
    match request.purpose {
        Purpose::Carry => prepared.refuse_missing_programs()?,
        Purpose::Look => prepared.warn_of_missing_programs(),
    }
    match (prepared.too_few_gpus(request.visible_gpus.as_deref()), request.purpose) {
        (Some(error), Purpose::Carry) => return Err(error),
        (Some(error), Purpose::Look) => prepared.plan.warnings.push(error.to_string()),
        (None, Purpose::Carry | Purpose::Look) => {}
    }
    Ok(prepared)
}

/// Checks a manifest as far as that needs neither network nor programs; gives the number of its cells.
pub fn check(manifest: &Path) -> Result<usize, PrepareError> {
    let (document, _) = read_checked(manifest)?;
    let cells = expand(&document.value)?.cells.len();
    read_data(&document.value, folder_of(manifest))?;
    Ok(cells)
}

/// What is wrong with the manifest comes before what is wrong with the recipe.
fn read_checked(path: &Path) -> Result<(Document<Manifest>, LoadedRecipe), PrepareError> {
    let mut draft = manifest::draft(path)?;
    let loaded = load_recipe(&draft, folder_of(path));
    match &loaded {
        Some(Ok(recipe)) => plan::check(&mut draft, recipe),
        // Else it may follow from that: a misspelled folder of recipes, for instance.
        Some(Err(RecipeError::Unknown { engine, known })) if !draft.is_wrong_in(&KeyPath::of_keys(&["engine"])) => {
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let hint = did_you_mean(engine, "engines", &known);
            draft.complain(engine_name(), format!("no recipe for engine `{engine}`"), Some(hint));
        }
        Some(Err(_)) | None => {}
    }
    let document = draft.finish()?;
    Ok((document, loaded.expect("a manifest without a mistake names its engine")?))
}

fn engine_name() -> KeyPath {
    KeyPath::of_keys(&["engine", "name"])
}

fn folder_of(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(Path::new("."))
}

/// The recipe of a manifest's engine, if it has a name that can be looked for.
fn load_recipe(draft: &Draft, base: &Path) -> Option<Result<LoadedRecipe, RecipeError>> {
    let manifest = draft.json();
    let engine = manifest.pointer("/engine/name")?.as_str().filter(|_| !draft.is_wrong_in(&engine_name()))?;
    let folder = manifest.pointer("/engine/recipes").and_then(Value::as_str).map(|folder| base.join(folder));
    let files = RecipeFiles::find(engine, folder.as_deref())
        .map_err(|source| RecipeError::Files { engine: engine.to_owned(), source });
    Some(files.and_then(LoadedRecipe::load))
}

/// What a lock chose, and of that what the command line chooses.
fn only(request: &Request, manifest: &Manifest) -> Option<String> {
    let locked = manifest.locked.as_ref().and_then(|locked| locked.only.as_deref());
    let both: Vec<&str> = locked.into_iter().chain(request.only.as_deref()).collect();
    (!both.is_empty()).then(|| both.join(","))
}

fn chosen(only: Option<&str>, cells: &Cells) -> Result<Vec<bool>, PrepareError> {
    match only {
        None => Ok(vec![true; cells.cells.len()]),
        Some(text) => Ok(Only::parse(text)?.choose(cells)?),
    }
}

/// The models of the chosen cells: no other is asked for.
fn models_of(cells: &Cells, chosen: &[bool]) -> BTreeSet<String> {
    let model = cells.axes.iter().position(|axis| axis == "model").unwrap_or_default();
    let chosen = cells.cells.iter().zip(chosen).filter(|(cell, chosen)| **chosen && cell.excluded.is_none());
    chosen.filter_map(|(cell, _)| cell.values[model].as_text().map(ToOwned::to_owned)).collect()
}

type DataFiles = (HashMap<PathBuf, Vec<Prompt>>, HashMap<PathBuf, String>);

/// Prompts of the phases' files and the sha256 of each file, by path as the manifest has it: a bad line is found before
/// hours of building, not after.
fn read_data(manifest: &Manifest, base: &Path) -> Result<DataFiles, PrepareError> {
    let (mut prompts, mut hashes) = DataFiles::default();
    for (phase, settings) in &manifest.benchmarks {
        let PhaseData::Jsonl(file) = &settings.data else { continue };
        if hashes.contains_key(&file.path) {
            continue;
        }
        let path = base.join(&file.path);
        let read = workload::jsonl(&path)
            .map_err(|source| PrepareError::Data { phase: phase.clone(), source: Box::new(source) })?;
        let mut digest = Digest::default();
        for prompt in &read {
            digest.update(format!("{}\n", prompt.content.text().len()).as_bytes());
            digest.update(prompt.content.text().as_bytes());
        }
        hashes.insert(file.path.clone(), digest.hex());
        prompts.insert(file.path.clone(), read);
    }
    Ok((prompts, hashes))
}

impl Prepared {
    /// The programs that are missing, each with the first step that needs it.
    fn missing_programs(&self) -> Vec<(String, String)> {
        let mut missing: Vec<(String, String)> = Vec::new();
        for step in self.plan.steps.iter().filter(|step| step.state.has_work()) {
            let Some(name) = &step.decided.program else { continue };
            let absent = self.programs.get(name).is_some_and(|program| program.path.is_none());
            if absent && !missing.iter().any(|(known, _)| known == name) {
                missing.push((name.clone(), step.label.clone()));
            }
        }
        missing
    }

    fn refuse_missing_programs(&self) -> Result<(), PrepareError> {
        match self.missing_programs().into_iter().next() {
            None => Ok(()),
            Some((name, step)) => {
                let program = &self.recipe.recipe.programs[&name];
                Err(PrepareError::NoProgram { program: program.program.clone(), step, hint: program.hint.clone() })
            }
        }
    }

    fn warn_of_missing_programs(&mut self) {
        for (name, step) in self.missing_programs() {
            let program = &self.recipe.recipe.programs[&name].program;
            self.plan.warnings.push(format!("program `{program}`, which `{step}` needs, is not on this machine"));
        }
    }

    /// The first server that is to start and needs more GPUs than it can use.
    fn too_few_gpus(&self, inherited: Option<&str>) -> Option<PrepareError> {
        let Runtime::Host(host) = &self.document.value.runtime;
        let visible = host.env.get(gpus::CUDA_VISIBLE_DEVICES).map(String::as_str).or(inherited);
        let usable = gpus::usable(visible)?;
        let plan = &self.plan;
        let server = |cell: &PlannedCell| match cell.state {
            CellState::Planned { server } => Some(&plan.steps[server]).filter(|server| server.state.has_work()),
            CellState::Excluded { .. } | CellState::Unsupported { .. } | CellState::NotChosen => None,
        };
        plan.cells.iter().filter(|cell| cell.gpus > usable).find_map(|cell| {
            let step = server(cell)?.label.clone();
            Some(PrepareError::TooFewGpus { step, needed: cell.gpus, usable })
        })
    }

    /// The rendered files of a server's configuration: text by path, as they are in the store of this home.
    pub fn rendered_files(&self, server: usize, home: &Path) -> Result<Vec<(String, String)>, RecipeError> {
        let step = &self.plan.steps[server];
        let store = Store::of_home(home);
        let roles = ["fetch", "quantize", "build", "render"];
        let folder = |&index: &usize| self.output(&store, index).display().to_string();
        let mut places = plan::Places::symbolic(&self.document.value, &self.recipe);
        places.folders.extend(roles.into_iter().zip(step.chain.iter().map(folder)));
        let rendered = self.recipe.render(Part::Render, &step.values.with(&places))?;
        Ok(rendered.map(|rendered| rendered.files.into_iter().collect()).unwrap_or_default())
    }

    /// Where the output of a step is, once it is there. A model's folder is read where it lies: the store knows it only by
    /// its content, and another folder of the same content may have been there before.
    pub(super) fn output(&self, store: &Store, step: usize) -> PathBuf {
        let step = &self.plan.steps[step];
        match (step.kind, self.models.get(&step.model).map(|model| &model.origin)) {
            (StepKind::Fetch, Some(Origin::Folder(folder))) => folder.clone(),
            _ => store.output(step.kind, &step.key),
        }
    }

    /// The labels of the cells that a server measures, for messages.
    #[must_use]
    pub fn cells_of(&self, server: usize) -> Vec<usize> {
        let of_server = |cell: &PlannedCell| cell.state == CellState::Planned { server };
        self.plan.cells.iter().enumerate().filter(|(_, cell)| of_server(cell)).map(|(index, _)| index).collect()
    }
}
