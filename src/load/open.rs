//! The open loop: a thread that keeps time, and on each shard a request of its own for all that is due.

use std::num::NonZero;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::connection::Connection;
use super::exchange::Exchange;
use super::job::Job;
use super::schedule::Schedule;
use super::sender::{Due, Sender};
use super::signs::Pulse;
use super::threads::Threads;
use crate::record::RequestKind;
use crate::spec::Arrival;

/// Connections are kept ready for so long a time of arrivals.
const SPARES_S: f64 = 0.1;
const MOST_SPARES: usize = 256;

/// A conversation whose time has come.
struct Ready {
    number: u64,
    kind: RequestKind,
    due_ns: u64,
}

/// Starts a shard for each sender of exchanges, and the thread that keeps time.
pub(super) fn start(
    threads: &mut Threads,
    job: &Arc<Job>,
    schedule: Schedule,
    exchanges: Vec<mpsc::Sender<Exchange>>,
    pulse: &mut Pulse,
) {
    let shards = exchanges.len();
    let slots = job.point.arrival.concurrency().map(|bound| Arc::new(Semaphore::new(bound as usize)));
    let (connected, all_connected) = std::sync::mpsc::channel();
    let mut readies = Vec::new();
    for exchanges in exchanges {
        // Unbounded: what is due is never held back here, and no more than the schedule has can wait.
        let (ready, readied) = mpsc::unbounded_channel();
        readies.push(ready);
        let (asking, questions) = mpsc::unbounded_channel();
        pulse.shards.push(asking);
        let spares = if job.point.cold_connections { 0 } else { spares(&job.point.arrival, shards) };
        let shard = Shard { ready: readied, slots: slots.clone(), exchanges, spares: Arc::new(Spares::new(spares)) };
        let (job, connected) = (Arc::clone(job), connected.clone());
        threads.start_loop("load", async move {
            tokio::select! {
                () = shard.run(&job, connected) => {}
                () = job.signs.answer(questions, job.clock) => {}
            }
        });
    }
    let job = Arc::clone(job);
    threads.start("schedule", move || {
        // By default the kernel may prolong each sleep by 50 microseconds; a host that refuses keeps its default.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
        // A shard that ends without a word has panicked, and says so itself.
        if all_connected.iter().take(shards).count() == shards {
            keep_time(&schedule, &job, &readies);
        }
    });
}

/// Hands out what the schedule says when it says so, to the shards in turn. Blocks until all is handed out or the load
/// point is stopped: a thread's sleep is exact to tens of microseconds, a timer of an event loop to a millisecond.
fn keep_time(schedule: &Schedule, job: &Job, shards: &[mpsc::UnboundedSender<Ready>]) {
    // Longer sleeps would delay a stop.
    const LONGEST_SLEEP: Duration = Duration::from_millis(50);
    let began_ns = job.clock.now_ns();
    for (number, due_ns) in schedule.due_ns.iter().enumerate() {
        let due_ns = began_ns.saturating_add(*due_ns);
        loop {
            if job.stop.is_cancelled() {
                return;
            }
            match due_ns.saturating_sub(job.clock.now_ns()) {
                0 => break,
                left => thread::sleep(Duration::from_nanos(left).min(LONGEST_SLEEP)),
            }
        }
        let kind = if number < schedule.warmup { RequestKind::Warmup } else { RequestKind::Measure };
        if kind == RequestKind::Measure {
            job.signs.measure_begins();
        }
        // The shard is gone only when the load point is stopped.
        let _ = shards[number % shards.len()].send(Ready { number: number as u64, kind, due_ns });
    }
    job.all_sent.cancel();
}

/// Connections that are open before somebody needs one. They keep the making of a connection, and a storm of them,
/// out of the figures.
struct Spares {
    idle: Mutex<Vec<Connection>>,
    wanted: usize,
    taken: Notify,
}

impl Spares {
    fn new(wanted: usize) -> Self {
        Self { idle: Mutex::default(), wanted, taken: Notify::new() }
    }

    fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The one used last is the one least likely to have been closed.
        let mut found = idle.pop();
        while found.as_mut().is_some_and(|connection| !connection.is_ready()) {
            found = idle.pop();
        }
        if idle.len() < self.wanted {
            self.taken.notify_one();
        }
        found
    }

    fn give_back(&self, connection: Connection) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
    }

    fn lacking(&self) -> usize {
        self.wanted.saturating_sub(self.idle.lock().unwrap_or_else(PoisonError::into_inner).len())
    }

    /// Opens connections until there are enough; `false` when the server does not take any.
    async fn fill(&self, job: &Job) -> bool {
        while self.lacking() > 0 {
            match job.route.connect(job.clock).await {
                Ok(connection) => {
                    job.signs.connection_opened();
                    self.give_back(connection);
                }
                // A failure shows again, and is recorded, when a request needs one.
                Err(_) => return false,
            }
        }
        true
    }

    async fn keep_full(&self, job: &Job) {
        loop {
            self.taken.notified().await;
            self.fill(job).await;
        }
    }
}

/// Connections that each of `shards` shards keeps ready.
fn spares(arrival: &Arrival, shards: usize) -> usize {
    let rate = match arrival {
        Arrival::Open { rate, .. } => *rate,
        Arrival::OpenStages { stages, .. } => stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max),
        // The rate of a trace changes from one second to the next.
        Arrival::Trace { .. } => 100.0,
        Arrival::Closed { .. } | Arrival::ClosedStages { .. } => 0.0,
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates are neither negative nor huge")]
    let wanted = (rate * SPARES_S).ceil() as usize;
    let bound = arrival.concurrency().map_or(MOST_SPARES, |bound| bound as usize);
    wanted.clamp(1, MOST_SPARES.min(bound)).div_ceil(shards)
}

/// What one shard needs to carry out its part of an open loop.
struct Shard {
    ready: mpsc::UnboundedReceiver<Ready>,
    /// For requests under way on all shards together.
    slots: Option<Arc<Semaphore>>,
    exchanges: mpsc::Sender<Exchange>,
    spares: Arc<Spares>,
}

impl Shard {
    async fn run(mut self, job: &Arc<Job>, connected: std::sync::mpsc::Sender<()>) {
        let stop = job.stop.clone();
        stop.run_until_cancelled(self.spares.fill(job)).await;
        // The schedule's thread waits for it.
        let _ = connected.send(());
        drop(connected);

        let mut keeping = JoinSet::new();
        let (spares, keepers_job) = (Arc::clone(&self.spares), Arc::clone(job));
        keeping.spawn(async move { spares.keep_full(&keepers_job).await });
        let mut requests = JoinSet::new();
        while let Some(Some(ready)) = stop.run_until_cancelled(self.ready.recv()).await {
            let Some(slot) = stop.run_until_cancelled(self.slot(&ready, job)).await else { break };
            let mut sender = Sender::new(job, 0, &self.exchanges);
            let spares = Arc::clone(&self.spares);
            requests.spawn(async move {
                sender.connection = if sender.fresh_connections { None } else { spares.take() };
                let due = Due { due_ns: ready.due_ns, free_ns: slot.as_ref().and_then(|slot| slot.free_ns) };
                sender.converse(ready.number, ready.kind, due).await;
                if let Some(connection) = sender.connection.filter(|_| !sender.fresh_connections) {
                    spares.give_back(connection);
                }
            });
            // Ended tasks are let go as it goes, so that memory does not grow with the number of requests.
            while requests.try_join_next().is_some() {}
        }
        requests.join_all().await;
    }

    /// Waits until one more request may be under way.
    async fn slot(&self, ready: &Ready, job: &Job) -> Option<Slot> {
        let slots = Arc::clone(self.slots.as_ref()?);
        if let Ok(permit) = Arc::clone(&slots).try_acquire_owned() {
            return Some(Slot { _permit: permit, free_ns: None });
        }
        // Nobody closes the semaphore.
        let permit = slots.acquire_owned().await.ok()?;
        Some(Slot { _permit: permit, free_ns: Some(job.clock.now_ns().max(ready.due_ns)) })
    }
}

struct Slot {
    _permit: OwnedSemaphorePermit,
    /// When there was one, if not at once.
    free_ns: Option<u64>,
}
