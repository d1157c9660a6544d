//! Counters that the model thread writes and `/metrics` shows.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

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
        text
    }
}
