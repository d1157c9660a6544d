//! Triton's HTTP endpoints: health, metadata, `generate` and `generate_stream`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::engine::service::{Answer, CUT_OFF, Service};
use crate::engine::triton::{
    INPUTS, Inference, Inputs, Layout, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, OUTPUTS, Output, TEXT_OUTPUT, VERSION,
};

pub(crate) fn routes() -> axum::Router<Arc<Service>> {
    axum::Router::new()
        .route("/v2", get(server_metadata))
        .route("/v2/health/live", get(|| async { StatusCode::OK }))
        .route("/v2/health/ready", get(ready))
        .route("/v2/models/{model}", get(model_metadata))
        .route("/v2/models/{model}/ready", get(model_ready))
        .route("/v2/models/{model}/generate", post(generate))
        .route("/v2/models/{model}/generate_stream", post(generate_stream))
}

/// An error before the answer began.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": self.1}))).into_response()
    }
}

async fn server_metadata() -> Json<Value> {
    Json(json!({"name": "benchrun-engine", "version": env!("CARGO_PKG_VERSION"), "extensions": ["generate"]}))
}

/// 400 while not ready, as Triton answers.
async fn ready(State(service): State<Arc<Service>>) -> StatusCode {
    if service.loaded().is_ok() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

async fn model_ready(State(service): State<Arc<Service>>, Path(model): Path<String>) -> StatusCode {
    if service.serves(&model) { ready(State(service)).await } else { StatusCode::BAD_REQUEST }
}

async fn model_metadata(
    State(service): State<Arc<Service>>,
    Path(model): Path<String>,
) -> Result<Json<Value>, Failure> {
    known(&service, &model)?;
    let tensor = |name: &str, datatype: &str| json!({"name": name, "datatype": datatype, "shape": [-1, -1]});
    let inputs: Vec<Value> = INPUTS.iter().map(|(name, datatype, _)| tensor(name, datatype)).collect();
    let outputs: Vec<Value> = OUTPUTS.iter().map(|(name, datatype)| tensor(name, datatype)).collect();
    Ok(Json(json!({
        "name": model, "versions": [VERSION], "platform": "ensemble", "inputs": inputs, "outputs": outputs,
    })))
}

async fn generate(
    State(service): State<Arc<Service>>,
    Path(model): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, Failure> {
    known(&service, &model)?;
    let inference = read_body(&body)?;
    if inference.stream {
        let message = "generate expects model to produce exactly 1 response, use generate stream for model that \
                       generates various number of responses";
        return Err(Failure(StatusCode::BAD_REQUEST, message.to_owned()));
    }
    whole(&service, &model, inference).await.map(Json).map_err(|message| Failure(StatusCode::BAD_REQUEST, message))
}

/// Once the request is understood the status is 200, and an error is an event, as in Triton.
async fn generate_stream(
    State(service): State<Arc<Service>>,
    Path(model): Path<String>,
    body: Bytes,
) -> Result<Response, Failure> {
    known(&service, &model)?;
    let inference = read_body(&body)?;
    if !inference.stream {
        return Ok(one_event(whole(&service, &model, inference).await));
    }
    Ok(match service.ask(inference.ask).await {
        Ok(answer) => stream_answer(model, inference.layout, answer),
        Err(refusal) => one_event(Err(refusal.to_string())),
    })
}

fn known(service: &Service, model: &str) -> Result<(), Failure> {
    if service.serves(model) {
        return Ok(());
    }
    Err(Failure(StatusCode::BAD_REQUEST, format!("Request for unknown model: '{model}' is not found")))
}

async fn whole(service: &Service, model: &str, inference: Inference) -> Result<Value, String> {
    let answer = service.ask(inference.ask).await.map_err(|refusal| refusal.to_string())?;
    let layout = inference.layout.with_prompt_tokens(answer.prompt_tokens);
    let whole = answer.whole().await?;
    Ok(response(model, layout.whole(&whole.text, whole.tokens)))
}

fn one_event(outcome: Result<Value, String>) -> Response {
    let json = outcome.unwrap_or_else(|message| json!({"error": message}));
    Sse::new(stream::iter([Ok::<Event, Infallible>(data(&json))])).into_response()
}

fn stream_answer(model: String, layout: Layout, answer: Answer) -> Response {
    let layout = layout.with_prompt_tokens(answer.prompt_tokens);
    let mut ended = false;
    let chunks = UnboundedReceiverStream::new(answer.chunks).map(Some).chain(stream::iter([None]));
    let events = chunks.filter_map(move |chunk| {
        let json = match chunk {
            Some(Ok(chunk)) => {
                ended |= chunk.finish.is_some();
                Some(response(&model, layout.chunk(chunk)))
            }
            Some(Err(message)) => Some(json!({"error": message})),
            None => (!ended).then(|| json!({"error": CUT_OFF})),
        };
        std::future::ready(json.map(|json| Ok::<Event, Infallible>(data(&json))))
    });
    Sse::new(events).into_response()
}

fn data(json: &Value) -> Event {
    Event::default().data(json.to_string())
}

fn response(model: &str, output: Output) -> Value {
    let mut response = json!({"model_name": model, "model_version": VERSION});
    response[TEXT_OUTPUT] = output.text.into();
    for (name, count) in [(NUM_INPUT_TOKENS, output.prompt_tokens), (NUM_OUTPUT_TOKENS, output.generated_tokens)] {
        if let Some(count) = count {
            response[name] = count.into();
        }
    }
    response
}

/// Inputs are top-level keys or lie under `parameters`: scalars or flat lists. Others are parameters, and ignored.
fn read_body(body: &[u8]) -> Result<Inference, Failure> {
    let bad = |message: String| Failure(StatusCode::BAD_REQUEST, message);
    let mut json: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|error| bad(format!("failed to parse the request JSON buffer: {error}")))?;
    let parameters = json.remove("parameters");
    let nested = parameters.as_ref().and_then(Value::as_object).into_iter().flatten();
    let inputs: Inputs = nested.chain(&json).map(|(name, value)| (name.clone(), elements(value))).collect();
    Inference::read(&inputs).map_err(bad)
}

fn elements(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements.clone(),
        Value::Null => Vec::new(),
        scalar => vec![scalar.clone()],
    }
}
