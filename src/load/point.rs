use std::panic::resume_unwind;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::address::Address;
use super::connection::Route;
use super::exchange::{Clock, Exchange};
use super::job::{Conversations, Job, Limits};
use super::schedule::Schedule;
use super::signs::{Pulse, Signs};
use super::threads::{Threads, number_of_shards};
use super::writer::Writer;
use super::{LoadError, RecordSink, closed, open, open_files, socket_queue};
use crate::record::ClientFacts;
use crate::spec::{LoadPoint, Protocol};
use crate::workload::{Tokenizer, Workload};

/// Answers that may wait for a writer, besides one for each request under way.
const WAITING_ANSWERS: usize = 1024;

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
    pub workload: Workload,
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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PointRun {
    /// Records written, warm-up included.
    pub records: u64,
    /// Requests under way at that moment are recorded as cut off.
    pub cut_off: Option<CutOff>,
    pub client: ClientFacts,
}

/// Carries out one load point: connections, warm-up, measurement.
///
/// Every request that was sent ends as one record in `sink`, in order of ending. `progress` gets the number of requests
/// that have ended, warm-up included. What goes wrong with a request is on its record; an error means that the load
/// point could not be prepared or recorded.
pub async fn run(
    load: LoadJob,
    sink: RecordSink,
    progress: impl Fn(u64) + Send + Sync + 'static,
    cancel: CancellationToken,
) -> Result<PointRun, LoadError> {
    let LoadJob { target, point, workload, tokenizer } = load;
    if workload.prompts.is_empty() {
        return Err(LoadError::NoPrompts);
    }
    open_files::allow(point.arrival.concurrency())?;
    let limits = Limits { request: seconds(point.request_timeout_s), idle: point.idle_timeout_s.map(seconds) };
    let route = Route::new(target.protocol, &target.base_url, &target.model)?;
    let requests = route.requests(&target.model, limits.request).await?;
    requests.check(&target.model, &point)?;
    let job = Arc::new(Job {
        route,
        requests,
        model: target.model,
        conversations: Conversations::new(Arc::clone(&workload.prompts)),
        limits,
        clock: Clock::start(),
        next_request: AtomicU64::new(0),
        signs: Signs::default(),
        stop: CancellationToken::new(),
        all_sent: CancellationToken::new(),
        point,
    });
    let writers = Writers { tokenizer, sink: Arc::new(Mutex::new(sink)), progress: Arc::new(progress) };
    let (exchanges, writing) = writers.start(&job);
    let cut_off = drive(&job, workload.due_ns.as_deref(), exchanges, &cancel).await;
    for written in returned(tokio::task::spawn_blocking(move || writing.join())).await {
        written?;
    }
    let sink = Arc::into_inner(writers.sink).expect("every writer has ended");
    let records = sink.into_inner().unwrap_or_else(PoisonError::into_inner).finish()?;
    let mut client = job.signs.facts(job.clock);
    if job.point.protocol == Protocol::InProcess {
        // What waits for the event loops, or for them in the kernel, does not show in times that the engine takes itself.
        (client.poll_delay_ms_p99, client.poll_delay_ms_p99_9, client.socket_queue) = (None, None, None);
    }
    Ok(PointRun { records, cut_off, client })
}

/// What turns exchanges into records: a thread for each shard.
struct Writers<P> {
    tokenizer: Option<Arc<Tokenizer>>,
    sink: Arc<Mutex<RecordSink>>,
    progress: Arc<P>,
}

impl<P: Fn(u64) + Send + Sync + 'static> Writers<P> {
    /// Where each shard's exchanges go, and the writers.
    fn start(&self, job: &Job) -> (Vec<mpsc::Sender<Exchange>>, Threads<Result<(), LoadError>>) {
        let concurrency = job.point.arrival.concurrency();
        let shards = number_of_shards(concurrency.map_or(usize::MAX, |concurrency| concurrency as usize));
        let waiting = WAITING_ANSWERS + concurrency.unwrap_or_default() as usize;
        let mut writing = Threads::default();
        let start_one = |_| {
            let (sender, receiver) = mpsc::channel(waiting);
            let writer = Writer {
                point: job.point.clone(),
                clock: job.clock,
                prompts: Arc::clone(job.conversations.prompts()),
                tokenizer: self.tokenizer.clone(),
                sink: Arc::clone(&self.sink),
                progress: Arc::clone(&self.progress),
            };
            writing.start_behind("write", move || writer.write_all(receiver));
            sender
        };
        let exchanges = (0..shards).map(start_one).collect();
        (exchanges, writing)
    }
}

/// Lets every shard work until the load point is over; all its requests have ended then.
async fn drive(
    job: &Arc<Job>,
    trace_ns: Option<&[u64]>,
    exchanges: Vec<mpsc::Sender<Exchange>>,
    cancel: &CancellationToken,
) -> Option<CutOff> {
    let mut threads = Threads::default();
    let end_of_pulse = CancellationToken::new();
    let mut pulse = Pulse { clock: job.clock, shards: Vec::new() };
    let point = &job.point;
    let schedule =
        Schedule::of(&point.arrival, point.volume, point.warmup_requests, point.own_arrival_seed(), trace_ns);
    match schedule {
        Some(schedule) => open::start(&mut threads, job, schedule, exchanges, &mut pulse),
        None => closed::start(&mut threads, job, exchanges, &mut pulse),
    }
    let asking = {
        let end = end_of_pulse.clone();
        tokio::task::spawn_blocking(move || pulse.ask(&end))
    };
    let (running, end_of_load) = std::sync::mpsc::channel();
    let watching = {
        let job = Arc::clone(job);
        tokio::task::spawn_blocking(move || socket_queue::watch(job.route.server(), &end_of_load))
    };
    let mut working = tokio::task::spawn_blocking(move || threads.join());
    let cut_off = tokio::select! {
        ended = &mut working => {
            ended.unwrap_or_else(|panic| resume_unwind(panic.into_panic()));
            None
        }
        reason = first_of(job, cancel) => {
            job.stop.cancel();
            returned(working).await;
            reason
        }
    };
    end_of_pulse.cancel();
    drop(running);
    returned(asking).await;
    job.signs.unread(returned(watching).await);
    cut_off
}

async fn first_of(job: &Job, cancel: &CancellationToken) -> Option<CutOff> {
    let drained = async {
        match job.point.drain_s {
            Some(drain) => {
                job.all_sent.cancelled().await;
                tokio::time::sleep(seconds(drain)).await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = tokio::time::sleep(seconds(job.point.point_timeout_s)) => Some(CutOff::PointTimeout),
        () = cancel.cancelled() => Some(CutOff::Cancelled),
        () = drained => None,
    }
}

async fn returned<T>(task: JoinHandle<T>) -> T {
    task.await.unwrap_or_else(|panic| resume_unwind(panic.into_panic()))
}

/// Settings were checked when they were read; what is out of range all the same means no limit.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}
