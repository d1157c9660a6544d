use crate::record::PointRecord;
use crate::stats::percentile;
use crate::stats::timing::Timing;

/// The figures of the part of a load point in which the server was as busy as the load meant it to be.
///
/// A closed loop begins with all its requests at once: their prompts are read together and their answers end together,
/// which no later request sees. In open loop the server is empty at first. At the end, both run dry. So the window is
///
/// - in a closed loop of c requests: from the moment when the first c requests have all ended, until the last request is
///   sent, which is when a slot stays empty for the first time;
/// - in open loop: from the first sent + the 99th percentile of E2E, when the server holds as many requests as it ever
///   will at this rate, until the last request is sent.
///
/// There is none when the load is meant to change (stages, a trace), and none when fewer requests ended within it than
/// were sent before it: what is left then is chance. A server that cannot keep up with an open loop never gets steady.
#[derive(Clone, Debug, PartialEq)]
pub struct Steady {
    /// Its beginning and end, in seconds since the first request was sent.
    pub from_s: f64,
    pub to_s: f64,
    /// Requests ok that ended in it.
    pub requests: u64,
    /// `requests` / its length.
    pub requests_per_s: f64,
    /// Output tokens that came in it / its length; unknown when any request's tokens are. Exact but for requests under
    /// way at one of its ends, whose tokens after the first are taken to come evenly.
    pub output_tokens_per_s: Option<f64>,
    /// In milliseconds, over the requests ok that were sent in it, as are those below.
    pub ttft_ms_p50: Option<f64>,
    pub ttft_ms_p99: Option<f64>,
    pub tpot_ms_p50: Option<f64>,
    pub tpot_ms_p99: Option<f64>,
}

impl Steady {
    /// `timings` are those of the requests ok, by the time they were sent; `last_sent_ns` is over all requests.
    pub(super) fn of(point: &PointRecord, timings: &[Timing], last_sent_ns: u64) -> Option<Self> {
        if !point.constant_load {
            return None;
        }
        let first_sent_ns = timings.first()?.sent_ns;
        let filled_ns = match point.arrival.as_str() {
            "closed" => first_round_ended(timings, point.concurrency?),
            _ => first_sent_ns + longest_but_one_percent_ns(timings)?,
        };
        let window = filled_ns..last_sent_ns;
        let length_s = last_sent_ns.checked_sub(filled_ns)? as f64 / 1e9;
        let ended = timings.iter().filter(|timing| window.contains(&timing.answered_ns())).count();
        let sent_before = timings.partition_point(|timing| timing.sent_ns < window.start);
        if ended == 0 || ended < sent_before {
            return None;
        }
        let sent_within = &timings[sent_before..timings.partition_point(|timing| timing.sent_ns < window.end)];
        let output_tokens: Option<f64> =
            timings.iter().map(|timing| timing.tokens_between(window.start, window.end)).sum();
        let (ttft_ms_p50, ttft_ms_p99) = middle_and_tail(sent_within.iter().filter_map(Timing::ttft_ms));
        let (tpot_ms_p50, tpot_ms_p99) = middle_and_tail(sent_within.iter().filter_map(Timing::tpot_ms));
        let since_first_s = |ns: u64| (ns - first_sent_ns) as f64 / 1e9;
        Some(Self {
            from_s: since_first_s(window.start),
            to_s: since_first_s(window.end),
            requests: ended as u64,
            requests_per_s: ended as f64 / length_s,
            output_tokens_per_s: output_tokens.map(|tokens| tokens / length_s),
            ttft_ms_p50,
            ttft_ms_p99,
            tpot_ms_p50,
            tpot_ms_p99,
        })
    }
}

fn first_round_ended(timings: &[Timing], concurrency: u32) -> u64 {
    timings.iter().take(concurrency as usize).map(Timing::answered_ns).max().unwrap_or(u64::MAX)
}

fn longest_but_one_percent_ns(timings: &[Timing]) -> Option<u64> {
    let (_, e2e_ms) = middle_and_tail(timings.iter().filter_map(Timing::e2e_ms));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a duration within the load point")]
    e2e_ms.map(|ms| (ms * 1e6) as u64)
}

/// The 50th and the 99th percentile.
fn middle_and_tail(values: impl Iterator<Item = f64>) -> (Option<f64>, Option<f64>) {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    (percentile(&sorted, 50.0), percentile(&sorted, 99.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{RequestRecord, RequestStatus};
    use crate::stats::fixture::{ended, open_loop_point, point, streamed};
    use crate::stats::summarize;

    /// Two slots. The first two requests take 200 ms, all others 100 ms with two tokens, at 50 and at 100 ms.
    fn closed_loop() -> Vec<RequestRecord> {
        let slow = [streamed(1000, &[1150, 1200], 2), streamed(1000, &[1150, 1200], 2)];
        let rest = (0..20).map(|index| {
            let sent = 1200 + 100 * (index / 2);
            streamed(sent, &[sent + 50, sent + 100], 2)
        });
        slow.into_iter().chain(rest).collect()
    }

    fn two_slots() -> PointRecord {
        PointRecord { concurrency: Some(2), ..point() }
    }

    #[test]
    fn a_closed_loop_is_steady_from_its_second_round_until_its_last_request() {
        let summary = summarize(&two_slots(), &closed_loop());
        let steady = summary.steady.unwrap();
        // From 1200 ms, when the first two have ended, to 2100 ms, when the last is sent.
        assert_eq!((steady.from_s, steady.to_s), (0.2, 1.1));
        // The first two end at the window's first moment, the last two after it.
        assert_eq!(steady.requests, 18);
        assert!((steady.requests_per_s - 20.0).abs() < 1e-9);
        // 18 requests' tokens: of those under way at its ends, as many are left out as come in.
        assert!((steady.output_tokens_per_s.unwrap() - 36.0 / 0.9).abs() < 1e-9, "{steady:?}");
        assert_eq!((steady.ttft_ms_p50, steady.ttft_ms_p99), (Some(50.0), Some(50.0)));
        assert_eq!((steady.tpot_ms_p50, steady.tpot_ms_p99), (Some(50.0), Some(50.0)));
        // The figures of the whole are still of the whole.
        assert!((summary.latency.ttft_ms.unwrap().max - 150.0).abs() < 1e-9);
        assert!((summary.rates.requests_per_s.unwrap() - 22.0 / 1.2).abs() < 1e-9);
    }

    #[test]
    fn the_order_of_the_records_does_not_matter() {
        let mut records = closed_loop();
        let steady = summarize(&two_slots(), &records).steady;
        records.reverse();
        assert_eq!(summarize(&two_slots(), &records).steady, steady);
    }

    #[test]
    fn an_open_loop_is_steady_once_the_first_answers_are_through() {
        // A request each 100 ms that takes 300 ms; the last one fails.
        let mut records: Vec<RequestRecord> =
            (0..20).map(|index| streamed(100 * index, &[100 * index + 300], 1)).collect();
        records.push(ended(RequestStatus::Failed, streamed(2000, &[], 0)));
        let steady = summarize(&open_loop_point(), &records).steady.unwrap();
        assert_eq!((steady.from_s, steady.to_s, steady.requests), (0.3, 2.0, 17));
        assert!((steady.output_tokens_per_s.unwrap() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn what_is_short_or_meant_to_change_is_not_steady() {
        let records = closed_loop();
        assert_eq!(summarize(&two_slots(), &records[..4]).steady, None);
        assert_eq!(summarize(&two_slots(), &[]).steady, None);
        let staged = PointRecord { constant_load: false, ..two_slots() };
        assert_eq!(summarize(&staged, &records).steady, None);
        // An open loop whose answers take longer and longer.
        let late = |index: u64| streamed(100 * index, &[100 * index + 200 * (index + 1)], 1);
        let overloaded: Vec<RequestRecord> = (0..50).map(late).collect();
        assert_eq!(summarize(&open_loop_point(), &overloaded).steady, None);
    }
}
