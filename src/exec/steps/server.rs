use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Job, Message};
use crate::base::CellId;
use crate::event::Event;
use crate::exec::StepError;
use crate::exec::engines::PreparedEngine;
use crate::exec::gpus::CUDA_VISIBLE_DEVICES;
use crate::load::{Target, answers};
use crate::manifest::Runtime;
use crate::observe::{Watch, gpu_memory_mib, visible_gpus, wait_until_idle};
use crate::plan::Step;
use crate::process::{CommandSpec, ExitFacts, PortOwner, Server, free_port};
use crate::recipe::{LoadedRecipe, Part};
use crate::render::Context;
use crate::spec::Protocol;

/// Between two looks at a server that is starting.
const PROBE_PAUSE: Duration = Duration::from_millis(100);
/// How long a server that stopped answering may take to be gone.
const DYING: Duration = Duration::from_secs(3);
/// Between two reads of the server's metrics.
const PAGE_PAUSE: Duration = Duration::from_secs(1);
/// The last log lines, which an error quotes, and among how many of them it looks for errors before these.
const QUOTED_LINES: usize = 20;
const SEARCHED_LINES: usize = 400;
/// Errors that are quoted from before.
const QUOTED_ERRORS: usize = 3;

/// A server that is up, ready and proven to be the one that was started.
pub(super) struct Running {
    /// `None` for a server that was up before and stays up.
    server: Option<Server>,
    /// Index into the prepared engines.
    engine: usize,
    values: Context,
    cell: CellId,
    logs: PathBuf,
    /// In a container, whose processes are not ours to look into.
    contained: bool,
    gpu_memory_mib_before: Option<f64>,
    /// For how long requests that were given up may go on in it.
    left_behind: Option<Duration>,
}

/// Starts the server of a bench step and waits until it is ready.
pub(super) async fn start(job: &Job, index: usize, cancel: &CancellationToken) -> Result<Running, StepError> {
    let step = &job.prepared.plan.steps[index];
    let began = Instant::now();
    let (values, ports) = choose_ports(job, step)?;
    let PreparedEngine { recipe, runtime, .. } = job.engine(step);
    let rendered = recipe.render(Part::Server, &values)?.unwrap_or_default();
    let planned = &job.prepared.plan.cells[job.cells_of(index)[0]];
    let cell = planned.id.clone();
    let logs = job.log_folder(index)?;
    let server = if rendered.command.is_empty() {
        None
    } else {
        let grace = job.prepared.document.value.time_limits.stop.as_std();
        let spec = CommandSpec { grace, ..job.command(step, &rendered, &logs, None) };
        let server = Server::start(&spec).map_err(|source| StepError::Process(Box::new(source)))?;
        let log = spec.stderr();
        let log = log.strip_prefix(&job.run.path).unwrap_or(&log).display().to_string();
        job.tell(Message::Event(Event::ServerStarting { cell: cell.clone(), pid: server.pid(), log }));
        Some(server)
    };
    let contained = matches!(runtime, Runtime::Docker(_));
    let gpus = server.as_ref().map_or_else(Vec::new, |server| gpus_of(server, planned.gpus));
    let mut running = Running {
        server,
        engine: step.values.engine(),
        values,
        cell: cell.clone(),
        logs,
        contained,
        // Its process has only begun: a driver's context alone takes longer than this.
        gpu_memory_mib_before: gpu_memory_mib(gpus),
        left_behind: None,
    };
    let ready = async {
        running.wait_until_ready(job, cancel).await?;
        running.prove_ports(&ports)
    };
    match ready.await {
        Ok(()) => {
            job.tell(Message::Event(Event::ServerReady { cell, seconds: began.elapsed().as_secs_f64() }));
            Ok(running)
        }
        Err(error) => {
            running.stop(job).await;
            Err(error)
        }
    }
}

fn gpus_of(server: &Server, count: u32) -> Vec<String> {
    visible_gpus(count, server.variable(CUDA_VISIBLE_DEVICES).as_deref())
}

fn choose_ports(job: &Job, step: &Step) -> Result<(Context, Vec<u16>), StepError> {
    let mut places = job.places(step);
    let mut ports = Vec::new();
    for name in &job.engine(step).recipe.recipe.server.ports {
        let port = free_port(&places.host).map_err(|source| StepError::Process(Box::new(source)))?;
        places.ports.insert(name.clone(), port.to_string());
        ports.push(port);
    }
    Ok((step.values.with(&places), ports))
}

impl Running {
    fn recipe<'a>(&self, job: &'a Job) -> &'a LoadedRecipe {
        &job.prepared.engines[self.engine].recipe
    }

    /// Whether the manifest says that the server keeps what it computed for earlier prompts; `None` for an engine that does
    /// not know.
    pub(super) fn reuses_prefixes(&self, job: &Job) -> Option<bool> {
        self.recipe(job).reuses_prefixes(&self.values).ok().flatten()
    }

    /// Where requests of a protocol go: to this server, and to nobody else.
    pub(super) fn target(&self, job: &Job, protocol: Protocol) -> Result<Target, StepError> {
        let endpoint = self.recipe(job).endpoint(protocol, &self.values)?;
        let (base_url, model) = endpoint.ok_or(StepError::NoProtocol { protocol })?;
        let target = Target { protocol, base_url, model };
        self.prove_port(target.port()?)?;
        Ok(target)
    }

    /// What to watch while a load point is measured.
    pub(super) fn watch(&self, job: &Job, model: String, gpus: u32, series: PathBuf) -> Result<Watch, StepError> {
        Ok(Watch {
            metrics_url: self.recipe(job).metrics_url(&self.values)?,
            statistics_url: self.recipe(job).statistics_url(&self.values)?,
            pause: PAGE_PAUSE,
            model,
            series,
            // A container's client is not the server.
            processes: self.server.as_ref().filter(|_| !self.contained).map(Server::processes),
            gpus: self.server.as_ref().map_or_else(Vec::new, |server| gpus_of(server, gpus)),
            gpu_memory_mib_before: self.gpu_memory_mib_before,
        })
    }

    /// Requests were given up, which may go on for so long.
    pub(super) fn leave_behind(&mut self, longest: Duration) {
        self.left_behind = Some(longest);
    }

    /// Waits until nothing is left of requests that were given up: they would slow the next ones down.
    pub(super) async fn settle(&mut self, job: &Job, cancel: &CancellationToken) -> Result<(), StepError> {
        let Some(longest) = self.left_behind.take() else { return Ok(()) };
        let Some(url) = self.recipe(job).metrics_url(&self.values)? else { return Ok(()) };
        let began = Instant::now();
        let idle = cancel.run_until_cancelled(wait_until_idle(&url, longest)).await.ok_or(StepError::Interrupted)?;
        let seconds = began.elapsed().as_secs_f64();
        let message = if idle {
            format!("requests were given up: waited {seconds:.0} s for the server to be idle")
        } else {
            format!(
                "requests were given up, and after {seconds:.0} s the server still works on them: what follows is slower"
            )
        };
        job.tell(Message::Event(Event::Warning { cell: Some(self.cell.clone()), message }));
        Ok(())
    }

    /// How the server ended, if it has, as the error of whatever it was doing.
    pub(super) fn lost(&self, job: &Job) -> Option<StepError> {
        let facts = self.server.as_ref()?.try_exited()?;
        let (log, hints) = self.quoted(job);
        Some(StepError::ServerLost { exit: facts.exit.to_string(), log, path: self.logs.clone(), hints })
    }

    /// Why the server cannot have served to the end: it is gone, or it no longer answers as ready.
    pub(super) async fn lost_after_load(&mut self, job: &Job) -> Option<StepError> {
        for url in self.recipe(job).ready_urls(&self.values).unwrap_or_default() {
            if !answers(&url).await {
                // A dying server closes its port before it is gone.
                let _ = tokio::time::timeout(DYING, self.exited()).await;
                let (log, hints) = self.quoted(job);
                let unknown = || format!("unknown status: `{url}` does not answer any more");
                let facts = self.server.as_ref().and_then(Server::try_exited);
                let exit = facts.map_or_else(unknown, |facts| facts.exit.to_string());
                return Some(StepError::ServerLost { exit, log, path: self.logs.clone(), hints });
            }
        }
        self.lost(job)
    }

    /// Waits until the process has ended; for ever where it is not ours.
    pub(super) async fn exited(&mut self) -> ExitFacts {
        match &mut self.server {
            Some(server) => server.exited().await,
            None => std::future::pending().await,
        }
    }

    /// Stops the server and everything it started, if it was started here.
    pub(super) async fn stop(self, job: &Job) {
        let began = Instant::now();
        let Some(server) = self.server else { return };
        server.stop().await;
        job.tell(Message::Event(Event::ServerStopped { cell: self.cell, seconds: began.elapsed().as_secs_f64() }));
    }

    async fn wait_until_ready(&mut self, job: &Job, cancel: &CancellationToken) -> Result<(), StepError> {
        let limit = job.prepared.document.value.time_limits.ready.as_std();
        let deadline = tokio::time::Instant::now() + limit;
        let mut missing = self.recipe(job).ready_urls(&self.values)?;
        missing.reverse();
        while let Some(url) = missing.last() {
            let probe = async {
                let ready = answers(url).await;
                if !ready {
                    tokio::time::sleep(PROBE_PAUSE).await;
                }
                ready
            };
            tokio::select! {
                facts = self.exited() => return Err(self.died(job, facts)),
                () = cancel.cancelled() => return Err(StepError::Interrupted),
                () = tokio::time::sleep_until(deadline) => return Err(self.not_ready(job, limit, url)),
                ready = probe => if ready { missing.pop(); },
            }
        }
        Ok(())
    }

    /// The answers may have come from another program that took a port first.
    fn prove_ports(&self, ports: &[u16]) -> Result<(), StepError> {
        ports.iter().try_for_each(|&port| self.prove_port(port))
    }

    fn prove_port(&self, port: u16) -> Result<(), StepError> {
        let Some(server) = &self.server else { return Ok(()) };
        let owner = server.owns_port(port).map_err(|source| StepError::Process(Box::new(source)))?;
        match owner {
            PortOwner::Ours => Ok(()),
            PortOwner::NotListening => Err(StepError::NobodyListens { port }),
            // The port was free before; more cannot be known of a container from outside.
            PortOwner::Other { .. } | PortOwner::Unknown if self.contained => Ok(()),
            PortOwner::Other { pid, name } => {
                Err(StepError::ForeignServer { port, owner: format!("`{name}` (pid {pid})") })
            }
            PortOwner::Unknown => Err(StepError::ForeignServer { port, owner: "a process of another user".to_owned() }),
        }
    }

    fn died(&self, job: &Job, facts: ExitFacts) -> StepError {
        let (log, hints) = self.quoted(job);
        StepError::ServerDied { exit: facts.exit.to_string(), log, path: self.logs.clone(), hints }
    }

    fn not_ready(&self, job: &Job, limit: Duration, url: &str) -> StepError {
        let (log, mut hints) = self.quoted(job);
        hints.push(match self.server {
            Some(_) => "raise `time_limits.ready` if it was still loading".to_owned(),
            None => "start the server, or correct its address: this engine deploys nothing".to_owned(),
        });
        let missing = format!("`{url}` does not answer with status 200");
        StepError::NotReady { seconds: limit.as_secs(), missing, log, path: self.logs.clone(), hints }
    }

    fn quoted(&self, job: &Job) -> (String, Vec<String>) {
        let log = self.server.as_ref().map(|server| quote(&server.log_tail(SEARCHED_LINES))).unwrap_or_default();
        let hints = self.recipe(job).hints(&log).into_iter().map(str::to_owned).collect();
        (log, hints)
    }
}

/// The last lines, and the last errors before them: a server that unloads what it had loaded says much after its error.
fn quote(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let (before, last) = lines.split_at(lines.len().saturating_sub(QUOTED_LINES));
    let mut quoted: Vec<&str> =
        before.iter().rev().copied().filter(|line| is_error(line)).take(QUOTED_ERRORS).collect();
    quoted.reverse();
    quoted.extend(last);
    quoted.join("\n")
}

/// As most programs write an error, and as Google's logging library does, which Triton writes with: `E1122 09:21:26.405112`.
fn is_error(line: &str) -> bool {
    let marked = line.strip_prefix('E').and_then(|rest| rest.split_once(' '));
    marked.is_some_and(|(date, _)| date.len() == 4 && date.bytes().all(|byte| byte.is_ascii_digit()))
        || line.to_lowercase().contains("error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_errors_are_quoted_with_the_last_lines() {
        let mut log = vec!["E1121 one", "Error: two", "fine", "E1122 three", "RuntimeError: four", "Einstein 1905"];
        log.extend(["unloading"; QUOTED_LINES]);
        let expected = ["Error: two", "E1122 three", "RuntimeError: four"];
        assert_eq!(quote(&log.join("\n")), [&expected[..], &["unloading"; QUOTED_LINES]].concat().join("\n"));
        assert_eq!(quote("Error: one\ntwo"), "Error: one\ntwo");
        assert_eq!(quote(""), "");
    }
}
