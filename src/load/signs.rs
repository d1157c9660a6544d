//! What the client can tell of itself while it measures.

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::{self, available_parallelism};
use std::time::{Duration, Instant};

use procfs::process::Process;
use rustix::thread::set_current_timer_slack;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::exchange::Clock;
use super::socket_queue::Seen;
use crate::record::ClientFacts;

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

    /// The share of the host's cores, 1 is all of them, that this process used since.
    fn share_until_now(&self) -> Option<f64> {
        let now = Self::take()?;
        let cores = available_parallelism().ok()?.get() as f64;
        let busy_s = now.ticks.saturating_sub(self.ticks) as f64 / procfs::ticks_per_second() as f64;
        let window_s = (now.at - self.at).as_secs_f64();
        (window_s > 0.0).then(|| busy_s / window_s / cores)
    }
}

/// What is known of the client while a load point goes on.
#[derive(Default)]
pub(super) struct Signs {
    measure_began: OnceLock<Option<CpuReading>>,
    delays_ns: Mutex<Vec<u64>>,
    connections: AtomicU64,
    received: AtomicU64,
    unread: OnceLock<Seen>,
}

impl Signs {
    /// The first measured request is about to be sent.
    pub(super) fn measure_begins(&self) {
        self.measure_began.get_or_init(CpuReading::take);
    }

    pub(super) fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes of an answer.
    pub(super) fn received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was seen of the sockets, when no request is under way any more.
    pub(super) fn unread(&self, seen: Seen) {
        self.unread.get_or_init(|| seen);
    }

    /// At the end of the load point.
    pub(super) fn facts(&self, clock: Clock) -> ClientFacts {
        let mut delays_ns = self.delays_ns.lock().unwrap_or_else(PoisonError::into_inner).clone();
        delays_ns.sort_unstable();
        let last = delays_ns.len().checked_sub(1);
        let delay_ms = |per_mille: usize| last.map(|last| delays_ns[last * per_mille / 1000] as f64 / 1e6);
        ClientFacts {
            cpu_share: self.measure_began.get().and_then(|began| began.as_ref()?.share_until_now()),
            poll_delay_ms_p99: delay_ms(990),
            poll_delay_ms_p99_9: delay_ms(999),
            began_monotonic_ns: clock.began_monotonic_ns(),
            socket_queue: self.unread.get().and_then(|seen| seen.facts(self.received.load(Ordering::Relaxed))),
            connections: Some(self.connections.load(Ordering::Relaxed)),
            certificate: None,
        }
    }

    /// A shard's side of [`Pulse`]. Ends with the questions.
    pub(super) async fn answer(&self, mut questions: mpsc::UnboundedReceiver<u64>, clock: Clock) {
        while let Some(asked_ns) = questions.recv().await {
            let delay_ns = clock.now_ns().saturating_sub(asked_ns);
            self.delays_ns.lock().unwrap_or_else(PoisonError::into_inner).push(delay_ns);
        }
    }
}

/// Asks every shard again and again for a sign of life. From when the question was due, how long it takes to give it is
/// how long a chunk that arrived at that moment would have waited for its time stamp: also when nothing of the client
/// came to run, not even this.
pub(super) struct Pulse {
    pub(super) clock: Clock,
    pub(super) shards: Vec<mpsc::UnboundedSender<u64>>,
}

impl Pulse {
    /// Between two questions.
    const PAUSE: Duration = Duration::from_millis(5);

    /// Asks until `end`. Blocks: runs on a thread of its own.
    pub(super) fn ask(&self, end: &CancellationToken) {
        // Without it, the kernel may wake this 50 us late, which is no delay of the event loops. Refused, it still works.
        let _ = set_current_timer_slack(NonZero::new(1));
        let pause_ns = u64::try_from(Self::PAUSE.as_nanos()).expect("milliseconds are few nanoseconds");
        let mut due_ns = self.clock.now_ns();
        while !end.is_cancelled() {
            thread::sleep(Duration::from_nanos(due_ns.saturating_sub(self.clock.now_ns())));
            for shard in &self.shards {
                // A shard that has ended has nothing to say.
                let _ = shard.send(due_ns);
            }
            due_ns += pause_ns;
        }
    }
}
