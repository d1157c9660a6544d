use serde_json::Map;

use crate::manifest::problem::{KeyPath, Segment};

/// The depth of lists and maps in each other that is read. Everything that walks the tree recurses this deep at most.
pub(super) const DEEPEST: usize = 64;

/// After this many mistakes the rest is not looked at: nobody reads it, and a file made for that could take minutes.
pub(super) const MOST_FINDINGS: usize = 1000;

/// A value as YAML or TOML has it, with its place. Nothing is lost: repeated keys are kept, so that they can be reported.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// In bytes from the start of the text.
    pub(super) offset: usize,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    /// Always finite.
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Good syntax for a value that no manifest can hold.
    Unreadable(Complaint),
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_offset: usize,
    pub(super) value: Node,
}

#[derive(Clone, Debug)]
pub(super) struct Complaint {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A complaint with its place in the text.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) offset: usize,
    pub(super) path: KeyPath,
    pub(super) complaint: Complaint,
}

impl Finding {
    /// A finding about the whole file.
    pub(super) fn of_file(offset: usize, complaint: Complaint) -> Self {
        Self { offset, path: KeyPath::default(), complaint }
    }
}

/// What a parser gives: a tree, and what it could say about the text beside the tree.
#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) root: Node,
    pub(super) findings: Vec<Finding>,
}

impl Value {
    pub(super) fn integer(digits: &str, radix: u32) -> Self {
        match i64::from_str_radix(digits, radix) {
            Ok(value) => Self::Int(value),
            Err(_) => Self::Unreadable(Complaint::new("the integer does not fit into 64 bits").with_hint(format!(
                "integers lie between {} and {}",
                i64::MIN,
                i64::MAX
            ))),
        }
    }

    pub(super) fn float(value: f64) -> Self {
        if value.is_finite() {
            Self::Float(value)
        } else {
            Self::Unreadable(Complaint::new("the number is not finite"))
        }
    }
}

impl Node {
    /// The value as JSON, without what is unreadable; of a repeated key the last value.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null | Value::Unreadable(_) => serde_json::Value::Null,
            Value::Bool(value) => (*value).into(),
            Value::Int(value) => (*value).into(),
            Value::Float(value) => (*value).into(),
            Value::Text(value) => value.as_str().into(),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Map(entries) => {
                let map: Map<_, _> = entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect();
                map.into()
            }
        }
    }

    /// The offset of the key or list item at the end of the path, or of its nearest ancestor that exists.
    pub(super) fn find(&self, path: &KeyPath) -> Found {
        let mut found = Found { key_offset: self.offset, value_offset: self.offset };
        let mut node = self;
        for segment in path.segments() {
            let step = match (segment, &node.value) {
                (Segment::Key(key), Value::Map(entries)) => {
                    entries.iter().find(|entry| entry.key == *key).map(|entry| (entry.key_offset, &entry.value))
                }
                (Segment::Index(index), Value::List(items)) => items.get(*index).map(|item| (item.offset, item)),
                (Segment::Key(_) | Segment::Index(_), _) => None,
            };
            let Some((key_offset, value)) = step else { return found };
            found = Found { key_offset, value_offset: value.offset };
            node = value;
        }
        found
    }

    /// How many nodes there are from here down, and how many levels.
    pub(super) fn size(&self) -> Size {
        let children: Vec<Size> = match &self.value {
            Value::List(items) => items.iter().map(Self::size).collect(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).collect(),
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Unreadable(_) => {
                return Size { nodes: 1, levels: 0 };
            }
        };
        Size {
            nodes: 1 + children.iter().map(|child| child.nodes).sum::<usize>(),
            levels: 1 + children.iter().map(|child| child.levels).max().unwrap_or(0),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) key_offset: usize,
    pub(super) value_offset: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) nodes: usize,
    pub(super) levels: usize,
}
