use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{State, changes};
use crate::base::StepKey;
use crate::event::StepKind;

/// So many earlier steps are compared with one that has no namesake among them.
const MOST_COMPARED: usize = 64;

/// What exists already: outputs in the store, and the steps of the last run of this manifest.
#[derive(Debug, Default)]
pub struct History {
    stored: HashSet<StepKey>,
    past: HashMap<String, Vec<PastStep>>,
    rerun: HashSet<StepKind>,
}

/// A step of an earlier run, as its `plan.json` has it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct PastStep {
    /// `fetch`, `quantize`, `build`, `render`, `bench` or `point`.
    pub kind: String,
    pub key: StepKey,
    pub label: String,
    pub material: Value,
}

impl History {
    #[must_use]
    pub fn new(stored: HashSet<StepKey>, past: Vec<PastStep>, rerun: HashSet<StepKind>) -> Self {
        let mut by_kind: HashMap<String, Vec<PastStep>> = HashMap::new();
        for step in past {
            by_kind.entry(step.kind.clone()).or_default().push(step);
        }
        Self { stored, past: by_kind, rerun }
    }

    #[must_use]
    pub(super) fn has_past(&self) -> bool {
        !self.past.is_empty()
    }

    /// Whether `--rerun` asks for this kind of step to be done anew.
    #[must_use]
    pub fn is_rerun(&self, kind: StepKind) -> bool {
        self.rerun.contains(&kind)
    }

    #[must_use]
    pub fn holds(&self, kind: StepKind, key: &StepKey) -> bool {
        !self.is_rerun(kind) && self.stored.contains(key)
    }

    /// The state of a step that the store does not hold: stale if the last run had one that this one replaces.
    ///
    /// Replaced is only what is not in the plan any more (`current`). A namesake is taken if there is one, otherwise the
    /// step with the fewest differences.
    pub(super) fn missing(
        &self,
        kind: &str,
        label: &dyn Fn() -> String,
        material: &dyn Fn() -> Value,
        current: &HashSet<StepKey>,
    ) -> State {
        let Some(past) = self.past.get(kind) else { return State::Run };
        let mut replaced = past.iter().filter(|step| !current.contains(&step.key)).take(MOST_COMPARED).peekable();
        if replaced.peek().is_none() {
            return State::Run;
        }
        let (label, material) = (label(), material());
        let namesake = past.iter().find(|step| step.label == label && !current.contains(&step.key));
        let nearest = || replaced.min_by_key(|step| changes(&step.material, &material).len());
        let Some(step) = namesake.or_else(nearest) else { return State::Run };
        let changes = changes(&step.material, &material);
        // No difference: the output was removed from the store, failed, or is to be made anew.
        if changes.is_empty() { State::Run } else { State::Stale { changes } }
    }
}
