use std::fmt;
use std::sync::Arc;

use crate::base::{CellId, Scalar};
use crate::recipe::RecipeError;

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("phase `{phase}` has no `{what}`, and neither has the matrix")]
    NoLength { phase: String, what: &'static str },
    #[error("settings contradict each other{}", listed(.found))]
    Contradictions {
        /// Each contradiction once, with the first cell that has it.
        found: Vec<(CellId, Arc<str>)>,
    },
    #[error("phases ask for what cells cannot do{}", .found.iter().map(ToString::to_string).collect::<String>())]
    PhaseContradictions {
        /// Each contradiction once, with the first cell that has it.
        found: Vec<PhaseContradiction>,
    },
    #[error("axis `{axis}` gives phase `{phase}` the value `{value}`")]
    AxisForPhase { phase: String, axis: &'static str, value: Scalar, source: serde_json::Error },
}

/// What a phase asks of a cell that cannot do it.
#[derive(Debug)]
pub struct PhaseContradiction {
    pub phase: String,
    pub cell: CellId,
    pub because: String,
}

impl fmt::Display for PhaseContradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n  phase `{}`, `{}`: {}", self.phase, self.cell, self.because)
    }
}

fn listed(found: &[(CellId, Arc<str>)]) -> String {
    let lines: Vec<String> = found.iter().map(|(cell, because)| format!("\n  `{cell}`: {because}")).collect();
    lines.concat()
}
