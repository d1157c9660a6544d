//! Values and rules in the words of a file's author.

use crate::manifest::problem::listed;
use crate::manifest::rule::{Kind, Rule};
use crate::manifest::tree::Value;

/// Characters of a string that a message shows.
const MOST_SHOWN: usize = 60;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Count {
    One,
    Many,
}

/// What a rule asks for: `a list of integers`.
pub(super) fn expected(rule: &Rule) -> String {
    alternatives(rule, Count::One)
}

fn alternatives(rule: &Rule, count: Count) -> String {
    let branches = rule.alternatives();
    let keys: Vec<&str> = branches.iter().filter_map(|branch| Some(branch.variant()?.key)).collect();
    let mut nouns: Vec<String> = Vec::new();
    let mut add = |noun: String| {
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
    };
    let words: Vec<&str> = branches.iter().flat_map(|branch| branch.words()).collect();
    if !words.is_empty() {
        add(if count == Count::One { format!("one of {}", listed(&words)) } else { "strings".to_owned() });
    }
    let any_number = branches.iter().any(|branch| branch.kind == Some(Kind::Number));
    for branch in branches.iter().filter(|branch| branch.words().next().is_none() && branch.variant().is_none()) {
        if !(any_number && branch.kind == Some(Kind::Integer)) {
            add(noun(branch, count));
        }
    }
    match (keys.as_slice(), count) {
        ([], _) => {}
        ([key], Count::One) => add(format!("a map with the key `{key}`")),
        (keys, Count::One) => add(format!("a map with one of the keys {}", listed(keys))),
        (_, Count::Many) => add("maps".to_owned()),
    }
    match nouns.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => "nothing".to_owned(),
    }
}

fn noun(rule: &Rule, count: Count) -> String {
    let (one, many) = match rule.kind {
        Some(Kind::Boolean) => ("a boolean", "booleans"),
        Some(Kind::Integer) => ("an integer", "integers"),
        Some(Kind::Number) => ("a number", "numbers"),
        Some(Kind::String) => ("a string", "strings"),
        Some(Kind::Object) => ("a map", "maps"),
        Some(Kind::Array) if count == Count::One => {
            return format!("a list of {}", alternatives(rule.item(), Count::Many));
        }
        Some(Kind::Array) => ("a list", "lists"),
        None => ("any value", "values"),
    };
    match count {
        Count::One => one,
        Count::Many => many,
    }
    .to_owned()
}

/// What stands in the file: ``the string `4` ``.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => format!("the boolean `{value}`"),
        Value::Int(value) => format!("the integer `{value}`"),
        Value::Float(value) => format!("the number `{value:?}`"),
        Value::Text(text) if text.is_empty() => "an empty string".to_owned(),
        Value::Text(text) => format!("the string `{}`", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
        Value::Unreadable(complaint) => complaint.message.clone(),
    }
}

/// A string as a message shows it: on one line, and not too long.
pub(super) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MOST_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MOST_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// How to turn a value of the wrong type into the right one, where that is plain.
pub(super) fn remedy(value: &Value, rule: &Rule) -> Option<String> {
    let branches = rule.alternatives();
    let takes = |kind: Kind| branches.iter().any(|branch| branch.kind == Some(kind));
    let scalar = match value {
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Text(text) => shown(text),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Unreadable(_) => return None,
    };
    match value {
        _ if takes(Kind::Array) => Some(format!("write a list: `[{scalar}]`")),
        Value::Text(text) => {
            let number = text.replace('_', "");
            let fits = takes(Kind::Integer) && number.parse::<i64>().is_ok()
                || takes(Kind::Number) && number.parse::<f64>().is_ok_and(f64::is_finite)
                || takes(Kind::Boolean) && matches!(text.as_str(), "true" | "false");
            if fits {
                return Some(format!("write `{number}` without quotes"));
            }
            takes(Kind::Boolean).then(|| "write `true` or `false`".to_owned())
        }
        Value::Float(number) if takes(Kind::Integer) && number.fract() == 0.0 => Some(format!("write `{number}`")),
        _ => {
            let branch = branches.iter().find(|branch| branch.kind == Some(Kind::String))?;
            let fits = branch.pattern.as_ref().is_none_or(|pattern| pattern.0.is_match(&scalar));
            if fits { Some(format!("put it in quotes: `\"{scalar}\"`")) } else { right_form(branch) }
        }
    }
}

/// Examples of strings that a rule takes, or its pattern.
pub(super) fn right_form(rule: &Rule) -> Option<String> {
    let examples: Vec<&str> = rule.examples.iter().filter_map(|example| example.as_str()).collect();
    if !examples.is_empty() {
        return Some(format!("for example {}", listed(&examples)));
    }
    rule.pattern.as_ref().map(|pattern| format!("it must match `{}`", pattern.0))
}
