//! Conversations of several turns carry the real answers so far.

use std::sync::Arc;
use std::time::Duration;

use benchrun::load::LoadJob;
use benchrun::record::RequestStatus;
use benchrun::spec::{Arrival, LoadPoint, Protocol, Volume};
use benchrun::workload::{Prompt, Workload};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::http_server::{Script, Server};
use super::{check_times, job, point, run_job};

const THINK_TIME: Duration = Duration::from_millis(20);

fn conversations(url: &str, load: LoadPoint) -> LoadJob {
    let turn = |text: &str, turn| Prompt {
        turn,
        think_time: if turn > 0 { THINK_TIME } else { Duration::ZERO },
        output_tokens: Some(turn + 1),
        ..Prompt::of_text(text.to_owned(), Some(1))
    };
    let prompts = Arc::from([turn("a", 0), turn("b", 1), turn("c", 0)]);
    LoadJob { workload: Workload { prompts, due_ns: None }, ..job(url, load) }
}

fn answering(protocol: Protocol) -> Script {
    let choice = match protocol {
        Protocol::OpenaiChat => json!({"delta": {"content": " yes "}}),
        _ => json!({"text": " yes "}),
    };
    Script::stream(&[&format!("data: {}\n\n", json!({"choices": [choice]})), "data: [DONE]\n\n"])
}

#[tokio::test]
async fn each_turn_carries_the_answers_before_it() {
    let server = Server::start(|_| answering(Protocol::OpenaiChat)).await;
    let load = LoadPoint { volume: Volume::Requests(3), ..point(Protocol::OpenaiChat) };
    let (_, records) = run_job(conversations(&server.url, load), CancellationToken::new()).await;
    let seen = server.seen();
    let said: Vec<&serde_json::Value> = seen.bodies.iter().map(|body| &body["messages"]).collect();
    let user = |text| json!({"role": "user", "content": text});
    let assistant = json!({"role": "assistant", "content": " yes "});
    assert_eq!(said, [&json!([user("a")]), &json!([user("a"), assistant, user("b")]), &json!([user("c")])]);
    let lengths: Vec<u64> = seen.bodies.iter().map(|body| body["max_tokens"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [1, 2, 1]);
    let of: Vec<_> = records.iter().map(|record| (record.conversation, record.prompt)).collect();
    assert_eq!(of, [(Some(0), 0), (Some(0), 1), (Some(1), 2)]);
    assert_eq!(records[1].due_ns, records[0].end_ns + 20_000_000);
    records.iter().for_each(check_times);
}

#[tokio::test]
async fn a_count_ends_with_a_whole_conversation() {
    let server = Server::start(|_| answering(Protocol::OpenaiCompletions)).await;
    let arrival = Arrival::Closed { concurrency: 2 };
    let load = LoadPoint { arrival, volume: Volume::Requests(4), ..point(Protocol::OpenaiCompletions) };
    let (_, records) = run_job(conversations(&server.url, load), CancellationToken::new()).await;
    assert_eq!(records.len(), 5, "the third conversation begins with the fourth turn");
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok));
    let prompts: Vec<String> =
        server.seen().bodies.iter().map(|body| body["prompt"].as_str().unwrap().to_owned()).collect();
    assert_eq!(prompts.iter().filter(|prompt| *prompt == "a\n yes \nb").count(), 2, "{prompts:?}");
}

#[tokio::test]
async fn a_conversation_ends_with_the_first_request_that_fails() {
    let broken = Script { status: 500, chunks: vec![b"no".to_vec()], ..answering(Protocol::OpenaiChat) };
    let server =
        Server::start(move |number| if number == 0 { broken.clone() } else { answering(Protocol::OpenaiChat) }).await;
    let load = LoadPoint { volume: Volume::Requests(3), ..point(Protocol::OpenaiChat) };
    let (_, records) = run_job(conversations(&server.url, load), CancellationToken::new()).await;
    let ended: Vec<_> = records.iter().map(|record| (record.prompt, record.status)).collect();
    assert_eq!(ended, [(0, RequestStatus::Failed), (2, RequestStatus::Ok)]);
}
