//! Continuous batching: one thread owns the model, and sequences join and leave the batch between two steps.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use candle_core::Tensor;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;

use crate::engine::metrics::Metrics;
use crate::engine::model::{Cache, Model, Segment};
use crate::engine::sample::{Sampler, Sampling};
use crate::engine::text::{TextCodec, TextStream};

/// Prompt tokens of one sequence in one step. A longer prompt takes several, so that the others' tokens do not
/// wait for all of it.
const PREFILL_TOKENS: usize = 512;

/// What a client asks for, checked already.
#[derive(Clone, Debug)]
pub(crate) struct Decoding {
    pub(crate) max_tokens: usize,
    /// No end-of-sequence token is chosen before this many.
    pub(crate) min_tokens: usize,
    pub(crate) sampling: Sampling,
    /// Token ids that end the answer; empty to always run to `max_tokens`.
    pub(crate) eos: Vec<u32>,
    pub(crate) stop: Vec<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Finish {
    /// An end-of-sequence token, which is counted, or a stop string.
    Stop,
    /// `max_tokens` were generated.
    Length,
}

/// One generated token. The text is empty when the token is special or only a part of a character.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) text: String,
    pub(crate) finish: Option<Finish>,
}

/// One chunk for each token. Unbounded, so that a slow client cannot stop the batch; `max_tokens` bounds it.
pub(crate) type ChunkSender = UnboundedSender<Result<Chunk, String>>;

pub(crate) struct Job {
    pub(crate) prompt: Vec<u32>,
    pub(crate) decoding: Decoding,
    pub(crate) chunks: ChunkSender,
    /// When it was put into the queue.
    pub(crate) asked: Instant,
}

struct Sequence {
    job: Job,
    cache: Cache,
    sampler: Sampler,
    text: TextStream,
    /// Tokens that the cache does not hold yet: the rest of the prompt, or the last token.
    pending: Vec<u32>,
    /// How many of them the next step takes.
    next: usize,
    generated: usize,
    finished: bool,
}

pub(crate) struct Scheduler {
    pub(crate) model: Model,
    pub(crate) codec: Arc<TextCodec>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) max_batch_size: usize,
    pub(crate) pool: rayon::ThreadPool,
}

impl Scheduler {
    /// Serves until `shutdown`, or until no one can send a job any more.
    pub(crate) fn run(&self, mut jobs: UnboundedReceiver<Job>, shutdown: &CancellationToken) {
        let mut waiting = VecDeque::new();
        let mut batch = Vec::new();
        while !shutdown.is_cancelled() {
            if batch.is_empty() && waiting.is_empty() {
                self.count(&batch, &waiting);
                let Some(job) = jobs.blocking_recv() else { return };
                waiting.push_back(job);
            }
            while let Ok(job) = jobs.try_recv() {
                waiting.push_back(job);
            }
            self.forget_abandoned(&mut batch, &mut waiting);
            while batch.len() < self.max_batch_size
                && let Some(job) = waiting.pop_front()
            {
                batch.push(self.start(job));
            }
            self.count(&batch, &waiting);
            if !batch.is_empty() {
                self.step(&mut batch);
            }
        }
    }

    fn start(&self, job: Job) -> Sequence {
        Metrics::add(&self.metrics.prompt_tokens, job.prompt.len());
        self.metrics.queue_time.observe(job.asked.elapsed());
        Sequence {
            cache: self.model.new_cache(),
            sampler: Sampler::new(job.decoding.sampling),
            text: TextStream::new(job.decoding.stop.clone()),
            pending: job.prompt.clone(),
            next: 0,
            generated: 0,
            finished: false,
            job,
        }
    }

    /// A client that hung up frees its place at the next step.
    fn forget_abandoned(&self, batch: &mut Vec<Sequence>, waiting: &mut VecDeque<Job>) {
        let before = batch.len() + waiting.len();
        batch.retain(|sequence| !sequence.job.chunks.is_closed());
        waiting.retain(|job| !job.chunks.is_closed());
        Metrics::add(&self.metrics.abandoned, before - batch.len() - waiting.len());
    }

    fn step(&self, batch: &mut Vec<Sequence>) {
        let logits = self.pool.install(|| {
            let mut segments: Vec<Segment> = batch.iter_mut().map(Sequence::segment).collect();
            self.model.forward(&mut segments).and_then(|logits| rows(&logits))
        });
        Metrics::add(&self.metrics.steps, 1);
        match logits {
            Ok(rows) => {
                for (sequence, mut logits) in batch.iter_mut().zip(rows) {
                    sequence.advance(&mut logits, &self.codec, &self.metrics);
                }
            }
            Err(error) => {
                for sequence in batch.iter_mut() {
                    sequence.finished = true;
                    // The client may be gone; there is no one else to tell.
                    let _ = sequence.job.chunks.send(Err(format!("the model cannot compute: {error}")));
                }
            }
        }
        batch.retain(|sequence| !sequence.finished);
    }

    fn count(&self, batch: &[Sequence], waiting: &VecDeque<Job>) {
        Metrics::set(&self.metrics.running, batch.len());
        Metrics::set(&self.metrics.waiting, waiting.len());
    }
}

impl Sequence {
    fn segment(&mut self) -> Segment<'_> {
        self.next = self.pending.len().min(PREFILL_TOKENS);
        Segment { tokens: &self.pending[..self.next], cache: &mut self.cache }
    }

    fn advance(&mut self, logits: &mut [f32], codec: &TextCodec, metrics: &Metrics) {
        self.pending.drain(..self.next);
        if !self.pending.is_empty() {
            return;
        }
        let decoding = &self.job.decoding;
        let banned = if self.generated < decoding.min_tokens { decoding.eos.as_slice() } else { &[] };
        let token = self.sampler.choose(logits, banned);
        self.pending.push(token);
        self.generated += 1;
        if self.generated == 1 {
            metrics.time_to_first_token.observe(self.job.asked.elapsed());
        }
        Metrics::add(&metrics.generation_tokens, 1);

        let is_eos = decoding.eos.contains(&token);
        let mut text = if is_eos { String::new() } else { self.text.push(codec.bytes_of(token)) };
        let finish = if is_eos || self.text.is_stopped() {
            Some(Finish::Stop)
        } else {
            (self.generated >= decoding.max_tokens).then_some(Finish::Length)
        };
        if finish.is_some() {
            text.push_str(&self.text.finish());
            self.finished = true;
            Metrics::add(&metrics.finished, 1);
        }
        // A failure means that the client is gone, which the next step notices.
        let _ = self.job.chunks.send(Ok(Chunk { text, finish }));
    }
}

fn rows(logits: &Tensor) -> candle_core::Result<Vec<Vec<f32>>> {
    logits.to_vec2()
}
