//! The OpenAI HTTP protocol: completions and chat, streamed and whole.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::engine::sample::Sampling;
use crate::engine::scheduler::{Chunk, Finish};
use crate::engine::service::{Answer, Ask, CUT_OFF, End, Prompt, Refusal, Service};

/// Tokens of a completion that names no limit, as OpenAI has it.
const DEFAULT_COMPLETION_TOKENS: usize = 16;

pub(crate) fn routes() -> axum::Router<Arc<Service>> {
    axum::Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat_completions))
        .route("/v1/models", get(models))
}

/// The body of both routes; what the engine does not know is ignored, as other servers do.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    model: Option<String>,
    prompt: Value,
    messages: Value,
    max_tokens: Option<usize>,
    max_completion_tokens: Option<usize>,
    min_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    /// -1 and 0 are no limit.
    top_k: Option<i64>,
    seed: Option<i64>,
    stop: Value,
    ignore_eos: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    n: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Route {
    Completions,
    Chat,
}

/// An answer with OpenAI's error object.
struct Failure {
    status: StatusCode,
    message: String,
}

async fn completions(State(service): State<Arc<Service>>, body: Bytes) -> Result<Response, Failure> {
    answer(&service, Route::Completions, &body).await
}

async fn chat_completions(State(service): State<Arc<Service>>, body: Bytes) -> Result<Response, Failure> {
    answer(&service, Route::Chat, &body).await
}

async fn models(State(service): State<Arc<Service>>) -> Json<Value> {
    let max_model_len = service.loaded().ok().map(|loaded| loaded.max_seq_len);
    let model = json!({
        "id": service.model_name, "object": "model", "created": 0, "owned_by": "benchrun", "max_model_len": max_model_len,
    });
    Json(json!({"object": "list", "data": [model]}))
}

async fn answer(service: &Arc<Service>, route: Route, body: &[u8]) -> Result<Response, Failure> {
    let body: Body = serde_json::from_slice(body).map_err(|error| Failure::invalid(format!("the body: {error}")))?;
    if let Some(model) = body.model.as_ref().filter(|model| **model != service.model_name) {
        let message = format!("the model `{model}` does not exist (served: `{}`)", service.model_name);
        return Err(Failure { status: StatusCode::NOT_FOUND, message });
    }
    let ask = body.ask(route, service)?;
    let answer = service.ask(ask).await?;
    let head = Head::new(route, service);
    if body.stream == Some(true) {
        let with_usage = body.stream_options.and_then(|options| options.include_usage) == Some(true);
        return Ok(stream_answer(head, with_usage, answer));
    }
    let prompt_tokens = answer.prompt_tokens;
    let whole = answer.whole().await.map_err(Failure::internal)?;
    let usage = usage(prompt_tokens, whole.tokens);
    let content = match route {
        Route::Completions => json!({"text": whole.text}),
        Route::Chat => json!({"message": {"role": "assistant", "content": whole.text}}),
    };
    Ok(Json(head.object(head.whole_kind(), &[choice(content, Some(whole.finish))], Some(usage))).into_response())
}

impl Body {
    fn ask(&self, route: Route, service: &Service) -> Result<Ask, Failure> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(Failure::invalid("only `n` 1 is supported"));
        }
        let (prompt, default_tokens) = match route {
            Route::Completions => (completion_prompt(&self.prompt)?, Some(DEFAULT_COMPLETION_TOKENS)),
            // As LMDeploy has it: messages that are one text are completed as they are.
            Route::Chat if self.messages.is_string() => (completion_prompt(&self.messages)?, None),
            Route::Chat => {
                let text = service.loaded()?.chat.render(&self.messages).map_err(Failure::invalid)?;
                (Prompt::Templated(text), None)
            }
        };
        Ok(Ask {
            prompt,
            max_tokens: self.max_completion_tokens.or(self.max_tokens).or(default_tokens),
            min_tokens: self.min_tokens.unwrap_or(0),
            sampling: self.sampling()?,
            end: if self.ignore_eos == Some(true) { End::Never } else { End::Model },
            stop: stop_strings(&self.stop)?,
        })
    }

    fn sampling(&self) -> Result<Sampling, Failure> {
        let temperature = self.temperature.unwrap_or(1.0);
        let top_p = self.top_p.unwrap_or(1.0);
        if !(0.0..=100.0).contains(&temperature) {
            return Err(Failure::invalid(format!("`temperature` {temperature} is not between 0 and 100")));
        }
        if !(0.0..=1.0).contains(&top_p) {
            return Err(Failure::invalid(format!("`top_p` {top_p} is not between 0 and 1")));
        }
        let top_k = usize::try_from(self.top_k.unwrap_or(0).max(0)).unwrap_or(0);
        let seed = self.seed.map_or_else(rand::random, i64::cast_unsigned);
        Ok(Sampling { temperature, top_k, top_p, seed })
    }
}

fn completion_prompt(prompt: &Value) -> Result<Prompt, Failure> {
    let wrong = || Failure::invalid("`prompt` is neither one text nor one list of token ids");
    match prompt {
        Value::String(text) => Ok(Prompt::Text(text.clone())),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => Ok(Prompt::Text(text.clone())),
            [inner @ Value::Array(_)] => completion_prompt(inner),
            ids => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
                ids.iter().map(id).collect::<Option<_>>().map(Prompt::Tokens).ok_or_else(wrong)
            }
        },
        _ => Err(wrong()),
    }
}

fn stop_strings(stop: &Value) -> Result<Vec<String>, Failure> {
    let strings = match stop {
        // LMDeploy's client of 2023 sends `false`.
        Value::Null | Value::Bool(false) => Some(Vec::new()),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => None,
    };
    strings.ok_or_else(|| Failure::invalid("`stop` is neither a text nor a list of texts"))
}

/// What all chunks of an answer have in common.
struct Head {
    route: Route,
    id: String,
    created: u64,
    model: String,
}

impl Head {
    fn new(route: Route, service: &Service) -> Self {
        let prefix = match route {
            Route::Completions => "cmpl",
            Route::Chat => "chatcmpl",
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { route, id: format!("{prefix}-{}", service.next_id()), created, model: service.model_name.clone() }
    }

    fn whole_kind(&self) -> &'static str {
        match self.route {
            Route::Completions => "text_completion",
            Route::Chat => "chat.completion",
        }
    }

    fn chunk_kind(&self) -> &'static str {
        match self.route {
            Route::Completions => "text_completion",
            Route::Chat => "chat.completion.chunk",
        }
    }

    fn object(&self, kind: &str, choices: &[Value], usage: Option<Value>) -> Value {
        let mut object = json!({
            "id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices,
        });
        if let Some(usage) = usage {
            object["usage"] = usage;
        }
        object
    }
}

fn choice(content: Value, finish: Option<Finish>) -> Value {
    let mut choice = content;
    choice["index"] = 0.into();
    choice["logprobs"] = Value::Null;
    choice["finish_reason"] = finish.map_or(Value::Null, |finish| finish_reason(finish).into());
    choice
}

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "stop",
        Finish::Length => "length",
    }
}

fn usage(prompt_tokens: usize, completion_tokens: usize) -> Value {
    json!({
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    })
}

/// An answer as server-sent events: one for each token, then the usage if asked for, then `[DONE]`.
struct ChunkEvents {
    head: Head,
    with_usage: bool,
    prompt_tokens: usize,
    tokens: usize,
    ended: bool,
}

fn stream_answer(head: Head, with_usage: bool, answer: Answer) -> Response {
    let mut events = ChunkEvents { head, with_usage, prompt_tokens: answer.prompt_tokens, tokens: 0, ended: false };
    let first = stream::iter(events.first());
    let chunks = UnboundedReceiverStream::new(answer.chunks).map(Some).chain(stream::iter([None]));
    let rest = chunks.flat_map(move |chunk| stream::iter(events.of(chunk)));
    Sse::new(first.chain(rest).map(Ok::<Event, Infallible>)).into_response()
}

impl ChunkEvents {
    /// A chat begins with the role, which is no token.
    fn first(&self) -> Option<Event> {
        let role = json!({"delta": {"role": "assistant", "content": ""}});
        (self.head.route == Route::Chat).then(|| self.event(choice(role, None)))
    }

    /// `None` is the end of the stream.
    fn of(&mut self, chunk: Option<Result<Chunk, String>>) -> Vec<Event> {
        match chunk {
            Some(Ok(chunk)) => {
                self.tokens += 1;
                self.ended |= chunk.finish.is_some();
                let content = match self.head.route {
                    Route::Completions => json!({"text": chunk.text}),
                    Route::Chat => json!({"delta": {"content": chunk.text}}),
                };
                vec![self.event(choice(content, chunk.finish))]
            }
            Some(Err(message)) => vec![data(&Failure::internal(message).body())],
            None if self.ended => self.closing(),
            None => vec![data(&Failure::internal(CUT_OFF).body())],
        }
    }

    fn closing(&self) -> Vec<Event> {
        let done = Event::default().data("[DONE]");
        if !self.with_usage {
            return vec![done];
        }
        let usage = usage(self.prompt_tokens, self.tokens);
        vec![data(&self.head.object(self.head.chunk_kind(), &[], Some(usage))), done]
    }

    fn event(&self, choice: Value) -> Event {
        let usage = self.with_usage.then_some(Value::Null);
        data(&self.head.object(self.head.chunk_kind(), &[choice], usage))
    }
}

fn data(json: &Value) -> Event {
    Event::default().data(json.to_string())
}

impl Failure {
    fn invalid(message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into() }
    }

    fn internal(message: impl Into<String>) -> Self {
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, message: message.into() }
    }

    fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::BAD_REQUEST => "invalid_request_error",
            StatusCode::NOT_FOUND => "not_found_error",
            _ => "server_error",
        };
        json!({"error": {"message": self.message, "type": kind, "param": null, "code": self.status.as_u16()}})
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Loading | Refusal::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Invalid(_) => StatusCode::BAD_REQUEST,
        };
        Self { status, message: refusal.to_string() }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.body())).into_response()
    }
}
