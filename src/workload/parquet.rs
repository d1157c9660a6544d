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

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};
    use std::sync::Arc;

    use parquet::basic::Compression;
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use proptest::prelude::*;

    use super::*;

    const SCHEMA: &str = "message row {
        required binary prompt (UTF8); required int64 max_tokens;
        optional group messages (LIST) { repeated group list { optional group element {
            optional binary role (UTF8); optional binary content (UTF8);
        } } }
    }";

    /// Two rows: one with two messages, one with none.
    fn example() -> Vec<u8> {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(Compression::SNAPPY).build());
        let mut bytes = Vec::new();
        let mut file = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
        let mut rows = file.next_row_group().unwrap();
        let texts = |texts: &[&str]| texts.iter().map(|&text| ByteArray::from(text)).collect::<Vec<_>>();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&texts(&["one", "两"]), None, None).unwrap();
        column.close().unwrap();
        let mut column = rows.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&[5, 6], None, None).unwrap();
        column.close().unwrap();
        for values in [["user", "assistant"], ["ask", "answer"]] {
            let mut column = rows.next_column().unwrap().unwrap();
            let (defined, repeated) = ([4, 4, 0], [0, 1, 0]);
            column.typed::<ByteArrayType>().write_batch(&texts(&values), Some(&defined), Some(&repeated)).unwrap();
            column.close().unwrap();
        }
        rows.close().unwrap();
        file.close().unwrap();
        bytes
    }

    fn read_bytes(bytes: &[u8]) -> Result<Vec<Row>, Broken> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        let mut found = Vec::new();
        let mut take = |row| {
            found.push(row);
            Ok(())
        };
        rows(file, &mut take)?;
        Ok(found)
    }

    #[test]
    fn rows_are_read_with_their_messages() {
        let Ok(rows) = read_bytes(&example()) else { panic!("the example is sound") };
        let expected = serde_json::json!([
            {"prompt": "one", "max_tokens": 5, "messages": [
                {"role": "user", "content": "ask"}, {"role": "assistant", "content": "answer"},
            ]},
            {"prompt": "两", "max_tokens": 6, "messages": null},
        ]);
        assert_eq!(serde_json::to_value(rows).unwrap(), expected);
    }

    proptest! {
        /// The result is of no matter.
        #[test]
        fn damage_is_an_error_or_another_text(at: prop::sample::Index, byte: u8, length: prop::sample::Index) {
            let mut bytes = example();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            drop(read_bytes(&bytes));
            bytes.truncate(length.index(bytes.len()));
            drop(read_bytes(&bytes));
        }
    }
}
