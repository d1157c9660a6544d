use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::Scalar;

/// What an earlier run resolved. A run of a manifest that has this refuses anything else.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Locked {
    /// The benchrun that wrote it.
    pub benchrun: String,
    /// The cells that `--only` chose; no others are run again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<String>,
    /// By model name.
    pub models: IndexMap<String, LockedModel>,
    /// By the engine's name.
    pub engines: IndexMap<String, LockedEngine>,
    /// The sha256 of each workload (exact prompts and schedule), by phase and load point.
    pub workloads: IndexMap<String, String>,
    /// The machine; recorded, not enforced.
    pub host: IndexMap<String, Scalar>,
}

/// What an engine was resolved to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockedEngine {
    /// The sha256 of the recipe's files.
    pub recipe: String,
    /// Versions of the programs that the recipe calls, by their name there.
    pub programs: IndexMap<String, String>,
    /// What `runtime.venv` was installed as: `NAME==VERSION` and the sha256 of its archives.
    #[serde(skip_serializing_if = "IndexMap::is_empty")]
    pub packages: IndexMap<String, Vec<String>>,
}

/// What a model was resolved to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LockedModel {
    /// The commit, for a model of a hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// sha256 by file.
    pub files: IndexMap<String, String>,
}
