//! Records to figures: [`Summarizer`] takes a load point's requests one by one and gives its [`Summary`].
//!
//! Unless a figure says otherwise, it is over the *measured* requests with status `ok`: warm-up requests count nowhere,
//! failed and cut-off ones are counted as such and enter nothing else. A figure that is not known, or not defined for
//! what was measured, is `None`, never 0.
//!
//! **Invariant:** no files, clocks or text formats; the same records always give the same figures.

mod certificate;
#[cfg(test)]
pub(crate) mod fixture;
mod percentile;
mod summarizer;
mod summary;
mod threshold;

pub use certificate::{Cadence, ClientLimit, Reported, certify};
pub use percentile::{Distribution, percentile};
pub use summarizer::{Summarizer, summarize};
pub use summary::{
    ClientVerdict, InputTokensDifference, Latency, OutputTokensSource, Rates, Requests, Summary, Trust, Volume,
};
pub use threshold::{Bound, Miss, missed};
