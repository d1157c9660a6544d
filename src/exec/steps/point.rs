use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::certify::Certifier;
use super::server::Running;
use super::{Job, Message, reuse};
use crate::event::{Event, StepKind};
use crate::exec::StepError;
use crate::exec::publish::{self, MEASURED, Measured, REQUESTS, SERIES};
use crate::load::{self, CutOff, LoadJob, PointRun, RecordSink};
use crate::observe::{Marker, Observation, Sent};
use crate::plan::Point;
use crate::record::{PointStatus, RequestError, RequestKind, RequestRecord, RequestStatus};
use crate::spec::{LoadPoint, Series};
use crate::store::Draft;
use crate::workload::{self, Tokenizer, Workload};

/// Between two signs of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// Measures one load point and keeps it in the store and in the run.
pub(super) async fn measure(
    job: &Job,
    number: usize,
    running: &mut Running,
    tokenizer: &Result<Arc<Tokenizer>, String>,
    certifier: &mut Certifier,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let point = &job.prepared.plan.points[number];
    let Some(key) = point.key() else { return Ok(()) };
    let draft = job.store.begin(StepKind::Bench, key, cancel).await?;
    if job.store.holds(StepKind::Bench, key) && !job.is_rerun(StepKind::Bench) {
        // Another run measured it while this one waited.
        return publish::cached(&job.prepared.plan, &job.store, &job.run, number);
    }
    let workload = workload_of(job, &point.load, tokenizer).await?;
    let hash = workload.hash(&point.load);
    job.tell(Message::Workload { point: number, hash: hash.clone() });
    let label = job.prepared.plan.point_label(number);
    let locked = job.prepared.document.value.locked.as_ref().and_then(|lock| lock.workloads.get(&label));
    if locked.is_some_and(|locked| *locked != hash) {
        return Err(StepError::NotAsLocked { file: format!("workload of {label}") });
    }
    let load = LoadJob {
        target: running.target(job, point.load.protocol)?,
        point: (*point.load).clone(),
        workload,
        tokenizer: tokenizer.as_ref().ok().cloned(),
    };
    let certificate = certifier.before(job, point, &load, cancel).await;
    let records = draft.output().join(REQUESTS);
    let sink = RecordSink::create(&records)?;
    let gpus = job.prepared.plan.cells[point.cell].gpus;
    let watch = running.watch(job, load.target.model.clone(), gpus, draft.output().join(SERIES))?;
    let observation = Observation::start(watch).await;
    let progress = progress(job, point, observation.marker(point.load.warmup_requests));
    let run = until_the_server_ends(running, cancel, |stop| load::run(load.clone(), sink, progress, stop)).await?;
    observation.load_ended();
    let answers = Answers::read(&records)?;
    let (server, mut complaints) = observation.finish(&answers.sent).await;
    complaints.extend(reuse::complaint_of_metrics(running.reuses_prefixes(job), server.metrics.as_ref()));
    let mut measured = Measured { run: job.run.id.clone(), workload: hash, client: run.client.clone(), server };
    for complaint in complaints {
        let cell = job.prepared.plan.cells[point.cell].id.clone();
        let message = format!("{label}: {complaint}");
        job.tell(Message::Event(Event::Warning { cell: Some(cell), message }));
    }
    if answers.left_behind {
        running.leave_behind(Duration::try_from_secs_f64(point.load.request_timeout_s).unwrap_or(Duration::MAX));
    }
    let lost = running.lost_after_load(job).await;
    measured.client.certificate = certifier.after(job, point, &load, &records, certificate, cancel).await;
    keep(job, number, draft, &measured, &run, &answers, lost)
}

/// Loads the server. Once its process has ended, no more is sent: requests that nobody can answer tell nothing.
async fn until_the_server_ends<F: Future>(
    running: &mut Running,
    cancel: &CancellationToken,
    load: impl FnOnce(CancellationToken) -> F,
) -> F::Output {
    let stop = cancel.child_token();
    let mut load = pin!(load(stop.clone()));
    tokio::select! {
        run = &mut load => run,
        _ = running.exited() => {
            stop.cancel();
            load.await
        }
    }
}

/// A whole measurement goes into the store; a broken one stays with the run, so that what was seen is not lost.
fn keep(
    job: &Job,
    number: usize,
    draft: Draft,
    measured: &Measured,
    run: &PointRun,
    answers: &Answers,
    lost: Option<StepError>,
) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    let records = draft.output().join(REQUESTS);
    let broken = match run.cut_off {
        Some(CutOff::Cancelled) => Some(lost.unwrap_or(StepError::Interrupted)),
        Some(CutOff::PointTimeout) => {
            Some(StepError::PointTimeout { seconds: plan.points[number].load.point_timeout_s })
        }
        None => lost,
    };
    if let Some(error) = broken.or_else(|| answers.none_was_good()) {
        publish::records(plan, &job.run, number, &records)?;
        publish::point(plan, &job.run, number, error.point_status(), Some(error.report()), Some(measured))?;
        return Err(error);
    }
    let is_try = plan.points[number].series.is_some_and(|it| matches!(*plan.series[it].rule, Series::Search(_)));
    if answers.failed > 0 && !is_try {
        // The row stands, with its counts; but the next run shall try again, so it does not enter the store. A search
        // is different: failures under too much load are what it looks for.
        publish::records(plan, &job.run, number, &records)?;
        return publish::point(plan, &job.run, number, PointStatus::Ok, None, Some(measured));
    }
    let facts = draft.output().join(MEASURED);
    let text = serde_json::to_vec_pretty(measured).expect("facts are plain data");
    fs::write(&facts, text).map_err(|source| StepError::Write { path: facts, source })?;
    draft.finish(&plan.point_material(number))?;
    publish::cached(plan, &job.store, &job.run, number)
}

/// How the requests of a load point ended.
#[derive(Debug, Default)]
struct Answers {
    good: u64,
    failed: u64,
    first_error: Option<RequestError>,
    /// The server may still work on requests that were given up.
    left_behind: bool,
    sent: Sent,
}

impl Answers {
    fn read(records: &Path) -> Result<Self, StepError> {
        let unreadable = |source| StepError::Read { path: records.to_owned(), source };
        let mut answers = Self::default();
        for line in BufReader::new(File::open(records).map_err(unreadable)?).lines() {
            let Ok(record) = serde_json::from_str::<RequestRecord>(&line.map_err(unreadable)?) else { continue };
            answers.sent.add(&record);
            let given_up =
                record.error.as_ref().is_some_and(|error| ["timeout", "stall"].contains(&error.kind.as_str()));
            answers.left_behind |= record.status == RequestStatus::CutOff || given_up;
            match (record.kind, record.status) {
                (RequestKind::Measure, RequestStatus::Ok) => answers.good += 1,
                (RequestKind::Measure, RequestStatus::Failed) => answers.failed += 1,
                (RequestKind::Measure | RequestKind::Warmup, _) => {}
            }
            answers.first_error = answers.first_error.or(record.error);
        }
        Ok(answers)
    }

    fn none_was_good(&self) -> Option<StepError> {
        if self.good > 0 {
            return None;
        }
        let error = self.first_error.as_ref();
        let error = error.map_or_else(|| "no request was sent".to_owned(), |it| format!("{}: {}", it.kind, it.message));
        Some(StepError::NoGoodAnswer { error })
    }
}

/// Writes the row of a load point that failed before its requests were recorded.
pub(super) fn publish_failure(job: &Job, number: usize, error: &StepError) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    if publish::is_there(plan, &job.run, number) {
        return Ok(());
    }
    publish::point(plan, &job.run, number, error.point_status(), Some(error.report()), None)
}

async fn workload_of(
    job: &Job,
    load: &Arc<LoadPoint>,
    tokenizer: &Result<Arc<Tokenizer>, String>,
) -> Result<Workload, StepError> {
    let source = job.prepared.sources.get(&load.phase).cloned();
    let (load, tokenizer) = (load.clone(), tokenizer.clone());
    let making = tokio::task::spawn_blocking(move || {
        workload::make(&load, source.as_deref(), tokenizer.as_deref().map_err(String::as_str))
    });
    Ok(making.await.expect("making prompts returns its failures")?)
}

fn progress(job: &Job, point: &Point, warmup: Marker) -> impl Fn(u64) + Send + Sync + 'static {
    let messages = job.messages.clone();
    let (cell, phase, name) =
        (job.prepared.plan.cells[point.cell].id.clone(), point.load.phase.clone(), point.name.clone());
    let last = Mutex::new(Instant::now());
    move |requests| {
        warmup.ended(requests);
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < PROGRESS_PAUSE {
            return;
        }
        *last = Instant::now();
        let event = Event::PointProgress { cell: cell.clone(), phase: phase.clone(), point: name.clone(), requests };
        // The receiver is gone only when the run has failed as a whole.
        let _ = messages.send(Message::Event(event));
    }
}
