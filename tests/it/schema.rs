//! The schema that `benchrun schema` prints and the reader agree: on every example, and on each of its mutations.

use benchrun::manifest::{Format, Manifest, ReadError, SourceText, json_schema, read_document, read_text};
use serde_json::{Value, json};

const MINIMAL: &str = include_str!("fixtures/minimal.yaml");
const FULL: &str = include_str!("fixtures/full.yaml");
const FULL_TOML: &str = include_str!("fixtures/full.toml");

#[test]
fn the_schema_tells_editors_what_a_key_is() {
    let schema = json_schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!((&schema["title"], schema.get("$id")), (&json!("Manifest"), None));
    assert_eq!(schema["properties"]["name"]["description"], "The sweep's name: the folder of its runs.");
    assert_eq!(schema["$defs"]["Phase"]["properties"]["rounds"]["maximum"], 1000);
    assert!(!schema.to_string().contains("\"null\""), "an optional key is left out, not null");
}

#[test]
fn yaml_and_toml_give_equal_values_in_equal_order() {
    let yaml = read_text("full.yaml", FULL, Format::Yaml).unwrap();
    let toml = read_text("full.toml", FULL_TOML, Format::Toml).unwrap();
    assert_eq!(yaml.value, toml.value);
    let axes = |manifest: &Manifest| manifest.matrix.axes.keys().cloned().collect::<Vec<_>>();
    assert_eq!(axes(&yaml.value), axes(&toml.value));
}

#[test]
fn what_is_read_can_be_written_and_read_again() {
    for text in [MINIMAL, FULL] {
        let manifest = read_text("a.yaml", text, Format::Yaml).unwrap().value;
        let yaml = serde_yaml::to_string(&manifest).unwrap();
        assert_eq!(read_text("b.yaml", &yaml, Format::Yaml).unwrap().value, manifest);
        let toml = toml::to_string(&manifest).unwrap();
        assert_eq!(read_text("c.toml", &toml, Format::Toml).unwrap().value, manifest);
    }
}

#[test]
fn an_independent_validator_agrees_with_the_reader() {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("manifest.json", json_schema()).unwrap();
    let schema = compiler.compile("manifest.json", &mut schemas).unwrap();
    let is_valid = |value: &Value| schemas.validate(value, schema).is_ok();
    let (mut accepted, mut refused) = (0, 0);
    for text in [MINIMAL, FULL] {
        let example: Value = serde_yaml::from_str(text).unwrap();
        assert!(is_valid(&example));
        for mutation in mutations(&example) {
            let read = schema_stage(&mutation.value);
            assert_eq!(is_valid(&mutation.value), read.is_ok(), "{}: {read:?}", mutation.what);
            if read.is_ok() { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(accepted > 100 && refused > 500, "{accepted} accepted, {refused} refused: one side is hardly tested");
}

/// The schema's checks and serde, without the rules that no schema can say. JSON is YAML.
fn schema_stage(value: &Value) -> Result<Manifest, ReadError> {
    let source = SourceText { file: "mutated.yaml".to_owned(), text: value.to_string(), format: Format::Yaml };
    read_document::<Manifest>(source).map(|document| document.value)
}

struct Mutation {
    what: String,
    value: Value,
}

/// Each way to change one place of `example`. A number like `4.0` is not among them: the reader wants integers written
/// as integers, JSON Schema does not mind.
fn mutations(example: &Value) -> Vec<Mutation> {
    let mut pointers = Vec::new();
    collect_pointers(example, String::new(), &mut pointers);
    pointers.iter().flat_map(|pointer| mutations_at(example, pointer)).collect()
}

fn collect_pointers(value: &Value, here: String, pointers: &mut Vec<String>) {
    if let Value::Object(map) = value {
        for (key, value) in map {
            let key = key.replace('~', "~0").replace('/', "~1");
            collect_pointers(value, format!("{here}/{key}"), pointers);
        }
    }
    if let Value::Array(items) = value {
        for (index, value) in items.iter().enumerate() {
            collect_pointers(value, format!("{here}/{index}"), pointers);
        }
    }
    pointers.push(here);
}

fn mutations_at(example: &Value, pointer: &str) -> Vec<Mutation> {
    let with = |what: &str, change: &dyn Fn(&mut Value)| {
        let mut value = example.clone();
        change(value.pointer_mut(pointer).unwrap());
        Mutation { what: format!("{what} at `{pointer}`"), value }
    };
    let others = [
        json!(null),
        json!(true),
        json!(-1),
        json!(0),
        json!(1.5),
        json!(u64::from(u32::MAX) + 1),
        json!(i64::MAX),
        json!(""),
        json!("x"),
        json!("4"),
        json!("0s"),
        json!("5m"),
        json!([]),
        json!({}),
        json!([1, 1]),
        json!(["x"]),
        json!({"hf": {"repo": "a/b"}, "path": "x"}),
    ];
    let mut mutations: Vec<Mutation> =
        others.iter().map(|other| with(&format!("{other}"), &|place| *place = other.clone())).collect();
    if let Some(Value::Object(map)) = example.pointer(pointer) {
        mutations.push(with("an extra key", &|place| place["extra"] = json!(1)));
        for key in map.keys() {
            mutations.push(with(&format!("without `{key}`"), &|place| {
                place.as_object_mut().unwrap().remove(key);
            }));
            mutations.push(with(&format!("`{key}` renamed"), &|place| {
                let map = place.as_object_mut().unwrap();
                let value = map.remove(key).unwrap();
                map.insert(format!("{key}x"), value);
            }));
        }
    }
    if let Some(Value::Array(items)) = example.pointer(pointer) {
        for item in items {
            mutations.push(with("an item twice", &|place| place.as_array_mut().unwrap().push(item.clone())));
        }
    }
    mutations
}

/// The manifest's reader knows the columns without the module that fills them.
#[test]
fn a_threshold_can_bound_every_column_that_holds_a_number() {
    let mut known = benchrun::manifest::known_columns();
    let mut filled = benchrun::report::known_metric_columns().to_vec();
    known.sort();
    filled.sort();
    assert_eq!(known, filled);
}
