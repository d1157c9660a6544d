use std::fs;

use serde_json::json;

use crate::recipe::{LoadedRecipe, Part, RecipeError, RecipeFiles, Rendered, built_in_names};
use crate::render::Context;

const RECIPE: &str = r#"
engine: mine
about: a recipe to test with
versions: ["1"]
programs: {make: {program: make}, serve: {program: serve}}
precisions: {fp16: {}, int8: {bits: 8}}
limits:
  - {when: tp > 1, because: "tp is {{ tp }}"}
steps:
  quantize:
    - when: precision == "fp16"
      command: [make, copy]
    - when: precision == "int8"
      command: [make, "--bits={{ quant.bits }}"]
  render:
    - files: {a.txt: a.j2}
server:
  command: [serve, {when: loud, args: [--loud, "{{ level }}"]}, "{{ model }}"]
  env: {LEVEL: "{{ level }}"}
  ports: [http]
  served_model: "{{ model }}"
  ready: [{http: "http://{{ host }}:{{ port.http }}/"}]
  protocols: {openai-chat: {url: "http://{{ host }}:{{ port.http }}"}}
log_hints:
  - {match: "(?i)out of memory", hint: lower the batch}
  - {match: "exit \\d+", hint: look up the number}
"#;

fn load(recipe: &str) -> Result<LoadedRecipe, RecipeError> {
    let folder = tempfile::tempdir().unwrap();
    let engine = folder.path().join("mine");
    fs::create_dir(&engine).unwrap();
    fs::write(engine.join("recipe.yaml"), recipe).unwrap();
    fs::write(engine.join("a.j2"), "level\n{{ level }}\n").unwrap();
    LoadedRecipe::load(RecipeFiles::find("mine", Some(folder.path())).unwrap())
}

fn rendered(part: Part, values: &serde_json::Value) -> Option<Rendered> {
    load(RECIPE).unwrap().render(part, &Context::of(values)).unwrap()
}

#[test]
fn built_in_recipes_load() {
    for engine in built_in_names() {
        LoadedRecipe::load(RecipeFiles::find(&engine, None).unwrap()).unwrap();
    }
}

#[test]
fn the_first_action_that_applies_is_taken() {
    let command = |values| rendered(Part::Quantize, &values).map(|rendered| rendered.command.join(" "));
    assert_eq!(command(json!({"precision": "fp16"})).as_deref(), Some("make copy"));
    assert_eq!(command(json!({"precision": "int8", "quant": {"bits": 8}})).as_deref(), Some("make --bits=8"));
    assert_eq!(command(json!({"precision": "fp32"})), None);
    assert_eq!(rendered(Part::Build, &json!({})), None, "a part without actions");
}

#[test]
fn conditional_arguments_are_there_only_under_their_condition() {
    let server = |loud: bool| rendered(Part::Server, &json!({"model": "m x", "level": 3, "loud": loud})).unwrap();
    assert_eq!(server(false).command, ["serve", "m x"]);
    assert_eq!(server(true).command, ["serve", "--loud", "3", "m x"]);
    assert_eq!(server(true).env["LEVEL"], "3");
}

#[test]
fn what_a_part_uses_is_known_whichever_action_applies() {
    let recipe = load(RECIPE).unwrap();
    let used = |part| recipe.used(part).iter().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(used(Part::Quantize), ["precision", "quant"]);
    assert_eq!(used(Part::Render), ["level"]);
    assert_eq!(used(Part::Server), ["host", "level", "loud", "model", "port"]);
    assert!(recipe.uses("tp") && !recipe.uses("pp"));
}

#[test]
fn an_undefined_value_names_file_template_line_and_value() {
    let recipe = load(RECIPE).unwrap();
    let Err(RecipeError::Template { file, source }) = recipe.render(Part::Render, &Context::of(&json!({}))) else {
        panic!("`level` has no value");
    };
    assert!(file.ends_with("mine/a.j2"), "{}", file.display());
    assert_eq!((source.template.as_str(), source.line), ("a.j2", 2));
    assert!(source.message.contains("`level`"), "{}", source.message);
}

#[test]
fn limits_and_hints_speak_when_they_are_met() {
    let recipe = load(RECIPE).unwrap();
    let limit = |tp: u32| recipe.limit_met(&Context::of(&json!({"tp": tp}))).unwrap();
    assert_eq!((limit(1), limit(2).as_deref()), (None, Some("tp is 2")));
    assert_eq!(recipe.hints("CUDA error: Out Of Memory\nexit 137"), ["lower the batch", "look up the number"]);
    assert!(recipe.hints("all is well").is_empty());
}

#[test]
fn mistakes_are_found_when_a_recipe_is_loaded() {
    for (old, new, expected) in [
        ("engine: mine", "engine: other", "`engine` must be"),
        ("[make, copy]", "[nosuch, copy]", "`steps.quantize[0].command[0]` is not a name under `programs`"),
        ("command: [make, copy]", "env: {A: b}", "`steps.quantize[0]` has neither"),
        ("a.txt: a.j2", "a.txt: b.j2", "`steps.render[0].files.a.txt` names `b.j2`"),
        ("out of memory", "out of (memory", "`log_hints[0].match` is no regular expression"),
        ("when: tp > 1", "when: tp >", "recipe.yaml"),
        ("{{ model }}\"]", "{{ model\"]", "recipe.yaml"),
    ] {
        assert_eq!(RECIPE.matches(old).count(), 1, "`{old}` is there once");
        let error = load(&RECIPE.replace(old, new)).unwrap_err();
        assert!(error.to_string().contains(expected), "`{new}`: {error}");
    }
    let Err(RecipeError::Mistakes { source, .. }) = load(&RECIPE.replace("versions: [\"1\"]", "versions: 1")) else {
        panic!("versions are a list");
    };
    assert!(source.to_string().contains("recipe.yaml:4:"), "{source}");
    assert!(matches!(LoadedRecipe::load(RecipeFiles::find("nosuch", None).unwrap()), Err(RecipeError::Unknown { .. })));
}
