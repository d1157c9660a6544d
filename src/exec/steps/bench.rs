use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

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
    let result = measure(job, index, &mut running, cancel).await;
    running.stop(job).await;
    result
}

/// Measures what has to be. A load point that fails does not stop the next, unless the server is gone.
async fn measure(job: &Job, index: usize, running: &mut Running, cancel: &CancellationToken) -> Result<(), StepError> {
    let plan = &job.prepared.plan;
    let step = &plan.steps[index];
    let tokenizer = load_tokenizer(job.prepared.output(&job.store, step.chain[0])).await;
    let mut failed = None;
    for (number, point) in plan.points_of(index).filter(|(_, point)| point.has_work()) {
        if cancel.is_cancelled() {
            return Err(StepError::Interrupted);
        }
        running.settle(job, cancel).await?;
        started(job, point);
        let began = Instant::now();
        let measured = point::measure(job, number, running, &tokenizer, cancel).await;
        let seconds = began.elapsed().as_secs_f64();
        if let Err(error) = &measured {
            point::publish_failure(job, number, error)?;
        }
        job.tell(Message::Point { index: number });
        match measured {
            Ok(()) => finished(job, point, seconds, Outcome::Done),
            Err(error) => {
                finished(job, point, seconds, Outcome::Failed { error: error.report() });
                if let Some(lost) = running.lost(job) {
                    return Err(lost);
                }
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
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
