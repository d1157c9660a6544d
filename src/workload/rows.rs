//! Files of rows, read one row at a time: JSON lines, a JSON list, CSV and parquet.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::{Deserializer, Map, Value};

use super::error::Place;
use super::{WorkloadError, parquet};

/// A row by its fields' names.
pub(super) type Row = Map<String, Value>;
/// Takes a row, or says what is wrong with it.
pub(super) type Take<'t> = &'t mut dyn FnMut(Row) -> Result<(), String>;

/// Why reading ended early.
pub(super) enum Broken {
    Io(io::Error),
    Row(Place, String),
    Format(String),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Broken {
    pub(super) fn at(self, path: &Path) -> WorkloadError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => WorkloadError::Read { path, source },
            Self::Row(place, problem) => WorkloadError::Row { path, place, problem },
            Self::Format(problem) => WorkloadError::Format { path, problem },
        }
    }
}

/// What a file is, by what it begins with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Parquet,
    JsonList,
    JsonLines,
}

impl Kind {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(1 << 12, File::open(path)?);
        if reader.fill_buf()?.starts_with(b"PAR1") {
            return Ok(Self::Parquet);
        }
        skip_byte_order_mark(&mut reader)?;
        let first = reader.fill_buf()?.iter().find(|byte| !byte.is_ascii_whitespace());
        Ok(if first == Some(&b'[') { Self::JsonList } else { Self::JsonLines })
    }
}

/// Parquet, a JSON list of objects, or one JSON object a line.
pub(super) fn json_or_parquet(path: &Path, take: Take<'_>) -> Result<(), Broken> {
    let kind = Kind::of(path)?;
    let file = File::open(path)?;
    if kind == Kind::Parquet {
        return parquet::rows(file, take);
    }
    let mut reader = BufReader::with_capacity(1 << 18, file);
    skip_byte_order_mark(&mut reader)?;
    if kind == Kind::JsonList { list(reader, take) } else { lines(reader, take) }
}

pub(super) fn skip_byte_order_mark(reader: &mut impl BufRead) -> io::Result<()> {
    if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    Ok(())
}

/// One JSON object a line; blank lines are passed over.
pub(super) fn lines(mut reader: impl BufRead, take: Take<'_>) -> Result<(), Broken> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let row = json_line(&line);
        row.and_then(&mut *take).map_err(|problem| Broken::Row(Place::Line(number), problem))?;
    }
    Ok(())
}

fn json_line(line: &[u8]) -> Result<Row, String> {
    let text = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    serde_json::from_str(text).map_err(|error| format!("it is not one JSON object: {}", without_line(&error)))
}

/// What is wrong, and in which column: the line is already said.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((problem, _)) if error.column() > 0 => format!("{problem} at column {}", error.column()),
        _ => text,
    }
}

/// A JSON list of objects.
fn list(reader: impl BufRead, take: Take<'_>) -> Result<(), Broken> {
    let mut rows = List { take, number: 0, broken: None };
    let mut json = Deserializer::from_reader(reader);
    let read = json.deserialize_seq(&mut rows).and_then(|()| json.end());
    match (rows.broken, read) {
        (Some(problem), _) => Err(Broken::Row(Place::Entry(rows.number), problem)),
        (None, Err(error)) if error.is_io() => Err(Broken::Io(error.into())),
        (None, Err(error)) => Err(Broken::Format(format!("it is not a JSON list of objects: {error}"))),
        (None, Ok(())) => Ok(()),
    }
}

struct List<'t> {
    take: Take<'t>,
    number: u64,
    broken: Option<String>,
}

impl<'de> Visitor<'de> for &mut List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(row) = entries.next_element::<Row>()? {
            self.number += 1;
            if let Err(problem) = (self.take)(row) {
                self.broken = Some(problem);
                return Err(serde::de::Error::custom("a row is refused"));
            }
        }
        Ok(())
    }
}

/// CSV with a header; every field is text.
pub(super) fn csv(path: &Path, take: Take<'_>) -> Result<(), Broken> {
    let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 18).from_reader(File::open(path)?);
    let header = reader.headers().map_err(broken_csv)?.clone();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(broken_csv)? {
        let line = record.position().map_or(0, csv::Position::line);
        let fields = header.iter().zip(&record).map(|(name, field)| (name.to_owned(), Value::from(field)));
        take(fields.collect()).map_err(|problem| Broken::Row(Place::Line(line), problem))?;
    }
    Ok(())
}

fn broken_csv(error: csv::Error) -> Broken {
    let line = |position: &Option<csv::Position>| Place::Line(position.as_ref().map_or(1, csv::Position::line));
    match error.kind() {
        csv::ErrorKind::Utf8 { pos, .. } => Broken::Row(line(pos), "it is not UTF-8".to_owned()),
        csv::ErrorKind::UnequalLengths { pos, expected_len, len } => {
            let problem = format!("{len} fields, but the header has {expected_len}: quote fields that have commas");
            Broken::Row(line(pos), problem)
        }
        _ => match error.into_kind() {
            csv::ErrorKind::Io(error) => Broken::Io(error),
            other => Broken::Format(format!("{other:?}")),
        },
    }
}
