use std::collections::{HashMap, HashSet};

use crate::manifest::problem::{KeyPath, Location, Segment, closest, did_you_mean, listed};
use crate::manifest::rule::{Kind, Rule, Variant};
use crate::manifest::tree::{Complaint, Entry, Finding, MOST_FINDINGS, Node, Value};
use crate::manifest::words::{expected, found, remedy, right_form, shown};

/// Everything in a tree that its rule does not allow.
pub(super) fn check(node: &Node, rule: &Rule, text: &str) -> Vec<Finding> {
    let mut walker = Walker { text, path: KeyPath::default(), findings: Vec::new() };
    walker.check(node, rule);
    walker.findings
}

struct Walker<'t> {
    text: &'t str,
    path: KeyPath,
    findings: Vec<Finding>,
}

/// How many of what a string, a list or a map holds.
struct Size {
    count: usize,
    unit: &'static str,
}

impl Walker<'_> {
    fn report(&mut self, offset: usize, complaint: Complaint) {
        self.findings.push(Finding { offset, path: self.path.clone(), complaint });
    }

    fn is_full(&self) -> bool {
        self.findings.len() >= MOST_FINDINGS
    }

    fn within(&mut self, segment: Segment, work: impl FnOnce(&mut Self)) {
        self.path.push(segment);
        work(self);
        self.path.pop();
    }

    fn check(&mut self, node: &Node, rule: &Rule) {
        if self.is_full() {
            return;
        }
        if let Value::Unreadable(complaint) = &node.value {
            return self.report(node.offset, complaint.clone());
        }
        if rule.is_union() {
            return self.check_union(node, rule);
        }
        if rule.kind.is_some_and(|kind| !is_of_kind(&node.value, kind)) {
            return self.wrong_type(node, rule);
        }
        match &node.value {
            Value::Int(value) => self.check_bounds(node, rule, *value as f64),
            Value::Float(value) => self.check_bounds(node, rule, *value),
            Value::Text(text) => self.check_text(node, rule, text),
            Value::List(items) => self.check_list(node, rule, items),
            Value::Map(entries) => self.check_map(node, rule, entries),
            Value::Null | Value::Bool(_) | Value::Unreadable(_) => {}
        }
    }

    fn wrong_type(&mut self, node: &Node, rule: &Rule) {
        let complaint = if matches!(node.value, Value::Null) {
            let expected = expected(rule);
            Complaint::new(format!("no value is given, expected {expected}"))
                .with_hint("remove the key or give it a value")
        } else {
            let message = format!("expected {}, found {}", expected(rule), found(&node.value));
            Complaint { message, hint: remedy(&node.value, rule) }
        };
        self.report(node.offset, complaint);
    }

    fn check_bounds(&mut self, node: &Node, rule: &Rule, value: f64) {
        if let Some(least) = rule.minimum.filter(|least| value < *least) {
            self.report(node.offset, Complaint::new(format!("must be at least {least}, found {}", found(&node.value))));
        }
        if let Some(most) = rule.maximum.filter(|most| value > *most) {
            self.report(node.offset, Complaint::new(format!("must be at most {most}, found {}", found(&node.value))));
        }
    }

    fn check_size(&mut self, node: &Node, least: Option<usize>, most: Option<usize>, found: &Size) {
        let Size { count, unit } = found;
        if let Some(least) = least.filter(|least| count < least) {
            let message = match count {
                0 => "must not be empty".to_owned(),
                _ => format!("must have at least {least} {unit}, found {count}"),
            };
            self.report(node.offset, Complaint::new(message));
        }
        if let Some(most) = most.filter(|most| count > most) {
            self.report(node.offset, Complaint::new(format!("must have at most {most} {unit}, found {count}")));
        }
    }

    fn check_text(&mut self, node: &Node, rule: &Rule, text: &str) {
        let words: Vec<&str> = rule.words().collect();
        if !words.is_empty() && !words.contains(&text) {
            self.unknown_word(node, text, &words);
        }
        let length = Size { count: text.chars().count(), unit: "characters" };
        self.check_size(node, rule.min_length, rule.max_length, &length);
        if rule.pattern.as_ref().is_some_and(|pattern| !pattern.0.is_match(text)) {
            let message = format!("{} does not have the right form", found(&node.value));
            self.report(node.offset, Complaint { message, hint: right_form(rule) });
        }
    }

    fn unknown_word(&mut self, node: &Node, text: &str, words: &[&str]) {
        let complaint = Complaint::new(format!("unknown value `{}`", shown(text)));
        self.report(node.offset, complaint.with_hint(did_you_mean(text, "values", words)));
    }

    fn check_list(&mut self, node: &Node, rule: &Rule, items: &[Node]) {
        for (index, item) in items.iter().enumerate() {
            self.within(Segment::Index(index), |walker| walker.check(item, rule.item()));
        }
        let length = Size { count: items.len(), unit: "values" };
        self.check_size(node, rule.min_items, rule.max_items, &length);
        if rule.unique_items {
            self.check_unique(items);
        }
    }

    fn check_unique(&mut self, items: &[Node]) {
        let mut seen = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            if self.is_full() {
                return;
            }
            if !seen.insert(identity(&item.value)) {
                let complaint = Complaint::new(format!("{} is listed twice", found(&item.value)));
                self.within(Segment::Index(index), |walker| walker.report(item.offset, complaint));
            }
        }
    }

    fn check_map(&mut self, node: &Node, rule: &Rule, entries: &[Entry]) {
        let entries = self.sound_entries(entries);
        let known: Vec<&str> = rule.properties.keys().map(String::as_str).collect();
        let mut meant = Vec::new();
        for entry in &entries {
            if self.is_full() {
                return;
            }
            match rule.property(&entry.key) {
                Some(property) => {
                    self.within(Segment::Key(entry.key.clone()), |walker| walker.check(&entry.value, property));
                }
                None => meant.extend(self.unknown_key(entry, &known)),
            }
        }
        for key in &rule.required {
            if !entries.iter().any(|entry| entry.key == *key) && !meant.contains(&key.as_str()) {
                self.missing_key(node, rule, key);
            }
        }
        let size = Size { count: entries.len(), unit: "entries" };
        self.check_size(node, rule.min_properties, None, &size);
    }

    /// Reports repeated and unreadable keys, and gives the others.
    fn sound_entries<'n>(&mut self, entries: &'n [Entry]) -> Vec<&'n Entry> {
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut sound = Vec::new();
        for entry in entries {
            if self.is_full() {
                break;
            }
            let key = entry.key.as_str();
            let segment = || Segment::Key(key.to_owned());
            if let (Value::Unreadable(complaint), true) = (&entry.value.value, entry.value.offset == entry.key_offset) {
                self.within(segment(), |walker| walker.report(entry.key_offset, complaint.clone()));
            } else if let Some(first) = first.get(key) {
                let line = Location::of(self.text, *first).line;
                let complaint = Complaint::new(format!("duplicate key `{}`, first given on line {line}", shown(key)));
                self.within(segment(), |walker| walker.report(entry.key_offset, complaint));
            } else {
                first.insert(key, entry.key_offset);
                sound.push(entry);
            }
        }
        sound
    }

    /// Gives the key that was probably meant.
    fn unknown_key<'k>(&mut self, entry: &Entry, known: &[&'k str]) -> Option<&'k str> {
        let complaint = Complaint::new(format!("unknown key `{}`", shown(&entry.key)));
        let hint = did_you_mean(&entry.key, "keys", known);
        self.within(Segment::Key(entry.key.clone()), |walker| {
            walker.report(entry.key_offset, complaint.with_hint(hint));
        });
        closest(&entry.key, known)
    }

    fn missing_key(&mut self, node: &Node, rule: &Rule, key: &str) {
        let description = rule.property(key).and_then(|property| property.description.as_ref()?.lines().next());
        let hint = description.map(|description| format!("`{key}`: {description}"));
        self.report(node.offset, Complaint { message: format!("missing key `{key}`"), hint });
    }

    fn check_union(&mut self, node: &Node, rule: &Rule) {
        let branches = rule.alternatives();
        let variants: Vec<Variant<'_>> = branches.iter().filter_map(|branch| branch.variant()).collect();
        if let (Value::Map(entries), false) = (&node.value, variants.is_empty()) {
            return self.check_variants(node, &variants, entries);
        }
        let fitting: Vec<&Rule> = branches
            .into_iter()
            .filter(|branch| branch.kind.is_none_or(|kind| is_of_kind(&node.value, kind)))
            .collect();
        let words: Vec<&str> = fitting.iter().flat_map(|branch| branch.words()).collect();
        match (&node.value, fitting.as_slice()) {
            (_, []) => self.wrong_type(node, rule),
            (Value::Text(text), _) if !words.is_empty() => {
                if !words.contains(&text.as_str()) {
                    self.unknown_word(node, text, &words);
                }
            }
            (_, fitting) => self.check_best(node, fitting),
        }
    }

    /// Reports the mistakes under the branch that has the fewest.
    fn check_best(&mut self, node: &Node, branches: &[&Rule]) {
        let attempt = |branch: &&Rule| {
            let mut walker = Walker { text: self.text, path: self.path.clone(), findings: Vec::new() };
            walker.check(node, branch);
            walker.findings
        };
        if let Some(fewest) = branches.iter().map(attempt).min_by_key(Vec::len) {
            self.findings.extend(fewest);
        }
    }

    fn check_variants(&mut self, node: &Node, variants: &[Variant<'_>], entries: &[Entry]) {
        let entries = self.sound_entries(entries);
        let known: Vec<&str> = variants.iter().map(|variant| variant.key).collect();
        let mut given = Vec::new();
        for entry in &entries {
            if self.is_full() {
                return;
            }
            match variants.iter().find(|variant| variant.key == entry.key) {
                Some(variant) => {
                    given.push(variant.key);
                    self.within(Segment::Key(entry.key.clone()), |walker| walker.check(&entry.value, variant.rule));
                }
                None => {
                    self.unknown_key(entry, &known);
                }
            }
        }
        if entries.is_empty() {
            let complaint = Complaint::new(format!("expected exactly one of the keys {}", listed(&known)));
            self.report(node.offset, complaint);
        } else if given.len() > 1 {
            let complaint = Complaint::new(format!("only one of the keys {} can be given", listed(&given)));
            self.report(node.offset, complaint);
        }
    }
}

fn is_of_kind(value: &Value, kind: Kind) -> bool {
    match value {
        Value::Bool(_) => kind == Kind::Boolean,
        Value::Int(_) => matches!(kind, Kind::Integer | Kind::Number),
        Value::Float(_) => kind == Kind::Number,
        Value::Text(_) => kind == Kind::String,
        Value::List(_) => kind == Kind::Array,
        Value::Map(_) => kind == Kind::Object,
        Value::Null | Value::Unreadable(_) => false,
    }
}

/// Equal for values that JSON Schema calls equal: `1` and `1.0` are.
fn identity(value: &Value) -> String {
    match value {
        Value::Null | Value::Unreadable(_) => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => format!("{text:?}"),
        Value::List(items) => {
            format!("[{}]", items.iter().map(|item| identity(&item.value)).collect::<Vec<_>>().join(","))
        }
        Value::Map(entries) => {
            let mut parts: Vec<String> =
                entries.iter().map(|entry| format!("{:?}:{}", entry.key, identity(&entry.value.value))).collect();
            parts.sort();
            format!("{{{}}}", parts.join(","))
        }
    }
}
