//! Engines and templates of the user's own, without a line of Rust.

use std::fs;

use crate::env::{LOAD, TestEnv, column, json, one_cell};

/// A manifest that looks for recipes beside itself.
fn with_recipes(engine: &str) -> String {
    one_cell().replace("name: embedded\n", &format!("name: {engine}\n  recipes: my recipes\n"))
}

#[test]
fn a_users_template_stands_in_for_a_built_in_one() {
    let env = TestEnv::new();
    env.write("m.yaml", &one_cell());
    env.expect(0, &["apply", "m.yaml"]);
    let template =
        "# From the user's folder.\nserved_model: {{ model | tojson }}\nmax_batch_size: {{ batch_size }}\nthreads: 1\n";
    env.write("my recipes/embedded/serve.yaml.j2", template);
    env.write("m.yaml", &with_recipes("embedded"));
    // A template of the server's configuration has nothing to do with the checkpoint.
    env.expect(0, &["plan", "m.yaml"]).prints("quantize tiny fp32  cached").prints("2 load points to measure");
    env.expect(0, &["apply", "m.yaml"]);
    let rendered = env.latest("small").join("cells/tiny/fp32/isl8/osl4/rendered/serve.yaml");
    assert_eq!(
        fs::read_to_string(rendered).unwrap(),
        "# From the user's folder.\nserved_model: \"tiny\"\nmax_batch_size: 4\nthreads: 1\n"
    );
}

/// The embedded engine under another name, with settings, files and conditions of its own.
const RECIPE: &str = r#"
engine: other
about: the embedded engine, set up in another way
versions: ["2", "1"]
programs:
  benchrun: {program: benchrun, version: [--version]}
settings:
  max_seq_len: {kind: int, about: tokens of a sequence, default: 64}
  greeting: {kind: text, about: printed nowhere, default: hello}
  loud: {kind: bool, about: whether to greet, default: false}
defaults: {batch_size: 2}
precisions:
  fp32: {flag: fp32}
  half: {flag: fp16}
steps:
  quantize:
    - when: precision == "half"
      command: [benchrun, engine, quantize, "{{ fetch }}", --precision, "{{ quant.flag }}", --out, "{{ output }}"]
  render:
    - files:
        conf/serve.yaml: serve.j2
        notes.txt: notes.j2
server:
  command:
    - benchrun
    - engine
    - serve
    - "{{ quantize }}"
    - {when: batch_size > 1, args: [--max-batch-size, "{{ batch_size }}"]}
    - --config
    - "{{ render }}/conf/serve.yaml"
    - --http-port
    - "{{ port.web }}"
    - --grpc-port
    - "{{ port.rpc }}"
  env: {GREETING: "{{ greeting }} {{ version }}"}
  ports: [web, rpc]
  served_model: "served {{ model }}"
  ready: [{http: "http://{{ host }}:{{ port.web }}/health"}]
  protocols:
    openai-completions: {url: "http://{{ host }}:{{ port.web }}"}
"#;

fn env_with_other() -> TestEnv {
    let env = TestEnv::new();
    env.write("my recipes/other/recipe.yaml", RECIPE);
    env.write("my recipes/other/serve.j2", "served_model: served {{ model }}\nthreads: 1\n");
    env.write(
        "my recipes/other/notes.j2",
        "{% if loud %}{{ greeting | upper }}{% else %}{{ greeting }}{% endif %} {{ precision }}\n",
    );
    env
}

#[test]
fn a_new_engine_needs_only_a_folder() {
    let env = env_with_other();
    let text = with_recipes("other").replace(
        "[fp32]",
        "[fp32, half], loud: [true, false], greeting: [hello 世界], protocol: [openai-completions, triton-grpc]",
    );
    env.write("m.yaml", &text.replace("[1, 2], requests: 3", "[1], requests: 2"));
    env.expect(0, &["apply", "m.yaml"]).prints("engine `other` does not serve protocol `triton-grpc`");
    let rows = env.rows("small");
    assert_eq!(rows.len(), 8);
    for row in &rows {
        let expected = if row["protocol"] == "openai-completions" { "ok" } else { "unsupported" };
        assert_eq!(row["status"], expected, "{row:?}");
        assert_eq!(row["engine"], "other");
    }
    assert_eq!(column(&rows, "greeting"), ["hello 世界"; 8]);
    assert_eq!(column(&rows, "loud").iter().filter(|&&loud| loud == "true").count(), 4);

    let cell =
        env.latest("small").join("cells/tiny/half/loud-true/greeting-hello_世界/protocol-openai-completions/isl8/osl4");
    assert_eq!(fs::read_to_string(cell.join("rendered/notes.txt")).unwrap(), "HELLO 世界 half\n");
    assert!(cell.join("rendered/conf/serve.yaml").is_file());
    let record = json(&cell.join("logs/bench/command.json"));
    assert_eq!(record["env"]["GREETING"], "hello 世界 2");
    let arguments: Vec<&str> = record["argv"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert!(arguments.windows(2).any(|words| words == ["--max-batch-size", "2"]), "{arguments:?}");
    assert!(arguments[3].contains("/store/quantize/"), "{arguments:?}");
}

#[test]
fn an_axis_that_every_phase_overrides_is_not_used() {
    let env = env_with_other();
    let phase = "load: {protocol: openai-completions, concurrency: [1], requests: 3, data: {jsonl: {path: p.jsonl}}}";
    env.write("m.yaml", &with_recipes("other").replace(LOAD, phase));
    let ended = env.expect(3, &["plan", "m.yaml"]);
    ended.says("nothing uses the axis `isl`").says("every phase has its own, and engine `other` needs none");
}

#[test]
fn an_axis_that_changes_no_server_is_warned_of() {
    let env = env_with_other();
    env.write("m.yaml", &with_recipes("other").replace("[fp32]", "[fp32, half]"));
    let plan = env.expect(0, &["plan", "m.yaml"]);
    assert!(!plan.stdout.contains("makes no difference"), "{}", plan.stdout);
    // The server takes the model in place of the checkpoint, and nothing else tells the precisions apart.
    env.write("my recipes/other/recipe.yaml", &RECIPE.replace("{{ quantize }}", "{{ fetch }}"));
    env.write("my recipes/other/notes.j2", "notes\n");
    let warning =
        "axis `precision` makes no difference: `tiny/fp32/isl8/osl4` and `tiny/half/isl8/osl4` have the same server";
    env.expect(0, &["plan", "m.yaml"]).prints(&format!("warning: {warning}"));
    env.expect(0, &["apply", "m.yaml"]).says(&format!("warning: {warning}"));
}

#[test]
fn a_value_that_is_not_there_is_an_error_with_its_place() {
    let env = env_with_other();
    env.write("m.yaml", &with_recipes("other"));
    env.write("my recipes/other/notes.j2", "first\n{{ greetin }}\n");
    let ended = env.expect(3, &["apply", "m.yaml"]);
    ended.says("`my recipes/other/notes.j2`").says("line 2: no value for `greetin`");

    env.write("my recipes/other/notes.j2", "first\n{% if loud %}\n");
    env.expect(3, &["plan", "m.yaml"]).says("`my recipes/other/notes.j2`").says("line 2");

    env.write("my recipes/other/notes.j2", "");
    env.write("my recipes/other/recipe.yaml", &RECIPE.replace("{{ quantize }}", "{{ quantised }}"));
    let ended = env.expect(3, &["plan", "m.yaml"]);
    ended.says("`my recipes/other/recipe.yaml`").says("server.command[3]").says("no value for `quantised`");
    assert!(!env.home().join("runs").exists());
}

#[test]
fn mistakes_of_a_recipe_are_named_with_their_place() {
    let env = env_with_other();
    env.write("m.yaml", &with_recipes("other"));
    for (from, to, parts) in [
        (
            "served_model:",
            "served_modle:",
            &["recipe.yaml:", "unknown key `served_modle`", "did you mean `served_model`?"][..],
        ),
        ("engine: other", "engine: others", &["`engine` must be the folder's name, `other`"]),
        ("serve.j2", "nosuch.j2", &["names `nosuch.j2`, but there is no template of this name"]),
        ("    - benchrun\n", "    - nosuch\n", &["`server.command[0]` is not a name under `programs`"]),
        ("kind: int", "kind: integer", &["recipe.yaml:", "`int`"]),
        ("precisions:\n  fp32: {flag: fp32}\n  half: {flag: fp16}", "precisions: {}", &["recipe.yaml:", "precisions"]),
    ] {
        env.write("my recipes/other/recipe.yaml", &RECIPE.replacen(from, to, 1));
        let ended = env.expect(3, &["plan", "m.yaml"]);
        for part in parts {
            ended.says(part);
        }
    }
}
