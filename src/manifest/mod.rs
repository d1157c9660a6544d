//! Text to [`Manifest`]: YAML or TOML, read strictly, every mistake at once with file, line, column and key path.
//!
//! The Rust types are the one source of truth: they give the JSON Schema, and the reader checks by that schema before it
//! deserialises.
//!
//! ```text
//! text ─yaml, toml→ tree with places ─check, by the schema─ rules, for manifests only→ Draft with findings ─finish→ Document
//! ```
//!
//! What knows the recipe complains of a [`Draft`] too, so that all mistakes are said at once.
//! [`read_document`] reads any other type in the same way; recipes use it.
//!
//! **Invariant:** nothing is expanded or resolved here, and no file but the manifest is read.

mod axes;
mod check;
mod columns;
mod engines;
mod locked;
mod method;
mod problem;
mod read;
mod rule;
mod rules;
mod schema;
mod toml;
mod tree;
mod types;
mod words;
mod yaml;

pub use columns::known_columns;
pub use engines::{ChosenEngine, DockerRuntime, Engine, HostRuntime, Runtime, VenvRuntime};
pub use locked::{Locked, LockedEngine, LockedModel};
pub use problem::{KeyPath, Location, Problem, ReadError, did_you_mean};
pub use read::{Document, Draft, Format, SourceText, draft, read, read_document, read_text};
pub use schema::json_schema;
pub use types::{
    AxisValue, ConcurrencyRange, DummyModel, Duration, Enough, Exclude, HfModel, LimitSearch, Manifest, Matrix, Model,
    PackageModel, Percent, Phase, PhaseData, PhaseOutput, Ramp, RateRange, Replay, Seeds, Stage, StageRate, Synthetic,
    Threshold, TimeLimits,
};
pub use yaml::to_yaml;
