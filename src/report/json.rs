use std::borrow::Borrow;

use serde_json::{Map, Value, json};

use crate::base::RunId;
use crate::report::Row;
use crate::report::columns::{Column, columns};

/// The version of the columns' names and meanings.
const CONTRACT: u32 = 1;

/// The content of `results.json`: the columns of `results.csv` with their types, null where a cell is empty there.
#[must_use]
pub fn to_json<R: Borrow<Row>>(run: &RunId, rows: &[R]) -> Value {
    let names = columns(rows);
    let columns: Vec<Column<'_>> = names.iter().map(|name| Column::named(name)).collect();
    let object =
        |row: &Row| columns.iter().map(|column| (column.name.to_owned(), column.value(row))).collect::<Map<_, _>>();
    let rows: Vec<Value> = rows.iter().map(|row| object(row.borrow()).into()).collect();
    json!({"contract": CONTRACT, "run": run, "rows": rows})
}
