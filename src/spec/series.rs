use std::fmt;

use serde::{Deserialize, Serialize};

/// Measurements of which those so far decide what is measured next.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// Looks for the highest load that keeps some bounds.
    Search(Search),
    /// Measures one load again until its figures are known well enough.
    Until(Until),
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Search {
    pub of: Searched,
    /// The lowest load, which is tried first.
    pub from: f64,
    /// The highest load.
    pub to: f64,
    /// How far the lowest load that misses a bound may be above the highest that keeps all, as a share of the latter.
    pub precision: f64,
    /// The two loads at the limit are measured up to so many times; most of these decide.
    pub repeats: u32,
    /// After so many seconds of load no further try begins.
    pub budget_s: Option<f64>,
    /// What a load has to keep.
    pub bounds: Vec<Bound>,
}

/// What a search raises.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Searched {
    Concurrency,
    RequestRate,
}

/// Why a search needs no further try.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SearchEnd {
    /// The limit lies between two loads that are close enough.
    Found,
    /// Not even the lowest load kept the bounds.
    BelowRange,
    /// The highest load kept them.
    AboveRange,
    /// The time was used up first.
    OutOfTime,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Until {
    /// Half of the 95 % interval / the mean, at most so much for each of the figures.
    pub half_width: f64,
    pub max_rounds: u32,
    /// Columns of the results.
    pub figures: Vec<String>,
}

/// A bound that a column of the results must keep.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Bound {
    /// A column of the results that holds a number.
    pub column: String,
    /// In the column's unit, as is `max`; a value equal to a bound keeps it.
    pub min: Option<f64>,
    pub max: Option<f64>,
}

impl Searched {
    /// The column of the results that has the load.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency",
            Self::RequestRate => "request_rate",
        }
    }

    /// `concurrency 8`, `8 requests/s`.
    #[must_use]
    pub fn words(self, load: f64) -> String {
        match self {
            Self::Concurrency => format!("concurrency {load}"),
            Self::RequestRate => format!("{load} requests/s"),
        }
    }
}

impl SearchEnd {
    /// The word used in results.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::BelowRange => "below_range",
            Self::AboveRange => "above_range",
            Self::OutOfTime => "out_of_time",
        }
    }
}

/// `search from concurrency 1 to 64, to 5 %, at most 600 s`, `until ± 5 %, at most 10 rounds`.
impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Search(Search { of, from, to, precision, budget_s, .. }) => {
                let range = match of {
                    Searched::Concurrency => format!("concurrency {from} to {to}"),
                    Searched::RequestRate => format!("{from} to {to} requests/s"),
                };
                write!(f, "search {range} to {} %", percent(*precision))?;
                budget_s.map_or(Ok(()), |budget| write!(f, ", at most {budget} s"))
            }
            Self::Until(Until { half_width, max_rounds, .. }) => {
                write!(f, "until ± {} %, at most {max_rounds} rounds", percent(*half_width))
            }
        }
    }
}

/// Three digits after the point at most, as a manifest may have them.
fn percent(share: f64) -> f64 {
    (share * 1e5).round() / 1e3
}
