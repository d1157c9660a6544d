use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::models::{Origin, ResolvedModel, Unpinned, resolve};
use super::programs::{FoundProgram, Places, ask, find};
use super::venv::{Venv, WantedVenv};
use super::{PrepareError, gpus, history, locked};
use crate::base::sha256_file;
use crate::event::StepKind;
use crate::manifest::{self, Document, Draft, KeyPath, Manifest, PhaseData, Runtime, did_you_mean};
use crate::matrix::{Cells, Only, expand};
use crate::plan::{self, CellState, Inputs, ModelIdentity, Plan, PlannedCell};
use crate::recipe::{LoadedRecipe, Part, RecipeError, RecipeFiles};
use crate::spec::OutputTokens;
use crate::store::{Runs, Store};
use crate::workload::{AnswerLengths, Source, WorkloadError};

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
    /// What the phases' data files hold, by phase.
    pub(super) sources: HashMap<String, Arc<Source>>,
    /// The environment of `runtime.venv`.
    pub(super) venv: Option<Venv>,
    /// The PATH on which programs are looked for.
    pub(super) path: OsString,
}

/// Reads and checks a manifest, asks the machine and the hub what they have, and makes the plan.
///
/// `announce` is told of what takes minutes before it begins.
pub async fn prepare(
    request: &Request,
    announce: impl FnMut(&str),
    cancel: &CancellationToken,
) -> Result<Prepared, PrepareError> {
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
    let models = || resolve(&document.value, &wanted, &base, store.root(), unpinned);
    let venv = venv_of(request, &document.value, &store, models(), announce, cancel).await?;
    let places =
        Places { path: &request.path, venv: venv.as_ref(), chosen: &document.value.engine.programs, base: &base };
    // None of these waits for another: a hub, programs that print their versions, others that tell of the machine.
    let (models, programs, asked) = tokio::join!(
        models(),
        find(&recipe, &document.value.runtime, &places, cancel),
        ask(&recipe, &document.value, &request.path, cancel),
    );
    let models = models?;
    let (sources, data_files) = read_data(&document.value, &base)?;
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
        asked: &asked,
        data_files: &data_files,
        history: &history,
    })?;
    let path = request.path.clone();
    let mut prepared = Prepared { document, base, only, recipe, plan, models, programs, sources, venv, path };
    prepared.plan.warnings.extend(prepared.remarks_on_data());
    if let Some(lock) = &prepared.document.value.locked {
        locked::check(lock, &prepared)?;
    }
    match request.purpose {
        Purpose::Carry => prepared.refuse_missing_programs()?,
        Purpose::Look if prepared.lacks_venv() => {
            let message = "the environment of `runtime.venv` is not made yet, so the keys here are provisional";
            prepared.plan.warnings.push(message.to_owned());
        }
        Purpose::Look => prepared.warn_of_missing_programs(),
    }
    match (prepared.too_few_gpus(request.visible_gpus.as_deref()), request.purpose) {
        (Some(error), Purpose::Carry) => return Err(error),
        (Some(error), Purpose::Look) => prepared.plan.warnings.push(error.to_string()),
        (None, Purpose::Carry | Purpose::Look) => {}
    }
    Ok(prepared)
}

/// The environment that the manifest asks for. It is made where the plan is to be carried out.
async fn venv_of(
    request: &Request,
    manifest: &Manifest,
    store: &Store,
    models: impl Future<Output = Result<BTreeMap<String, ResolvedModel>, PrepareError>>,
    mut announce: impl FnMut(&str),
    cancel: &CancellationToken,
) -> Result<Option<Venv>, PrepareError> {
    let Some(wanted) = WantedVenv::of(manifest, store.root()) else { return Ok(None) };
    if let Some(venv) = wanted.made() {
        return Ok(Some(venv));
    }
    match request.purpose {
        Purpose::Look => Ok(None),
        Purpose::Carry => {
            // A model that is not there is known before minutes are spent.
            models.await?;
            announce(&wanted.announcement());
            Ok(Some(wanted.make(&request.path, manifest.time_limits.fetch.as_std(), cancel).await?))
        }
    }
}

/// Checks a manifest and its data files as far as that needs neither network nor programs; gives the number of its cells.
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

type DataFiles = (HashMap<String, Arc<Source>>, HashMap<PathBuf, String>);

/// What the phases' files hold, and the sha256 of each file by its path in the manifest: a bad line is found before
/// hours of building, not after.
fn read_data(manifest: &Manifest, base: &Path) -> Result<DataFiles, PrepareError> {
    let (mut sources, mut hashes) = DataFiles::default();
    let mut read: Vec<(&PhaseData, AnswerLengths, Arc<Source>)> = Vec::new();
    for (phase, settings) in &manifest.benchmarks {
        let Some(path) = settings.data.path() else { continue };
        let failed = |source| PrepareError::Data { phase: phase.clone(), source: Box::new(source) };
        let lengths = match settings.output.tokens {
            Some(OutputTokens::Data(_)) => AnswerLengths::Needed,
            Some(OutputTokens::Amount(_)) | None => AnswerLengths::Optional,
        };
        let alike = |other: &&(&PhaseData, AnswerLengths, Arc<Source>)| *other.0 == settings.data && other.1 == lengths;
        let source = match read.iter().find(alike) {
            Some((_, _, source)) => source.clone(),
            None => match Source::read(&settings.data, lengths, &base.join(path)).map_err(failed)? {
                Some(source) => Arc::new(source),
                None => continue,
            },
        };
        read.push((&settings.data, lengths, source.clone()));
        sources.insert(phase.clone(), source);
        if !hashes.contains_key(path) {
            let hash = sha256_file(&base.join(path));
            let unreadable = |source| failed(WorkloadError::Read { path: base.join(path), source });
            hashes.insert(path.to_owned(), hash.map_err(unreadable)?);
        }
    }
    Ok((sources, hashes))
}

impl Prepared {
    fn remarks_on_data(&self) -> Vec<String> {
        let phases = self.document.value.benchmarks.keys();
        phases.filter_map(|phase| Some(format!("phase `{phase}`: {}", self.sources.get(phase)?.remark()?))).collect()
    }

    fn lacks_venv(&self) -> bool {
        self.venv.is_none() && matches!(self.document.value.runtime, Runtime::Venv(_))
    }

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
                let hint = match self.document.value.runtime {
                    Runtime::Host(_) | Runtime::Venv(_) => self.recipe.recipe.programs[&name].hint.clone(),
                    Runtime::Docker(_) => Some("install Docker and NVIDIA's container toolkit".to_owned()),
                };
                Err(PrepareError::NoProgram { program: self.programs[&name].name.clone(), step, hint })
            }
        }
    }

    fn warn_of_missing_programs(&mut self) {
        for (name, step) in self.missing_programs() {
            let program = self.programs[&name].name.display();
            self.plan.warnings.push(format!("program `{program}`, which `{step}` needs, is not on this machine"));
        }
    }

    /// The first server that is to start and needs more GPUs than it can use.
    fn too_few_gpus(&self, inherited: Option<&str>) -> Option<PrepareError> {
        let runtime = &self.document.value.runtime;
        let inherited = match runtime {
            Runtime::Host(_) | Runtime::Venv(_) => inherited,
            Runtime::Docker(_) => None,
        };
        let visible = runtime.env().get(gpus::CUDA_VISIBLE_DEVICES).map(String::as_str).or(inherited);
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
