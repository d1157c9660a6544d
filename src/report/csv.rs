use std::borrow::Borrow;
use std::io::Write;
use std::path::Path;

use serde_json::Value;

use crate::base::{RunId, write_atomically};
use crate::report::columns::{Column, columns};
use crate::report::{ReportError, Row, to_json};

/// Writes `results.csv`: a line of column names, and a line for each row.
///
/// Numbers have the fewest digits that give the same number when read back, with a point in every locale.
///
/// # Errors
/// When `writer` fails.
pub fn write_csv<R: Borrow<Row>>(rows: &[R], writer: impl Write) -> Result<(), ReportError> {
    let names = columns(rows);
    let columns: Vec<Column<'_>> = names.iter().map(|name| Column::named(name)).collect();
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(&names)?;
    for row in rows {
        csv.write_record(columns.iter().map(|column| field(column.value(row.borrow()))))?;
    }
    csv.flush().map_err(csv::Error::from)?;
    Ok(())
}

/// Writes `results.csv` and `results.json` into a run's folder, each whole or not at all.
///
/// # Errors
/// When a file cannot be written; the old one is then still there.
pub fn save<R: Borrow<Row>>(run: &RunId, rows: &[R], folder: &Path) -> Result<(), ReportError> {
    let mut text = Vec::new();
    write_csv(rows, &mut text)?;
    let mut json = serde_json::to_vec_pretty(&to_json(run, rows)).expect("rows are plain data");
    json.push(b'\n');
    for (name, bytes) in [("results.csv", &text), ("results.json", &json)] {
        let path = folder.join(name);
        write_atomically(&path, bytes).map_err(|source| ReportError::Write { path, source })?;
    }
    Ok(())
}

pub(super) fn field(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
