//! Figures as LMDeploy's benchmark scripts computed them, flaws included. docs/lmdeploy-methods.md says what each of them
//! is worth; the correct ones are in [`super::Summary`].

use std::collections::HashMap;

use super::percentile::mean;
use crate::record::{RequestKind, RequestRecord, RequestStatus};
use crate::spec::Method;

/// What a script of 2023 keeps of one request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScriptRequest {
    /// Seconds, rounded to milliseconds.
    pub first_token_s: f64,
    /// Seconds between later tokens, rounded to milliseconds; of tokens that came together all but the first have 0.
    pub later_tokens_s: Vec<f64>,
    pub input_tokens: u64,
    pub output_tokens: u64,
}

/// The figures of `profile_serving.py`, `profile_restful_api.py` to v0.6.1, `profile_generation.py` and
/// `profile_throughput.py` to v0.6.5.
#[derive(Clone, Debug, PartialEq)]
pub struct ScriptFigures {
    /// Requests asked for, whether they were answered or not.
    pub requests: u64,
    /// Seconds to the first token: mean, minimum and maximum; `None` of answers that did not stream.
    pub first_token_s: Option<[f64; 3]>,
    /// Seconds between tokens, zeros included: the values at positions `int(p × count)` for p of 0.5, 0.75, 0.95, 0.99.
    pub later_tokens_s: Option<[f64; 4]>,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub elapsed_s: f64,
}

impl ScriptFigures {
    /// The figures of a load point of `method` out of its records; `None` when nothing was answered.
    #[must_use]
    pub fn of(method: Method, records: &[RequestRecord]) -> Option<Self> {
        let measured = || records.iter().filter(|record| record.kind == RequestKind::Measure);
        let streamed = measured().any(|record| record.first_token_ns.is_some());
        let of_tis = matches!(method, Method::Tis | Method::TisA1);
        let lost = if of_tis { lost(measured()) } else { HashMap::new() };
        let survives = |record: &&RequestRecord| lost.get(&record.worker).is_none_or(|last| record.request > *last);
        let kept: Vec<ScriptRequest> =
            measured().filter(survives).filter_map(|record| kept(method, record, streamed)).collect();
        let elapsed_s = elapsed_s(measured())?;
        let figures = Self::aggregate(measured().count() as u64, &kept, elapsed_s)?;
        Some(Self { first_token_s: figures.first_token_s.filter(|_| streamed), ..figures })
    }

    /// Formulas: means are plain ones over the rounded values; nothing is interpolated. `None` without requests.
    #[must_use]
    pub fn aggregate(requests: u64, kept: &[ScriptRequest], elapsed_s: f64) -> Option<Self> {
        let first: Vec<f64> = kept.iter().map(|request| request.first_token_s).collect();
        let least = first.iter().copied().reduce(f64::min)?;
        let most = first.iter().copied().reduce(f64::max)?;
        let mut later: Vec<f64> = kept.iter().flat_map(|request| request.later_tokens_s.iter().copied()).collect();
        later.sort_by(f64::total_cmp);
        Some(Self {
            requests,
            first_token_s: Some([mean(&first)?, least, most]),
            later_tokens_s: (!later.is_empty()).then(|| [0.5, 0.75, 0.95, 0.99].map(|p| milliseconds(at(&later, p)))),
            input_tokens: kept.iter().map(|request| request.input_tokens).sum(),
            output_tokens: kept.iter().map(|request| request.output_tokens).sum(),
            elapsed_s,
        })
    }

    /// Requests asked for / elapsed time.
    #[must_use]
    pub fn requests_per_s(&self) -> f64 {
        self.requests as f64 / self.elapsed_s
    }

    /// Output tokens / elapsed time.
    #[must_use]
    pub fn output_tokens_per_s(&self) -> f64 {
        self.output_tokens as f64 / self.elapsed_s
    }

    /// Input and output tokens / elapsed time.
    #[must_use]
    pub fn total_tokens_per_s(&self) -> f64 {
        (self.input_tokens + self.output_tokens) as f64 / self.elapsed_s
    }
}

/// Seconds rounded to milliseconds as numpy does it: `rint(seconds × 1000) / 1000`, ties to even.
#[must_use]
pub fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round_ties_even() / 1000.0
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Python's int() of a number from 0")]
fn at(sorted: &[f64], share: f64) -> f64 {
    sorted[(share * sorted.len() as f64) as usize]
}

/// What the script keeps of a request; `None` for one that nothing came back of. Of an error that came back it keeps as
/// much as of an answer.
fn kept(method: Method, record: &RequestRecord, streamed: bool) -> Option<ScriptRequest> {
    let first_response_ns = record.first_response_ns.filter(|_| record.status != RequestStatus::CutOff)?;
    let since_sent = |at_ns: u64| at_ns.saturating_sub(record.sent_ns) as f64 / 1e9;
    let asked = record.output_tokens_asked.unwrap_or_default();
    let input_tokens = u64::from(record.input_tokens_sent.unwrap_or_default());
    let slots = match method {
        Method::Tis | Method::TisA1 | Method::Api | Method::ApiA1 | Method::Serving => {
            // The first piece of the stream, which on a server of that time says no more than who speaks.
            let first_ns = if streamed { first_response_ns } else { record.end_ns };
            let output_tokens = match method {
                Method::Tis | Method::TisA1 => record.output_tokens.unwrap_or_default(),
                _ => asked,
            };
            return Some(ScriptRequest {
                first_token_s: milliseconds(since_sent(first_ns)),
                later_tokens_s: Vec::new(),
                input_tokens,
                output_tokens: u64::from(output_tokens),
            });
        }
        Method::Static | Method::StaticA1 => asked as usize,
        Method::Throughput => asked as usize + 1,
    };
    let ticks: Vec<(usize, f64)> = (1..).zip(record.chunk_ns.iter().map(|&at_ns| since_sent(at_ns))).collect();
    let mut slots = token_slots(&ticks, slots);
    let output_tokens = match method {
        Method::Throughput => record.output_tokens.unwrap_or(asked),
        _ => asked,
    };
    let later_tokens_s = slots.split_off(slots.len().min(1));
    Some(ScriptRequest {
        first_token_s: slots.first().copied().unwrap_or_default(),
        later_tokens_s,
        input_tokens,
        output_tokens: u64::from(output_tokens),
    })
}

/// By worker, the last request whose answer ended the script's thread: one that failed, or that had neither as many tokens
/// as were asked for nor one more. All that the thread had measured by then is lost; what other threads did in its place
/// is not.
fn lost<'r>(measured: impl Iterator<Item = &'r RequestRecord>) -> HashMap<u32, u64> {
    let ends_its_thread = |record: &&RequestRecord| {
        let asked = record.output_tokens_asked.unwrap_or_default();
        let other_length = !(asked..=asked.saturating_add(1)).contains(&record.output_tokens.unwrap_or_default());
        // No time is up for the script.
        record.status != RequestStatus::CutOff
            && (other_length || record.error.as_ref().is_some_and(|error| error.kind != "length"))
    };
    let mut last = HashMap::new();
    for record in measured.filter(ends_its_thread) {
        let request = last.entry(record.worker).or_insert(record.request);
        *request = record.request.max(*request);
    }
    last
}

/// A latency for each of `slots` tokens out of an engine's ticks: how many tokens there were, and seconds since the start.
/// The time of a tick goes to the first of its tokens, the others have 0. The time of a tick without a new token is lost.
#[must_use]
pub fn token_slots(ticks: &[(usize, f64)], slots: usize) -> Vec<f64> {
    let mut latencies = vec![0.0; slots];
    let (mut known, mut before_s) = (0, 0.0);
    for &(tokens, now_s) in ticks {
        if tokens != known {
            if let Some(slot) = latencies.get_mut(known) {
                *slot = milliseconds(now_s - before_s);
            }
            known = tokens;
        }
        before_s = now_s;
    }
    latencies
}

/// From the first measured request to the end of the last one.
fn elapsed_s<'r>(measured: impl Iterator<Item = &'r RequestRecord> + Clone) -> Option<f64> {
    let began_ns = measured.clone().map(|record| record.due_ns).min()?;
    let ended_ns = measured.map(|record| record.end_ns).max()?;
    (ended_ns > began_ns).then(|| (ended_ns - began_ns) as f64 / 1e9)
}

/// The figures of `profile_restful_api.py` since v0.6.2, as far as its file has them. Means of nothing are 0 there.
#[derive(Clone, Debug, PartialEq)]
pub struct ServingFigures {
    pub completed: u64,
    pub input_tokens: u64,
    /// As many as were asked for.
    pub output_tokens: u64,
    pub duration_s: f64,
    pub e2e_ms_mean: f64,
    pub ttft_ms_mean: f64,
    /// (E2E - TTFT) / (tokens asked for - 1)
    pub tpot_ms_mean: f64,
    /// Of the gaps between pieces with text.
    pub itl_ms_mean: f64,
}

impl ServingFigures {
    /// The figures of a load point out of its records; `None` when nothing was sent.
    #[must_use]
    pub fn of(records: &[RequestRecord]) -> Option<Self> {
        let measured = || records.iter().filter(|record| record.kind == RequestKind::Measure);
        let completed: Vec<&RequestRecord> = measured().filter(|record| is_success(record)).collect();
        let since_sent = |record: &RequestRecord, at_ns: u64| at_ns.saturating_sub(record.sent_ns) as f64 / 1e6;
        let e2e = |record: &RequestRecord| since_sent(record, record.end_ns);
        // An answer that does not stream is all there at once.
        let first_ns = |record: &RequestRecord| {
            record.first_token_ns.or((!record.output_text.is_empty()).then_some(record.end_ns))
        };
        let ttft = |record: &RequestRecord| first_ns(record).map_or(0.0, |at_ns| since_sent(record, at_ns));
        let asked = |record: &RequestRecord| record.output_tokens_asked.unwrap_or_default();
        let tpot = |record: &RequestRecord| (e2e(record) - ttft(record)) / f64::from(asked(record) - 1);
        let gaps = |record: &RequestRecord| -> Vec<f64> {
            record.chunk_ns.array_windows().map(|[from, to]| to.saturating_sub(*from) as f64 / 1e6).collect()
        };
        let mean_of = |values: Vec<f64>| mean(&values).unwrap_or_default();
        Some(Self {
            completed: completed.len() as u64,
            input_tokens: completed.iter().map(|it| u64::from(it.input_tokens_sent.unwrap_or_default())).sum(),
            output_tokens: completed.iter().map(|it| u64::from(asked(it))).sum(),
            duration_s: elapsed_s(measured())?,
            e2e_ms_mean: mean_of(completed.iter().map(|it| e2e(it)).collect()),
            ttft_ms_mean: mean_of(completed.iter().map(|it| ttft(it)).collect()),
            tpot_ms_mean: mean_of(completed.iter().filter(|it| asked(it) > 1).map(|it| tpot(it)).collect()),
            itl_ms_mean: mean_of(completed.iter().flat_map(|it| gaps(it)).collect()),
        })
    }
}

/// The script looks at no server's count.
fn is_success(record: &RequestRecord) -> bool {
    record.status == RequestStatus::Ok
        || record.error.as_ref().is_some_and(|error| ["length", "usage"].contains(&error.kind.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::fixture::{answered, ended, streamed, warmup};

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9, "{found} is not {expected}");
    }

    #[test]
    fn milliseconds_are_rounded_as_numpy_does() {
        for (seconds, expected) in [(2.6755, 2.676), (0.0125, 0.012), (0.0005, 0.0), (0.0015, 0.002), (0.0174, 0.017)] {
            close(milliseconds(seconds), expected);
        }
    }

    #[test]
    fn a_tick_without_a_token_loses_its_time() {
        let a = [(1, 0.0104), (2, 0.0151), (4, 0.0262)];
        assert_eq!(token_slots(&a, 4), [0.01, 0.005, 0.011, 0.0]);
        let b = [(0, 0.0050), (1, 0.0206), (2, 0.0262), (3, 0.0315), (4, 0.0377)];
        assert_eq!(token_slots(&b, 4), [0.016, 0.006, 0.005, 0.006]);
        assert_eq!(token_slots(&[(1, 0.1), (2, 0.2), (3, 0.3)], 2), [0.1, 0.1], "what is too much is cut off");
    }

    #[test]
    fn static_rounds_are_pooled() {
        let row = |first_token_s, later: [f64; 3]| ScriptRequest {
            first_token_s,
            later_tokens_s: later.to_vec(),
            input_tokens: 1,
            output_tokens: 4,
        };
        let rows = [row(0.01, [0.005, 0.011, 0.0]), row(0.016, [0.006, 0.005, 0.006])];
        let figures = ScriptFigures::aggregate(2, &rows, 0.04).unwrap();
        assert_eq!(figures.first_token_s.map(|all| all.map(milliseconds)), Some([0.013, 0.01, 0.016]));
        assert_eq!(figures.later_tokens_s, Some([0.006, 0.006, 0.011, 0.011]));
        close(figures.output_tokens_per_s(), 200.0);
    }

    #[test]
    fn what_is_no_token_passes_for_the_first_one() {
        let record = RequestRecord { output_tokens_asked: Some(8), ..streamed(10, &[40, 50, 52], 3) };
        let lost = RequestRecord { first_response_ns: None, ..streamed(10, &[], 0) };
        let records = [warmup(streamed(0, &[5], 1)), record, lost];
        let figures = ScriptFigures::of(Method::Api, &records).unwrap();
        assert_eq!(figures.first_token_s, Some([0.0; 3]), "the first response came within a nanosecond");
        assert_eq!((figures.requests, figures.output_tokens, figures.input_tokens), (2, 8, 100));
        close(figures.elapsed_s, 0.048);
        let slots = ScriptFigures::of(Method::Static, &records[..2]).unwrap();
        assert_eq!(slots.first_token_s, Some([0.03; 3]));
        assert_eq!(slots.later_tokens_s, Some([0.0, 0.002, 0.01, 0.01]));
        let counted = ScriptFigures::of(Method::Throughput, &records[..2]).unwrap();
        assert_eq!((counted.output_tokens, counted.later_tokens_s), (3, Some([0.0, 0.002, 0.01, 0.01])));
    }

    #[test]
    fn an_answer_of_another_length_loses_all_that_its_thread_had_measured() {
        let record = |request: u64, worker, output_tokens| RequestRecord {
            request,
            worker,
            output_tokens_asked: Some(10),
            ..streamed(10, &[40], output_tokens)
        };
        let short = |request, worker| ended(RequestStatus::Failed, record(request, worker, 8));
        let figures = |records: &[RequestRecord]| ScriptFigures::of(Method::Tis, records);
        let tokens = |records: &[RequestRecord]| figures(records).map(|it| (it.requests, it.output_tokens));
        let good = [record(0, 0, 10), record(1, 1, 11), record(2, 0, 10)];
        assert_eq!(tokens(&good), Some((3, 31)), "one more is let pass");
        let [first, other, third] = good;
        assert_eq!(
            tokens(&[first.clone(), other.clone(), short(3, 0)]),
            Some((3, 11)),
            "the requests count all the same"
        );
        assert_eq!(tokens(&[short(0, 0), other, third]), Some((3, 21)), "what came later was another thread's");
        assert_eq!(figures(&[first, short(3, 0)]), None, "no thread has reached its end");
    }

    #[test]
    fn an_answer_that_does_not_stream_has_no_first_token() {
        let figures = ScriptFigures::of(Method::Api, &[answered(10, 40, 3)]).unwrap();
        assert_eq!(figures.first_token_s, None);
        assert_eq!(ScriptFigures::of(Method::Api, &[]), None);
    }

    /// Ticks and figures of LMDeploy's own profiler.
    #[test]
    fn todays_figures_count_only_what_succeeded() {
        let asked = |asked, record: RequestRecord| RequestRecord {
            output_tokens_asked: Some(asked),
            due_ns: 0,
            sent_ns: 0,
            end_ns: record.last_token_ns.unwrap(),
            ..record
        };
        let first = RequestRecord { input_tokens_sent: Some(10), ..streamed(0, &[10, 15, 26], 4) };
        let second = RequestRecord { input_tokens_sent: Some(20), ..streamed(0, &[20, 25, 31, 38], 4) };
        let third = ended(RequestStatus::Failed, streamed(0, &[50], 2));
        let figures = ServingFigures::of(&[asked(4, first), asked(4, second), asked(4, third)]).unwrap();
        assert_eq!((figures.completed, figures.input_tokens, figures.output_tokens), (2, 30, 8));
        close(figures.duration_s, 0.05);
        close(figures.e2e_ms_mean, 32.0);
        close(figures.ttft_ms_mean, 15.0);
        close(figures.tpot_ms_mean, 17.0 / 3.0);
        close(figures.itl_ms_mean, 6.8);
    }
}
