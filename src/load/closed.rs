//! The closed loop: so many workers, each with one conversation under way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::exchange::Exchange;
use super::job::{Job, Limit, Part};
use super::sender::{Carried, Due, Sender};
use super::signs::Pulse;
use super::threads::Threads;
use crate::record::RequestKind;
use crate::spec::{Arrival, ConcurrencyStage, MethodAmount, Volume};

/// Connections opened at a time before the first request, by each shard.
const CONNECTING: usize = 64;
/// Pause of a worker that could not connect, so that a server which is down costs no storm of attempts.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Starts a shard for each sender of exchanges and deals the workers out to them.
pub(super) fn start(threads: &mut Threads, job: &Arc<Job>, exchanges: Vec<mpsc::Sender<Exchange>>, pulse: &mut Pulse) {
    let shards = exchanges.len();
    let workers = job.point.arrival.concurrency().unwrap_or(1);
    let shared = Arc::new(ClosedLoop::new(job, shards));
    for (shard, exchanges) in exchanges.into_iter().enumerate() {
        let (shared, job) = (Arc::clone(&shared), Arc::clone(job));
        let (asking, questions) = mpsc::unbounded_channel();
        pulse.shards.push(asking);
        threads.start_loop("load", async move {
            let workers = (0..workers).skip(shard).step_by(shards).collect();
            tokio::select! {
                () = shared.run(&job, workers, exchanges) => {}
                () = job.signs.answer(questions, job.clock) => {}
            }
        });
    }
}

/// What the shards of a closed loop share.
struct ClosedLoop {
    warmup: Arc<Part>,
    measure: OnceLock<Arc<Part>>,
    /// All shards have come so far.
    together: Barrier,
}

impl ClosedLoop {
    fn new(job: &Job, shards: usize) -> Self {
        let limit = Limit::Conversations(job.conversations.that_have(0, job.point.warmup_requests));
        let warmup = Part::new(RequestKind::Warmup, 0, 0, rounds_of(job), limit);
        Self { warmup: Arc::new(warmup), measure: OnceLock::new(), together: Barrier::new(shards) }
    }

    /// One shard's part: connections, warm-up, and when all shards' warm-up has ended, the measurement.
    async fn run(&self, job: &Arc<Job>, workers: Vec<u32>, exchanges: mpsc::Sender<Exchange>) {
        let senders = workers.into_iter().map(|number| Sender::new(job, number, &exchanges));
        let connect = |mut sender: Sender| async move {
            if !sender.fresh_connections {
                // A failure shows again, and is recorded, when the sender has a request to send.
                let _ = sender.connect().await;
            }
            sender
        };
        let senders = futures_util::stream::iter(senders).map(connect).buffer_unordered(CONNECTING).collect().await;
        drop(exchanges);
        self.together.wait().await;
        let senders = run_part(senders, &self.warmup, &[]).await;
        self.together.wait().await;
        let measure = self.measure.get_or_init(|| Arc::new(self.begin(job)));
        let stages = match &job.point.arrival {
            Arrival::ClosedStages { stages } => stages_until(measure.began_ns, stages),
            Arrival::Closed { .. } | Arrival::Open { .. } | Arrival::OpenStages { .. } | Arrival::Trace { .. } => {
                Vec::new()
            }
        };
        run_part(senders, measure, &stages).await;
    }

    fn begin(&self, job: &Job) -> Part {
        job.signs.measure_begins();
        let began_ns = job.clock.now_ns();
        let from = self.warmup.limit.conversations();
        let limit = match job.point.volume {
            Volume::Requests(requests) => {
                Limit::Conversations(from.saturating_add(job.conversations.that_have(from, requests)))
            }
            Volume::DurationS(duration) => {
                let length = Duration::try_from_secs_f64(duration).unwrap_or(Duration::MAX).as_nanos();
                Limit::Until { ns: began_ns.saturating_add(u64::try_from(length).unwrap_or(u64::MAX)) }
            }
        };
        Part::new(RequestKind::Measure, began_ns, from, rounds_of(job), limit)
    }
}

/// The workers, where the method gives each rounds of its own.
fn rounds_of(job: &Job) -> Option<u32> {
    let in_rounds = matches!(job.point.method?.defaults().amount, MethodAmount::Rounds { .. });
    job.point.arrival.concurrency().filter(|_| in_rounds)
}

/// Lets every sender work until the part is over, and gives them back: all its requests have ended then.
async fn run_part(senders: Vec<Sender>, part: &Arc<Part>, stages: &[StageUntil]) -> Vec<Sender> {
    let stages: Arc<[StageUntil]> = stages.into();
    let mut tasks = JoinSet::new();
    for sender in senders {
        let (part, stages) = (Arc::clone(part), Arc::clone(&stages));
        tasks.spawn(async move { work(sender, &part, &stages).await });
    }
    tasks.join_all().await
}

/// Carries out conversations until the part has no more or the load point is stopped.
async fn work(mut sender: Sender, part: &Part, stages: &[StageUntil]) -> Sender {
    let clock = sender.job.clock;
    let stop = sender.stop.clone();
    let mut due_ns = clock.now_ns();
    loop {
        let pause = pause_of(sender.number, clock.now_ns(), stages);
        if !pause.is_zero() {
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                break;
            }
            due_ns = clock.now_ns();
            continue;
        }
        // Before the request is taken and its clock starts: making a connection is not the server's TTFT.
        if !part.is_over(sender.number, clock) && !sender.fresh_connections && sender.connect().await.is_none() {
            break;
        }
        let Some(number) = part.take(sender.number, clock) else {
            if part.kind == RequestKind::Measure && part.is_over_for_all(clock) {
                sender.job.all_sent.cancel();
            }
            break;
        };
        match sender.converse(number, part.kind, Due { due_ns, free_ns: None }).await {
            Carried::Stopped => break,
            Carried::Ended { end_ns, unreachable } => {
                due_ns = end_ns;
                if unreachable {
                    stop.run_until_cancelled(sleep(RECONNECT_PAUSE)).await;
                }
            }
        }
    }
    sender
}

/// A stage of a closed loop and when it ends.
#[derive(Clone, Copy)]
struct StageUntil {
    concurrency: u32,
    until_ns: u64,
}

fn stages_until(mut began_ns: u64, stages: &[ConcurrencyStage]) -> Vec<StageUntil> {
    let mut found = Vec::new();
    for stage in stages {
        let length = Duration::try_from_secs_f64(stage.duration_s).unwrap_or(Duration::MAX).as_nanos();
        began_ns = began_ns.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        found.push(StageUntil { concurrency: stage.concurrency, until_ns: began_ns });
    }
    found
}

/// How long a worker has to wait until a stage has room for it; zero if it may work now.
fn pause_of(worker: u32, now_ns: u64, stages: &[StageUntil]) -> Duration {
    let left = stages.iter().skip_while(|stage| stage.until_ns <= now_ns);
    let waited = left.take_while(|stage| worker >= stage.concurrency).last();
    waited.map_or(Duration::ZERO, |stage| Duration::from_nanos(stage.until_ns - now_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_wait_for_a_stage_with_room_for_them() {
        let stage = |concurrency, duration_s| ConcurrencyStage { concurrency, duration_s };
        let stages = stages_until(1_000_000_000, &[stage(1, 1.0), stage(4, 2.0), stage(2, 1.0)]);
        let pause = |worker, now_s: u64| pause_of(worker, now_s * 1_000_000_000, &stages).as_secs();
        assert_eq!([pause(0, 1), pause(1, 1), pause(3, 1), pause(4, 1)], [0, 1, 1, 4]);
        assert_eq!([pause(3, 2), pause(3, 4), pause(1, 4), pause(3, 5)], [0, 1, 0, 0]);
    }
}
