//! What becomes of answers over `ModelStreamInfer`, good and bad.

use benchrun::kserve::infer_parameter::ParameterChoice;
use benchrun::kserve::model_infer_response::InferOutputTensor;
use benchrun::kserve::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use benchrun::record::{RequestRecord, RequestStatus, ServerSaid, TokenSource};
use benchrun::spec::{Arrival, LoadPoint, Output, OutputMode, OutputTokens, Protocol, Volume};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::grpc_server::{Responses, Server};
use super::{check_error, check_times, point, run, run_one, run_to_error};

const INPUTS: &[&str] = &["text_input", "max_tokens", "min_tokens", "stream", "seed", "top_k", "temperature"];
const OUTPUTS: &[&str] = &["text_output", "cum_log_probs", "num_output_tokens"];

struct InferOutput {
    name: String,
    datatype: String,
    raw: Vec<u8>,
}

#[derive(Clone, Copy)]
enum Position {
    Middle,
    Final,
}

#[expect(clippy::unnecessary_wraps, reason = "an element of a script")]
fn response(outputs: &[(&str, Vec<u8>)], position: Position) -> Result<ModelStreamInferResponse, Status> {
    let is_final = matches!(position, Position::Final);
    let parameter = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(is_final)) };
    let outputs_of = |name: &str| InferOutputTensor { name: name.to_owned(), ..Default::default() };
    let response = ModelInferResponse {
        parameters: [("triton_final_response".to_owned(), parameter)].into(),
        outputs: outputs.iter().map(|(name, _)| outputs_of(name)).collect(),
        raw_output_contents: outputs.iter().map(|(_, raw)| raw.clone().into()).collect(),
        ..Default::default()
    };
    Ok(ModelStreamInferResponse { infer_response: Some(response), ..Default::default() })
}

/// A response whose tensors say their types.
fn typed(outputs: &[InferOutput]) -> Result<ModelStreamInferResponse, Status> {
    let named: Vec<(&str, Vec<u8>)> = outputs.iter().map(|it| (it.name.as_str(), it.raw.clone())).collect();
    let mut message = response(&named, Position::Middle)?;
    let tensors = message.infer_response.iter_mut().flat_map(|response| &mut response.outputs);
    tensors.zip(outputs).for_each(|(tensor, it)| tensor.datatype.clone_from(&it.datatype));
    Ok(message)
}

fn raw(text: &[u8]) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_le_bytes(), text].concat()
}

fn text(text: &str, position: Position) -> Result<ModelStreamInferResponse, Status> {
    response(&[("text_output", raw(text.as_bytes()))], position)
}

fn exact() -> LoadPoint {
    LoadPoint {
        output: Output { mode: OutputMode::Exact, tokens: OutputTokens::fixed(3) },
        ..point(Protocol::TritonGrpc)
    }
}

async fn answered(point: LoadPoint, script: impl Fn() -> Responses + Send + Sync + 'static) -> RequestRecord {
    let server = Server::start(INPUTS, OUTPUTS, move |_| script()).await;
    let record = run_one(&server.url, point).await;
    check_times(&record);
    record
}

#[tokio::test]
async fn an_empty_final_response_is_no_token() {
    let record = answered(exact(), || {
        vec![
            text("a", Position::Middle),
            text("", Position::Middle),
            text("b", Position::Middle),
            response(&[], Position::Final),
        ]
    })
    .await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "ab"), "{:?}", record.error);
    assert_eq!(record.chunk_ns.len(), 2);
    assert!(record.last_token_ns < Some(record.end_ns));
}

#[tokio::test]
async fn the_final_response_may_carry_text_and_counts() {
    let record = answered(exact(), || {
        let outputs = [("num_output_tokens", 3i32.to_le_bytes().to_vec()), ("text_output", raw(b"b"))];
        vec![text("a", Position::Middle), response(&outputs, Position::Final)]
    })
    .await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "ab"), "{:?}", record.error);
    assert_eq!((record.output_tokens, record.output_tokens_source), (Some(3), Some(TokenSource::ServerTensor)));
}

#[tokio::test]
async fn cumulative_text_counts_once() {
    let record = answered(exact(), || {
        vec![text("a", Position::Middle), text("ab", Position::Middle), text("abc", Position::Final)]
    })
    .await;
    assert_eq!((record.output_text.as_str(), record.chunk_ns.len()), ("abc", 3));
}

#[tokio::test]
async fn a_character_may_be_split_over_two_responses() {
    let record = answered(exact(), || {
        let part = |bytes: &[u8], position| response(&[("text_output", raw(bytes))], position);
        vec![part(b"\xe4\xbd", Position::Middle), part(b"\xa0", Position::Final)]
    })
    .await;
    assert_eq!((record.output_text.as_str(), record.chunk_ns.len()), ("你", 2));
}

#[tokio::test]
async fn an_answer_that_does_not_stream_has_no_first_token() {
    let point = LoadPoint { streaming: false, ..exact() };
    let record = answered(point, || vec![text("abc", Position::Final)]).await;
    assert_eq!((record.status, record.first_token_ns), (RequestStatus::Ok, None));
    assert_eq!(record.chunk_ns, [record.end_ns]);
}

fn refusal(message: &str) -> Responses {
    vec![Ok(ModelStreamInferResponse { error_message: message.to_owned(), ..Default::default() })]
}

#[tokio::test]
async fn what_a_full_server_refuses_is_sent_again_only_if_asked_for() {
    const FULL: &str = "[request id: 0] Exceeds maximum queue size";
    let script = |number| match number {
        0 => vec![Err(Status::resource_exhausted("busy"))],
        1 => refusal(FULL),
        _ => vec![text("a", Position::Final)],
    };
    let server = Server::start(INPUTS, OUTPUTS, script).await;
    check_error(&run_one(&server.url, point(Protocol::TritonGrpc)).await, "grpc_resource_exhausted", "busy");

    let load = LoadPoint { retries: 2, ..point(Protocol::TritonGrpc) };
    let server = Server::start(INPUTS, OUTPUTS, script).await;
    let record = run_one(&server.url, load.clone()).await;
    assert_eq!((record.status, record.attempts), (RequestStatus::Ok, 3), "{:?}", record.error);
    assert!(record.end_ns - record.sent_ns >= 2_000_000_000, "its clock runs on");

    for (answer, kind, expected) in [
        (refusal("no such input"), "server", "no such input"),
        ([vec![text("a", Position::Middle)], refusal(FULL)].concat(), "server", FULL),
        (vec![text("a", Position::Middle), Err(Status::unavailable("gone"))], "grpc_unavailable", "gone"),
    ] {
        let server = Server::start(INPUTS, OUTPUTS, move |_| answer.clone()).await;
        let record = run_one(&server.url, load.clone()).await;
        check_error(&record, kind, expected);
        assert_eq!(record.attempts, 1, "nothing that had begun, or fails for good, is sent again");
    }
}

#[tokio::test]
async fn requests_use_the_inputs_that_the_model_lists() {
    let server = Server::start(INPUTS, OUTPUTS, |_| vec![text("a", Position::Final)]).await;
    let (_, records) = run(
        &server.url,
        LoadPoint { volume: Volume::Requests(3), arrival: Arrival::Closed { concurrency: 1 }, ..exact() },
        CancellationToken::new(),
    )
    .await;
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok), "{records:?}");
    let seen = server.seen();
    // One stream carries all requests of a worker.
    assert_eq!((seen.streams, seen.requests.len()), (1, 3));
    let request = &seen.requests[1];
    let inputs: Vec<(&str, &str, &[i64], &[u8])> = request
        .inputs
        .iter()
        .zip(&request.raw_input_contents)
        .map(|(input, raw)| (input.name.as_str(), input.datatype.as_str(), input.shape.as_slice(), raw.as_ref()))
        .collect();
    let three = 3i32.to_le_bytes();
    assert_eq!(
        inputs,
        [
            ("text_input", "BYTES", &[1i64, 1][..], &b"\x02\0\0\0p1"[..]),
            ("max_tokens", "INT32", &[1, 1], &three),
            ("min_tokens", "INT32", &[1, 1], &three),
            ("stream", "BOOL", &[1, 1], &[1]),
            ("top_k", "INT32", &[1, 1], &1i32.to_le_bytes()),
            ("seed", "UINT64", &[1, 1], &7u64.to_le_bytes()),
        ]
    );
    let outputs: Vec<&str> = request.outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(outputs, ["text_output", "num_output_tokens"]);
    let empty_final = &request.parameters["triton_enable_empty_final_response"];
    assert_eq!(empty_final.parameter_choice, Some(ParameterChoice::BoolParam(true)));
}

#[tokio::test]
async fn the_servers_own_times_of_a_request_are_kept() {
    let number = |name: &str, datatype: &str, raw: Vec<u8>| InferOutput {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        raw,
    };
    let inputs: Vec<&'static str> = [INPUTS, &["return_perf_metrics"]].concat();
    let listed = ["arrival_time_ns", "first_scheduled_time_ns", "first_token_time_ns", "kv_cache_reused_blocks"];
    let outputs: Vec<&'static str> = [OUTPUTS, &listed].concat();
    let server = Server::start(&inputs, &outputs, move |_| {
        let times = |first_token: i64| {
            vec![
                number("arrival_time_ns", "INT64", 5_000_000_000i64.to_le_bytes().to_vec()),
                number("first_scheduled_time_ns", "BYTES", raw(b"5000000700")),
                number("first_token_time_ns", "INT64", first_token.to_le_bytes().to_vec()),
                number("kv_cache_reused_blocks", "INT32", 3i32.to_le_bytes().to_vec()),
            ]
        };
        vec![
            text("a", Position::Middle),
            typed(&times(0)),
            typed(&times(5_000_009_000)),
            response(&[], Position::Final),
        ]
    })
    .await;
    let record = run_one(&server.url, exact()).await;
    let said = ServerSaid { queue_ns: Some(700), ttft_ns: Some(9000), reused_blocks: Some(3) };
    assert_eq!((record.server, record.error), (Some(said), None));
    let seen = server.seen();
    let asked: Vec<&str> = seen.requests[0].outputs.iter().map(|output| output.name.as_str()).collect();
    assert_eq!(asked, [&["text_output", "num_output_tokens"], &listed[..]].concat());
    assert!(seen.requests[0].inputs.iter().any(|input| input.name == "return_perf_metrics"));
}

#[tokio::test]
async fn beams_travel_with_the_request_or_are_refused() {
    let inputs: Vec<&'static str> = [INPUTS, &["beam_width"]].concat();
    let server = Server::start(&inputs, OUTPUTS, |_| vec![text("abc", Position::Final)]).await;
    let beams = |beam_width| LoadPoint { beam_width, streaming: false, ..exact() };
    for beam_width in [1, 4] {
        run_one(&server.url, beams(beam_width)).await;
    }
    let sent = |number: usize| {
        let request = &server.seen().requests[number];
        let at = request.inputs.iter().position(|input| input.name == "beam_width");
        at.map(|at| request.raw_input_contents[at].to_vec())
    };
    assert_eq!((sent(0), sent(1)), (None, Some(4i32.to_le_bytes().to_vec())));

    let without = Server::start(INPUTS, OUTPUTS, |_| vec![text("abc", Position::Final)]).await;
    let refused = run_to_error(&without.url, beams(4)).await;
    assert!(refused.contains("cannot be asked for 4 beams"), "{refused}");
}

/// An ensemble that is asked for an output which no model of it sets sends no response.
#[tokio::test]
async fn metrics_that_cannot_be_asked_for_are_not_wanted() {
    let server = Server::start(INPUTS, &["text_output", "arrival_time_ns"], |_| vec![text("a", Position::Final)]).await;
    assert_eq!(run_one(&server.url, exact()).await.server, None);
    assert_eq!(server.seen().requests[0].outputs.len(), 1);
}

#[tokio::test]
async fn errors_fail_one_request_and_the_next_goes_on() {
    let server = Server::start(INPUTS, OUTPUTS, |number| match number {
        0 => vec![
            text("a", Position::Middle),
            Ok(ModelStreamInferResponse { error_message: "no slot".to_owned(), ..Default::default() }),
            // Belongs to the failed request.
            response(&[], Position::Final),
        ],
        1 => vec![text("a", Position::Middle), Err(Status::resource_exhausted("full"))],
        _ => vec![text("b", Position::Final)],
    })
    .await;
    let (_, records) =
        run(&server.url, LoadPoint { volume: Volume::Requests(3), ..exact() }, CancellationToken::new()).await;
    check_error(&records[0], "server", "no slot");
    check_error(&records[1], "grpc_resource_exhausted", "full");
    assert_eq!((records[1].output_text.as_str(), records[2].output_text.as_str()), ("a", "b"));
    assert_eq!(records[2].status, RequestStatus::Ok);
}

#[tokio::test]
async fn a_model_that_takes_no_text_is_refused() {
    let server = Server::start(&["input_ids"], OUTPUTS, |_| Vec::new()).await;
    let error = super::run_to_error(&server.url, exact()).await;
    assert_eq!(error, "model `tiny` cannot be asked for text: it has no input `text_input` (its inputs: input_ids)");
}
