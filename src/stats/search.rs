use crate::spec::{Search, SearchEnd, Searched};

/// One load, measured once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Try {
    /// Requests a second, or requests under way.
    pub load: f64,
    /// Every bound was kept.
    pub kept: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// How far a search is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SearchState {
    pub next: SearchStep,
    /// The highest load that kept the bounds, with none below it that did not.
    pub kept: Option<f64>,
    /// The lowest load that did not keep them.
    pub missed: Option<f64>,
    pub tries: usize,
    /// Of load, warm-up included.
    pub seconds: f64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SearchStep {
    /// The place of what to measure: for each of [`search_loads`] there are `repeats`, one after the other.
    Try(usize),
    End(SearchEnd),
}

/// All loads that a search may try, in ascending order.
///
/// Each octave above `from` has 2^k of them, in equal ratios that are at most 1 + `precision`, so a finer search finds
/// the tries of a coarser one in the store. They are rounded: to whole numbers, or to four digits, which make short
/// names.
#[must_use]
pub fn search_loads(search: &Search) -> Vec<f64> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a manifest's precision is 1 % or more"
    )]
    let in_an_octave = (2.0_f64.ln() / search.precision.ln_1p()).ceil() as u32;
    let in_an_octave = f64::from(in_an_octave.next_power_of_two());
    let grid = (1..).map(|step: u32| rounded(search.of, search.from * (f64::from(step) / in_an_octave).exp2()));
    let mut loads = vec![search.from];
    loads.extend(grid.take_while(|load| *load < search.to));
    loads.push(search.to);
    loads.dedup();
    loads
}

fn rounded(of: Searched, load: f64) -> f64 {
    match of {
        Searched::Concurrency => load.round(),
        Searched::RequestRate => format!("{load:.3e}").parse().expect("a number as it was just written"),
    }
}

/// Where a search is after these tries, in whatever order: a pure function of them, so that an interrupted search goes
/// on where it was.
///
/// The load is doubled until it misses a bound. Then the gap between the highest good load and the lowest bad one is
/// halved, in ratio, until no load of [`search_loads`] is left in it. Then both are measured again until most of `repeats`
/// measurements agree. If that turns one of them round, the search goes on from there. A load is good when more of its
/// tries kept the bounds than missed one.
#[must_use]
pub(super) fn search_state(search: &Search, tries: &[Try]) -> SearchState {
    let loads = search_loads(search);
    let mut votes = vec![Votes::default(); loads.len()];
    for it in tries {
        let nearest =
            (0..loads.len()).min_by(|&a, &b| (loads[a] - it.load).abs().total_cmp(&(loads[b] - it.load).abs()));
        let votes = &mut votes[nearest.expect("a search has loads")];
        if it.kept { votes.good += 1 } else { votes.bad += 1 }
    }
    let bad = votes.iter().position(|votes| votes.bad > 0 && !votes.is_good());
    let good = votes[..bad.unwrap_or(loads.len())].iter().rposition(|votes| votes.is_good());
    let seconds = tries.iter().map(|it| it.seconds).sum();
    let next = match next(search.repeats, &loads, &votes, good, bad) {
        SearchStep::Try(_) if search.budget_s.is_some_and(|budget| seconds >= budget) => {
            SearchStep::End(SearchEnd::OutOfTime)
        }
        next => next,
    };
    SearchState { next, kept: good.map(|at| loads[at]), missed: bad.map(|at| loads[at]), tries: tries.len(), seconds }
}

fn next(repeats: u32, loads: &[f64], votes: &[Votes], good: Option<usize>, bad: Option<usize>) -> SearchStep {
    let place = |load: usize| SearchStep::Try(load * repeats as usize + votes[load].count() as usize);
    let confirmed = |border: &[usize], end| {
        let open = border.iter().find(|&&load| !votes[load].is_decided(repeats));
        open.map_or(SearchStep::End(end), |&load| place(load))
    };
    match (good, bad) {
        (None, None) => place(0),
        (None, Some(bad)) => confirmed(&[bad], SearchEnd::BelowRange),
        (Some(good), None) if good + 1 == loads.len() => confirmed(&[good], SearchEnd::AboveRange),
        (Some(good), None) => {
            let doubled = loads.partition_point(|load| *load <= 2.0 * loads[good]) - 1;
            place(doubled.max(good + 1))
        }
        (Some(good), Some(bad)) if good + 1 == bad => confirmed(&[good, bad], SearchEnd::Found),
        (Some(good), Some(bad)) => place(usize::midpoint(good, bad)),
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    good: u32,
    bad: u32,
}

impl Votes {
    fn count(self) -> u32 {
        self.good + self.bad
    }

    fn is_good(self) -> bool {
        self.good > self.bad
    }

    /// Whether no further vote of `of` can change it.
    fn is_decided(self, of: u32) -> bool {
        2 * self.good > of || 2 * self.bad >= of
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "loads are rounded, and equal when they are the same")]
mod tests {
    use super::*;

    fn wanted() -> Search {
        let (from, to, precision) = (1.0, 100.0, 0.05);
        Search { of: Searched::RequestRate, from, to, precision, repeats: 3, budget_s: None, bounds: Vec::new() }
    }

    /// Carries a search out against a server of which `kept` tells whether it keeps the bounds at a load and round.
    fn carried_out(wanted: &Search, mut kept: impl FnMut(f64, usize) -> bool) -> (SearchEnd, SearchState, Vec<f64>) {
        let mut tries: Vec<Try> = Vec::new();
        loop {
            let state = search_state(wanted, &tries);
            match state.next {
                SearchStep::End(end) => return (end, state, tries.iter().map(|it| it.load).collect()),
                SearchStep::Try(place) => {
                    let repeats = wanted.repeats as usize;
                    let (load, round) = (search_loads(wanted)[place / repeats], place % repeats + 1);
                    let before = tries.iter().filter(|it| it.load == load).count();
                    assert_eq!(round, before + 1, "no try is made twice");
                    tries.push(Try { load, kept: kept(load, round), seconds: 1.0 });
                }
            }
            assert!(tries.len() < 100, "it does not end: {tries:?}");
        }
    }

    #[test]
    fn the_limit_is_found_to_the_precision_asked_for() {
        for limit in [1.5, 7.0, 33.3, 99.0] {
            let (end, state, tried) = carried_out(&wanted(), |load, _| load <= limit);
            let (kept, missed) = (state.kept.unwrap(), state.missed.unwrap());
            assert_eq!(end, SearchEnd::Found, "{limit}");
            assert!(kept <= limit && limit < missed && missed <= kept * 1.05, "{kept} to {missed} for {limit}");
            for border in [kept, missed] {
                assert_eq!(tried.iter().filter(|load| **load == border).count(), 2, "two of three votes decide");
            }
            assert!(tried.len() <= 14, "{tried:?}");
        }
    }

    #[test]
    fn whole_loads_end_next_to_each_other() {
        let wanted = Search { of: Searched::Concurrency, precision: 0.01, to: 64.0, ..wanted() };
        for limit in 1..64u32 {
            let (end, state, tried) = carried_out(&wanted, |load, _| load <= f64::from(limit));
            assert_eq!(
                (end, state.kept, state.missed),
                (SearchEnd::Found, Some(limit.into()), Some((limit + 1).into()))
            );
            assert!(tried.iter().all(|load| load.fract() == 0.0), "{tried:?}");
        }
    }

    #[test]
    fn a_limit_outside_the_range_is_said() {
        let (end, state, tried) = carried_out(&wanted(), |_, _| false);
        assert_eq!((end, state.kept, state.missed, tried), (SearchEnd::BelowRange, None, Some(1.0), vec![1.0; 2]));
        let (end, state, tried) = carried_out(&wanted(), |_, _| true);
        assert_eq!((end, state.kept, state.missed), (SearchEnd::AboveRange, Some(100.0), None));
        assert_eq!(tried, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 100.0, 100.0]);
    }

    #[test]
    fn a_stray_result_at_the_border_is_outvoted() {
        let bad_luck = |load: f64, round| load <= 40.0 && !(load == 16.0 && round == 1);
        let (end, state, _) = carried_out(&wanted(), bad_luck);
        assert_eq!(end, SearchEnd::Found);
        assert!(state.kept.is_some_and(|kept| kept > 38.0 && kept <= 40.0), "{state:?}");
        let good_luck = |load: f64, round| load < 10.0 || (load < 17.0 && round == 1);
        let (end, state, _) = carried_out(&wanted(), good_luck);
        assert_eq!(end, SearchEnd::Found);
        assert!(state.kept.is_some_and(|kept| kept > 9.5 && kept < 10.0), "{state:?}");
    }

    #[test]
    fn half_of_the_votes_are_not_most_of_them() {
        let wanted = Search { repeats: 2, ..wanted() };
        let (_, state, tried) = carried_out(&wanted, |load, round| load < 8.0 || (load == 8.0 && round == 1));
        assert_eq!(state.missed, Some(8.0));
        assert_eq!(tried.iter().filter(|load| **load == 8.0).count(), 2);
    }

    #[test]
    fn no_try_begins_when_the_time_is_used_up() {
        let wanted = Search { budget_s: Some(4.0), ..wanted() };
        let (end, state, tried) = carried_out(&wanted, |load, _| load <= 5.0);
        assert_eq!((end, state.kept, state.missed), (SearchEnd::OutOfTime, Some(4.0), Some(8.0)));
        assert_eq!((tried, state.seconds), (vec![1.0, 2.0, 4.0, 8.0], 4.0));
    }

    #[test]
    fn a_finer_search_tries_the_loads_of_a_coarser_one() {
        let (coarse, fine) = (search_loads(&wanted()), search_loads(&Search { precision: 0.02, ..wanted() }));
        assert!(coarse.iter().all(|load| fine.contains(load)), "{coarse:?} in {fine:?}");
        assert!(coarse.array_windows().all(|[low, high]| high > low && *high < low * 1.0501), "{coarse:?}");
        assert_eq!(coarse[..3], [1.0, 1.044, 1.091]);
    }
}
