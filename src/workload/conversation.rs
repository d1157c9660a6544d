//! What one row of a file asks a model.

use serde::Deserialize;
use serde_json::Value;

use super::prompt::{Content, Message};
use super::rows::Row;
use crate::spec::{PromptFile, Turns};

/// The fields that a prompt is looked for in, in this order.
const COLUMNS: [&str; 4] = ["text_input", "prompt", "messages", "conversations"];
const ASSISTANT: &str = "assistant";
const USER: &str = "user";

/// One row, as requests that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Conversation {
    pub turns: Vec<Turn>,
}

/// One request, with what the file says of its answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Turn {
    pub content: Content,
    pub answer: Option<String>,
    pub output_tokens: Option<u32>,
}

/// Reads the row; `None` when no user says anything in it. The error says what is wrong with it and what it needs.
pub(super) fn conversation(file: &PromptFile, turns: Turns, row: &Row) -> Result<Option<Conversation>, String> {
    let (name, value) = prompt_of(file, row)?;
    let output_tokens = stated_tokens(row)?;
    let answer = file.answer_column.as_deref().map(|column| text_of(column, row)).transpose()?;
    let mut turns = match value {
        Value::String(text) if text.is_empty() => return Err(format!("`{name}` is empty")),
        Value::String(text) => vec![Turn { content: Content::Text(text.clone()), answer, output_tokens: None }],
        Value::Array(list) => match requests(&messages(name, list)?, turns) {
            Some(turns) => turns,
            None => return Ok(None),
        },
        _ => return Err(format!("`{name}` is neither a text nor a list of messages")),
    };
    for turn in &mut turns {
        turn.output_tokens = output_tokens;
    }
    Ok(Some(Conversation { turns }))
}

fn prompt_of<'r>(file: &'r PromptFile, row: &'r Row) -> Result<(&'r str, &'r Value), String> {
    let found = || row.keys().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
    match &file.column {
        Some(column) => match row.get(column) {
            Some(value) => Ok((column, value)),
            None => Err(format!("`{column}` is missing (there are {})", found())),
        },
        None => COLUMNS.into_iter().find_map(|name| Some((name, row.get(name)?))).ok_or_else(|| {
            let names = COLUMNS.map(|name| format!("`{name}`")).join(", ");
            format!("a prompt is missing: none of {names} is there; name the field by `column` (there are {})", found())
        }),
    }
}

fn text_of(column: &str, row: &Row) -> Result<String, String> {
    match row.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("`{column}` is not a text")),
        None => Err(format!("`{column}` is missing")),
    }
}

/// `output_tokens` or `max_tokens`, which a CSV file has as text.
fn stated_tokens(row: &Row) -> Result<Option<u32>, String> {
    for name in ["output_tokens", "max_tokens"] {
        let number = match row.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::String(text)) => text.trim().parse().ok(),
            Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        let number = number.filter(|&number| number > 0);
        return number.map(Some).ok_or_else(|| format!("`{name}` is not a whole number from 1 to {}", u32::MAX));
    }
    Ok(None)
}

/// Messages of either shape, with the roles that servers know.
fn messages(name: &str, list: &[Value]) -> Result<Vec<Message>, String> {
    #[derive(Deserialize)]
    struct Given {
        #[serde(alias = "from")]
        role: String,
        #[serde(alias = "value")]
        content: Value,
    }
    let message = |(index, value): (usize, &Value)| {
        let wrong = |problem: String| format!("message {} of `{name}`: {problem}", index + 1);
        let given = Given::deserialize(value)
            .map_err(|error| wrong(format!("{error}; it needs `role` and `content`, or `from` and `value`")))?;
        let content = content_of(given.content).ok_or_else(|| wrong("its content is not text".to_owned()))?;
        Ok(Message { role: role_of(given.role), content })
    };
    list.iter().enumerate().map(message).collect()
}

/// A text, or the texts of a list of parts.
fn content_of(content: Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text),
        Value::Null => Some(String::new()),
        Value::Array(parts) => {
            let texts: Option<Vec<&str>> = parts.iter().map(|part| part.get("text")?.as_str()).collect();
            Some(texts?.join("\n"))
        }
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
    }
}

/// ShareGPT has names of its own.
fn role_of(role: String) -> String {
    match role.as_str() {
        "human" => USER.to_owned(),
        "gpt" | "chatgpt" | "bing" | "bard" | "model" => ASSISTANT.to_owned(),
        _ => role,
    }
}

/// The requests; `None` without one of the user's.
fn requests(messages: &[Message], turns: Turns) -> Option<Vec<Turn>> {
    let asks = |message: &Message| message.role == USER && !message.content.trim().is_empty();
    let first = messages.iter().position(asks)?;
    let last = messages.iter().rposition(asks)?;
    let one = |end: usize| {
        let answer = messages.get(end + 1).filter(|next| next.role == ASSISTANT).map(|next| next.content.clone());
        vec![Turn { content: Content::Messages(messages[..=end].to_vec()), answer, output_tokens: None }]
    };
    match turns {
        Turns::First => Some(one(first)),
        Turns::History => Some(one(last)),
        Turns::All => Some(each(&messages[..=last], messages.get(last + 1))),
    }
}

/// A turn for each run of messages that are not the assistant's; what the assistant said first of all belongs to none.
fn each(messages: &[Message], after: Option<&Message>) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    let mut asked = Vec::new();
    for message in messages.iter().chain(after) {
        if message.role != ASSISTANT {
            asked.push(message.clone());
        } else if asked.is_empty() {
            if let Some(answer) = turns.last_mut().and_then(|turn| turn.answer.as_mut()) {
                *answer += &message.content;
            }
        } else {
            let content = Content::Messages(std::mem::take(&mut asked));
            turns.push(Turn { content, answer: Some(message.content.clone()), output_tokens: None });
        }
    }
    if !asked.is_empty() {
        turns.push(Turn { content: Content::Messages(asked), answer: None, output_tokens: None });
    }
    turns
}
