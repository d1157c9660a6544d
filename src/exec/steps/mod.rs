//! One file a kind of step. A step returns when its output is in the store, or says why it is not.

mod bench;
mod certify;
mod command;
mod fetch;
mod point;
mod reuse;
mod series;
mod server;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use indexmap::IndexMap;
use tokio::sync::{RwLock, mpsc};
use tokio_util::sync::CancellationToken;

use super::container::{self, Contained, Mount};
use super::engines::PreparedEngine;
use super::programs::before;
use super::{Prepared, StepError};
use crate::event::{Event, StepKind};
use crate::manifest::Runtime;
use crate::plan::{Places, Step};
use crate::process::{CommandSpec, EnvValue};
use crate::recipe::Rendered;
use crate::store::{Hold, Lock, RunFolder, Store};

/// What a step tells the run's task.
#[derive(Debug)]
pub(super) enum Message {
    Event(Event),
    /// The files of a model are known: sha256 by path.
    Files {
        model: String,
        files: BTreeMap<String, String>,
    },
    /// The sha256 of a load point's exact prompts and settings.
    Workload {
        point: usize,
        hash: String,
    },
    /// The load point at this index of the plan has its folder in the run.
    Point {
        index: usize,
    },
}

/// What all steps of a run share.
pub(super) struct Job {
    pub prepared: Arc<Prepared>,
    pub store: Store,
    pub run: RunFolder,
    /// Unbounded: messages are few and small, and the run's task does nothing else but read them.
    pub messages: mpsc::UnboundedSender<Message>,
    /// Held for writing by a measurement, for reading by everything else: a measurement has the host to itself.
    pub host: RwLock<()>,
    /// Commands use all cores or GPUs by themselves: one at a time.
    pub commands: tokio::sync::Mutex<()>,
    /// Kinds of steps to do anew, whatever the store holds.
    pub rerun: HashSet<StepKind>,
}

/// Runs the step at this index of the plan. `began` is set when its turn has come.
pub(super) async fn run(
    job: &Job,
    index: usize,
    began: &mut Option<Instant>,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    let step = &job.prepared.plan.steps[index];
    let mut start = || {
        *began = Some(Instant::now());
        let (kind, key, label) = (step.kind, step.key.clone(), step.label.clone());
        job.tell(Message::Event(Event::StepStarted { kind, key, label }));
        if cancel.is_cancelled() { Err(StepError::Interrupted) } else { Ok(()) }
    };
    match step.kind {
        StepKind::Bench => {
            let _alone = job.host.write().await;
            let _in_all_runs = hold_host(job, Hold::Alone, cancel).await?;
            start()?;
            bench::run(job, index, cancel).await
        }
        StepKind::Fetch => {
            let _shared = job.host.read().await;
            let _in_all_runs = hold_host(job, Hold::Shared, cancel).await?;
            start()?;
            fetch::run(job, step, cancel).await
        }
        StepKind::Quantize | StepKind::Build | StepKind::Render => {
            let _one_at_a_time = job.commands.lock().await;
            let _shared = job.host.read().await;
            let _in_all_runs = hold_host(job, Hold::Shared, cancel).await?;
            start()?;
            command::run(job, index, cancel).await
        }
    }
}

/// The host as other runs see it, whatever their home folders: a measurement has it alone, builds share it.
async fn hold_host(job: &Job, hold: Hold, cancel: &CancellationToken) -> Result<Lock, StepError> {
    let user = rustix::process::getuid().as_raw();
    let path = std::env::temp_dir().join(format!("benchrun-{user}.lock"));
    if let Some(lock) = Lock::try_acquire(&path, hold)? {
        return Ok(lock);
    }
    // It may take hours, and a program that says nothing looks as if it hung.
    let message = format!("another benchrun has this machine; waiting for `{}`", path.display());
    job.tell(Message::Event(Event::Warning { cell: None, message }));
    Lock::acquire(&path, hold, cancel).await?.ok_or(StepError::Interrupted)
}

impl Job {
    pub(super) fn tell(&self, message: Message) {
        // The receiver is gone only when the run has failed as a whole.
        let _ = self.messages.send(message);
    }

    fn is_rerun(&self, kind: StepKind) -> bool {
        self.rerun.contains(&kind)
    }

    /// The engine whose recipe, programs and runtime a step has.
    fn engine(&self, step: &Step) -> &PreparedEngine {
        self.prepared.engine(step)
    }

    /// Where the outputs lie that a step may read.
    fn places(&self, step: &Step) -> Places {
        let roles = ["fetch", "quantize", "build", "render"];
        let folder = |&index: &usize| self.prepared.output(&self.store, index).display().to_string();
        Places {
            folders: roles.into_iter().zip(step.chain.iter().map(folder)).collect(),
            host: self.engine(step).runtime.listen().to_owned(),
            ports: BTreeMap::new(),
        }
    }

    /// The environment of a command: the PATH of its Python environment, the runtime's variables, then its own.
    fn environment(&self, step: &Step, own: IndexMap<String, String>) -> IndexMap<String, EnvValue> {
        let PreparedEngine { runtime, venv, .. } = self.engine(step);
        let venv = venv.iter().flat_map(|venv| {
            let path = before(&venv.bin, &self.prepared.path).to_string_lossy().into_owned();
            [("PATH".to_owned(), path)]
        });
        let runtime = runtime.env().clone();
        venv.chain(runtime).chain(own).map(|(name, value)| (name, EnvValue::Plain(value))).collect()
    }

    /// How a part of a recipe is started: on this machine as it is, or in a container that sees the model, the store and
    /// the folder that it writes to.
    fn command(&self, step: &Step, rendered: &Rendered, logs: &Path, output: Option<&Path>) -> CommandSpec {
        let words = rendered.command.split_first();
        let (program, args) = words.map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
        let PreparedEngine { recipe, runtime, programs, .. } = self.engine(step);
        // A missing one keeps its name, for the error to tell.
        let found = programs.get(program).and_then(|found| found.path.clone()).unwrap_or_else(|| program.into());
        let Runtime::Docker(docker) = runtime else {
            let env = self.environment(step, rendered.env.clone());
            return CommandSpec { args: args.to_vec(), env, ..CommandSpec::new(found, logs) };
        };
        let mount = |folder: PathBuf, writable| Mount { folder, writable };
        let model = container::folder_of_model(&self.prepared.output(&self.store, step.chain[0]));
        let mut mounts = vec![mount(self.store.root().to_owned(), false)];
        if !model.starts_with(self.store.root()) {
            mounts.push(mount(model, false));
        }
        mounts.extend(output.map(|output| mount(output.to_owned(), true)));
        let own = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let name = format!("benchrun-{}-{}", std::process::id(), &step.key.as_str()[..12]);
        let contained = Contained {
            runtime: docker,
            name: name.clone(),
            mounts,
            program: &recipe.recipe.programs[program].program,
            args,
            env: rendered.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
            own_user: format!("{}:{}", own.0, own.1),
        };
        let remove = std::iter::once(found.display().to_string()).chain(container::remove_arguments(&name));
        let args = container::run_arguments(&contained);
        CommandSpec { args, afterwards: remove.collect(), ..CommandSpec::new(found, logs) }
    }

    /// Cells whose server reads the output of this step, or is it.
    fn cells_of(&self, index: usize) -> Vec<usize> {
        let plan = &self.prepared.plan;
        let servers =
            plan.steps.iter().enumerate().filter(|(server, step)| {
                step.kind == StepKind::Bench && (*server == index || step.chain.contains(&index))
            });
        servers.flat_map(|(server, _)| self.prepared.cells_of(server)).collect()
    }

    /// The folder for a step's logs: in its first cell, with links from the other cells that share the step.
    fn log_folder(&self, index: usize) -> Result<PathBuf, StepError> {
        let kind = self.prepared.plan.steps[index].kind.name();
        let cells = self.cells_of(index);
        let of_cell = |cell: usize| self.run.cell(&self.prepared.plan.cells[cell].id).join("logs");
        let first = of_cell(cells[0]).join(kind);
        let write = |path: &Path, source| StepError::Write { path: path.to_owned(), source };
        std::fs::create_dir_all(&first).map_err(|source| write(&first, source))?;
        for &cell in &cells[1..] {
            let folder = of_cell(cell);
            std::fs::create_dir_all(&folder).map_err(|source| write(&folder, source))?;
            let link = folder.join(kind);
            if !link.exists() {
                // Relative, so that a run can be moved.
                let inside = |path: &Path| path.strip_prefix(&self.run.path).map(ToOwned::to_owned);
                let target = match (inside(&folder), inside(&first)) {
                    (Ok(from), Ok(to)) => from.components().map(|_| "..").collect::<PathBuf>().join(to),
                    _ => first.clone(),
                };
                std::os::unix::fs::symlink(&target, &link).map_err(|source| write(&link, source))?;
            }
        }
        Ok(first)
    }
}
