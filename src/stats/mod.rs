//! Records to figures: [`Summarizer`] takes a load point's requests one by one and gives its [`Summary`]. [`Interval`] says
//! how sure a figure of several rounds is, and [`Verdict`] what a difference shows. [`series_state`] decides what a search
//! measures next, and whether rounds agree.
//!
//! Unless a figure says otherwise, it is over the *measured* requests with status `ok`: warm-up requests count nowhere,
//! failed and cut-off ones are counted as such and enter nothing else. A figure that is not known, or not defined for
//! what was measured, is `None`, never 0.
//!
//! **Invariant:** no files, clocks or text formats; the same records always give the same figures.

mod bootstrap;
mod certificate;
mod counts;
#[cfg(test)]
pub(crate) mod fixture;
mod goodput;
mod interval;
pub mod lmdeploy;
mod percentile;
mod pool;
mod repeats;
mod search;
mod series;
mod server_said;
mod steady;
mod summarizer;
mod summary;
mod threshold;
mod timing;
mod until;
mod verdict;

pub use bootstrap::percentile_difference;
pub use certificate::{Cadence, ClientLimit, Reported, advice, certify};
pub use counts::{InputTokensDifference, TokensBelowChunks};
pub use goodput::Goodput;
pub use interval::Interval;
pub use percentile::{Distribution, percentile};
pub use repeats::Repeats;
pub use search::{SearchState, SearchStep, search_loads};
pub use series::{Outcome, SeriesState, series_columns, series_state};
pub use server_said::ServerFigures;
pub use steady::Steady;
pub use summarizer::{Samples, Summarizer, summarize};
pub use summary::{ClientVerdict, Latency, OutputTokensSource, Rates, Requests, Summary, Trust, Volume};
pub use threshold::{Miss, missed};
pub use until::UntilState;
pub use verdict::{Verdict, Wanted};
