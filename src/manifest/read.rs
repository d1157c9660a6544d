use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::manifest::check::check;
use crate::manifest::problem::{KeyPath, Location, Problem, ReadError};
use crate::manifest::rule::Rule;
use crate::manifest::rules;
use crate::manifest::tree::{Complaint, Finding, MOST_FINDINGS, Node, Parsed, Value};
use crate::manifest::types::Manifest;
use crate::manifest::{toml, yaml};

/// Files beyond this many bytes are refused.
const LARGEST: u64 = 8 << 20;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Yaml,
    Toml,
}

/// A text that is about to be read, and how complaints name it.
#[derive(Clone, Debug)]
pub struct SourceText {
    pub file: String,
    pub text: String,
    pub format: Format,
}

impl SourceText {
    /// Reads a `.yaml`, `.yml`, `.json` (which is YAML too) or `.toml` file.
    pub fn load(path: &Path) -> Result<Self, ReadError> {
        let file = path.display().to_string();
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let format = match extension.to_ascii_lowercase().as_str() {
            "yaml" | "yml" | "json" => Format::Yaml,
            "toml" => Format::Toml,
            _ => {
                let complaint = Complaint::new("the file name does not say what the file holds");
                return Err(refusal(file, complaint.with_hint("name it `.yaml` or `.toml`")));
            }
        };
        let mut bytes = Vec::new();
        let opened = File::open(path).and_then(|opened| opened.take(LARGEST + 1).read_to_end(&mut bytes));
        if let Err(source) = opened {
            return Err(ReadError::Open { file, source });
        }
        if bytes.len() as u64 > LARGEST {
            return Err(refusal(file, Complaint::new(format!("the file is larger than {} MiB", LARGEST >> 20))));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self { file, text, format }),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let location = Location::of(&String::from_utf8_lossy(&error.as_bytes()[..valid]), valid);
                let problem = problem(location, KeyPath::default(), Complaint::new("the file is not valid UTF-8"));
                Err(ReadError::refused(file, vec![problem]))
            }
        }
    }
}

/// A file that was read without a complaint.
#[derive(Clone, Debug)]
pub struct Document<T> {
    pub value: T,
    pub source: SourceText,
}

impl Document<Manifest> {
    /// Refuses the manifest for what was found out only after it was read, each at its place in the file.
    #[must_use]
    pub fn refused(&self, complaints: Vec<(KeyPath, String)>) -> ReadError {
        let draft = match draft_of(self.source.clone()) {
            Ok(draft) => draft,
            Err(error) => return error,
        };
        let findings = complaints.into_iter().map(|(path, message)| Finding {
            offset: draft.root.find(&path).key_offset,
            path,
            complaint: Complaint::new(message),
        });
        refused(&self.source, findings.collect())
    }
}

/// A manifest as far as it could be read, with what is wrong so far: others may find more before all of it is said.
#[derive(Clone, Debug)]
pub struct Draft {
    source: SourceText,
    root: Node,
    /// What reading found.
    findings: Vec<Finding>,
    /// What others found.
    complaints: Vec<Finding>,
}

impl Draft {
    /// What could be read; where reading found a mistake, it may be anything.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        self.root.to_json()
    }

    /// Whether reading found something wrong at `path` or further down.
    #[must_use]
    pub fn is_wrong_in(&self, path: &KeyPath) -> bool {
        self.findings.iter().any(|finding| finding.path.segments().starts_with(path.segments()))
    }

    /// Adds a complaint about the key or list item at `path`, or its nearest ancestor in the file. Where reading found a
    /// mistake already, it would only be said twice.
    pub fn complain(&mut self, path: KeyPath, message: impl Into<String>, hint: Option<String>) {
        if self.complaints.len() < MOST_FINDINGS && self.findings.iter().all(|finding| finding.path != path) {
            let complaint = Complaint { message: message.into(), hint };
            self.complaints.push(Finding { offset: self.root.find(&path).key_offset, path, complaint });
        }
    }

    /// The manifest, if nobody complained.
    pub fn finish(mut self) -> Result<Document<Manifest>, ReadError> {
        self.findings.append(&mut self.complaints);
        document(self.source, &self.root, self.findings)
    }
}

/// Reads a manifest file as far as it can be read.
///
/// # Errors
/// When it cannot be opened, or its syntax leaves nothing to look at.
pub fn draft(path: &Path) -> Result<Draft, ReadError> {
    draft_of(SourceText::load(path)?)
}

/// Reads a manifest file.
pub fn read(path: &Path) -> Result<Document<Manifest>, ReadError> {
    draft(path)?.finish()
}

/// Reads a manifest from a text; `file` is how complaints name it.
pub fn read_text(file: &str, text: &str, format: Format) -> Result<Document<Manifest>, ReadError> {
    draft_of(SourceText { file: file.to_owned(), text: text.to_owned(), format })?.finish()
}

fn draft_of(source: SourceText) -> Result<Draft, ReadError> {
    let (root, mut findings) = checked_tree::<Manifest>(&source)?;
    findings.extend(rules::check(&root));
    Ok(Draft { source, root, findings, complaints: Vec::new() })
}

/// Reads a file that holds a `T`, checked against the JSON Schema of `T`. Every mistake is reported, not only the first.
pub fn read_document<T: DeserializeOwned + JsonSchema>(source: SourceText) -> Result<Document<T>, ReadError> {
    let (root, findings) = checked_tree::<T>(&source)?;
    document(source, &root, findings)
}

fn checked_tree<T: JsonSchema>(source: &SourceText) -> Result<(Node, Vec<Finding>), ReadError> {
    let Parsed { root, mut findings } = match source.format {
        Format::Yaml => yaml::parse(&source.text).map_err(|finding| vec![finding]),
        Format::Toml => toml::parse(&source.text),
    }
    .map_err(|findings| refused(source, findings))?;
    if is_empty(&root) {
        return Err(refused(source, vec![Finding::of_file(0, Complaint::new("the file is empty"))]));
    }
    findings.extend(check(&root, &Rule::of::<T>(), &source.text));
    Ok((root, findings))
}

fn document<T: DeserializeOwned>(
    source: SourceText,
    root: &Node,
    findings: Vec<Finding>,
) -> Result<Document<T>, ReadError> {
    if !findings.is_empty() {
        return Err(refused(&source, findings));
    }
    match serde_json::from_value(root.to_json()) {
        Ok(value) => Ok(Document { value, source }),
        Err(error) => Err(refused(&source, vec![Finding::of_file(0, Complaint::new(error.to_string()))])),
    }
}

fn is_empty(root: &Node) -> bool {
    match &root.value {
        Value::Null => true,
        Value::Map(entries) => entries.is_empty(),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) | Value::Unreadable(_) => {
            false
        }
    }
}

fn refused(source: &SourceText, findings: Vec<Finding>) -> ReadError {
    let problems = findings
        .into_iter()
        .take(MOST_FINDINGS)
        .map(|finding| problem(Location::of(&source.text, finding.offset), finding.path, finding.complaint))
        .collect();
    ReadError::refused(source.file.clone(), problems)
}

fn refusal(file: String, complaint: Complaint) -> ReadError {
    ReadError::refused(file, vec![problem(Location { line: 1, column: 1 }, KeyPath::default(), complaint)])
}

fn problem(location: Location, path: KeyPath, complaint: Complaint) -> Problem {
    Problem { location, path, message: complaint.message, hint: complaint.hint }
}
