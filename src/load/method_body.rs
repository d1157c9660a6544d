//! Bodies of the requests of published methods: the fields of the script's own, in its order.

use bytes::Bytes;
use serde_json::{Value, json};

use super::request::Ask;
use crate::spec::{LoadPoint, Method, OutputMode};

/// The body that the script of the point's method sends; `None` where that is not over HTTP, or there is no method.
pub(super) fn body(model: &str, point: &LoadPoint, ask: &Ask<'_>) -> Option<Bytes> {
    let body = match point.method? {
        Method::Api | Method::ApiA1 => chat_v0_1_0(model, point, ask),
        Method::Serving => completions_v0_16_0(model, point, ask),
        Method::Tis | Method::TisA1 | Method::Static | Method::StaticA1 | Method::Throughput => return None,
    };
    Some(body.to_string().into())
}

/// `APIClient.chat_completions_v1`. Messages that are a string are completed as they are, without a chat template.
fn chat_v0_1_0(model: &str, point: &LoadPoint, ask: &Ask<'_>) -> Value {
    json!({
        "model": model,
        "messages": ask.content.text(),
        "temperature": point.sampling.temperature,
        "top_p": point.sampling.top_p,
        "n": 1,
        "max_tokens": ask.output_tokens,
        "stop": false,
        "stream": point.streaming,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "user": null,
        "repetition_penalty": 1.0,
        "session_id": ask.worker,
        "ignore_eos": true,
        "kwargs": {},
    })
}

/// `async_request_openai_completions`
fn completions_v0_16_0(model: &str, point: &LoadPoint, ask: &Ask<'_>) -> Value {
    json!({
        "model": model,
        "prompt": ask.content.text(),
        "temperature": point.sampling.temperature,
        "best_of": 1,
        "max_tokens": ask.output_tokens,
        "stream": point.streaming,
        "ignore_eos": point.output.mode == OutputMode::Exact,
    })
}
