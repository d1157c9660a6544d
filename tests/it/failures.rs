//! Steps and servers that fail: what is said, what goes on, and what is kept.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;

use crate::env::{Ended, LOAD, Row, TestEnv, column, json, json_lines, manifest};

/// An engine of two precisions: `good` is the embedded engine on the model as it is; `bad` is what a test wants.
fn recipe(quantize: &str, bad_server: &str) -> String {
    format!(
        r#"engine: mine
about: an engine of the tests
versions: ["1"]
programs:
  benchrun: {{program: benchrun}}
  sh: {{program: sh}}
precisions: {{bad: {{}}, good: {{}}}}
steps:
  quantize:
    - when: precision == "bad"
      command: [sh, -c, {quantize:?}, sh, "{{{{ output }}}}", "{{{{ fetch }}}}"]
server:
  command:
    - sh
    - -c
    - "{{% if precision == 'bad' %}}{bad_server}{{% else %}}exec \"$@\"{{% endif %}}"
    - sh
    - '{program}'
    - engine
    - serve
    - "{{{{ quantize }}}}"
    - --http-port
    - "{{{{ port.http }}}}"
    - --grpc-port
    - "{{{{ port.grpc }}}}"
    - --served-model
    - "{{{{ model }}}}"
  ports: [http, grpc]
  served_model: "{{{{ model }}}}"
  ready: [{{http: "http://{{{{ host }}}}:{{{{ port.http }}}}/health"}}]
  protocols:
    openai-completions: {{url: "http://{{{{ host }}}}:{{{{ port.http }}}}"}}
log_hints:
  - match: CUDA out of memory
    hint: take a smaller batch size
"#,
        program = crate::env::BENCHRUN,
    )
}

/// The embedded engine.
const SERVE: &str = "exec \\\"$@\\\"";
/// A checkpoint like the model.
const QUANTIZE: &str = "cp -r \"$2\"/. \"$1\"";

fn env_with(recipe: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("recipes/mine/recipe.yaml", recipe);
    env.write("m.yaml", &of_mine("precision: [bad, good]"));
    env
}

fn of_mine(axes: &str) -> String {
    let text = manifest(axes, LOAD).replace("name: embedded\n", "name: mine\n  recipes: recipes\n");
    text.replace("  settings: {max_seq_len: 64}\n", "")
}

/// The bad precision's rows failed for this reason, and its neighbour's are fine.
#[track_caller]
fn check_rows(env: &TestEnv, reason: &str) -> Vec<Row> {
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["failed", "failed", "ok", "ok"], "{rows:?}");
    for row in &rows[..2] {
        assert!(row["reason"].contains(reason), "no `{reason}` in {row:?}");
        assert!(row["ttft_ms_p50"].is_empty());
    }
    rows
}

#[test]
fn a_server_that_exits_at_start_shows_its_log_and_the_recipes_hint() {
    let env = env_with(&recipe(QUANTIZE, "echo loading; echo CUDA out of memory >&2; exit 7"));
    let ended = env.expect(4, &["apply", "m.yaml"]);
    ended.says("the server exited with exit code 7 before it was ready").says("CUDA out of memory");
    ended.says("hint: take a smaller batch size").says("logs/bench/stderr.log");
    assert_eq!((ended.stdout + &ended.stderr).matches("CUDA out of memory").count(), 1, "it is said once");
    check_rows(&env, "take a smaller batch size");
    env.assert_nothing_runs();

    // What failed is tried again, what is there is not.
    let again = env.expect(4, &["apply", "m.yaml"]);
    again.says("were measured before");
}

#[test]
fn a_server_that_is_never_ready_is_stopped_at_its_time_limit() {
    let env = env_with(&recipe(QUANTIZE, "echo still loading >&2; sleep 1000"));
    env.write("m.yaml", &(of_mine("precision: [bad]") + "time_limits: {ready: 1s}\n"));
    let ended = env.expect(4, &["apply", "m.yaml"]);
    ended.says("the server was not ready after 1 s").says("/health` does not answer").says("still loading");
    ended.says("hint: raise `time_limits.ready`");
    env.assert_nothing_runs();
}

#[test]
fn a_server_that_dies_while_it_is_measured_loses_its_points_only() {
    // It answers until the test says so: whoever kills by a process id can come too late.
    let bad = "\\\"$@\\\" & while [ ! -e die ]; do sleep 0.05; done; kill -9 $!; echo CUDA out of memory >&2; exit 9";
    let env = env_with(&recipe(QUANTIZE, bad));
    let phase = "a: {protocol: openai-completions, concurrency: [1], requests: 2},
        b: {protocol: openai-completions, concurrency: [1], duration: 1h, request_timeout: 20s}";
    env.write("m.yaml", &of_mine("precision: [bad]").replace(LOAD, phase));
    let mut running = env.start(env.command(&["apply", "m.yaml"]));
    running.waits_until("the second phase has begun", |running| running.stderr().contains(" b c1: started"));
    env.write("die", "");
    let ended = running.end().expect(4);
    ended.says("the server exited with exit code 9 while it was measured").says("hint: take a smaller batch size");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["ok", "failed"]);
    env.assert_nothing_runs();
}

#[test]
fn a_quantize_command_that_fails_loses_what_needs_it_only() {
    let env = env_with(&recipe("echo one >&2; echo CUDA out of memory >&2; exit 9", SERVE));
    let ended = env.expect(4, &["apply", "m.yaml"]);
    ended.says("failed: quantize tiny bad: ").says("exit code 9").says("CUDA out of memory");
    ended.says("hint: take a smaller batch size").says("logs/quantize");
    check_rows(&env, "quantize tiny bad failed");
    let logs = env.latest("small").join("cells/tiny/bad/isl8/osl4/logs");
    assert_eq!(json(&logs.join("quantize/command.json"))["status"]["code"], 9);
    assert_eq!(fs::read_to_string(logs.join("quantize/stderr.log")).unwrap(), "one\nCUDA out of memory\n");
    assert!(!logs.join("bench").exists(), "the server of the failed cell never started");
    assert_eq!(env.stored("quantize").len(), 0);
}

#[test]
fn a_command_that_makes_nothing_has_failed() {
    let env = env_with(&recipe("true", SERVE));
    env.expect(4, &["apply", "m.yaml"]).says("the command succeeded but wrote nothing into its output folder");
    check_rows(&env, "wrote nothing");
}

#[test]
fn a_command_that_takes_too_long_is_stopped() {
    let env = env_with(&recipe("sleep 1000 & wait", SERVE));
    env.write("m.yaml", &(of_mine("precision: [bad]") + "time_limits: {step: 1s}\n"));
    env.expect(4, &["apply", "m.yaml"]).says("time limit").says("failed: quantize tiny bad");
    env.assert_nothing_runs();
}

#[test]
fn fail_fast_stops_at_the_first_failure() {
    let env = env_with(&recipe("exit 9", SERVE));
    env.expect(4, &["apply", "m.yaml", "--fail-fast"]).says("exit code 9");
    let rows = env.rows("small");
    assert_eq!(column(&rows[..2], "status"), ["failed", "failed"], "{rows:?}");
    // Steps that are ready together start in any order: the neighbour may have been done before.
    for row in &rows[2..] {
        assert!(
            row["status"] == "ok" || row["status"] == "skipped" && row["reason"].contains("`--fail-fast`"),
            "{row:?}"
        );
    }
}

#[test]
fn a_missing_program_is_refused_before_anything_runs() {
    let env = env_with(
        &recipe(QUANTIZE, "true").replace("{program: sh}", "{program: no-such-sh, hint: install no-such-sh 2}"),
    );
    env.expect(0, &["plan", "m.yaml"]).prints("warning: program `no-such-sh`, which `");
    let ended = env.expect(3, &["apply", "m.yaml"]);
    ended.says("program `no-such-sh`, which `").says("is not on this machine").says("hint: install no-such-sh 2");
}

#[test]
fn a_server_with_more_gpus_than_there_are_is_refused_before_anything_runs() {
    if ["/dev/kfd", "/dev/dxg"].iter().any(|other| std::path::Path::new(other).exists()) {
        return eprintln!("skipped: this machine has GPUs that benchrun cannot count");
    }
    let env = env_with(&recipe(QUANTIZE, "true").replace("  ports:", "  gpus: batch_size * 1000\n  ports:"));
    env.write("m.yaml", &of_mine("precision: [good], batch_size: [4]"));
    env.expect(0, &["plan", "m.yaml"]).prints("warning: `bench tiny").prints("needs 4000 GPUs, but only");
    env.expect(3, &["apply", "m.yaml"]).says("needs 4000 GPUs, but only").says("hint: `--only` chooses cells");
    assert!(!env.home().join("runs").exists());
}

#[test]
fn another_programs_answers_are_never_measured() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().flatten().for_each(answer_ok));
    // The server of the recipe serves nothing; somebody else answers in its place.
    let text = recipe(QUANTIZE, "sleep 1000").replace("{{ port.http }}/health", &format!("{port}/health"));
    let text = text.replace("\"http://{{ host }}:{{ port.http }}\"", &format!("\"http://{{{{ host }}}}:{port}\""));
    let env = env_with(&text);
    env.write("m.yaml", &of_mine("precision: [bad]"));
    env.expect(4, &["apply", "m.yaml"]).says("nobody listens on port");

    // Its own ports are fine, but requests would go to somebody else.
    let text = recipe(QUANTIZE, SERVE);
    let text = text.replace("\"http://{{ host }}:{{ port.http }}\"", &format!("\"http://{{{{ host }}}}:{port}\""));
    env.write("recipes/mine/recipe.yaml", &text);
    env.write("m.yaml", &of_mine("precision: [good]"));
    env.expect(4, &["apply", "m.yaml"]).says(&format!("port {port} is answered by another program"));
    assert!(env.stored("bench").is_empty());
    env.assert_nothing_runs();
}

/// Answers any request with 200.
fn answer_ok(mut stream: TcpStream) {
    // Whoever asked may be gone.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}");
}

/// A home on a file system of 3 MiB, which unprivileged users may not have.
fn on_a_small_disk(env: &TestEnv, script: &str) -> Option<Ended> {
    fs::create_dir(env.home()).unwrap();
    let mount = format!("mount -t tmpfs -o size=3m tmpfs '{}'", env.home().display());
    let can = env.start(env.program("unshare", &["-rm", "sh", "-c", &mount])).end();
    if can.status != Some(0) {
        #[expect(clippy::print_stderr, reason = "whoever reads the log shall know that this did not run")]
        {
            eprintln!("skipped: cannot mount a small disk here: {}", can.stderr);
        }
        return None;
    }
    let script = format!("{mount} && {script}");
    Some(env.start(env.program("unshare", &["-rm", "sh", "-c", &script, "sh", crate::env::BENCHRUN])).end())
}

#[test]
fn a_full_disk_is_said_and_spoils_nothing() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32]", LOAD));
    env.write("more.yaml", &manifest("precision: [fp32, int8_wo, fp16]", LOAD));
    // The first run fits. Then the disk fills, and the last run has room again.
    let script = "\"$1\" apply m.yaml || exit 99
        dd if=/dev/zero of=\"$BENCHRUN_HOME/big\" bs=1k 2> /dev/null
        dd if=/dev/zero of=\"$BENCHRUN_HOME/bigger\" bs=1 2> /dev/null
        \"$1\" apply more.yaml; echo \"full: $?\"
        rm \"$BENCHRUN_HOME/big\" \"$BENCHRUN_HOME/bigger\"
        \"$1\" apply m.yaml; echo \"freed: $?\"
        \"$1\" report latest --format csv";
    let Some(ended) = on_a_small_disk(&env, script) else { return };
    let ended = ended.expect(0);
    ended
        .prints("full: 4")
        .prints("freed: 0")
        .says("No space left on device")
        .says("the disk")
        .says("is full: free some space");
    ended.says("nothing to do: 2 load points measured before");
}

#[test]
fn a_home_that_cannot_be_written_is_said() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32]", LOAD));
    fs::write(env.home(), "in the way").unwrap();
    env.expect(4, &["apply", "m.yaml"]).says("home/store").says("Not a directory");
    fs::remove_file(env.home()).unwrap();
    fs::create_dir(env.home()).unwrap();
    fs::set_permissions(env.home(), fs::Permissions::from_mode(0o500)).unwrap();
    if fs::create_dir(env.home().join("probe")).is_ok() {
        return eprintln!("skipped: this user may write everywhere");
    }
    env.expect(4, &["apply", "m.yaml"]).says("Permission denied").says("hint: give another folder with `--home DIR`");
}

#[test]
fn requests_that_all_fail_fail_their_point_with_the_first_error() {
    let env = env_with(&recipe(QUANTIZE, "true").replace("served_model: \"{{ model }}\"", "served_model: another"));
    env.write("m.yaml", &of_mine("precision: [good]"));
    env.expect(4, &["apply", "m.yaml"]).says("no request succeeded; the first error is http_404");
    let rows = env.rows("small");
    assert_eq!(column(&rows, "status"), ["failed", "failed"]);
    assert_eq!(column(&rows, "requests_failed"), ["3", "3"]);
    let run = env.latest("small");
    let requests = json_lines(&run.join("cells/tiny/good/isl8/osl4/load/c1/requests.jsonl"));
    assert!(requests.iter().all(|line| line["status"] == "failed" && line["error"]["kind"] == "http_404"));
}
