//! Whether a server keeps what it computed for earlier prompts, as the manifest says.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::server::Running;
use super::{Job, Message};
use crate::base::{CellId, Digest};
use crate::event::Event;
use crate::load::{self, LoadJob, RecordSink};
use crate::plan::Point;
use crate::record::{RequestRecord, RequestStatus, ServerMetrics};
use crate::spec::{Arrival, LoadPoint, Output, OutputMode, OutputTokens, Volume};
use crate::workload::{Prompt, Workload};

/// Prompts that are sent twice each: the median of three leaves one out that something else delayed.
const PAIRS: usize = 3;
/// Each is 64 digits, some 40 tokens: together enough to take time, and few enough for a short context.
const WORDS: usize = 10;
/// The second answer takes less than this share of the first one's time: it was not computed anew.
const FASTER: f64 = 0.6;
/// It takes at least this share: it was.
const ALIKE: f64 = 0.85;

/// A larger share of the prompts' tokens out of a cache is no token of a chat template that all have.
const STRAY: f64 = 0.05;

/// Warns when the server's answers say otherwise than the manifest. Says nothing when they do not tell.
pub(super) async fn check(job: &Job, index: usize, running: &Running, cancel: &CancellationToken) {
    let Some(expected) = running.reuses_prefixes(job) else { return };
    let plan = &job.prepared.plan;
    let Some((_, point)) = plan.points_of(index).find(|(_, point)| point.has_work()) else { return };
    let Some((first, second)) = times(job, running, point, cancel).await else { return };
    let cell = plan.cells[point.cell].id.clone();
    if let Some(message) = complaint(&cell, expected, first, second) {
        job.tell(Message::Event(Event::Warning { cell: Some(cell), message }));
    }
}

/// A complaint about what a server says of itself: how much of the prompts it took from its cache while it was measured.
pub(super) fn complaint_of_metrics(expected: Option<bool>, metrics: Option<&ServerMetrics>) -> Option<String> {
    let share = metrics?.prefix_hit_share.filter(|share| expected == Some(false) && *share > STRAY)?;
    let percent = share * 100.0;
    Some(format!(
        "the prefix cache is on although the manifest says off: by its own metrics, the server took {percent:.0} % of the prompts' tokens from it"
    ))
}

fn complaint(cell: &CellId, expected: bool, first: f64, second: f64) -> Option<String> {
    let took = format!("a prompt took {first:.1} ms, the same again {second:.1} ms");
    let share = second / first;
    if !expected && share < FASTER {
        return Some(format!("{cell}: the prefix cache is on although the manifest says off: {took}"));
    }
    (expected && share >= ALIKE)
        .then(|| format!("{cell}: the prefix cache seems to be off although the manifest says on: {took}"))
}

/// The median milliseconds of new prompts and of the same prompts at once again; `None` when any of them failed.
async fn times(job: &Job, running: &Running, point: &Point, cancel: &CancellationToken) -> Option<(f64, f64)> {
    let folder = tempfile::tempdir().ok()?;
    let file = folder.path().join("requests.jsonl");
    let load = LoadJob {
        target: running.target(job, point.load.protocol).ok()?,
        point: one_by_one(&point.load),
        workload: Workload { prompts: prompts(job), due_ns: None },
        tokenizer: None,
    };
    let sink = RecordSink::create(&file).ok()?;
    load::run(load, sink, |_| (), cancel.clone()).await.ok()?;
    let times = milliseconds(&file)?;
    let (first, second): (Vec<_>, Vec<_>) = times.get(1..)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
    Some((median(first)?, median(second)?))
}

fn one_by_one(load: &LoadPoint) -> LoadPoint {
    LoadPoint {
        output: Output { mode: OutputMode::AtMost, tokens: OutputTokens::fixed(1) },
        arrival: Arrival::Closed { concurrency: 1 },
        volume: Volume::Requests(1 + 2 * PAIRS as u64),
        drain_s: None,
        warmup_requests: 0,
        ..load.clone()
    }
}

/// Texts that no run has sent before: one, as the first request of a server is slow for other reasons, then pairs.
fn prompts(job: &Job) -> Arc<[Prompt]> {
    let word = |number, index| Digest::of(format!("{} {number} {index}", job.run.id).as_bytes());
    let text = |number| (0..WORDS).map(|index| word(number, index)).collect::<Vec<_>>().join(" ");
    let numbers = std::iter::once(0).chain((1..=PAIRS).flat_map(|pair| [pair, pair]));
    numbers.map(|number| Prompt::of_text(text(number), None)).collect()
}

fn milliseconds(records: &Path) -> Option<Vec<f64>> {
    let text = fs::read_to_string(records).ok()?;
    let mut records: Vec<RequestRecord> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    let time = |record: &RequestRecord| {
        let nanoseconds = (record.end_ns - record.sent_ns) as f64;
        (record.status == RequestStatus::Ok).then_some(nanoseconds / 1e6)
    };
    records.sort_by_key(|record| record.request);
    records.iter().map(time).collect()
}

fn median(mut times: Vec<f64>) -> Option<f64> {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_difference_is_a_complaint() {
        let cell = CellId::new("a/b".to_owned());
        let complaint = |expected, second| complaint(&cell, expected, 100.0, second);
        assert!(complaint(false, 20.0).unwrap().contains("is on although the manifest says off"));
        assert!(complaint(true, 98.0).unwrap().contains("seems to be off although the manifest says on"));
        for (expected, second) in [(false, 98.0), (true, 20.0), (false, 70.0), (true, 70.0)] {
            assert_eq!(complaint(expected, second), None, "{expected} {second}");
        }
        let says = |expected, hits| {
            let text = format!(r#"{{"window": "all", "prefix_hit_share": {hits}, "checks": []}}"#);
            let metrics: ServerMetrics = serde_json::from_str(&text).unwrap();
            complaint_of_metrics(expected, Some(&metrics))
        };
        assert!(says(Some(false), "0.4").unwrap().contains("took 40 % of the prompts' tokens"));
        for (expected, hits) in [(Some(false), "0.01"), (Some(false), "null"), (Some(true), "0.4"), (None, "0.4")] {
            assert_eq!(says(expected, hits), None, "{expected:?} {hits}");
        }
        assert_eq!(median(vec![3.0, 1.0, 9.0]), Some(3.0));
    }
}
