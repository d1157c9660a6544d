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

    /// The client was too slow at one of the two loads at the limit, which may then be its own and not the server's.
    fn is_client_limited(&self) -> bool {
        let border = [self.state.kept, self.state.missed].into_iter().flatten();
        let rounds = border.filter_map(|load| self.rounds_at(load));
        rounds.flat_map(|it| it.rows).any(|row| row.value("client_verdict") == "client_limited")
    }

    fn line(&self, identity: &[String]) -> Vec<Value> {
        let of_search = identity.iter().map(|name| Column::named(name).value(self.rows[0]));
        let found = [
            self.search.of.name().into(),
            self.end().map_or("unfinished", SearchEnd::name).into(),
            self.state.kept.into(),
            self.state.missed.into(),
            self.miss().into(),
            self.is_client_limited().then_some("client_limited").into(),
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
        self.miss().map_or(Ok(()), |miss| write!(f, ": {miss}"))?;
        if self.is_client_limited() {
            write!(f, "; the client was too slow there, so this may be its limit and not the server's")?;
        }
        Ok(())
    }
}

const FOUND_COLUMNS: [&str; 8] =
    ["search", "outcome", "limit", "missed_at", "missed", "client_verdict", "tries", "load_s"];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Bound, Searched};
    use crate::stats::fixture::{point, streamed};
    use crate::stats::summarize;

    /// A try at this concurrency whose one request took so many ms for its first token.
    fn tried(concurrency: u32, ttft_ms: u64, cpu_share: f64) -> Row {
        let bound = Bound { column: "ttft_ms_p50".to_owned(), min: None, max: Some(100.0) };
        let (from, to, precision) = (1.0, 8.0, 0.05);
        let (of, bounds) = (Searched::Concurrency, vec![bound]);
        let search = Search { of, from, to, precision, repeats: 1, budget_s: None, bounds };
        let mut point = PointRecord { series: Some(Series::Search(search)), ..point() };
        point.concurrency = Some(concurrency);
        point.load_point = format!("c{concurrency}");
        point.client.cpu_share = Some(cpu_share);
        let summary = summarize(&point, &[streamed(1, &[1 + ttft_ms, 1000], 2)]);
        Row { run: RunId::new("20260102T030405Z-ab12".to_owned()), point, summary: Some(summary), note: None }
    }

    #[track_caller]
    fn check(rows: &[Row], expected: &str) {
        let found = searches(rows);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_search_is_said_in_a_line() {
        let skipped = Row { summary: None, ..tried(8, 0, 0.1) };
        let rows = [tried(1, 50, 0.1), tried(2, 60, 0.1), tried(4, 300, 0.1), tried(3, 200, 0.1), skipped];
        let kept = "concurrency 2 keeps the thresholds";
        check(&rows, &format!("{kept}, concurrency 3 does not: ttft_ms_p50 is 200, above 100"));
        check(&rows[..3], &format!("broken off: {kept}, concurrency 4 does not: ttft_ms_p50 is 300, above 100"));
        check(&[tried(1, 101, 0.1)], "not even concurrency 1 keeps the thresholds: ttft_ms_p50 is 101, above 100");
        let all = [1, 2, 4, 8].map(|concurrency| tried(concurrency, 50, 0.1));
        check(&all, "the end of the range is reached: concurrency 8 keeps the thresholds");
        check(&[Row { summary: None, ..tried(1, 0, 0.1) }], "broken off: no load was tried");
        assert!(searches(&[Row { point: point(), ..tried(1, 50, 0.1) }]).is_empty());
    }

    #[test]
    fn a_limit_of_the_client_is_not_passed_off_as_the_servers() {
        let rows = [tried(1, 50, 0.1), tried(2, 60, 0.1), tried(4, 300, 0.1), tried(3, 200, 0.95)];
        let text = searches(&rows)[0].to_string();
        assert!(text.ends_with("so this may be its limit and not the server's"), "{text}");
    }
}
