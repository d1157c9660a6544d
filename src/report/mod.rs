//! Rows to CSV, JSON and a terminal table, and rows read back from a run's records.
//!
//! A [`Row`] is one load point of one round with its figures. `apply` makes its rows with [`read_point`], the function
//! that [`read_run`] uses to rebuild them, so a rebuilt report is the same to the byte.
//!
//! **Invariant:** formats only. No figure is computed here, and a figure that is not known is an empty cell.

mod columns;
mod compare;
mod compare_format;
mod csv;
mod error;
mod json;
mod lmdeploy;
mod lmdeploy_table;
mod rebuild;
mod rounds;
mod row;
mod searches;
mod table;
#[cfg(test)]
mod tests;

pub use columns::{columns, known_metric_columns};
pub use compare::{ComparedFigure, ComparedPoint, Comparison, SampledRows, compare};
pub use compare_format::{comparison_csv, comparison_json, comparison_text};
pub use csv::{save, write_csv};
pub use error::ReportError;
pub use json::to_json;
pub use lmdeploy::{LMDEPLOY_CSV, Measured, lmdeploy_points, write_lmdeploy_csv};
pub use lmdeploy_table::lmdeploy_table;
pub use rebuild::{read_point, read_run, read_run_with_samples, row_of};
pub use rounds::{Rounds, RoundsFigure, rounds, save_rounds};
pub use row::Row;
pub use searches::{Found, save_searches, searches};
pub use table::{Color, table};
