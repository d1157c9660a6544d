use std::sync::LazyLock;

use indexmap::IndexMap;
use regex::Regex;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::manifest::schema::inlined_schema;

/// The part of JSON Schema that the types of manifests and recipes use, compiled. Compiling refuses a keyword that is not
/// here, so that the reader cannot be laxer than the schema that benchrun prints.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(rename = "type")]
    pub(super) kind: Option<Kind>,
    pub(super) properties: IndexMap<String, Subschema>,
    pub(super) required: Vec<String>,
    additional_properties: Option<Subschema>,
    pub(super) min_properties: Option<usize>,
    items: Option<Subschema>,
    pub(super) min_items: Option<usize>,
    pub(super) max_items: Option<usize>,
    pub(super) unique_items: bool,
    pub(super) minimum: Option<f64>,
    pub(super) maximum: Option<f64>,
    pub(super) pattern: Option<Pattern>,
    pub(super) min_length: Option<usize>,
    pub(super) max_length: Option<usize>,
    #[serde(rename = "enum")]
    pub(super) words: Vec<String>,
    #[serde(rename = "const")]
    word: Option<String>,
    pub(super) one_of: Vec<Rule>,
    pub(super) any_of: Vec<Rule>,
    pub(super) description: Option<String>,
    pub(super) examples: Vec<Value>,
    #[serde(rename = "$schema")]
    _dialect: IgnoredAny,
    #[serde(rename = "title")]
    _title: IgnoredAny,
    #[serde(rename = "default")]
    _default: IgnoredAny,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Subschema {
    Always(bool),
    Rule(Box<Rule>),
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(pub(super) Regex);

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(pattern: String) -> Result<Self, Self::Error> {
        Regex::new(&pattern).map(Self)
    }
}

static ANYTHING: LazyLock<Rule> = LazyLock::new(Rule::default);

impl Subschema {
    fn rule(&self) -> Option<&Rule> {
        match self {
            Self::Always(true) => Some(&ANYTHING),
            Self::Always(false) => None,
            Self::Rule(rule) => Some(rule),
        }
    }
}

/// One externally tagged variant of a union: a map with one key.
#[derive(Clone, Copy)]
pub(super) struct Variant<'r> {
    pub(super) key: &'r str,
    pub(super) rule: &'r Rule,
}

impl Rule {
    /// The rule for files that hold a `T`.
    pub(super) fn of<T: JsonSchema>() -> Self {
        serde_json::from_value(inlined_schema::<T>())
            .expect("types that are read from files have a schema of the keywords above")
    }

    /// The rule for the value of `key`, or `None` where there is no such key.
    pub(super) fn property(&self, key: &str) -> Option<&Self> {
        match self.properties.get(key) {
            Some(property) => property.rule(),
            None => self.additional_properties.as_ref().map_or(Some(&*ANYTHING), Subschema::rule),
        }
    }

    pub(super) fn item(&self) -> &Self {
        self.items.as_ref().and_then(Subschema::rule).unwrap_or(&ANYTHING)
    }

    /// The alternatives of a union, with unions in unions resolved; otherwise the rule itself.
    pub(super) fn alternatives(&self) -> Vec<&Self> {
        if self.is_union() {
            return self.one_of.iter().chain(&self.any_of).flat_map(Self::alternatives).collect();
        }
        vec![self]
    }

    pub(super) fn is_union(&self) -> bool {
        !self.one_of.is_empty() || !self.any_of.is_empty()
    }

    /// The strings that are allowed, where these can be listed.
    pub(super) fn words(&self) -> impl Iterator<Item = &str> {
        self.words.iter().chain(&self.word).map(String::as_str)
    }

    pub(super) fn variant(&self) -> Option<Variant<'_>> {
        let [key] = self.required.as_slice() else { return None };
        let closed = matches!(self.additional_properties, Some(Subschema::Always(false)));
        let rule = self.properties.get(key)?.rule()?;
        (closed && self.properties.len() == 1).then_some(Variant { key, rule })
    }
}
