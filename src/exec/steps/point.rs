use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::server::Running;
use super::{Job, Message};
use crate::event::{Event, StepKind};
use crate::exec::StepError;
use crate::exec::publish::{self, MEASURED, Measured, REQUESTS};
use crate::load::{self, CutOff, LoadJob, PointRun, Prompt, RecordSink, Tokenizer, prompts};
use crate::plan::Point;
use crate::record::{PointStatus, ServerFacts};
use crate::spec::{Data, LoadPoint, Volume};
use crate::store::Draft;

/// Between two samples of the server's memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(500);
/// Between two signs of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// Prompts for a load point that ends by time; used again from the first when they run out.
const PROMPTS_BY_TIME: u64 = 2048;

/// Counted prompts of data files, by path.
pub(super) type FilePrompts = HashMap<PathBuf, Arc<[Prompt]>>;

/// Measures one load point and keeps it in the store and in the run.
pub(super) async fn measure(
    job: &Job,
    number: usize,
    running: &Running,
    tokenizer: &Result<Arc<Tokenizer>, String>,
    files: &mut FilePrompts,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let point = &job.prepared.plan.points[number];
    let Some(key) = point.key() else { return Ok(()) };
    let draft = job.store.begin(StepKind::Bench, key, cancel).await?;
    if job.store.holds(StepKind::Bench, key) && !job.is_rerun(StepKind::Bench) {
        // Another run measured it while this one waited.
        return publish::cached(&job.prepared.plan, &job.store, &job.run, number);
    }
    let prompts = prompts_of(job, &point.load, tokenizer, files).await?;
    let workload = prompts::workload_hash(&prompts, &point.load);
    job.tell(Message::Workload { point: number, hash: workload.clone() });
    let load = LoadJob {
        target: running.target(job, point.load.protocol)?,
        point: (*point.load).clone(),
        prompts,
        tokenizer: tokenizer.as_ref().ok().cloned(),
    };
    let sink = RecordSink::create(&draft.output().join(REQUESTS))?;
    let memory = running.server.sample_rss(MEMORY_PAUSE);
    let run = load::run(load, sink, progress(job, point), cancel.clone()).await?;
    let gpus = job.prepared.plan.cells[point.cell].gpus;
    let measured = Measured {
        measured_in: job.run.id.clone(),
        workload,
        client: run.client.clone(),
        server: ServerFacts {
            gpus: (gpus > 0).then_some(gpus),
            host_rss_mib_peak: memory.peak_mib(),
            ..ServerFacts::default()
        },
    };
    drop(memory);
    keep(job, number, draft, &measured, &run, running)
}

/// A whole measurement goes into the store; a broken one stays with the run, so that what was seen is not lost.
fn keep(
    job: &Job,
    number: usize,
    draft: Draft,
    measured: &Measured,
    run: &PointRun,
    running: &Running,
) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    let records = draft.output().join(REQUESTS);
    let broken = match run.cut_off {
        Some(CutOff::Cancelled) => Some(StepError::Interrupted),
        Some(CutOff::PointTimeout) => Some(StepError::PointTimeout { seconds: plan.points[number].load.point_timeout_s }),
        None => running.lost(job).or(nothing_measured(&records)?),
    };
    if let Some(error) = broken {
        publish::records(plan, &job.run, number, &records)?;
        publish::point(plan, &job.run, number, PointStatus::Failed, Some(error.report()), Some(measured))?;
        return Err(error);
    }
    let facts = draft.output().join(MEASURED);
    let text = serde_json::to_vec_pretty(measured).expect("facts are plain data");
    fs::write(&facts, text).map_err(|source| StepError::Write { path: facts, source })?;
    draft.finish(&plan.point_material(number))?;
    publish::cached(plan, &job.store, &job.run, number)
}

/// Why a load point without a single good answer failed.
fn nothing_measured(records: &Path) -> Result<Option<StepError>, StepError> {
    let unreadable = |source| StepError::Read { path: records.to_owned(), source };
    let text = fs::read_to_string(records).map_err(unreadable)?;
    let mut first_error = None;
    for line in text.lines() {
        let Ok(record) = serde_json::from_str::<crate::record::RequestRecord>(line) else { continue };
        if record.kind == crate::record::RequestKind::Warmup {
            first_error = first_error.or(record.error);
            continue;
        }
        if record.status == crate::record::RequestStatus::Ok {
            return Ok(None);
        }
        first_error = first_error.or(record.error);
    }
    let error = first_error.map_or_else(|| "no request was sent".to_owned(), |error| format!("{}: {}", error.kind, error.message));
    Ok(Some(StepError::NoGoodAnswer { error }))
}

/// Writes the row of a load point that failed before its requests were recorded.
pub(super) fn publish_failure(job: &Job, number: usize, reason: &str) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    if publish::is_there(plan, &job.run, number) {
        return Ok(());
    }
    publish::point(plan, &job.run, number, PointStatus::Failed, Some(reason.to_owned()), None)
}

async fn prompts_of(
    job: &Job,
    load: &LoadPoint,
    tokenizer: &Result<Arc<Tokenizer>, String>,
    files: &mut FilePrompts,
) -> Result<Arc<[Prompt]>, StepError> {
    match &load.data {
        Data::Synthetic { isl } => {
            let tokenizer =
                tokenizer.clone().map_err(|reason| StepError::NoTokenizer { phase: load.phase.clone(), reason })?;
            let (isl, count, seed) = (*isl, number_of_prompts(load), load.own_prompt_seed());
            let making = tokio::task::spawn_blocking(move || prompts::synthetic(&tokenizer, isl, count, seed));
            Ok(making.await.expect("making prompts returns its failures")?.into())
        }
        Data::Jsonl { path } => {
            if let Some(prompts) = files.get(path) {
                return Ok(prompts.clone());
            }
            let mut prompts = job.prepared.prompts.get(path).cloned().unwrap_or_default();
            if let Ok(tokenizer) = tokenizer.clone() {
                let counting = tokio::task::spawn_blocking(move || {
                    prompts::count_tokens(&tokenizer, &mut prompts).map(|()| prompts)
                });
                prompts = counting.await.expect("counting returns its failures")?;
            }
            let prompts: Arc<[Prompt]> = prompts.into();
            files.insert(path.clone(), prompts.clone());
            Ok(prompts)
        }
    }
}

fn number_of_prompts(load: &LoadPoint) -> u64 {
    match load.volume {
        Volume::Requests(requests) => requests + load.warmup_requests,
        Volume::DurationS(_) => PROMPTS_BY_TIME.max(u64::from(load.concurrency) * 4) + load.warmup_requests,
    }
}

fn progress(job: &Job, point: &Point) -> impl Fn(u64) + Send + 'static {
    let messages = job.messages.clone();
    let (cell, phase, name) =
        (job.prepared.plan.cells[point.cell].id.clone(), point.load.phase.clone(), point.name.clone());
    let last = Mutex::new(Instant::now());
    move |requests| {
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
