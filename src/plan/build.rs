use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::material::{Canonical, Material, point_key, point_material, sorted};
use super::phase::{Load, PHASE_AXES, Phases, identity};
use super::types::{CellState, Plan, PlannedCell, Point, PointState, State, Step};
use super::values::{KNOWN_AXES, Places, Values, ValuesOf};
use super::{History, ModelIdentity};
use crate::base::{CellId, Scalar, StepKey};
use crate::event::StepKind;
use crate::manifest::{Manifest, Runtime};
use crate::matrix::{Cell, Cells};
use crate::recipe::{LoadedRecipe, Part, RecipeError};

/// All that a plan is made of.
pub struct Inputs<'a> {
    pub manifest: &'a Manifest,
    pub recipe: &'a LoadedRecipe,
    pub cells: Cells,
    /// Which cells `--only` chooses; one entry a cell.
    pub chosen: Vec<bool>,
    /// By model name.
    pub models: &'a BTreeMap<String, ModelIdentity>,
    /// Versions by the name under the recipe's `programs`.
    pub programs: &'a BTreeMap<String, String>,
    /// sha256 of the data files, by path as the manifest has it.
    pub data_files: &'a HashMap<PathBuf, String>,
    pub history: &'a History,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("phase `{phase}` has no `{what}`, and neither has the matrix")]
    NoLength { phase: String, what: &'static str },
    #[error("axis `{axis}` gives phase `{phase}` the value `{value}`")]
    AxisForPhase { phase: String, axis: &'static str, value: Scalar, source: serde_json::Error },
}

/// Decides everything: which steps there are, what each one's key is, which of them are there already.
pub fn plan(inputs: Inputs<'_>) -> Result<Plan, PlanError> {
    let axes = all_axes(&inputs.cells.axes);
    let values_of = ValuesOf::new(inputs.manifest, inputs.recipe, &inputs.cells.axes);
    let mut planner = Planner::new(&inputs);
    let mut cells = Vec::with_capacity(inputs.cells.cells.len());
    for (cell, &chosen) in inputs.cells.cells.iter().zip(&inputs.chosen) {
        let values = Arc::new(values_of.cell(cell));
        let planned = planner.cell(cells.len(), cell, &values, chosen, &axes)?;
        cells.push(planned);
    }
    let version = inputs.manifest.engine.version.as_ref().or(inputs.recipe.recipe.versions.first());
    let mut plan = Plan {
        name: inputs.manifest.name.clone(),
        engine: inputs.manifest.engine.name.clone(),
        engine_version: version.cloned().unwrap_or_default(),
        axes,
        cells,
        steps: planner.steps,
        points: planner.points,
        warnings: Vec::new(),
    };
    settle(&mut plan);
    plan.warnings = provisional_models(&inputs).chain(idle_axes(&plan)).collect();
    Ok(plan)
}

/// The contract's axes first, then the manifest's own in its order.
fn all_axes(axes: &[String]) -> Vec<String> {
    let others = axes.iter().filter(|axis| !KNOWN_AXES.contains(&axis.as_str())).cloned();
    KNOWN_AXES.iter().map(|&axis| axis.to_owned()).chain(others).collect()
}

/// A server has work to do exactly when one of its load points has, and another step only if something with work reads it.
fn settle(plan: &mut Plan) {
    let mut work: HashMap<usize, State> = HashMap::new();
    for point in plan.points.iter().filter(|point| point.has_work()) {
        if let (Some(server), PointState::Planned { state, .. }) = (plan.server_of(point), &point.state) {
            work.entry(server).or_insert_with(|| state.clone());
        }
    }
    let mut needed: HashSet<usize> = HashSet::new();
    // Inputs come before the steps that read them.
    for index in (0..plan.steps.len()).rev() {
        let step = &mut plan.steps[index];
        if step.kind == StepKind::Bench {
            match work.remove(&index) {
                None => step.state = State::Cached,
                Some(state) if step.state == State::Run => step.state = state,
                Some(_) => {}
            }
        } else if step.state.has_work() && !needed.contains(&index) {
            step.state = State::NotNeeded;
        }
        if step.state.has_work() {
            needed.extend(&step.inputs);
        }
    }
}

fn provisional_models(inputs: &Inputs<'_>) -> impl Iterator<Item = String> {
    inputs.models.iter().filter_map(|(name, identity)| match identity {
        ModelIdentity::Hf { commit, pinned: false, .. } => Some(format!(
            "no hub could be asked which commit `{commit}` of model `{name}` is: the keys here are provisional"
        )),
        ModelIdentity::Hf { .. } | ModelIdentity::Path { .. } | ModelIdentity::Dummy { .. } => None,
    })
}

/// The axes that should change the server and do not, as when a recipe builds a checkpoint but serves another: the rows
/// would look like a comparison and be one measurement.
fn idle_axes(plan: &Plan) -> Vec<String> {
    let axes = plan.axes.iter().enumerate().filter(|(_, axis)| !PHASE_AXES.contains(&axis.as_str()));
    let axes: Vec<(usize, &String)> = axes.collect();
    let mut first_of: HashMap<usize, usize> = HashMap::new();
    let mut idle: BTreeMap<usize, String> = BTreeMap::new();
    for (index, cell) in plan.cells.iter().enumerate() {
        let CellState::Planned { server } = cell.state else { continue };
        let first = &plan.cells[*first_of.entry(server).or_insert(index)];
        for &(at, axis) in axes.iter().filter(|&&(at, _)| first.values[at] != cell.values[at]) {
            idle.entry(at).or_insert_with(|| {
                format!("axis `{axis}` makes no difference: `{}` and `{}` have the same server", first.id, cell.id)
            });
        }
    }
    idle.into_values().collect()
}

/// By part, the steps before it and the values that it looks up.
type PartMemo = HashMap<(Part, Vec<usize>, Vec<Option<Scalar>>), usize>;

struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    places: Places,
    phases: Phases<'a>,
    limit_names: Vec<String>,
    part_names: BTreeMap<Part, Vec<String>>,
    limits: HashMap<Vec<Option<Scalar>>, Option<Arc<str>>>,
    fetches: HashMap<String, usize>,
    parts: PartMemo,
    by_key: HashMap<StepKey, usize>,
    steps: Vec<Step>,
    points: Vec<Point>,
}

impl<'a> Planner<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let names = |part: Part| inputs.recipe.used(part).iter().cloned().collect();
        Self {
            inputs,
            places: Places::symbolic(inputs.manifest, inputs.recipe),
            phases: Phases::new(inputs.manifest, inputs.data_files),
            limit_names: inputs.recipe.used_by_limits().into_iter().collect(),
            part_names: Part::ALL.into_iter().map(|part| (part, names(part))).collect(),
            limits: HashMap::new(),
            fetches: HashMap::new(),
            parts: HashMap::new(),
            by_key: HashMap::new(),
            steps: Vec::new(),
            points: Vec::new(),
        }
    }

    fn cell(
        &mut self,
        index: usize,
        cell: &Cell,
        values: &Arc<Values>,
        chosen: bool,
        axes: &[String],
    ) -> Result<PlannedCell, PlanError> {
        let model = values.get("model").and_then(Scalar::as_text).unwrap_or_default().to_owned();
        let first_point = self.points.len();
        let mut gpus = 0;
        let state = match &cell.excluded {
            Some(because) => CellState::Excluded { because: because.clone() },
            None if !chosen => CellState::NotChosen,
            None => match self.unsupported(values)? {
                Some(because) => CellState::Unsupported { because },
                None => {
                    gpus = self.inputs.recipe.gpus(&values.with(&self.places))?;
                    CellState::Planned { server: self.server(&model, values)? }
                }
            },
        };
        self.add_points(index, &cell.id, &state, values, &model)?;
        let values = axes.iter().map(|axis| values.get(axis).cloned()).collect();
        Ok(PlannedCell { id: cell.id.clone(), model, values, state, gpus, points: first_point..self.points.len() })
    }

    /// Why the engine cannot do a cell, if it cannot.
    fn unsupported(&mut self, values: &Values) -> Result<Option<Arc<str>>, PlanError> {
        let recipe = self.inputs.recipe;
        let precision = values.get("precision").map(ToString::to_string).unwrap_or_default();
        if !recipe.recipe.precisions.contains_key(&precision) {
            let known: Vec<&str> = recipe.recipe.precisions.keys().map(String::as_str).collect();
            let engine = &recipe.recipe.engine;
            return Ok(Some(format!("engine `{engine}` has no precision `{precision}` (it has {})", known.join(", ")).into()));
        }
        let used: Vec<Option<Scalar>> = self.limit_names.iter().map(|name| values.get(name).cloned()).collect();
        if let Some(known) = self.limits.get(&used) {
            return Ok(known.clone());
        }
        let met: Option<Arc<str>> = recipe.limit_met(&values.with(&self.places))?.map(Into::into);
        self.limits.insert(used, met.clone());
        Ok(met)
    }

    fn add_points(
        &mut self,
        cell: usize,
        id: &CellId,
        state: &CellState,
        values: &Values,
        model: &str,
    ) -> Result<(), PlanError> {
        let model_key = match state {
            CellState::Planned { .. } => self.steps[self.fetches[model]].key.to_string(),
            CellState::Excluded { .. } | CellState::Unsupported { .. } | CellState::NotChosen => String::new(),
        };
        for phase in 0..self.inputs.manifest.benchmarks.len() {
            let loads = self.phases.loads(phase, values, &model_key)?;
            for load in loads.iter() {
                let state = self.point_state(id, state, load);
                self.points.push(Point { cell, name: load.name.clone(), load: load.point.clone(), data: load.data.clone(), state });
            }
        }
        Ok(())
    }

    fn point_state(&self, cell_id: &CellId, cell: &CellState, load: &Load) -> PointState {
        let server = match cell {
            CellState::Planned { server } => &self.steps[*server],
            CellState::Unsupported { because } => return PointState::Unsupported { because: because.clone() },
            CellState::Excluded { because } => return PointState::Excluded { because: because.clone() },
            CellState::NotChosen => return PointState::NotChosen,
        };
        let recipe = &self.inputs.recipe.recipe;
        if !recipe.server.protocols.contains_key(&load.point.protocol) {
            let because = format!("engine `{}` does not serve protocol `{}`", recipe.engine, load.point.protocol);
            return PointState::Unsupported { because: because.into() };
        }
        let key = point_key(&server.key, &load.digest);
        let history = self.inputs.history;
        let label = || format!("{cell_id} {} {}", load.point.phase, load.name);
        let state = if history.holds(StepKind::Bench, &key) {
            State::Cached
        } else {
            history.missing("point", &label, || point_material(&server.key, &identity(&load.point), &load.data))
        };
        PointState::Planned { key, state }
    }

    fn server(&mut self, model: &str, values: &Arc<Values>) -> Result<usize, PlanError> {
        let fetch = self.fetch(model, values);
        let mut chain = vec![fetch];
        for part in [Part::Quantize, Part::Build, Part::Render] {
            let step = self.part(part, &chain, model, values)?;
            chain.push(step);
        }
        self.part(Part::Server, &chain, model, values)
    }

    fn fetch(&mut self, model: &str, values: &Arc<Values>) -> usize {
        if let Some(&step) = self.fetches.get(model) {
            return step;
        }
        let material = Material { model: self.inputs.models.get(model), ..Material::new(StepKind::Fetch) };
        let (key, material) = material.keyed();
        let step = self.step(StepKind::Fetch, format!("fetch {model}"), key, material, Vec::new(), Vec::new(), model, values);
        self.fetches.insert(model.to_owned(), step);
        step
    }

    /// The step that does a part, or the step before it when the part has nothing to do.
    fn part(&mut self, part: Part, chain: &[usize], model: &str, values: &Arc<Values>) -> Result<usize, PlanError> {
        let before = chain[chain.len() - 1];
        let used: Vec<Option<Scalar>> = self.part_names[&part].iter().map(|name| self.lookup(name, values)).collect();
        let memo_key = (part, chain.to_vec(), used);
        if let Some(&step) = self.parts.get(&memo_key) {
            return Ok(step);
        }
        let step = match self.inputs.recipe.render(part, &values.with(&self.places))? {
            None => before,
            Some(rendered) => {
                let inputs = self.roles(part, chain);
                let manifest = self.inputs.manifest;
                let Runtime::Host(host) = &manifest.runtime;
                let programs = rendered.command.first().and_then(|name| self.inputs.programs.get_key_value(name));
                let kind = part.step();
                let material = Material {
                    values: values.used_by(self.inputs.recipe, part),
                    rendered: Some(Canonical::of(&rendered)),
                    programs: programs.into_iter().map(|(name, version)| (name.as_str(), version.as_str())).collect(),
                    environment: if rendered.command.is_empty() { BTreeMap::new() } else { sorted(&host.env) },
                    inputs: inputs.iter().map(|(role, step)| (*role, &self.steps[*step].key)).collect(),
                    ..Material::new(kind)
                };
                let (key, material) = material.keyed();
                let inputs: Vec<usize> = inputs.into_values().collect();
                let label = label(kind, model, values, &inputs, &self.steps, self.inputs.recipe.used(part));
                self.step(kind, label, key, material, chain.to_vec(), inputs, model, values)
            }
        };
        self.parts.insert(memo_key, step);
        Ok(step)
    }

    fn lookup(&self, name: &str, values: &Values) -> Option<Scalar> {
        // `quant` follows from the precision.
        values.get(if name == "quant" { "precision" } else { name }).cloned()
    }

    /// The steps that a part reads, by the name its templates use; a server also reads the model, for its tokenizer.
    fn roles(&self, part: Part, chain: &[usize]) -> BTreeMap<&'static str, usize> {
        let used = self.inputs.recipe.used(part);
        let roles = ["fetch", "quantize", "build", "render"].into_iter().zip(chain.iter().copied());
        roles.filter(|(role, _)| used.contains(*role) || (part == Part::Server && *role == "fetch")).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a step, named by their order in the struct")]
    fn step(
        &mut self,
        kind: StepKind,
        label: String,
        key: StepKey,
        material: Value,
        chain: Vec<usize>,
        inputs: Vec<usize>,
        model: &str,
        values: &Arc<Values>,
    ) -> usize {
        if let Some(&step) = self.by_key.get(&key) {
            return step;
        }
        let history = self.inputs.history;
        let state = if kind != StepKind::Bench && history.holds(kind, &key) {
            State::Cached
        } else {
            history.missing(kind.name(), &|| label.clone(), || material.clone())
        };
        let index = self.steps.len();
        self.by_key.insert(key.clone(), index);
        self.steps.push(Step {
            kind,
            key,
            label,
            model: model.to_owned(),
            chain,
            inputs,
            values: values.clone(),
            material: Arc::new(material),
            state,
        });
        index
    }
}

/// `build tiny-qwen2 int8_wo batch_size=4`: the words of the steps that it reads, and the axes that it looks up itself.
fn label(
    kind: StepKind,
    model: &str,
    values: &Values,
    inputs: &[usize],
    steps: &[Step],
    used: &BTreeSet<String>,
) -> String {
    let mut words: Vec<String> = vec![model.to_owned()];
    let inherited = inputs.iter().filter_map(|&step| steps[step].label.split_once(' '));
    // A model's name may hold spaces.
    let inherited = inherited.filter_map(|(_, rest)| rest.strip_prefix(model)).flat_map(|rest| rest.split_whitespace());
    let own = used.iter().filter_map(|name| {
        let name = if name == "quant" { "precision" } else { name };
        let value = values.axis(name).filter(|_| name != "model")?;
        Some(if name == "precision" { value.to_string() } else { format!("{name}={value}") })
    });
    for word in inherited.map(str::to_owned).chain(own) {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    format!("{} {}", kind.name(), words.join(" "))
}
