use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ColumnConstraint, ContentArrangement, LineStyle, Table, TableStyle};
use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::base::plain_text;
use crate::record::PointStatus;
use crate::report::{Rounds, RoundsFigure, Row, rounds};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Color {
    Always,
    Never,
}

/// Cells named below the table for one reason; the rest are counted.
const CELLS_NAMED: usize = 5;

/// A column of the terminal's table: the heading with its unit, and the column of the results that it shows.
#[derive(Clone, Copy)]
struct Shown {
    heading: &'static str,
    column: &'static str,
}

const SHOWN: [Shown; 13] = [
    Shown { heading: "cell", column: "cell" },
    Shown { heading: "phase", column: "phase" },
    Shown { heading: "conc.", column: "concurrency" },
    Shown { heading: "rounds", column: "rounds" },
    Shown { heading: "status", column: "status" },
    Shown { heading: "req/s", column: "requests_per_s" },
    Shown { heading: "out tok/s", column: "output_tokens_per_s" },
    Shown { heading: "TTFT p50\nms", column: "ttft_ms_p50" },
    Shown { heading: "TTFT p99\nms", column: "ttft_ms_p99" },
    Shown { heading: "TPOT p50\nms", column: "tpot_ms_p50" },
    Shown { heading: "ITL p99\nms", column: "itl_ms_p99" },
    Shown { heading: "E2E p50\nms", column: "e2e_ms_p50" },
    Shown { heading: "E2E p99\nms", column: "e2e_ms_p99" },
];

/// What a narrow terminal does without, first things first.
const DROPPED_FIRST: [&str; 8] =
    ["itl_ms_p99", "e2e_ms_p99", "ttft_ms_p99", "requests_per_s", "e2e_ms_p50", "tpot_ms_p50", "phase", "ttft_ms_p50"];

/// The rows for a terminal `width` columns wide: a line for each load point, and below them what went wrong, each reason
/// once. Figures of several rounds are means with half of their 95 % interval.
///
/// Columns that do not fit are left out; the results' files have them all.
#[must_use]
pub fn table(rows: &[Row], width: u16, color: Color) -> String {
    let lines = rounds(rows);
    let mut shown = SHOWN.to_vec();
    if lines.iter().all(|line| line.rows.len() == 1) {
        shown.retain(|shown| shown.column != "rounds");
    }
    if rows.iter().any(|row| row.point.arrival != "closed") {
        // Open loops are told apart by their rates.
        let load = Shown { heading: "load", column: "load_point" };
        shown.iter_mut().filter(|shown| shown.column == "concurrency").for_each(|shown| *shown = load);
    }
    let mut table = drawn(&lines, &shown, color);
    for dropped in DROPPED_FIRST {
        if needed_width(&table) <= usize::from(width) {
            break;
        }
        shown.retain(|shown| shown.column != dropped);
        table = drawn(&lines, &shown, color);
    }
    if needed_width(&table) > usize::from(width) {
        wrap_cells(&mut table, width);
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    add_reasons(&mut text, rows);
    for note in rows.iter().filter_map(|row| row.note.as_ref()) {
        let _ = writeln!(text, "\nnote: {}", plain_text(note));
    }
    text
}

fn needed_width(table: &Table) -> usize {
    const PADDING: usize = 2;
    table.column_max_content_widths().iter().map(|&width| usize::from(width) + PADDING).sum()
}

/// Breaks the cells' names, which are long and still readable in pieces, and nothing else.
fn wrap_cells(table: &mut Table, width: u16) {
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for column in table.column_iter_mut().skip(1) {
        column.set_constraint(ColumnConstraint::ContentWidth);
    }
}

fn drawn(lines: &[Rounds<'_>], shown: &[Shown], color: Color) -> Table {
    let mut table = empty_table(color);
    table.set_header(shown.iter().map(heading));
    table.add_rows(lines.iter().map(|line| shown.iter().map(|shown| cell(line, shown.column)).collect::<Vec<_>>()));
    table
}

pub(super) fn empty_table(color: Color) -> Table {
    let mut table = Table::new();
    // Whether there is a terminal was decided by the caller.
    table.force_no_tty();
    if color == Color::Always {
        table.enforce_styling();
    }
    table.load_style(TableStyle::new().header_separator(LineStyle::none().fill('─')));
    table
}

/// Over numbers, on their side.
fn heading(shown: &Shown) -> Cell {
    let heading = Cell::new(shown.heading);
    match shown.column {
        "cell" | "phase" | "load_point" | "status" => heading,
        _ => heading.set_alignment(CellAlignment::Right),
    }
}

fn cell(line: &Rounds<'_>, column: &str) -> Cell {
    match line.first().value(column) {
        _ if column == "status" => status(line),
        _ if column == "rounds" => Cell::new(line.rows.len()).set_alignment(CellAlignment::Right),
        Value::String(text) => Cell::new(plain_text(&text).replace('\n', " ")),
        whole @ Value::Number(_) if !whole.is_f64() => Cell::new(whole).set_alignment(CellAlignment::Right),
        other @ (Value::Bool(_) | Value::Array(_) | Value::Object(_)) => Cell::new(other),
        Value::Number(number) if line.rows.len() == 1 => {
            Cell::new(short(number.as_f64().unwrap_or_default())).set_alignment(CellAlignment::Right)
        }
        Value::Null | Value::Number(_) => {
            Cell::new(line.figure(column).map(figure).unwrap_or_default()).set_alignment(CellAlignment::Right)
        }
    }
}

fn status(line: &Rounds<'_>) -> Cell {
    let ok = line.ok().count();
    let worst = line.rows.iter().map(|row| row.point.status).find(|status| *status != PointStatus::Ok);
    let status = worst.unwrap_or(PointStatus::Ok);
    let text = match ok {
        0 => status.name().to_owned(),
        _ if ok == line.rows.len() => status.name().to_owned(),
        _ => format!("{ok} of {} ok", line.rows.len()),
    };
    Cell::new(text).fg(status_color(status))
}

fn figure(figure: RoundsFigure) -> String {
    let digits = digits(figure.mean);
    match figure.interval {
        Some(interval) => format!("{:.digits$} ± {:.digits$}", figure.mean, interval.half_width()),
        None => short(figure.mean),
    }
}

fn status_color(status: PointStatus) -> comfy_table::Color {
    match status {
        PointStatus::Ok => comfy_table::Color::Green,
        PointStatus::Failed => comfy_table::Color::Red,
        PointStatus::Unsupported => comfy_table::Color::Yellow,
        PointStatus::Skipped => comfy_table::Color::DarkGrey,
    }
}

/// Three digits or all before the point: what a reader compares at a glance.
pub(super) fn short(value: f64) -> String {
    format!("{value:.*}", digits(value))
}

/// Digits after the point of [`short`].
fn digits(value: f64) -> usize {
    match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    }
}

fn add_reasons(text: &mut String, rows: &[Row]) {
    let mut cells_by_reason: IndexMap<(&str, &str), IndexSet<&str>> = IndexMap::new();
    for row in rows {
        if let Some(reason) = &row.point.reason {
            let cells = cells_by_reason.entry((row.point.status.name(), reason)).or_default();
            cells.insert(row.point.cell.as_str());
        }
    }
    for ((status, reason), cells) in cells_by_reason {
        let reason = plain_text(reason.trim_end()).replace('\n', "\n  ");
        let _ = write!(text, "\n{status}: {reason}\n  in ");
        let named: Vec<String> = cells.iter().take(CELLS_NAMED).map(|cell| plain_text(cell)).collect();
        text.push_str(&named.join(", "));
        if cells.len() > CELLS_NAMED {
            let _ = write!(text, " and {} more", cells.len() - CELLS_NAMED);
        }
        text.push('\n');
    }
}
