//! The first two entries of each conversation of a ShareGPT file, which may be hundreds of megabytes: whatever else it
//! holds is passed over unread.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer as _, Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Deserializer, Value};

use super::conversation::{Conversation, Turn};
use super::error::Place;
use super::prompt::Content;
use super::rows::{self, Broken, Kind, Row};

/// The conversations with two entries and more, and how many have fewer.
pub(super) fn read(path: &Path) -> Result<(Vec<Conversation>, u64), Broken> {
    let (mut pairs, mut left_out) = (Vec::new(), 0);
    let mut take = |pair: Option<Conversation>| match pair {
        Some(pair) => pairs.push(pair),
        None => left_out += 1,
    };
    if Kind::of(path)? == Kind::JsonList {
        list(&fs::read(path)?, &mut take)?;
    } else {
        rows::json_or_parquet(path, &mut |row| first_pair(&row).map(&mut take))?;
    }
    Ok((pairs, left_out))
}

/// The texts of a row's first two entries, whoever speaks in them; `None` for a row with fewer.
fn first_pair(row: &Row) -> Result<Option<Conversation>, String> {
    let entries = row.get("conversations").and_then(Value::as_array).ok_or("it has no list `conversations`")?;
    let [prompt, answer, ..] = entries.as_slice() else { return Ok(None) };
    let text = |entry: &Value| {
        let value = entry.get("value").and_then(Value::as_str).map(ToOwned::to_owned);
        value.ok_or("an entry of `conversations` has no text `value`")
    };
    Ok(Some(pair(text(prompt)?, text(answer)?)))
}

fn pair(prompt: String, answer: String) -> Conversation {
    let turn = Turn { content: Content::Text(prompt), answer: Some(answer), output_tokens: None };
    Conversation { turns: vec![turn] }
}

/// A JSON list, out of memory: from a reader it takes three times as long.
fn list(bytes: &[u8], take: &mut dyn FnMut(Option<Conversation>)) -> Result<(), Broken> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut talks = Talks { take, number: 0 };
    let mut json = Deserializer::from_slice(bytes);
    let read = json.deserialize_seq(&mut talks).and_then(|()| json.end());
    let number = talks.number;
    read.map_err(|error| {
        if error.is_data() {
            Broken::Row(Place::Entry(number), error.to_string())
        } else {
            Broken::Format(format!("it is not a JSON list of objects: {error}"))
        }
    })
}

struct Talks<'t> {
    take: &'t mut dyn FnMut(Option<Conversation>),
    number: u64,
}

impl<'de> Visitor<'de> for &mut Talks<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of conversations")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut talks: A) -> Result<(), A::Error> {
        loop {
            self.number += 1;
            let Some(talk) = talks.next_element::<Talk>()? else { return Ok(()) };
            (self.take)(talk.conversations.0);
        }
    }
}

#[derive(Deserialize)]
struct Talk {
    conversations: FirstPair,
}

struct FirstPair(Option<Conversation>);

impl<'de> Deserialize<'de> for FirstPair {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Entries).map(Self)
    }
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    value: Option<Cow<'a, str>>,
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Option<Conversation>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of entries with `value`")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let Some(prompt) = entries.next_element::<Entry<'_>>()? else { return Ok(None) };
        let Some(answer) = entries.next_element::<Entry<'_>>()? else { return Ok(None) };
        while entries.next_element::<IgnoredAny>()?.is_some() {}
        let (Some(prompt), Some(answer)) = (prompt.value, answer.value) else {
            return Err(A::Error::custom("an entry of `conversations` has no text `value`"));
        };
        Ok(Some(pair(prompt.into_owned(), answer.into_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<(Vec<Conversation>, u64), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        read(file.path()).map_err(|broken| {
            let error = broken.at(Path::new("FILE")).to_string();
            error.split(" at line").next().unwrap_or_default().to_owned()
        })
    }

    #[test]
    fn a_list_and_lines_give_the_same_pairs() {
        let talks = [
            r#"{"id": "1", "conversations": [{"from": "gpt", "value": "a\n\u00e9"}, {"value": "b"}, {"value": 3}, {}]}"#,
            r#"{"conversations": [{"value": "only"}], "id": {"deep": [1, "}]"]}}"#,
            r#"{"conversations": []}"#,
        ];
        let expected = (vec![pair("a\né".to_owned(), "b".to_owned())], 2);
        for text in [format!("\u{feff} [{}]", talks.join(",")), talks.join("\n")] {
            assert_eq!(read_text(&text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            (r#"[{"conversations": []}, {"id": 1}]"#, "entry 2 of `FILE`: missing field `conversations`"),
            (
                r#"[{"conversations": [{"value": "a"}, {"from": "b"}]}]"#,
                "entry 1 of `FILE`: an entry of `conversations` has no text",
            ),
            (r#"[{"conversations": [{"value": 1}, {"value": "a"}]}]"#, "entry 1 of `FILE`: invalid type: integer `1`"),
            (r#"[{"conversations": 1}]"#, "entry 1 of `FILE`: invalid type: integer `1`, expected a list of entries"),
            (r#"[{"conversations": []}"#, "cannot read `FILE`: it is not a JSON list of objects: EOF"),
            (r#"{"conversations": 1}"#, "line 1 of `FILE`: it has no list `conversations`"),
            (
                r#"{"conversations": [{"value": 1}, {"value": "a"}]}"#,
                "line 1 of `FILE`: an entry of `conversations` has no",
            ),
        ] {
            let error = read_text(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
        }
    }
}
