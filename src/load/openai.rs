//! Answers of OpenAI's completions and chat routes.

use serde::Deserialize;
use serde_json::Value;

use super::answer::{Answer, json_message, shorten};
use super::exchange::Arrivals;
use super::json_text::JsonText;
use super::sse;
use crate::record::TokenSource;

/// Each event is to have what is new. A server that sends all the text so far shows it after two events; a line break
/// that is followed by two has grown only once.
const LEAST_GROWTH: usize = 2;

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
    error: Option<Value>,
    /// `error` in the flat error objects of older servers.
    object: Option<String>,
    message: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    text: Option<JsonText>,
    delta: Option<Message>,
    message: Option<Message>,
    finish_reason: Option<String>,
}

/// Reasoning is text that a user waits for and pays for, under either of its names.
#[derive(Deserialize)]
struct Message {
    content: Option<JsonText>,
    reasoning: Option<JsonText>,
    reasoning_content: Option<JsonText>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
}

/// Reads a stream of events, which ends with `[DONE]`.
pub(super) fn read_stream(body: &Arrivals) -> Answer {
    let mut answer = Answer::default();
    let found = sse::events(body);
    let mut texts = Vec::with_capacity(found.events.len());
    let mut done = false;
    for event in &found.events {
        answer.first_response_ns.get_or_insert(event.at_ns);
        if event.data.trim_ascii() == b"[DONE]" {
            done = true;
        } else {
            texts.push((event.at_ns, read_json(&mut answer, &event.data)));
        }
    }
    if found.events.is_empty() && found.torn {
        // Some servers answer with a plain JSON object when they cannot stream.
        texts.push((0, read_json(&mut answer, &body.bytes)));
    }
    answer.add_texts(&texts, LEAST_GROWTH);
    if !done {
        answer.fail("stream", "the stream ended without `[DONE]`".to_owned());
    }
    answer
}

/// Reads an answer that came as one JSON object.
pub(super) fn read_body(body: &Arrivals, end_ns: u64) -> Answer {
    let mut answer = Answer { first_response_ns: body.marks.first().map(|first| first.at_ns), ..Answer::default() };
    let text = read_json(&mut answer, &body.bytes);
    answer.add_text(end_ns, &text);
    answer
}

/// Takes in one object, and gives its text.
fn read_json(answer: &mut Answer, json: &[u8]) -> Vec<u8> {
    let chunk: Chunk = match serde_json::from_slice(json) {
        Ok(chunk) => chunk,
        Err(error) => {
            answer.fail("parse", format!("{error} in {}", shorten(&String::from_utf8_lossy(json))));
            return Vec::new();
        }
    };
    if let Some(error) = chunk.error {
        answer.fail("server", shorten(&json_message(&error).unwrap_or_else(|| error.to_string())));
    } else if chunk.object.as_deref() == Some("error") {
        answer.fail("server", shorten(&chunk.message.as_ref().and_then(json_message).unwrap_or_default()));
    }
    if let Some(usage) = chunk.usage {
        answer.input_tokens = usage.prompt_tokens.or(answer.input_tokens);
        if let Some(tokens) = usage.completion_tokens {
            answer.output_tokens = Some((tokens, TokenSource::ServerUsage));
        }
    }
    let mut text = Vec::new();
    for choice in chunk.choices.into_iter().flatten() {
        let message = choice.delta.or(choice.message);
        let parts = message.map(|message| [message.reasoning.or(message.reasoning_content), message.content]);
        for JsonText(part) in choice.text.into_iter().chain(parts.into_iter().flatten().flatten()) {
            text.extend(part);
        }
        answer.finish_reason = choice.finish_reason.or(answer.finish_reason.take());
    }
    text
}
