//! What happened in a run: owned, serialisable, written as JSON lines while it happens and shown by `progress`.
//!
//! **Invariant:** an event carries facts, never formatted text for a terminal.

use serde::{Deserialize, Serialize};

use crate::base::{CellId, StepKey};
use crate::spec::{SearchEnd, Searched};

/// One line of `events.jsonl`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Stamped {
    /// UTC, RFC 3339 with milliseconds.
    pub time: String,
    /// Seconds since the run began, on the monotonic clock.
    pub elapsed_s: f64,
    #[serde(flatten)]
    pub event: Event,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Fetch,
    Quantize,
    Build,
    Render,
    Bench,
}

impl StepKind {
    pub const ALL: [Self; 5] = [Self::Fetch, Self::Quantize, Self::Build, Self::Render, Self::Bench];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Quantize => "quantize",
            Self::Build => "build",
            Self::Render => "render",
            Self::Bench => "bench",
        }
    }
}

/// How a step or a load point ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum Outcome {
    Done,
    /// It was there already; nothing ran.
    Cached,
    Failed {
        /// The whole chain of causes, one line each.
        error: String,
    },
    /// An input failed, or the run was interrupted before it began.
    Skipped {
        because: String,
    },
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    RunStarted {
        run: String,
        manifest: String,
        cells: u64,
        /// Steps that have work to do.
        steps: u64,
        /// Load points that have work to do, warm-up not counted.
        points: u64,
    },
    StepStarted {
        kind: StepKind,
        key: StepKey,
        /// Readable: `quantize tiny-qwen2 int8_wo`.
        label: String,
    },
    /// Bytes of a download, or of any other step that can count its work.
    StepProgress {
        key: StepKey,
        done: u64,
        /// `None` while unknown.
        total: Option<u64>,
        /// What is counted: `bytes`.
        unit: String,
    },
    StepFinished {
        kind: StepKind,
        key: StepKey,
        label: String,
        seconds: f64,
        #[serde(flatten)]
        outcome: Outcome,
    },
    ServerStarting {
        cell: CellId,
        pid: u32,
        /// Where the server's log goes, relative to the run directory.
        log: String,
    },
    ServerReady {
        cell: CellId,
        seconds: f64,
    },
    ServerStopped {
        cell: CellId,
        seconds: f64,
    },
    PointStarted {
        cell: CellId,
        phase: String,
        /// Readable: `c4`, `c4 round 2`.
        point: String,
        /// Requests to come, warm-up included; `None` when a duration ends the point.
        requests: Option<u64>,
    },
    PointProgress {
        cell: CellId,
        phase: String,
        point: String,
        /// Requests ended so far, warm-up included.
        requests: u64,
    },
    PointFinished {
        cell: CellId,
        phase: String,
        point: String,
        seconds: f64,
        #[serde(flatten)]
        outcome: Outcome,
    },
    /// A search needs no further try.
    SearchEnded {
        cell: CellId,
        phase: String,
        of: Searched,
        end: SearchEnd,
        /// The highest load that kept the thresholds.
        limit: Option<f64>,
        /// The lowest that did not.
        missed_at: Option<f64>,
        tries: u64,
        /// Seconds under load, warm-up included.
        load_s: f64,
    },
    /// The rounds of a load point agree, or there are to be no more of them.
    RoundsEnded {
        cell: CellId,
        phase: String,
        /// Without the round: `c4`.
        point: String,
        rounds: u64,
        /// The largest (half of the 95 % interval / mean) of the figures that count.
        half_width: Option<f64>,
        /// They agree as closely as was asked for.
        enough: bool,
    },
    /// Something a reader of the results should know; said once.
    Warning {
        cell: Option<CellId>,
        message: String,
    },
    /// The first Ctrl-C or SIGTERM: nothing new starts, what runs winds down.
    Interrupted,
    RunFinished {
        ok: u64,
        failed: u64,
        unsupported: u64,
        skipped: u64,
        /// Rows taken from earlier runs because nothing that decides them has changed.
        cached: u64,
        seconds: f64,
    },
}
