//! Several engines in one manifest.

use std::fs;
use std::path::Path;

use crate::env::{CONFIG, TestEnv, column, json};

/// The embedded engine under another name: another precision, a switch of its own, no `batch_size`.
const OTHER: &str = r#"
engine: other
about: the embedded engine, set up in another way
versions: ["2", "1"]
programs:
  benchrun: {program: benchrun, version: [--version]}
settings:
  loud: {kind: bool, about: whether to greet, default: false}
  threads: {kind: int, about: CPU threads, default: 1, min: 1, max: 2}
precisions:
  fp32: {}
server:
  command: [benchrun, engine, serve, "{{ fetch }}", --config, "{{ render }}/serve.yaml", --http-port, "{{ port.web }}",
            --grpc-port, "{{ port.rpc }}"]
  env: {LOUD: "{{ loud }}"}
  ports: [web, rpc]
  served_model: "{{ model }}"
  ready: [{http: "http://{{ host }}:{{ port.web }}/health"}]
  protocols:
    openai-completions: {url: "http://{{ host }}:{{ port.web }}"}
steps:
  render:
    - files: {serve.yaml: serve.j2}
"#;

fn env_with_other() -> TestEnv {
    let env = TestEnv::new();
    env.write("recipes/other/recipe.yaml", OTHER);
    env.write("recipes/other/serve.j2", "served_model: {{ model }}\nthreads: {{ threads }}\n");
    env
}

fn manifest(engines: &str, axes: &str) -> String {
    format!(
        "name: small
models: {{tiny: {{dummy: {{config: {CONFIG}}}}}}}
engines:
{engines}
matrix: {{axes: {{{axes}}}}}
benchmarks:
  load: {{protocol: openai-completions, data: {{synthetic: {{isl: 8}}}}, output: {{tokens: 4}}, concurrency: [1], requests: 2}}
"
    )
}

const BOTH: &str = "  embedded: {settings: {max_seq_len: 64}}\n  other: {recipes: recipes}";

#[test]
fn engines_stand_side_by_side_in_one_table() {
    let env = env_with_other();
    env.write("m.yaml", &manifest(BOTH, "precision: [fp32, int8_wo], batch_size: [2], loud: [false, true]"));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    plan.prints("small: engines embedded 1, other 2").prints("  fetch tiny  run\n");
    assert_eq!(plan.stdout.matches("fetch tiny").count(), 1, "one model for both:\n{}", plan.stdout);

    // What an engine does not know is no axis of its cells.
    let ended = env.expect(0, &["apply", "m.yaml"]);
    ended.prints("engine `other` has no precision `int8_wo` (it has fp32)").prints(" tiny/embedded/int8_wo/bs2 ");
    let rows = env.rows("small");
    assert_eq!(
        column(&rows, "cell"),
        [
            "tiny/embedded/fp32/bs2",
            "tiny/embedded/int8_wo/bs2",
            "tiny/other/fp32/loud-false",
            "tiny/other/fp32/loud-true",
            "tiny/other/int8_wo/loud-false",
            "tiny/other/int8_wo/loud-true",
        ]
    );
    assert_eq!(column(&rows, "engine"), ["embedded", "embedded", "other", "other", "other", "other"]);
    assert_eq!(column(&rows, "status"), ["ok", "ok", "ok", "ok", "unsupported", "unsupported"]);
    assert_eq!(column(&rows, "loud"), ["", "", "false", "true", "false", "true"]);
    assert_eq!(column(&rows, "batch_size"), ["2", "2", "", "", "", ""]);

    // The same prompts for both, under servers of their own.
    let cells = env.latest("small").join("cells/tiny");
    let workload = |cell: &str| json(&cells.join(cell).join("load/c1/point.json"))["workload"].clone();
    assert_eq!(workload("embedded/fp32/bs2"), workload("other/fp32/loud-true"));
    assert_eq!(json(&cells.join("other/fp32/loud-true/logs/bench/command.json"))["env"]["LOUD"], "True");

    env.expect(0, &["apply", "m.yaml"]).says("nothing to do: 4 load points measured before");
    let lock = env.latest("small").join("lock.yaml").display().to_string();
    env.expect(0, &["apply", &lock]).says("nothing to do: 4 load points measured before");
    env.write("lock.yaml", &fs::read_to_string(&lock).unwrap().replacen("recipe: ", "recipe: a", 1));
    env.expect(3, &["apply", "lock.yaml"]).says("`recipe of embedded` is").says("but the lock says `a");

    // An engine alone finds what was measured beside others.
    let alone = manifest(BOTH, "precision: [fp32, int8_wo], batch_size: [2]")
        .replace("engines:\n  embedded: {", "engine: {name: embedded, ")
        .replace("  other: {recipes: recipes}\n", "");
    env.write("alone.yaml", &alone);
    env.expect(0, &["apply", "alone.yaml"]).says("nothing to do: 2 load points measured before");
}

#[test]
fn commands_choose_engines_by_name() {
    let env = env_with_other();
    let engines = "  slow: {name: embedded, settings: {max_seq_len: 64}, runtime: {host: {env: {LEVEL: low}}}}
  fast: {name: other, recipes: recipes, settings: {loud: true}}
  absent: {name: vllm}";
    env.write("m.yaml", &manifest(engines, "precision: [fp32]"));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    plan.prints("engines slow (embedded 1), fast (other 2), absent (vllm 0.32.0)");
    plan.prints("warning: program `vllm`, which `bench tiny absent fp32` needs, is not on this machine");

    let plan = env.expect(0, &["plan", "m.yaml", "--only", "engine=slow|fast"]);
    assert!(!plan.stdout.contains("warning"), "nobody asks for what is not chosen:\n{}", plan.stdout);
    let ended = env.expect(3, &["plan", "m.yaml", "--only", "engine=quick"]);
    ended.says("axis `engine` has no value `quick`");

    env.expect(0, &["render", "m.yaml", "--cell", "tiny/fast/fp32", "--out", "out"]).prints("out/serve.yaml");
    assert_eq!(fs::read_to_string(env.path("out/serve.yaml")).unwrap(), "served_model: tiny\nthreads: 1\n");
    let why = env.expect(0, &["why", "m.yaml", "bench tiny fast"]);
    why.prints("bench tiny fast  run").prints("\"LOUD\": \"True\"");

    env.expect(0, &["apply", "m.yaml", "--only", "engine=slow|fast"]);
    let cells = env.latest("small").join("cells/tiny");
    let variable = |engine: &str| {
        let record = json(&cells.join(engine).join("fp32/logs/bench/command.json"));
        record["env"]["LEVEL"].clone()
    };
    assert_eq!((variable("slow"), variable("fast")), ("low".into(), serde_json::Value::Null));
}

#[test]
fn an_engine_is_an_axis_like_any_other() {
    let env = env_with_other();
    let cells = |matrix: &str| {
        let text = manifest(BOTH, "").replace("matrix: {axes: {}}", &format!("matrix: {matrix}"));
        env.write("m.yaml", &text);
        let plan = env.expect(0, &["plan", "m.yaml", "--format", "json"]);
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        let cells = plan["cells"].as_array().unwrap().iter();
        let said = |cell: &serde_json::Value| match cell["reason"].as_str() {
            Some(reason) => format!("{}: {reason}", cell["cell"].as_str().unwrap()),
            None => cell["cell"].as_str().unwrap().to_owned(),
        };
        cells.map(said).collect::<Vec<_>>()
    };
    assert_eq!(
        cells("{axes: {engine/precision: [[other, fp32], [embedded, int8_wo], [embedded, fp32]]}}"),
        ["tiny/other/fp32", "tiny/embedded/int8_wo", "tiny/embedded/fp32"]
    );
    assert_eq!(
        cells("{axes: {precision: [fp32], engine: [other]}, include: [{engine: embedded, precision: int8_wo}]}"),
        ["tiny/fp32/other", "tiny/int8_wo/embedded"]
    );
    assert_eq!(
        cells("{axes: {threads: [1, 3]}, exclude: [{where: {engine: embedded, threads: 1}, because: slow}]}"),
        [
            "tiny/embedded/threads-1: slow",
            "tiny/embedded/threads-3",
            "tiny/other/threads-1",
            "tiny/other/threads-3: engine `other` does not take this `threads`: `3` is above the largest value, 2",
        ]
    );
}

#[test]
fn mistakes_about_engines_are_named_with_their_place() {
    let env = env_with_other();
    let good = manifest(BOTH, "precision: [fp32], loud: [true]");
    let matrix =
        |matrix: &str| good.replace("matrix: {axes: {precision: [fp32], loud: [true]}}", &format!("matrix: {matrix}"));
    for (text, message) in [
        (
            good.replace("matrix:", "engine: {name: embedded}\nmatrix:"),
            "engines: only one of the keys `engine`, `engines`",
        ),
        (good.replace("engines:", "engins:"), "engins: unknown key `engins`"),
        (good.replace("  other:", "  'o t':"), "engines.\"o t\": the engine's name does not have the right form"),
        (good.replace("  other:", "  others:"), "engines.others: no recipe for engine `others`"),
        (good.replace("max_seq_len", "max_len"), "engines.embedded.settings.max_len: engine `embedded` has no setting"),
        (
            good.replace("{recipes:", "{version: '3', recipes:"),
            "engines.other.version: engine `other` has no version `3`",
        ),
        (
            good.replace("{recipes:", "{runtime: {host: {env: {MY_TOKEN: x}}}, recipes:"),
            "engines.other.runtime.host.env.MY_TOKEN: `MY_TOKEN` looks like a secret",
        ),
        (matrix("{axes: {engine: [othr]}}"), "matrix.axes.engine[0]: there is no engine `othr`"),
        (matrix("{axes: {loudness: [1]}}"), "matrix.axes.loudness: nothing uses the axis `loudness`"),
        (matrix("{axes: {threads: [-1]}}"), "matrix.axes.threads[0]: `-1` is below the least value, 0"),
        (
            matrix("{axes: {loud: [true]}, include: [{engine: embedded, loud: false}]}"),
            "matrix.include[0].loud: engine `embedded` makes nothing of the axis `loud`",
        ),
        (
            matrix("{axes: {threads: [1]}, include: [{engine: other, threads: 3}]}"),
            "matrix.include[0].threads: `3` is above the largest value, 2",
        ),
        (
            matrix("{axes: {loud: [true]}, exclude: [{where: {loud: [1]}, because: why}]}"),
            "matrix.exclude[0].where.loud[0]: expected a boolean",
        ),
        (
            matrix("{axes: {loud: [true]}, exclude: [{where: {engine: x}, because: why}]}"),
            "matrix.exclude[0].where.engine: there is no engine `x`",
        ),
    ] {
        assert_ne!(text, good);
        env.write("m.yaml", &text);
        let ended = env.expect(3, &["validate", "m.yaml"]);
        ended.says(message);
        assert_eq!(ended.stderr.matches("m.yaml:").count(), 1, "{}", ended.stderr);
    }
    let one = "name: s\nmodels: {tiny: {dummy: {}}}\nengine: {version: '1'}\nmatrix: {axes: {engine: [embedded]}}\nbenchmarks: {}\n";
    env.write("m.yaml", one);
    let ended = env.expect(3, &["validate", "m.yaml"]);
    ended.says("engine: missing key `name`").says("matrix.axes.engine: there is one engine");
}

#[test]
fn manifests_of_several_engines_plan_on_any_machine() {
    let env = TestEnv::new();
    for (manifest, servers, unsupported) in [("compare-engines", 5, 1), ("gpu-engines", 18, 0)] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("manifests/{manifest}.yaml"));
        let mut command = env.command(&["plan", path.to_str().unwrap(), "--format", "json"]);
        // No hub: the keys are provisional, and the plan says so.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
        let plan = env.start(command).end().expect(0);
        let summary = serde_json::from_str::<serde_json::Value>(&plan.stdout).unwrap()["summary"].clone();
        assert_eq!((&summary["servers_to_start"], &summary["unsupported"]), (&servers.into(), &unsupported.into()));
        assert_eq!(plan.stdout.matches("\"label\": \"fetch ").count(), 1, "one model for all");
    }
}

#[test]
fn every_engine_there_is_plans_in_one_manifest_and_shows_its_commands() {
    let env = TestEnv::new();
    let names = benchrun::recipe::built_in_names();
    let entry = |name: &String| match name.as_str() {
        "endpoint" => format!("  {name}: {{settings: {{url: 'http://127.0.0.1:9', served_model: m}}}}\n"),
        "lmdeploy-triton" => format!("  {name}: {{settings: {{model_name: llama}}}}\n"),
        "tensorrt-llm" => format!("  {name}: {{settings: {{family: qwen}}}}\n"),
        _ => format!("  {name}: {{}}\n"),
    };
    let engines: String = names.iter().map(entry).collect();
    env.write("m.yaml", &manifest(engines.trim_end(), "batch_size: [4]"));
    let plan = env.expect(0, &["plan", "m.yaml", "--format", "json"]).stdout;
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let list = |name: &str| plan[name].as_array().unwrap().clone();
    let planned: Vec<_> =
        list("cells").iter().map(|cell| (cell["values"]["engine"].clone(), cell["state"].clone())).collect();
    let expected: Vec<_> = names.iter().map(|name| (name.as_str().into(), "planned".into())).collect();
    assert_eq!(planned, expected);
    for name in &names {
        let label = |step: &serde_json::Value| format!("{} ", step["label"].as_str().unwrap());
        let begin = format!("bench tiny {name} ");
        let server = list("steps").into_iter().find(|step| label(step).starts_with(&begin)).unwrap();
        let words = server["material"]["rendered"]["command"].as_array().unwrap().len();
        // A server that is up already is started by nobody.
        assert_eq!(words == 0, name == "endpoint", "{server}");
    }
}
