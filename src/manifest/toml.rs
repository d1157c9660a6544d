use std::ops::Range;

use toml::Spanned;
use toml::de::{DeFloat, DeTable, DeValue};

use crate::manifest::problem::{KeyPath, Location, Segment};
use crate::manifest::tree::{Complaint, DEEPEST, Entry, Finding, Node, Parsed, Value};

const DUPLICATE: &str = "duplicate key";
/// Each repeated header costs a pass over the text, and one mistake of syntax often makes others.
const MOST_MISTAKES: usize = 10;

/// Reads TOML 1.1. Repeated keys are findings beside the tree; other mistakes of syntax leave no tree worth checking.
pub(super) fn parse(text: &str) -> Result<Parsed, Vec<Finding>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    let (duplicates, mistakes): (Vec<_>, Vec<_>) = errors.iter().partition(|error| error.message() == DUPLICATE);
    if !mistakes.is_empty() {
        let finding = |error: &&toml::de::Error| {
            let complaint = Complaint::new(format!("not valid TOML: {}", error.message()));
            Finding::of_file(start(error.span()), complaint)
        };
        let mut findings: Vec<Finding> = mistakes.iter().take(MOST_MISTAKES).map(finding).collect();
        findings.dedup_by(|a, b| a.offset == b.offset && a.complaint.message == b.complaint.message);
        return Err(findings);
    }
    let root = Node { offset: 0, value: map(table.get_ref(), 0).map_err(|finding| vec![finding])? };
    let findings = duplicates.iter().take(MOST_MISTAKES).map(|error| duplicate(text, &root, error.span())).collect();
    Ok(Parsed { root, findings })
}

fn start(span: Option<Range<usize>>) -> usize {
    span.map_or(0, |span| span.start)
}

fn too_deep(offset: usize) -> Finding {
    Finding::of_file(offset, Complaint::new(format!("tables and arrays are nested deeper than {DEEPEST} levels")))
}

fn map(table: &DeTable<'_>, depth: usize) -> Result<Value, Finding> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let value = node(value, depth + 1)?;
        entries.push(Entry { key: key.get_ref().to_string(), key_offset: key.span().start, value });
    }
    // The parser sorts by name; the order of axes and values is the author's.
    entries.sort_by_key(|entry| entry.key_offset);
    Ok(Value::Map(entries))
}

fn node(value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, Finding> {
    let offset = value.span().start;
    if depth > DEEPEST {
        return Err(too_deep(offset));
    }
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(integer) => Value::integer(integer.as_str(), integer.radix()),
        DeValue::Float(number) => float(number),
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Datetime(date) => Value::Unreadable(
            Complaint::new("dates and times are not supported").with_hint(format!("write the string \"{date}\"")),
        ),
        DeValue::Array(items) => Value::List(items.iter().map(|item| node(item, depth + 1)).collect::<Result<_, _>>()?),
        DeValue::Table(table) => map(table, depth)?,
    };
    Ok(Node { offset, value })
}

fn float(number: &DeFloat<'_>) -> Value {
    Value::float(number.as_str().parse().unwrap_or(f64::NAN))
}

/// The parser says where the second key is; the first one is the last of that name before it.
fn duplicate(text: &str, root: &Node, span: Option<Range<usize>>) -> Finding {
    let span = span.unwrap_or(0..0);
    let key = text.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
    let mut search = Search { key, before: span.start, path: KeyPath::default(), found: None };
    let line_start = text[..span.start].rfind('\n').map_or(0, |newline| newline + 1);
    if text[line_start..].trim_start().starts_with('[') {
        // A repeated header takes the place of the first one in the tree; the text above it still has the first.
        if let Ok(value) = map(DeTable::parse_recoverable(&text[..line_start]).0.get_ref(), 0) {
            search.walk(&Node { offset: 0, value });
        }
    } else {
        search.walk(root);
    }
    match search.found {
        Some((first, path)) => {
            let line = Location::of(text, first).line;
            let complaint = Complaint::new(format!("duplicate key `{key}`, first given on line {line}"));
            Finding { offset: span.start, path, complaint }
        }
        None => Finding::of_file(span.start, Complaint::new(format!("duplicate key `{key}`"))),
    }
}

struct Search<'a> {
    key: &'a str,
    before: usize,
    path: KeyPath,
    found: Option<(usize, KeyPath)>,
}

impl Search<'_> {
    fn walk(&mut self, node: &Node) {
        match &node.value {
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Segment::Index(index));
                    self.walk(item);
                    self.path.pop();
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    self.path.push(Segment::Key(entry.key.clone()));
                    let last = self.found.as_ref().is_none_or(|(offset, _)| entry.key_offset > *offset);
                    if entry.key == self.key && entry.key_offset < self.before && last {
                        self.found = Some((entry.key_offset, self.path.clone()));
                    }
                    self.walk(&entry.value);
                    self.path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Unreadable(_) => {}
        }
    }
}
