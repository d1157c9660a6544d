//! Bad input: the exit code, and a message that a stranger can act on.

use std::net::TcpListener;

use crate::env::{LOAD, TestEnv, column, manifest, one_cell};

/// Applies a manifest that has to be refused before anything ran, with these parts in the message.
#[track_caller]
fn check(env: &TestEnv, manifest: &str, parts: &[&str]) {
    env.write("m.yaml", manifest);
    for command in ["plan", "apply"] {
        let ended = env.expect(3, &[command, "m.yaml"]);
        for part in parts {
            ended.says(part);
        }
        assert_eq!(ended.stdout, "");
    }
    assert!(!env.home().join("runs").exists(), "a refused manifest makes no run");
}

#[test]
fn mistakes_of_a_manifest_are_named_with_their_place_and_a_remedy() {
    let env = TestEnv::new();
    let good = one_cell();
    let bad = |from: &str, to: &str| {
        assert!(good.contains(from));
        good.replacen(from, to, 1)
    };
    for (text, parts) in [
        (
            bad("concurrency:", "concurency:"),
            &["m.yaml:13:", "unknown key `concurency`", "did you mean `concurrency`?"][..],
        ),
        (bad("precision:", "presicion:"), &["nothing uses the axis `presicion`", "did you mean `precision`?"]),
        (bad("[fp32]", "[]"), &["m.yaml:12:", "matrix.axes.precision: must not be empty"]),
        (
            bad("requests: 3", "requests: many"),
            &["benchmarks.load.requests: expected an integer, found the string `many`"],
        ),
        (bad("requests: 3", "requests: 3, duration: 1s"), &["requests", "duration"]),
        (bad("[1, 2]", "[0]"), &["benchmarks.load.concurrency[0]"]),
        (bad("max_seq_len: 64", "max_seq_len: 8"), &["engine.settings.max_seq_len: `8` is below the least value, 16"]),
        (bad("max_seq_len", "max_len"), &["engine `embedded` has no setting `max_len`"]),
        (bad("name: embedded", "name: embeded"), &["no recipe for engine `embeded`", "embedded"]),
        (bad("name: small", "name: a/b"), &["m.yaml:1:7: name: the string `a/b` does not have the right form"]),
        (bad("name: small", "name: small\nname: again"), &["m.yaml:2:1", "name"]),
        (bad("name: small", "name: [small"), &["m.yaml:"]),
        (String::new(), &["m.yaml"]),
        (
            bad("requests: 3", "requests: 3, thresholds: {ttft_p99: {max: 1}}"),
            &["the results have no column `ttft_p99` to bound", "did you mean `ttft_ms_p99`?"],
        ),
    ] {
        check(&env, &text, parts);
    }
}

#[test]
fn all_mistakes_are_said_at_once_in_the_order_of_lines() {
    let env = TestEnv::new();
    let text = one_cell().replace("concurrency:", "concurency:").replace("requests: 3", "request: 3") + "extra: 1\n";
    // Some need the recipe to be seen, others do not.
    let text =
        text.replace("name: embedded", "name: embedded\n  version: '99'").replace("max_seq_len: 64", "max_len: 64");
    let text = text.replace("precision: [fp32]", "presicion: [fp32], batch_size: [0], cache: [1]");
    check(&env, &text, &[]);
    let said = env.expect(3, &["validate", "m.yaml"]).stderr;
    let parts = [
        "engine `embedded` has no version `99`",
        "has no setting `max_len`",
        "nothing uses the axis `presicion`",
        "values of the axis `batch_size` are integers from 1",
        "nothing uses the axis `cache`",
        "unknown key `concurency`",
        "unknown key `request`",
        "unknown key `extra`",
    ];
    let places: Vec<usize> =
        parts.map(|part| said.find(part).unwrap_or_else(|| panic!("no `{part}` in {said}"))).into();
    assert!(places.is_sorted(), "{said}");
    assert_eq!(said.matches("m.yaml:").count(), parts.len(), "{said}");
}

#[test]
fn what_follows_from_another_mistake_is_not_said() {
    let env = TestEnv::new();
    let good = one_cell();
    for (from, to, alone) in [
        // Without phases, nobody knows who would take `isl` and `osl`.
        ("benchmarks:", "benchmark:", "unknown key `benchmark`"),
        ("concurrency:", "concurency:", "unknown key `concurency`"),
        ("requests: 3", "request: 3", "unknown key `request`"),
        ("name: embedded", "name: embedded\n  version: 1", "engine.version: expected a string"),
        ("name: embedded", "name: mine\n  recipe: recipes", "unknown key `recipe`"),
        ("name: embedded", "name: ../embedded", "does not have the right form"),
        ("isl/osl: [[8, 4]]", "isl/osl: [[8]]", "expected a list of 2 values"),
        ("isl/osl: [[8, 4]]", "isl/osl: [[0, 4]]", "values of the axis `isl` are integers from 1"),
        ("max_seq_len: 64", "max_seq_len: [64]", "engine.settings.max_seq_len: expected"),
        ("max_seq_len: 64", "max_seq_len: 64, max_seq_len: 1", "duplicate key `max_seq_len`"),
    ] {
        assert!(good.contains(from));
        env.write("m.yaml", &good.replacen(from, to, 1));
        let ended = env.expect(3, &["validate", "m.yaml"]);
        ended.says(alone);
        assert_eq!(ended.stderr.matches("m.yaml:").count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn a_bad_line_of_a_data_file_is_named_before_anything_runs() {
    let env = TestEnv::new();
    let phase = "load: {protocol: openai-completions, concurrency: [1], requests: 3,
        data: {jsonl: {path: my prompts.jsonl}}, output: {tokens: 4}}";
    let text = manifest("precision: [fp32]", phase).replace(", isl/osl: [[8, 4]]", "");
    env.write("my prompts.jsonl", &("{\"text_input\": \"good\"}\n".repeat(6) + "{\"text\": \"bad\"}\n"));
    check(&env, &text, &["line 7 of `my prompts.jsonl`", "none of `text_input`, `prompt`, `messages`", "load"]);
    env.expect(3, &["validate", "m.yaml"]).says("line 7 of `my prompts.jsonl`");
    env.write("my prompts.jsonl", "");
    check(&env, &text, &["`my prompts.jsonl` has no prompts"]);
    std::fs::remove_file(env.path("my prompts.jsonl")).unwrap();
    check(&env, &text, &["cannot read prompts from `my prompts.jsonl`", "No such file"]);
}

#[test]
fn command_lines_that_make_no_sense_are_refused() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    env.expect(3, &["apply", "nosuch.yaml"]).says("cannot read `nosuch.yaml`").says("No such file");
    env.expect(3, &["apply", "."]).says("name it `.yaml` or `.toml`");
    env.expect(3, &["plan", "m.yaml", "--only", "precison=fp32"])
        .says("the matrix has no axis `precison`")
        .says("precision");
    env.expect(3, &["apply", "m.yaml", "--only", "precision=fp64"]).says("axis `precision` has no value `fp64`");
    env.expect(3, &["apply", "m.yaml", "--only", "fp32"]).says("`fp32` is not of the form AXIS=VALUE");
    env.expect(2, &["aply", "m.yaml"]).says("unrecognized subcommand 'aply'").says("'apply'");
    env.expect(2, &["apply"]).says("<MANIFEST>");
    env.expect(2, &["apply", "m.yaml", "--rerun", "quantise"]).says("quantize");
    env.expect(2, &["apply", "m.yaml", "--onyl", "a=b"]).says("--only");
}

#[test]
fn models_that_are_not_there_are_refused() {
    let env = TestEnv::new();
    let with = |model: &str| {
        let text = one_cell();
        let (start, end) = (text.find("  tiny:").unwrap(), text.find("engine:").unwrap());
        format!("{}  \"; touch x\": {model}\n{}", &text[..start], &text[end..])
    };
    check(&env, &with("{path: no such}"), &["cannot read model `; touch x` at `no such`", "No such file"]);
    std::fs::create_dir(env.path("空 folder")).unwrap();
    check(
        &env,
        &with("{path: 空 folder}"),
        &["model `; touch x` at `空 folder` has neither `config.json` nor a `.gguf` file", "hint: give the folder"],
    );
    check(&env, &with("{}"), &["models.\"; touch x\"", "`hf`", "`path`", "`dummy`"]);
    assert!(!env.path("x").exists());
}

#[test]
fn a_hub_that_cannot_be_reached_is_refused_with_a_hint() {
    let env = TestEnv::new();
    let text = one_cell();
    let (start, end) = (text.find("    dummy:").unwrap(), text.find("engine:").unwrap());
    env.write("m.yaml", &format!("{}    hf: {{repo: a/b}}\n{}", &text[..start], &text[end..]));
    // Nobody listens on a port that was just given back.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = env.command(&["apply", "m.yaml"]);
    command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"));
    let ended = env.start(command).end().expect(3);
    ended.says("cannot find model `tiny`").says("cannot be reached").says("hint: check the network and HF_ENDPOINT");
}

/// What shells, paths and file names make of names, nobody but the user decides.
#[test]
fn odd_names_are_only_names() {
    let env = TestEnv::new();
    let folder = "my sweeps/中文 $(touch x)";
    let text = manifest("precision: [fp32], batch_size: [1]", &LOAD.replace("load:", "\"负载 a\":"))
        .replace("  tiny:", "  \"; touch x\":");
    env.write(&format!("{folder}/m.yaml"), &text);
    let manifest = format!("{folder}/m.yaml");
    env.expect(0, &["apply", &manifest, "--home", "家 home"]).prints("负载 a");
    let runs = env.path("家 home/runs/small/latest");
    let rows = crate::env::rows_of(&runs);
    assert_eq!(column(&rows, "status"), ["ok", "ok"]);
    assert_eq!(column(&rows, "model"), ["; touch x", "; touch x"]);
    assert_eq!(column(&rows, "phase"), ["负载 a", "负载 a"]);
    assert!(runs.join("cells").join(&rows[0]["cell"]).join("负载 a/c1/requests.jsonl").is_file());
    env.expect(0, &["report", "--home", "家 home"]).prints("负载 a");
    for place in ["x", &format!("{folder}/x")] {
        assert!(!env.path(place).exists(), "a name was run as a command");
    }
}
