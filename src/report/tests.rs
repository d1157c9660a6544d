//! What a reader gets: golden files of every format, and rows rebuilt from records.

use std::fs;
use std::path::Path;

use indexmap::IndexMap;

use super::*;
use crate::base::{CellId, RunId, Scalar};
use crate::record::{PointRecord, PointStatus, RequestRecord, RequestStatus};
use crate::spec::Bound;
use crate::stats::fixture::{answered, ended, open_loop_point, point, streamed, warmup};
use crate::stats::summarize;

fn run() -> RunId {
    RunId::new("20260102T030405Z-ab12".to_owned())
}

fn axes(pairs: &[(&str, Scalar)]) -> IndexMap<String, Scalar> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn at(order: u64, cell: &str, point: PointRecord) -> PointRecord {
    let precision = cell.split('/').nth(1).unwrap().into();
    let axes = axes(&[
        ("model", "tiny".into()),
        ("precision", precision),
        ("语言", "中文,带\"逗号\"".into()),
        ("tp", 1.into()),
    ]);
    PointRecord { order, cell: CellId::new(cell.to_owned()), axes, ..point }
}

fn without_requests(status: PointStatus, reason: &str) -> PointRecord {
    PointRecord { status, reason: Some(reason.to_owned()), concurrency: None, ..point() }
}

/// Every kind of row, in the plan's order, with its requests.
fn points() -> Vec<(PointRecord, Option<Vec<RequestRecord>>)> {
    let requests =
        vec![warmup(streamed(0, &[90], 1)), streamed(100, &[110, 130, 160], 3), streamed(200, &[230, 240], 2)];
    let mut gpu = PointRecord { load_point: "rate25".to_owned(), request_rate: Some(25.0), ..open_loop_point() };
    gpu.server.gpus = Some(2);
    gpu.server.gpu_energy_j = Some(10.0);
    gpu.client.cpu_share = Some(0.125);
    let broken = "the server exited with code 1\n\x1b[31mout of \"memory\", sorry\x1b[0m\n";
    let failed = PointRecord { status: PointStatus::Failed, reason: Some(broken.to_owned()), ..point() };
    let mut swept = at(2, "tiny/int8_wo/bs4", without_requests(PointStatus::Skipped, "interrupted"));
    swept.axes.insert("concurrency".to_owned(), 32.into());
    swept.axes.insert("kv_fraction".to_owned(), Scalar::Float(0.9));
    vec![
        (at(0, "tiny/fp32/中文", point()), Some(requests)),
        (at(1, "tiny/int8_wo/bs4", open_loop_point()), Some(vec![answered(100, 150, 8), answered(120, 190, 8)])),
        (swept, None),
        (at(3, "tiny/int8_wo/bs4", gpu), Some(vec![streamed(100, &[110, 120], 2)])),
        (at(4, "tiny/fp8/bs1", without_requests(PointStatus::Unsupported, "no fp8 on this engine, or GPU")), None),
        (at(5, "tiny/fp8/bs4", without_requests(PointStatus::Unsupported, "no fp8 on this engine, or GPU")), None),
        (at(6, "tiny/fp16/bs1", failed), Some(vec![ended(RequestStatus::Failed, streamed(1, &[], 0))])),
    ]
}

fn rows() -> Vec<Row> {
    let row = |(point, requests): (PointRecord, Option<Vec<RequestRecord>>)| {
        let summary = requests.map(|requests| summarize(&point, &requests));
        Row { run: run(), point, summary, note: None }
    };
    points().into_iter().map(row).collect()
}

fn csv_of(rows: &[Row]) -> String {
    let mut bytes = Vec::new();
    write_csv(rows, &mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn csv_is_what_it_was() {
    insta::assert_snapshot!(csv_of(&rows()));
}

#[test]
fn json_is_what_it_was() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&to_json(&run(), &rows())).unwrap());
}

#[test]
fn tables_are_what_they_were() {
    insta::assert_snapshot!("table_wide", table(&rows(), 160, Color::Never));
    insta::assert_snapshot!("table_80", table(&rows(), 80, Color::Never));
    insta::assert_snapshot!("table_40", table(&rows(), 40, Color::Never));
}

#[test]
fn tables_fit_the_terminal() {
    for width in 45..200 {
        let text = table(&rows(), width, Color::Never);
        let line = text.lines().find(|line| line.starts_with('─')).unwrap();
        assert!(line.chars().count() <= usize::from(width), "{width}:\n{text}");
    }
}

#[test]
fn colour_adds_nothing_but_escape_sequences() {
    let (plain, coloured) = (table(&rows(), 160, Color::Never), table(&rows(), 160, Color::Always));
    let lines = |text: &str| text.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>();
    assert_eq!(lines(&crate::base::plain_text(&coloured)), lines(&plain));
}

#[test]
fn csv_reads_back_and_agrees_with_json() {
    let rows = rows();
    let text = csv_of(&rows);
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let names = reader.headers().unwrap().clone();
    assert_eq!(names.iter().collect::<Vec<_>>(), columns(&rows));
    let json = to_json(&run(), &rows);
    for (record, object) in reader.records().map(Result::unwrap).zip(json["rows"].as_array().unwrap()) {
        for (name, field) in names.iter().zip(&record) {
            match &object[name] {
                serde_json::Value::Null => assert_eq!(field, "", "{name}"),
                serde_json::Value::String(text) => assert_eq!(field, text, "{name}"),
                value => assert_eq!(field.parse::<f64>().ok(), value.as_f64(), "{name}"),
            }
        }
    }
}

#[test]
fn axes_have_one_column_each() {
    let names = columns(&rows());
    for name in ["model", "语言", "kv_fraction", "concurrency"] {
        assert_eq!(names.iter().filter(|column| *column == name).count(), 1, "{name}");
    }
    assert_eq!(rows()[2].number("concurrency"), Some(32.0));
    let mut row = rows().remove(2);
    row.point.axes.insert("output_tokens".to_owned(), 7.into());
    assert_eq!(row.number("output_tokens"), None, "an axis is never taken for a figure");
}

#[test]
fn thresholds_are_on_columns_that_exist() {
    let row = rows().remove(0);
    for column in known_metric_columns() {
        assert!(columns::<Row>(&[]).contains(column), "{column}");
    }
    let bound = |column: &str, max| Bound { column: column.to_owned(), min: None, max: Some(max) };
    let missed = row.missed(&[bound("ttft_ms_max", 29.5), bound("e2e_ms_max", 60.0)]);
    let texts: Vec<String> = missed.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["ttft_ms_max is 30, above 29.5"]);
}

/// Writes the run's records as a run does, in an order of folders that is not the plan's.
fn write_run(folder: &Path) {
    for (point, requests) in points() {
        let folder = folder.join("cells").join(point.cell.as_str()).join("chat").join(format!("c{}", point.order));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("point.json"), serde_json::to_vec(&point).unwrap()).unwrap();
        if let Some(requests) = requests {
            let lines: String = requests.iter().map(|request| serde_json::to_string(request).unwrap() + "\n").collect();
            fs::write(folder.join("requests.jsonl"), lines).unwrap();
        }
    }
}

const FIRST_REQUESTS: &str = "cells/tiny/fp32/中文/chat/c0/requests.jsonl";

#[test]
fn rows_are_rebuilt_from_records() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join(run().as_str());
    write_run(&folder);
    assert_eq!(read_run(&run(), &folder).unwrap(), rows());
    assert_eq!(csv_of(&read_run(&run(), &folder).unwrap()), csv_of(&rows()));
    assert_eq!(read_point(&run(), &folder.join("cells/tiny/fp32/中文/chat/c0")).unwrap(), rows()[0]);
}

#[test]
fn a_line_cut_short_is_noted_and_a_bad_one_refused() {
    let home = tempfile::tempdir().unwrap();
    write_run(home.path());
    let path = home.path().join(FIRST_REQUESTS);
    let whole = fs::read_to_string(&path).unwrap();

    let cut_within_a_character = [whole.as_bytes(), b"{\"request\":3,\"output_text\":\"\xe4\xb8"].concat();
    fs::write(&path, cut_within_a_character).unwrap();
    let read = read_run(&run(), home.path()).unwrap();
    assert_eq!(read[0].summary, rows()[0].summary);
    assert!(read[0].note.as_ref().unwrap().contains("line 4, was cut short"), "{:?}", read[0].note);
    assert!(table(&read, 160, Color::Never).contains("note: the last line of"));

    fs::write(&path, whole.replacen("{\"request\"", "{\"requestx\"", 1)).unwrap();
    let error = read_run(&run(), home.path()).unwrap_err().to_string();
    assert!(error.starts_with("line 1 of `") && error.contains(FIRST_REQUESTS), "{error}");
}

#[test]
fn a_run_without_cells_has_no_rows_and_no_folder_is_an_error() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(read_run(&run(), home.path()).unwrap(), []);
    assert!(matches!(read_run(&run(), &home.path().join("none")), Err(ReportError::Read { .. })));
}
