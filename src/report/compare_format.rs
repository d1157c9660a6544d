use std::fmt::Write as _;
use std::io::Write;

use comfy_table::{Cell, CellAlignment};
use serde_json::{Map, Value, json};

use crate::base::plain_text;
use crate::report::ReportError;
use crate::report::compare::{ComparedFigure, ComparedPoint, Comparison};
use crate::report::csv::field;
use crate::report::table::{Color, empty_table, short};
use crate::stats::Verdict;

const FIGURE_COLUMNS: [&str; 9] = [
    "rounds_base",
    "rounds_new",
    "base",
    "new",
    "difference",
    "ci95_low",
    "ci95_high",
    "difference_percent",
    "verdict",
];

/// A comparison for people: what to know first, then a line for each load point and figure.
#[must_use]
pub fn comparison_text(comparison: &Comparison, color: Color) -> String {
    let mut text = format!("base {}\nnew  {}\n", comparison.base, comparison.new);
    for note in &comparison.notes {
        let _ = writeln!(text, "note: {}", plain_text(note));
    }
    if comparison.points.is_empty() {
        text.push_str("\nno load point is in both runs\n");
        return text;
    }
    let mut table = empty_table(color);
    let right = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
    let numbers = ["base", "new", "change", "95 % interval"].map(|heading| right(heading.to_owned()));
    let words = ["cell", "phase", "load", "figure"].map(Cell::new);
    table.set_header(words.into_iter().chain(numbers).chain([Cell::new("verdict")]));
    for (point, figure) in comparison.figures() {
        let percent = figure.percent();
        table.add_row([
            Cell::new(&point.cell),
            Cell::new(&point.phase),
            Cell::new(&point.load_point),
            Cell::new(figure.column),
            right(short(figure.base)),
            right(short(figure.new)),
            right(change(figure).map(|it| format!("{it:+.1} %")).unwrap_or_default()),
            right(percent.map(|it| format!("{:+.1} to {:+.1} %", it.low, it.high)).unwrap_or_default()),
            Cell::new(figure.verdict.name()).fg(verdict_color(figure.verdict)),
        ]);
    }
    let _ = writeln!(text, "\n{}", table.trim_fmt());
    text
}

/// A comparison as CSV: a line for each load point and figure.
///
/// # Errors
/// When `writer` fails.
pub fn comparison_csv(comparison: &Comparison, writer: impl Write) -> Result<(), ReportError> {
    let mut csv = csv::Writer::from_writer(writer);
    csv.write_record(["cell", "phase", "load_point", "figure"].into_iter().chain(FIGURE_COLUMNS))?;
    for (point, figure) in comparison.figures() {
        let identity = [&point.cell, &point.phase, &point.load_point].map(String::as_str);
        let values = values(point, figure).map(field);
        csv.write_record(identity.into_iter().chain([figure.column]).chain(values.iter().map(String::as_str)))?;
    }
    csv.flush().map_err(csv::Error::from)?;
    Ok(())
}

#[must_use]
pub fn comparison_json(comparison: &Comparison) -> Value {
    let figure = |point: &ComparedPoint, figure: &ComparedFigure| {
        let columns = FIGURE_COLUMNS.map(str::to_owned).into_iter().zip(values(point, figure));
        (figure.column.to_owned(), columns.collect::<Map<_, _>>().into())
    };
    let point = |point: &ComparedPoint| {
        let figures: Map<String, Value> = point.figures.iter().map(|it| figure(point, it)).collect();
        json!({"cell": point.cell, "phase": point.phase, "load_point": point.load_point, "figures": figures})
    };
    let points: Vec<Value> = comparison.points.iter().map(point).collect();
    json!({"base": comparison.base, "new": comparison.new, "notes": comparison.notes, "points": points})
}

/// In the order of [`FIGURE_COLUMNS`].
fn values(point: &ComparedPoint, figure: &ComparedFigure) -> [Value; 9] {
    [
        point.rounds.0.into(),
        point.rounds.1.into(),
        figure.base.into(),
        figure.new.into(),
        (figure.new - figure.base).into(),
        figure.difference.map(|it| it.low).into(),
        figure.difference.map(|it| it.high).into(),
        change(figure).into(),
        figure.verdict.name().into(),
    ]
}

/// The difference in percent of the base.
fn change(figure: &ComparedFigure) -> Option<f64> {
    (figure.base > 0.0).then(|| (figure.new / figure.base - 1.0) * 100.0)
}

fn verdict_color(verdict: Verdict) -> comfy_table::Color {
    match verdict {
        Verdict::Better => comfy_table::Color::Green,
        Verdict::Worse => comfy_table::Color::Red,
        Verdict::NotShown | Verdict::OneRound => comfy_table::Color::DarkGrey,
    }
}
