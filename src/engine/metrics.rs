//! Counters that the model thread writes and `/metrics` shows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the histograms' buckets, in seconds.
const BOUNDS_S: [f64; 16] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];

/// Counts since the server started; `running` and `waiting` are of now.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) running: AtomicU64,
    pub(crate) waiting: AtomicU64,
    pub(crate) prompt_tokens: AtomicU64,
    pub(crate) generation_tokens: AtomicU64,
    pub(crate) steps: AtomicU64,
    pub(crate) finished: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    /// From the request's arrival at the queue to its place in the batch.
    pub(crate) queue_time: Histogram,
    /// From the same moment to its first token.
    pub(crate) time_to_first_token: Histogram,
}

/// How long something took, by bucket.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// By bound; the last holds what is above all of them.
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS_S.len());
        Metrics::add(&self.buckets[bucket], 1);
        self.sum_us.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        let bounds = BOUNDS_S.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut count = 0;
        // Writing to a string cannot fail.
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} histogram\n");
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += Metrics::read(bucket);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum_s = Metrics::read(&self.sum_us) as f64 / 1e6;
        let _ = write!(text, "{name}_sum {sum_s}\n{name}_count {count}\n");
    }
}

impl Metrics {
    pub(crate) fn add(counter: &AtomicU64, count: usize) {
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn set(gauge: &AtomicU64, value: usize) {
        gauge.store(value as u64, Ordering::Relaxed);
    }

    pub(crate) fn read(counter: &AtomicU64) -> u64 {
        counter.load(Ordering::Relaxed)
    }

    /// The Prometheus text format.
    pub(crate) fn to_prometheus(&self) -> String {
        let rows = [
            ("requests_running", "gauge", "Requests in the batch.", &self.running),
            ("requests_waiting", "gauge", "Requests in the queue.", &self.waiting),
            ("prompt_tokens_total", "counter", "Prompt tokens computed.", &self.prompt_tokens),
            ("generation_tokens_total", "counter", "Tokens generated.", &self.generation_tokens),
            ("steps_total", "counter", "Forward passes.", &self.steps),
            ("requests_finished_total", "counter", "Requests answered whole.", &self.finished),
            ("requests_abandoned_total", "counter", "Requests whose client hung up.", &self.abandoned),
        ];
        let mut text = String::new();
        for (name, kind, help, value) in rows {
            let name = format!("benchrun_engine_{name}");
            let value = Self::read(value);
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
        }
        let queue = ("queue_time_seconds", "From arrival to a place in the batch.", &self.queue_time);
        let ttft = ("time_to_first_token_seconds", "From arrival to the first token.", &self.time_to_first_token);
        for (name, help, histogram) in [queue, ttft] {
            histogram.write(&mut text, &format!("benchrun_engine_{name}"), help);
        }
        text
    }
}
