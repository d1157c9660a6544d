use std::io;
use std::path::{Path, PathBuf};

use crate::base::StepKey;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} `{}`", .path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot write `{}` as JSON", .path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("interrupted while another run was making `{key}`")]
    Interrupted { key: StepKey },
    #[error("`{}` holds something that is no run of benchrun", .path.display())]
    NotARun { path: PathBuf },
    #[error("no run `{run}` under `{}`", .runs.display())]
    NoSuchRun { run: String, runs: PathBuf },
}

impl StoreError {
    /// Names the path and what was being done to it.
    pub(super) fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |source| Self::Io { doing, path: path.to_owned(), source }
    }

    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("give another folder with `--home DIR` or `BENCHRUN_HOME`".to_owned())
                }
                _ => None,
            },
            Self::NoSuchRun { .. } => Some("`benchrun runs list` shows them".to_owned()),
            Self::NotARun { .. } => Some("give an empty folder".to_owned()),
            Self::Json { .. } | Self::Interrupted { .. } => None,
        }
    }
}
