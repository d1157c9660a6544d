use crate::spec::Until;
use crate::stats::Interval;

/// Of fewer rounds nobody can say how far apart they are: two may agree by chance.
const FEWEST_ROUNDS: usize = 3;

/// How far a load point is that is measured until its figures are known well enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct UntilState {
    /// Rounds measured so far, failed ones included.
    pub rounds: usize,
    /// The largest (half of the 95 % interval / mean) of the figures; `None` before three rounds have one.
    pub half_width: Option<f64>,
    /// That is small enough.
    pub enough: bool,
    /// Another round is to be measured.
    pub again: bool,
}

/// Where it is after these rounds, each with its figures in the order of `until.figures`. A pure function of them.
///
/// A figure that no round has, such as TTFT without streaming, is left aside.
#[must_use]
pub(super) fn until_state(until: &Until, rounds: &[&[Option<f64>]]) -> UntilState {
    let half_widths = (0..until.figures.len()).filter_map(|figure| {
        let values: Vec<f64> = rounds.iter().filter_map(|round| *round.get(figure)?).collect();
        match values.len() {
            0 => None,
            // Too few to tell.
            1..FEWEST_ROUNDS => Some(f64::INFINITY),
            FEWEST_ROUNDS.. => Interval::of(&values).map(|interval| match interval.half_width() {
                0.0 => 0.0,
                _ => interval.relative_half_width().unwrap_or(f64::INFINITY),
            }),
        }
    });
    let half_width = half_widths.reduce(f64::max).filter(|width| width.is_finite());
    let enough = half_width.is_some_and(|width| width <= until.half_width);
    let again = !enough && rounds.len() < until.max_rounds as usize;
    UntilState { rounds: rounds.len(), half_width, enough, again }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Until {
        let figures = ["output_tokens_per_s", "ttft_ms_p50"].map(str::to_owned).to_vec();
        Until { half_width: 0.05, max_rounds: 5, figures }
    }

    fn of(rounds: &[[Option<f64>; 2]]) -> UntilState {
        until_state(&wanted(), &rounds.iter().map(<[_; 2]>::as_slice).collect::<Vec<_>>())
    }

    /// The state after each of these values of the first figure; the second is not known.
    #[track_caller]
    fn check(values: &[Option<f64>], enough: bool, again: bool) -> UntilState {
        let rounds: Vec<[Option<f64>; 2]> = values.iter().map(|value| [*value, None]).collect();
        let state = of(&rounds);
        assert_eq!((state.enough, state.again), (enough, again), "{state:?}");
        state
    }

    #[test]
    fn three_rounds_that_agree_are_enough() {
        check(&[], false, true);
        check(&[Some(100.0); 2], false, true);
        check(&[Some(100.0); 3], true, false);
        // s = 2, t = 4.3027: ± 4.3027 × 2 / √3 = 4.97.
        let state = check(&[Some(98.0), Some(100.0), Some(102.0)], true, false);
        assert!(state.half_width.is_some_and(|width| (width - 0.0497).abs() < 1e-4), "{state:?}");
        check(&[Some(97.0), Some(100.0), Some(103.0)], false, true);
    }

    #[test]
    fn rounds_that_do_not_agree_go_on_to_the_last() {
        let apart = [Some(50.0), Some(150.0), Some(50.0), Some(150.0), Some(100.0)];
        check(&apart[..4], false, true);
        check(&apart, false, false);
    }

    #[test]
    fn a_failed_round_is_one_that_says_nothing() {
        check(&[Some(100.0), None, Some(100.0)], false, true);
        check(&[Some(100.0), None, Some(100.0), Some(100.0)], true, false);
        check(&[None; 5], false, false);
    }

    #[test]
    fn every_figure_has_to_be_known_well() {
        let rounds = |second: [f64; 3]| second.map(|value| [Some(10.0), Some(value)]);
        assert!(!of(&rounds([5.0, 10.0, 15.0])).enough);
        assert!(of(&rounds([10.0, 10.1, 9.9])).enough);
        // All alike at 0 is as certain as can be.
        assert!(of(&rounds([0.0; 3])).enough);
    }
}
