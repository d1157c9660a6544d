//! LMDeploy's three Triton models, as its own client of v0.1.0 calls them.

use std::fs;
use std::thread;
use std::time::Duration;

use benchrun::kserve::infer_parameter::ParameterChoice;
use benchrun::kserve::model_infer_response::InferOutputTensor;
use benchrun::kserve::{ModelConfig, ModelInferRequest, ModelInferResponse, ModelParameter, ModelStreamInferResponse};
use benchrun::record::{RequestRecord, RequestStatus};
use benchrun::spec::{
    Arrival, LoadPoint, Method, Output, OutputMode, OutputTokens, Protocol, Sampling, Spacing, Volume,
};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::grpc_server::{Responses, Server};
use super::{check_error, check_times, methods, point, run, run_job, run_one, run_to_error};

fn a_word_each(ids: &[u32], known: u32) -> String {
    " null".repeat(ids.len() - known as usize)
}

/// An id for each word of the prompt and a beginning; answers are ids of 7. As the server of scripts/lmdeploy_tis_oracle.py.
async fn serve(texts: fn(&[u32], u32) -> String) -> Server {
    serve_model("internlm", turbomind, texts).await
}

/// `texts` is what becomes of ids, of which the first so many are known.
async fn serve_model(
    name: &str,
    turbomind: impl Fn(&ModelInferRequest) -> Responses + Send + Sync + 'static,
    texts: impl Fn(&[u32], u32) -> String + Send + Sync + 'static,
) -> Server {
    let infer = move |request: &ModelInferRequest| match request.model_name.as_str() {
        "preprocessing" => Ok(preprocessed(request)),
        "postprocessing" => {
            let known = ids(request, "sequence_length")[0];
            let text = texts(&ids(request, "TOKENS_BATCH"), known);
            let length = u32::try_from(text.len()).unwrap().to_le_bytes();
            Ok(response([("OUTPUT", [&length, text.as_bytes()].concat())]))
        }
        other => Err(Status::not_found(format!("no model {other}"))),
    };
    Server::of_models(config(name), turbomind, infer).await
}

fn config(name: &str) -> ModelConfig {
    let parameter = ModelParameter { string_value: name.to_owned() };
    ModelConfig { parameters: [("model_name".to_owned(), parameter)].into(), ..Default::default() }
}

fn preprocessed(request: &ModelInferRequest) -> ModelInferResponse {
    let ids: Vec<u32> = match std::str::from_utf8(&request.raw_input_contents[0][4..]).unwrap() {
        "<EOS>" => vec![2],
        text => [1].into_iter().chain((10..).zip(text.split_whitespace()).map(|(id, _)| id)).collect(),
    };
    let length = u32::try_from(ids.len()).unwrap();
    response([("INPUT_ID", raw(&ids)), ("REQUEST_INPUT_LEN", raw(&[length]))])
}

/// All that was asked for, one id at a time.
fn turbomind(request: &ModelInferRequest) -> Responses {
    (1..=ids(request, "request_output_len")[0]).map(|tokens| Ok(so_far(request, tokens))).collect()
}

/// With room for all ids.
fn so_far(request: &ModelInferRequest, tokens: u32) -> ModelStreamInferResponse {
    let mut all = ids(request, "input_ids");
    let length = u32::try_from(all.len()).unwrap() + tokens;
    all.resize(2048, 7);
    let response = response([("output_ids", raw(&all)), ("sequence_length", raw(&[length]))]);
    ModelStreamInferResponse { infer_response: Some(response), ..Default::default() }
}

fn response<const N: usize>(outputs: [(&str, Vec<u8>); N]) -> ModelInferResponse {
    let tensor = |name: &str| InferOutputTensor { name: name.to_owned(), ..Default::default() };
    let (outputs, raw_output_contents) = outputs.into_iter().map(|(name, raw)| (tensor(name), raw.into())).unzip();
    ModelInferResponse { outputs, raw_output_contents, ..Default::default() }
}

fn raw(ids: &[u32]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.to_le_bytes()).collect()
}

fn ids(request: &ModelInferRequest, name: &str) -> Vec<u32> {
    let index = request.inputs.iter().position(|input| input.name == name).unwrap();
    request.raw_input_contents[index].as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect()
}

/// What the script sends for the recorded conversations.
fn of_script(concurrency: u32) -> LoadPoint {
    LoadPoint { volume: Volume::Requests(9), arrival: Arrival::Closed { concurrency }, ..methods::load(Method::Tis, 0) }
}

async fn run_script(server: &Server, point: LoadPoint) -> Vec<RequestRecord> {
    run_job(methods::job(&server.url, point), CancellationToken::new()).await.1
}

/// A call as the oracle records it; a random seed is another each time.
fn recorded(call: &ModelInferRequest) -> Value {
    let inputs = call.inputs.iter().zip(&call.raw_input_contents).map(|(input, raw)| {
        let wide = || raw.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
        let narrow = || raw.as_chunks().0.iter().copied();
        let values: Value = match input.datatype.as_str() {
            "BYTES" => json!([String::from_utf8(raw[4..].to_vec()).unwrap()]),
            "UINT64" if input.name == "random_seed" => json!([0]),
            "UINT64" => wide().collect(),
            "UINT32" => narrow().map(u32::from_le_bytes).collect(),
            "INT32" => narrow().map(i32::from_le_bytes).collect(),
            "FP32" => narrow().map(f32::from_le_bytes).collect(),
            other => panic!("nothing of type {other} is sent"),
        };
        json!([input.name, input.datatype, input.shape, values])
    });
    json!({"model": call.model_name, "parameters": parameters(call), "inputs": inputs.collect::<Value>()})
}

fn parameters(call: &ModelInferRequest) -> Map<String, Value> {
    let value = |choice: &Option<ParameterChoice>| match choice {
        Some(ParameterChoice::Int64Param(number)) => json!(number),
        Some(ParameterChoice::BoolParam(yes)) => json!(yes),
        other => panic!("{other:?} is never sent"),
    };
    call.parameters.iter().map(|(name, parameter)| (name.clone(), value(&parameter.parameter_choice))).collect()
}

/// The first element of a tensor, if the call has it.
fn first(call: &ModelInferRequest, name: &str) -> Option<Value> {
    let call = recorded(call);
    call["inputs"].as_array().unwrap().iter().find(|input| input[0] == name).map(|input| input[3][0].clone())
}

#[tokio::test]
async fn one_worker_makes_the_scripts_calls_in_its_order() {
    let server = serve(a_word_each).await;
    run_script(&server, of_script(1)).await;
    let text = fs::read_to_string(methods::root().join("tests/it/fixtures/lmdeploy/v0.1.0-tis.jsonl")).unwrap();
    let theirs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ours: Vec<Value> = server.seen().calls.iter().map(recorded).collect();
    let end_of_sequence =
        json!({"model": "preprocessing", "parameters": {}, "inputs": [["QUERY", "BYTES", [1, 1], ["<EOS>"]]]});
    assert_eq!((&ours[0], &ours[1..]), (&end_of_sequence, &theirs[..]));
}

#[tokio::test]
async fn each_worker_is_a_session_and_each_token_a_call_of_its_own() {
    let server = serve(a_word_each).await;
    let records = run_script(&server, of_script(3)).await;
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok), "{records:?}");
    let seen = server.seen();
    let calls = |model: &str| seen.calls.iter().filter(|call| call.model_name == model).count();
    let tokens: u32 = records.iter().map(|record| record.output_tokens.unwrap()).sum();
    assert_eq!((seen.configs, calls("preprocessing"), seen.streams), (1, 1 + 9, 9));
    assert_eq!(calls("postprocessing"), tokens as usize);
    assert!(seen.peers.len() <= 4, "one each, and one to learn what there is: {:?}", seen.peers);
    for request in &seen.requests {
        let session = first(request, "CORRID").unwrap();
        let expected = match session.as_u64().unwrap() {
            0 => json!({}),
            session => json!({"sequence_id": session, "sequence_start": true, "sequence_end": true}),
        };
        assert_eq!(Value::Object(parameters(request)), expected);
        assert!(request.id.is_empty());
    }
}

#[tokio::test]
async fn a_first_token_has_been_through_all_three_models() {
    const PAUSE: Duration = Duration::from_millis(20);
    let paused = |request: &ModelInferRequest| {
        thread::sleep(PAUSE);
        turbomind(request)
    };
    let server = serve_model("internlm", paused, |ids, known| {
        thread::sleep(PAUSE);
        a_word_each(ids, known)
    })
    .await;
    let record = run_one(&server.url, point(Protocol::LmdeployTriton)).await;
    check_times(&record);
    let ttft_ns = record.first_token_ns.unwrap() - record.sent_ns;
    assert!(u128::from(ttft_ns) >= 2 * PAUSE.as_nanos(), "{ttft_ns}");
    assert_eq!((record.chunk_ns.len(), record.output_text.as_str()), (3, " null null null"));
    assert_eq!((record.input_tokens, record.output_tokens), (Some(2), Some(3)));
}

#[tokio::test]
async fn half_a_character_waits_for_its_other_half() {
    // The ids that are known grow only with what was shown.
    let server = serve(|ids, known| match (known, ids.len()) {
        (0, 1) | (2, 3) => "\u{fffd}".to_owned(),
        (0, 2) => "é".to_owned(),
        other => format!("{other:?}"),
    })
    .await;
    let record = run_one(&server.url, point(Protocol::LmdeployTriton)).await;
    assert_eq!(record.error, None);
    assert_eq!((record.chunk_bytes.as_slice(), record.output_text.as_str()), (&[2, 3][..], "é\u{fffd}"));
    assert_eq!((record.output_tokens, record.first_response_ns), (Some(3), record.first_token_ns));
}

#[tokio::test]
async fn an_empty_text_is_an_answer_but_no_token() {
    let server = serve(|ids, known| if known == 0 { String::new() } else { a_word_each(ids, known) }).await;
    let record = run_one(&server.url, point(Protocol::LmdeployTriton)).await;
    assert!(record.first_response_ns < record.first_token_ns, "{record:?}");
    assert_eq!((record.output_text.as_str(), record.output_tokens), (" null null", Some(3)));
}

#[tokio::test]
async fn what_goes_wrong_is_on_the_record() {
    let refuses = |_: &ModelInferRequest| {
        vec![Ok(ModelStreamInferResponse { error_message: "no slot".to_owned(), ..Default::default() })]
    };
    let server = serve_model("internlm", refuses, a_word_each).await;
    check_error(&run_one(&server.url, point(Protocol::LmdeployTriton)).await, "server", "no slot");

    let infer = |request: &ModelInferRequest| match request.model_name.as_str() {
        "preprocessing" => Ok(preprocessed(request)),
        _ => Err(Status::unavailable("no tokenizer")),
    };
    let server = Server::of_models(config("internlm"), turbomind, infer).await;
    check_error(&run_one(&server.url, point(Protocol::LmdeployTriton)).await, "grpc_unavailable", "no tokenizer");

    let bare = |_: &ModelInferRequest| vec![Ok(ModelStreamInferResponse::default())];
    let server = serve_model("internlm", bare, a_word_each).await;
    check_error(&run_one(&server.url, point(Protocol::LmdeployTriton)).await, "parse", "`sequence_length`");

    let short = |request: &ModelInferRequest| vec![Ok(so_far(request, 2))];
    let server = serve_model("internlm", short, a_word_each).await;
    let exact = Output { mode: OutputMode::Exact, tokens: OutputTokens::fixed(3) };
    let record = run_one(&server.url, LoadPoint { output: exact, ..point(Protocol::LmdeployTriton) }).await;
    check_error(&record, "length", "3 output tokens were asked for");
}

#[tokio::test]
async fn a_session_has_an_end_and_a_model_a_template() {
    let server = serve_model("solar", turbomind, a_word_each).await;
    let output = |tokens| Output { mode: OutputMode::AtMost, tokens: OutputTokens::fixed(tokens) };
    let of = |tokens| LoadPoint { output: output(tokens), ..point(Protocol::LmdeployTriton) };
    // A beginning, six words of the template and one of the prompt.
    let record = run_one(&server.url, of(2041)).await;
    check_error(&record, "session_len", "8 tokens to 2041 are more than a session's 2048");
    assert_eq!(server.seen().streams, 0, "that is not sent");
    assert_eq!(run_one(&server.url, of(2040)).await.output_tokens, Some(2040));

    let server = serve_model("tiny", turbomind, a_word_each).await;
    let error = run_to_error(&server.url, of(1)).await;
    assert!(error.ends_with("LMDeploy v0.1.0 knows no model `tiny`"), "{error}");
}

#[tokio::test]
async fn sampling_is_what_the_load_point_says() {
    let server = serve(a_word_each).await;
    let sampling = Sampling { temperature: 0.5, top_k: None, top_p: Some(0.25) };
    let open = LoadPoint {
        arrival: Arrival::Open { rate: 100.0, spacing: Spacing::default(), max_concurrency: None },
        volume: Volume::Requests(2),
        sampling,
        ..point(Protocol::LmdeployTriton)
    };
    run(&server.url, open, CancellationToken::new()).await;
    run_one(&server.url, point(Protocol::LmdeployTriton)).await;
    let seen = server.seen();
    let sent = |index: usize, name: &str| first(&seen.requests[index], name);
    assert_eq!([sent(0, "temperature"), sent(0, "runtime_top_p")], [Some(json!(0.5)), Some(json!(0.25))]);
    assert_eq!([sent(0, "runtime_top_k"), sent(0, "bad_words_list")], [None, None]);
    assert_ne!(sent(0, "CORRID"), sent(1, "CORRID"), "sessions of their own");
    assert_eq!([sent(2, "temperature"), sent(2, "runtime_top_k")], [Some(json!(1.0)), Some(json!(1))], "greedy");
}
