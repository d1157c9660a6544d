use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

use super::lmdeploy::Chatbot;
use super::triton_request::Tensors;
use super::{LoadError, method_body};
use crate::spec::{LoadPoint, OutputMode, Protocol};
use crate::workload::{Content, Message};

/// What one request asks for: a conversation so far, and how many tokens to add to it.
#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) content: Cow<'a, Content>,
    pub(super) output_tokens: u32,
    /// The closed-loop worker that asks.
    pub(super) worker: u32,
}

/// Turns prompts into the bytes to send.
#[derive(Debug)]
pub(super) enum Requests {
    OpenaiCompletions,
    OpenaiChat,
    TritonGrpc(Tensors),
    TritonHttp(Tensors),
    LmdeployTriton(Chatbot),
}

impl Requests {
    /// Whether the load point can be asked for. A length that the server would not keep is refused, and not measured.
    pub(super) fn check(&self, model: &str, point: &LoadPoint) -> Result<(), LoadError> {
        match self {
            Self::TritonGrpc(tensors) | Self::TritonHttp(tensors)
                if point.output.mode == OutputMode::Exact && !tensors.take_a_least_length() =>
            {
                Err(LoadError::NoExactLength { model: model.to_owned() })
            }
            Self::TritonGrpc(tensors) | Self::TritonHttp(tensors)
                if point.beam_width > 1 && !tensors.take_a_beam_width() =>
            {
                Err(LoadError::NoBeams { model: model.to_owned(), beams: point.beam_width })
            }
            Self::OpenaiCompletions
            | Self::OpenaiChat
            | Self::TritonGrpc(_)
            | Self::TritonHttp(_)
            | Self::LmdeployTriton(_) => Ok(()),
        }
    }

    /// A JSON body, a gRPC message without its frame, or a call of LMDeploy's models.
    pub(super) fn encode(&self, model: &str, point: &LoadPoint, ask: &Ask<'_>, request: u64) -> Bytes {
        match self {
            Self::OpenaiCompletions | Self::OpenaiChat => {
                method_body::body(model, point, ask).unwrap_or_else(|| openai(model, point, ask))
            }
            Self::TritonGrpc(tensors) => tensors.message(model, point, ask, request),
            Self::TritonHttp(tensors) => tensors.json(point, ask),
            Self::LmdeployTriton(chatbot) => chatbot.call(point, ask, request),
        }
    }
}

/// The path of a generating request, after the address's own.
pub(super) fn path(protocol: Protocol, model: &str) -> String {
    match protocol {
        Protocol::OpenaiCompletions => "/v1/completions".to_owned(),
        Protocol::OpenaiChat => "/v1/chat/completions".to_owned(),
        Protocol::TritonGrpc | Protocol::LmdeployTriton => {
            "/inference.GRPCInferenceService/ModelStreamInfer".to_owned()
        }
        Protocol::TritonGenerate => format!("/v2/models/{model}/generate"),
        Protocol::TritonGenerateStream => format!("/v2/models/{model}/generate_stream"),
        Protocol::InProcess => "/generate".to_owned(),
    }
}

fn openai(model: &str, point: &LoadPoint, ask: &Ask<'_>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        prompt: Option<Given<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        messages: Option<Cow<'a, [Message]>>,
        /// What LMDeploy's server takes where there are no messages.
        #[serde(skip_serializing_if = "Option::is_none")]
        input_ids: Option<&'a [u32]>,
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
    #[serde(untagged)]
    enum Given<'a> {
        Text(Cow<'a, str>),
        Tokens(&'a [u32]),
    }
    #[derive(Serialize)]
    struct StreamOptions {
        include_usage: bool,
    }
    let ids = match &*ask.content {
        Content::Tokens(ids) => Some(ids.as_slice()),
        Content::Text(_) | Content::Messages(_) => None,
    };
    let chat = point.protocol == Protocol::OpenaiChat;
    let exact = point.output.mode == OutputMode::Exact;
    let body = Body {
        model,
        prompt: (!chat).then(|| ids.map_or_else(|| Given::Text(ask.content.text()), Given::Tokens)),
        messages: chat.then(|| if ids.is_some() { Cow::Borrowed(&[][..]) } else { ask.content.messages() }),
        input_ids: ids.filter(|_| chat),
        max_tokens: ask.output_tokens,
        min_tokens: exact.then_some(ask.output_tokens),
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
