//! Rows of a parquet file.

use std::any::Any;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::Value;

use super::error::Place;
use super::rows::{Broken, Row, Take};

/// Every row. Columns of dates, decimals and bytes are left out: no prompt is made of them.
pub(super) fn rows(file: File, take: Take<'_>) -> Result<(), Broken> {
    // The reader panics on types that it does not know and on some damage.
    catch_unwind(AssertUnwindSafe(|| read(file, take))).unwrap_or_else(|panic| Err(Broken::Format(words_of(&*panic))))
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|&it| it.into()));
    format!("the parquet file is damaged or of an unknown kind: {}", words.unwrap_or_default())
}

fn read(file: File, take: Take<'_>) -> Result<(), Broken> {
    let reader = SerializedFileReader::new(file).map_err(|error| unreadable(&error))?;
    let rows = reader.get_row_iter(None).map_err(|error| unreadable(&error))?;
    for (row, number) in rows.zip(1..) {
        let row = row.map_err(|error| unreadable(&error))?;
        let fields: Row = row.into_columns().into_iter().map(|(name, field)| (name, json(&field))).collect();
        take(fields).map_err(|problem| Broken::Row(Place::Row(number), problem))?;
    }
    Ok(())
}

fn unreadable(error: &parquet::errors::ParquetError) -> Broken {
    let text = error.to_string();
    let remedy = if text.contains("feature") { " (write it again with snappy compression)" } else { "" };
    Broken::Format(format!("{text}{remedy}"))
}

fn json(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::from(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => Value::from(*value),
        Field::Double(value) => Value::from(*value),
        Field::Str(text) => Value::from(text.as_str()),
        Field::Group(row) => row.get_column_iter().map(|(name, field)| (name.clone(), json(field))).collect(),
        Field::ListInternal(list) => list.elements().iter().map(json).collect(),
        _ => Value::Null,
    }
}
