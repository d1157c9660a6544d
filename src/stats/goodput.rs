use crate::spec::Slo;
use crate::stats::timing::Timing;

/// How many requests were served well: each kept every bound that its phase sets on single requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goodput {
    /// Requests that kept all bounds / window, a second.
    pub requests_per_s: Option<f64>,
    /// Requests that kept all bounds / requests sent; one that failed or was cut off kept none.
    pub share: f64,
}

/// A figure that a good request lacks (a TTFT without streaming) is not known to be within its bound, so it is not. The
/// one exception is TPOT for an answer of one token: there is nothing to wait for.
pub(super) fn keeps(timing: &Timing, slo: &Slo) -> bool {
    let within = |bound: Option<f64>, value: Option<f64>| bound.is_none_or(|bound| value.is_some_and(|it| it <= bound));
    within(slo.ttft_ms, timing.ttft_ms())
        && within(slo.e2e_ms, timing.e2e_ms())
        && (timing.has_gaps() == Some(false) || within(slo.tpot_ms, timing.tpot_ms()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::RequestRecord;
    use crate::stats::fixture::{answered, streamed};

    #[track_caller]
    fn check(slo: Slo, record: &RequestRecord, expected: bool) {
        assert_eq!(keeps(&Timing::of(record), &slo), expected, "{slo:?}");
    }

    #[test]
    fn a_request_keeps_all_bounds_or_misses() {
        // TTFT 10 ms, E2E 60 ms, TPOT 25 ms.
        let request = streamed(100, &[110, 130, 160], 3);
        let (ttft, tpot, e2e) = (Some(10.0), Some(25.0), Some(60.0));
        check(Slo { ttft_ms: ttft, tpot_ms: tpot, e2e_ms: e2e }, &request, true);
        check(Slo { ttft_ms: Some(9.9), tpot_ms: tpot, e2e_ms: e2e }, &request, false);
        check(Slo { ttft_ms: ttft, tpot_ms: Some(24.9), e2e_ms: e2e }, &request, false);
        check(Slo { ttft_ms: ttft, tpot_ms: tpot, e2e_ms: Some(59.9) }, &request, false);
        check(Slo::default(), &request, true);
    }

    #[test]
    fn what_is_not_known_is_not_kept_and_one_token_has_no_gap() {
        check(Slo { ttft_ms: Some(1e6), ..Slo::default() }, &answered(100, 150, 8), false);
        check(Slo { tpot_ms: Some(1e6), ..Slo::default() }, &answered(100, 150, 8), false);
        check(Slo { e2e_ms: Some(50.0), ..Slo::default() }, &answered(100, 150, 8), true);
        check(Slo { tpot_ms: Some(1.0), ..Slo::default() }, &streamed(100, &[110], 1), true);
        let uncounted = RequestRecord { output_tokens: None, ..streamed(100, &[110, 120], 2) };
        check(Slo { tpot_ms: Some(1e6), ..Slo::default() }, &uncounted, false);
    }
}
