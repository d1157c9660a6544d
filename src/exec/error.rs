use std::path::PathBuf;

use super::PythonError;
use crate::base::disk_full_hint;
use crate::dummy::DummyError;
use crate::hub::HubError;
use crate::load::LoadError;
use crate::manifest::ReadError;
use crate::matrix::{MatrixError, OnlyError};
use crate::plan::PlanError;
use crate::process::ProcessError;
use crate::recipe::RecipeError;
use crate::record::PointStatus;
use crate::report::ReportError;
use crate::spec::Protocol;
use crate::store::StoreError;
use crate::workload::WorkloadError;

/// Why a manifest was refused before anything ran.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Manifest(#[from] ReadError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Matrix(#[from] MatrixError),
    #[error("cannot choose cells by `--only`")]
    Only(#[from] OnlyError),
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("cannot read model `{model}` at `{}`", .path.display())]
    ModelFolder { model: String, path: PathBuf, source: std::io::Error },
    #[error("cannot make the environment of `runtime.venv`")]
    Python(#[from] PythonError),
    #[error("model `{model}` at `{}` has neither `config.json` nor a `.gguf` file", .path.display())]
    NotAModel { model: String, path: PathBuf },
    #[error("cannot find model `{model}`")]
    Hub { model: String, source: Box<HubError> },
    #[error("cannot read the data of phase `{phase}`")]
    Data { phase: String, source: Box<WorkloadError> },
    #[error("cannot read `{}`", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("program `{}`, which `{step}` needs, is not on this machine", .program.display())]
    NoProgram { program: PathBuf, step: String, hint: Option<String> },
    #[error("`{step}` needs {needed} GPUs, but only {usable} can be used on this machine")]
    TooFewGpus { step: String, needed: u32, usable: u32 },
    #[error("`{what}` is `{now}`, but the lock says `{locked}`")]
    NotAsLocked { what: String, locked: String, now: String },
}

impl PrepareError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Hub { source, .. } => Some(source.hint()),
            Self::NoProgram { hint, .. } => hint.clone(),
            Self::Store(source) => source.hint(),
            Self::Python(source) => source.hint(),
            Self::NotAModel { .. } => Some(
                "give the folder that has `config.json`, the weights and `tokenizer.json`, or a `.gguf` file"
                    .to_owned(),
            ),
            Self::TooFewGpus { .. } => {
                Some("`--only` chooses cells that need fewer; `CUDA_VISIBLE_DEVICES` may hide some".to_owned())
            }
            Self::NotAsLocked { .. } => {
                Some("restore it, or remove the `locked` section to measure what is there now".to_owned())
            }
            Self::Manifest(_)
            | Self::Recipe(_)
            | Self::Matrix(_)
            | Self::Only(_)
            | Self::Plan(_)
            | Self::ModelFolder { .. }
            | Self::Data { .. }
            | Self::File { .. } => None,
        }
    }
}

/// Why a step failed. Its neighbours go on.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error("cannot make the dummy model")]
    Dummy(#[from] DummyError),
    #[error(transparent)]
    Hub(#[from] Box<HubError>),
    #[error(transparent)]
    Python(#[from] PythonError),
    #[error(transparent)]
    Process(#[from] Box<ProcessError>),
    #[error("{source}")]
    Hinted { source: Box<ProcessError>, hints: Vec<String> },
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error("the command succeeded but wrote nothing into its output folder")]
    NoOutput,
    #[error("`{file}` is not what the lock says")]
    NotAsLocked { file: String },
    #[error("cannot write `{}`", .path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot read `{}`", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("the {what} was stopped at its time limit of {seconds} s")]
    TimeLimit { what: &'static str, seconds: u64 },
    #[error("the server exited with {exit} before it was ready\n{log}")]
    ServerDied { exit: String, log: String, path: PathBuf, hints: Vec<String> },
    #[error("the server was not ready after {seconds} s: {missing}\n{log}")]
    NotReady { seconds: u64, missing: String, log: String, path: PathBuf, hints: Vec<String> },
    #[error("port {port} is answered by another program, {owner}, not by the server that was started")]
    ForeignServer { port: u16, owner: String },
    #[error("the server exited with {exit} while it was measured\n{log}")]
    ServerLost { exit: String, log: String, path: PathBuf, hints: Vec<String> },
    #[error("nobody listens on port {port}, although the server answers as ready")]
    NobodyListens { port: u16 },
    #[error("the recipe has no address for protocol `{protocol}`")]
    NoProtocol { protocol: Protocol },
    #[error("no request succeeded; the first error is {error}")]
    NoGoodAnswer { error: String },
    #[error("the load point was cut off at its time limit of {seconds} s")]
    PointTimeout { seconds: f64 },
    #[error("interrupted")]
    Interrupted,
}

impl StepError {
    /// Whether the step was stopped by us, through no fault of its own.
    pub(super) fn is_interruption(&self) -> bool {
        match self {
            Self::Interrupted
            | Self::Store(StoreError::Interrupted { .. })
            | Self::Python(PythonError::Interrupted) => true,
            Self::Hub(source) => matches!(**source, HubError::Cancelled),
            _ => false,
        }
    }

    /// The whole chain of causes with what to try next, for the event log and the terminal.
    #[must_use]
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            let said = source.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}\ncaused by: {said}");
            }
            cause = source.source();
        }
        for hint in self.hints().into_iter().chain(disk_full_hint(self)) {
            text = format!("{text}\nhint: {hint}");
        }
        text
    }

    /// The status of a load point that this kept from being measured.
    #[must_use]
    pub fn point_status(&self) -> PointStatus {
        if self.is_interruption() { PointStatus::Skipped } else { PointStatus::Failed }
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Hub(source) => vec![source.hint()],
            Self::Python(source) => source.hint().into_iter().collect(),
            Self::Process(source) => source.hint().map(ToOwned::to_owned).into_iter().collect(),
            Self::Hinted { hints, .. } => hints.clone(),
            Self::Store(source) => source.hint().into_iter().collect(),
            Self::ServerDied { hints, path, .. }
            | Self::NotReady { hints, path, .. }
            | Self::ServerLost { hints, path, .. } => {
                let mut hints = hints.clone();
                hints.push(format!("the logs are in `{}`", path.display()));
                hints
            }
            Self::PointTimeout { .. } => {
                vec!["raise the phase's `point_timeout`, or ask for fewer requests".to_owned()]
            }
            Self::TimeLimit { .. } => vec!["raise it under `time_limits`".to_owned()],
            Self::ForeignServer { .. } => {
                vec!["stop that program, or run the same command again: each try takes fresh ports".to_owned()]
            }
            Self::Dummy(_)
            | Self::Recipe(_)
            | Self::Load(_)
            | Self::Workload(_)
            | Self::Report(_)
            | Self::NoOutput
            | Self::NotAsLocked { .. }
            | Self::Write { .. }
            | Self::Read { .. }
            | Self::NobodyListens { .. }
            | Self::NoProtocol { .. }
            | Self::NoGoodAnswer { .. }
            | Self::Interrupted => Vec::new(),
        }
    }
}

/// Why a run could not be kept. What was measured so far is on disk.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Report(#[from] ReportError),
    #[error(transparent)]
    Step(#[from] StepError),
}
