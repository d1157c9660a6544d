//! The embedded engine as its clients see it: a dummy model, served in this process on free ports.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends it")]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use benchrun::dummy;
use benchrun::engine::{Addresses, BuildOptions, EngineError, Precision, ServeOptions, build, quantize, serve};
use benchrun::kserve::grpc_inference_service_client::GrpcInferenceServiceClient;
use benchrun::kserve::infer_parameter::ParameterChoice;
use benchrun::kserve::model_infer_request::InferInputTensor;
use benchrun::kserve::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelReadyRequest, ModelStreamInferResponse, ServerReadyRequest,
};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

const MAX_SEQ_LEN: usize = 4096;
/// A hung test fails instead of waiting for ever.
const LIMIT: Duration = Duration::from_mins(2);

/// A built engine, made once for all tests.
fn engine_folder() -> &'static Path {
    static MADE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    &MADE.get_or_init(|| make_engine().unwrap()).1
}

fn make_engine() -> anyhow::Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let mut config = dummy::default_config();
    for (key, value) in [("hidden_size", 32), ("intermediate_size", 48), ("num_hidden_layers", 2)] {
        config[key] = value.into();
    }
    let [model, checkpoint, engine] = ["model", "checkpoint", "engine"].map(|name| folder.path().join(name));
    dummy::write_model(&model, Some(&config), 7)?;
    quantize(&model, &checkpoint, Precision::Fp32)?;
    build(&checkpoint, &engine, BuildOptions { max_batch_size: 2, max_seq_len: MAX_SEQ_LEN })?;
    Ok((folder, engine))
}

struct Server {
    addresses: Addresses,
    http: reqwest::Client,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), EngineError>>,
}

fn options(folder: &Path) -> ServeOptions {
    ServeOptions {
        folder: folder.to_owned(),
        host: "127.0.0.1".to_owned(),
        http_port: 0,
        grpc_port: 0,
        served_model_name: "dummy".to_owned(),
        max_batch_size: None,
        threads: Some(1),
    }
}

impl Server {
    async fn start() -> Self {
        let (sender, listening) = tokio::sync::oneshot::channel();
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        #[expect(clippy::disallowed_methods, reason = "the handle is joined by `stop`")]
        let running = tokio::spawn(serve(options(engine_folder()), token, move |addresses| {
            sender.send(addresses).unwrap();
        }));
        let addresses = listening.await.unwrap();
        let server = Self { addresses, http: reqwest::Client::new(), shutdown, running };
        let ready = async {
            while server.get("/health").await.0 != 200 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, ready).await.unwrap();
        server
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.running).await.unwrap().unwrap().unwrap();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses.http)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, String) {
        let response = self.http.post(self.url(path)).json(body).timeout(LIMIT).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn post_json(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.post(path, body).await;
        (status, serde_json::from_str(&text).unwrap())
    }

    /// The data of each server-sent event.
    async fn events(&self, path: &str, body: &Value) -> Vec<String> {
        let (status, text) = self.post(path, body).await;
        assert_eq!(status, 200, "{text}");
        text.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    async fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").await.1;
        let prefix = format!("benchrun_engine_{name} ");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap().parse().unwrap()
    }

    async fn wait_for_metric(&self, name: &str, value: u64) {
        let reached = async {
            while self.metric(name).await != value {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, reached).await.unwrap_or_else(|_| panic!("`{name}` did not become {value}"));
    }

    async fn grpc(&self) -> GrpcInferenceServiceClient<Channel> {
        GrpcInferenceServiceClient::connect(format!("http://{}", self.addresses.grpc)).await.unwrap()
    }
}

fn parsed(events: &[String]) -> Vec<Value> {
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn completion(max_tokens: usize) -> Value {
    json!({
        "model": "dummy", "prompt": "What is the capital of France? 你好", "max_tokens": max_tokens, "temperature": 0,
        "ignore_eos": true,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_completions_count_exactly_and_stream_the_same_text() {
    let server = Server::start().await;
    let (status, whole) = server.post_json("/v1/completions", &completion(20)).await;
    assert_eq!(status, 200);
    assert_eq!(whole["usage"]["completion_tokens"], 20);
    assert_eq!(whole["choices"][0]["finish_reason"], "length");
    let prompt_tokens = whole["usage"]["prompt_tokens"].as_u64().unwrap();

    let mut body = completion(20);
    body["stream"] = true.into();
    body["stream_options"] = json!({"include_usage": true});
    let events = server.events("/v1/completions", &body).await;
    assert_eq!(events.last().unwrap(), "[DONE]");
    let chunks = parsed(&events[..events.len() - 1]);
    let (usage, tokens) = chunks.split_last().unwrap();
    assert_eq!(tokens.len(), 20);
    assert_eq!(usage["choices"], json!([]));
    assert_eq!(
        usage["usage"],
        json!({"prompt_tokens": prompt_tokens, "completion_tokens": 20, "total_tokens": prompt_tokens + 20})
    );
    let text: String = tokens.iter().map(|chunk| chunk["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, whole["choices"][0]["text"]);
    assert!(!text.is_empty());

    body["prompt"] = json!([5, 6, 7]);
    let events = server.events("/v1/completions", &body).await;
    let usage: Value = serde_json::from_str(&events[events.len() - 2]).unwrap();
    assert_eq!(usage["usage"]["prompt_tokens"], 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_chat_begins_with_the_role() {
    let server = Server::start().await;
    let mut body = json!({
        "model": "dummy", "messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 5,
        "temperature": 0.8, "top_k": 20, "seed": 3, "ignore_eos": true,
    });
    let (status, whole) = server.post_json("/v1/chat/completions", &body).await;
    assert_eq!((status, &whole["usage"]["completion_tokens"]), (200, &json!(5)));
    body["stream"] = true.into();
    let events = server.events("/v1/chat/completions", &body).await;
    let chunks = parsed(&events[..events.len() - 1]);
    assert_eq!(chunks.len(), 6);
    assert_eq!(chunks[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(chunks[5]["choices"][0]["finish_reason"], "length");
    let text: String = chunks.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], text.as_str());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openai_mistakes_are_answered_with_numbers() {
    let server = Server::start().await;
    let mut long = completion(MAX_SEQ_LEN);
    let (status, answer) = server.post_json("/v1/completions", &long).await;
    assert_eq!(status, 400);
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("4096 tokens to generate") && message.contains("at most 4096"), "{message}");

    long["model"] = "other".into();
    assert_eq!(server.post("/v1/completions", &long).await.0, 404);
    for (key, value) in [
        ("prompt", json!("")),
        ("prompt", json!(["a", "b"])),
        ("prompt", json!([99_999_999])),
        ("temperature", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_tokens", json!("many")),
        ("n", json!(2)),
        ("stop", json!(3)),
        ("min_tokens", json!(9)),
    ] {
        let mut body = completion(8);
        body[key] = value.clone();
        let (status, answer) = server.post_json("/v1/completions", &body).await;
        assert_eq!((status, &answer["error"]["type"]), (400, &json!("invalid_request_error")), "{key}: {value}");
    }
    assert_eq!(server.post("/v1/chat/completions", &json!({"messages": []})).await.0, 400);
    assert!(server.get("/v1/models").await.1.contains("\"dummy\""));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_batch_wait_in_order_and_a_hang_up_frees_the_place() {
    let server = Server::start().await;
    let begin = |max_tokens: usize| {
        let mut body = completion(max_tokens);
        body["stream"] = true.into();
        server.http.post(server.url("/v1/completions")).json(&body).send()
    };
    let first = begin(4000).await.unwrap();
    let second = begin(4000).await.unwrap();
    server.wait_for_metric("requests_running", 2).await;
    let third = begin(4000).await.unwrap();
    server.wait_for_metric("requests_waiting", 1).await;
    let fourth = begin(2).await.unwrap();
    server.wait_for_metric("requests_waiting", 2).await;

    drop(first);
    server.wait_for_metric("requests_abandoned_total", 1).await;
    server.wait_for_metric("requests_waiting", 1).await;
    // The third came first, although the fourth is shorter: its tokens come while the fourth waits.
    let mut third = third.bytes_stream();
    assert!(third.next().await.unwrap().is_ok());
    assert_eq!(server.metric("requests_waiting").await, 1);

    drop(second);
    let last = fourth.text().await.unwrap();
    assert!(last.ends_with("data: [DONE]\n\n"), "{last}");
    assert_eq!(server.metric("requests_finished_total").await, 1);
    drop(third);
    server.wait_for_metric("requests_running", 0).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn triton_http_generates_whole_and_streamed() {
    let server = Server::start().await;
    let mut body = json!({
        "text_input": "Hello", "max_tokens": 6, "end_id": -1, "parameters": {"exclude_input_in_output": true},
        "return_num_output_tokens": [true], "return_num_input_tokens": true,
    });
    let (status, whole) = server.post_json("/v2/models/ensemble/generate", &body).await;
    assert_eq!(status, 200);
    assert_eq!(whole["num_output_tokens"], 6);
    body["stream"] = true.into();
    let events = parsed(&server.events("/v2/models/dummy/generate_stream", &body).await);
    assert_eq!(events.len(), 6);
    assert_eq!(events[0]["num_input_tokens"], whole["num_input_tokens"]);
    let text: String = events.iter().map(|event| event["text_output"].as_str().unwrap()).collect();
    assert_eq!(whole["text_output"], text.as_str());

    // An error of the model comes as data, since the stream has begun; a request that cannot be read does not begin.
    body["max_tokens"] = MAX_SEQ_LEN.into();
    let events = server.events("/v2/models/ensemble/generate_stream", &body).await;
    assert!(events.len() == 1 && events[0].contains("\"error\""), "{events:?}");
    assert_eq!(server.post("/v2/models/ensemble/generate", &body).await.0, 400);
    assert_eq!(server.post("/v2/models/ensemble/generate", &json!({"max_tokens": 1})).await.0, 400);
    assert_eq!(server.post("/v2/models/other/generate", &body).await.0, 400);
    assert_eq!(server.get("/v2/health/ready").await.0, 200);
    assert!(server.get("/v2/models/ensemble").await.1.contains("return_num_output_tokens"));
    server.stop().await;
}

fn tensor(name: &str, datatype: &str, contents: InferTensorContents) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1, 1],
        contents: Some(contents),
        ..InferInputTensor::default()
    }
}

fn flag(name: &str) -> InferInputTensor {
    tensor(name, "BOOL", InferTensorContents { bool_contents: vec![true], ..InferTensorContents::default() })
}

fn inference(id: &str, max_tokens: i32, text: &str) -> ModelInferRequest {
    let number = |value| InferTensorContents { int_contents: vec![value], ..InferTensorContents::default() };
    let text = InferTensorContents { bytes_contents: vec![text.to_owned().into()], ..InferTensorContents::default() };
    ModelInferRequest {
        model_name: "ensemble".to_owned(),
        id: id.to_owned(),
        inputs: vec![
            tensor("text_input", "BYTES", text),
            tensor("max_tokens", "INT32", number(max_tokens)),
            tensor("min_length", "INT32", number(max_tokens)),
            tensor("top_k", "INT32", number(1)),
            flag("return_num_output_tokens"),
        ],
        ..ModelInferRequest::default()
    }
}

fn is_final(response: &ModelInferResponse) -> bool {
    let mark = response.parameters["triton_final_response"].parameter_choice.as_ref();
    mark == Some(&ParameterChoice::BoolParam(true))
}

fn text_of(response: &ModelInferResponse) -> String {
    let raw = &response.raw_output_contents[0];
    assert_eq!(u32::from_le_bytes(*raw.first_chunk().unwrap()) as usize, raw.len() - 4);
    String::from_utf8(raw[4..].to_vec()).unwrap()
}

async fn stream_of(server: &Server, requests: Vec<ModelInferRequest>) -> Vec<ModelStreamInferResponse> {
    let responses = server.grpc().await.model_stream_infer(futures_util::stream::iter(requests)).await.unwrap();
    responses.into_inner().map(Result::unwrap).collect().await
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_streams_one_response_for_each_token() {
    let server = Server::start().await;
    let mut client = server.grpc().await;
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let name = "ensemble".to_owned();
    let ready = ModelReadyRequest { name: name.clone(), version: String::new() };
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    let metadata =
        client.model_metadata(ModelMetadataRequest { name, version: String::new() }).await.unwrap().into_inner();
    assert!(metadata.inputs.iter().any(|input| input.name == "text_input" && input.datatype == "BYTES"));

    let whole = client.model_infer(inference("w", 8, "Hi")).await.unwrap().into_inner();
    assert!(is_final(&whole));
    let whole_text = text_of(&whole);
    assert_eq!(*whole.raw_output_contents[1], 8_i32.to_le_bytes());

    let mut streamed = inference("s", 8, "Hi");
    streamed.inputs.push(flag("stream"));
    let responses = stream_of(&server, vec![streamed.clone()]).await;
    let responses: Vec<ModelInferResponse> = responses.into_iter().map(|it| it.infer_response.unwrap()).collect();
    assert_eq!(responses.len(), 8);
    assert!(responses.iter().all(|response| response.id == "s"));
    let finals: Vec<bool> = responses.iter().map(is_final).collect();
    assert_eq!(finals, [false, false, false, false, false, false, false, true]);
    let text: String = responses.iter().map(text_of).collect();
    assert_eq!(whole_text, format!("Hi{text}"));

    let mark = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    streamed.parameters.insert("triton_enable_empty_final_response".to_owned(), mark);
    let responses = stream_of(&server, vec![streamed]).await;
    assert_eq!(responses.len(), 9);
    let last = responses.last().unwrap().infer_response.as_ref().unwrap();
    assert!(is_final(last) && last.outputs.is_empty());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_errors_leave_the_stream_alive() {
    let server = Server::start().await;
    let unknown_tensor = {
        let mut request = inference("a", 2, "Hi");
        request.inputs.push(flag("image_input"));
        request
    };
    let unknown_model = ModelInferRequest { model_name: "other".to_owned(), ..inference("b", 2, "Hi") };
    let too_long = inference("c", i32::MAX, "Hi");
    let raw = {
        let mut request = inference("d", 2, "Hi");
        request.inputs.truncate(2);
        request.raw_input_contents = vec![b"\x02\0\0\0Hi".as_slice().into(), 2_i32.to_le_bytes().to_vec().into()];
        request
    };
    let responses = stream_of(&server, vec![unknown_tensor, unknown_model, too_long, raw]).await;
    assert_eq!(responses.len(), 4);
    let errors: Vec<&str> =
        responses.iter().map(|response| response.error_message.as_str()).filter(|error| !error.is_empty()).collect();
    assert_eq!(errors.len(), 3, "{errors:?}");
    for words in ["image_input", "other", "2147483647"] {
        assert!(errors.iter().any(|error| error.contains(words)), "{words}: {errors:?}");
    }
    assert!(responses.iter().any(|response| response.infer_response.as_ref().is_some_and(|it| it.id == "d")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_answers_and_frees_the_ports() {
    let server = Server::start().await;
    let mut body = completion(4000);
    body["stream"] = true.into();
    let mut answer = server.http.post(server.url("/v1/completions")).json(&body).send().await.unwrap();
    assert!(answer.chunk().await.unwrap().is_some());
    let address = server.addresses.http;
    server.stop().await;
    let rest = answer.text().await.unwrap_or_default();
    assert!(!rest.contains("[DONE]"));
    assert!(tokio::net::TcpListener::bind(address).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_served_says_why() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let on_taken_port = ServeOptions { grpc_port: port, ..options(engine_folder()) };
    let error = serve(on_taken_port, CancellationToken::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on gRPC port {port} of `127.0.0.1`"));

    let nothing = tempfile::tempdir().unwrap();
    let error = serve(options(nothing.path()), CancellationToken::new(), |_| ()).await.unwrap_err();
    assert!(error.to_string().contains("config.json"), "{error}");

    let too_many = ServeOptions { max_batch_size: Some(3), ..options(engine_folder()) };
    let error = serve(too_many, CancellationToken::new(), |_| ()).await.unwrap_err();
    assert_eq!(error.to_string(), "max_batch_size 3 is over 2, which the engine was built for");
}
