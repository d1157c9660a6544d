//! TensorRT-LLM behind Triton, with stand-ins for what needs a GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use benchrun::kserve::MODEL_CONFIG_DESCRIPTORS;
use benchrun::recipe::{LoadedRecipe, Part, RecipeFiles, Rendered};
use benchrun::render::Context;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, ReflectMessage as _};
use serde_json::{Map, Value, json};

use crate::env::{BENCHRUN, Row, TestEnv, column, json};

const MODELS: [&str; 5] = ["ensemble", "preprocessing", "postprocessing", "tensorrt_llm", "tensorrt_llm_bls"];
pub(crate) const VERSIONS: [&str; 2] = ["0.11.0", "1.2.1"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    root().join("tests/it/fixtures/tensorrt-llm").join(name)
}

pub(crate) fn recipe() -> LoadedRecipe {
    LoadedRecipe::load(RecipeFiles::find("tensorrt-llm", None).unwrap()).unwrap()
}

/// What a part says for these values, over the defaults of the recipe.
pub(crate) fn rendered(recipe: &LoadedRecipe, part: Part, precision: &str, values: &Value) -> Rendered {
    let said = &recipe.recipe;
    let defaults =
        said.settings.iter().filter_map(|(name, setting)| Some((name.clone(), json!(setting.default.clone()?))));
    let mut all: Map<String, Value> = defaults.collect();
    all.extend(
        json!({"precision": precision, "quant": said.precisions[precision], "model": "m", "host": "127.0.0.1"})
            .as_object()
            .unwrap()
            .clone(),
    );
    all.extend(
        json!({"tp": 1, "pp": 1, "batch_size": 8, "isl": 2048, "osl": 1024, "family": "qwen"})
            .as_object()
            .unwrap()
            .clone(),
    );
    all.extend(json!({"fetch": "<fetch>", "quantize": "<quantize>", "build": "<build>", "render": "<render>", "output": "<output>"}).as_object().unwrap().clone());
    all.extend(json!({"port": {"http": 8000, "grpc": 8001, "metrics": 8002}}).as_object().unwrap().clone());
    all.extend(values.as_object().unwrap().clone());
    recipe.render(part, &Context::of(&all)).unwrap().unwrap()
}

static MODEL_CONFIG: LazyLock<MessageDescriptor> = LazyLock::new(|| {
    let pool = DescriptorPool::decode(MODEL_CONFIG_DESCRIPTORS).unwrap();
    pool.get_message_by_name("inference.ModelConfig").unwrap()
});

fn model_config(text: &str) -> DynamicMessage {
    // prost-reflect wants the colon that text format leaves out.
    let text = text.replace("put [", "put: [").replace("instance_group [", "instance_group: [");
    let parsed = DynamicMessage::parse_text_format(MODEL_CONFIG.clone(), &text).unwrap();
    // A default that is written out means what one left out means; encoded they are the same.
    DynamicMessage::decode(MODEL_CONFIG.clone(), parsed.encode_to_vec().as_slice()).unwrap()
}

/// The fixtures are NVIDIA's own templates, filled with the same settings; `scripts/triton_meaning.py` writes them.
#[test]
fn a_rendered_repository_means_what_nvidias_does() {
    let recipe = recipe();
    for version in VERSIONS {
        let values = json!({
            "version": version, "kv_cache_reuse": true, "kv_cache_fraction": 0.5,
            "max_tokens_in_paged_kv_cache": 24576,
        });
        let rendered = rendered(&recipe, Part::Render, "fp8", &values);
        let files: BTreeSet<String> = MODELS.iter().map(|model| format!("{model}/config.pbtxt")).collect();
        assert_eq!(rendered.files.keys().cloned().collect::<BTreeSet<_>>(), files);
        for model in MODELS {
            let ours = model_config(&rendered.files[&format!("{model}/config.pbtxt")]);
            let theirs = model_config(&fs::read_to_string(fixture(&format!("{version}/{model}.pbtxt"))).unwrap());
            let differing: Vec<String> = theirs
                .descriptor()
                .fields()
                .filter(|field| ours.get_field(field) != theirs.get_field(field))
                .map(|field| {
                    format!("{}:\n  {:?}\n  {:?}", field.name(), ours.get_field(&field), theirs.get_field(&field))
                })
                .collect();
            assert!(differing.is_empty(), "{version} {model} differs (ours, theirs): {}", differing.join("\n"));
        }
    }
}

/// The fixture has the tensors of NVIDIA's file, in the form of the others.
#[test]
fn the_llm_api_model_has_nvidias_tensors() {
    let recipe = LoadedRecipe::load(RecipeFiles::find("triton-llmapi", None).unwrap()).unwrap();
    let values = json!({"precision": "checkpoint", "quant": {}, "version": "1.2.1"});
    let rendered = rendered(&recipe, Part::Render, "checkpoint", &values);
    let ours = model_config(&rendered.files["tensorrt_llm/config.pbtxt"]);
    let theirs = model_config(&fs::read_to_string(fixture("1.2.1/llmapi.pbtxt")).unwrap());
    for field in theirs.descriptor().fields() {
        assert_eq!(ours.get_field(&field), theirs.get_field(&field), "{}", field.name());
    }
    // Triton is told not to complete configurations, so what streams has to stand in both files.
    assert!(rendered.files["tensorrt_llm/1/model.yaml"].contains("decoupled: true"));
}

/// Values that a sweep has, one at a time over what [`rendered`] gives.
pub(crate) fn variants() -> Vec<Value> {
    vec![
        json!({}),
        json!({"tp": 4, "pp": 2}),
        json!({"kv_cache_reuse": true, "chunked_context": true, "scheduler_policy": "max_utilization"}),
        json!({"kv_cache_type": "int8"}),
        json!({"kv_cache_type": "none", "family": "llama", "dtype": "bfloat16"}),
    ]
}

#[test]
fn every_command_has_only_flags_that_its_version_knows() {
    let flags = json(&fixture("flags.json"));
    let recipe = recipe();
    let mut seen = BTreeSet::new();
    for version in VERSIONS {
        for precision in recipe.recipe.precisions.keys() {
            for mut values in variants() {
                values["version"] = version.into();
                for part in [Part::Quantize, Part::Build] {
                    let command = rendered(&recipe, part, precision, &values).command;
                    let program = if command[0] == "python" {
                        command[1].rsplit('/').next().unwrap()
                    } else {
                        command[0].as_str()
                    };
                    seen.insert(format!("{version} {program}"));
                    let known: Vec<&str> =
                        flags[version][program].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
                    for flag in command.iter().filter(|word| word.starts_with("--")) {
                        assert!(known.contains(&flag.as_str()), "{version} {program} has no {flag}: {command:?}");
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
}

#[test]
fn each_precision_is_made_by_the_script_that_makes_it() {
    let recipe = recipe();
    let quantize = |precision: &str, values: Value| {
        let mut values = values;
        values["version"] = values.get("version").cloned().unwrap_or("0.11.0".into());
        rendered(&recipe, Part::Quantize, precision, &values).command.join(" ")
    };
    let common = "--model_dir <fetch> --output_dir <output>";
    for (precision, values, expected) in [
        (
            "fp16",
            json!({}),
            format!(
                "python /app/tensorrt_llm/examples/qwen/convert_checkpoint.py {common} --dtype float16 --tp_size 1 --pp_size 1 --workers 1"
            ),
        ),
        (
            "bf16",
            json!({"version": "1.2.1", "family": "llama"}),
            format!(
                "python /app/tensorrt_llm/examples/models/core/llama/convert_checkpoint.py {common} --dtype bfloat16 --tp_size 1 --pp_size 1 --workers 1"
            ),
        ),
        (
            "int8_wo",
            json!({}),
            format!(
                "python /app/tensorrt_llm/examples/qwen/convert_checkpoint.py {common} --dtype float16 --use_weight_only --weight_only_precision int8 --tp_size 1 --pp_size 1 --workers 1"
            ),
        ),
        (
            "int8_wo",
            json!({"kv_cache_type": "int8", "calib_size": 32}),
            format!(
                "python /app/tensorrt_llm/examples/quantization/quantize.py {common} --dtype float16 --qformat int8_wo --kv_cache_dtype int8 --calib_dataset abisee/cnn_dailymail --calib_size 32 --tp_size 1 --pp_size 1"
            ),
        ),
        (
            "fp8",
            json!({"tp": 4, "pp": 2}),
            format!(
                "python /app/tensorrt_llm/examples/quantization/quantize.py {common} --dtype float16 --qformat fp8 --kv_cache_dtype fp8 --calib_dataset abisee/cnn_dailymail --calib_size 512 --tp_size 4 --pp_size 2"
            ),
        ),
        (
            "int4_awq",
            json!({}),
            format!(
                "python /app/tensorrt_llm/examples/quantization/quantize.py {common} --dtype float16 --qformat int4_awq --awq_block_size 128 --calib_dataset abisee/cnn_dailymail --calib_size 32 --tp_size 1 --pp_size 1"
            ),
        ),
    ] {
        assert_eq!(quantize(precision, values), expected);
    }
}

/// As `launch_triton_server.py` of the backend builds it, on the loopback.
#[test]
fn the_server_has_a_rank_for_each_gpu() {
    let recipe = recipe();
    let server = |tp: u32, pp: u32| {
        let values = json!({"version": "0.11.0", "tp": tp, "pp": pp});
        rendered(&recipe, Part::Server, "fp16", &values).command.join(" ")
    };
    let rank = |index: u32, explicit: &str| {
        format!(
            "tritonserver --model-repository=<render>{explicit} --grpc-address=127.0.0.1 --http-address=127.0.0.1 \
             --grpc-port=8001 --http-port=8000 --metrics-port=8002 --disable-auto-complete-config --backend-config=python,shm-region-prefix-name=benchrun_8000_{index}_"
        )
    };
    let explicit = " --model-control-mode=explicit --load-model=tensorrt_llm";
    assert_eq!(server(1, 1), rank(0, ""));
    let two = format!("mpirun --allow-run-as-root -n 1 {} : -n 1 {} :", rank(0, ""), rank(1, explicit));
    assert_eq!(server(2, 1), two);
    assert_eq!(server(1, 2), two);
    assert_eq!(server(4, 2).matches(explicit).count(), 7);
}

/// A folder of this machine that looks like the image: stand-ins for the programs, scripts and Python models.
fn image(env: &TestEnv) -> PathBuf {
    let image = env.path("image");
    for script in ["quantization/quantize.py", "qwen/convert_checkpoint.py"] {
        env.write(&format!("image/examples/{script}"), "");
    }
    for model in MODELS {
        env.write(&format!("image/all_models/inflight_batcher_llm/{model}/1/model.py"), "# NVIDIA's\n");
        env.write(&format!("image/all_models/inflight_batcher_llm/{model}/config.pbtxt"), "max_batch_size: ${x}\n");
    }
    image
}

/// The guide's sweep with models, lengths and loads so small that stand-ins serve it in a moment.
fn small(text: &str, image: &Path) -> String {
    let config = crate::env::CONFIG.replace("\"max_position_embeddings\": 64", "\"max_position_embeddings\": 4096");
    let dummy = format!("dummy: {{config: {}}}", config.split_whitespace().collect::<Vec<_>>().join(" "));
    let mut text = text
        .replace("hf: {repo: Qwen/Qwen2-7B}", &dummy)
        .replace("hf: {repo: Qwen/Qwen2-72B-Instruct}", &dummy)
        .replace("/opt/tensorrt_llm/examples", &image.join("examples").display().to_string())
        .replace("/opt/tensorrtllm_backend/all_models", &image.join("all_models").display().to_string())
        .replace("prompts.jsonl", &root().join("manifests/prompts.jsonl").display().to_string())
        .replace("output: {mode: at_most}", "output: {mode: at_most, tokens: 4}")
        .replace("output: {tokens: 300}", "output: {tokens: 4}")
        .replace("concurrency: [1, 4, 8]", "concurrency: [1]")
        .replace("requests: 40", "requests: 2");
    // The stand-ins need no GPU, and parts of one cannot be counted.
    text.push_str("  stop: 2s\ncertify: false\nruntime: {host: {env: {CUDA_VISIBLE_DEVICES: MIG-none}}}\n");
    text
}

fn apply(env: &TestEnv, status: i32, args: &[&str], variables: &[(&str, &str)]) -> crate::env::Ended {
    env.start(command(env, args, variables)).end().expect(status)
}

fn command(env: &TestEnv, args: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = env.command(args);
    let programs = root().join("tests/it/bin/tensorrt-llm");
    command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", programs.display())).env("FAKE_SERVER", BENCHRUN);
    command.envs(variables.iter().copied());
    command
}

fn guide() -> String {
    fs::read_to_string(root().join("manifests/qwen2.yaml")).unwrap()
}

fn argv(record: &Path) -> Vec<String> {
    let record = json(record);
    record["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_guides_whole_sweep_runs() {
    let env = TestEnv::new();
    let image = image(&env);
    env.write("m.yaml", &small(&guide(), &image));
    apply(&env, 0, &["apply", "m.yaml"], &[]);
    let rows = env.rows("qwen2");
    assert_eq!(rows.len(), 96);
    assert!(rows.iter().all(|row| row["status"] == "ok"), "{:?}", rows.iter().find(|row| row["status"] != "ok"));
    // Checkpoints serve all shapes, engines all settings of the server.
    assert_eq!(["quantize", "build", "render"].map(|kind| env.stored(kind).len()), [12, 24, 48]);
    let gpus: BTreeMap<&str, &str> =
        rows.iter().map(|row| (row["cell"].split("/fp").next().unwrap(), row["gpus"].as_str())).collect();
    assert_eq!(gpus["qwen2-7b/tp1/pp1"], "1");
    assert_eq!(gpus["qwen2-72b/tp4/pp2"], "8");

    let cell = env
        .latest("qwen2")
        .join("cells/qwen2-72b/tp4/pp2/int8_wo/kv_cache_type-int8/bs8/isl2048/osl1024/kv_cache_reuse-true");
    let words = argv(&cell.join("logs/bench/command.json"));
    assert!(words[0].ends_with("/mpirun"), "{words:?}");
    assert_eq!(words.iter().filter(|word| *word == "tritonserver").count(), 8);
    let config = fs::read_to_string(cell.join("rendered/tensorrt_llm/config.pbtxt")).unwrap();
    assert!(config.contains(r#"{ key: "enable_kv_cache_reuse" value: { string_value: "True" } }"#), "{config}");
    assert!(config.contains("max_batch_size: 8\n"), "{config}");
    // The image's own Python models, and our configuration beside them.
    assert_eq!(fs::read_to_string(cell.join("rendered/preprocessing/1/model.py")).unwrap(), "# NVIDIA's\n");
    env.assert_nothing_runs();
}

/// One model, one batch size, with reuse and without.
fn two_cells(image: &Path) -> String {
    small(&guide(), image)
        .replace("model: [qwen2-7b, qwen2-72b]", "model: [qwen2-7b]")
        .replace("[[fp8, auto], [fp16, auto], [int8_wo, int8]]", "[[fp16, auto]]")
        .replace("batch_size: [4, 8]", "batch_size: [4]")
}

fn statuses(rows: &[Row]) -> Vec<&str> {
    column(rows, "status")
}

#[test]
fn a_server_that_does_not_come_up_fails_its_cell_with_a_hint_and_no_other() {
    for (trouble, said, hint) in [
        ("old-engine", "Version tag does not match", "hint: the engine was built by another TensorRT"),
        ("ranks", "MPI worldSize is expected to be equal", "hint: the engine has another number of ranks"),
        ("never-ready", "the server was not ready after 20 s", "hint: raise `time_limits.ready`"),
    ] {
        let env = TestEnv::new();
        let image = image(&env);
        env.write("m.yaml", &two_cells(&image).replace("ready: 30m", "ready: 20s"));
        let ended = apply(&env, 4, &["apply", "m.yaml"], &[("FAKE_TROUBLE", trouble)]);
        ended.says(said).says(hint);
        assert_eq!(statuses(&env.rows("qwen2")), ["ok", "ok", "failed", "failed"], "{trouble}");
        env.assert_nothing_runs();
    }
}

#[test]
fn a_server_that_dies_in_the_middle_fails_its_cell_with_a_hint_and_no_other() {
    let env = TestEnv::new();
    let image = image(&env);
    let endless = "kv_cache_reuse/requests: [[true, 1000000], [false, 2]]";
    env.write(
        "m.yaml",
        &two_cells(&image).replace("    requests: 2\n", "").replace("kv_cache_reuse: [false, true]", endless),
    );
    let die = env.path("die");
    let variables = [("FAKE_TROUBLE", "dies"), ("FAKE_DIE", die.to_str().unwrap())];
    let mut running = env.start(command(&env, &["apply", "m.yaml"], &variables));
    // Which of the two servers comes first is not said.
    running.waits_until("the endless phase has begun", |running| {
        running.stderr().contains("requests-1000000 until-eos c1: started")
    });
    fs::write(&die, "").unwrap();
    let ended = running.end().expect(4);
    ended.says("while it was measured").says("hint: lower `batch_size`");
    assert_eq!(statuses(&env.rows("qwen2")), ["failed", "failed", "ok", "ok"]);
    env.assert_nothing_runs();
}

#[test]
fn a_missing_copy_of_the_models_is_named_with_the_setting_to_change() {
    let env = TestEnv::new();
    let image = image(&env);
    fs::remove_dir_all(image.join("all_models")).unwrap();
    env.write("m.yaml", &two_cells(&image));
    let ended = apply(&env, 4, &["apply", "m.yaml"], &[]);
    ended.says("cannot stat").says("hint: set `engine.settings.all_models`");
    assert_eq!(statuses(&env.rows("qwen2")), ["failed"; 4]);
}

#[test]
fn settings_that_contradict_each_other_are_refused_with_the_numbers() {
    let env = TestEnv::new();
    let image = image(&env);
    let text = small(&guide(), &image);
    for (from, to, parts) in [
        (
            "calib_size: 32\n",
            "calib_size: 32\n    max_tokens_in_paged_kv_cache: 8560\n",
            &[
                "is 8560, but batch_size 4 x (isl 2048 + osl 1024) takes 12288",
                "batch_size 8",
                "takes 24576 tokens: at most 2 whole requests",
            ][..],
        ),
        (
            "paged_context_fmha: enable",
            "paged_context_fmha: disable",
            &["`kv_cache_reuse` needs an engine with paged context FMHA"],
        ),
        (
            "calib_size: 32\n",
            "calib_size: 32\n    max_num_tokens: 1000\n",
            &["`max_num_tokens` is 1000", "a prompt of 2048 tokens"],
        ),
        (
            "calib_size: 32\n",
            "calib_size: 32\n    max_seq_len: 3000\n",
            &["`max_seq_len` is 3000, but isl 2048 + osl 1024 is 3072"],
        ),
    ] {
        assert_eq!(text.matches(from).count(), 1, "`{from}` is there once");
        env.write("m.yaml", &text.replace(from, to));
        let ended = env.expect(3, &["plan", "m.yaml"]);
        for part in parts {
            ended.says(part);
        }
    }
}

#[test]
fn what_a_phase_asks_of_a_cell_that_cannot_do_it_is_refused_at_its_place() {
    let env = TestEnv::new();
    let text = two_cells(&image(&env));
    let setting = |line: &str| text.replace("calib_size: 32\n", &format!("calib_size: 32\n    {line}\n"));
    let from_file = text.split("data: ").nth(1).unwrap().lines().next().unwrap();
    let made = |isl, tokens| {
        text.replace(from_file, &format!("{{synthetic: {{isl: {isl}}}}}"))
            .replace("{tokens: 4}", &format!("{{tokens: {tokens}}}"))
    };
    for (manifest, at, said) in [
        (setting("decoupled: false"), "benchmarks.until-eos", "no answer can stream over triton-grpc"),
        (setting("beam_width: 4"), "benchmarks.until-eos", "the whole text of all 4 beams"),
        (
            text.replace("{tokens: 4}", "{tokens: 4000}"),
            "benchmarks.fixed-length",
            "answers of 4000 tokens leave no room",
        ),
        (made(2049, 4), "benchmarks.until-eos", "prompts of 2049 tokens are longer than isl, 2048"),
        (made(2000, 1100), "benchmarks.fixed-length", "are 3100 together, and the engine is built for 3072"),
    ] {
        assert_ne!(manifest, text);
        env.write("m.yaml", &manifest);
        let name = at.split('.').next_back().unwrap();
        let line = manifest.lines().position(|line| line == format!("  {name}:")).unwrap() + 1;
        env.expect(3, &["plan", "m.yaml"]).says(&format!("m.yaml:{line}:3: {at}: ")).says(said);
    }
    for manifest in [
        made(2000, 1072),
        setting("beam_width: 4")
            .replace("{tokens: 4}", "{tokens: 4}\n    streaming: false")
            .replace("mode: at_most, tokens: 4}", "mode: at_most, tokens: 4}\n    streaming: false"),
    ] {
        env.write("m.yaml", &manifest);
        env.expect(0, &["plan", "m.yaml"]);
    }
}

#[test]
fn what_a_version_or_a_gpu_has_not_is_unsupported() {
    let env = TestEnv::new();
    let image = image(&env);
    let text = two_cells(&image).replace("[[fp16, auto]]", "[[fp8, auto], [nvfp4, auto], [fp16, auto], [fp16, fp8]]");
    let on = |gpu: &str| text.replace("calib_size: 32\n", &format!("calib_size: 32\n    {gpu}\n"));
    env.write("m.yaml", &on("compute_capability: 9.0\n    gpu: H100"));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    plan.prints("no script of TensorRT-LLM leaves the weights in fp16 and the KV cache in fp8");
    env.write("m.yaml", &on("compute_capability: 8.0\n    gpu: A100"));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    plan.prints("precision fp8 needs a GPU of compute capability 8.9 or more, and A100 has 8.0");
    plan.prints("TensorRT-LLM 0.11.0 has no nvfp4");
    env.write("m.yaml", &small(&guide(), &image).replace("calib_size: 32\n", "calib_size: 32\n    gpu_count: 4\n"));
    env.expect(0, &["plan", "m.yaml"]).prints("tp 4 x pp 2 takes 8 GPUs, one for each rank, and this machine has 4");
}

#[test]
fn the_machine_is_asked_for_what_the_manifest_does_not_say() {
    let env = TestEnv::new();
    let image = image(&env);
    env.write("m.yaml", &two_cells(&image).replace("[[fp16, auto]]", "[[fp8, auto]]"));
    let smi = "#!/bin/sh\ncase $1 in *name) echo 'Tesla T4';; *count) echo 1;; *compute_cap) echo 7.5;; esac\n";
    env.write("bin/nvidia-smi", smi);
    let smi = env.path("bin/nvidia-smi");
    fs::set_permissions(&smi, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut command = env.command(&["plan", "m.yaml"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", smi.parent().unwrap().display()));
    let plan = env.start(command).end().expect(0);
    plan.prints("precision fp8 needs a GPU of compute capability 8.9 or more, and Tesla T4 has 7.5");
}

#[test]
fn a_configuration_that_triton_could_not_read_is_refused_with_its_line() {
    let env = TestEnv::new();
    let image = image(&env);
    let text = two_cells(&image).replace("name: tensorrt-llm\n", "name: tensorrt-llm\n  recipes: mine\n");
    env.write("m.yaml", &text);
    for (template, line) in [
        ("name: \"ensemble\"\nmax_batch_size: eight\n", "is wrong in line 2: it is no `inference.ModelConfig`"),
        ("name: \"ensemble\"\n\n# ${triton_max_batch_size}\n", "is wrong in line 3: a placeholder"),
    ] {
        env.write("mine/tensorrt-llm/triton/0.11/ensemble.j2", template);
        let ended = env.expect(3, &["plan", "m.yaml"]);
        ended.says("`ensemble/config.pbtxt`, made from `mine/tensorrt-llm/triton/0.11/ensemble.j2`").says(line);
    }
}

#[test]
fn manifests_of_this_engine_plan_on_any_machine() {
    let env = TestEnv::new();
    for (manifest, checkpoints, engines, servers) in
        [("qwen2", 12, 24, 48), ("llama3", 6, 24, 24), ("qwen2-pytorch", 0, 0, 12)]
    {
        let path = root().join(format!("manifests/{manifest}.yaml"));
        let mut command = env.command(&["plan", path.to_str().unwrap()]);
        // No hub: the keys are provisional, and the plan says so.
        command.env("HF_ENDPOINT", "http://127.0.0.1:9");
        let plan = env.start(command).end().expect(0);
        let steps = |kind: &str| plan.stdout.lines().filter(|line| line.starts_with(&format!("  {kind} "))).count();
        assert_eq!(
            (steps("quantize"), steps("build"), steps("bench")),
            (checkpoints, engines, servers),
            "{}",
            plan.stdout
        );
    }
}
