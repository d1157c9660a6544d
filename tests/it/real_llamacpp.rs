//! The real llama-server, out of a Python package, on real and made models.

use std::fs;
use std::path::{Path, PathBuf};

use crate::env::{Ended, Row, TestEnv, column, json_lines};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn apply(env: &TestEnv, manifest: &Path) -> Ended {
    env.start(env.command_of_user(&["apply", manifest.to_str().unwrap()])).end().expect(0)
}

fn number(row: &Row, column: &str) -> f64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} is `{}`", row[column]))
}

/// One home for all of it: what is installed and fetched once serves every part.
#[test]
#[ignore = "installs llama.cpp's server and a model, 170 MB: scripts/check.sh runs it where Python packages can be had"]
fn llamacpp_is_served_compared_and_found_out() {
    let env = TestEnv::new();
    a_real_model_is_served_and_its_answers_are_kept(&env);
    a_prefix_cache_that_is_not_as_the_manifest_says_is_found_out(&env);
    two_engines_stand_side_by_side(&env);
}

fn a_real_model_is_served_and_its_answers_are_kept(env: &TestEnv) {
    let manifest = root().join("manifests/cpu-llamacpp.yaml");
    let ended = apply(env, &manifest);
    assert!(!ended.stderr.contains("prefix cache"), "it is as the manifest says:\n{}", ended.stderr);
    let rows = env.rows("cpu-llamacpp");
    assert_eq!(column(&rows, "status"), ["ok"; 6]);
    assert_eq!(column(&rows, "concurrency"), ["1", "2", "4", "1", "2", "4"]);
    assert_eq!(column(&rows, "kv_cache_reuse"), ["false", "false", "false", "true", "true", "true"]);
    for row in &rows {
        assert_eq!((number(row, "requests_ok"), number(row, "requests_failed")), (8.0, 0.0), "{row:?}");
        assert_eq!(row["output_tokens_source"], "server_usage");
    }
    // The prompts have a beginning in common, which only a cache does not compute again.
    let (off, on) = (&rows[0], &rows[3]);
    let hits = [off, on].map(|row| number(row, "server_prefix_hit_share"));
    assert!(hits[0] < 0.05 && hits[1] > 0.5, "{hits:?}");
    let cells = env.latest("cpu-llamacpp").join("cells/smollm2-135m-instruct/as_is/bs4");
    for record in json_lines(&cells.join("kv_cache_reuse-true/chat/c4/requests.jsonl")) {
        let answer = record["output_text"].as_str().unwrap();
        assert!(answer.split_whitespace().count() > 3, "{answer}");
    }
    assert!(cells.join("kv_cache_reuse-true/chat/c4/metrics.jsonl").is_file());
    apply(env, &manifest).says("nothing to do: 6 load points measured before");
}

fn a_prefix_cache_that_is_not_as_the_manifest_says_is_found_out(env: &TestEnv) {
    let recipe = fs::read_to_string(root().join("templates/llamacpp/recipe.yaml")).unwrap();
    let (on, off) = ("{when: kv_cache_reuse, args", "{when: not kv_cache_reuse, args");
    assert!(recipe.matches(on).count() == 1 && recipe.matches(off).count() == 1);
    let turned = recipe.replace(off, "{when: KEPT, args").replace(on, off).replace("{when: KEPT, args", on);
    env.write("turned/llamacpp/recipe.yaml", &turned);
    let manifest = fs::read_to_string(root().join("manifests/cpu-llamacpp.yaml")).unwrap();
    let manifest = manifest
        .replace("name: cpu-llamacpp", "name: turned")
        .replace("  name: llamacpp\n", "  name: llamacpp\n  recipes: turned\n")
        .replace("[1, 2, 4]", "[1]")
        .replace("requests: 8", "requests: 3")
        .replace("shared-prefix.jsonl", &root().join("manifests/shared-prefix.jsonl").display().to_string());
    env.write("turned.yaml", &manifest);
    let ended = apply(env, &env.path("turned.yaml"));
    let cell = "smollm2-135m-instruct/as_is/bs4/kv_cache_reuse";
    ended.says(&format!("{cell}-false: the prefix cache is on although the manifest says off: a prompt took"));
    ended.says(&format!("{cell}-true: the prefix cache seems to be off although the manifest says on: a prompt took"));
    ended.says("by its own metrics, the server took 0 % of these prompts' tokens from it");
}

fn two_engines_stand_side_by_side(env: &TestEnv) {
    let ended = apply(env, &root().join("manifests/compare-engines.yaml"));
    ended.prints(" tiny-qwen2/llamacpp/fp32/bs4/kv_cache_reuse-true ").prints(" tiny-qwen2/embedded/fp32/bs4 ");
    ended.prints("engine `embedded` has no precision `bf16`");
    let rows = env.rows("compare-engines");
    let ok: Vec<&Row> = rows.iter().filter(|row| row["status"] == "ok").collect();
    assert_eq!((rows.len(), ok.len()), (12, 10));
    let engines = ["llamacpp", "embedded"].map(|engine| ok.iter().filter(|row| row["engine"] == engine).count());
    assert_eq!(engines, [8, 2]);
    for row in ok {
        assert_eq!((number(row, "requests_failed"), number(row, "output_tokens_mean")), (0.0, 32.0), "{row:?}");
        assert_eq!(number(row, "input_tokens_mean"), 64.0, "both count the prompts' tokens alike: {row:?}");
    }
}
