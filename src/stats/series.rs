use crate::spec::Series;
use crate::stats::search::{SearchState, SearchStep, Try, search_state};
use crate::stats::threshold::missed;
use crate::stats::until::{UntilState, until_state};

/// What one measurement of a series showed.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// Requests a second, or requests under way.
    pub load: f64,
    /// Of load, warm-up included.
    pub seconds: f64,
    /// One for each of the series' [`columns`](series_columns); empty when no request succeeded.
    pub figures: Vec<Option<f64>>,
}

/// How far a series is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SeriesState {
    Search(SearchState),
    Until(UntilState),
}

/// The columns of the results that decide what a series measures next.
#[must_use]
pub fn series_columns(series: &Series) -> Vec<&str> {
    match series {
        Series::Search(search) => search.bounds.iter().map(|bound| bound.column.as_str()).collect(),
        Series::Until(until) => until.figures.iter().map(String::as_str).collect(),
    }
}

/// How far a series is after these measurements: a pure function of them, whatever their order.
#[must_use]
pub fn series_state(series: &Series, outcomes: &[Outcome]) -> SeriesState {
    match series {
        Series::Search(search) => {
            let columns = series_columns(series);
            let figure = |it: &Outcome, column: &str| {
                let at = columns.iter().position(|known| *known == column)?;
                it.figures.get(at).copied().flatten()
            };
            let kept = |it: &Outcome| missed(&search.bounds, |column| figure(it, column)).is_empty();
            let tries = outcomes.iter().map(|it| Try { load: it.load, kept: kept(it), seconds: it.seconds });
            SeriesState::Search(search_state(search, &tries.collect::<Vec<_>>()))
        }
        Series::Until(until) => {
            let rounds: Vec<&[Option<f64>]> = outcomes.iter().map(|it| it.figures.as_slice()).collect();
            SeriesState::Until(until_state(until, &rounds))
        }
    }
}

impl SeriesState {
    /// The place of what is to be measured next among the load points of the series; `None` at its end.
    #[must_use]
    pub fn next(&self) -> Option<usize> {
        match self {
            Self::Search(SearchState { next: SearchStep::Try(place), .. }) => Some(*place),
            Self::Search(SearchState { next: SearchStep::End(_), .. }) => None,
            Self::Until(state) => state.again.then_some(state.rounds),
        }
    }
}
