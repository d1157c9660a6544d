//! The open loop: what is due is sent, whatever the server does, and nothing is hidden.

use benchrun::record::{RequestKind, RequestStatus};
use benchrun::spec::{Arrival, ConcurrencyStage, LoadPoint, Protocol, RateStage, Spacing, Volume};
use tokio_util::sync::CancellationToken;

use super::http_server::{Ending, Script, Server};
use super::{check_error, check_times, point, run, run_one};

const ANSWER: &[&str] = &["data: {\"choices\":[{\"text\":\"a\"}]}\n\n", "data: [DONE]\n\n"];

fn open(rate: f64, max_concurrency: Option<u32>, requests: u64) -> LoadPoint {
    LoadPoint {
        arrival: Arrival::Open { spacing: Spacing::Constant, rate, max_concurrency },
        volume: Volume::Requests(requests),
        ..point(Protocol::OpenaiCompletions)
    }
}

#[tokio::test]
async fn requests_are_sent_when_they_are_due_and_not_before() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let load = LoadPoint { warmup_requests: 5, ..open(200.0, None, 20) };
    let (outcome, records) = run(&server.url, load, CancellationToken::new()).await;
    assert_eq!((outcome.records, outcome.cut_off), (25, None));
    let warmup = records.iter().filter(|record| record.kind == RequestKind::Warmup).count();
    assert_eq!(warmup, 5, "the first of the schedule");
    let mut due_ns: Vec<u64> = records.iter().map(|record| record.due_ns).collect();
    due_ns.sort_unstable();
    assert!(due_ns.array_windows().all(|[from, to]| to - from == 5_000_000), "{due_ns:?}");
    for record in &records {
        check_times(record);
        assert_eq!((record.status, record.connect_ns), (RequestStatus::Ok, None), "{record:?}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_holds_nothing_back() {
    // No request is answered before all twelve are there.
    let server = Server::start_gated(12, |_| Script::stream(ANSWER)).await;
    let (_, records) = run(&server.url, open(500.0, None, 12), CancellationToken::new()).await;
    assert!(records.iter().all(|record| record.status == RequestStatus::Ok));
    assert_eq!(server.seen().most_at_once, 12);
}

#[tokio::test]
async fn a_bound_on_requests_under_way_is_kept_and_its_wait_is_recorded() {
    // Two at a time: a request is answered only when another is there.
    let server = Server::start_gated(2, |_| Script::stream(ANSWER)).await;
    let (_, records) = run(&server.url, open(100_000.0, Some(2), 40), CancellationToken::new()).await;
    assert_eq!(records.len(), 40);
    assert_eq!(server.seen().most_at_once, 2);
    let waited = records.iter().filter(|record| record.free_ns.is_some()).count();
    assert!(waited > 0, "they were all due at once");
    for record in &records {
        check_times(record);
        assert!(record.free_ns.is_none_or(|free_ns| record.due_ns <= free_ns && free_ns <= record.sent_ns));
    }
}

#[tokio::test]
async fn a_ramp_ends_with_its_stages() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let stages = vec![
        RateStage { from: 0.0, to: 200.0, duration_s: 0.2 },
        RateStage { from: 100.0, to: 100.0, duration_s: 0.1 },
    ];
    let arrival = Arrival::OpenStages { spacing: Spacing::Poisson, stages, max_concurrency: None };
    let load = LoadPoint { arrival, volume: Volume::DurationS(0.3), ..open(1.0, None, 1) };
    let (_, records) = run(&server.url, load, CancellationToken::new()).await;
    assert_eq!(records.len(), 30);
}

#[tokio::test]
async fn stages_of_a_closed_loop_change_its_concurrency() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let stage = |concurrency, duration_s| ConcurrencyStage { concurrency, duration_s };
    let arrival = Arrival::ClosedStages { stages: vec![stage(1, 0.2), stage(3, 0.2)] };
    let load = LoadPoint { arrival, volume: Volume::DurationS(0.4), ..open(1.0, None, 1) };
    let (_, records) = run(&server.url, load, CancellationToken::new()).await;
    let began_ns = records.iter().map(|record| record.sent_ns).min().unwrap();
    let late = |record: &&benchrun::record::RequestRecord| record.worker > 0;
    assert!(records.iter().filter(late).count() > 0, "the second stage has room for three");
    assert!(records.iter().filter(late).all(|record| record.sent_ns - began_ns >= 190_000_000));
}

#[tokio::test]
async fn what_does_not_end_in_time_is_drained() {
    let hanging = Script { ending: Ending::Hang, ..Script::stream(&ANSWER[..1]) };
    let server = Server::start(move |number| if number == 0 { hanging.clone() } else { Script::stream(ANSWER) }).await;
    let load = LoadPoint { drain_s: Some(0.2), ..open(500.0, None, 5) };
    let (outcome, records) = run(&server.url, load, CancellationToken::new()).await;
    assert_eq!(outcome.cut_off, None, "a drain that was asked for cuts no load point off");
    let cut_off = records.iter().filter(|record| record.status == RequestStatus::CutOff).count();
    assert_eq!((records.len(), cut_off), (5, 1));
}

#[tokio::test]
async fn an_answer_that_falls_silent_has_stalled() {
    let hanging = Script { ending: Ending::Hang, ..Script::stream(&ANSWER[..1]) };
    let server = Server::start(move |_| hanging.clone()).await;
    let load = LoadPoint { idle_timeout_s: Some(0.2), ..point(Protocol::OpenaiCompletions) };
    let record = run_one(&server.url, load).await;
    check_error(&record, "stall", "200ms");
    assert_eq!(record.output_text, "a");
}

#[tokio::test]
async fn a_refused_request_is_sent_again_only_if_asked_for() {
    let busy = Script { status: 503, chunks: vec![b"busy".to_vec()], ending: Ending::Complete };
    let script = move |number| if number < 2 { busy.clone() } else { Script::stream(ANSWER) };
    let server = Server::start(script.clone()).await;
    let record = run_one(&server.url, point(Protocol::OpenaiCompletions)).await;
    check_error(&record, "http_503", "busy");

    let server = Server::start(script).await;
    let load = LoadPoint { retries: 2, ..point(Protocol::OpenaiCompletions) };
    let record = run_one(&server.url, load).await;
    assert_eq!((record.status, record.attempts), (RequestStatus::Ok, 3));
    // The server names no time, so each pause is a second, and the clock runs on.
    assert!(record.end_ns - record.sent_ns >= 2_000_000_000);
}

#[tokio::test]
async fn cold_connections_are_part_of_their_requests() {
    let server = Server::start(|_| Script::stream(ANSWER)).await;
    let load = LoadPoint { cold_connections: true, ..open(200.0, None, 6) };
    let (outcome, records) = run(&server.url, load, CancellationToken::new()).await;
    assert_eq!((server.seen().connections, outcome.client.connections), (6, Some(6)));
    for record in &records {
        let connect_ns = record.connect_ns.expect("each has its own");
        assert!(record.first_response_ns.unwrap() - record.sent_ns >= connect_ns, "{record:?}");
    }
}
