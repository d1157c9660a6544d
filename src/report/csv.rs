use std::io::Write;

use serde_json::Value;

use crate::report::columns::{Column, columns};
use crate::report::{ReportError, Row};

/// Writes `results.csv`: a line of column names, and a line for each row.
///
/// Numbers have the fewest digits that give the same number when read back, with a point in every locale.
///
/// # Errors
/// When `writer` fails.
pub fn write_csv(rows: &[Row], writer: impl Write) -> Result<(), ReportError> {
    let names = columns(rows);
    let columns: Vec<Column<'_>> = names.iter().map(|name| Column::named(name)).collect();
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(&names)?;
    for row in rows {
        csv.write_record(columns.iter().map(|column| field(column.value(row))))?;
    }
    csv.flush().map_err(csv::Error::from)?;
    Ok(())
}

fn field(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}
