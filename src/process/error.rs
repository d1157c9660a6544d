use std::io;
use std::path::PathBuf;
use std::time::Duration;

use procfs::ProcError;
use thiserror::Error;

use crate::process::exit::Exit;

/// Why a command could not be run, or did not do its work.
#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("program `{program}` was not found on PATH (`{path}`)")]
    NotOnPath { program: String, path: String },
    #[error("program `{}` does not exist", .program.display())]
    NoSuchProgram { program: PathBuf },
    #[error("program `{}` is not an executable file", .program.display())]
    NotExecutable { program: PathBuf },
    #[error("cannot write the log folder `{}`", .folder.display())]
    Logs { folder: PathBuf, source: io::Error },
    #[error("cannot start `{program}`")]
    Start { program: String, source: io::Error },
    #[error("`{program}` ended with {exit} after {seconds:.1} s; {}", last_lines(.log, .tail))]
    Failed {
        program: String,
        exit: Exit,
        seconds: f64,
        log: PathBuf,
        /// The log's last lines, secrets masked; empty when it said nothing.
        tail: String,
    },
    #[error("`{program}` was stopped at its time limit of {} s; {}", .limit.as_secs_f64(), last_lines(.log, .tail))]
    TimeLimit { program: String, limit: Duration, log: PathBuf, tail: String },
    #[error("`{program}` was stopped because the run was interrupted")]
    Cancelled { program: String },
    #[error("`{program}` printed no version")]
    NoVersion { program: String },
    #[error("cannot read the process table under `/proc`")]
    ProcessTable { source: ProcError },
    #[error("cannot find a free port on `{host}`")]
    NoFreePort { host: String, source: io::Error },
}

impl ProcessError {
    /// The next thing to try, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        const SIGKILL: Exit = Exit::Signal(9);
        match self {
            Self::NotOnPath { .. } => Some("install it, add its folder to PATH, or name it by its whole path"),
            Self::NotExecutable { .. } => Some("`chmod +x` it, or name its interpreter as the program"),
            Self::TimeLimit { .. } => Some("raise the time limit if it was still making progress"),
            Self::Failed { exit: SIGKILL, .. } => {
                Some("a SIGKILL from outside is often the kernel out of memory: see `dmesg`")
            }
            Self::NoSuchProgram { .. }
            | Self::Logs { .. }
            | Self::Start { .. }
            | Self::Failed { .. }
            | Self::Cancelled { .. }
            | Self::NoVersion { .. }
            | Self::ProcessTable { .. }
            | Self::NoFreePort { .. } => None,
        }
    }
}

fn last_lines(log: &std::path::Path, tail: &str) -> String {
    let log = log.display();
    if tail.is_empty() {
        return format!("its log `{log}` is empty");
    }
    let mut text = format!("last lines of `{log}`:");
    for line in tail.lines() {
        text.push_str("\n  ");
        text.push_str(line);
    }
    text
}
