//! Handmade points and requests for tests, with times in milliseconds.

use indexmap::IndexMap;

use crate::base::CellId;
use crate::record::{
    ClientFacts, PointRecord, PointStatus, RequestKind, RequestRecord, RequestStatus, ServerFacts, TokenSource,
};
use crate::spec::Protocol;

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// A closed-loop load point.
pub(crate) fn point() -> PointRecord {
    PointRecord {
        order: 0,
        cell: CellId::new("tiny/fp32/bs1".to_owned()),
        engine: "embedded".to_owned(),
        axes: IndexMap::new(),
        phase: "chat".to_owned(),
        method: None,
        load_point: "c4".to_owned(),
        protocol: Protocol::OpenaiChat,
        arrival: "closed".to_owned(),
        concurrency: Some(4),
        request_rate: None,
        constant_load: true,
        slo: None,
        round: 1,
        series: None,
        status: PointStatus::Ok,
        reason: None,
        measured_in: None,
        workload: None,
        client: ClientFacts::default(),
        server: ServerFacts::default(),
    }
}

pub(crate) fn open_loop_point() -> PointRecord {
    let arrival = "poisson".to_owned();
    let load_point = "rate12.5".to_owned();
    PointRecord { arrival, load_point, concurrency: None, request_rate: Some(12.5), ..point() }
}

/// A request of 100 input tokens, due 1 ms before it was sent, with text arriving at each of `chunks`, ended 5 ms later.
pub(crate) fn streamed(sent: u64, chunks: &[u64], output_tokens: u32) -> RequestRecord {
    let chunk_ns: Vec<u64> = chunks.iter().map(|chunk| chunk * MS).collect();
    let (first_token_ns, last_token_ns) = (chunk_ns.first().copied(), chunk_ns.last().copied());
    RequestRecord {
        request: 0,
        kind: RequestKind::Measure,
        prompt: 0,
        conversation: None,
        worker: 0,
        free_ns: None,
        connect_ns: None,
        attempts: 1,
        due_ns: (sent * MS).saturating_sub(MS),
        sent_ns: sent * MS,
        first_response_ns: Some(sent * MS + 1),
        first_token_ns,
        last_token_ns,
        end_ns: last_token_ns.unwrap_or(sent * MS) + 5 * MS,
        chunk_bytes: vec![1; chunk_ns.len()],
        chunk_ns,
        status: RequestStatus::Ok,
        error: None,
        input_tokens: Some(100),
        input_tokens_sent: Some(100),
        output_tokens: Some(output_tokens),
        output_tokens_asked: None,
        output_tokens_source: Some(TokenSource::ServerUsage),
        finish_reason: Some("length".to_owned()),
        server: None,
        output_text: "a".repeat(chunks.len()),
    }
}

/// A request whose answer came in one piece at `end`.
pub(crate) fn answered(sent: u64, end: u64, output_tokens: u32) -> RequestRecord {
    let output_text = "an answer".to_owned();
    RequestRecord { end_ns: end * MS, output_text, ..streamed(sent, &[], output_tokens) }
}

pub(crate) fn ended(status: RequestStatus, record: RequestRecord) -> RequestRecord {
    RequestRecord { status, ..record }
}

pub(crate) fn warmup(record: RequestRecord) -> RequestRecord {
    RequestRecord { kind: RequestKind::Warmup, ..record }
}
