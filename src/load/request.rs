use bytes::Bytes;
use serde::Serialize;

use super::prompts::Prompt;
use super::triton_request::Tensors;
use crate::spec::{LoadPoint, OutputMode, Protocol};

/// Turns prompts into the bytes to send.
#[derive(Debug)]
pub(super) enum Requests {
    OpenaiCompletions,
    OpenaiChat,
    TritonGrpc(Tensors),
    TritonHttp(Tensors),
}

impl Requests {
    /// A JSON body, or a gRPC message without its frame.
    pub(super) fn encode(&self, model: &str, point: &LoadPoint, prompt: &Prompt, request: u64) -> Bytes {
        match self {
            Self::OpenaiCompletions | Self::OpenaiChat => openai(model, point, prompt),
            Self::TritonGrpc(tensors) => tensors.message(model, point, prompt, request),
            Self::TritonHttp(tensors) => tensors.json(point, prompt),
        }
    }
}

/// The path of a generating request, after the address's own.
pub(super) fn path(protocol: Protocol, model: &str) -> String {
    match protocol {
        Protocol::OpenaiCompletions => "/v1/completions".to_owned(),
        Protocol::OpenaiChat => "/v1/chat/completions".to_owned(),
        Protocol::TritonGrpc => "/inference.GRPCInferenceService/ModelStreamInfer".to_owned(),
        Protocol::TritonGenerate => format!("/v2/models/{model}/generate"),
        Protocol::TritonGenerateStream => format!("/v2/models/{model}/generate_stream"),
    }
}

/// Whether tokens come as they are made.
pub(super) fn streams(point: &LoadPoint) -> bool {
    point.streaming && point.protocol != Protocol::TritonGenerate
}

fn openai(model: &str, point: &LoadPoint, prompt: &Prompt) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        messages: Option<[Message<'a>; 1]>,
        max_tokens: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        min_tokens: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ignore_eos: Option<bool>,
        stream: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        stream_options: Option<StreamOptions>,
        temperature: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        top_p: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        top_k: Option<u32>,
        seed: u64,
    }
    #[derive(Serialize)]
    struct Message<'a> {
        role: &'a str,
        content: &'a str,
    }
    #[derive(Serialize)]
    struct StreamOptions {
        include_usage: bool,
    }
    let chat = point.protocol == Protocol::OpenaiChat;
    let exact = point.output.mode == OutputMode::Exact;
    let body = Body {
        model,
        prompt: (!chat).then_some(&prompt.text),
        messages: chat.then_some([Message { role: "user", content: &prompt.text }]),
        max_tokens: point.output.tokens,
        min_tokens: exact.then_some(point.output.tokens),
        ignore_eos: exact.then_some(true),
        stream: point.streaming,
        stream_options: point.streaming.then_some(StreamOptions { include_usage: true }),
        temperature: point.sampling.temperature,
        top_p: point.sampling.top_p,
        top_k: point.sampling.top_k,
        // Servers read a signed number.
        seed: point.sampling_seed & (u64::MAX >> 1),
    };
    serde_json::to_vec(&body).expect("text and numbers always serialise").into()
}
