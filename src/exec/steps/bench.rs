use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::certify::Certifier;
use super::series::Way;
use super::server::{self, Running};
use super::{Job, Message, point, reuse};
use crate::event::{Event, Outcome};
use crate::exec::StepError;
use crate::plan::Point;
use crate::workload::Tokenizer;

/// One server: up, every load point that has work, down again, whatever happens in between.
pub(super) async fn run(job: &Job, index: usize, cancel: &CancellationToken) -> Result<(), StepError> {
    let mut running = server::start(job, index, cancel).await?;
    reuse::check(job, index, &running, cancel).await;
    let chain = &job.prepared.plan.steps[index].chain;
    let tokenizer = load_tokenizer(job.prepared.output(&job.store, chain[0])).await;
    let certifier = Certifier::default();
    let result = Bench { job, running: &mut running, tokenizer, certifier, cancel }.measure(index).await;
    running.stop(job).await;
    result
}

/// What the load points of one server share.
struct Bench<'a> {
    job: &'a Job,
    running: &'a mut Running,
    tokenizer: LoadedTokenizer,
    certifier: Certifier,
    cancel: &'a CancellationToken,
}

impl Bench<'_> {
    /// Measures what has to be. A load point that fails does not stop the next, unless the server is gone.
    async fn measure(mut self, index: usize) -> Result<(), StepError> {
        let job = self.job;
        let mut failed = None;
        for (number, _) in job.prepared.plan.points_of(index).filter(|(_, point)| point.has_work()) {
            let error = match Way::of(job, number)? {
                None => self.one(number).await?,
                Some(way) => self.series(number, way).await?,
            };
            failed = failed.or(error);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Measures what a series asks for, one load point after the other. Gives the first failure, unless the series wanted
    /// to see one: a search that has found its limit went beyond it.
    async fn series(&mut self, first: usize, mut way: Way<'_>) -> Result<Option<StepError>, StepError> {
        let mut next = Some(first);
        let mut failed = None;
        while let Some(number) = next {
            let error = self.one(number).await?;
            failed = failed.or(error);
            next = way.after(number)?;
        }
        Ok(failed.filter(|_| !way.has_found()))
    }

    /// Measures a load point. Gives its failure; the error is one that leaves nothing to go on with.
    async fn one(&mut self, number: usize) -> Result<Option<StepError>, StepError> {
        let job = self.job;
        if self.cancel.is_cancelled() {
            return Err(StepError::Interrupted);
        }
        self.running.settle(job, self.cancel).await?;
        let point = &job.prepared.plan.points[number];
        started(job, point);
        let began = Instant::now();
        let certifier = &mut self.certifier;
        let measured = point::measure(job, number, self.running, &self.tokenizer, certifier, self.cancel).await;
        let seconds = began.elapsed().as_secs_f64();
        if let Err(error) = &measured {
            point::publish_failure(job, number, error)?;
        }
        job.tell(Message::Point { index: number });
        let Err(error) = measured else {
            finished(job, point, seconds, Outcome::Done);
            return Ok(None);
        };
        finished(job, point, seconds, Outcome::Failed { error: error.report() });
        self.running.lost(job).map_or(Ok(Some(error)), Err)
    }
}

type LoadedTokenizer = Result<Arc<Tokenizer>, String>;

/// A missing tokenizer is an error only for a phase that needs one.
async fn load_tokenizer(folder: std::path::PathBuf) -> LoadedTokenizer {
    let loaded = tokio::task::spawn_blocking(move || Tokenizer::load(&folder)).await;
    loaded.expect("loading returns its failures").map(Arc::new).map_err(|error| error.to_string())
}

fn started(job: &Job, point: &Point) {
    let requests = match point.load.volume {
        crate::spec::Volume::Requests(requests) => Some(requests + point.load.warmup_requests),
        crate::spec::Volume::DurationS(_) => None,
    };
    job.tell(Message::Event(Event::PointStarted {
        cell: job.prepared.plan.cells[point.cell].id.clone(),
        phase: point.load.phase.clone(),
        point: point.name.clone(),
        requests,
    }));
}

fn finished(job: &Job, point: &Point, seconds: f64, outcome: Outcome) {
    job.tell(Message::Event(Event::PointFinished {
        cell: job.prepared.plan.cells[point.cell].id.clone(),
        phase: point.load.phase.clone(),
        point: point.name.clone(),
        seconds,
        outcome,
    }));
}
