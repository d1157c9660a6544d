use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::engines::{PreparedEngine, Search, load_recipes};
use super::models::{Origin, ResolvedModel, Unpinned, resolve};
use super::programs::FoundProgram;
use super::{PrepareError, gpus, history, locked, publish};
use crate::base::sha256_file;
use crate::event::StepKind;
use crate::manifest::{self, Document, KeyPath, Manifest, PhaseData, Runtime};
use crate::matrix::{Cells, MatrixError, Only, expand};
use crate::plan::{self, CellState, Inputs, ModelIdentity, PhaseContradiction, Plan, PlanError, PlannedCell, Step};
use crate::recipe::{LoadedRecipe, Part, RecipeError};
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
    pub plan: Plan,
    pub(super) models: BTreeMap<String, ResolvedModel>,
    /// In the order of [`Manifest::chosen_engines`].
    pub(super) engines: Vec<PreparedEngine>,
    /// What the phases' data files hold, by phase.
    pub(super) sources: HashMap<String, Arc<Source>>,
    /// The PATH on which programs are looked for.
    pub(super) path: OsString,
}

/// Reads and checks a manifest, asks the machine and the hub what they have, and makes the plan.
///
/// `announce` is told of what takes minutes before it begins.
pub async fn prepare(
    request: &Request,
    mut announce: impl FnMut(&str),
    cancel: &CancellationToken,
) -> Result<Prepared, PrepareError> {
    let (document, recipes) = read_checked(&request.manifest)?;
    let manifest = &document.value;
    let base = folder_of(&request.manifest).to_owned();
    let cells = cells_of(manifest, &recipes)?;
    let only = only(request, manifest);
    let chosen = chosen(only.as_deref(), &cells)?;
    let store = Store::of_home(&request.home);
    let unpinned = match request.purpose {
        Purpose::Look => Unpinned::Tolerate,
        Purpose::Carry => Unpinned::Refuse,
    };
    let model_names = wanted("model", &cells, &chosen);
    let models = resolve(manifest, &model_names, &base, store.root(), unpinned);
    let search = Search { request, manifest, base: &base, store: &store, cancel };
    let engine_names = wanted("engine", &cells, &chosen);
    let engines = async {
        let mut engines = Vec::new();
        for (engine, recipe) in manifest.chosen_engines().iter().zip(recipes) {
            let is_wanted = manifest.engines.is_empty() || engine_names.contains(engine.label);
            engines.push(search.engine(engine, recipe, is_wanted, &mut announce).await?);
        }
        Ok::<_, PrepareError>(engines)
    };
    let (engines, models) = match request.purpose {
        // A hub and programs that print their versions need not wait for each other; the programs take longer to begin.
        Purpose::Look => tokio::join!(engines, models),
        // A model that is not there is known before minutes are spent on an environment.
        Purpose::Carry => {
            let models = models.await?;
            (engines.await, Ok(models))
        }
    };
    let (models, engines) = (models?, engines?);
    let (sources, data_files) = read_data(manifest, &base, Some(&store))?;
    let identities: BTreeMap<String, ModelIdentity> =
        models.iter().map(|(name, model)| (name.clone(), model.identity.clone())).collect();
    let history = history::collect(&store, &Runs::of_home(&request.home), &manifest.name, request.rerun.clone())?;
    let plan = plan::plan(Inputs {
        manifest,
        engines: engines.iter().zip(manifest.chosen_engines()).map(|(engine, chosen)| engine.inputs(chosen)).collect(),
        cells,
        chosen,
        models: &identities,
        data_files: &data_files,
        history: &history,
        // What cannot be read is left to the run, which says so.
        outcome: &|plan, number| publish::stored_row(plan, &store, number).ok()??.outcome(),
    })
    .map_err(|error| located(&document, error))?;
    let path = request.path.clone();
    let mut prepared = Prepared { document, base, only, plan, models, engines, sources, path };
    prepared.plan.warnings.extend(prepared.remarks_on_data());
    if let Some(lock) = &prepared.document.value.locked {
        locked::check(lock, &prepared)?;
    }
    match request.purpose {
        Purpose::Carry => prepared.refuse_missing_programs()?,
        Purpose::Look => {
            prepared.warn_of_missing_venvs();
            prepared.warn_of_missing_programs();
        }
    }
    match (prepared.too_few_gpus(request.visible_gpus.as_deref()), request.purpose) {
        (Some(error), Purpose::Carry) => return Err(error),
        (Some(error), Purpose::Look) => prepared.plan.warnings.push(error.to_string()),
        (None, Purpose::Carry | Purpose::Look) => {}
    }
    Ok(prepared)
}

/// What is wrong with a phase has a place in the file.
fn located(document: &Document<Manifest>, error: PlanError) -> PrepareError {
    let PlanError::PhaseContradictions { found } = error else { return error.into() };
    let complaint = |it: PhaseContradiction| {
        (KeyPath::of_keys(&["benchmarks", &it.phase]), format!("in cell `{}`, {}", it.cell, it.because))
    };
    document.refused(found.into_iter().map(complaint).collect()).into()
}

/// Checks a manifest and its data files as far as that needs neither network nor programs; gives the number of its cells.
pub fn check(manifest: &Path) -> Result<usize, PrepareError> {
    let (document, recipes) = read_checked(manifest)?;
    let cells = cells_of(&document.value, &recipes)?.cells.len();
    read_data(&document.value, folder_of(manifest), None)?;
    Ok(cells)
}

/// A manifest and the recipes of its engines. What is wrong with the manifest comes before what is wrong with a recipe.
fn read_checked(path: &Path) -> Result<(Document<Manifest>, Vec<LoadedRecipe>), PrepareError> {
    let mut draft = manifest::draft(path)?;
    let loaded = load_recipes(&mut draft, folder_of(path));
    if let Ok(Some(engines)) = &loaded {
        plan::check(&mut draft, engines);
    }
    let document = draft.finish()?;
    let engines = loaded?.expect("a manifest without a mistake names its engines");
    Ok((document, engines.into_iter().map(|engine| engine.recipe).collect()))
}

fn cells_of(manifest: &Manifest, recipes: &[LoadedRecipe]) -> Result<Cells, MatrixError> {
    let json = serde_json::to_value(manifest).expect("manifests are plain data");
    let engines = manifest.chosen_engines();
    let knows = |label: &str, axis: &str| {
        let recipe = engines.iter().zip(recipes).find(|(engine, _)| engine.label == label).map(|(_, recipe)| recipe);
        recipe.is_none_or(|recipe| plan::knows(&json, recipe, axis))
    };
    expand(manifest, &knows)
}

fn folder_of(manifest: &Path) -> &Path {
    manifest.parent().unwrap_or(Path::new("."))
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

/// The values of an axis that the chosen cells have: no other model or engine is asked for.
fn wanted(axis: &str, cells: &Cells, chosen: &[bool]) -> BTreeSet<String> {
    let Some(at) = cells.axes.iter().position(|name| name == axis) else { return BTreeSet::new() };
    let chosen = cells.cells.iter().zip(chosen).filter(|(cell, chosen)| **chosen && cell.excluded.is_none());
    chosen.filter_map(|(cell, _)| cell.values[at].as_ref()?.as_text().map(ToOwned::to_owned)).collect()
}

type DataFiles = (HashMap<String, Arc<Source>>, HashMap<PathBuf, String>);

/// What the phases' files hold, and the sha256 of each file by its path in the manifest: a bad line is found before
/// hours of building, not after.
fn read_data(manifest: &Manifest, base: &Path, store: Option<&Store>) -> Result<DataFiles, PrepareError> {
    let (mut sources, mut hashes) = DataFiles::default();
    let mut read: Vec<(&PhaseData, AnswerLengths, Arc<Source>)> = Vec::new();
    let phases: Vec<_> = manifest.benchmarks.iter().map(|(name, phase)| (name, phase.with_method())).collect();
    for (phase, settings) in &phases {
        let phase = *phase;
        let Some(path) = settings.data.path() else { continue };
        let failed = |source| PrepareError::Data { phase: phase.clone(), source: Box::new(source) };
        let lengths = match settings.output.tokens {
            Some(OutputTokens::Data(_)) => AnswerLengths::Needed,
            Some(OutputTokens::Amount(_)) | None => AnswerLengths::Optional,
        };
        let alike = |other: &&(&PhaseData, AnswerLengths, Arc<Source>)| *other.0 == settings.data && other.1 == lengths;
        if let Some((_, _, source)) = read.iter().find(alike) {
            sources.insert(phase.clone(), source.clone());
            continue;
        }
        let file = base.join(path);
        let Some(mut source) = Source::read(&settings.data, lengths, &file).map_err(failed)? else { continue };
        if !hashes.contains_key(path) {
            let hash = sha256_file(&file);
            let unreadable = |source| failed(WorkloadError::Read { path: file, source });
            hashes.insert(path.to_owned(), hash.map_err(unreadable)?);
        }
        if let Some(store) = store {
            source.keep_counts(store.counts(), hashes[path].clone());
        }
        let source = Arc::new(source);
        read.push((&settings.data, lengths, source.clone()));
        sources.insert(phase.clone(), source);
    }
    Ok((sources, hashes))
}

impl Prepared {
    fn remarks_on_data(&self) -> Vec<String> {
        let phases = self.document.value.benchmarks.keys();
        phases.filter_map(|phase| Some(format!("phase `{phase}`: {}", self.sources.get(phase)?.remark()?))).collect()
    }

    fn warn_of_missing_venvs(&mut self) {
        for engine in self.engines.iter().filter(|engine| engine.lacks_venv()) {
            let label = &engine.label;
            let message =
                format!("the environment of engine `{label}` is not made yet, so its keys here are provisional");
            self.plan.warnings.push(message);
        }
    }

    /// The engine whose recipe, programs and runtime a step has.
    pub(super) fn engine(&self, step: &Step) -> &PreparedEngine {
        &self.engines[step.values.engine()]
    }

    /// The programs that are missing, each with the first step that needs it.
    fn missing_programs(&self) -> Vec<(&Step, &FoundProgram, &str)> {
        let mut missing: Vec<(&Step, &FoundProgram, &str)> = Vec::new();
        for step in self.plan.steps.iter().filter(|step| step.state.has_work()) {
            let Some(name) = &step.decided.program else { continue };
            let program = self.engine(step).programs.get(name).filter(|program| program.path.is_none());
            let Some(program) = program.filter(|_| !self.engine(step).lacks_venv()) else { continue };
            if !missing.iter().any(|(_, known, _)| known.name == program.name) {
                missing.push((step, program, name));
            }
        }
        missing
    }

    fn refuse_missing_programs(&self) -> Result<(), PrepareError> {
        match self.missing_programs().into_iter().next() {
            None => Ok(()),
            Some((step, program, name)) => {
                let PreparedEngine { recipe, runtime, .. } = self.engine(step);
                let hint = match runtime {
                    Runtime::Host(_) | Runtime::Venv(_) => recipe.recipe.programs[name].hint.clone(),
                    Runtime::Docker(_) => Some("install Docker and NVIDIA's container toolkit".to_owned()),
                };
                Err(PrepareError::NoProgram { program: program.name.clone(), step: step.label.clone(), hint })
            }
        }
    }

    fn warn_of_missing_programs(&mut self) {
        let warning = |(step, program, _): (&Step, &FoundProgram, &str)| {
            format!("program `{}`, which `{}` needs, is not on this machine", program.name.display(), step.label)
        };
        let warnings: Vec<String> = self.missing_programs().into_iter().map(warning).collect();
        self.plan.warnings.extend(warnings);
    }

    /// The first server that is to start and needs more GPUs than it can use.
    fn too_few_gpus(&self, inherited: Option<&str>) -> Option<PrepareError> {
        self.plan.cells.iter().find_map(|cell| {
            let CellState::Planned { server } = cell.state else { return None };
            let step = &self.plan.steps[server];
            let usable = usable_gpus(&self.engine(step).runtime, inherited)?;
            let (step, needed) = (step.state.has_work().then(|| step.label.clone())?, cell.gpus);
            (needed > usable).then_some(PrepareError::TooFewGpus { step, needed, usable })
        })
    }

    /// The rendered files of a server's configuration: text by path, as they are in the store of this home.
    pub fn rendered_files(&self, server: usize, home: &Path) -> Result<Vec<(String, String)>, RecipeError> {
        let step = &self.plan.steps[server];
        let store = Store::of_home(home);
        let roles = ["fetch", "quantize", "build", "render"];
        let folder = |&index: &usize| self.output(&store, index).display().to_string();
        let PreparedEngine { recipe, runtime, .. } = self.engine(step);
        let mut places = plan::Places::symbolic(runtime, recipe);
        places.folders.extend(roles.into_iter().zip(step.chain.iter().map(folder)));
        let rendered = recipe.render(Part::Render, &step.values.with(&places))?;
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

/// How many GPUs a server of this runtime can use; `None` where that cannot be told.
fn usable_gpus(runtime: &Runtime, inherited: Option<&str>) -> Option<u32> {
    let inherited = match runtime {
        Runtime::Host(_) | Runtime::Venv(_) => inherited,
        Runtime::Docker(_) => None,
    };
    gpus::usable(runtime.env().get(gpus::CUDA_VISIBLE_DEVICES).map(String::as_str).or(inherited))
}
