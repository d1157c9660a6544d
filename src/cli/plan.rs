use std::fmt::Write as _;
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::apply::plural;
use super::args::{PlanArgs, PlanFormat};
use super::block_on;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::event::StepKind;
use crate::exec::{self, Prepared, Purpose, Request};
use crate::plan::{CellState, Change, Plan, PlanEngine, PlannedSeries, PointState, State, Step};
use crate::spec::Series;

pub(super) fn run(args: &PlanArgs, home: PathBuf, output: &mut Output) -> Result<Exit, Failure> {
    let prepared = prepare(args.manifest.clone(), home, args.only.clone())?;
    let plan = &prepared.plan;
    match args.format {
        PlanFormat::Text => output.bytes(text(plan).as_bytes())?,
        PlanFormat::Json => output.json(plan)?,
        PlanFormat::Dot => output.bytes(dot(plan).as_bytes())?,
    }
    let work = plan.summary().points_to_measure > 0;
    Ok(if args.detailed_exitcode && work { Exit::Work } else { Exit::Done })
}

/// The plan of a manifest, to look at.
pub(super) fn prepare(manifest: PathBuf, home: PathBuf, only: Option<String>) -> Result<Prepared, Failure> {
    let request = Request {
        manifest,
        home,
        only,
        rerun: std::collections::HashSet::new(),
        path: std::env::var_os("PATH").unwrap_or_default(),
        visible_gpus: std::env::var_os("CUDA_VISIBLE_DEVICES").map(|list| list.to_string_lossy().into_owned()),
        purpose: Purpose::Look,
    };
    Ok(block_on(exec::prepare(&request, |_| (), &CancellationToken::new()))??)
}

fn text(plan: &Plan) -> String {
    let mut text = String::new();
    let summary = plan.summary();
    let engines: Vec<String> = plan.engines.iter().map(engine_text).collect();
    let _ = writeln!(
        text,
        "{}: {} {}",
        plan.name,
        if engines.len() > 1 { "engines" } else { "engine" },
        engines.join(", ")
    );
    let _ = writeln!(text, "\ncells ({})", summary.cells);
    for cell in &plan.cells {
        let _ = match &cell.state {
            CellState::Planned { .. } => {
                let work = plan.points[cell.points.clone()].iter().filter(|point| point.has_work()).count();
                let gpus =
                    if cell.gpus > 0 { format!(", {}", plural(cell.gpus as usize, "GPU")) } else { String::new() };
                let planned = plan.points[cell.points.clone()].iter().filter(|point| point.is_planned()).count();
                let points = plural(planned, "load point");
                writeln!(text, "  {}  {points}, {work} to measure{gpus}", cell.id)
            }
            CellState::Excluded { because } => writeln!(text, "  {}  excluded: {because}", cell.id),
            CellState::Unsupported { because } => writeln!(text, "  {}  unsupported: {because}", cell.id),
            CellState::NotChosen => continue,
        };
    }
    let _ = writeln!(text, "\nsteps ({})", plan.steps.len());
    for (index, step) in plan.steps.iter().enumerate() {
        let _ = writeln!(text, "  {}  {}", step.label, state_text(&step.state));
        if step.kind == StepKind::Bench {
            write_points(&mut text, plan, index);
        }
    }
    for warning in &plan.warnings {
        let _ = writeln!(text, "\nwarning: {warning}");
    }
    let _ = writeln!(
        text,
        "\nto do: {}, {} to start, {} to measure ({} planned){}{}",
        plural(summary.steps_to_run, "step"),
        plural(summary.servers_to_start, "server"),
        plural(summary.points_to_measure, "load point"),
        summary.points,
        if summary.gpus > 0 {
            format!(", up to {} at a time", plural(summary.gpus as usize, "GPU"))
        } else {
            String::new()
        },
        if summary.unsupported + summary.excluded > 0 {
            format!("; {} unsupported, {} excluded", plural(summary.unsupported, "cell"), summary.excluded)
        } else {
            String::new()
        },
    );
    text
}

/// `vllm 0.32.0`, or `eager (vllm 0.32.0)` for one that the manifest calls otherwise.
fn engine_text(PlanEngine { label, recipe, version }: &PlanEngine) -> String {
    if label == recipe { format!("{recipe} {version}") } else { format!("{label} ({recipe} {version})") }
}

/// The load points of a server, those of one phase in the same state together.
fn write_points(text: &mut String, plan: &Plan, server: usize) {
    let mut groups: Vec<(String, String, String)> = Vec::new();
    for (_, point) in plan.points_of(server).filter(|(_, point)| point.series.is_none()) {
        let state = match &point.state {
            PointState::Planned { state, .. } => state_text(state),
            PointState::Unsupported { because } => format!("unsupported: {because}"),
            PointState::Excluded { because } => format!("excluded: {because}"),
            PointState::Possible { .. } | PointState::NotChosen => continue,
        };
        let phase = format!("{} {}", plan.cells[point.cell].id, point.load.phase);
        match groups.last_mut() {
            Some((last_phase, names, last_state)) if *last_phase == phase && *last_state == state => {
                names.push(' ');
                names.push_str(&point.name);
            }
            _ => groups.push((phase, point.name.clone(), state)),
        }
    }
    for (phase, names, state) in groups {
        let _ = writeln!(text, "    {phase} {names}  {state}");
    }
    for series in plan.series.iter().filter(|series| plan.server_of(&plan.points[series.points.start]) == Some(server))
    {
        write_series(text, plan, series);
    }
}

/// What a series is, and how far it is.
fn write_series(text: &mut String, plan: &Plan, series: &PlannedSeries) {
    let points = &plan.points[series.points.clone()];
    let (cell, phase) = (&plan.cells[points[0].cell].id, &points[0].load.phase);
    let of = match series.rule.as_ref() {
        Series::Search(_) => String::new(),
        Series::Until(_) => format!("{} ", points[0].name),
    };
    let cached = points.iter().filter(|point| point.is_planned() && !point.has_work()).count();
    let next = points.iter().find_map(|point| match &point.state {
        PointState::Planned { state, .. } if state.has_work() => Some((&point.name, state)),
        PointState::Planned { .. }
        | PointState::Possible { .. }
        | PointState::Unsupported { .. }
        | PointState::Excluded { .. }
        | PointState::NotChosen => None,
    });
    let _ = match next {
        None => writeln!(text, "    {cell} {phase} {of}{}  cached: {cached} measured", series.rule),
        Some((name, state)) if cached == 0 => {
            writeln!(text, "    {cell} {phase} {of}{}, first {name}  {}", series.rule, state_text(state))
        }
        Some((name, state)) => {
            let state = state_text(state);
            writeln!(text, "    {cell} {phase} {of}{}, {cached} cached, next {name}  {state}", series.rule)
        }
    };
}

/// `cached`, `run`, or `stale because precision changed from fp16 to int8_wo`.
pub(super) fn state_text(state: &State) -> String {
    match state {
        State::Cached => "cached".to_owned(),
        State::NotNeeded => "not needed".to_owned(),
        State::Run => "run".to_owned(),
        State::Stale { changes } => {
            let changes: Vec<String> = changes.iter().map(change_text).collect();
            format!("stale because {}", changes.join(", and "))
        }
    }
}

pub(super) fn change_text(change: &Change) -> String {
    let role = StepKind::ALL.iter().any(|kind| kind.name() == change.what) || change.what == "server";
    let name = if role { format!("its {}", change.what) } else { change.what.clone() };
    if role && change.from.is_string() && change.to.is_string() {
        return format!("{name} changed");
    }
    format!("{name} changed from {} to {}", value_text(&change.from), value_text(&change.to))
}

fn value_text(value: &serde_json::Value) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        serde_json::Value::Null => "nothing".to_owned(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain("…".chars()).collect()
}

fn dot(plan: &Plan) -> String {
    let mut text = String::from("digraph plan {\n  rankdir=LR\n  node [shape=box]\n");
    for (index, step) in plan.steps.iter().enumerate() {
        let label = format!("{}\\n{}", escaped(&step.label), state_word(step));
        let _ = writeln!(text, "  s{index} [label=\"{label}\"]");
        for input in &step.inputs {
            let _ = writeln!(text, "  s{input} -> s{index}");
        }
    }
    text.push_str("}\n");
    text
}

fn state_word(step: &Step) -> &'static str {
    match step.state {
        State::Cached => "cached",
        State::NotNeeded => "not needed",
        State::Run => "run",
        State::Stale { .. } => "stale",
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}
