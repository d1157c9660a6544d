use serde_json::Value;

use crate::base::RunId;
use crate::record::PointRecord;
use crate::report::columns::Column;
use crate::spec::Bound;
use crate::stats::{Miss, Summary, missed};

/// One line of the results: a (cell, phase, load point, round).
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    pub run: RunId,
    pub point: PointRecord,
    /// `None` when nothing was measured: the point is unsupported, was skipped, or failed before its first request.
    pub summary: Option<Summary>,
    /// What a reader should know of the files that this row was read from; shown below the table.
    pub note: Option<String>,
}

impl Row {
    /// The number in a column of the results; `None` when it is empty, not a number, or there is no such column.
    #[must_use]
    pub fn number(&self, column: &str) -> Option<f64> {
        self.value(column).as_f64()
    }

    /// The bounds that this row misses. Those of a row that was not measured are missed too: ask only for rows that are
    /// `ok`.
    #[must_use]
    pub fn missed(&self, bounds: &[Bound]) -> Vec<Miss> {
        missed(bounds, |column| self.number(column))
    }

    /// What a reader has to know before the figures are believed, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        self.summary.iter().flat_map(Summary::warnings).chain(self.note.clone()).collect()
    }

    /// What is in a column of the results; null when it is empty.
    #[must_use]
    pub fn value(&self, column: &str) -> Value {
        Column::named(column).value(self)
    }
}
