//! The commands that the recipes of other programs write, held against those programs' own parsers.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::env::{TestEnv, column, json};

/// A sweep that reaches every conditional argument of the engine's recipe.
struct Sweep<'a> {
    engine: &'a str,
    settings: &'a str,
    axes: &'a str,
}

const SWEEPS: [Sweep<'static>; 6] = [
    Sweep {
        engine: "vllm",
        settings: "{}",
        axes: "precision: [bf16, fp16, fp32, fp8, as_is, awq, gptq, w8a8, w8a8_fp8, fp8_modelopt]
    tp: [1, 2]
    kv_cache_reuse: [false, true]
    enforce_eager: [false, true]
    device/threads: [[gpu, 0], [cpu, 2]]
    kv_cache_type: [auto, bfloat16, float16, fp8, fp8_e4m3, fp8_e5m2]",
    },
    Sweep {
        engine: "sglang",
        settings: "{}",
        axes: "precision: [bf16, fp16, fp32, fp8, as_is, awq, gptq, w8a8, w8a8_fp8, fp8_modelopt]
    kv_cache_reuse: [false, true]
    kv_cache_type: [auto, bfloat16, fp8_e4m3, fp8_e5m2]",
    },
    Sweep {
        engine: "lmdeploy",
        settings: "{}",
        axes: "precision: [fp16, bf16, awq, gptq, w8a8, w8a8_fp8, as_is, fp8, mxfp4, compressed_tensors]
    backend: [turbomind, pytorch]
    pp: [1, 2]
    dp: [1, 2]
    kv_cache_reuse: [false, true]
    calib_dataset: [wikitext2, c4, pileval, gsm8k, neuralmagic_calibration, open-platypus, openwebtext]
    kv_cache_type: [auto, int4, int8, fp8, fp8_e5m2]",
    },
    Sweep {
        engine: "tgi",
        settings: "{}",
        axes: "precision: [fp16, fp8, awq]\n    kv_cache_reuse: [false, true]\n    kv_cache_type: [auto, fp8_e5m2]",
    },
    Sweep {
        engine: "llamacpp",
        settings: "{}",
        axes: "precision: [as_is, bf16, q8_0]\n    gguf: ['', m.gguf]\n    kv_cache_reuse: [false, true]\n    threads: [0, 2]
    tp/pp: [[1, 1], [2, 1], [1, 2], [2, 2]]",
    },
    Sweep { engine: "endpoint", settings: "{url: 'http://127.0.0.1:9', served_model: m}", axes: "precision: [as_served]" },
];

fn manifest(sweep: &Sweep<'_>) -> String {
    format!(
        "name: flags
models: {{m: {{dummy: {{}}}}}}
engine: {{name: {}, settings: {}}}
matrix:
  axes:
    {}
benchmarks: {{load: {{protocol: openai-chat, data: {{synthetic: {{isl: 8}}}}, output: {{tokens: 8}}, concurrency: [1], requests: 1}}}}
time_limits: {{ready: 5s}}
",
        sweep.engine, sweep.settings, sweep.axes
    )
}

/// The commands of all steps, without what only writes files.
fn commands(plan: &Value) -> BTreeSet<Vec<String>> {
    let steps = plan["steps"].as_array().unwrap().iter();
    let commands = steps.filter_map(|step| step.pointer("/material/rendered/command")?.as_array());
    let words = |command: &Vec<Value>| command.iter().map(|word| word.as_str().unwrap().to_owned()).collect();
    commands.map(words).filter(|command: &Vec<String>| !command.is_empty()).collect()
}

fn is_flag(word: &str) -> bool {
    word.starts_with("--")
}

/// Every `--flag` that the recipe's text has, conditional or not.
fn written_flags(engine: &str) -> BTreeSet<String> {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates").join(engine).join("recipe.yaml");
    let text = fs::read_to_string(recipe).unwrap();
    let lines: String = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n");
    let (_, commands) = lines.split_once("\nlimits:").unwrap_or(("", &lines));
    let (commands, _) = commands.split_once("\nlog_hints:").unwrap_or((commands, ""));
    let flag = regex::Regex::new("--[a-z][a-z-]+").unwrap();
    flag.find_iter(commands).map(|found| found.as_str().to_owned()).collect()
}

fn planned(sweep: &Sweep<'_>) -> Value {
    let env = TestEnv::new();
    env.write("m.yaml", &manifest(sweep));
    let plan = env.expect(0, &["plan", "m.yaml", "--format", "json"]);
    serde_json::from_str(&plan.stdout).unwrap()
}

#[test]
fn every_recipe_plans_and_every_argument_of_it_is_reached() {
    for sweep in &SWEEPS {
        let plan = planned(sweep);
        let words: BTreeSet<String> = commands(&plan).into_iter().flatten().filter(|word| is_flag(word)).collect();
        assert_eq!(words, written_flags(sweep.engine), "{}", sweep.engine);
        assert!(plan["summary"]["points"].as_u64().unwrap() > 0, "{}", sweep.engine);
    }
}

#[test]
fn flags_and_their_words_are_those_of_the_programs_parsers() {
    for sweep in &SWEEPS[..3] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/flags");
        let parser = json(&fixture.join(format!("{}.json", sweep.engine)));
        let mut checked = 0;
        for command in commands(&planned(sweep)) {
            let line = command.join(" ");
            let known = parser["commands"].as_object().unwrap().iter().find(|(name, _)| line.starts_with(*name));
            let Some((name, known)) = known else {
                assert!(line.contains("quantize.py"), "no parser for `{line}`");
                continue;
            };
            for (index, flag) in command.iter().enumerate().filter(|(_, word)| is_flag(word)) {
                let flags = known["flags"].as_array().unwrap();
                assert!(flags.iter().any(|known| known == flag), "`{name}` has no `{flag}`");
                if let Some(choices) = known["choices"][flag].as_array() {
                    let value = &command[index + 1];
                    assert!(choices.iter().any(|choice| choice == value), "`{name} {flag}` has no `{value}`");
                }
                checked += 1;
            }
        }
        assert!(checked > 100, "{}: only {checked} flags", sweep.engine);
    }
}

#[test]
fn arguments_of_in_process_engines_are_those_of_their_libraries() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/flags/in-process.json");
    let libraries = json(&fixture);
    for (library, axes) in [
        ("llamacpp", "kv_cache_reuse: [false, true]\n    threads: [0, 2]"),
        ("vllm", "precision: [bf16, fp8]\n    device: [gpu, cpu]"),
        ("lmdeploy turbomind", "precision: [fp16, awq]"),
        ("lmdeploy pytorch", "precision: [fp16, fp8]\n    backend: [pytorch]"),
        ("tensorrt-llm", "kv_cache_reuse: [false, true]"),
    ] {
        let known = libraries[library]["arguments"].as_array().unwrap();
        let engine = format!("{}-in-process", library.split(' ').next().unwrap());
        let plan = planned(&Sweep { engine: &engine, settings: "{}", axes });
        let mut names = BTreeSet::new();
        for word in commands(&plan).into_iter().flatten().filter(|word| !word.contains('/')) {
            names.extend(word.split_once('=').map(|(name, _)| name.to_owned()));
        }
        // The driver itself takes this one.
        names.remove("backend");
        assert!(names.len() >= 8, "{library}: {names:?}");
        for name in names {
            assert!(known.iter().any(|known| *known == name), "{library} has no `{name}`");
        }
    }
}

#[test]
fn what_an_engine_cannot_do_has_a_reason() {
    for (engine, axes, reason) in [
        ("lmdeploy", "pp: [2]", "LMDeploy has no pipeline parallelism (pp is 2)"),
        ("lmdeploy", "precision: [w8a8]", "with its PyTorch engine only"),
        ("tgi", "pp: [2]", "no pipeline parallelism"),
        ("vllm", "tp: [2]\n    device: [cpu]", "one CPU server has one rank"),
        ("llamacpp", "tp/pp: [[2, 2]]", "not by both"),
    ] {
        let plan = planned(&Sweep { engine, settings: "{}", axes });
        let cell = &plan["cells"][0];
        assert_eq!(cell["state"], "unsupported", "{engine} {axes}");
        assert!(cell["reason"].as_str().unwrap().contains(reason), "{cell}");
    }
}

#[test]
fn a_server_that_is_up_already_is_measured_and_left_alone() {
    let env = TestEnv::new();
    env.write("own.yaml", &crate::env::one_cell());
    env.expect(0, &["apply", "own.yaml"]);
    let build = env.stored("build").into_iter().next().unwrap();
    let model = env.home().join("store/build").join(build).join("output");
    let port = benchrun::process::free_port("127.0.0.1").unwrap().to_string();
    let model = model.display().to_string();
    let up = env.start(env.command(&["engine", "serve", &model, "--served-model", "here", "--http-port", &port]));
    let url = format!("http://127.0.0.1:{port}");
    let settings = format!("{{url: '{url}', served_model: here, metrics_url: '{url}/metrics'}}");
    env.write("m.yaml", &manifest(&Sweep { engine: "endpoint", settings: &settings, axes: "precision: [as_served]" }));
    crate::env::eventually("the server is up", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    env.expect(0, &["apply", "m.yaml"]);
    let rows = env.rows("flags");
    assert_eq!(column(&rows, "status"), ["ok"]);
    assert!(rows[0]["server_checks"].starts_with("requests=ok"), "{:?}", rows[0]);
    assert!(std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok(), "the server is still up");
    drop(up);
    env.expect(0, &["plan", "m.yaml", "--detailed-exitcode"]);
    env.expect(4, &["apply", "m.yaml", "--rerun", "bench"]).says("this engine deploys nothing");
}
