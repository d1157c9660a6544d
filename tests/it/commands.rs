//! The commands beside `apply`: what they print, write and refuse.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::env::{CONFIG, LOAD, TestEnv, column, json, manifest, one_cell, rows_of};

/// A finished run of one cell with two load points.
fn finished() -> TestEnv {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    env.expect(0, &["apply", "m.yaml"]);
    env
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn report_rebuilds_the_results_from_the_records() {
    let env = finished();
    let run = env.latest("small");
    let [csv, json] = ["results.csv", "results.json"].map(|name| run.join(name));
    let before = (text(&csv), text(&json));
    fs::remove_file(&csv).unwrap();
    fs::remove_file(&json).unwrap();
    env.expect(0, &["report"]).prints("tiny/fp32/isl8/osl4");
    assert_eq!((text(&csv), text(&json)), before);

    let id = run.file_name().unwrap().to_str().unwrap();
    for named in ["latest", "small", id, run.to_str().unwrap()] {
        assert_eq!(env.expect(0, &["report", named, "--format", "csv"]).stdout, before.0, "{named}");
    }
    let printed: Value = serde_json::from_str(&env.expect(0, &["report", "--format", "json"]).stdout).unwrap();
    assert_eq!(printed, crate::env::json(&json));
    env.expect(4, &["report", "nosuch"]).says("no run `nosuch`").says("hint: `benchrun runs list`");
}

#[test]
fn runs_are_listed_shown_and_removed() {
    let env = finished();
    env.expect(0, &["apply", "m.yaml"]);
    let runs = env.runs("small");
    let ids: Vec<&str> = runs.iter().map(|run| run.file_name().unwrap().to_str().unwrap()).collect();
    let listed = env.expect(0, &["runs", "list"]);
    assert_eq!(env.expect(0, &["runs"]).stdout, listed.stdout);
    assert_eq!(listed.stdout, format!("{}  small  2 ok\n{}  small  2 ok, 2 cached\n", ids[0], ids[1]));
    env.expect(0, &["runs", "show", ids[0]]).prints(runs[0].to_str().unwrap()).prints("tiny/fp32/isl8/osl4");
    env.expect(4, &["runs", "remove", ids[0], "nosuch"]).says("no run `nosuch`");
    assert!(runs[0].exists(), "nothing is removed when one of the names is wrong");
    env.expect(0, &["runs", "remove", ids[0]]).prints(&format!("removed {}", ids[0]));
    assert_eq!(env.runs("small").len(), 1);
    // The measurement is in the store, not in the run that is gone.
    env.expect(0, &["report"]).prints("ok");
    env.expect(0, &["apply", "m.yaml"]).says("nothing to do");
}

#[test]
fn the_store_is_listed_and_cleaned() {
    let env = finished();
    let sizes = env.expect(0, &["store", "size"]);
    assert_eq!(env.expect(0, &["store"]).stdout, sizes.stdout);
    for kind in ["fetch", "quantize", "build", "render", "bench"] {
        sizes.prints(kind);
    }
    assert_eq!(env.expect(0, &["store", "list"]).stdout.lines().count(), 6);
    assert_eq!(env.expect(0, &["store", "gc"]).stdout, "", "everything is in use");

    env.write("other.yaml", &manifest("precision: [int8_wo]", LOAD).replace("name: small", "name: other"));
    env.expect(0, &["apply", "other.yaml"]);
    let kept = env.stored("quantize").len();
    env.expect(0, &["runs", "remove", "other"]);
    let would = env.expect(0, &["store", "gc", "--dry-run"]);
    would.prints("would remove quantize");
    assert_eq!(env.stored("quantize").len(), kept, "a dry run removes nothing");
    let removed = env.expect(0, &["store", "gc"]);
    assert_eq!(removed.stdout, would.stdout.replace("would remove", "removed"));
    assert_eq!(env.stored("quantize").len(), kept - 1);
    // The other run is whole.
    env.expect(0, &["apply", "m.yaml"]).says("nothing to do");
    env.expect(0, &["apply", "other.yaml"]).says("2 ok");
}

#[test]
fn why_tells_what_decides_a_key_and_what_changed() {
    let env = finished();
    let why = env.expect(0, &["why", "m.yaml", "quantize"]);
    why.prints("quantize tiny fp32  cached").prints("\"precision\": \"fp32\"").prints("\"fetch\": \"");
    assert!(!why.stdout.contains("build tiny"), "{}", why.stdout);
    env.expect(0, &["why", "m.yaml"]).prints("bench tiny fp32").prints("load c2  cached").prints("\"concurrency\":2");
    env.write("m.yaml", &one_cell().replace("[fp32]", "[int8_wo]"));
    env.expect(0, &["why", "m.yaml", "tiny int8_wo"]).prints("stale because precision changed from fp32 to int8_wo");
    env.expect(2, &["why", "m.yaml", "nosuch"]).says("no step matches `nosuch`").says("hint: give a kind");
}

#[test]
fn render_writes_the_files_of_one_cell() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32], batch_size: [1, 3]", LOAD));
    let ended = env.expect(0, &["render", "m.yaml", "--cell", "tiny/fp32/bs3/isl8/osl4", "--out", "my files"]);
    ended.prints("my files/serve.yaml");
    assert!(text(&env.path("my files/serve.yaml")).contains("max_batch_size: 3"));
    let ended = env.expect(2, &["render", "m.yaml", "--cell", "nosuch", "--out", "out"]);
    ended.says("the manifest has no cell `nosuch`").says("tiny/fp32/bs1/isl8/osl4");
    assert!(!env.home().join("runs").exists());
}

#[test]
fn a_server_without_a_model_does_not_say_that_it_serves() {
    let ended = TestEnv::new().expect(4, &["engine", "serve", "nosuch", "--http-port", "0", "--grpc-port", "0"]);
    assert!(!ended.says("nosuch").stderr.contains("serving"), "{}", ended.stderr);
}

#[test]
fn init_writes_a_manifest_that_plans_and_overwrites_none() {
    let env = TestEnv::new();
    env.expect(0, &["init"]).prints("wrote benchrun.yaml");
    env.expect(0, &["validate", "benchrun.yaml"]).prints("benchrun.yaml: ok, ");
    env.expect(10, &["plan", "benchrun.yaml", "--detailed-exitcode"]).prints("load points to measure");
    let before = text(&env.path("benchrun.yaml"));
    env.write("mine.yaml", "mine");
    env.expect(4, &["init", "mine.yaml"]).says("exists").says("hint: nothing is overwritten: name another");
    assert_eq!(text(&env.path("mine.yaml")), "mine");
    assert_eq!(text(&env.path("benchrun.yaml")), before);
    env.expect(2, &["init", "x.yaml", "--engine", "nosuch"])
        .says("no starter manifest for engine `nosuch`")
        .says("embedded");
}

#[test]
fn validate_checks_every_file() {
    let env = TestEnv::new();
    env.write("good.yaml", &one_cell());
    env.write("bad.yaml", &one_cell().replace("requests", "request"));
    env.write("last.yaml", &manifest("precision: [fp32, fp16]", LOAD));
    let ended = env.expect(3, &["validate", "good.yaml", "bad.yaml", "last.yaml"]);
    assert_eq!(ended.stdout, "good.yaml: ok, 1 cell\nlast.yaml: ok, 2 cells\n");
    ended.says("bad.yaml:13:").says("unknown key `request`");
    env.expect(0, &["validate", "good.yaml", "last.yaml"]);
}

#[test]
fn schema_and_completions_are_what_tools_expect() {
    let env = TestEnv::new();
    let schema: Value = serde_json::from_str(&env.expect(0, &["schema"]).stdout).unwrap();
    assert!(schema["properties"]["matrix"].is_object());
    for shell in ["bash", "zsh", "fish"] {
        env.expect(0, &["completions", shell]).prints("benchrun").prints("apply");
    }
    let script = env.expect(0, &["completions", "bash"]).stdout;
    env.write("completions.sh", &script);
    env.start(env.program("bash", &["-n", "completions.sh"])).end().expect(0);
}

#[test]
fn a_plan_is_text_json_or_a_graph() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    let plan: Value = serde_json::from_str(&env.expect(0, &["plan", "m.yaml", "--format", "json"]).stdout).unwrap();
    let states = |plan: &Value| {
        let steps = plan["steps"].as_array().unwrap().clone();
        steps.into_iter().map(|step| step["state"]["state"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states(&plan), ["run"; 5]);
    assert_eq!(plan["summary"]["points_to_measure"], 2);
    let dot = env.expect(0, &["plan", "m.yaml", "--format", "dot"]);
    dot.prints("digraph plan {").prints("\"quantize tiny fp32\\nrun\"").prints(" -> ");
    env.expect(10, &["plan", "m.yaml", "--detailed-exitcode"]);
    assert!(!env.home().join("runs").exists(), "a plan runs nothing");
    env.expect(0, &["apply", "m.yaml"]);
    env.expect(0, &["plan", "m.yaml", "--detailed-exitcode"]);
    let plan: Value = serde_json::from_str(&env.expect(0, &["plan", "m.yaml", "--format", "json"]).stdout).unwrap();
    assert_eq!(states(&plan), ["cached"; 5]);
    // `head` closes the pipe at once: no reason to complain.
    let script = format!("'{}' plan m.yaml | head -n 1", crate::env::BENCHRUN);
    let ended = env.start(env.program("bash", &["-o", "pipefail", "-c", &script])).end().expect(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_lock_repeats_its_run_and_refuses_anything_else() {
    let env = finished();
    let lock = text(&env.latest("small").join("lock.yaml"));
    fs::create_dir(env.path("elsewhere")).unwrap();
    env.write("elsewhere/lock.yaml", &lock);
    env.expect(0, &["apply", "elsewhere/lock.yaml"]).says("nothing to do: 2 load points measured before");
    assert_eq!(column(&env.rows("small"), "status"), ["ok", "ok"]);
    assert_eq!(text(&env.latest("small").join("lock.yaml")), lock, "the lock of a repeated run is the same lock");

    let recipe = lock.lines().find(|line| line.trim_start().starts_with("recipe: ")).unwrap();
    env.write("lock.yaml", &lock.replace(recipe, &format!("      recipe: {}", "a".repeat(64))));
    let ended = env.expect(3, &["apply", "lock.yaml"]);
    ended.says("`recipe of embedded` is `").says("but the lock says `aaa").says("hint: restore it");
    let program = lock.lines().find(|line| line.starts_with("        benchrun: ")).unwrap();
    env.write("lock.yaml", &lock.replace(program, "        benchrun: \"0.0.1\""));
    env.expect(3, &["apply", "lock.yaml"]).says("version of benchrun").says("0.0.1");

    // In an empty place, everything is made again and compared.
    env.expect(0, &["apply", "elsewhere/lock.yaml", "--home", "fresh"]).says("2 ok");
    let config = lock.lines().find(|line| line.trim_start().starts_with("config.json: ")).unwrap();
    env.write("lock.yaml", &lock.replace(config, &format!("        config.json: {}", "a".repeat(64))));
    env.expect(4, &["apply", "lock.yaml", "--home", "other"]).says("`config.json` is not what the lock says");
}

#[test]
fn a_lock_repeats_what_was_chosen() {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest("precision: [fp32, int8_wo], batch_size: [1, 2]", LOAD));
    env.expect(0, &["apply", "m.yaml", "--only", "precision=fp32"]).says("4 ok");
    let lock = env.latest("small").join("lock.yaml");
    let lock = lock.to_str().unwrap();
    env.expect(0, &["apply", lock]).says("nothing to do: 4 load points measured before");
    env.expect(0, &["apply", lock, "--only", "batch_size=2"]).says("nothing to do: 2 load points measured before");
    env.expect(3, &["apply", lock, "--only", "batch_size=3"]).says("no value `3`");
}

#[test]
fn a_model_in_a_folder_is_locked_by_its_files() {
    let env = TestEnv::new();
    env.write("config.json", CONFIG);
    env.expect(0, &["engine", "dummy", "my model", "--config", "config.json"]);
    let dummy = format!("    dummy:\n      config: {CONFIG}\n");
    env.write("m.yaml", &one_cell().replace(&dummy, "    path: my model\n"));
    env.expect(0, &["apply", "m.yaml"]).says("2 ok");
    let lock = env.latest("small").join("lock.yaml");
    env.expect(0, &["apply", lock.to_str().unwrap()]).says("nothing to do");
    let file = env.path("my model/generation_config.json");
    fs::write(&file, text(&file) + "\n").unwrap();
    let ended = env.expect(3, &["apply", lock.to_str().unwrap()]);
    ended.says("tiny: generation_config.json").says("but the lock says");
    env.expect(0, &["plan", "m.yaml"]).prints("stale because model.path.files.generation_config.json changed");
}

#[test]
fn toml_and_yaml_mean_the_same() {
    let env = finished();
    let toml = r#"
name = "small"

[models.tiny.dummy.config]
model_type = "qwen2"
vocab_size = 4096
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 64
tie_word_embeddings = true

[engine]
name = "embedded"
settings = { max_seq_len = 64 }

[matrix.axes]
precision = ["fp32"]
"isl/osl" = [[8, 4]]

[benchmarks.load]
protocol = "openai-completions"
concurrency = [1, 2]
requests = 3
"#;
    env.write("m.toml", toml);
    env.expect(0, &["apply", "m.toml"]).says("nothing to do: 2 load points measured before");
    let run = env.latest("small");
    assert_eq!(text(&run.join("manifest.toml")), toml);
    assert_eq!(column(&rows_of(&run), "status"), ["ok", "ok"]);
    assert_eq!(json(&run.join("plan.json"))["cells"][0]["cell"], "tiny/fp32/isl8/osl4");
    env.write("bad.toml", &toml.replace("requests = 3", "request = 3"));
    env.expect(3, &["plan", "bad.toml"]).says("bad.toml:26:1: benchmarks.load.request: unknown key `request`");
}
