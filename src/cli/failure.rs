use std::io;
use std::path::PathBuf;

use super::exit::Exit;
use crate::base::disk_full_hint;
use crate::dummy::DummyError;
use crate::engine::EngineError;
use crate::exec::{PrepareError, RunError};
use crate::load::LoadError;
use crate::null::NullError;
use crate::plan::PlanError;
use crate::report::ReportError;
use crate::store::StoreError;
use crate::workload::WorkloadError;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Null(#[from] NullError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// Found before anything was sent.
    #[error("cannot use the prompts")]
    Prompts(#[source] WorkloadError),
    #[error("cannot make load points of the command line")]
    LoadPoints(#[source] PlanError),
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
    #[error("cannot {doing} `{}`", .path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make a model in `{}`", .path.display())]
    Dummy { path: PathBuf, source: DummyError },
    #[error("{0}")]
    Refused(String),
    #[error("{problem}")]
    Usage { problem: String, hint: String },
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Self::Prepare(_) | Self::Prompts(_) | Self::LoadPoints(_) | Self::Refused(_) => Exit::Refused,
            Self::Run(_)
            | Self::Store(_)
            | Self::Report(_)
            | Self::Engine(_)
            | Self::Null(_)
            | Self::Load(_)
            | Self::Workload(_)
            | Self::File { .. }
            | Self::Stdout(_)
            | Self::Dummy { .. } => Exit::Failed,
            Self::Runtime(_) => Exit::OurBug,
            Self::Usage { .. } => Exit::Usage,
        }
    }

    pub(super) fn hint(&self) -> Option<String> {
        disk_full_hint(self).or_else(|| self.own_hint())
    }

    fn own_hint(&self) -> Option<String> {
        match self {
            Self::Prepare(source) => source.hint(),
            Self::Run(RunError::Store(source)) | Self::Store(source) => source.hint(),
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::File { path, source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some(format!("nothing is overwritten: name another file, or remove `{}`", path.display()))
            }
            Self::Run(_)
            | Self::Report(_)
            | Self::Engine(_)
            | Self::Null(_)
            | Self::Load(_)
            | Self::Workload(_)
            | Self::Prompts(_)
            | Self::LoadPoints(_)
            | Self::Stdout(_)
            | Self::Runtime(_)
            | Self::File { .. }
            | Self::Dummy { .. }
            | Self::Refused(_) => None,
        }
    }
}
