use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use serde::Serialize;

use super::{Change, Decided, PlanEngine, Values};
use crate::base::{CellId, Scalar, StepKey};
use crate::event::StepKind;
use crate::spec::{LoadPoint, Series, Slo};

/// Everything a run does, decided.
#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    /// In the order of the manifest.
    pub engines: Vec<PlanEngine>,
    /// Every axis, the known ones of the contract first.
    pub axes: Vec<String>,
    pub cells: Vec<PlannedCell>,
    /// Inputs come before the steps that read them.
    pub steps: Vec<Step>,
    /// In the order of the cells; the index is the row's order in the results.
    pub points: Vec<Point>,
    pub series: Vec<PlannedSeries>,
    /// The bounds on single requests, of the phases that have any. They decide figures, but not what is measured.
    pub slos: BTreeMap<String, Slo>,
    /// What the reader of the plan should know; said once each.
    pub warnings: Vec<String>,
}

/// One cell of the sweep and what becomes of it.
#[derive(Clone, Debug)]
pub struct PlannedCell {
    pub id: CellId,
    pub model: String,
    /// Index into [`Plan::engines`].
    pub engine: usize,
    /// One value for each of [`Plan::axes`]; `None` where the manifest does not say.
    pub values: Vec<Option<Scalar>>,
    pub state: CellState,
    pub gpus: u32,
    /// Its load points in [`Plan::points`].
    pub points: Range<usize>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CellState {
    /// Measured behind the server that the step at this index starts.
    Planned { server: usize },
    /// The manifest leaves it out.
    Excluded { because: Arc<str> },
    /// The engine cannot do it.
    Unsupported { because: Arc<str> },
    /// Left aside by `--only`.
    NotChosen,
}

/// One unit of work with one output; a step of kind `bench` is one server and all the load points behind it.
#[derive(Clone, Debug)]
pub struct Step {
    pub kind: StepKind,
    pub key: StepKey,
    /// Readable: `quantize tiny-qwen2 int8_wo`.
    pub label: String,
    pub model: String,
    /// The step whose output stands for `fetch`, `quantize`, `build` and `render`, in this order, as far as they exist
    /// before this step.
    pub chain: Vec<usize>,
    /// The steps that this one reads, in the order of the chain.
    pub inputs: Vec<usize>,
    /// What its templates are rendered with.
    pub values: Arc<Values>,
    /// What decides its key besides its inputs; see [`Plan::material`].
    pub decided: Arc<Decided>,
    /// The load points behind it, in [`Plan::points`]; only a server has any.
    pub points: Vec<usize>,
    pub state: State,
}

/// Whether a step or a load point has work to do, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum State {
    Cached,
    /// Missing, but nothing that is to be done reads it.
    NotNeeded,
    Run,
    /// An earlier output exists, made under other conditions.
    Stale {
        changes: Vec<Change>,
    },
}

/// One load point of one cell in one round.
#[derive(Clone, Debug)]
pub struct Point {
    /// Index into [`Plan::cells`].
    pub cell: usize,
    /// `c4`, or `c4-r2` in later rounds: the folder's name.
    pub name: String,
    pub load: Arc<LoadPoint>,
    /// What the prompts are drawn from: the sha256 of a file's prompts, or the key of the model whose tokenizer makes them.
    pub data: Arc<str>,
    /// Index into [`Plan::series`].
    pub series: Option<usize>,
    pub state: PointState,
}

/// Load points of one cell and phase of which the outcomes so far decide which one is measured next.
///
/// All that may ever be measured are in the plan, with their keys: a run only chooses among them.
#[derive(Clone, Debug)]
pub struct PlannedSeries {
    pub rule: Arc<Series>,
    /// In [`Plan::points`].
    pub points: Range<usize>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PointState {
    Planned {
        key: StepKey,
        state: State,
    },
    /// Of a series: measured if those before it ask for it.
    Possible {
        key: StepKey,
    },
    /// Not to be measured; the reason is the cell's or the phase's own.
    Unsupported {
        because: Arc<str>,
    },
    /// The manifest leaves its cell out.
    Excluded {
        because: Arc<str>,
    },
    NotChosen,
}

/// How much of a plan there is to do.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Summary {
    pub cells: usize,
    pub excluded: usize,
    pub unsupported: usize,
    pub steps_to_run: usize,
    pub servers_to_start: usize,
    pub points: usize,
    pub points_to_measure: usize,
    /// The most that one server takes.
    pub gpus: u32,
}

impl State {
    #[must_use]
    pub fn has_work(&self) -> bool {
        match self {
            Self::Cached | Self::NotNeeded => false,
            Self::Run | Self::Stale { .. } => true,
        }
    }
}

impl Point {
    /// The key, when the point is or may be measured.
    #[must_use]
    pub fn key(&self) -> Option<&StepKey> {
        match &self.state {
            PointState::Planned { key, .. } | PointState::Possible { key } => Some(key),
            PointState::Unsupported { .. } | PointState::Excluded { .. } | PointState::NotChosen => None,
        }
    }

    #[must_use]
    pub fn has_work(&self) -> bool {
        match &self.state {
            PointState::Planned { state, .. } => state.has_work(),
            PointState::Possible { .. }
            | PointState::Unsupported { .. }
            | PointState::Excluded { .. }
            | PointState::NotChosen => false,
        }
    }

    /// Whether it is measured or its result is there; one of a series only once that is known.
    #[must_use]
    pub fn is_planned(&self) -> bool {
        matches!(self.state, PointState::Planned { .. })
    }
}

impl Plan {
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary { cells: self.cells.len(), ..Summary::default() };
        for cell in &self.cells {
            match cell.state {
                CellState::Excluded { .. } => summary.excluded += 1,
                CellState::Unsupported { .. } => summary.unsupported += 1,
                CellState::Planned { .. } => summary.gpus = summary.gpus.max(cell.gpus),
                CellState::NotChosen => {}
            }
        }
        for step in self.steps.iter().filter(|step| step.state.has_work()) {
            match step.kind {
                StepKind::Bench => summary.servers_to_start += 1,
                StepKind::Fetch | StepKind::Quantize | StepKind::Build | StepKind::Render => summary.steps_to_run += 1,
            }
        }
        summary.points = self.points.iter().filter(|point| point.is_planned()).count();
        summary.points_to_measure = self.points.iter().filter(|point| point.has_work()).count();
        summary
    }

    /// The load points behind a server, by its step's index.
    pub fn points_of(&self, server: usize) -> impl Iterator<Item = (usize, &Point)> {
        self.steps[server].points.iter().map(|&index| (index, &self.points[index]))
    }

    /// The index of the step that starts a point's server.
    #[must_use]
    pub fn server_of(&self, point: &Point) -> Option<usize> {
        match self.cells[point.cell].state {
            CellState::Planned { server } => Some(server),
            CellState::Excluded { .. } | CellState::Unsupported { .. } | CellState::NotChosen => None,
        }
    }
}
