use std::io;
use std::path::PathBuf;

use thiserror::Error;

#[derive(Debug, Error)]
pub enum ReportError {
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A line that is not the last one, or a whole one, is not a record.
    #[error("line {line} of `{}` is not the record of a request", path.display())]
    Request { path: PathBuf, line: u64, source: serde_json::Error },
    #[error("`{}` is not the record of a load point", path.display())]
    Point { path: PathBuf, source: serde_json::Error },
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write the results as CSV")]
    WriteCsv(#[from] csv::Error),
}
