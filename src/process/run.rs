use std::future::pending;
use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::error::ProcessError;
use crate::process::exit::{Exit, ExitFacts};
use crate::process::server::{Server, log_tail};
use crate::process::spec::CommandSpec;

/// A command that ended with exit code 0.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// On the monotonic clock.
    pub seconds: f64,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

/// How many log lines an error quotes.
const QUOTED_LINES: usize = 20;

/// Runs a command to its end.
///
/// At its time limit, or when `cancel` is, the command and everything it started is stopped first: asked, then killed
/// after the grace. What a command leaves running in the background is stopped too.
///
/// # Errors
/// When it cannot be started, ends otherwise than with exit code 0, reaches its time limit or is cancelled.
pub async fn run(spec: &CommandSpec, cancel: &CancellationToken) -> Result<Finished, ProcessError> {
    if cancel.is_cancelled() {
        return Err(ProcessError::Cancelled { program: spec.name() });
    }
    let mut command = Server::start(spec)?;
    tokio::select! {
        facts = command.exited() => finished(spec, facts),
        limit = time_limit(spec) => {
            command.stop().await;
            let (log, tail) = log_tail(spec, QUOTED_LINES);
            Err(ProcessError::TimeLimit { program: spec.name(), limit, log, tail })
        }
        () = cancel.cancelled() => {
            command.stop().await;
            Err(ProcessError::Cancelled { program: spec.name() })
        }
    }
}

async fn time_limit(spec: &CommandSpec) -> Duration {
    let Some(limit) = spec.time_limit else { return pending().await };
    tokio::time::sleep(limit).await;
    limit
}

fn finished(spec: &CommandSpec, facts: ExitFacts) -> Result<Finished, ProcessError> {
    let ExitFacts { exit, seconds } = facts;
    if exit == Exit::Code(0) {
        return Ok(Finished { seconds, stdout: spec.stdout(), stderr: spec.stderr() });
    }
    let (log, tail) = log_tail(spec, QUOTED_LINES);
    Err(ProcessError::Failed { program: spec.name(), exit, seconds, log, tail })
}
