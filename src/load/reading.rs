use std::time::Duration;

use super::answer::{Answer, server_message};
use super::exchange::{Arrivals, Clock, End, Exchange};
use super::{http1, in_process, openai, triton_answer};
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
    let (protocol, end_ns) = (point.protocol, exchange.end_ns);
    let arrivals = exchange.received.whole();
    let mut reading = match protocol {
        Protocol::TritonGrpc => {
            Reading { answer: answer_in(&arrivals, exchange, triton_answer::read_grpc), refused: None }
        }
        Protocol::OpenaiCompletions
        | Protocol::OpenaiChat
        | Protocol::TritonGenerate
        | Protocol::TritonGenerateStream
        | Protocol::InProcess => {
            let reply = http1::unframe(&arrivals);
            if !matches!(reply.status, 0 | 200..300) {
                return refused(reply.status, &reply.body, &arrivals);
            }
            let answer = answer_in(&reply.body, exchange, |body| match (protocol, point.streaming) {
                (Protocol::TritonGenerate, _) => triton_answer::read_body(body, end_ns),
                (Protocol::TritonGenerateStream | Protocol::TritonGrpc, _) => triton_answer::read_stream(body),
                (Protocol::InProcess, _) => in_process::read(body, exchange.sent_ns..end_ns, clock),
                (Protocol::OpenaiCompletions | Protocol::OpenaiChat, true) => openai::read_stream(body),
                (Protocol::OpenaiCompletions | Protocol::OpenaiChat, false) => openai::read_body(body, end_ns),
            });
            Reading { answer, refused: None }
        }
    };
    if !point.streams() {
        let end_ns = reading.answer.own_ns.as_ref().map_or(end_ns, |own| own.end);
        reading.answer.join_chunks(end_ns);
    }
    reading
}

/// The status of an HTTP answer and the time after which its server would like to be asked again.
pub(super) fn refusal(point: &LoadPoint, exchange: &Exchange) -> Option<(u16, Option<Duration>)> {
    if point.protocol == Protocol::TritonGrpc {
        return None;
    }
    let reply = http1::unframe(&exchange.received.whole());
    (!matches!(reply.status, 0 | 200..300)).then_some((reply.status, reply.retry_after))
}

fn answer_in(body: &Arrivals, exchange: &Exchange, read: impl Fn(&Arrivals) -> Answer) -> Answer {
    if !body.bytes.is_empty() {
        return read(body);
    }
    let mut answer = Answer::default();
    if matches!(exchange.end, End::Complete) {
        answer.fail("stream", "the answer was empty".to_owned());
    }
    answer
}

fn refused(status: u16, body: &Arrivals, arrivals: &Arrivals) -> Reading {
    let first_response_ns = arrivals.marks.first().map(|first| first.at_ns);
    let error = RequestError { kind: format!("http_{status}"), message: server_message(&body.bytes) };
    Reading { answer: Answer { first_response_ns, ..Answer::default() }, refused: Some(error) }
}
