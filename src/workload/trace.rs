//! Recorded requests: when they came, and how long they were.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use jiff::civil::DateTime;
use serde::Deserialize;
use serde_json::Value;

use super::WorkloadError;
use super::rows::{self, Row};
use crate::spec::{TraceFile, TraceFormat};

/// Tokens that one hash id of a Mooncake trace stands for.
pub(super) const BLOCK: usize = 512;

/// One recorded request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recorded {
    /// Since the first one.
    pub due_ns: u64,
    pub input_tokens: u32,
    pub output_tokens: u32,
    /// One for each block of [`BLOCK`] tokens, the last of which may be shorter; none where the trace does not say.
    pub hash_ids: Vec<u64>,
}

/// The requests in order of time, and how many had no tokens: calls that failed when the trace was recorded.
pub(super) fn read(file: &TraceFile, path: &Path) -> Result<(Vec<Recorded>, u64), WorkloadError> {
    let (mut requests, mut without_tokens) = (Vec::new(), 0);
    let mut take = |row: Row| {
        let request = match file.format {
            TraceFormat::Mooncake => mooncake(row)?,
            TraceFormat::Azure => table(&row, &AZURE)?,
            TraceFormat::Burstgpt => table(&row, &BURSTGPT)?,
        };
        if request.input_tokens == 0 || request.output_tokens == 0 {
            without_tokens += 1;
        } else {
            requests.push(request);
        }
        Ok(())
    };
    let read = match file.format {
        TraceFormat::Mooncake => File::open(path).map_err(rows::Broken::from).and_then(|opened| {
            let mut reader = BufReader::new(opened);
            rows::skip_byte_order_mark(&mut reader)?;
            rows::lines(reader, &mut take)
        }),
        TraceFormat::Azure | TraceFormat::Burstgpt => rows::csv(path, &mut take),
    };
    read.map_err(|broken| broken.at(path))?;
    requests.sort_by_key(|request| request.due_ns);
    let start = requests.first().map_or(0, |first| first.due_ns);
    for request in &mut requests {
        request.due_ns -= start;
    }
    Ok((requests, without_tokens))
}

fn mooncake(row: Row) -> Result<Recorded, String> {
    #[derive(Deserialize)]
    struct Line {
        /// In ms.
        timestamp: f64,
        input_length: u32,
        output_length: u32,
        #[serde(default)]
        hash_ids: Vec<u64>,
    }
    let line: Line = serde_json::from_value(Value::Object(row)).map_err(|error| {
        format!("{error} (a line has `timestamp` in ms, `input_length`, `output_length` and may have `hash_ids`)")
    })?;
    let due_ns = nanoseconds(line.timestamp, 1e6).ok_or("`timestamp` is not a time in ms from 0")?;
    if !line.hash_ids.is_empty() && line.hash_ids.len() != (line.input_length as usize).div_ceil(BLOCK) {
        let ids = line.hash_ids.len();
        return Err(format!("{ids} `hash_ids` for {} tokens: there is one for each {BLOCK} tokens", line.input_length));
    }
    Ok(Recorded { due_ns, input_tokens: line.input_length, output_tokens: line.output_length, hash_ids: line.hash_ids })
}

/// Which columns of a CSV file say what.
struct Columns {
    time: &'static str,
    time_is: &'static str,
    due_ns: fn(&str) -> Option<u64>,
    input: &'static str,
    output: &'static str,
}

const AZURE: Columns = Columns {
    time: "TIMESTAMP",
    time_is: "a date and time such as 2023-11-16 18:17:03.9799600",
    due_ns: since_1970,
    input: "ContextTokens",
    output: "GeneratedTokens",
};

const BURSTGPT: Columns = Columns {
    time: "Timestamp",
    time_is: "a time in seconds from 0",
    due_ns: |text| nanoseconds(text.parse().ok()?, 1e9),
    input: "Request tokens",
    output: "Response tokens",
};

fn table(row: &Row, columns: &Columns) -> Result<Recorded, String> {
    let field = |name: &str| match row.get(name).and_then(Value::as_str) {
        Some(text) => Ok(text.trim()),
        None => Err(format!("the file has no column `{name}`: is it of another `format`?")),
    };
    let tokens = |name: &str| {
        let text = field(name)?;
        text.parse().map_err(|_| format!("`{name}` is `{text}`, not a number of tokens"))
    };
    let time = field(columns.time)?;
    let due_ns =
        (columns.due_ns)(time).ok_or_else(|| format!("`{}` is `{time}`, not {}", columns.time, columns.time_is))?;
    let (input_tokens, output_tokens) = (tokens(columns.input)?, tokens(columns.output)?);
    Ok(Recorded { due_ns, input_tokens, output_tokens, hash_ids: Vec::new() })
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
fn nanoseconds(time: f64, unit_ns: f64) -> Option<u64> {
    let ns = time * unit_ns;
    // 292 years.
    (0.0..9.2e18).contains(&ns).then_some(ns as u64)
}

/// Nanoseconds; an offset from UTC, which is the same on all lines, is passed over.
fn since_1970(text: &str) -> Option<u64> {
    let local = text.find(['+', 'Z']).map_or(text, |end| &text[..end]);
    let time: DateTime = local.trim().parse().ok()?;
    let since = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_nanosecond();
    u64::try_from(since).ok()
}
