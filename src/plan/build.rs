use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::engine::{EngineInputs, Known};
use super::error::{PhaseContradiction, PlanError};
use super::material::{Canonical, Decided, Material, ROLES, point_key, sorted};
use super::phase::{Load, Loads, PHASE_AXES, PhaseFacts, Phases};
use super::series::follow;
use super::types::{CellState, Plan, PlannedCell, PlannedSeries, Point, PointState, State, Step};
use super::values::{KNOWN_AXES, Values};
use super::{History, ModelIdentity};
use crate::base::{CellId, Scalar, StepKey};
use crate::event::StepKind;
use crate::manifest::Manifest;
use crate::matrix::{Cell, Cells};
use crate::recipe::{Part, Rendered};
use crate::render::Context;
use crate::spec::{LoadPoint, Protocol, Series};
use crate::stats::Outcome;

/// All that a plan is made of.
pub struct Inputs<'a> {
    pub manifest: &'a Manifest,
    /// In the order of [`Manifest::chosen_engines`].
    pub engines: Vec<EngineInputs<'a>>,
    pub cells: Cells,
    /// Which cells `--only` chooses; one entry a cell.
    pub chosen: Vec<bool>,
    /// By model name.
    pub models: &'a BTreeMap<String, ModelIdentity>,
    /// sha256 of the data files, by path as the manifest has it.
    pub data_files: &'a HashMap<PathBuf, String>,
    pub history: &'a History,
    /// What a load point that the store holds showed: decides what its series measures next.
    pub outcome: &'a dyn Fn(&Plan, usize) -> Option<Outcome>,
}

/// Decides everything: which steps there are, what each one's key is, which of them are there already.
pub fn plan(mut inputs: Inputs<'_>) -> Result<Plan, PlanError> {
    let axes = all_axes(&inputs.cells.axes);
    let expanded = std::mem::take(&mut inputs.cells.cells);
    let mut planner = Planner::new(&inputs);
    let mut cells = Vec::with_capacity(expanded.len());
    for (cell, &chosen) in expanded.into_iter().zip(&inputs.chosen) {
        let planned = planner.cell(cells.len(), cell, chosen, &axes)?;
        cells.push(planned);
    }
    if !planner.contradictions.is_empty() {
        return Err(PlanError::Contradictions { found: planner.contradictions });
    }
    if !planner.phase_contradictions.is_empty() {
        return Err(PlanError::PhaseContradictions { found: planner.phase_contradictions });
    }
    let mut plan = Plan {
        name: inputs.manifest.name.clone(),
        engines: inputs.engines.iter().map(EngineInputs::plan_engine).collect(),
        axes,
        cells,
        steps: planner.steps,
        points: planner.points,
        series: planner.series,
        slos: inputs.manifest.benchmarks.iter().filter_map(|(name, phase)| Some((name.clone(), phase.slo?))).collect(),
        warnings: Vec::new(),
    };
    for index in 0..plan.points.len() {
        if let Some(server) = plan.server_of(&plan.points[index]) {
            plan.steps[server].points.push(index);
        }
    }
    follow(&mut plan, inputs.outcome);
    explain(&mut plan, inputs.history);
    settle(&mut plan, inputs.history);
    plan.warnings = provisional_models(&inputs).chain(idle_axes(&plan)).collect();
    Ok(plan)
}

/// The contract's axes first, then the manifest's own in its order.
fn all_axes(axes: &[String]) -> Vec<String> {
    let others = axes.iter().filter(|axis| !KNOWN_AXES.contains(&axis.as_str())).cloned();
    KNOWN_AXES.iter().map(|&axis| axis.to_owned()).chain(others).collect()
}

/// Says of each step and load point that is not there which earlier one it replaces, if it does.
fn explain(plan: &mut Plan, history: &History) {
    if !history.has_past() {
        return;
    }
    let steps = plan.steps.iter().map(|step| step.key.clone());
    let current: HashSet<StepKey> = steps.chain(plan.points.iter().filter_map(|point| point.key().cloned())).collect();
    for index in 0..plan.steps.len() {
        let step = &plan.steps[index];
        if step.state == State::Run {
            let (label, material) = (|| step.label.clone(), || plan.material(step));
            plan.steps[index].state = history.missing(step.kind.name(), &label, &material, &current);
        }
    }
    for index in 0..plan.points.len() {
        let PointState::Planned { state: State::Run, .. } = plan.points[index].state else { continue };
        let (label, material) = (|| plan.point_label(index), || plan.point_material(index));
        let explained = history.missing("point", &label, &material, &current);
        if let PointState::Planned { state, .. } = &mut plan.points[index].state {
            *state = explained;
        }
    }
}

/// A server has work to do exactly when one of its load points has, and another step only if something with work reads it.
fn settle(plan: &mut Plan, history: &History) {
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
        } else if step.state.has_work() && !needed.contains(&index) && !history.is_rerun(step.kind) {
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
        ModelIdentity::Hf { .. }
        | ModelIdentity::Path { .. }
        | ModelIdentity::Package { .. }
        | ModelIdentity::Dummy { .. } => None,
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

/// The values that some templates look up, in the order of their names.
type Used = Vec<Option<Scalar>>;

/// Everything is computed once for each engine and combination of the values that it looks up, and not once for each
/// cell.
struct Planner<'a> {
    inputs: &'a Inputs<'a>,
    engines: Vec<Known<'a>>,
    /// Where a cell's values name its engine, if there are several.
    engine_axis: Option<usize>,
    phases: Phases<'a>,
    limits: HashMap<(usize, Used), Option<Arc<str>>>,
    contradictions: Vec<(CellId, Arc<str>)>,
    /// Phases that were held against cells, with the values that decide it.
    checked_phases: HashSet<(usize, usize, Used)>,
    phase_contradictions: Vec<PhaseContradiction>,
    /// By the engine, and the values that any part looks up.
    servers: HashMap<(usize, Used), usize>,
    fetches: HashMap<String, usize>,
    /// What decides a part of an engine's recipe, as an index into `decided`.
    parts: HashMap<(usize, Part, Used), usize>,
    /// `None` for a part that has nothing to do.
    decided: Vec<Option<Arc<Decided>>>,
    /// By what decides the part and the steps before it.
    part_steps: HashMap<(usize, Vec<usize>), usize>,
    by_key: HashMap<StepKey, usize>,
    steps: Vec<Step>,
    points: Vec<Point>,
    series: Vec<PlannedSeries>,
}

impl<'a> Planner<'a> {
    fn new(inputs: &'a Inputs<'a>) -> Self {
        let axes = &inputs.cells.axes;
        let engines = inputs.engines.iter().enumerate();
        Self {
            inputs,
            engines: engines.map(|(index, engine)| Known::new(index, inputs.manifest, engine, axes)).collect(),
            engine_axis: axes.iter().position(|axis| axis == "engine"),
            phases: Phases::new(inputs.manifest, axes, inputs.data_files),
            limits: HashMap::new(),
            contradictions: Vec::new(),
            checked_phases: HashSet::new(),
            phase_contradictions: Vec::new(),
            servers: HashMap::new(),
            fetches: HashMap::new(),
            parts: HashMap::new(),
            decided: Vec::new(),
            part_steps: HashMap::new(),
            by_key: HashMap::new(),
            steps: Vec::new(),
            points: Vec::new(),
            series: Vec::new(),
        }
    }

    fn engine(&self, values: &Values) -> &Known<'a> {
        &self.engines[values.engine()]
    }

    /// The engine of a cell with these values.
    fn engine_of(&self, values: &[Option<Scalar>]) -> usize {
        let label = self.engine_axis.and_then(|at| values[at].as_ref()?.as_text());
        let is_it = |engine: &Known<'_>| label.is_none_or(|label| engine.inputs.chosen.label == label);
        self.engines.iter().position(is_it).expect("the axis has names of engines only, and there is one at least")
    }

    fn cell(&mut self, index: usize, cell: Cell, chosen: bool, axes: &[String]) -> Result<PlannedCell, PlanError> {
        let engine = self.engine_of(&cell.values);
        let values = &Arc::new(self.engines[engine].values_of.cell(cell.values));
        let model = values.get("model").and_then(Scalar::as_text).unwrap_or_default().to_owned();
        let first_point = self.points.len();
        let mut gpus = 0;
        let state = match cell.excluded {
            Some(because) => CellState::Excluded { because },
            None if !chosen => CellState::NotChosen,
            None => match self.unsupported(&cell.id, values)? {
                Some(because) => CellState::Unsupported { because },
                None => {
                    let server = self.server(&model, values)?;
                    gpus = self.steps[server].decided.gpus;
                    CellState::Planned { server }
                }
            },
        };
        self.add_points(index, &cell.id, &state, values, &model)?;
        // Without an axis, each phase has a length of its own.
        let of_phase = |axis: &str| ["isl", "osl"].contains(&axis) && values.axis(axis).is_none();
        let values = axes.iter().map(|axis| values.get(axis).filter(|_| !of_phase(axis)).cloned()).collect();
        Ok(PlannedCell { id: cell.id, model, engine, values, state, gpus, points: first_point..self.points.len() })
    }

    /// Why the engine cannot do a cell, if it cannot. What cannot be meant of one that it can do is kept for the end.
    fn unsupported(&mut self, cell: &CellId, values: &Values) -> Result<Option<Arc<str>>, PlanError> {
        let engine = self.engine(values);
        let used = (values.engine(), used(&engine.limit_names, values));
        if let Some(known) = self.limits.get(&used) {
            return Ok(known.clone());
        }
        let met: Option<Arc<str>> = engine.unsupported(values)?.map(Into::into);
        let contradiction = match met {
            None => engine.inputs.recipe.contradiction(&values.with(&engine.places))?,
            Some(_) => None,
        };
        if let Some(because) = contradiction
            && !self.contradictions.iter().any(|(_, known)| **known == *because)
        {
            self.contradictions.push((cell.clone(), because.into()));
        }
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
            if let (CellState::Planned { .. }, Some(load)) = (state, loads.iter().find_map(|it| it.all.first())) {
                self.hold_against(id, phase, values, &load.point)?;
            }
            for Loads { series, all } in loads.iter() {
                self.add_group(cell, state, series.as_ref(), all);
            }
        }
        Ok(())
    }

    /// Looks for what a phase asks of a cell that cannot do it; all load points of a phase ask alike.
    fn hold_against(
        &mut self,
        cell: &CellId,
        phase: usize,
        values: &Values,
        point: &LoadPoint,
    ) -> Result<(), PlanError> {
        let engine = &self.engines[values.engine()];
        let recipe = engine.inputs.recipe;
        if recipe.recipe.phase_contradictions.is_empty() {
            return Ok(());
        }
        let mut decisive = used(&engine.limit_names, values);
        decisive.extend(PHASE_AXES.iter().map(|axis| values.axis(axis).cloned()));
        if !self.checked_phases.insert((phase, values.engine(), decisive)) {
            return Ok(());
        }
        let met = recipe.phase_contradiction(&values.with(&engine.places), &PhaseFacts::of(point))?;
        let known = |because: &String| {
            self.phase_contradictions.iter().any(|it| it.phase == point.phase && it.because == *because)
        };
        if let Some(because) = met.filter(|because| !known(because)) {
            self.phase_contradictions.push(PhaseContradiction {
                phase: point.phase.clone(),
                cell: cell.clone(),
                because,
            });
        }
        Ok(())
    }

    fn add_group(&mut self, cell: usize, state: &CellState, series: Option<&Arc<Series>>, loads: &[Load]) {
        let first = self.points.len();
        for load in loads {
            let state = self.point_state(state, load);
            let planned = matches!(state, PointState::Planned { .. });
            self.points.push(Point {
                cell,
                name: load.name.clone(),
                load: load.point.clone(),
                data: load.data.clone(),
                series: series.filter(|_| planned).map(|_| self.series.len()),
                state,
            });
            if series.is_some() && !planned {
                // One row says why, not one for each load that could have been tried.
                return;
            }
        }
        self.series.extend(series.map(|rule| PlannedSeries { rule: rule.clone(), points: first..self.points.len() }));
    }

    fn point_state(&self, cell: &CellState, load: &Load) -> PointState {
        let server = match cell {
            CellState::Planned { server } => &self.steps[*server],
            CellState::Unsupported { because } => return PointState::Unsupported { because: because.clone() },
            CellState::Excluded { because } => return PointState::Excluded { because: because.clone() },
            CellState::NotChosen => return PointState::NotChosen,
        };
        let recipe = &self.engines[server.values.engine()].inputs.recipe.recipe;
        if !recipe.server.protocols.contains_key(&load.point.protocol) {
            let because = format!("engine `{}` does not serve protocol `{}`", recipe.engine, load.point.protocol);
            return PointState::Unsupported { because: because.into() };
        }
        if load.point.beam_width > 1 && !load.point.protocol.is_triton() {
            let because = format!("protocol `{}` cannot ask for {} beams", load.point.protocol, load.point.beam_width);
            return PointState::Unsupported { because: because.into() };
        }
        let key = point_key(&server.key, &load.digest);
        let history = self.inputs.history;
        let state = if history.holds(StepKind::Bench, &key) { State::Cached } else { State::Run };
        PointState::Planned { key, state }
    }

    fn server(&mut self, model: &str, values: &Arc<Values>) -> Result<usize, PlanError> {
        let used = (values.engine(), used(&self.engine(values).server_names, values));
        if let Some(&known) = self.servers.get(&used) {
            return Ok(known);
        }
        let mut chain = vec![self.fetch(model, values)];
        for part in [Part::Quantize, Part::Build, Part::Render] {
            let step = self.part(part, &chain, model, values)?;
            chain.push(step);
        }
        let server = self.part(Part::Server, &chain, model, values)?;
        self.servers.insert(used, server);
        Ok(server)
    }

    fn fetch(&mut self, model: &str, values: &Arc<Values>) -> usize {
        if let Some(&step) = self.fetches.get(model) {
            return step;
        }
        let material = Material { model: self.inputs.models.get(model), ..Material::new(StepKind::Fetch) };
        let decided = Arc::new(material.decided(None, Vec::new()));
        let step = self.step(StepKind::Fetch, &decided, &[], model, values);
        self.fetches.insert(model.to_owned(), step);
        step
    }

    /// The step that does a part, or the step before it when the part has nothing to do.
    fn part(&mut self, part: Part, chain: &[usize], model: &str, values: &Arc<Values>) -> Result<usize, PlanError> {
        let index = self.decided(part, values)?;
        let memo_key = (index, chain.to_vec());
        if let Some(&step) = self.part_steps.get(&memo_key) {
            return Ok(step);
        }
        let step = match self.decided[index].clone() {
            None => chain[chain.len() - 1],
            Some(decided) => self.step(part.step(), &decided, chain, model, values),
        };
        self.part_steps.insert(memo_key, step);
        Ok(step)
    }

    /// What decides a part for these values, as an index into `decided`.
    fn decided(&mut self, part: Part, values: &Values) -> Result<usize, PlanError> {
        let engine = self.engine(values);
        let memo_key = (values.engine(), part, used(&engine.part_names[&part], values));
        if let Some(&known) = self.parts.get(&memo_key) {
            return Ok(known);
        }
        let context = values.with(&engine.places);
        let decided = match engine.inputs.recipe.render(part, &context)? {
            None => None,
            Some(rendered) => Some(Arc::new(self.decide(part, &rendered, &context, values)?)),
        };
        self.decided.push(decided);
        self.parts.insert(memo_key, self.decided.len() - 1);
        Ok(self.decided.len() - 1)
    }

    fn decide(
        &self,
        part: Part,
        rendered: &Rendered,
        context: &Context,
        values: &Values,
    ) -> Result<Decided, PlanError> {
        let EngineInputs { chosen, recipe, programs, .. } = self.engine(values).inputs;
        let program = rendered.command.first();
        // A launcher such as mpirun names the program that it starts.
        let versions = rendered.command.iter().filter_map(|word| programs.get_key_value(word));
        let mut material = Material {
            values: values.named_by(recipe, part),
            worked_out: recipe.worked_out(part, context),
            rendered: Some(Canonical::of(rendered)),
            programs: versions.map(|(name, version)| (name.as_str(), version.as_str())).collect(),
            environment: if program.is_some() { sorted(chosen.runtime.env()) } else { BTreeMap::new() },
            ..Material::new(part.step())
        };
        if part == Part::Server {
            material.gpus = Some(recipe.gpus(context)?);
            for protocol in Protocol::ALL {
                let endpoint = recipe.endpoint(protocol, context)?;
                material.endpoints.extend(endpoint.map(|endpoint| (protocol.name(), endpoint)));
            }
        }
        // A server also reads the model, for its tokenizer.
        let reads = |role: &&str| recipe.used(part).contains(*role) || (part == Part::Server && *role == "fetch");
        Ok(material.decided(program.cloned(), ROLES.into_iter().filter(reads).collect()))
    }

    /// The index of a step; equal ones are there only once.
    fn step(
        &mut self,
        kind: StepKind,
        decided: &Arc<Decided>,
        chain: &[usize],
        model: &str,
        values: &Arc<Values>,
    ) -> usize {
        let at = |role: &&str| ROLES.iter().position(|known| known == role).and_then(|at| chain.get(at)).copied();
        let inputs: Vec<usize> = decided.roles.iter().filter_map(at).collect();
        let key = decided.key(inputs.iter().map(|&input| &self.steps[input].key));
        if let Some(&known) = self.by_key.get(&key) {
            return known;
        }
        // A server is there when its load points are, which is settled later.
        let cached = kind != StepKind::Bench && self.inputs.history.holds(kind, &key);
        let label = match Part::ALL.into_iter().find(|part| part.step() == kind) {
            None => format!("{} {model}", kind.name()),
            Some(part) => self.label(part, model, values, &inputs, decided),
        };
        let index = self.steps.len();
        self.by_key.insert(key.clone(), index);
        self.steps.push(Step {
            kind,
            key,
            label,
            model: model.to_owned(),
            chain: chain.to_vec(),
            inputs,
            values: values.clone(),
            decided: decided.clone(),
            points: Vec::new(),
            state: if cached { State::Cached } else { State::Run },
        });
        index
    }

    /// `build tiny-qwen2 int8_wo batch_size=4`: the words of the steps that it reads, the axes that it looks up itself, and
    /// what the recipe works out from others.
    fn label(&self, part: Part, model: &str, values: &Values, inputs: &[usize], decided: &Decided) -> String {
        let EngineInputs { chosen, recipe, .. } = self.engine(values).inputs;
        let kind = part.step().name();
        let mut words: Vec<String> = vec![model.to_owned()];
        words.extend(self.engine_axis.map(|_| chosen.label.to_owned()));
        let inherited = inputs.iter().filter_map(|&step| self.steps[step].label.split_once(' '));
        // A model's name may hold spaces.
        let inherited =
            inherited.filter_map(|(_, rest)| rest.strip_prefix(model)).flat_map(|rest| rest.split_whitespace());
        let named = recipe.named(part);
        let own = named.iter().filter_map(|name| {
            let name = if name == "quant" { "precision" } else { name };
            let value = values.axis(name).filter(|_| name != "model")?;
            Some(if name == "precision" { value.to_string() } else { format!("{name}={value}") })
        });
        let unnamed = |name: &&String| {
            let from = recipe.worked_out_from(name);
            from.iter().any(|axis| !named.contains(axis) && values.axis(axis).is_some())
        };
        let worked_out = decided.worked_out.iter().filter(|(name, _)| unnamed(name));
        let worked_out = worked_out.map(|(name, value)| format!("{name}={value}"));
        for word in inherited.map(str::to_owned).chain(own).chain(worked_out) {
            if !words.contains(&word) {
                words.push(word);
            }
        }
        format!("{kind} {}", words.join(" "))
    }
}

fn used(names: &[String], values: &Values) -> Used {
    // `quant` follows from the precision.
    names.iter().map(|name| values.get(if name == "quant" { "precision" } else { name }).cloned()).collect()
}
