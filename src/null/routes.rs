use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::answer::{Answer, Course, Shard};
use super::{openai, triton_grpc, triton_http};
use crate::spec::Protocol;

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;

/// Answers one request of any protocol.
pub(super) async fn respond(shard: Arc<Shard>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(if let Some(method) = path.strip_prefix(triton_grpc::SERVICE) {
        triton_grpc::call(shard, method, request).await
    } else if request.method() == Method::POST {
        generate(shard, &path, request).await.unwrap_or_else(|complaint| {
            document(StatusCode::BAD_REQUEST, json!({"error": {"message": complaint}}).to_string().into())
        })
    } else {
        describe(&path)
    })
}

/// `Err` is a complaint.
async fn generate(shard: Arc<Shard>, path: &str, request: Request<Incoming>) -> Result<Response<Body>, String> {
    let id = request_id(request.headers());
    let body = request.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let start = |protocol| Course::start(&shard, protocol, id);
    let segments: Vec<&str> = path.split('/').collect();
    let (course, streams, chunks) = match segments[..] {
        ["", "v1", "completions"] => {
            let course = start(Protocol::OpenaiCompletions);
            let (ask, chunks) = openai::read(openai::Route::Completions, &body, shard.chunking)?;
            (course, ask.stream, chunks)
        }
        ["", "v1", "chat", "completions"] => {
            let course = start(Protocol::OpenaiChat);
            let (ask, chunks) = openai::read(openai::Route::Chat, &body, shard.chunking)?;
            (course, ask.stream, chunks)
        }
        ["", "v2", "models", model, "generate"] => {
            let course = start(Protocol::TritonGenerate);
            (course, false, triton_http::read(triton_http::Route::Generate, model, &body, shard.chunking)?)
        }
        ["", "v2", "models", model, "generate_stream"] => {
            let course = start(Protocol::TritonGenerateStream);
            (course, true, triton_http::read(triton_http::Route::GenerateStream, model, &body, shard.chunking)?)
        }
        _ => return Ok(unknown()),
    };
    let mut answer = Answer::new(course, chunks);
    if !streams {
        return Ok(document(StatusCode::OK, answer.next().await.unwrap_or_default()));
    }
    let events = StreamBody::new(answer.map(|chunk| Ok(Frame::data(chunk))));
    Ok(with_type("text/event-stream", events.boxed_unsync()))
}

fn request_id(headers: &HeaderMap) -> String {
    headers.get("x-request-id").and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned()
}

/// What there is besides answers: that the server is ready, and which model it has. It takes any model's name.
fn describe(path: &str) -> Response<Body> {
    let segments: Vec<&str> = path.split('/').collect();
    let json: Value = match segments[..] {
        ["", "health"] | ["", "v2", "health", "live" | "ready"] | ["", "v2", "models", _, "ready"] => json!({}),
        ["", "v1", "models"] => json!({"object": "list", "data": [{"id": "null", "object": "model"}]}),
        ["", "v2"] => json!({"name": "benchrun-null", "version": env!("CARGO_PKG_VERSION"), "extensions": []}),
        ["", "v2", "models", model] => triton_http::model_metadata(model),
        _ => return unknown(),
    };
    document(StatusCode::OK, json.to_string().into())
}

fn unknown() -> Response<Body> {
    document(StatusCode::NOT_FOUND, json!({"error": {"message": "no such path"}}).to_string().into())
}

fn document(status: StatusCode, json: Bytes) -> Response<Body> {
    let mut response = with_type("application/json", Full::new(json).boxed_unsync());
    *response.status_mut() = status;
    response
}

fn with_type(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
