//! KServe v2 over gRPC. Messages are framed here, each with five bytes before it: a response is encoded once for a
//! request and written as it is.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response};
use prost::Message;

use super::answer::{Answer, Course, Shard};
use super::ask::{Ask, Chunking, Chunks};
use super::lmdeploy;
use super::routes::Body;
use super::triton_http::{INPUTS, OUTPUTS};
use crate::kserve::infer_parameter::ParameterChoice;
use crate::kserve::model_infer_response::InferOutputTensor;
use crate::kserve::model_metadata_response::TensorMetadata;
use crate::kserve::{
    InferParameter, ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse,
    ModelMetadataRequest, ModelMetadataResponse, ModelReadyResponse, ModelStreamInferResponse, ServerLiveResponse,
    ServerMetadataResponse, ServerReadyResponse,
};
use crate::spec::Protocol;

pub(super) const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Of what an answer over gRPC consists: messages with their frames.
type Messages = BoxStream<'static, Bytes>;

/// Why a call ends: the code and message of gRPC.
struct Status {
    code: u8,
    message: String,
}

const OK: Status = Status { code: 0, message: String::new() };
const INVALID_ARGUMENT: u8 = 3;
const UNIMPLEMENTED: u8 = 12;

/// Answers one call of `method`.
pub(super) async fn call(shard: Arc<Shard>, method: &str, request: Request<Incoming>) -> Response<Body> {
    let mut requests = Box::pin(messages(request.into_body()));
    if method == "ModelStreamInfer" {
        let responses = requests.flat_map_unordered(None, move |message| stream_infer(&shard, message));
        return respond(responses.boxed(), &OK);
    }
    let request = requests.next().await.unwrap_or_default();
    match unary(&shard, method, request).await {
        Ok(message) => respond(stream::iter([message]).boxed(), &OK),
        Err(status) => respond(stream::empty().boxed(), &status),
    }
}

async fn unary(shard: &Arc<Shard>, method: &str, request: Bytes) -> Result<Bytes, Status> {
    match method {
        "ServerLive" => Ok(framed(&ServerLiveResponse { live: true })),
        "ServerReady" => Ok(framed(&ServerReadyResponse { ready: true })),
        "ModelReady" => Ok(framed(&ModelReadyResponse { ready: true })),
        "ServerMetadata" => Ok(framed(&ServerMetadataResponse {
            name: "benchrun-null".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: Vec::new(),
        })),
        "ModelMetadata" => Ok(framed(&model_metadata(decode::<ModelMetadataRequest>(request)?.name))),
        "ModelConfig" => {
            let config = lmdeploy::config(decode::<ModelConfigRequest>(request)?.name);
            Ok(framed(&ModelConfigResponse { config: Some(config) }))
        }
        "ModelInfer" => infer(shard, &decode(request)?).await,
        _ => Err(Status { code: UNIMPLEMENTED, message: format!("no method {method}") }),
    }
}

async fn infer(shard: &Arc<Shard>, request: &ModelInferRequest) -> Result<Bytes, Status> {
    let refused = |message| Status { code: INVALID_ARGUMENT, message };
    match request.model_name.as_str() {
        lmdeploy::PREPROCESSING => Ok(framed(&lmdeploy::preprocess(request).map_err(refused)?)),
        lmdeploy::POSTPROCESSING => Ok(framed(&lmdeploy::postprocess(request, shard.chunking).map_err(refused)?)),
        _ => {
            let course = Course::start(shard, Protocol::TritonGrpc, request.id.clone());
            let ask = Ask { stream: false, ..read(request).map_err(refused)? };
            let encode = |tokens, _is_last| framed(&response(request, shard.chunking, &ask, tokens, true));
            let chunks = Chunks::new(&ask, shard.chunking, encode, Bytes::new());
            Ok(Answer::new(course, chunks).next().await.unwrap_or_default())
        }
    }
}

/// All responses to one request of a stream. An error is a message and ends only its request.
fn stream_infer(shard: &Arc<Shard>, message: Bytes) -> Messages {
    let request = match ModelInferRequest::decode(message) {
        Ok(request) => request,
        Err(error) => return failure(error.to_string()),
    };
    let for_turbomind = request.model_name == lmdeploy::TURBOMIND;
    let protocol = if for_turbomind { Protocol::LmdeployTriton } else { Protocol::TritonGrpc };
    let course = Course::start(shard, protocol, request.id.clone());
    let chunks = if for_turbomind { ids(request, shard.chunking) } else { texts(&request, shard.chunking) };
    chunks.map_or_else(failure, |chunks| Answer::new(course, chunks).boxed())
}

/// `Err` is a complaint.
fn texts(request: &ModelInferRequest, chunking: Chunking) -> Result<Chunks, String> {
    let ask = read(request)?;
    let empty_final = flag(request, "triton_enable_empty_final_response");
    let encode = |tokens, is_last| framed(&success(response(request, chunking, &ask, tokens, is_last && !empty_final)));
    let tail = if empty_final { framed(&success(envelope(request, true))) } else { Bytes::new() };
    Ok(Chunks::new(&ask, chunking, encode, tail))
}

/// `Err` is a complaint.
fn ids(request: ModelInferRequest, chunking: Chunking) -> Result<Chunks, String> {
    let ask = lmdeploy::read(&request)?;
    Ok(Chunks::growing(ask.output_tokens, chunking, move |tokens| {
        framed(&success(lmdeploy::so_far(&request, &ask, tokens)))
    }))
}

/// `Err` is a complaint.
fn read(request: &ModelInferRequest) -> Result<Ask, String> {
    let input = |name: &str| {
        let index = request.inputs.iter().position(|input| input.name == name)?;
        Some((request.raw_input_contents.get(index), request.inputs[index].contents.as_ref()))
    };
    let text = match input("text_input").ok_or("input `text_input` is missing")? {
        (Some(raw), _) => raw.get(4..),
        (None, contents) => contents.and_then(|contents| contents.bytes_contents.first()).map(|text| &text[..]),
    };
    let max_tokens = input("max_tokens").and_then(|(raw, contents)| match raw {
        Some(raw) => raw.first_chunk().map(|bytes| i32::from_le_bytes(*bytes)),
        None => contents?.int_contents.first().copied(),
    });
    let stream = input("stream").and_then(|(raw, contents)| match raw {
        Some(raw) => raw.first().map(|byte| *byte != 0),
        None => contents?.bool_contents.first().copied(),
    });
    let words = String::from_utf8_lossy(text.ok_or("input `text_input` is empty")?).split_whitespace().count();
    let max_tokens = max_tokens.map(|tokens| u32::try_from(tokens).unwrap_or(0));
    Ask::new(words, max_tokens, stream.unwrap_or(false))
}

fn flag(request: &ModelInferRequest, name: &str) -> bool {
    let choice = request.parameters.get(name).and_then(|parameter| parameter.parameter_choice.as_ref());
    choice == Some(&ParameterChoice::BoolParam(true))
}

/// A response with `tokens` tokens and their counts.
fn response(
    request: &ModelInferRequest,
    chunking: Chunking,
    ask: &Ask,
    tokens: u32,
    is_final: bool,
) -> ModelInferResponse {
    let mut response = envelope(request, is_final);
    let text = chunking.text(tokens);
    let mut element = BytesMut::with_capacity(4 + text.len());
    element.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
    element.put_slice(text.as_bytes());
    let count = |tokens: usize| Bytes::copy_from_slice(&u32::try_from(tokens).unwrap_or(u32::MAX).to_le_bytes());
    let contents = [element.freeze(), count(ask.input_tokens), count(tokens as usize)];
    for ((name, datatype), raw) in OUTPUTS.into_iter().zip(contents) {
        if request.outputs.is_empty() || request.outputs.iter().any(|asked| asked.name == name) {
            response.outputs.push(InferOutputTensor {
                name: name.to_owned(),
                datatype: datatype.to_owned(),
                shape: vec![1, 1],
                ..InferOutputTensor::default()
            });
            response.raw_output_contents.push(raw);
        }
    }
    response
}

/// A response without a tensor.
fn envelope(request: &ModelInferRequest, is_final: bool) -> ModelInferResponse {
    let is_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(is_final)) };
    ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: "1".to_owned(),
        id: request.id.clone(),
        parameters: [("triton_final_response".to_owned(), is_final)].into(),
        ..ModelInferResponse::default()
    }
}

fn success(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failure(error_message: String) -> Messages {
    let message = framed(&ModelStreamInferResponse { error_message, infer_response: None });
    stream::iter([message]).boxed()
}

fn model_metadata(name: String) -> ModelMetadataResponse {
    let tensor = |(name, datatype): (&str, &str)| TensorMetadata {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![-1, -1],
    };
    ModelMetadataResponse {
        name,
        versions: vec!["1".to_owned()],
        platform: "ensemble".to_owned(),
        inputs: INPUTS.into_iter().map(tensor).collect(),
        outputs: OUTPUTS.into_iter().map(tensor).collect(),
    }
}

fn decode<T: Message + Default>(message: Bytes) -> Result<T, Status> {
    T::decode(message).map_err(|error| Status { code: INVALID_ARGUMENT, message: error.to_string() })
}

/// A message with its frame: not compressed, and its length.
fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).expect("an answer's tokens are limited"));
    message.encode(&mut frame).expect("a growing buffer has room");
    frame.freeze()
}

/// The messages of a call's body, until it ends or breaks.
fn messages(body: Incoming) -> impl Stream<Item = Bytes> {
    stream::unfold((body, BytesMut::new()), async |(mut body, mut buffer)| {
        loop {
            if let Some(length) = buffer.get(1..5).and_then(|length| length.first_chunk()) {
                let end = 5 + u32::from_be_bytes(*length) as usize;
                if buffer.len() >= end {
                    let mut message = buffer.split_to(end).freeze();
                    message.advance(5);
                    return Some((message, (body, buffer)));
                }
            }
            let frame = body.frame().await?.ok()?;
            buffer.extend_from_slice(&frame.into_data().ok()?);
        }
    })
}

fn respond(messages: Messages, status: &Status) -> Response<Body> {
    let trailers = HeaderMap::from_iter([
        (HeaderName::from_static("grpc-status"), HeaderValue::from(u16::from(status.code))),
        (
            HeaderName::from_static("grpc-message"),
            HeaderValue::from_str(&status.message).unwrap_or(HeaderValue::from_static("")),
        ),
    ]);
    let frames = messages.map(Frame::data).chain(stream::iter([Frame::trailers(trailers)]));
    let mut response = Response::new(StreamBody::new(frames.map(Ok::<_, Infallible>)).boxed_unsync());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
