//! Whether a server keeps what it computed for earlier prompts, as the manifest says.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::server::Running;
use super::{Job, Message};
use crate::base::Digest;
use crate::event::Event;
use crate::load::{self, LoadJob, RecordSink};
use crate::observe::{Observation, Sent};
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
/// Of the check's own short prompts, three of seven are repeats, and a chat template is a larger part.
const REPEATED: f64 = 0.2;

/// Warns when the server's answers say otherwise than the manifest. Says nothing when they do not tell.
pub(super) async fn check(job: &Job, index: usize, running: &Running, cancel: &CancellationToken) {
    let Some(expected) = running.reuses_prefixes(job) else { return };
    let plan = &job.prepared.plan;
    let Some((_, point)) = plan.points_of(index).find(|(_, point)| point.has_work()) else { return };
    let Some(seen) = seen(job, running, point, cancel).await else { return };
    let cell = plan.cells[point.cell].id.clone();
    if let Some(complaint) = seen.complaint(expected) {
        job.tell(Message::Event(Event::Warning { message: format!("{cell}: {complaint}"), cell: Some(cell) }));
    }
}

/// What prompts that were sent twice showed.
struct Seen {
    /// Median milliseconds of new prompts.
    first_ms: f64,
    /// And of the same prompts at once again.
    second_ms: f64,
    /// The share of the prompts' tokens that came out of a cache, by the server's own metrics.
    hit_share: Option<f64>,
}

impl Seen {
    /// A count is believed before a time, which a busy host may change.
    fn complaint(&self, expected: bool) -> Option<String> {
        let Self { first_ms, second_ms, hit_share } = self;
        let share = second_ms / first_ms;
        let is_on = hit_share.map_or(share < FASTER, |hits| hits >= REPEATED);
        let is_off = hit_share.map_or(share >= ALIKE, |hits| hits < REPEATED);
        let says = match expected {
            false if is_on => "is on although the manifest says off",
            true if is_off => "seems to be off although the manifest says on",
            _ => return None,
        };
        let counted = hit_share.map_or_else(String::new, |hits| {
            format!("; by its own metrics, the server took {:.0} % of these prompts' tokens from it", hits * 100.0)
        });
        Some(format!(
            "the prefix cache {says}: a prompt took {first_ms:.1} ms, the same again {second_ms:.1} ms{counted}"
        ))
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

/// `None` when any of the requests failed.
async fn seen(job: &Job, running: &Running, point: &Point, cancel: &CancellationToken) -> Option<Seen> {
    let folder = tempfile::tempdir().ok()?;
    let file = folder.path().join("requests.jsonl");
    let load = LoadJob {
        target: running.target(job, point.load.protocol).ok()?,
        point: one_by_one(&point.load),
        workload: Workload { prompts: prompts(job), due_ns: None },
        tokenizer: None,
    };
    let sink = RecordSink::create(&file).ok()?;
    let watch = running.watch(job, load.target.model.clone(), 0, folder.path().join("metrics.jsonl")).ok()?;
    let observation = Observation::start(watch).await;
    load::run(load, sink, |_| (), cancel.clone()).await.ok()?;
    let records = records(&file)?;
    let mut sent = Sent::default();
    for record in &records {
        sent.add(record);
    }
    let (server, _) = observation.finish(&sent).await;
    let times = milliseconds(&records)?;
    let (first, second): (Vec<_>, Vec<_>) = times.get(1..)?.chunks_exact(2).map(|pair| (pair[0], pair[1])).unzip();
    let hit_share = server.metrics.and_then(|metrics| metrics.prefix_hit_share);
    Some(Seen { first_ms: median(first)?, second_ms: median(second)?, hit_share })
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

/// In the order of sending.
fn records(file: &Path) -> Option<Vec<RequestRecord>> {
    let text = fs::read_to_string(file).ok()?;
    let mut records: Vec<RequestRecord> = text.lines().map(serde_json::from_str).collect::<Result<_, _>>().ok()?;
    records.sort_by_key(|record| record.request);
    Some(records)
}

fn milliseconds(records: &[RequestRecord]) -> Option<Vec<f64>> {
    let time = |record: &RequestRecord| {
        let nanoseconds = (record.end_ns - record.sent_ns) as f64;
        (record.status == RequestStatus::Ok).then_some(nanoseconds / 1e6)
    };
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
        let complaint =
            |expected, second_ms, hit_share| Seen { first_ms: 100.0, second_ms, hit_share }.complaint(expected);
        assert!(complaint(false, 20.0, None).unwrap().contains("is on although the manifest says off"));
        assert!(complaint(true, 98.0, None).unwrap().contains("seems to be off although the manifest says on"));
        for (expected, second) in [(false, 98.0), (true, 20.0), (false, 70.0), (true, 70.0)] {
            assert_eq!(complaint(expected, second, None), None, "{expected} {second}");
        }
        // What the server counted is not outweighed by a delay.
        assert!(complaint(false, 98.0, Some(0.42)).unwrap().contains("took 42 % of these prompts' tokens"));
        assert!(complaint(true, 20.0, Some(0.01)).unwrap().contains("seems to be off"));
        for (expected, second, hits) in [(false, 20.0, 0.01), (true, 98.0, 0.42)] {
            assert_eq!(complaint(expected, second, Some(hits)), None, "{expected} {second} {hits}");
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
