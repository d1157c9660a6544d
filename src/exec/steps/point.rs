use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::server::Running;
use super::{Job, Message, certify};
use crate::base::CellId;
use crate::event::{Event, StepKind};
use crate::exec::StepError;
use crate::exec::publish::{self, MEASURED, Measured, REQUESTS};
use crate::load::{self, CutOff, LoadJob, PointRun, RecordSink};
use crate::plan::Point;
use crate::record::{Certificate, PointStatus, RequestError, RequestKind, RequestRecord, RequestStatus, ServerFacts};
use crate::spec::{Data, LoadPoint, Volume};
use crate::store::Draft;
use crate::workload::{self, Prompt, Tokenizer, Workload};

/// Between two samples of the server's memory.
const MEMORY_PAUSE: Duration = Duration::from_millis(500);
/// Between two signs of progress.
const PROGRESS_PAUSE: Duration = Duration::from_millis(100);
/// Prompts for a load point that ends by time; used again from the first when they run out.
const PROMPTS_BY_TIME: u64 = 2048;

/// More prompts than this are used again from the first: they are held in memory.
const MOST_PROMPTS: u64 = 200_000;

/// What the load points of a server have in common.
#[derive(Default)]
pub(super) struct Shared {
    /// Counted prompts of data files, by path.
    prompts: HashMap<PathBuf, Arc<[Prompt]>>,
    /// Of load points, which differ in more than the round. None could be given where there is none.
    certificates: Vec<(LoadPoint, Option<Certificate>)>,
}

/// Measures one load point and keeps it in the store and in the run.
pub(super) async fn measure(
    job: &Job,
    number: usize,
    running: &mut Running,
    tokenizer: &Result<Arc<Tokenizer>, String>,
    shared: &mut Shared,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let point = &job.prepared.plan.points[number];
    let Some(key) = point.key() else { return Ok(()) };
    let draft = job.store.begin(StepKind::Bench, key, cancel).await?;
    if job.store.holds(StepKind::Bench, key) && !job.is_rerun(StepKind::Bench) {
        // Another run measured it while this one waited.
        return publish::cached(&job.prepared.plan, &job.store, &job.run, number);
    }
    let prompts = prompts_of(job, &point.load, tokenizer, &mut shared.prompts).await?;
    warn_of_repeats(job, point, prompts.len());
    let hash = workload::workload_hash(&prompts, &point.load);
    job.tell(Message::Workload { point: number, hash: hash.clone() });
    let label = job.prepared.plan.point_label(number);
    let locked = job.prepared.document.value.locked.as_ref().and_then(|lock| lock.workloads.get(&label));
    if locked.is_some_and(|locked| *locked != hash) {
        return Err(StepError::NotAsLocked { file: format!("workload of {label}") });
    }
    let load = LoadJob {
        target: running.target(job, point.load.protocol)?,
        point: (*point.load).clone(),
        workload: Workload { prompts, due_ns: None },
        tokenizer: tokenizer.as_ref().ok().cloned(),
    };
    let records = draft.output().join(REQUESTS);
    let sink = RecordSink::create(&records)?;
    let memory = running.server.sample_rss(MEMORY_PAUSE);
    let run = load::run(load.clone(), sink, progress(job, point), cancel.clone()).await?;
    let mut measured = Measured {
        run: job.run.id.clone(),
        workload: hash,
        client: run.client.clone(),
        server: ServerFacts { host_rss_mib_peak: memory.peak_mib(), ..ServerFacts::default() },
    };
    drop(memory);
    let lost = running.lost_after_load(job).await;
    if job.prepared.document.value.certify && lost.is_none() && run.cut_off.is_none() {
        let cell = &job.prepared.plan.cells[point.cell].id;
        measured.client.certificate = shared.certificate(job, cell, load, &records, cancel).await;
    }
    keep(job, number, draft, &measured, &run, lost)
}

impl Shared {
    /// The first round's certificate is that of all rounds.
    async fn certificate(
        &mut self,
        job: &Job,
        cell: &CellId,
        load: LoadJob,
        records: &Path,
        cancel: &CancellationToken,
    ) -> Option<Certificate> {
        let point = LoadPoint { round: 1, ..load.point.clone() };
        if let Some((_, known)) = self.certificates.iter().find(|(known, _)| *known == point) {
            return *known;
        }
        let certificate = certify::certificate(job, cell, load, records, cancel).await;
        self.certificates.push((point, certificate));
        certificate
    }
}

/// A whole measurement goes into the store; a broken one stays with the run, so that what was seen is not lost.
fn keep(
    job: &Job,
    number: usize,
    draft: Draft,
    measured: &Measured,
    run: &PointRun,
    lost: Option<StepError>,
) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    let records = draft.output().join(REQUESTS);
    let broken = match run.cut_off {
        Some(CutOff::Cancelled) => Some(StepError::Interrupted),
        Some(CutOff::PointTimeout) => {
            Some(StepError::PointTimeout { seconds: plan.points[number].load.point_timeout_s })
        }
        None => lost,
    };
    let answers = Answers::read(&records)?;
    if let Some(error) = broken.or_else(|| answers.none_was_good()) {
        publish::records(plan, &job.run, number, &records)?;
        publish::point(plan, &job.run, number, error.point_status(), Some(error.report()), Some(measured))?;
        return Err(error);
    }
    if answers.failed > 0 {
        // The row stands, with its counts; but the next run shall try again, so it does not enter the store.
        publish::records(plan, &job.run, number, &records)?;
        return publish::point(plan, &job.run, number, PointStatus::Ok, None, Some(measured));
    }
    let facts = draft.output().join(MEASURED);
    let text = serde_json::to_vec_pretty(measured).expect("facts are plain data");
    fs::write(&facts, text).map_err(|source| StepError::Write { path: facts, source })?;
    draft.finish(&plan.point_material(number))?;
    publish::cached(plan, &job.store, &job.run, number)
}

/// How the measured requests of a load point ended.
#[derive(Debug, Default)]
struct Answers {
    good: u64,
    failed: u64,
    first_error: Option<RequestError>,
}

impl Answers {
    fn read(records: &Path) -> Result<Self, StepError> {
        let unreadable = |source| StepError::Read { path: records.to_owned(), source };
        let mut answers = Self::default();
        for line in BufReader::new(File::open(records).map_err(unreadable)?).lines() {
            let Ok(record) = serde_json::from_str::<RequestRecord>(&line.map_err(unreadable)?) else { continue };
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

async fn prompts_of(
    job: &Job,
    load: &LoadPoint,
    tokenizer: &Result<Arc<Tokenizer>, String>,
    files: &mut HashMap<PathBuf, Arc<[Prompt]>>,
) -> Result<Arc<[Prompt]>, StepError> {
    match &load.data {
        Data::Synthetic { isl } => {
            let tokenizer =
                tokenizer.clone().map_err(|reason| StepError::NoTokenizer { phase: load.phase.clone(), reason })?;
            let (isl, count, seed) = (*isl, number_of_prompts(load), load.own_prompt_seed());
            let making = tokio::task::spawn_blocking(move || workload::synthetic(&tokenizer, isl, count, seed));
            Ok(making.await.expect("making prompts returns its failures")?.into())
        }
        Data::Jsonl { path } => {
            if let Some(prompts) = files.get(path) {
                return Ok(prompts.clone());
            }
            let mut prompts = job.prepared.prompts.get(path).cloned().unwrap_or_default();
            if let Ok(tokenizer) = tokenizer.clone() {
                let counting = tokio::task::spawn_blocking(move || {
                    workload::count_tokens(&tokenizer, &mut prompts).map(|()| prompts)
                });
                prompts = counting.await.expect("counting returns its failures")?;
            }
            let prompts: Arc<[Prompt]> = prompts.into();
            files.insert(path.clone(), prompts.clone());
            Ok(prompts)
        }
    }
}

/// A prompt that was sent before may be answered from a prefix cache.
fn warn_of_repeats(job: &Job, point: &Point, prompts: usize) {
    let Volume::Requests(requests) = point.load.volume else { return };
    let requests = requests + point.load.warmup_requests;
    if (prompts as u64) < requests {
        let cell = job.prepared.plan.cells[point.cell].id.clone();
        let phase = &point.load.phase;
        let message = format!(
            "{cell} {phase} {}: {requests} requests share {prompts} prompts; a server that caches prefixes answers repeats faster",
            point.name
        );
        job.tell(Message::Event(Event::Warning { cell: Some(cell), message }));
    }
}

fn number_of_prompts(load: &LoadPoint) -> u64 {
    match load.volume {
        Volume::Requests(requests) => requests.saturating_add(load.warmup_requests).min(MOST_PROMPTS),
        Volume::DurationS(_) => {
            PROMPTS_BY_TIME.max(u64::from(load.arrival.concurrency().unwrap_or_default()) * 4) + load.warmup_requests
        }
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
