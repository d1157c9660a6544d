use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getppid, kill_process, kill_process_group, set_child_subreaper,
    set_parent_process_death_signal, setsid, wait,
};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::process::exit::Exit;
use crate::process::family::descendants;

/// The hidden subcommand whose arguments go to [`supervise`].
pub const SUPERVISE: &str = "supervise";

/// The role that stays: `supervise watch GRACE_MS COUNT AFTERWARDS… PROGRAM ARGS…`, with so many words of a command that is
/// run when all is over.
const WATCH: &str = "watch";
/// The role that becomes the program: `supervise enter WATCHER_PID PROGRAM ARGS…`.
const ENTER: &str = "enter";

/// What shells say of a program that was not found, and of one that could not be executed.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTED: u8 = 126;

/// For what outlives its program: its work is over, but it may want to tidy up.
const STRAGGLERS_GRACE: Duration = Duration::from_secs(1);
/// Killing is repeated, for those that were being forked meanwhile, but not for ever: a process that hangs in the
/// kernel does not even obey SIGKILL.
const KILL_INTERVAL: Duration = Duration::from_millis(50);
const KILLS: u32 = 200;

/// The arguments that start a supervisor, without the program's.
pub(super) fn watch_arguments(grace: Duration, afterwards: &[String]) -> Vec<OsString> {
    let own = [SUPERVISE.to_owned(), WATCH.to_owned(), grace.as_millis().to_string(), afterwards.len().to_string()];
    own.iter().chain(afterwards).map(OsString::from).collect()
}

/// The line on a supervisor's stdin that makes it end its program within this grace.
pub(super) fn end_order(grace: Duration) -> String {
    format!("{}\n", grace.as_millis())
}

/// Runs a program as the hidden subcommand says, and exits as it does.
///
/// Stdin must be a pipe. A line on it is an order; when it closes, benchrun is gone, and so is soon the program.
#[must_use]
pub fn supervise(args: &[OsString]) -> ExitCode {
    let code = match args {
        [role, grace, count, rest @ ..] if role == WATCH => {
            let count = count.to_string_lossy().parse().unwrap_or(usize::MAX);
            match rest.split_at_checked(count) {
                Some((afterwards, [program, args @ ..])) => {
                    let code = watch(grace, program, args);
                    run_afterwards(afterwards);
                    code
                }
                _ => Err(misused()),
            }
        }
        [role, watcher, program, args @ ..] if role == ENTER => Err(enter(watcher, program, args)),
        _ => Err(misused()),
    };
    ExitCode::from(code.unwrap_or_else(|error| {
        // The program's own log is where people look for it; when that cannot be written, the code must do.
        let _ = writeln!(io::stderr(), "benchrun: {error}");
        if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTED }
    }))
}

fn misused() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "benchrun starts this subcommand by itself")
}

/// Removes what the program's end alone does not, such as a container whose client was killed. That there is nothing left
/// to remove is the common case, so nobody hears of a failure.
fn run_afterwards(command: &[OsString]) {
    if let [program, args @ ..] = command {
        #[expect(clippy::disallowed_methods, reason = "the program it tidies up after started here, too")]
        let mut command = Command::new(program);
        let _ = command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// Becomes the program: a session of its own, no terminal, and death with the supervisor even if that is killed.
fn enter(watcher: &OsString, program: &OsString, args: &[OsString]) -> io::Error {
    let prepared = setsid().and_then(|_| set_parent_process_death_signal(Some(Signal::KILL)));
    if let Err(error) = prepared {
        return error.into();
    }
    // Were it killed before the line above, its signal would never come.
    if getppid().is_none_or(|parent| *watcher != *parent.to_string()) {
        return io::Error::other("the supervisor was killed");
    }
    #[expect(clippy::disallowed_methods, reason = "this is where the program itself starts")]
    let error = Command::new(program).args(args).exec();
    io::Error::new(error.kind(), format!("cannot execute `{}`: {error}", program.display()))
}

fn watch(grace: &OsString, program: &OsString, args: &[OsString]) -> io::Result<u8> {
    // `killall benchrun` goes by this name, and would else end the one process that can clean up.
    std::fs::write("/proc/self/comm", "supervisor")?;
    set_child_subreaper(Some(getpid()))?;
    let grace = parse_grace(&grace.to_string_lossy());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let orders = Orders::from_stdin()?;
        let child_ended = signal(SignalKind::child())?;
        let requests = EndRequests::listen()?;
        let leader = start(program, args)?;
        let family = Family { leader, exit: None, kill_at: None, kills: 0 };
        Ok(family.watch(grace, orders, requests, child_ended).await.supervisor_code())
    })
}

fn start(program: &OsString, args: &[OsString]) -> io::Result<Pid> {
    #[expect(clippy::disallowed_methods, reason = "this is where the program itself starts")]
    let mut command = Command::new("/proc/self/exe");
    command.args([SUPERVISE, ENTER, &getpid().to_string()]).arg(program).args(args).stdin(Stdio::null());
    // `Family` waits for it, as for every child, adopted ones included.
    Ok(Pid::from_child(&command.spawn()?))
}

/// The program and everything that descends from it.
struct Family {
    leader: Pid,
    /// How the program itself ended.
    exit: Option<Exit>,
    /// Set once the family has been asked to end.
    kill_at: Option<Instant>,
    kills: u32,
}

impl Family {
    /// Waits until nobody is left, ending them when it is time to.
    async fn watch(
        mut self,
        grace: Duration,
        mut orders: Orders,
        mut requests: EndRequests,
        mut child_ended: unix::Signal,
    ) -> Exit {
        while self.reap() == Left::Some && self.kills < KILLS {
            if self.exit.is_some() && self.kill_at.is_none() {
                self.end_within(STRAGGLERS_GRACE);
            }
            tokio::select! {
                _ = child_ended.recv() => {}
                () = requests.next() => self.end_within(grace),
                order = orders.next() => self.end_within(order.unwrap_or(grace)),
                () = reached(self.kill_at) => self.kill(),
            }
        }
        self.exit.unwrap_or(Exit::Signal(Signal::KILL.as_raw()))
    }

    /// Asks once; a later call can only shorten the grace.
    fn end_within(&mut self, grace: Duration) {
        let kill_at = Instant::now() + grace;
        match self.kill_at {
            None => {
                self.signal(Signal::TERM);
                self.kill_at = Some(kill_at);
            }
            Some(earlier) => self.kill_at = Some(earlier.min(kill_at)),
        }
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.kills += 1;
        self.kill_at = Some(Instant::now() + KILL_INTERVAL);
    }

    fn signal(&self, signal: Signal) {
        // Errors mean that the process is gone already.
        let Ok(members) = descendants(getpid().as_raw_pid()) else {
            // Without `/proc` the program's own group is the best there is.
            let _ = kill_process_group(self.leader, signal);
            return;
        };
        for pid in members.into_iter().filter_map(Pid::from_raw) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Takes the status of every child that has ended, adopted ones included.
    fn reap(&mut self) -> Left {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == self.leader => {
                    self.exit = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Some(Exit::Code(code)),
                        (None, signal) => signal.map(Exit::Signal),
                    };
                }
                Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
                Ok(None) => return Left::Some,
                // No children, hence no descendants: orphans become children of a subreaper.
                Err(_) => return Left::None,
            }
        }
    }
}

#[derive(Eq, PartialEq)]
enum Left {
    Some,
    None,
}

async fn reached(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Stdin, as far as it is still open.
struct Orders(Option<Lines<BufReader<Receiver>>>);

impl Orders {
    fn from_stdin() -> io::Result<Self> {
        let pipe = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        Ok(Self(Some(BufReader::new(pipe).lines())))
    }

    /// The grace of the next order; `None` once, when benchrun is gone; then it waits for ever.
    async fn next(&mut self) -> Option<Duration> {
        let Some(lines) = &mut self.0 else { return std::future::pending().await };
        if let Ok(Some(line)) = lines.next_line().await {
            return Some(parse_grace(&line));
        }
        self.0 = None;
        None
    }
}

/// Anything but a number can only be a mistake of ours; no grace is what leaves nothing behind.
fn parse_grace(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap_or(0))
}

/// The signals by which others ask a program to end: a user's `kill`, a batch system, a closing session.
struct EndRequests([unix::Signal; 3]);

impl EndRequests {
    fn listen() -> io::Result<Self> {
        Ok(Self([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let Self([terminate, interrupt, hangup]) = self;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
