use std::collections::HashMap;

use serde_yaml::granit_parser::{self, Event, Parser, ScalarStyle, Span, StrInput};

use crate::manifest::Manifest;
use crate::manifest::tree::{Complaint, DEEPEST, Entry, Finding, Node, Parsed, Value};

/// The values that aliases may copy into one file: a page of aliases of aliases could else fill the memory.
const MOST_COPIED: usize = 100_000;

/// Reads YAML 1.2 with its core schema: `no`, `on` and `1_000` are strings, `1e3` is a number that is no integer.
pub(super) fn parse(text: &str) -> Result<Parsed, Finding> {
    let mut options = granit_parser::Options::default();
    options.set_emit_comments(false);
    let events = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader { events, anchors: HashMap::new(), copied: 0 };
    let mut root = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::DocumentStart(..) if root.is_some() => {
                let complaint = Complaint::new("a second document starts here").with_hint("a file holds one document");
                return Err(Finding::of_file(start(&span), complaint));
            }
            Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => root = Some(reader.node(event, &span, 0)?),
        }
    }
    let root = root.unwrap_or(Node { offset: 0, value: Value::Null });
    Ok(Parsed { root, findings: Vec::new() })
}

/// A manifest as YAML that [`parse`] reads back.
///
/// # Panics
/// Never: manifests are plain data.
#[must_use]
pub fn to_yaml(manifest: &Manifest) -> String {
    serde_yaml::to_string(manifest).expect("manifests are plain data")
}

struct Reader<'t> {
    events: Parser<'t, StrInput<'t>>,
    anchors: HashMap<usize, Node>,
    copied: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Finding> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let offset = error.marker().byte_offset().unwrap_or(0);
                Err(Finding::of_file(offset, Complaint::new(format!("not valid YAML: {}", error.info()))))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'t>, span: &Span, depth: usize) -> Result<Node, Finding> {
        let offset = start(span);
        if depth > DEEPEST {
            return Err(too_deep(offset));
        }
        let (value, anchor, tagged) = match event {
            Event::Alias(anchor) => return self.alias(anchor, offset, depth),
            Event::Scalar(text, ScalarStyle::Plain, anchor, tag) => (plain(&text), anchor, tag.is_some()),
            Event::Scalar(text, _, anchor, tag) => (Value::Text(text.into_owned()), anchor, tag.is_some()),
            Event::SequenceStart(_, anchor, tag) => (self.list(depth)?, anchor, tag.is_some()),
            Event::MappingStart(_, anchor, tag) => (self.map(depth)?, anchor, tag.is_some()),
            _ => return Err(Finding::of_file(offset, Complaint::new("not valid YAML: expected a value"))),
        };
        let value = if tagged { Value::Unreadable(tags_are_not_read()) } else { value };
        let node = Node { offset, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Finding> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::SequenceEnd {
                return Ok(Value::List(items));
            }
            items.push(self.node(event, &span, depth + 1)?);
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Finding> {
        let mut entries = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                return Ok(Value::Map(entries));
            }
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.node(event, &span, depth + 1)?;
            let (event, span) = self.next()?;
            let value = self.node(event, &span, depth + 1)?;
            entries.push(if is_merge {
                complained("<<", key.offset, merges_are_not_read())
            } else {
                entry(key, value)
            });
        }
    }

    fn alias(&mut self, anchor: usize, offset: usize, depth: usize) -> Result<Node, Finding> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(Finding::of_file(offset, Complaint::new("the alias stands within its own anchor")));
        };
        let size = node.size();
        self.copied += size.nodes;
        if self.copied > MOST_COPIED {
            let complaint = Complaint::new(format!("the aliases of this file copy more than {MOST_COPIED} values"));
            return Err(Finding::of_file(offset, complaint));
        }
        if depth + size.levels > DEEPEST {
            return Err(too_deep(offset));
        }
        Ok(Node { offset, value: node.value.clone() })
    }
}

fn start(span: &Span) -> usize {
    span.start.byte_offset().unwrap_or(0)
}

fn entry(key: Node, value: Node) -> Entry {
    match key.value {
        Value::Text(text) => Entry { key: text, key_offset: key.offset, value },
        Value::Unreadable(complaint) => complained("?", key.offset, complaint),
        Value::Bool(_) | Value::Float(_) | Value::Int(_) | Value::List(_) | Value::Map(_) | Value::Null => {
            let complaint = Complaint::new("a key must be a string").with_hint("put the key in quotes");
            let shown = match key.value {
                Value::Bool(key) => key.to_string(),
                Value::Int(key) => key.to_string(),
                Value::Float(key) => key.to_string(),
                _ => "?".to_owned(),
            };
            complained(&shown, key.offset, complaint)
        }
    }
}

fn complained(key: &str, key_offset: usize, complaint: Complaint) -> Entry {
    let value = Node { offset: key_offset, value: Value::Unreadable(complaint) };
    Entry { key: key.to_owned(), key_offset, value }
}

fn too_deep(offset: usize) -> Finding {
    Finding::of_file(offset, Complaint::new(format!("lists and maps are nested deeper than {DEEPEST} levels")))
}

fn tags_are_not_read() -> Complaint {
    Complaint::new("tags like `!!str` are not supported").with_hint("put a string in quotes")
}

fn merges_are_not_read() -> Complaint {
    Complaint::new("merge keys (`<<`) are not part of YAML 1.2")
        .with_hint("write the keys out, or repeat a whole value by `&name` and `*name`")
}

/// The core schema of YAML 1.2.2, section 10.3.2.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        ".nan" | ".NaN" | ".NAN" => Value::float(f64::NAN),
        _ => number(text).unwrap_or_else(|| Value::Text(text.to_owned())),
    }
}

fn number(text: &str) -> Option<Value> {
    for (prefix, radix) in [("0x", 16), ("0o", 8)] {
        if let Some(digits) = text.strip_prefix(prefix) {
            let all_digits = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
            return all_digits.then(|| Value::integer(digits, radix));
        }
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") {
        return Some(Value::float(f64::INFINITY));
    }
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Value::integer(text, 10));
    }
    let float_letters = |letter: char| letter.is_ascii_digit() || matches!(letter, '.' | 'e' | 'E' | '+' | '-');
    if !unsigned.chars().all(float_letters) {
        return None;
    }
    text.parse().ok().map(Value::float)
}
