//! The closed loop: order, concurrency, warm-up, time limits, connections.

use benchrun::load::CutOff;
use benchrun::record::{RequestKind, RequestRecord, RequestStatus};
use benchrun::spec::{Arrival, LoadPoint, Protocol, Volume};
use tokio_util::sync::CancellationToken;

use super::http_server::{Ending, Script, Server};
use super::{check_error, check_times, point, run, run_into, run_to_error};

const ANSWER: &[&str] = &["data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "data: [DONE]\n\n"];

fn chat(concurrency: u32, warmup_requests: u64, requests: u64) -> LoadPoint {
    let volume = Volume::Requests(requests);
    LoadPoint {
        arrival: Arrival::Closed { concurrency },
        warmup_requests,
        volume,
        ..point(Protocol::OpenaiCompletions)
    }
}

fn hanging() -> Script {
    Script { ending: Ending::Hang, ..Script::stream(&ANSWER[..1]) }
}

#[tokio::test]
async fn concurrency_is_reached_and_not_exceeded() {
    // No request is answered before four are under way.
    let server = Server::start_gated(4, |_| Script::stream(ANSWER)).await;
    let (outcome, records) = run(&server.url, chat(4, 4, 12), CancellationToken::new()).await;
    assert_eq!((outcome.records, outcome.cut_off), (16, None));
    assert!(records.iter().all(|record| record.attempts == 1 && record.connect_ns.is_none()));
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok), "{records:?}");
    records.iter().for_each(check_times);
    let seen = server.seen();
    assert_eq!((seen.most_at_once, seen.connections), (4, 4));
}

#[tokio::test]
async fn prompts_are_sent_in_order_and_again_from_the_first() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let (_, records) = run(&server.url, chat(1, 2, 5), CancellationToken::new()).await;
    let sent: Vec<String> =
        server.seen().bodies.iter().map(|body| body["prompt"].as_str().unwrap().to_owned()).collect();
    assert_eq!(sent, ["p0", "p1", "p2", "p0", "p1", "p2", "p0"]);
    let numbers: Vec<(u64, u64)> = records.iter().map(|record| (record.request, record.prompt)).collect();
    assert_eq!(numbers, [(0, 0), (1, 1), (2, 2), (3, 0), (4, 1), (5, 2), (6, 0)]);
}

#[tokio::test]
async fn warmup_ends_before_the_measurement_begins() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let (_, records) = run(&server.url, chat(3, 5, 6), CancellationToken::new()).await;
    let of = |kind| records.iter().filter(move |record| record.kind == kind);
    assert_eq!((of(RequestKind::Warmup).count(), of(RequestKind::Measure).count()), (5, 6));
    let last_warmup = of(RequestKind::Warmup).map(|record| record.end_ns).max();
    let first_measured = of(RequestKind::Measure).map(|record| record.due_ns).min();
    assert!(last_warmup <= first_measured);
}

#[tokio::test]
async fn a_duration_ends_the_load_but_not_the_requests() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let duration = LoadPoint { volume: Volume::DurationS(0.2), ..chat(2, 0, 0) };
    let (outcome, records) = run(&server.url, duration, CancellationToken::new()).await;
    assert!(!records.is_empty() && outcome.cut_off.is_none());
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok));
    assert!(outcome.client.cpu_share.is_some());
}

#[tokio::test]
async fn a_request_without_an_end_times_out_and_the_next_goes_on() {
    let server = Server::start(|number| if number == 0 { hanging() } else { Script::stream(ANSWER) }).await;
    let limited = LoadPoint { request_timeout_s: 0.3, ..chat(1, 0, 2) };
    let (_, records) = run(&server.url, limited, CancellationToken::new()).await;
    check_error(&records[0], "timeout", "300ms");
    assert_eq!(records[0].output_text, "a");
    assert_eq!(records[1].status, RequestStatus::Ok);
}

#[tokio::test]
async fn requests_under_way_are_cut_off_when_the_point_is_stopped() {
    let check = |records: &[RequestRecord]| {
        assert_eq!(records.len(), 2);
        for record in records {
            assert_eq!((record.status, record.error.is_none()), (RequestStatus::CutOff, true));
        }
    };
    let server = Server::start(|_| hanging()).await;
    let limited = LoadPoint { point_timeout_s: 0.3, ..chat(2, 0, 9) };
    let (outcome, records) = run(&server.url, limited, CancellationToken::new()).await;
    assert_eq!(outcome.cut_off, Some(CutOff::PointTimeout));
    check(&records);

    let cancel = CancellationToken::new();
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |number| {
        arrived.send(number).unwrap();
        hanging()
    })
    .await;
    let cancel_when_both_are_there = async {
        arrivals.recv().await;
        arrivals.recv().await;
        cancel.cancel();
    };
    let ((outcome, records), ()) =
        tokio::join!(run(&server.url, chat(2, 0, 9), cancel.clone()), cancel_when_both_are_there);
    assert_eq!(outcome.cut_off, Some(CutOff::Cancelled));
    check(&records);
}

#[tokio::test]
async fn a_server_that_closes_after_each_answer_costs_no_request() {
    let closing = Script { ending: Ending::CompleteThenClose, ..Script::stream(ANSWER) };
    let server = Server::start(move |_| closing.clone()).await;
    let (_, records) = run(&server.url, chat(1, 0, 20), CancellationToken::new()).await;
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok), "{records:?}");
    assert!(records.iter().map(|record| record.attempts - 1).sum::<u32>() <= 1);
    assert!(server.seen().connections >= 20);
}

#[tokio::test]
async fn a_disk_that_fills_is_an_error() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let error = run_into("/dev/full", &server.url, chat(2, 0, 50)).await;
    assert_eq!(error, "cannot write the records of requests to `/dev/full`");
}

#[tokio::test]
async fn an_address_that_is_none_is_refused() {
    for url in ["localhost:8000", "https://localhost", "http://", "nonsense"] {
        let error = run_to_error(url, chat(1, 0, 1)).await;
        assert!(error.starts_with(&format!("`{url}` is not the address")), "{error}");
    }
}

#[tokio::test]
async fn more_connections_than_files_may_be_open_are_refused() {
    let error = run_to_error("http://127.0.0.1:9", chat(u32::MAX, 0, 1)).await;
    assert!(error.starts_with("4294967551 open files are needed, and this process may have"), "{error}");
}
