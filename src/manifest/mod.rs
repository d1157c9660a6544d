//! Text to [`Manifest`]: YAML or TOML, read strictly, every mistake at once with file, line, column and key path.
//!
//! **Invariant:** nothing is expanded or resolved here, and no file but the manifest is read.

mod types;

pub use types::{
    AxisValue, DummyModel, Duration, Engine, Exclude, HfModel, HostRuntime, JsonlFile, Locked, LockedModel, Manifest,
    Matrix, Model, Phase, PhaseData, PhaseOutput, Runtime, Seeds, Synthetic, Threshold, TimeLimits,
};
