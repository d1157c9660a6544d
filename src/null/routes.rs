use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::answer::{Answer, Course, Shard};
use super::{openai, triton_http};
use crate::spec::Protocol;

/// A request over HTTP/1.1.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// The client's name for it; may be empty.
    pub(super) id: String,
    pub(super) body: &'a [u8],
}

/// What a request gets.
pub(super) enum Reply {
    Document { status: &'static str, json: Bytes },
    Events(Answer),
}

const OK: &str = "200 OK";

/// Answers a request once there is something to send: a whole answer when it is due, events from the first on.
pub(super) async fn respond(shard: &Arc<Shard>, request: Request<'_>) -> Reply {
    let segments: Vec<&str> = request.path.split('/').collect();
    if request.method != "POST" {
        return describe(&segments);
    }
    match generate(shard, &segments, request).await {
        Ok(reply) => reply,
        Err(complaint) => document("400 Bad Request", &json!({"error": {"message": complaint}})),
    }
}

/// `Err` is a complaint.
async fn generate(shard: &Arc<Shard>, segments: &[&str], request: Request<'_>) -> Result<Reply, String> {
    let Request { id, body, .. } = request;
    let start = |protocol| Course::start(shard, protocol, id);
    let (course, streams, chunks) = match segments {
        ["", "v1", "completions"] => {
            let course = start(Protocol::OpenaiCompletions);
            let (ask, chunks) = openai::read(openai::Route::Completions, body, shard.chunking)?;
            (course, ask.stream, chunks)
        }
        ["", "v1", "chat", "completions"] => {
            let course = start(Protocol::OpenaiChat);
            let (ask, chunks) = openai::read(openai::Route::Chat, body, shard.chunking)?;
            (course, ask.stream, chunks)
        }
        ["", "v2", "models", model, "generate"] => {
            let course = start(Protocol::TritonGenerate);
            (course, false, triton_http::read(triton_http::Route::Generate, model, body, shard.chunking)?)
        }
        ["", "v2", "models", model, "generate_stream"] => {
            let course = start(Protocol::TritonGenerateStream);
            (course, true, triton_http::read(triton_http::Route::GenerateStream, model, body, shard.chunking)?)
        }
        _ => return Ok(unknown()),
    };
    let mut answer = Answer::new(course, chunks);
    if streams {
        return Ok(Reply::Events(answer));
    }
    Ok(Reply::Document { status: OK, json: answer.next().await.unwrap_or_default() })
}

/// What there is besides answers: that the server is ready, and which model it has. It takes any model's name.
fn describe(segments: &[&str]) -> Reply {
    let json: Value = match segments {
        ["", "health"] | ["", "v2", "health", "live" | "ready"] | ["", "v2", "models", _, "ready"] => json!({}),
        ["", "v1", "models"] => json!({"object": "list", "data": [{"id": "null", "object": "model"}]}),
        ["", "v2"] => json!({"name": "benchrun-null", "version": env!("CARGO_PKG_VERSION"), "extensions": []}),
        ["", "v2", "models", model] => triton_http::model_metadata(model),
        _ => return unknown(),
    };
    document(OK, &json)
}

fn unknown() -> Reply {
    document("404 Not Found", &json!({"error": {"message": "no such path"}}))
}

fn document(status: &'static str, json: &Value) -> Reply {
    Reply::Document { status, json: json.to_string().into() }
}
