use std::io::Write;
use std::path::Path;

use indexmap::IndexMap;
use serde_json::{Map, Value, json};

use crate::base::{RunId, write_atomically};
use crate::record::{PointRecord, PointStatus};
use crate::report::columns::{Column, identity_columns, known_metric_columns};
use crate::report::csv::field;
use crate::report::{ReportError, Row};
use crate::stats::Interval;

/// The rows of one load point of one cell: one a round, in order.
#[derive(Clone, Debug)]
pub struct Rounds<'a> {
    pub rows: Vec<&'a Row>,
}

/// A figure over the rounds that were measured well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RoundsFigure {
    pub rounds: usize,
    pub mean: f64,
    /// Only of two rounds or more.
    pub interval: Option<Interval>,
}

/// The rows of a run by load point, in the order of the first of each.
#[must_use]
pub fn rounds<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Rounds<'a>> {
    let mut groups: IndexMap<_, Vec<&Row>> = IndexMap::new();
    for row in rows {
        let PointRecord { cell, phase, load_point, concurrency, request_rate, .. } = &row.point;
        // Records of an earlier benchrun have no name of the load point.
        let rate = request_rate.map(f64::to_bits);
        groups.entry((cell, phase, load_point, concurrency, rate)).or_default().push(row);
    }
    groups.into_values().map(|rows| Rounds { rows }).collect()
}

impl Rounds<'_> {
    /// What is said of the load point itself, the same in every round.
    #[must_use]
    pub fn point(&self) -> &PointRecord {
        &self.first().point
    }

    pub(super) fn first(&self) -> &Row {
        self.rows.first().expect("a group begins with its first row")
    }

    /// The rounds that were measured well.
    pub fn ok(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().copied().filter(|row| row.point.status == PointStatus::Ok)
    }

    /// A column's numbers, one for each good round that has it.
    #[must_use]
    pub fn numbers(&self, column: &str) -> Vec<f64> {
        self.ok().filter_map(|row| row.number(column)).collect()
    }

    #[must_use]
    pub fn figure(&self, column: &str) -> Option<RoundsFigure> {
        let values = self.numbers(column);
        if values.is_empty() {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(RoundsFigure { rounds: values.len(), mean, interval: Interval::of(&values) })
    }
}

const FIGURE_COLUMNS: [&str; 5] = ["rounds", "mean", "ci95_low", "ci95_high", "ci95_relative_half_width"];

impl RoundsFigure {
    /// In the order of [`FIGURE_COLUMNS`].
    fn values(&self) -> [Value; 5] {
        let of = |read: fn(Interval) -> Option<f64>| Value::from(self.interval.and_then(read));
        [
            self.rounds.into(),
            self.mean.into(),
            of(|it| Some(it.low)),
            of(|it| Some(it.high)),
            of(|it| it.relative_half_width()),
        ]
    }
}

/// Writes `rounds.csv` and `rounds.json` into a run's folder if any load point has more than one round: the mean of each
/// figure over the rounds, with its 95 % interval.
///
/// # Errors
/// When a file cannot be written; the old one is then still there.
pub fn save_rounds(run: &RunId, rows: &[Row], folder: &Path) -> Result<(), ReportError> {
    let groups = rounds(rows);
    if groups.iter().all(|group| group.rows.len() == 1) {
        return Ok(());
    }
    let identity = identity_columns(rows);
    let mut text = Vec::new();
    write_csv(&groups, &identity, &mut text)?;
    let mut json = serde_json::to_vec_pretty(&to_json(run, &groups, &identity)).expect("figures are plain data");
    json.push(b'\n');
    for (name, bytes) in [("rounds.csv", &text), ("rounds.json", &json)] {
        let path = folder.join(name);
        write_atomically(&path, bytes).map_err(|source| ReportError::Write { path, source })?;
    }
    Ok(())
}

/// A line for each load point and figure.
fn write_csv(groups: &[Rounds<'_>], identity: &[String], writer: impl Write) -> Result<(), ReportError> {
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(identity.iter().map(String::as_str).chain(["figure"]).chain(FIGURE_COLUMNS))?;
    for group in groups {
        let of_point: Vec<String> =
            identity.iter().map(|name| field(Column::named(name).value(group.first()))).collect();
        for column in known_metric_columns() {
            let Some(figure) = group.figure(column) else { continue };
            let values = figure.values().map(field);
            csv.write_record(of_point.iter().chain([column]).chain(&values))?;
        }
    }
    csv.flush().map_err(csv::Error::from)?;
    Ok(())
}

fn to_json(run: &RunId, groups: &[Rounds<'_>], identity: &[String]) -> Value {
    let load_point = |group: &Rounds<'_>| {
        let mut object: Map<String, Value> =
            identity.iter().map(|name| (name.clone(), Column::named(name).value(group.first()))).collect();
        let figure = |column: &String| {
            let values = group.figure(column)?.values();
            let figure: Map<String, Value> = FIGURE_COLUMNS.map(str::to_owned).into_iter().zip(values).collect();
            Some((column.clone(), figure.into()))
        };
        let figures: Map<String, Value> = known_metric_columns().iter().filter_map(figure).collect();
        object.insert("figures".to_owned(), figures.into());
        Value::from(object)
    };
    json!({"run": run, "load_points": groups.iter().map(load_point).collect::<Vec<_>>()})
}
