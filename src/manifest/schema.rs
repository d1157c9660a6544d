use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform as _};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

use crate::manifest::types::Manifest;

/// The manifest's JSON Schema, draft 2020-12: what `benchrun schema` prints and what the reader itself checks by.
#[must_use]
pub fn json_schema() -> Value {
    generate::<Manifest>(SchemaSettings::draft2020_12())
}

/// The same schema without references, for a type that does not contain itself.
pub(super) fn inlined_schema<T: JsonSchema>() -> Value {
    generate::<T>(SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true))
}

fn generate<T: JsonSchema>(settings: SchemaSettings) -> Value {
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(bound_integers).transform(&mut schema);
    RecursiveTransform(forbid_null).transform(&mut schema);
    schema.to_value()
}

/// `format: uint32` means nothing to a validator; bounds do.
fn bound_integers(schema: &mut Schema) {
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        // TOML has no larger integers.
        Some("uint64" | "uint") => i64::MAX.unsigned_abs(),
        Some("int64" | "double" | "float") => {
            schema.remove("format");
            return;
        }
        _ => return,
    };
    schema.remove("format");
    if schema.get("maximum").is_none() {
        schema.insert("maximum".to_owned(), most.into());
    }
}

/// An optional key is left out; writing `null` is more often a forgotten value than a wish.
fn forbid_null(schema: &mut Schema) {
    if let Some(Value::Array(kinds)) = schema.get_mut("type") {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            let kind = kind.clone();
            schema.insert("type".to_owned(), kind);
        }
    }
    if let Some(Value::Array(branches)) = schema.get_mut("anyOf") {
        branches.retain(|branch| branch.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(branch)] = branches.as_slice() {
            let branch = branch.clone();
            schema.remove("anyOf");
            schema.ensure_object().extend(branch);
        }
    }
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
}
