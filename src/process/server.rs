use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use procfs::process::Process;
use tokio::sync::watch;

use crate::process::error::ProcessError;
use crate::process::exit::{Exit, ExitFacts};
use crate::process::family::ProcessTree;
use crate::process::log::tail;
use crate::process::ports::{PortOwner, port_owner};
use crate::process::program::resolve_program;
use crate::process::record::CommandRecord;
use crate::process::spec::CommandSpec;
use crate::process::supervise::{end_order, watch_arguments};

/// Tries to read a new program's environment, each a millisecond longer after the one before.
const ENVIRONMENT_LOOKS: u64 = 20;

/// A program that is up, with all that it starts.
///
/// Dropping it kills them all without asking; [`Server::stop`] asks first and waits until they are gone.
pub struct Server {
    spec: CommandSpec,
    supervisor: Arc<duct::Handle>,
    pid: u32,
    /// Only this process holds the write end, so that the supervisor sees our end whatever its cause.
    orders: PipeWriter,
    ended: watch::Receiver<Option<ExitFacts>>,
}

impl Server {
    /// Starts the program.
    ///
    /// # Errors
    /// When the program cannot be found or executed, or its log folder cannot be written. What goes wrong in the
    /// program itself, however early, is told by [`Server::exited`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(spec: &CommandSpec) -> Result<Self, ProcessError> {
        let program = program_file(spec)?;
        let record = CommandRecord::new(spec);
        let logs_failed = |source| ProcessError::Logs { folder: spec.logs.clone(), source };
        record.write(&spec.record()).map_err(logs_failed)?;
        let stdout = File::create(spec.stdout()).map_err(logs_failed)?;
        let stderr = File::create(spec.stderr()).map_err(logs_failed)?;

        let start_failed = |source| ProcessError::Start { program: spec.name(), source };
        let (orders_end, orders) = io::pipe().map_err(start_failed)?;
        let started = Instant::now();
        let expression = supervisor_command(spec, program).stdin_file(orders_end).stdout_file(stdout);
        let supervisor = Arc::new(expression.stderr_file(stderr).start().map_err(start_failed)?);
        let pid = supervisor.pids()[0];
        let ended = wait_in_background(Arc::clone(&supervisor), started, record, spec.record());
        Ok(Self { spec: spec.clone(), supervisor, pid, orders, ended })
    }

    /// The process id of the supervisor: the root of the server's processes. SIGTERM to it stops them all.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Waits until the program has ended and nothing of it is left. May be called, and given up, any number of times.
    ///
    /// # Panics
    /// When the runtime in which the server was started has been shut down.
    pub async fn exited(&mut self) -> ExitFacts {
        let ended = self.ended.wait_for(Option::is_some).await;
        ended.ok().and_then(|facts| *facts).expect("the waiting thread sends before it ends")
    }

    /// How the program ended, if it has.
    #[must_use]
    pub fn try_exited(&self) -> Option<ExitFacts> {
        *self.ended.borrow()
    }

    /// Asks every process to end, kills those that are left after the grace, and waits until all are gone.
    ///
    /// Giving up this future kills at once.
    pub async fn stop(mut self) -> ExitFacts {
        /// A process that survives SIGKILL for so long sits in the kernel, in a driver for instance.
        const UNKILLABLE: Duration = Duration::from_secs(20);
        self.order_end(self.spec.grace);
        if let Ok(facts) = tokio::time::timeout(self.spec.grace + UNKILLABLE, self.exited()).await {
            return facts;
        }
        // An error means that it is gone after all, which the wait tells as well.
        let _ = self.supervisor.kill();
        self.exited().await
    }

    /// The last lines of what the program said, secrets masked: of stderr, or of stdout when stderr is empty.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.spec, lines).1
    }

    /// Whether it is this server that listens on a TCP port.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn owns_port(&self, port: u16) -> Result<PortOwner, ProcessError> {
        port_owner(self.root(), port)
    }

    /// All its processes.
    #[must_use]
    pub fn processes(&self) -> ProcessTree {
        ProcessTree { root: self.root() }
    }

    /// The value of a variable in its environment, if it is set and text.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<String> {
        let environment = || Process::new(self.root()).and_then(|supervisor| supervisor.environ()).ok();
        // For a moment after a program was started the kernel has not laid out its environment, which reads as empty.
        let laid_out = (0..ENVIRONMENT_LOOKS).find_map(|look| {
            thread::sleep(Duration::from_millis(look));
            environment().filter(|variables| !variables.is_empty())
        });
        laid_out?.get(OsStr::new(name)).and_then(|value| value.to_str()).map(str::to_owned)
    }

    fn root(&self) -> i32 {
        self.pid.cast_signed()
    }

    fn order_end(&mut self, grace: Duration) {
        // It fails only when the supervisor is gone, and then there is nothing left to order.
        let _ = self.orders.write_all(end_order(grace).as_bytes());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.try_exited().is_none() {
            self.order_end(Duration::ZERO);
        }
    }
}

/// The log that has something to say and its last lines, secrets masked.
pub(super) fn log_tail(spec: &CommandSpec, lines: usize) -> (PathBuf, String) {
    // A log that cannot be read any more says nothing; why the command ended is still worth telling.
    let read = |log: PathBuf| {
        let text = tail(&log, lines).unwrap_or_default();
        (log, spec.mask(text.trim_end()))
    };
    let (stderr, text) = read(spec.stderr());
    if !text.is_empty() {
        return (stderr, text);
    }
    let (stdout, text) = read(spec.stdout());
    if text.is_empty() { (stderr, text) } else { (stdout, text) }
}

fn program_file(spec: &CommandSpec) -> Result<PathBuf, ProcessError> {
    let named = &spec.program;
    let is_relative_path = named.is_relative() && named.components().count() > 1;
    let program = match &spec.cwd {
        Some(cwd) if is_relative_path => cwd.join(named),
        _ => named.clone(),
    };
    let file = resolve_program(&program, &spec.path_variable())?;
    // The supervisor runs it from another folder.
    std::path::absolute(&file).map_err(|source| ProcessError::Start { program: spec.name(), source })
}

fn supervisor_command(spec: &CommandSpec, program: PathBuf) -> duct::Expression {
    let program = std::iter::once(program.into_os_string()).chain(spec.args.iter().map(OsString::from));
    let arguments = watch_arguments(spec.grace, &spec.afterwards).into_iter().chain(program);
    #[expect(clippy::disallowed_methods, reason = "this is the one place that starts commands")]
    let mut command = duct::cmd(&spec.supervisor, arguments)
        .unchecked()
        // Out of the terminal's foreground group: Ctrl-C is for benchrun, which then stops things in order.
        .before_spawn(|command| {
            command.process_group(0);
            Ok(())
        });
    for (name, value) in &spec.env {
        command = command.env(name, value.reveal());
    }
    match &spec.cwd {
        Some(cwd) => command.dir(cwd),
        None => command,
    }
}

/// Waits for the supervisor on a blocking thread of its own, completes the record, then tells.
fn wait_in_background(
    supervisor: Arc<duct::Handle>,
    started: Instant,
    record: CommandRecord,
    record_path: PathBuf,
) -> watch::Receiver<Option<ExitFacts>> {
    let (tell, ended) = watch::channel(None);
    // Not aborted by anyone: it ends with the supervisor, which ends with the server.
    tokio::task::spawn_blocking(move || {
        let exit = supervisor.wait().map_or(Exit::Unknown, |output| Exit::of_supervisor(output.status));
        let facts = ExitFacts { exit, seconds: started.elapsed().as_secs_f64() };
        // On a full disk the record keeps its null status; whoever waits hears the facts all the same.
        let _ = record.ended(&facts).write(&record_path);
        tell.send_replace(Some(facts));
    });
    ended
}
