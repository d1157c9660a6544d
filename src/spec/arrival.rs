use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When requests are sent; with data of several turns, when conversations begin.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// Closed loop: so many requests under way at any time, each sent when another has ended.
    Closed { concurrency: u32 },
    /// Closed loop whose concurrency changes with time.
    ClosedStages { stages: Vec<ConcurrencyStage> },
    /// Open loop: requests are due at moments that do not depend on the answers.
    Open {
        spacing: Spacing,
        /// Requests a second.
        rate: f64,
        /// At most so many under way; a request that is due meanwhile waits, and its wait is on its record.
        max_concurrency: Option<u32>,
    },
    /// Open loop whose rate changes with time.
    OpenStages { spacing: Spacing, stages: Vec<RateStage>, max_concurrency: Option<u32> },
    /// Open loop at the moments of a trace.
    Trace {
        /// 2 replays it in half the time.
        speed: f64,
        max_concurrency: Option<u32>,
    },
}

/// How the gaps between due requests are distributed around their mean, 1 / rate.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Spacing {
    /// All gaps are equal.
    Constant,
    /// Exponential gaps: requests of many independent users.
    #[default]
    Poisson,
    /// Gamma distributed gaps.
    Gamma(Gamma),
}

/// Gamma distributed gaps.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gamma {
    /// The shape of the distribution: 1 is Poisson, less comes in bursts, more is more even.
    #[schemars(range(min = 0.001, max = 1000.0))]
    pub burstiness: f64,
}

/// So many requests under way for so long.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct ConcurrencyStage {
    pub concurrency: u32,
    pub duration_s: f64,
}

/// A rate that goes from one value to another along a straight line.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct RateStage {
    /// Requests a second at the stage's start.
    pub from: f64,
    /// Requests a second at its end.
    pub to: f64,
    pub duration_s: f64,
}

impl Spacing {
    /// The word used in result rows.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
            Self::Gamma(_) => "gamma",
        }
    }
}

impl Arrival {
    /// The word used in result rows.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Closed { .. } | Self::ClosedStages { .. } => "closed",
            Self::Open { spacing, .. } | Self::OpenStages { spacing, .. } => spacing.name(),
            Self::Trace { .. } => "trace",
        }
    }

    /// The most requests that may be under way at a time; `None` without such a bound.
    #[must_use]
    pub fn concurrency(&self) -> Option<u32> {
        match self {
            Self::Closed { concurrency } => Some(*concurrency),
            Self::ClosedStages { stages } => stages.iter().map(|stage| stage.concurrency).max(),
            Self::Open { max_concurrency, .. }
            | Self::OpenStages { max_concurrency, .. }
            | Self::Trace { max_concurrency, .. } => *max_concurrency,
        }
    }

    /// Requests a second asked for, where that is one number.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        match self {
            Self::Open { rate, .. } => Some(*rate),
            Self::Closed { .. } | Self::ClosedStages { .. } | Self::OpenStages { .. } | Self::Trace { .. } => None,
        }
    }

    #[must_use]
    pub fn is_open_loop(&self) -> bool {
        match self {
            Self::Closed { .. } | Self::ClosedStages { .. } => false,
            Self::Open { .. } | Self::OpenStages { .. } | Self::Trace { .. } => true,
        }
    }

    /// Whether the load is meant to be the same from beginning to end.
    #[must_use]
    pub fn is_constant(&self) -> bool {
        match self {
            Self::Closed { .. } | Self::Open { .. } => true,
            Self::ClosedStages { .. } | Self::OpenStages { .. } | Self::Trace { .. } => false,
        }
    }

    /// What tells load points of one phase apart: `c8`, `rate2.5`, `stages`, `trace`.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Closed { concurrency } => format!("c{concurrency}"),
            Self::Open { rate, .. } => format!("rate{rate}"),
            Self::ClosedStages { .. } | Self::OpenStages { .. } => "stages".to_owned(),
            Self::Trace { .. } => "trace".to_owned(),
        }
    }
}
