use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{RwLock, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::locked::{Resolved, lock_text};
use super::state::State;
use super::steps::{self, Job, Message};
use super::{Prepared, RunError, StepError, publish};
use crate::event::{Event, Outcome, Stamped, StepKind};
use crate::manifest::Format;
use crate::plan::{CellState, Plan, PlannedCell, PointState};
use crate::record::PointStatus;
use crate::report::{self, Found, LMDEPLOY_CSV, Row};
use crate::spec::{Bound, Series};
use crate::store::{EventLog, RunFolder, Runs, Store};

/// How a plan is carried out.
#[derive(Clone, Debug)]
pub struct RunSettings {
    /// Holds `store/` and `runs/`.
    pub home: PathBuf,
    /// Where this run is kept, instead of under the home.
    pub run_dir: Option<PathBuf>,
    /// Stop at the first failure.
    pub fail_fast: bool,
    pub rerun: HashSet<StepKind>,
}

/// What came of a run.
#[derive(Debug)]
pub struct RunOutcome {
    pub run: RunFolder,
    /// In the order of the plan.
    pub rows: Vec<Row>,
    /// Load points that this run measured.
    pub measured: usize,
    /// Load points whose results were there already.
    pub cached: usize,
    /// Steps that failed, with the whole chain of causes.
    pub failures: Vec<(String, String)>,
    /// Thresholds that were missed: the row in words, and by how much.
    pub misses: Vec<(String, String)>,
    pub interrupted: bool,
}

/// Carries out a plan. Failures of steps and load points are in the outcome; an error means that results could not be kept.
///
/// `observe` sees every event as it happens.
pub async fn run(
    prepared: Prepared,
    settings: &RunSettings,
    observe: impl FnMut(&Stamped),
    cancel: &CancellationToken,
) -> Result<RunOutcome, RunError> {
    let run = Runs::of_home(&settings.home).create(&prepared.plan.name, settings.run_dir.as_deref())?;
    let source = &prepared.document.source;
    let copy = match source.format {
        Format::Yaml => "manifest.yaml",
        Format::Toml => "manifest.toml",
    };
    run.write(copy, source.text.as_bytes())?;
    run.write_json("plan.json", &prepared.plan)?;
    let (messages, inbox) = mpsc::unbounded_channel();
    let job = Arc::new(Job {
        store: Store::of_home(&settings.home),
        run: run.clone(),
        messages,
        host: RwLock::new(()),
        commands: tokio::sync::Mutex::new(()),
        rerun: settings.rerun.clone(),
        prepared: Arc::new(prepared),
    });
    let log = EventLog::create(&run)?;
    let mut task = Task {
        state: State::new(&job.prepared.plan),
        job,
        log,
        observe,
        rows: BTreeMap::new(),
        resolved: Resolved::default(),
        measured: 0,
        cached: 0,
        failures: Vec::new(),
        stopped: None,
        began: Instant::now(),
    };
    task.begin()?;
    let interrupted = task.carry_out(inbox, settings.fail_fast, cancel).await?;
    task.finish(interrupted)
}

/// Owns all state of a run.
struct Task<O> {
    job: Arc<Job>,
    state: State,
    log: EventLog,
    observe: O,
    /// By position in the plan.
    rows: BTreeMap<usize, Row>,
    resolved: Resolved,
    measured: usize,
    cached: usize,
    failures: Vec<(String, String)>,
    /// Why nothing new starts any more, once that is so.
    stopped: Option<&'static str>,
    began: Instant,
}

/// A step's index, how it ended and the seconds it took.
type Finished = (usize, Result<(), StepError>, f64);

impl<O: FnMut(&Stamped)> Task<O> {
    fn begin(&mut self) -> Result<(), RunError> {
        let job = self.job.clone();
        let plan = &job.prepared.plan;
        let summary = plan.summary();
        self.emit(Event::RunStarted {
            run: job.run.id.to_string(),
            manifest: plan.name.clone(),
            cells: summary.cells as u64,
            steps: (summary.steps_to_run + summary.servers_to_start) as u64,
            points: summary.points_to_measure as u64,
        })?;
        for warning in &plan.warnings {
            self.emit(Event::Warning { cell: None, message: warning.clone() })?;
        }
        for step in plan.steps.iter().filter(|step| step.kind == StepKind::Fetch) {
            let material = job.store.material(step.kind, &step.key).unwrap_or_default();
            if let Ok(files) = serde_json::from_value(material["files"].clone()) {
                self.resolved.files.insert(step.model.clone(), files);
            }
        }
        for (index, point) in plan.points.iter().enumerate() {
            let (status, reason) = match &point.state {
                PointState::Planned { state, .. } if state.has_work() => continue,
                PointState::Planned { .. } => {
                    publish::cached(plan, &job.store, &job.run, index)?;
                    self.cached += 1;
                    self.add_row(index)?;
                    let hash = self.rows[&index].point.workload.clone().unwrap_or_default();
                    self.resolved.workloads.insert(plan.point_label(index), hash);
                    continue;
                }
                PointState::Unsupported { because } => (PointStatus::Unsupported, because),
                PointState::Excluded { because } => (PointStatus::Skipped, because),
                PointState::Possible { .. } | PointState::NotChosen => continue,
            };
            publish::point(plan, &job.run, index, status, Some(reason.to_string()), None)?;
            self.add_row(index)?;
        }
        for (cell, server) in planned_cells(plan) {
            publish::rendered(&job.store, plan, &job.run, cell, server)?;
        }
        self.save_lock()?;
        self.save_results()
    }

    /// Runs the steps; `true` when interrupted.
    async fn carry_out(
        &mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        fail_fast: bool,
        cancel: &CancellationToken,
    ) -> Result<bool, RunError> {
        let stop = cancel.child_token();
        let mut running: JoinSet<Finished> = JoinSet::new();
        let mut interrupted = false;
        loop {
            while !stop.is_cancelled()
                && let Some(index) = self.state.next_ready()
            {
                running.spawn(step(self.job.clone(), index, stop.clone()));
            }
            tokio::select! {
                biased;
                Some(message) = inbox.recv() => self.receive(message)?,
                () = cancel.cancelled(), if !interrupted => {
                    interrupted = true;
                    self.emit(Event::Interrupted)?;
                    self.skip_rest("interrupted")?;
                }
                finished = running.join_next() => {
                    let Some(finished) = finished else { break };
                    let (index, result, seconds) = finished.expect("a step returns its failures");
                    while let Ok(message) = inbox.try_recv() {
                        self.receive(message)?;
                    }
                    if self.step_finished(index, result, seconds)? && fail_fast {
                        stop.cancel();
                        self.skip_rest("an earlier step failed, and `--fail-fast` was given")?;
                    }
                }
            }
        }
        Ok(interrupted)
    }

    fn receive(&mut self, message: Message) -> Result<(), RunError> {
        match message {
            Message::Event(event) => self.emit(event)?,
            Message::Files { model, files } => {
                self.resolved.files.insert(model, files);
                self.save_lock()?;
            }
            Message::Workload { point, hash } => {
                let name = self.job.prepared.plan.point_label(point);
                self.resolved.workloads.insert(name, hash);
            }
            Message::Point { index } => {
                self.add_row(index)?;
                self.count(index);
                self.warn_of_row(index)?;
                self.save_lock()?;
                self.save_results()?;
            }
        }
        Ok(())
    }

    /// What a series asks for may have been measured before, by an earlier run or one at the same time.
    fn count(&mut self, index: usize) {
        let point = &self.rows[&index].point;
        match &point.measured_in {
            _ if point.status != PointStatus::Ok => {}
            Some(run) if *run != self.job.run.id => self.cached += 1,
            Some(_) | None => self.measured += 1,
        }
    }

    /// Records how a step ended; `true` when it failed.
    fn step_finished(&mut self, index: usize, result: Result<(), StepError>, seconds: f64) -> Result<bool, RunError> {
        let job = self.job.clone();
        let step = &job.prepared.plan.steps[index];
        let error = result.err();
        let outcome = match &error {
            None => Outcome::Done,
            Some(error) => Outcome::Failed { error: error.report() },
        };
        let (kind, key, label) = (step.kind, step.key.clone(), step.label.clone());
        self.emit(Event::StepFinished { kind, key, label: label.clone(), seconds, outcome })?;
        if step.kind == StepKind::Render {
            for (cell, server) in planned_cells(&job.prepared.plan) {
                publish::rendered(&job.store, &job.prepared.plan, &job.run, cell, server)?;
            }
        }
        let Some(error) = error else {
            self.state.done(index);
            return Ok(false);
        };
        let interrupted = error.is_interruption();
        let reason = match self.stopped.filter(|_| interrupted) {
            Some(because) => because.to_owned(),
            None => format!("{label} failed: {}", error.report()),
        };
        let mut lost = self.state.failed(index);
        lost.push(index);
        for lost in lost {
            self.give_up(lost, error.point_status(), &reason)?;
        }
        if !interrupted {
            self.failures.push((label, error.report()));
        }
        self.save_results()?;
        Ok(!interrupted)
    }

    fn skip_rest(&mut self, because: &'static str) -> Result<(), RunError> {
        self.stopped.get_or_insert(because);
        for index in self.state.stop() {
            self.give_up(index, PointStatus::Skipped, because)?;
            let step = &self.job.prepared.plan.steps[index];
            let (kind, key, label) = (step.kind, step.key.clone(), step.label.clone());
            let outcome = Outcome::Skipped { because: because.to_owned() };
            self.emit(Event::StepFinished { kind, key, label, seconds: 0.0, outcome })?;
        }
        self.save_results()
    }

    /// Gives a row to each load point behind a server that will not be measured any more.
    fn give_up(&mut self, server: usize, status: PointStatus, reason: &str) -> Result<(), RunError> {
        let job = self.job.clone();
        let plan = &job.prepared.plan;
        if plan.steps[server].kind != StepKind::Bench {
            return Ok(());
        }
        for (index, point) in plan.points_of(server).filter(|(_, point)| point.has_work()) {
            if !self.rows.contains_key(&index) && point.key().is_some() {
                publish::point(plan, &job.run, index, status, Some(reason.to_owned()), None)?;
                self.add_row(index)?;
            }
        }
        Ok(())
    }

    fn warn_of_row(&mut self, index: usize) -> Result<(), RunError> {
        let row = &self.rows[&index];
        let cell = Some(row.point.cell.clone());
        let name = self.job.prepared.plan.point_label(index);
        for warning in row.warnings() {
            self.emit(Event::Warning { cell: cell.clone(), message: format!("{name}: {warning}") })?;
        }
        Ok(())
    }

    fn finish(mut self, interrupted: bool) -> Result<RunOutcome, RunError> {
        self.save_lock()?;
        self.save_results()?;
        let count = |status: PointStatus| self.rows.values().filter(|row| row.point.status == status).count() as u64;
        let event = Event::RunFinished {
            ok: count(PointStatus::Ok),
            failed: count(PointStatus::Failed),
            unsupported: count(PointStatus::Unsupported),
            skipped: count(PointStatus::Skipped),
            cached: self.cached as u64,
            seconds: self.began.elapsed().as_secs_f64(),
        };
        self.emit(event)?;
        let misses = self.misses();
        let rows: Vec<Row> = self.rows.into_values().collect();
        report::save_rounds(&self.job.run.id, &rows, &self.job.run.path)?;
        report::save_searches(&self.job.run.id, &rows, &self.job.run.path)?;
        Ok(RunOutcome {
            run: self.job.run.clone(),
            rows,
            measured: self.measured,
            cached: self.cached,
            failures: self.failures,
            misses,
            interrupted,
        })
    }

    fn misses(&self) -> Vec<(String, String)> {
        let plan = &self.job.prepared.plan;
        let benchmarks = &self.job.prepared.document.value.benchmarks;
        let failed = report::searches(self.rows.values()).into_iter().filter(Found::has_failed);
        let mut misses: Vec<(String, String)> =
            failed.map(|found| (format!("{} {}", found.cell(), found.phase()), found.to_string())).collect();
        // A search misses thresholds on purpose.
        let is_try = |row: &Row| matches!(row.point.series, Some(Series::Search(_)));
        let ok = self.rows.iter().filter(|(_, row)| row.point.status == PointStatus::Ok && !is_try(row));
        for (index, row) in ok {
            let Some(phase) = benchmarks.get(&row.point.phase) else { continue };
            let bounds: Vec<Bound> = phase
                .thresholds
                .iter()
                .map(|(column, bound)| Bound { column: column.clone(), min: bound.min, max: bound.max })
                .collect();
            misses.extend(row.missed(&bounds).iter().map(|miss| (plan.point_label(*index), miss.to_string())));
        }
        misses
    }

    fn add_row(&mut self, index: usize) -> Result<(), RunError> {
        let folder = publish::folder(&self.job.prepared.plan, &self.job.run, index);
        let row = report::read_point(&self.job.run.id, &folder)?;
        if let (Some(_), Some(phase)) = (row.point.method, folder.parent()) {
            report::write_lmdeploy_csv(&report::lmdeploy_points(phase)?, &phase.join(LMDEPLOY_CSV), false)?;
        }
        self.rows.insert(index, row);
        Ok(())
    }

    fn save_results(&self) -> Result<(), RunError> {
        let rows: Vec<&Row> = self.rows.values().collect();
        report::save(&self.job.run.id, &rows, &self.job.run.path)?;
        Ok(())
    }

    fn save_lock(&self) -> Result<(), RunError> {
        self.job.run.write("lock.yaml", lock_text(&self.job.prepared, &self.resolved).as_bytes())?;
        Ok(())
    }

    fn emit(&mut self, event: Event) -> Result<(), RunError> {
        let stamped = self.log.append(event)?;
        (self.observe)(&stamped);
        Ok(())
    }
}

async fn step(job: Arc<Job>, index: usize, cancel: CancellationToken) -> Finished {
    let mut began = None;
    let result = steps::run(&job, index, &mut began, &cancel).await;
    (index, result, began.map_or(0.0, |began: Instant| began.elapsed().as_secs_f64()))
}

fn planned_cells(plan: &Plan) -> impl Iterator<Item = (&PlannedCell, usize)> {
    plan.cells.iter().filter_map(|cell| match cell.state {
        CellState::Planned { server } => Some((cell, server)),
        CellState::Excluded { .. } | CellState::Unsupported { .. } | CellState::NotChosen => None,
    })
}
