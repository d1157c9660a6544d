//! A place of its own for each test of the command line: folders, an environment, the program with a deadline.

#![expect(clippy::unwrap_used, reason = "what the tests share panics like the tests themselves")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// The program under test.
pub(crate) const BENCHRUN: &str = env!("CARGO_BIN_EXE_benchrun");

/// Longer than any command here takes on a busy machine.
const DEADLINE: Duration = Duration::from_mins(10);
/// Between two looks at something that has to happen.
const PAUSE: Duration = Duration::from_millis(20);

/// Folders of a user who has never run benchrun: a home, a temporary folder, a working folder.
pub(crate) struct TestEnv {
    folder: TempDir,
    commands: Cell<u32>,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// `None` when a signal ended it.
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A command that runs beside the test. Killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// A row of `results.csv` by column name.
pub(crate) type Row = BTreeMap<String, String>;

impl TestEnv {
    pub(crate) fn new() -> Self {
        let env = Self { folder: tempfile::tempdir().unwrap(), commands: Cell::new(0) };
        for folder in ["user", "tmp", "work"] {
            fs::create_dir(env.folder.path().join(folder)).unwrap();
        }
        env
    }

    /// A path in the working folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    /// The temporary folder of every command.
    pub(crate) fn tmp(&self) -> PathBuf {
        self.folder.path().join("tmp")
    }

    /// Where the store and the runs are kept.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Writes a file below the working folder.
    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The program with a clean environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.program(BENCHRUN, args)
    }

    /// Any program with the environment of [`TestEnv::command`].
    #[expect(clippy::disallowed_methods, reason = "this is where the tests start benchrun")]
    pub(crate) fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.path(""))
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.folder.path().join("user"))
            .env("TMPDIR", self.tmp())
            .env("BENCHRUN_HOME", self.home());
        command
    }

    /// The program with the environment of whoever runs the tests: package installers want their settings and proxies.
    #[expect(clippy::disallowed_methods, reason = "this is where the tests start benchrun")]
    pub(crate) fn command_of_user(&self, args: &[&str]) -> Command {
        let mut command = Command::new(BENCHRUN);
        command.args(args).current_dir(self.path(""));
        command.env("TMPDIR", self.tmp()).env("BENCHRUN_HOME", self.home());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.start(self.command(args)).end()
    }

    /// Runs the program, which has to end with this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: i32, args: &[&str]) -> Ended {
        self.run(args).expect(status)
    }

    /// Starts a command beside the test.
    pub(crate) fn start(&self, mut command: Command) -> Running {
        let number = self.commands.replace(self.commands.get() + 1);
        let [stdout, stderr] = ["stdout", "stderr"].map(|name| self.folder.path().join(format!("{number}.{name}")));
        // Files and not pipes: what a server left behind cannot keep the test waiting.
        command.stdin(Stdio::null());
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Running { child: command.spawn().unwrap(), stdout, stderr }
    }

    /// The newest run of a manifest.
    pub(crate) fn latest(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.home().join("runs").join(name).join("latest")).unwrap()
    }

    /// All runs of a manifest, oldest first.
    pub(crate) fn runs(&self, name: &str) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.home().join("runs").join(name)).unwrap().map(|entry| entry.unwrap());
        let mut runs: Vec<PathBuf> =
            entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()).collect();
        runs.sort_by_key(|run| fs::metadata(run.join("manifest.yaml")).unwrap().modified().unwrap());
        runs
    }

    /// The results of the newest run of a manifest.
    pub(crate) fn rows(&self, name: &str) -> Vec<Row> {
        rows_of(&self.latest(name))
    }

    /// The names of the stored outputs of a kind of step.
    pub(crate) fn stored(&self, kind: &str) -> BTreeSet<String> {
        let Ok(entries) = fs::read_dir(self.home().join("store").join(kind)) else { return BTreeSet::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits until no process of this place is left.
    #[track_caller]
    pub(crate) fn assert_nothing_runs(&self) {
        eventually("every process has ended", || self.processes().is_empty());
    }

    /// Command lines of the processes that this place's commands left: their environment tells.
    pub(crate) fn processes(&self) -> Vec<String> {
        let home = format!("BENCHRUN_HOME={}", self.home().display());
        let of_ours = |process: procfs::process::Process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid)).ok()?;
            let ours = environment.split(|&byte| byte == 0).any(|variable| variable == home.as_bytes());
            ours.then(|| process.cmdline().unwrap_or_default().join(" "))
        };
        procfs::process::all_processes().unwrap().flatten().filter_map(of_ours).collect()
    }
}

impl Ended {
    /// The status has to be this one.
    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard output has this text somewhere.
    #[track_caller]
    pub(crate) fn prints(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "no `{text}` in stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Standard error has this text somewhere.
    #[track_caller]
    pub(crate) fn says(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "no `{text}` in stderr:\n{}\nstdout:\n{}", self.stderr, self.stdout);
        self
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub(crate) fn stdout(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        fs::read_to_string(&self.stderr).unwrap()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for something that the command has to do before it ends.
    #[track_caller]
    pub(crate) fn waits_until(&mut self, what: &str, mut happened: impl FnMut(&Self) -> bool) {
        eventually(what, || {
            // Asked first: what a command did before it ended has happened.
            let ended = self.has_ended();
            let happened = happened(self);
            assert!(happened || !ended, "it ended before {what}:\n{}\n{}", self.stdout(), self.stderr());
            happened
        });
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn end(mut self) -> Ended {
        eventually("the command ends", || self.has_ended());
        let status = self.child.wait().unwrap().code();
        Ended { status, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for something that has to happen.
#[track_caller]
pub(crate) fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !happened() {
        assert!(Instant::now() < deadline, "it never happened that {what}");
        std::thread::sleep(PAUSE);
    }
}

/// The results of a run.
pub(crate) fn rows_of(run: &Path) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(run.join("results.csv")).unwrap();
    reader.deserialize().map(|row| row.unwrap()).collect()
}

/// What makes a row the one it is: cell, phase, concurrency, round.
pub(crate) fn identity(row: &Row) -> String {
    ["cell", "phase", "concurrency", "round"].map(|column| row[column].as_str()).join(" ")
}

/// The values of a column, in the order of the rows.
pub(crate) fn column<'a>(rows: &'a [Row], name: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[name].as_str()).collect()
}

/// The lines of a file of JSON lines.
pub(crate) fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A model so small that a request takes milliseconds. JSON is YAML as well.
pub(crate) const CONFIG: &str = r#"{"model_type": "qwen2", "vocab_size": 4096, "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
        "tie_word_embeddings": true}"#;

/// A sweep over these axes with these phases, of a model of [`CONFIG`].
pub(crate) fn manifest(axes: &str, phases: &str) -> String {
    format!(
        "name: small
models:
  tiny:
    dummy:
      config: {CONFIG}
engine:
  name: embedded
  settings: {{max_seq_len: 64}}
matrix:
  axes: {{{axes}, isl/osl: [[8, 4]]}}
benchmarks: {{{phases}}}
certify: false
"
    )
}

/// One phase for [`manifest`].
pub(crate) const LOAD: &str = "load: {protocol: openai-completions, concurrency: [1, 2], requests: 3}";

/// One cell, two load points.
pub(crate) fn one_cell() -> String {
    manifest("precision: [fp32]", LOAD)
}
