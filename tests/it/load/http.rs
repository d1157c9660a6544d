//! What becomes of answers over HTTP, good and bad.

use benchrun::record::{RequestStatus, ServerSaid, TokenSource};
use benchrun::spec::{LoadPoint, Output, OutputMode, OutputTokens, Protocol, Sampling};
use benchrun::workload::{Content, Prompt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::http_server::{Ending, Script, Server};
use super::{check_error, check_times, job, point, run_job, run_one};

const DONE: &str = "data: [DONE]\n\n";

fn text(text: &str) -> String {
    format!("data: {}\n\n", json!({"choices": [{"text": text}]}))
}

fn usage(tokens: u32) -> String {
    let usage = json!({"prompt_tokens": 9, "completion_tokens": tokens});
    format!("data: {}\n\n", json!({"choices": [], "usage": usage}))
}

fn exact(protocol: Protocol) -> LoadPoint {
    LoadPoint { output: Output { mode: OutputMode::Exact, tokens: OutputTokens::fixed(3) }, ..point(protocol) }
}

async fn answered(point: LoadPoint, script: Script) -> benchrun::record::RequestRecord {
    let server = Server::start(move |_| script.clone()).await;
    let record = run_one(&server.url, point).await;
    check_times(&record);
    record
}

async fn completion(chunks: &[&str]) -> benchrun::record::RequestRecord {
    answered(point(Protocol::OpenaiCompletions), Script::stream(chunks)).await
}

#[tokio::test]
async fn a_stream_becomes_a_record() {
    let chunks = [&text("a"), &text("b"), &text("c"), &usage(3), DONE];
    let record = answered(exact(Protocol::OpenaiCompletions), Script::stream(&chunks.map(|chunk| chunk as &str))).await;
    assert_eq!(record.status, RequestStatus::Ok, "{:?}", record.error);
    assert_eq!((record.output_text.as_str(), record.chunk_ns.len()), ("abc", 3));
    assert_eq!((record.output_tokens, record.output_tokens_source), (Some(3), Some(TokenSource::ServerUsage)));
    assert_eq!((record.input_tokens, record.input_tokens_sent), (Some(9), Some(1)));
    assert_eq!(record.first_token_ns, record.chunk_ns.first().copied());
    assert_eq!(record.last_token_ns, record.chunk_ns.last().copied());
}

#[tokio::test]
async fn characters_and_events_may_be_split_and_several_events_come_at_once() {
    let event = text("你");
    let (head, tail) = event.as_bytes().split_at(event.find('你').unwrap() + 1);
    let several = text("a") + &text("b") + DONE;
    let chunks = vec![head.to_vec(), tail.to_vec(), several.into_bytes()];
    let script = Script { status: 200, chunks, ending: Ending::Complete };
    let record = answered(point(Protocol::OpenaiCompletions), script).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "你ab"));
    assert_eq!(record.chunk_ns.len(), 3);
    assert_eq!(record.chunk_ns[1], record.chunk_ns[2]);
}

#[tokio::test]
async fn a_role_is_a_response_but_no_token() {
    let delta = |delta: Value, finish: Option<&str>| {
        let usage = finish.map(|_| json!({"prompt_tokens": 2, "completion_tokens": 1}));
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        format!("data: {}\r\n\r\n", json!({"choices": [choice], "usage": usage}))
    };
    let role = delta(json!({"role": "assistant", "content": null}), None);
    let word = delta(json!({"content": "hi"}), None);
    let finish = delta(json!({}), Some("length"));
    let script = Script::stream(&[": ping\n\n", &role, &word, &finish, DONE]);
    let record = answered(point(Protocol::OpenaiChat), script).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "hi"));
    assert!(record.first_response_ns <= record.first_token_ns);
    assert_eq!((record.chunk_ns.len(), record.output_tokens), (1, Some(1)));
    assert_eq!(record.finish_reason.as_deref(), Some("length"));
}

#[tokio::test]
async fn an_answer_that_does_not_stream_has_no_first_token() {
    let body = json!({"choices": [{"text": "abc", "finish_reason": "stop"}], "usage": {"completion_tokens": 3}});
    let point = LoadPoint { streaming: false, ..exact(Protocol::OpenaiCompletions) };
    let record = answered(point, Script::stream(&[&body.to_string()])).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "abc"));
    assert_eq!((record.first_token_ns, record.last_token_ns), (None, Some(record.end_ns)));
    assert_eq!(record.chunk_ns, [record.end_ns]);
}

#[tokio::test]
async fn cumulative_text_counts_once_over_http_too() {
    let record = completion(&[&text(" w0"), &text(" w0 w1"), &text(" w0 w1 w2"), DONE]).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, " w0 w1 w2"));
    let record = completion(&[&text("\n"), &text("\n\n"), DONE]).await;
    assert_eq!(record.output_text, "\n\n\n");
}

#[tokio::test]
async fn an_error_inside_the_stream_fails_the_request() {
    let record = completion(&[&text("a"), "data: {\"error\":{\"message\":\"out of memory\"}}\n\n", DONE]).await;
    check_error(&record, "server", "out of memory");
    assert_eq!(record.output_text, "a");
    let record = completion(&["{\"error\":\"busy\"}"]).await;
    check_error(&record, "server", "busy");
}

#[tokio::test]
async fn a_stream_that_is_cut_fails_the_request() {
    check_error(&completion(&[&text("a")]).await, "stream", "[DONE]");
    let chunks = vec![text("a").into_bytes()];
    let script = Script { status: 200, chunks, ending: Ending::Break };
    let record = answered(point(Protocol::OpenaiCompletions), script).await;
    check_error(&record, "stream", "");
    assert_eq!(record.output_text, "a");
}

#[tokio::test]
async fn bad_json_fails_the_request() {
    check_error(&completion(&[&text("a"), "data: {\"choices\":[{\n\n", DONE]).await, "parse", "EOF");
}

#[tokio::test]
async fn text_that_is_not_utf8_fails_the_request_but_its_end_may_be_half_a_character() {
    for (chunks, right) in [([&b"a\xffb"[..], b"c"], false), ([b"a\xe4\xbd", b"b"], false), ([b"a", b"\xe4\xbd"], true)]
    {
        let mut chunks: Vec<Vec<u8>> =
            chunks.map(|text| [b"data: {\"choices\":[{\"text\":\"", text, b"\"}]}\n\n"].concat()).into();
        chunks.push(DONE.into());
        let script = Script { status: 200, chunks, ending: Ending::Complete };
        let record = answered(point(Protocol::OpenaiCompletions), script).await;
        if right {
            assert_eq!(record.error, None);
        } else {
            check_error(&record, "utf8", "at byte 1");
        }
    }
}

#[tokio::test]
async fn an_http_status_fails_the_request_with_its_message() {
    for status in [404, 429, 500] {
        let chunks = vec![b"{\"error\":{\"message\":\"not now\"}}".to_vec()];
        let script = Script { status, chunks, ending: Ending::Complete };
        let record = answered(point(Protocol::OpenaiChat), script).await;
        check_error(&record, &format!("http_{status}"), "not now");
        assert_eq!((record.output_text.as_str(), record.first_token_ns), ("", None));
    }
}

#[tokio::test]
async fn a_wrong_length_fails_the_request() {
    let chunks = [text("a"), usage(2), DONE.to_owned()];
    let script = Script::stream(&chunks.each_ref().map(String::as_str));
    let record = answered(exact(Protocol::OpenaiCompletions), script.clone()).await;
    check_error(&record, "length", "3 output tokens were asked for, the server counted 2");
    let record = answered(point(Protocol::OpenaiCompletions), script).await;
    assert_eq!(record.status, RequestStatus::Ok);
    let too_many = completion(&[&text("a"), &usage(4), DONE]).await;
    check_error(&too_many, "length", "3 output tokens at most were asked for, the server counted 4");
    let none = completion(&[&text("a"), &usage(0), DONE]).await;
    check_error(&none, "usage", "0 output tokens");
    let empty = completion(&[&usage(0), DONE]).await;
    assert_eq!(empty.status, RequestStatus::Ok, "no text, no tokens");
}

#[tokio::test]
async fn a_server_that_is_not_there_fails_the_request() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    check_error(&run_one(&url, point(Protocol::OpenaiChat)).await, "connect", "refused");
}

#[tokio::test]
async fn requests_ask_for_what_the_load_point_says() {
    let server = Server::start(|_| Script::stream(&[DONE])).await;
    run_one(&server.url, exact(Protocol::OpenaiCompletions)).await;
    let sampling = Sampling { temperature: 0.5, top_k: Some(40), top_p: Some(0.9) };
    run_one(&server.url, LoadPoint { sampling, ..point(Protocol::OpenaiChat) }).await;
    let seen = server.seen();
    assert_eq!(seen.paths, ["/v1/completions", "/v1/chat/completions"]);
    assert_eq!(
        seen.bodies,
        [
            json!({
                "model": "tiny", "prompt": "p0", "max_tokens": 3, "min_tokens": 3, "ignore_eos": true, "stream": true,
                "stream_options": {"include_usage": true}, "temperature": 0.0, "seed": 7
            }),
            json!({
                "model": "tiny", "messages": [{"role": "user", "content": "p0"}], "max_tokens": 3, "stream": true,
                "stream_options": {"include_usage": true}, "temperature": 0.5, "top_k": 40, "top_p": 0.9, "seed": 7
            }),
        ]
    );
}

#[tokio::test]
async fn token_ids_go_where_a_server_takes_them() {
    let server = Server::start(|_| Script::stream(&[DONE])).await;
    for protocol in [Protocol::OpenaiCompletions, Protocol::OpenaiChat] {
        let mut job = job(&server.url, point(protocol));
        let prompt = Prompt { content: Content::Tokens(vec![5, 6]), ..job.workload.prompts[0].clone() };
        job.workload.prompts = [prompt].into();
        run_job(job, CancellationToken::new()).await;
    }
    let bodies = server.seen().bodies.clone();
    let fields = ["prompt", "messages", "input_ids"];
    let given = bodies.iter().map(|body| fields.map(|field| body.get(field).cloned().unwrap_or_default()));
    let expected = [[json!([5, 6]), Value::Null, Value::Null], [Value::Null, json!([]), json!([5, 6])]];
    assert_eq!(given.collect::<Vec<_>>(), expected);
}

/// Triton's answer to a question for the model's tensors, then `script`.
async fn triton(inputs: &[&str], script: Script) -> Server {
    let inputs: Vec<Value> = inputs.iter().map(|name| json!({"name": name, "datatype": "", "shape": [-1]})).collect();
    let metadata = json!({"name": "tiny", "inputs": inputs, "outputs": []}).to_string();
    Server::start(move |number| if number == 0 { Script::stream(&[&metadata]) } else { script.clone() }).await
}

#[tokio::test]
async fn triton_streams_over_http() {
    let event = |text| format!("data: {}\n\n", json!({"model_name": "tiny", "text_output": text}));
    let script = Script::stream(&[&event("a"), &event(""), &event("b")]);
    let server = triton(&["text_input", "max_tokens", "min_length", "random_seed", "stream"], script).await;
    let record = run_one(&server.url, exact(Protocol::TritonGenerateStream)).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "ab"), "{:?}", record.error);
    assert_eq!((record.chunk_ns.len(), record.output_tokens), (2, None));
    let seen = server.seen();
    assert_eq!(seen.paths, ["/v2/models/tiny", "/v2/models/tiny/generate_stream"]);
    let expected = json!({"text_input": "p0", "max_tokens": 3, "min_length": 3, "random_seed": 7, "stream": true});
    assert_eq!(seen.bodies[1], expected);
}

#[tokio::test]
async fn triton_generates_in_one_piece() {
    let body = json!({
        "text_output": "abc", "num_output_tokens": 3, "num_input_tokens": [4], "arrival_time_ns": 1000,
        "first_scheduled_time_ns": "1007", "first_token_time_ns": [1009], "kv_cache_reused_block": "2"
    });
    let body = body.to_string();
    let inputs = [
        "text_input",
        "max_tokens",
        "min_tokens",
        "seed",
        "exclude_input_in_output",
        "stream",
        "top_k",
        "return_perf_metrics",
    ];
    let server = triton(&inputs, Script::stream(&[&body])).await;
    let record = run_one(&server.url, exact(Protocol::TritonGenerate)).await;
    assert_eq!((record.status, record.output_text.as_str()), (RequestStatus::Ok, "abc"), "{:?}", record.error);
    assert_eq!((record.output_tokens, record.output_tokens_source), (Some(3), Some(TokenSource::ServerTensor)));
    assert_eq!((record.input_tokens, record.first_token_ns), (Some(4), None));
    let said = ServerSaid { queue_ns: Some(7), ttft_ns: Some(9), reused_blocks: Some(2) };
    assert_eq!(record.server, Some(said));
    let expected = json!({
        "text_input": "p0", "max_tokens": 3, "min_tokens": 3, "stream": false, "top_k": 1, "seed": 7,
        "exclude_input_in_output": true, "return_perf_metrics": true
    });
    assert_eq!(server.seen().bodies[1], expected);
}

#[tokio::test]
async fn triton_reports_errors_with_a_status_of_success() {
    let inputs = ["text_input", "max_tokens"];
    let server = triton(&inputs, Script::stream(&["data: {\"error\":\"no slot\"}\n\n"])).await;
    check_error(&run_one(&server.url, point(Protocol::TritonGenerateStream)).await, "server", "no slot");
    let server = triton(&inputs, Script::stream(&["{\"error\":\"exactly 1 response\"}"])).await;
    check_error(&run_one(&server.url, point(Protocol::TritonGenerate)).await, "server", "exactly 1 response");
}
