//! OpenAI's completions and chat, streamed and not.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, Chunking, Chunks, count_tokens};

#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Completions,
    Chat,
}

/// A request, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    model: String,
    #[serde(default)]
    prompt: Value,
    #[serde(default)]
    messages: Value,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// What a request asks for and its answer, or a complaint.
pub(super) fn read(route: Route, body: &[u8], chunking: Chunking) -> Result<(Ask, Chunks), String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let prompt = match route {
        Route::Completions => &body.prompt,
        Route::Chat => &body.messages,
    };
    let ask = Ask::new(count_tokens(prompt), body.max_completion_tokens.or(body.max_tokens), body.stream)?;
    let usage = usage(&ask);
    let object = |choices: &Value, usage| object(route, ask.stream, &body.model, choices, usage);
    let encode = |tokens, is_last: bool| {
        let choices = json!([choice(route, ask.stream, &chunking.text(tokens), is_last)]);
        if ask.stream { event(&object(&choices, None)) } else { object(&choices, Some(&usage)).to_string().into() }
    };
    let with_usage = body.stream_options.as_ref().is_some_and(|options| options.include_usage);
    let mut tail = Vec::new();
    if ask.stream {
        if with_usage {
            tail.extend(event(&object(&json!([]), Some(&usage))));
        }
        tail.extend(b"data: [DONE]\n\n");
    }
    let chunks = Chunks::new(&ask, chunking, encode, tail.into());
    Ok((ask, chunks))
}

fn object(route: Route, stream: bool, model: &str, choices: &Value, usage: Option<&Value>) -> Value {
    let kind = match (route, stream) {
        (Route::Completions, _) => "text_completion",
        (Route::Chat, true) => "chat.completion.chunk",
        (Route::Chat, false) => "chat.completion",
    };
    let mut object = json!({"id": "null", "object": kind, "created": 0, "model": model, "choices": choices});
    if let Some(usage) = usage {
        object["usage"] = usage.clone();
    }
    object
}

/// In a stream of chat messages the role is in every chunk, as some servers have it: none is without text.
fn choice(route: Route, stream: bool, text: &str, is_last: bool) -> Value {
    let finish_reason = is_last.then_some("length");
    let mut choice = json!({"index": 0, "logprobs": null, "finish_reason": finish_reason});
    match (route, stream) {
        (Route::Completions, _) => choice["text"] = text.into(),
        (Route::Chat, true) => choice["delta"] = json!({"role": "assistant", "content": text}),
        (Route::Chat, false) => choice["message"] = json!({"role": "assistant", "content": text}),
    }
    choice
}

fn usage(ask: &Ask) -> Value {
    let (input, output) = (ask.input_tokens as u64, u64::from(ask.output_tokens));
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

/// A server-sent event.
pub(super) fn event(json: &Value) -> Bytes {
    format!("data: {json}\n\n").into()
}
