use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use procfs::process::Process;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::connection::Route;
use super::exchange::{Clock, Exchange};
use super::worker::{Job, Limit, Part, Worker};
use super::writer::Writer;
use super::{LoadError, RecordSink};
use crate::record::{ClientFacts, RequestKind};
use crate::spec::{LoadPoint, Protocol, Volume};
use crate::workload::{Prompt, Tokenizer};

/// Connections opened at a time before the first request.
const CONNECTING: usize = 64;
/// Answers that may wait for the writer, besides one for each worker.
const WAITING_ANSWERS: usize = 16;

/// The server and the model on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    pub protocol: Protocol,
    /// `http://host:port`, for gRPC as well.
    pub base_url: String,
    /// The name under which the server knows the model.
    pub model: String,
}

impl Target {
    /// The port that requests go to.
    pub fn port(&self) -> Result<u16, LoadError> {
        Address::parse(&self.base_url).map(|address| address.port)
    }
}

/// One load point and what it needs.
#[derive(Clone)]
pub struct LoadJob {
    pub target: Target,
    pub point: LoadPoint,
    /// Sent in order, again from the first after the last.
    pub prompts: Arc<[Prompt]>,
    /// Counts answers of servers that do not count themselves.
    pub tokenizer: Option<Arc<Tokenizer>>,
}

/// Why a load point ended early.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CutOff {
    /// Its own time limit passed.
    PointTimeout,
    /// The caller asked for it.
    Cancelled,
}

/// What is known of a load point besides its records.
#[derive(Clone, Debug, PartialEq)]
pub struct PointRun {
    /// Records written, warm-up included.
    pub records: u64,
    /// Requests sent again because the server had closed a connection that it was to keep; at most one a worker.
    pub resent: u64,
    /// Requests under way at that moment are recorded as cut off.
    pub cut_off: Option<CutOff>,
    pub client: ClientFacts,
}

/// Carries out one load point: connections, warm-up, and after its last answer the measurement.
///
/// Every request that was sent ends as one record in `sink`, in order of ending. `progress` gets the number of requests
/// that have ended, warm-up included. What goes wrong with a request is on its record; an error means that the load
/// point could not be prepared or recorded.
pub async fn run(
    load: LoadJob,
    sink: RecordSink,
    progress: impl Fn(u64) + Send + 'static,
    cancel: CancellationToken,
) -> Result<PointRun, LoadError> {
    let LoadJob { target, point, prompts, tokenizer } = load;
    if prompts.is_empty() {
        return Err(LoadError::NoPrompts);
    }
    let request_timeout = seconds(point.request_timeout_s);
    let route = Route::new(target.protocol, &target.base_url, &target.model)?;
    let requests = route.requests(&target.model, request_timeout).await?;

    let (sender, receiver) = mpsc::channel(WAITING_ANSWERS + point.arrival.concurrency().unwrap_or(1) as usize);
    let writer = Writer { point: point.clone(), prompts: Arc::clone(&prompts), tokenizer, sink };
    let writing = tokio::task::spawn_blocking(move || writer.write_all(receiver, progress));

    let stop = CancellationToken::new();
    let point_timeout = seconds(point.point_timeout_s);
    let job = Job { route, requests, model: target.model, point, prompts, clock: Clock::start(), request_timeout };
    let mut parts = pin!(run_parts(Arc::new(job), sender, &stop));
    let (workers, cpu_share, cut_off) = tokio::select! {
        (workers, cpu_share) = &mut parts => (workers, cpu_share, None),
        reason = first_of(point_timeout, &cancel) => {
            stop.cancel();
            let (workers, cpu_share) = parts.await;
            (workers, cpu_share, Some(reason))
        }
    };
    let resent = workers.iter().map(|worker| worker.resent).sum();
    // The writer ends when no worker can send to it any more.
    drop(workers);
    let records = writing.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))?;
    Ok(PointRun { records, resent, cut_off, client: ClientFacts { cpu_share } })
}

async fn first_of(point_timeout: Duration, cancel: &CancellationToken) -> CutOff {
    tokio::select! {
        () = tokio::time::sleep(point_timeout) => CutOff::PointTimeout,
        () = cancel.cancelled() => CutOff::Cancelled,
    }
}

async fn run_parts(
    job: Arc<Job>,
    exchanges: mpsc::Sender<Exchange>,
    stop: &CancellationToken,
) -> (Vec<Worker>, Option<f64>) {
    let workers = (0..job.point.arrival.concurrency().unwrap_or(1)).map(|number| Worker {
        number,
        job: Arc::clone(&job),
        exchanges: exchanges.clone(),
        stop: stop.child_token(),
        connection: None,
        fresh_connections: false,
        resent: 0,
    });
    let connect = |mut worker: Worker| async move {
        // A failure shows again, and is recorded, when the worker has a request to send.
        let _ = worker.connect().await;
        worker
    };
    let workers = futures_util::stream::iter(workers).map(connect).buffer_unordered(CONNECTING).collect().await;

    let warmup_requests = job.point.warmup_requests;
    let warmup = Part { kind: RequestKind::Warmup, next: AtomicU64::new(0), limit: Limit::Requests(warmup_requests) };
    let workers = run_part(workers, warmup).await;

    let limit = match job.point.volume {
        Volume::Requests(requests) => Limit::Requests(warmup_requests.saturating_add(requests)),
        Volume::DurationS(duration) => {
            let length = u64::try_from(seconds(duration).as_nanos()).unwrap_or(u64::MAX);
            Limit::Until { ns: job.clock.now_ns().saturating_add(length) }
        }
    };
    let measure = Part { kind: RequestKind::Measure, next: AtomicU64::new(warmup_requests), limit };
    let before = CpuReading::take();
    let workers = run_part(workers, measure).await;
    let cpu_share = before.zip(CpuReading::take()).and_then(|(before, after)| before.share_until(&after));
    (workers, cpu_share)
}

/// Lets every worker work until the part is over, and gives them back: all its requests have ended then.
async fn run_part(workers: Vec<Worker>, part: Part) -> Vec<Worker> {
    let part = Arc::new(part);
    let mut tasks = JoinSet::new();
    for worker in workers {
        let part = Arc::clone(&part);
        tasks.spawn(async move { worker.work(&part).await });
    }
    tasks.join_all().await
}

/// Settings were checked when they were read; what is out of range all the same means no limit.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// CPU time of this process, in the kernel's ticks of 10 ms.
struct CpuReading {
    at: Instant,
    ticks: u64,
}

impl CpuReading {
    fn take() -> Option<Self> {
        let stat = Process::myself().and_then(|process| process.stat()).ok()?;
        Some(Self { at: Instant::now(), ticks: stat.utime + stat.stime })
    }

    fn share_until(&self, later: &Self) -> Option<f64> {
        let cores = available_parallelism().ok()?.get() as f64;
        let busy_s = later.ticks.saturating_sub(self.ticks) as f64 / procfs::ticks_per_second() as f64;
        let window_s = (later.at - self.at).as_secs_f64();
        (window_s > 0.0).then(|| busy_s / window_s / cores)
    }
}
