use std::collections::HashSet;
use std::fs;

use serde_json::Value;

use crate::event::StepKind;
use crate::plan::{History, PastStep};
use crate::store::{Runs, Store, StoreError};

/// What the store holds, and the steps of the newest run of this manifest.
pub(super) fn collect(
    store: &Store,
    runs: &Runs,
    manifest: &str,
    rerun: HashSet<StepKind>,
) -> Result<History, StoreError> {
    let past = runs
        .latest(manifest)
        .and_then(|run| fs::read(run.path.join("plan.json")).ok())
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .map(|plan| past_steps(&plan))
        .unwrap_or_default();
    Ok(History::new(store.keys()?, past, rerun))
}

fn past_steps(plan: &Value) -> Vec<PastStep> {
    let listed = |name: &str| plan.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
    listed("steps").into_iter().chain(listed("points")).filter_map(|step| serde_json::from_value(step).ok()).collect()
}
