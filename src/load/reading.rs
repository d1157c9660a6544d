use std::time::Duration;

use super::answer::{Answer, server_message};
use super::exchange::{Arrivals, Clock, End, Exchange};
use super::{http1, in_process, lmdeploy, openai, triton_answer};
use crate::record::RequestError;
use crate::spec::{LoadPoint, Protocol};

/// What the bytes of one exchange say.
pub(super) struct Reading {
    pub(super) answer: Answer,
    /// The server answered with an HTTP status that is no success.
    pub(super) refused: Option<RequestError>,
}

/// Reads what arrived. An answer that does not stream has all its text at its end.
pub(super) fn read(point: &LoadPoint, clock: Clock, exchange: &Exchange) -> Reading {
    let mut body = exchange.received.whole();
    if !point.protocol.is_grpc() {
        let reply = http1::unframe(&body);
        if !matches!(reply.status, 0 | 200..300) {
            return refused(reply.status, &reply.body, &body);
        }
        body = reply.body;
    }
    let mut answer = answer_in(&body, point, clock, exchange);
    if !point.streams() {
        let end_ns = answer.own_ns.as_ref().map_or(exchange.end_ns, |own| own.end);
        answer.join_chunks(end_ns);
    }
    Reading { answer, refused: None }
}

/// Before a refused request is sent again, if the server does not name a time.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What is longer is an answer, which need not be read to know that.
const LONGEST_REFUSAL: usize = 16 << 10;
/// In the messages of Triton's core and of TensorRT-LLM's executor whose queue is full. On a stream they have no code.
const QUEUE_IS_FULL: [&str; 2] = ["Exceeds maximum queue size", "Maximum queue size of"];

/// Whether the server refused a request for now, before it gave any of its answer: how long to wait before it is asked again.
pub(super) fn refused_for_now(point: &LoadPoint, clock: Clock, exchange: &Exchange, end: &End) -> Option<Duration> {
    let received = &exchange.received;
    match end {
        End::CutOff => None,
        End::Failed(error) => {
            let is_for_now = ["grpc_resource_exhausted", "grpc_unavailable"].contains(&error.kind.as_str());
            (is_for_now && received.is_empty()).then_some(RETRY_PAUSE)
        }
        End::Complete if received.len() > LONGEST_REFUSAL => None,
        End::Complete => {
            let Reading { answer, refused } = read(point, clock, exchange);
            if let Some(refused) = refused {
                let is_for_now = ["http_429", "http_503"].contains(&refused.kind.as_str());
                return is_for_now.then(|| http1::unframe(&received.whole()).retry_after.unwrap_or(RETRY_PAUSE));
            }
            let message = answer.error.filter(|_| answer.chunk_ns.is_empty())?.message;
            QUEUE_IS_FULL.iter().any(|full| message.contains(full)).then_some(RETRY_PAUSE)
        }
    }
}

fn answer_in(body: &Arrivals, point: &LoadPoint, clock: Clock, exchange: &Exchange) -> Answer {
    let end_ns = exchange.end_ns;
    if body.bytes.is_empty() {
        let mut answer = Answer::default();
        if matches!(exchange.end, End::Complete) {
            answer.fail("stream", "the answer was empty".to_owned());
        }
        return answer;
    }
    match (point.protocol, point.streaming) {
        (Protocol::OpenaiCompletions | Protocol::OpenaiChat, true) => openai::read_stream(body),
        (Protocol::OpenaiCompletions | Protocol::OpenaiChat, false) => openai::read_body(body, end_ns),
        (Protocol::TritonGrpc, _) => triton_answer::read_grpc(body),
        (Protocol::TritonGenerate, _) => triton_answer::read_body(body, end_ns),
        (Protocol::TritonGenerateStream, _) => triton_answer::read_stream(body),
        (Protocol::LmdeployTriton, _) => lmdeploy::read(body),
        (Protocol::InProcess, _) => in_process::read(body, exchange.sent_ns..end_ns, clock),
    }
}

fn refused(status: u16, body: &Arrivals, arrivals: &Arrivals) -> Reading {
    let first_response_ns = arrivals.marks.first().map(|first| first.at_ns);
    let error = RequestError { kind: format!("http_{status}"), message: server_message(&body.bytes) };
    Reading { answer: Answer { first_response_ns, ..Answer::default() }, refused: Some(error) }
}
