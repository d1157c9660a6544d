use std::sync::Arc;

use super::types::{Plan, Point, PointState, State};
use crate::manifest::{Enough, LimitSearch, Phase};
use crate::spec::{Arrival, Bound, Search, Searched, Series, Until};
use crate::stats::{Outcome, search_loads, series_state};

/// What the searched loads are measured by, with the loads themselves; `None` for a phase with fixed loads.
pub(super) fn search(phase: &Phase) -> Option<(Arc<Series>, Vec<Arrival>)> {
    let LimitSearch { concurrency, request_rate, precision, repeats, budget } = phase.search.as_ref()?;
    let (of, from, to) = match (concurrency, request_rate) {
        (Some(range), _) => (Searched::Concurrency, f64::from(range.from), f64::from(range.to)),
        (None, Some(range)) => (Searched::RequestRate, range.from, range.to),
        (None, None) => return None,
    };
    let search = Search {
        of,
        from,
        to,
        precision: precision.share(),
        repeats: *repeats,
        budget_s: budget.as_ref().map(|budget| budget.as_std().as_secs_f64()),
        bounds: bounds(phase),
    };
    let arrivals = search_loads(&search).into_iter().map(|load| arrival(phase, of, load)).collect();
    Some((Arc::new(Series::Search(search)), arrivals))
}

fn arrival(phase: &Phase, of: Searched, load: f64) -> Arrival {
    match of {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the schema keeps it in range")]
        Searched::Concurrency => Arrival::Closed { concurrency: load as u32 },
        Searched::RequestRate => {
            Arrival::Open { spacing: phase.spacing, rate: load, max_concurrency: phase.max_concurrency }
        }
    }
}

/// The phase's thresholds; a request that failed or was cut off has no latency that could miss one.
fn bounds(phase: &Phase) -> Vec<Bound> {
    let stated = phase.thresholds.iter().map(|(column, it)| Bound { column: column.clone(), min: it.min, max: it.max });
    let unsaid =
        ["requests_failed", "requests_cut_off"].into_iter().filter(|column| !phase.thresholds.contains_key(*column));
    stated.chain(unsaid.map(|column| Bound { column: column.to_owned(), min: None, max: Some(0.0) })).collect()
}

/// How the rounds of each load point are ended, if it is not by their number.
pub(super) fn until(phase: &Phase) -> Option<Arc<Series>> {
    let Enough { ci, max_rounds, figures } = phase.until.as_ref()?;
    let until = Until { half_width: ci.share(), max_rounds: *max_rounds, figures: figures.clone() };
    Some(Arc::new(Series::Until(until)))
}

/// Follows each series through the results that the store holds, up to the first load point without one: that is the one
/// to be measured. All others of the series are only possible.
///
/// `outcome` gives what a stored load point showed.
pub(super) fn follow(plan: &mut Plan, outcome: &dyn Fn(&Plan, usize) -> Option<Outcome>) {
    for index in 0..plan.series.len() {
        let series = plan.series[index].clone();
        let mut outcomes = Vec::new();
        let mut way = Vec::new();
        while let Some(place) = series_state(&series.rule, &outcomes).next() {
            let number = series.points.start + place;
            way.push(number);
            let stored = Some(number).filter(|&number| plan.points[number].is_cached());
            match stored.and_then(|number| outcome(plan, number)) {
                Some(outcome) => outcomes.push(outcome),
                None => break,
            }
        }
        for number in series.points.filter(|number| !way.contains(number)) {
            let point = &mut plan.points[number];
            if let Some(key) = point.key().cloned() {
                point.state = PointState::Possible { key };
            }
        }
    }
}

impl Point {
    fn is_cached(&self) -> bool {
        matches!(self.state, PointState::Planned { state: State::Cached, .. })
    }
}
