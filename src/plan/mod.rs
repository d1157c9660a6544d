//! Cells to a [`Plan`]: steps in an order that runs inputs first, each with a content key, and the load points.
//!
//! A step's key is the sha256 of its material: all that can change its output, and nothing else. Equal steps are shared,
//! so one checkpoint serves every batch size and one server every load point of the cells that start it alike.
//!
//! **Invariant:** pure. What exists already comes in as [`History`]; nothing here reads a clock, a disk or a network.

mod build;
mod check;
mod engine;
mod error;
mod history;
mod json;
mod material;
mod phase;
mod series;
mod types;
mod values;

pub use build::{Inputs, plan};
pub use check::{EngineDraft, check, knows};
pub use engine::{EngineInputs, PlanEngine};
pub use error::{PhaseContradiction, PlanError};
pub use history::{History, PastStep};
pub use material::{Change, Decided, ModelIdentity, changes};
pub use phase::load_points;
pub use types::{CellState, Plan, PlannedCell, PlannedSeries, Point, PointState, State, Step, Summary};
pub use values::{KNOWN_AXES, Places, Values};
