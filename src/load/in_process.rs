//! Answers of `scripts/engine_driver.py`, which runs an engine in its own process and takes the times there.

use std::ops::Range;

use serde::Deserialize;

use super::answer::Answer;
use super::exchange::{Arrivals, Clock};
use crate::record::TokenSource;

/// The engine's times may lie outside the request's by so much, since the two clocks are read one after the other when
/// a load point begins. Another clock, such as another machine's, is off by more.
const TOLERANCE_NS: u64 = 100_000_000;

/// One answer. Times are nanoseconds of the host's CLOCK_MONOTONIC.
#[derive(Deserialize)]
struct Report {
    /// Before the engine was called.
    start_ns: u64,
    /// Each time that the engine gave one or several tokens, with their text, which is empty inside a character.
    ticks: Vec<(u64, String)>,
    /// When the engine had given the last one.
    end_ns: u64,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    finish_reason: Option<String>,
}

/// Reads an answer, and its times as the load point's `clock` counts them. The request went and ended at `request_ns`.
pub(super) fn read(body: &Arrivals, request_ns: Range<u64>, clock: Clock) -> Answer {
    let mut answer = Answer::default();
    match serde_json::from_slice::<Report>(&body.bytes) {
        Err(error) => answer.fail("parse", error.to_string()),
        Ok(report) => match own_times(&report, &request_ns, clock) {
            None => answer.fail("clock", "the engine's clock is not this host's CLOCK_MONOTONIC".to_owned()),
            Some(times) => add(&mut answer, report, &times),
        },
    }
    answer
}

/// The engine's times since the load point began; `None` when they are not within those of the request.
fn own_times(report: &Report, request_ns: &Range<u64>, clock: Clock) -> Option<Vec<u64>> {
    let zero_ns = clock.began_monotonic_ns()?;
    let within = request_ns.start.saturating_sub(TOLERANCE_NS)..=request_ns.end.saturating_add(TOLERANCE_NS);
    let ticks = report.ticks.iter().map(|(at_ns, _)| *at_ns);
    let all = std::iter::once(report.start_ns).chain(ticks).chain([report.end_ns]);
    let all: Option<Vec<u64>> = all.map(|at_ns| at_ns.checked_sub(zero_ns).filter(|at| within.contains(at))).collect();
    all.filter(|all| all.is_sorted())
}

fn add(answer: &mut Answer, report: Report, times: &[u64]) {
    let [start_ns, tick_ns @ .., end_ns] = times else { return };
    answer.first_response_ns = tick_ns.first().copied();
    for (at_ns, (_, text)) in tick_ns.iter().zip(&report.ticks) {
        answer.add_chunk(*at_ns, text.as_bytes());
    }
    answer.own_ns = Some(*start_ns..*end_ns);
    answer.input_tokens = report.input_tokens;
    answer.output_tokens = report.output_tokens.map(|tokens| (tokens, TokenSource::ServerUsage));
    answer.finish_reason = report.finish_reason;
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MS: u64 = 1_000_000;

    /// What is read of a report with these milliseconds after `zero_ns`, of a request that took a second.
    fn read_of(zero_ns: u64, [start, first, second, end]: [u64; 4]) -> Answer {
        let at = |ms: u64| zero_ns + ms * MS;
        let report = json!({
            "start_ns": at(start), "ticks": [[at(first), ""], [at(second), "é"]], "end_ns": at(end),
            "input_tokens": 5, "output_tokens": 3, "finish_reason": "length",
        });
        let mut body = Arrivals { bytes: report.to_string().into_bytes(), marks: Vec::new() };
        body.mark(1000 * MS);
        read(&body, 500 * MS..1000 * MS, Clock::start())
    }

    fn zero_ns() -> u64 {
        Clock::start().began_monotonic_ns().unwrap()
    }

    #[test]
    fn times_are_the_engines_own() {
        // The clock starts once more when the answer is read.
        let answer = read_of(zero_ns() + MS, [600, 700, 800, 900]);
        assert_eq!(answer.error, None);
        let own_ns = answer.own_ns.unwrap();
        assert_eq!((own_ns.end - own_ns.start, answer.chunk_ns[1] - answer.chunk_ns[0]), (300 * MS, 100 * MS));
        assert_eq!(answer.first_response_ns, Some(answer.chunk_ns[0]), "a token without text is a token");
        assert_eq!((answer.chunk_bytes.as_slice(), answer.text.as_slice()), (&[0, 2][..], "é".as_bytes()));
        assert_eq!((answer.input_tokens, answer.output_tokens), (Some(5), Some((3, TokenSource::ServerUsage))));
    }

    #[test]
    fn another_clock_is_found_out() {
        for (zero_ns, times) in [
            (0, [600, 700, 800, 900]),
            (zero_ns() + 3_600_000 * MS, [600, 700, 800, 900]),
            (zero_ns(), [600, 800, 700, 900]),
            (zero_ns(), [300, 700, 800, 900]),
            (zero_ns(), [600, 700, 800, 1200]),
        ] {
            let answer = read_of(zero_ns, times);
            assert_eq!(answer.error.map(|error| error.kind).as_deref(), Some("clock"), "{times:?}");
            assert_eq!((answer.own_ns, answer.chunk_ns.len()), (None, 0));
        }
    }
}
