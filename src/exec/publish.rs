//! Load points into the run's folder: `point.json` beside `requests.jsonl`, and the rendered files of their cells.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::StepError;
use crate::base::{RunId, Scalar, plain_text, write_atomically};
use crate::event::StepKind;
use crate::plan::{Plan, PlannedCell};
use crate::record::{ClientFacts, PointRecord, PointStatus, ServerFacts};
use crate::report::{self, Row};
use crate::store::{RunFolder, Store};

pub(super) const REQUESTS: &str = "requests.jsonl";
/// The server's own metrics, beside the requests; not there for a server that has none.
pub(super) const SERIES: &str = "metrics.jsonl";
/// What was seen besides the requests, in the store's output of a load point.
pub(super) const MEASURED: &str = "measured.json";
const POINT: &str = "point.json";

/// What was seen of client and server while a load point was measured.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Measured {
    /// The run that measured it.
    pub run: RunId,
    /// sha256 over the exact prompts and settings.
    pub workload: String,
    pub client: ClientFacts,
    pub server: ServerFacts,
}

/// Puts a load point that the store holds into the run.
pub(super) fn cached(plan: &Plan, store: &Store, run: &RunFolder, number: usize) -> Result<(), StepError> {
    let Some(key) = plan.points[number].key() else { return Ok(()) };
    let output = store.output(StepKind::Bench, key);
    let measured = read_measured(&output)?;
    records(plan, run, number, &output.join(REQUESTS))?;
    point(plan, run, number, PointStatus::Ok, None, Some(&measured))
}

/// The row of a load point that the store holds.
pub(super) fn stored_row(plan: &Plan, store: &Store, number: usize) -> Result<Option<Row>, StepError> {
    let Some(key) = plan.points[number].key() else { return Ok(None) };
    let output = store.output(StepKind::Bench, key);
    let measured = read_measured(&output)?;
    let record = record(plan, number, PointStatus::Ok, None, Some(&measured));
    Ok(Some(report::row_of(&measured.run, record, &output)?))
}

fn read_measured(output: &Path) -> Result<Measured, StepError> {
    let path = output.join(MEASURED);
    let bytes = fs::read(&path).map_err(|source| StepError::Read { path: path.clone(), source })?;
    serde_json::from_slice(&bytes).map_err(|source| StepError::Read { path, source: std::io::Error::other(source) })
}

/// Puts the request records of a load point, and the server's metrics beside them, into the run.
pub(super) fn records(plan: &Plan, run: &RunFolder, number: usize, from: &Path) -> Result<(), StepError> {
    let folder = folder(plan, run, number);
    fs::create_dir_all(&folder).map_err(|source| StepError::Write { path: folder.clone(), source })?;
    link(from, &folder.join(REQUESTS))?;
    let series = from.with_file_name(SERIES);
    if series.exists() { link(&series, &folder.join(SERIES)) } else { Ok(()) }
}

/// Puts a file in place of another: as a hard link where the file system has them.
fn link(from: &Path, to: &Path) -> Result<(), StepError> {
    let failed = |source| StepError::Write { path: to.to_owned(), source };
    match fs::remove_file(to) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        Ok(()) | Err(_) => {}
    }
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(|_| ())).map_err(failed)
}

/// Writes `point.json`: after the records, because it is what makes the folder a row.
pub(super) fn point(
    plan: &Plan,
    run: &RunFolder,
    number: usize,
    status: PointStatus,
    reason: Option<String>,
    measured: Option<&Measured>,
) -> Result<(), StepError> {
    let path = folder(plan, run, number).join(POINT);
    let record = record(plan, number, status, reason, measured);
    let text = serde_json::to_vec_pretty(&record).expect("records are plain data");
    write_atomically(&path, &text).map_err(|source| StepError::Write { path, source })
}

fn record(
    plan: &Plan,
    number: usize,
    status: PointStatus,
    reason: Option<String>,
    measured: Option<&Measured>,
) -> PointRecord {
    let planned = &plan.points[number];
    let cell = &plan.cells[planned.cell];
    let values = plan.axes.iter().zip(&cell.values);
    let mut axes: IndexMap<String, Scalar> =
        values.filter_map(|(axis, value)| Some((axis.clone(), value.clone()?))).collect();
    // What this phase asked for, which need not be what the axis says.
    let isl = planned.load.data.as_synthetic().and_then(|synthetic| synthetic.isl.fixed());
    for (axis, tokens) in [("isl", isl), ("osl", planned.load.output.tokens.number())] {
        match tokens {
            Some(tokens) => axes.insert(axis.to_owned(), Scalar::Int(i64::from(tokens))),
            None => axes.shift_remove(axis),
        };
    }
    PointRecord {
        order: number as u64,
        cell: cell.id.clone(),
        engine: plan.engines[cell.engine].label.clone(),
        axes,
        phase: planned.load.phase.clone(),
        method: planned.load.method,
        load_point: planned.load.arrival.label(),
        protocol: planned.load.protocol,
        arrival: planned.load.arrival.name().to_owned(),
        concurrency: planned.load.arrival.concurrency(),
        request_rate: planned.load.arrival.rate(),
        constant_load: planned.load.arrival.is_constant(),
        slo: plan.slos.get(&planned.load.phase).copied(),
        round: planned.load.round,
        series: planned.series.map(|series| plan.series[series].rule.as_ref().clone()),
        status,
        reason: reason.map(|reason| plain_text(&reason)),
        measured_in: measured.map(|measured| measured.run.clone()),
        workload: measured.map(|measured| measured.workload.clone()),
        client: measured.map(|measured| measured.client.clone()).unwrap_or_default(),
        server: ServerFacts {
            gpus: (cell.gpus > 0).then_some(cell.gpus),
            ..measured.map(|measured| measured.server.clone()).unwrap_or_default()
        },
    }
}

pub(super) fn is_there(plan: &Plan, run: &RunFolder, number: usize) -> bool {
    folder(plan, run, number).join(POINT).is_file()
}

pub(super) fn folder(plan: &Plan, run: &RunFolder, number: usize) -> std::path::PathBuf {
    let point = &plan.points[number];
    run.point(&plan.cells[point.cell].id, &point.load.phase, &point.name)
}

/// Copies the rendered files of a cell out of the store.
pub(super) fn rendered(
    store: &Store,
    plan: &Plan,
    run: &RunFolder,
    cell: &PlannedCell,
    server: usize,
) -> Result<(), StepError> {
    let render =
        plan.steps[server].chain.iter().map(|&step| &plan.steps[step]).find(|step| step.kind == StepKind::Render);
    let Some(render) = render else { return Ok(()) };
    copy_folder(&store.output(render.kind, &render.key), &run.cell(&cell.id).join("rendered"))
}

fn copy_folder(from: &Path, to: &Path) -> Result<(), StepError> {
    let failed = |source| StepError::Write { path: to.to_owned(), source };
    if !from.is_dir() || to.exists() {
        return Ok(());
    }
    fs::create_dir_all(to).map_err(failed)?;
    for entry in fs::read_dir(from).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &target)?;
        } else {
            fs::copy(&path, &target).map_err(failed)?;
        }
    }
    Ok(())
}
