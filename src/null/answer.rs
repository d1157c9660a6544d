use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;

use super::ask::{Chunking, Chunks};
use super::metronome::{Metronome, Wait, now_ns};
use super::truth::Truth;
use crate::spec::Protocol;

/// What one serving thread has.
pub(super) struct Shard {
    pub(super) pace: Pace,
    pub(super) chunking: Chunking,
    pub(super) metronome: Arc<Metronome>,
    pub(super) truth: Option<Sender<Truth>>,
    /// Requests so far.
    pub(super) requests: AtomicU64,
}

/// The timetable, counted from a request's arrival.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_field_names, reason = "units belong to names")]
pub(super) struct Pace {
    /// Until the first chunk, at least.
    pub(super) ttft_ns: u64,
    /// How much more it is at most.
    pub(super) ttft_spread_ns: u64,
    /// From one chunk to the next.
    pub(super) itl_ns: u64,
}

impl Pace {
    /// When the first chunk of request `number` is due.
    fn first_due_ns(self, arrival_ns: u64, number: u64) -> u64 {
        // Multiples of the golden ratio fill the spread evenly, however many there are.
        const GOLDEN_RATIO: f64 = 0.618_033_988_749_894_9;
        let share = (number as f64 * GOLDEN_RATIO).fract();
        let more_ns = Duration::from_nanos(self.ttft_spread_ns).mul_f64(share).as_nanos();
        let ttft_ns = self.ttft_ns.saturating_add(u64::try_from(more_ns).unwrap_or(u64::MAX));
        arrival_ns.saturating_add(ttft_ns)
    }
}

/// One request's way along the timetable. Tells the truth about it when dropped, also early, when the client went away.
pub(super) struct Course {
    shard: Arc<Shard>,
    wait: Wait,
    /// When the first chunk is due.
    first_due_ns: u64,
    truth: Truth,
}

impl Course {
    /// Of a request that is complete now.
    pub(super) fn start(shard: &Arc<Shard>, protocol: Protocol, client_id: String) -> Self {
        let arrival_ns = now_ns();
        let first_due_ns = shard.pace.first_due_ns(arrival_ns, shard.requests.fetch_add(1, Ordering::Relaxed));
        let truth = Truth { client_id, protocol, arrival_ns, chunks_ns: Vec::new(), complete: false };
        Self { shard: Arc::clone(shard), wait: Wait::default(), first_due_ns, truth }
    }

    /// The time once chunk `index` is due.
    fn poll_due(&mut self, index: u32, context: &Context<'_>) -> Poll<u64> {
        let due = self.first_due_ns.saturating_add(self.shard.pace.itl_ns.saturating_mul(index.into()));
        self.shard.metronome.poll_until(due, &mut self.wait, context)
    }

    fn sent(&mut self, now_ns: u64) {
        if self.shard.truth.is_some() {
            self.truth.chunks_ns.push(now_ns);
        }
    }
}

impl Drop for Course {
    fn drop(&mut self) {
        if let Some(sender) = &self.shard.truth {
            let truth = &mut self.truth;
            let (client_id, chunks_ns) = (mem::take(&mut truth.client_id), mem::take(&mut truth.chunks_ns));
            // The writer is gone only when it could not write, which it reports itself.
            let _ = sender.send(Truth { client_id, chunks_ns, ..self.truth });
        }
    }
}

/// Encoded chunks, each when it is due.
pub(super) struct Answer {
    course: Course,
    chunks: Chunks,
    /// The next chunk.
    index: u32,
    /// A chunk was just handed over and is not yet written.
    unwritten: bool,
}

impl Answer {
    pub(super) fn new(course: Course, chunks: Chunks) -> Self {
        Self { course, chunks, index: 0, unwritten: false }
    }
}

impl Stream for Answer {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let index = self.index;
        if index == self.chunks.count {
            let tail = mem::take(&mut self.chunks.tail);
            return Poll::Ready((!tail.is_empty()).then_some(tail));
        }
        let due = self.chunks.unsent + index;
        let now = ready!(self.course.poll_due(due, context));
        if mem::take(&mut self.unwritten) {
            // A chunk that is due by now would travel in the same write as the one before it.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.index += 1;
        self.unwritten = true;
        self.course.sent(now);
        let last = self.index == self.chunks.count;
        self.course.truth.complete = last;
        Poll::Ready(Some(self.chunks.piece(index)))
    }
}
