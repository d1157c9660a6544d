//! Commands and servers, with real processes: what they are given, how they end, and that nothing is left of them.

#![expect(clippy::unwrap_used, reason = "what the tests share panics like the tests themselves")]

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use benchrun::base::Secret;
use benchrun::process::{
    CommandRecord, CommandSpec, EnvValue, Exit, Finished, PortOwner, ProcessError, Server, free_port, program_version,
    run,
};
use procfs::process::{ProcState, Process};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Tells the helpers below that a test started them, and what to work with.
const HELPER_FOLDER: &str = "BENCHRUN_TEST_FOLDER";

struct Sandbox {
    folder: PathBuf,
    /// Removes the folder in the end.
    _temporary: Option<TempDir>,
}

impl Sandbox {
    fn new() -> Self {
        let temporary = tempfile::tempdir().unwrap();
        Self { folder: temporary.path().to_owned(), _temporary: Some(temporary) }
    }

    /// Inside a helper: the folder of the test that started it, if a test did.
    fn of_helper() -> Option<Self> {
        let folder = std::env::var_os(HELPER_FOLDER)?;
        Some(Self { folder: folder.into(), _temporary: None })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, program: impl Into<PathBuf>, args: &[&str]) -> CommandSpec {
        let mut spec = CommandSpec::new(program, self.path("logs"));
        spec.args = args.iter().map(|&argument| argument.to_owned()).collect();
        spec.cwd = Some(self.folder.clone());
        spec.supervisor = env!("CARGO_BIN_EXE_benchrun").into();
        spec.env.insert(HELPER_FOLDER.to_owned(), EnvValue::Plain(self.folder.display().to_string()));
        spec
    }

    fn shell(&self, script: &str) -> CommandSpec {
        self.command("sh", &["-c", script])
    }

    /// A number that a process writes to a file of this name, once it is there.
    fn number(&self, name: &str) -> i32 {
        let path = self.path(name);
        let mut number = None;
        eventually(&format!("{name} is written"), || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            number = text.strip_suffix('\n').map(|text| text.parse().unwrap());
            number.is_some()
        });
        number.unwrap()
    }

    fn write_number(&self, name: &str, number: impl std::fmt::Display) {
        fs::write(self.path(name), format!("{number}\n")).unwrap();
    }

    fn record(&self) -> CommandRecord {
        serde_json::from_slice(&fs::read(self.path("logs/command.json")).unwrap()).unwrap()
    }
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A zombie that its parent has not looked at yet is as dead as can be.
fn is_alive(pid: i32) -> bool {
    Process::new(pid).and_then(|process| process.stat()?.state()).is_ok_and(|state| state != ProcState::Zombie)
}

async fn run_to_end(spec: &CommandSpec) -> Result<Finished, ProcessError> {
    run(spec, &CancellationToken::new()).await
}

/// A shell, its child, and a grandchild in a session of its own, each of which writes its process id.
const THREE_GENERATIONS: &str = "setsid sh -c 'echo $$ > daemon; exec sleep 1000' &
sh -c 'echo $$ > child; exec sleep 1000' &
echo $$ > shell; wait";

fn three_generations(sandbox: &Sandbox) -> [i32; 3] {
    ["shell", "child", "daemon"].map(|name| sandbox.number(name))
}

#[tokio::test]
async fn arguments_and_environment_arrive_as_they_are() {
    let sandbox = Sandbox::new();
    let tricky = ["a b", "\"q\" 'q'", "; touch x", "$(touch x)", "--", "*", "", "中文 ünï", "line\nbreak"];
    let mut spec = sandbox.shell(r#"printf '[%s]' "$GREETING" "$@""#);
    spec.args.push("name".to_owned());
    spec.args.extend(tricky.map(str::to_owned));
    spec.env.insert("GREETING".to_owned(), EnvValue::Plain("$HOME `x`".to_owned()));
    let finished = run_to_end(&spec).await.unwrap();
    let expected = format!("[$HOME `x`][{}]", tricky.join("]["));
    assert_eq!(fs::read_to_string(finished.stdout).unwrap(), expected);
    assert!(!sandbox.path("x").exists());
}

#[tokio::test]
async fn a_failure_tells_its_status_and_its_last_lines() {
    let sandbox = Sandbox::new();
    let error = run_to_end(&sandbox.shell("seq 1 100 >&2; echo on stdout; exit 3")).await.unwrap_err();
    let ProcessError::Failed { exit: Exit::Code(3), log, tail, .. } = &error else { panic!("{error}") };
    assert_eq!(*log, sandbox.path("logs/stderr.log"));
    assert_eq!(tail.lines().count(), 20);
    assert!(error.to_string().ends_with("\n  99\n  100"), "{error}");
    let record = sandbox.record();
    assert_eq!(record.status, Some(Exit::Code(3)));
    assert!(record.seconds.is_some());
}

#[tokio::test]
async fn a_program_that_only_uses_stdout_is_quoted_too() {
    let sandbox = Sandbox::new();
    let error = run_to_end(&sandbox.shell("echo why; exit 1")).await.unwrap_err();
    let ProcessError::Failed { log, tail, .. } = error else { panic!("{error}") };
    assert_eq!((log, tail.as_str()), (sandbox.path("logs/stdout.log"), "why"));
}

#[tokio::test]
async fn the_signal_that_ended_a_program_is_told() {
    let sandbox = Sandbox::new();
    let error = run_to_end(&sandbox.shell("kill -SEGV $$")).await.unwrap_err();
    assert!(matches!(error, ProcessError::Failed { exit: Exit::Signal(11), .. }), "{error}");
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let sandbox = Sandbox::new();
    let error = run_to_end(&sandbox.command("no-such-program", &[])).await.unwrap_err();
    assert!(error.to_string().starts_with("program `no-such-program` was not found on PATH (`/"), "{error}");
    let error = run_to_end(&sandbox.command("./absent", &[])).await.unwrap_err();
    assert!(matches!(error, ProcessError::NoSuchProgram { .. }), "{error}");
}

#[tokio::test]
async fn a_file_that_the_kernel_refuses_is_explained_in_the_log() {
    let sandbox = Sandbox::new();
    let file = sandbox.path("script");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = run_to_end(&sandbox.command("./script", &[])).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit code 127") && text.contains("cannot execute `"), "{text}");
}

#[tokio::test]
async fn stdin_is_empty_and_there_is_no_terminal() {
    let sandbox = Sandbox::new();
    let finished = run_to_end(&sandbox.shell("wc -c; ! (true < /dev/tty)")).await.unwrap();
    assert_eq!(fs::read_to_string(finished.stdout).unwrap().trim(), "0");
}

#[tokio::test]
async fn a_time_limit_ends_all_generations() {
    let sandbox = Sandbox::new();
    // Longer than starting takes: the limit must fall while all three are up.
    let mut spec = sandbox.shell(&format!("echo started >&2; {THREE_GENERATIONS}"));
    spec.time_limit = Some(Duration::from_secs(3));
    let error = run_to_end(&spec).await.unwrap_err();
    let ProcessError::TimeLimit { tail, .. } = &error else { panic!("{error}") };
    assert_eq!(tail, "started");
    assert!(three_generations(&sandbox).iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn cancelling_ends_all_generations() {
    let sandbox = Sandbox::new();
    let cancel = CancellationToken::new();
    let spec = sandbox.shell(THREE_GENERATIONS);
    let (ended, pids) = tokio::join!(run(&spec, &cancel), async {
        let pids = three_generations(&sandbox);
        cancel.cancel();
        pids
    });
    assert!(matches!(ended, Err(ProcessError::Cancelled { .. })));
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert_eq!(sandbox.record().status, Some(Exit::Signal(15)));
}

#[tokio::test]
async fn a_cancelled_run_starts_nothing() {
    let sandbox = Sandbox::new();
    let cancel = CancellationToken::new();
    cancel.cancel();
    assert!(matches!(run(&sandbox.shell("touch x"), &cancel).await, Err(ProcessError::Cancelled { .. })));
    assert!(!sandbox.path("logs").exists());
}

#[tokio::test]
async fn what_a_command_leaves_in_the_background_ends_with_it() {
    let sandbox = Sandbox::new();
    let script = "setsid sh -c 'echo $$ > daemon; exec sleep 1000' & while [ ! -s daemon ]; do sleep 0.01; done";
    run_to_end(&sandbox.shell(script)).await.unwrap();
    assert!(!is_alive(sandbox.number("daemon")));
}

#[tokio::test]
async fn who_ignores_sigterm_is_killed_after_the_grace() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("trap '' TERM; echo $$ > shell; while :; do sleep 1; done");
    spec.grace = Duration::from_millis(100);
    let server = Server::start(&spec).unwrap();
    let pid = sandbox.number("shell");
    assert_eq!(server.stop().await.exit, Exit::Signal(9));
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_server_has_its_grace_to_end_in_order() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("trap 'echo bye; exit 7' TERM; echo $$ > shell; while :; do sleep 0.01; done");
    spec.grace = PATIENCE;
    let server = Server::start(&spec).unwrap();
    sandbox.number("shell");
    assert_eq!(server.stop().await.exit, Exit::Code(7));
    assert_eq!(fs::read_to_string(spec.stdout()).unwrap(), "bye\n");
}

#[tokio::test]
async fn a_server_that_ends_is_noticed() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox.shell("echo out of luck >&2; exit 4")).unwrap();
    let facts = server.exited().await;
    assert_eq!(facts.exit, Exit::Code(4));
    assert_eq!(server.exited().await, facts);
    assert_eq!(server.try_exited(), Some(facts));
    assert_eq!(server.log_tail(5), "out of luck");
    assert_eq!(server.stop().await, facts);
}

#[tokio::test]
async fn a_dropped_server_is_killed_at_once_and_others_are_not() {
    let (dropped, kept) = (Sandbox::new(), Sandbox::new());
    let script = format!("trap '' TERM; {THREE_GENERATIONS}");
    let server = Server::start(&dropped.shell(&script)).unwrap();
    // Started while the first one's pipe is open: it must not keep that pipe open.
    let other = Server::start(&kept.shell(THREE_GENERATIONS)).unwrap();
    let (pids, others) = (three_generations(&dropped), three_generations(&kept));
    drop(server);
    eventually("the dropped server is gone", || pids.iter().all(|pid| !is_alive(*pid)));
    assert!(others.iter().all(|pid| is_alive(*pid)));
    other.stop().await;
    assert!(others.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test]
async fn nothing_outlives_a_benchrun_that_was_killed() {
    let sandbox = Sandbox::new();
    let [program, args @ ..] = &helper("owner_of_a_server")[..] else { unreachable!() };
    #[expect(clippy::disallowed_methods, reason = "a supervisor of our own would clean up after it")]
    let mut owner = std::process::Command::new(program).args(args).env(HELPER_FOLDER, &sandbox.folder).spawn().unwrap();
    let (pids, supervisor) = (three_generations(&sandbox), sandbox.number("supervisor"));
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    owner.kill().unwrap();
    owner.wait().unwrap();
    eventually("the server is gone", || pids.iter().all(|pid| !is_alive(*pid)));
    eventually("its supervisor is gone", || !is_alive(supervisor));
}

#[tokio::test]
async fn a_program_dies_with_a_killed_supervisor() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox.shell("echo $$ > shell; exec sleep 1000")).unwrap();
    let pid = sandbox.number("shell");
    signal(&server, Signal::KILL);
    assert_eq!(server.exited().await.exit, Exit::Signal(9));
    eventually("the program is gone", || !is_alive(pid));
}

#[tokio::test]
async fn a_supervisor_that_is_asked_to_end_ends_all_generations() {
    let sandbox = Sandbox::new();
    let mut server = Server::start(&sandbox.shell(THREE_GENERATIONS)).unwrap();
    let pids = three_generations(&sandbox);
    signal(&server, Signal::TERM);
    assert_eq!(server.exited().await.exit, Exit::Signal(15));
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

fn signal(server: &Server, signal: Signal) {
    kill_process(Pid::from_raw(server.pid().cast_signed()).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn the_owner_of_a_port_is_known() {
    let sandbox = Sandbox::new();
    // In a session of its own, as the workers of some servers are.
    let mut spec = sandbox.shell(r#"setsid "$@" & wait"#);
    spec.args.push("name".to_owned());
    spec.args.extend(helper("listener"));
    let server = Server::start(&spec).unwrap();
    let port = u16::try_from(sandbox.number("port")).unwrap();
    assert_eq!(server.owns_port(port).unwrap(), PortOwner::Ours);

    let foreign = TcpListener::bind("127.0.0.1:0").unwrap();
    let owner = server.owns_port(foreign.local_addr().unwrap().port()).unwrap();
    assert!(matches!(owner, PortOwner::Other { pid, .. } if pid == std::process::id().cast_signed()), "{owner:?}");

    let free = free_port("127.0.0.1").unwrap();
    assert_eq!(server.owns_port(free).unwrap(), PortOwner::NotListening);
    server.stop().await;
}

#[tokio::test]
async fn memory_and_cpu_count_all_processes() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox.shell(THREE_GENERATIONS)).unwrap();
    let resident = |pid: &i32| Process::new(*pid).unwrap().statm().unwrap().resident * procfs::page_size();
    let least: u64 = three_generations(&sandbox).iter().map(resident).min().unwrap();
    // Three processes, none of them smaller than the smallest; the kernel's own count may be some pages behind.
    let least_mib = 2.5 * least as f64 / 1_048_576.0;
    let usage = server.processes().usage().unwrap();
    assert!(usage.rss_mib >= least_mib, "{usage:?}");
    server.stop().await;

    let busy = Server::start(&sandbox.shell("(while :; do :; done) & wait")).unwrap();
    let processes = busy.processes();
    let cpu_s = || processes.usage().unwrap().cpu_s;
    eventually("a child has worked for a while", || cpu_s() > 0.1);
    busy.stop().await;
    assert_eq!(processes.usage().unwrap().rss_mib, 0.0, "nothing is left");
}

#[tokio::test]
async fn the_environment_of_a_server_can_be_asked() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell("sleep 60");
    spec.env.insert("CUDA_VISIBLE_DEVICES".to_owned(), EnvValue::Plain("1,0".to_owned()));
    let server = Server::start(&spec).unwrap();
    assert_eq!(server.variable("CUDA_VISIBLE_DEVICES").as_deref(), Some("1,0"));
    assert_eq!(server.variable("NOT_SET_ANYWHERE"), None);
    server.stop().await;
}

#[tokio::test]
async fn secrets_reach_the_program_and_nothing_else() {
    let sandbox = Sandbox::new();
    let mut spec = sandbox.shell(r#"[ "$TOKEN" = hunter2 ] && echo "refused: $1" >&2; exit 1"#);
    spec.args.extend(["name", "Bearer hunter2"].map(str::to_owned));
    spec.env.insert("TOKEN".to_owned(), EnvValue::Secret(Secret::new("hunter2".to_owned())));
    let error = run_to_end(&spec).await.unwrap_err();
    assert!(error.to_string().ends_with("refused: Bearer ***"), "{error}");
    let record = sandbox.record();
    assert_eq!(record.argv.last().unwrap(), "Bearer ***");
    assert_eq!(record.env["TOKEN"], "***");
}

#[tokio::test]
async fn a_record_is_there_while_the_program_runs() {
    let sandbox = Sandbox::new();
    let server = Server::start(&sandbox.shell("exec sleep 1000")).unwrap();
    assert_eq!((sandbox.record().status, sandbox.record().seconds), (None, None));
    server.stop().await;
    assert!(sandbox.record().status.is_some());
}

#[tokio::test]
async fn a_version_is_the_first_line_printed() {
    let sandbox = Sandbox::new();
    let cancel = CancellationToken::new();
    let version = program_version(&sandbox.shell("echo; echo tool 1.2.3; echo (c)"), &cancel).await;
    assert!(version.is_err(), "a shell's syntax error is no version");
    let version = program_version(&sandbox.shell("echo; echo tool 1.2.3; echo more"), &cancel).await;
    assert_eq!(version.unwrap(), "tool 1.2.3");
    let version = program_version(&sandbox.shell("echo tool 2 >&2"), &cancel).await;
    assert_eq!(version.unwrap(), "tool 2");
    let version = program_version(&sandbox.shell(":"), &cancel).await;
    assert!(matches!(version, Err(ProcessError::NoVersion { .. })));
}

#[test]
fn the_supervisor_refuses_to_be_started_by_hand() {
    #[expect(clippy::disallowed_methods, reason = "this is about starting it in the wrong way")]
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_benchrun"));
    for args in [&["supervise"][..], &["supervise", "watch", "5000", "true"]] {
        let output = command.args(args).stdin(std::process::Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(126));
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("benchrun: "));
    }
}

/// The command line that runs one of the tests below as a program of its own.
fn helper(name: &str) -> Vec<String> {
    let this = std::env::current_exe().unwrap();
    let args = [&format!("process::{name}"), "--exact", "--ignored", "--nocapture"].map(str::to_owned);
    std::iter::once(this.display().to_string()).chain(args).collect()
}

#[tokio::test]
#[ignore = "a program that other tests start: it owns a server and waits to be killed"]
async fn owner_of_a_server() {
    let Some(sandbox) = Sandbox::of_helper() else { return };
    let server = Server::start(&sandbox.shell(THREE_GENERATIONS)).unwrap();
    sandbox.write_number("supervisor", server.pid());
    std::future::pending::<()>().await;
}

#[test]
#[ignore = "a program that other tests start: it listens and waits to be killed"]
fn listener() {
    let Some(sandbox) = Sandbox::of_helper() else { return };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    sandbox.write_number("port", listener.local_addr().unwrap().port());
    loop {
        std::thread::park();
    }
}
