//! Triton's `generate` and `generate_stream`, and the tensors of TensorRT-LLM's ensemble.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Ask, Chunking, Chunks, count_tokens};
use super::openai::event;

pub(super) const INPUTS: [(&str, &str); 7] = [
    ("text_input", "BYTES"),
    ("max_tokens", "INT32"),
    ("min_tokens", "INT32"),
    ("stream", "BOOL"),
    ("temperature", "FP32"),
    ("return_num_input_tokens", "BOOL"),
    ("return_num_output_tokens", "BOOL"),
];

pub(super) const OUTPUTS: [(&str, &str); 3] =
    [("text_output", "BYTES"), ("num_input_tokens", "INT32"), ("num_output_tokens", "INT32")];

pub(super) fn model_metadata(model: &str) -> Value {
    let list = |tensors: &[(&str, &str)]| -> Value {
        tensors.iter().map(|(name, datatype)| json!({"name": name, "datatype": datatype, "shape": [-1, -1]})).collect()
    };
    let (inputs, outputs) = (list(&INPUTS), list(&OUTPUTS));
    json!({"name": model, "versions": ["1"], "platform": "ensemble", "inputs": inputs, "outputs": outputs})
}

/// What comes back: server-sent events, or one JSON object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Route {
    Generate,
    GenerateStream,
}

#[derive(Debug, Deserialize)]
struct Body {
    text_input: Value,
    max_tokens: Option<u32>,
    #[serde(default)]
    stream: bool,
}

/// A request's answer, or a complaint.
pub(super) fn read(route: Route, model: &str, body: &[u8], chunking: Chunking) -> Result<Chunks, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let stream = match route {
        Route::Generate => false,
        Route::GenerateStream => body.stream,
    };
    let ask = Ask::new(count_tokens(&body.text_input), body.max_tokens, stream)?;
    let encode = |tokens, _is_last| {
        let response = json!({
            "model_name": model,
            "model_version": "1",
            "text_output": chunking.text(tokens),
            "num_input_tokens": ask.input_tokens,
            "num_output_tokens": tokens,
        });
        match route {
            Route::Generate => response.to_string().into(),
            Route::GenerateStream => event(&response),
        }
    };
    Ok(Chunks::new(&ask, chunking, encode, Bytes::new()))
}
