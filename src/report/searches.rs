use std::fmt;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::base::{CellId, RunId, write_atomically};
use crate::record::{PointRecord, PointStatus};
use crate::report::columns::{Column, identity_columns, known_metric_columns};
use crate::report::csv::field;
use crate::report::{ReportError, Rounds, Row, rounds};
use crate::spec::{Search, SearchEnd, Series};
use crate::stats::{Outcome, SearchState, SearchStep, SeriesState, series_columns, series_state};

/// What the tries of a search show, in one phase of one cell.
#[derive(Clone, Debug)]
pub struct Found<'a> {
    pub search: &'a Search,
    pub state: SearchState,
    rows: Vec<&'a Row>,
}

impl Row {
    /// What this measurement shows to the series that it is part of; `None` for one that was not measured, or broken off
    /// by us.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        let (series, summary) = (self.point.series.as_ref()?, self.summary.as_ref()?);
        let figures = match self.point.status {
            PointStatus::Ok => series_columns(series).into_iter().map(|column| self.number(column)).collect(),
            PointStatus::Failed => Vec::new(),
            PointStatus::Unsupported | PointStatus::Skipped => return None,
        };
        let load = self.point.request_rate.or(self.point.concurrency.map(f64::from)).unwrap_or_default();
        Some(Outcome { load, seconds: summary.load_s, figures })
    }
}

/// The searches among the rows of a run, in the order of the first row of each.
#[must_use]
pub fn searches<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Found<'a>> {
    let mut groups: IndexMap<(&CellId, &str), (&Series, Vec<&Row>)> = IndexMap::new();
    for row in rows {
        let PointRecord { cell, phase, series: Some(series @ Series::Search(_)), .. } = &row.point else { continue };
        groups.entry((cell, phase)).or_insert((series, Vec::new())).1.push(row);
    }
    let found = groups.into_values().filter_map(|(series, rows)| {
        let outcomes: Vec<Outcome> = rows.iter().filter_map(|row| row.outcome()).collect();
        match (series, series_state(series, &outcomes)) {
            (Series::Search(search), SeriesState::Search(state)) => Some(Found { search, state, rows }),
            (Series::Search(_) | Series::Until(_), SeriesState::Search(_) | SeriesState::Until(_)) => None,
        }
    });
    found.collect()
}

impl<'a> Found<'a> {
    #[must_use]
    pub fn cell(&self) -> &CellId {
        &self.rows[0].point.cell
    }

    #[must_use]
    pub fn phase(&self) -> &str {
        &self.rows[0].point.phase
    }

    /// `None` when it was broken off.
    #[must_use]
    pub fn end(&self) -> Option<SearchEnd> {
        match self.state.next {
            SearchStep::End(end) => Some(end),
            SearchStep::Try(_) => None,
        }
    }

    /// Why it is a missed threshold: it ended, and no load kept the bounds.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.end().is_some() && self.state.kept.is_none()
    }

    /// The rounds of one load.
    fn rounds_at(&self, load: f64) -> Option<Rounds<'a>> {
        // serde_json reads a float to within one unit in the last place.
        let of_load = |row: &Row| row.outcome().is_some_and(|outcome| (outcome.load - load).abs() < 1e-9 * load);
        rounds(self.rows.iter().copied().filter(|row| of_load(row))).pop()
    }

    /// What the lowest bad load missed, in one of its rounds.
    fn miss(&self) -> Option<String> {
        let rounds = self.rounds_at(self.state.missed?)?;
        rounds.rows.iter().find_map(|row| match row.point.status {
            PointStatus::Failed => row.point.reason.as_ref()?.lines().next().map(str::to_owned),
            PointStatus::Ok | PointStatus::Unsupported | PointStatus::Skipped => {
                row.missed(&self.search.bounds).first().map(ToString::to_string)
            }
        })
    }

    fn line(&self, identity: &[String]) -> Vec<Value> {
        let of_search = identity.iter().map(|name| Column::named(name).value(self.rows[0]));
        let found = [
            self.search.of.name().into(),
            self.end().map_or("unfinished", SearchEnd::name).into(),
            self.state.kept.into(),
            self.state.missed.into(),
            self.miss().into(),
            self.state.tries.into(),
            self.state.seconds.into(),
        ];
        let limit = self.state.kept.and_then(|load| self.rounds_at(load));
        let figures = known_metric_columns()
            .iter()
            .map(|column| limit.as_ref().and_then(|rounds| rounds.figure(column)).map(|figure| figure.mean).into());
        of_search.chain(found).chain(figures).collect()
    }
}

/// One line: what was found, and what the next load missed.
impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |load: Option<f64>| load.map(|load| self.search.of.words(load));
        match self.end() {
            Some(SearchEnd::Found | SearchEnd::BelowRange) => {}
            Some(SearchEnd::AboveRange) => write!(f, "the end of the range is reached: ")?,
            Some(SearchEnd::OutOfTime) => write!(f, "the time is used up: ")?,
            None => write!(f, "broken off: ")?,
        }
        match (words(self.state.kept), words(self.state.missed)) {
            (Some(kept), None) => write!(f, "{kept} keeps the thresholds")?,
            (Some(kept), Some(missed)) => write!(f, "{kept} keeps the thresholds, {missed} does not")?,
            (None, Some(missed)) => write!(f, "not even {missed} keeps the thresholds")?,
            (None, None) => write!(f, "no load was tried")?,
        }
        self.miss().map_or(Ok(()), |miss| write!(f, ": {miss}"))
    }
}

const FOUND_COLUMNS: [&str; 7] = ["search", "outcome", "limit", "missed_at", "missed", "tries", "load_s"];
/// Of each try, and so no part of what a search is known by.
const OF_TRIES: [&str; 3] = ["load_point", "concurrency", "request_rate"];

/// Writes `searches.csv` and `searches.json` into a run's folder if there are any searches: what each one found, and the
/// figures at its limit, as means over the rounds there.
///
/// # Errors
/// When a file cannot be written; the old one is then still there.
pub fn save_searches(run: &RunId, rows: &[Row], folder: &Path) -> Result<(), ReportError> {
    let found = searches(rows);
    if found.is_empty() {
        return Ok(());
    }
    let identity: Vec<String> =
        identity_columns(rows).into_iter().filter(|name| !OF_TRIES.contains(&name.as_str())).collect();
    let names: Vec<&str> = identity
        .iter()
        .map(String::as_str)
        .chain(FOUND_COLUMNS)
        .chain(known_metric_columns().iter().map(String::as_str))
        .collect();
    let lines: Vec<Vec<Value>> = found.iter().map(|found| found.line(&identity)).collect();
    let objects: Vec<Map<String, Value>> = lines
        .iter()
        .map(|line| names.iter().map(|name| (*name).to_owned()).zip(line.iter().cloned()).collect())
        .collect();
    let mut csv = csv::Writer::from_writer(Vec::new());
    csv.write_record(&names)?;
    for line in lines {
        csv.write_record(line.into_iter().map(field))?;
    }
    let text = csv.into_inner().map_err(|error| csv::Error::from(error.into_error()))?;
    let mut json =
        serde_json::to_vec_pretty(&json!({"run": run, "searches": objects})).expect("figures are plain data");
    json.push(b'\n');
    for (name, bytes) in [("searches.csv", &text), ("searches.json", &json)] {
        let path = folder.join(name);
        write_atomically(&path, bytes).map_err(|source| ReportError::Write { path, source })?;
    }
    Ok(())
}
