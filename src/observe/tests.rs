use super::figures::Pages;
use super::idle::Activity;
use super::sent::Sent;
use super::snapshot::{Snapshot, Window, family_of_page};
use crate::record::{RequestError, RequestKind, RequestRecord, RequestStatus, ServerWindow, TokenSource};

/// A page that a server shows after ten requests, as its own page looks; before, there was nothing.
const VLLM: &str = include_str!("fixtures/vllm.txt");
const VLLM_0_8: &str = include_str!("fixtures/vllm-0.8.txt");
const SGLANG: &str = include_str!("fixtures/sglang.txt");
const LMDEPLOY: &str = include_str!("fixtures/lmdeploy.txt");
const TRTLLM_SERVE: &str = include_str!("fixtures/trtllm-serve.txt");
const LLAMA_CPP: &str = include_str!("fixtures/llamacpp.txt");
const TRITON: &str = include_str!("fixtures/triton.txt");

fn snapshot(page: &str) -> Snapshot {
    Snapshot::of_page(page, family_of_page(page).unwrap(), 0.0)
}

/// Requests, prompt and generation tokens, mean TTFT, its 99th percentile, mean queue time, KV cache usage, prefix hits,
/// requests running and waiting.
fn figures(page: &str, model: &str) -> [Option<f64>; 10] {
    let family = family_of_page(page).unwrap();
    let (from, to) = (Snapshot::default(), snapshot(page));
    let window = Window { from: &from, to: &to, model };
    [
        window.count(family.requests),
        window.count(family.prompt_tokens),
        window.count(family.generation_tokens),
        window.mean_ms(family.ttft),
        window.percentile_ms(family.ttft, 0.99),
        window.mean_ms(family.queue),
        to.share(family.kv_cache_usage, model),
        window.share(family.prefix_hits),
        to.sum(family.running, model),
        to.sum(family.waiting, model),
    ]
}

#[test]
fn a_server_is_idle_when_nothing_runs_or_nothing_was_added() {
    let activity = |page: &str| Activity::of_page(page).unwrap();
    // With the gauges of the backend, and without.
    assert_eq!(activity(TRITON), Activity::InFlight(4.0));
    let bare = |model: &str, count: u32| format!("nv_inference_count{{model=\"{model}\",version=\"1\"}} {count}\n");
    let page = |tokens: u32| bare("ensemble", 1) + &bare("postprocessing", tokens);
    assert!(!activity(&page(8)).is_idle_since(activity(&page(7))));
    assert!(activity(&page(8)).is_idle_since(activity(&page(8))));
    let running = |requests: u32| format!("vllm:num_requests_running {requests}\nvllm:num_requests_waiting 0\n");
    assert!(!activity(&running(1)).is_idle_since(activity(&running(1))));
    assert!(!activity(&running(0)).is_idle_since(activity(&running(1))), "it may be between two");
    assert!(activity(&running(0)).is_idle_since(activity(&running(0))));
    assert_eq!(Activity::of_page("llamacpp:prompt_tokens_total 3\n"), None);
}

#[test]
fn each_engine_is_read_by_its_own_names() {
    let no = f64::NAN;
    for (page, model, expected) in [
        (VLLM, "any", [10.0, 800.0, 320.0, 41.0, 78.0, 2.0, 0.4375, 0.2, 3.0, 1.0]),
        (VLLM_0_8, "any", [4.0, no, no, no, no, no, 0.25, 0.25, 2.0, 0.0]),
        // Both ranks of its tensor parallel group tell the same queue.
        (SGLANG, "any", [10.0, 640.0, 160.0, 160.0, 390.0, 5.0, 0.28, 0.1, 4.0, 0.0]),
        (LMDEPLOY, "any", [10.0, 1000.0, 500.0, 50.0, 59.8, 10.0, 0.5, 0.0, 6.0, 2.0]),
        (TRTLLM_SERVE, "any", [10.0, 640.0, 320.0, 70.0, 79.8, 2.0, 0.125, 0.25, 3.0, 1.0]),
        (LLAMA_CPP, "any", [no, 500.0, 300.0, no, no, no, no, 0.1, 2.0, 5.0]),
        // The queues of all models of the ensemble, for each request to it.
        (TRITON, "ensemble", [10.0, 700.0, 400.0, 180.0, 493.333_333_333, 0.5, 0.25, no, 3.0, 1.0]),
    ] {
        for (index, (figure, expected)) in figures(page, model).into_iter().zip(expected).enumerate() {
            let is_right = match figure {
                Some(figure) => (figure - expected).abs() < 1e-6,
                None => expected.is_nan(),
            };
            assert!(is_right, "figure {index} of `{}`: {figure:?} is not {expected}", page.lines().nth(2).unwrap());
        }
    }
    assert_eq!(figures(TRITON, "another")[0], None, "no request named it");
}

#[test]
fn only_known_series_are_kept() {
    let kept = snapshot(VLLM);
    assert!(
        kept.values.contains_key("vllm:num_requests_running{engine=\"0\",model_name=\"Qwen/Qwen2.5-0.5B-Instruct\"}")
    );
    assert!(kept.values.keys().all(|series| !series.contains("gc_objects") && !series.contains("_created")));
    assert!(family_of_page("up 1\n").is_none() && family_of_page("<html>vllm:</html>").is_none());
}

/// A page of the embedded engine: requests, output tokens, and two buckets of TTFT.
fn page(requests: u32, tokens: u32, fast: u32, slow: u32, running: u32) -> Snapshot {
    let (ttft, count) = ("benchrun_engine_time_to_first_token_seconds", fast + slow);
    snapshot(&format!(
        "benchrun_engine_requests_finished_total {requests}\nbenchrun_engine_generation_tokens_total {tokens}\n\
         benchrun_engine_prompt_tokens_total {tokens}\nbenchrun_engine_requests_running {running}\n\
         {ttft}_bucket{{le=\"0.1\"}} {fast}\n{ttft}_bucket{{le=\"+Inf\"}} {count}\n{ttft}_sum {count}\n{ttft}_count {count}\n"
    ))
}

fn pages(all: impl IntoIterator<Item = Snapshot>) -> Pages {
    let mut all = all.into_iter();
    let family = family_of_page("benchrun_engine_requests_running 0").unwrap();
    let mut pages = Pages::new(family, "any".to_owned(), all.next().unwrap());
    all.for_each(|page| pages.take(page));
    pages
}

/// One request at a time, a second each.
fn sent(warmup: u64, measured: u64, tokens: u32) -> Sent {
    let mut sent = Sent::default();
    (0..warmup + measured).for_each(|number| {
        let kind = if number < warmup { RequestKind::Warmup } else { RequestKind::Measure };
        sent.add(&record(number, kind, tokens));
    });
    sent
}

fn record(number: u64, kind: RequestKind, tokens: u32) -> RequestRecord {
    RequestRecord {
        request: number,
        kind,
        prompt: 0,
        conversation: None,
        worker: 0,
        due_ns: number * 1_000_000_000,
        free_ns: None,
        connect_ns: None,
        sent_ns: number * 1_000_000_000,
        attempts: 1,
        first_response_ns: None,
        first_token_ns: None,
        last_token_ns: None,
        end_ns: (number + 1) * 1_000_000_000,
        chunk_ns: Vec::new(),
        chunk_bytes: Vec::new(),
        status: RequestStatus::Ok,
        error: None,
        input_tokens: Some(tokens),
        input_tokens_sent: None,
        output_tokens: Some(tokens),
        output_tokens_asked: None,
        output_tokens_source: Some(TokenSource::ServerUsage),
        finish_reason: None,
        server: None,
        output_text: String::new(),
    }
}

fn checked(pages: &Pages, sent: &Sent) -> String {
    let checks = pages.metrics(sent).checks;
    checks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

#[test]
fn counts_of_both_sides_are_compared() {
    let seen = pages([page(7, 100, 0, 0, 0), page(17, 140, 0, 0, 0)]);
    assert_eq!(checked(&seen, &sent(2, 8, 4)), "requests=ok input_tokens=ok output_tokens=ok littles_law=unknown");
    let complaints = pages([page(7, 100, 0, 0, 0), page(19, 139, 0, 0, 0)]).metrics(&sent(2, 8, 4));
    let complaints: Vec<_> = complaints.checks.iter().filter_map(crate::record::Check::complaint).collect();
    assert_eq!(complaints[0], "the check `requests` failed: the server says 12, the client 10");
    assert_eq!(complaints.len(), 3);

    // A restarted server has lost its counts, and one that never counted has none.
    let restarted = pages([page(7, 100, 0, 0, 0), page(5, 20, 0, 0, 0)]);
    let unknown = "requests=unknown input_tokens=unknown output_tokens=unknown littles_law=unknown";
    assert_eq!(checked(&restarted, &sent(2, 8, 4)), unknown);
}

#[test]
fn what_failed_may_or_may_not_have_been_counted() {
    let mut sent = sent(0, 9, 4);
    let failed = RequestRecord {
        status: RequestStatus::Failed,
        error: Some(RequestError { kind: "stream".to_owned(), message: String::new() }),
        output_tokens: None,
        ..record(9, RequestKind::Measure, 4)
    };
    sent.add(&failed);
    for (counted, expected) in [(9, "requests=ok"), (10, "requests=ok"), (8, "requests=failed(8!=10)")] {
        let words = checked(&pages([page(0, 0, 0, 0, 0), page(counted, 38, 0, 0, 0)]), &sent);
        assert_eq!(words, format!("{expected} input_tokens=unknown output_tokens=unknown littles_law=unknown"));
    }
}

#[test]
fn our_own_counts_of_texts_need_not_be_exact() {
    let mut sent = Sent::default();
    for number in 0..10 {
        let source = Some(TokenSource::Tokenizer);
        sent.add(&RequestRecord { output_tokens_source: source, ..record(number, RequestKind::Measure, 4) });
    }
    for (tokens, expected) in [(50, "output_tokens=ok"), (51, "output_tokens=failed(51!=40)")] {
        let words = checked(&pages([page(0, 0, 0, 0, 0), page(10, tokens, 0, 0, 0)]), &sent);
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn concurrency_is_rate_times_time() {
    for (running, expected) in [(1, "littles_law=ok"), (4, "littles_law=failed(4!=1)")] {
        let all = (0..=20).map(|second: u32| Snapshot { at_s: f64::from(second), ..page(second, 0, 0, 0, running) });
        let words = checked(&pages(all), &sent(0, 20, 4));
        assert!(words.ends_with(expected), "{words}");
    }
}

#[test]
fn the_warmup_is_left_out_when_its_page_came_in_time() {
    // Two slow warm-up requests, then eight fast ones.
    let (before, after) = (page(0, 0, 0, 0, 0), page(10, 40, 8, 2, 0));
    for (marked, window, p99) in [
        (Some(page(2, 8, 0, 2, 1)), ServerWindow::Measured, Some(99.0)),
        (Some(page(3, 9, 1, 2, 1)), ServerWindow::All, None),
        (None, ServerWindow::All, None),
    ] {
        let seen = Pages { marked, ..pages([before.clone(), after.clone()]) };
        let metrics = seen.metrics(&sent(2, 8, 4));
        assert_eq!(metrics.window, window);
        // Above the last bound nothing is known.
        assert_eq!(metrics.ttft_ms_p99.map(f64::round), p99);
        assert_eq!(metrics.ttft_ms_mean, Some(1000.0));
    }
}
