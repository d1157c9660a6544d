//! `Manifest` to cells: products, zipped axes, per-model values, includes and excludes, in a stable order.
//!
//! **Invariant:** pure; whether an engine can do a cell is not decided here.

mod expand;
mod name;
mod only;

pub use expand::{Cell, Cells, MatrixError, expand};
pub use only::{Only, OnlyError};
