//! Answers of Triton, over gRPC, `generate_stream` and `generate`.

use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Answer, json_message, shorten};
use super::exchange::Arrivals;
use super::grpc::PREFIX;
use super::json_text::JsonText;
use super::sse;
use super::triton_request::{
    ARRIVAL, FIRST_SCHEDULED, FIRST_TOKEN, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, REUSED_BLOCKS, TEXT_OUTPUT,
};
use crate::kserve::model_infer_response::InferOutputTensor;
use crate::kserve::{ModelInferResponse, ModelStreamInferResponse};
use crate::record::{ServerSaid, TokenSource};

/// Some models of Triton give all the text so far each time, also in answers of two pieces.
const LEAST_GROWTH: usize = 1;

/// What one response adds; put together by [`Responses::answer`].
#[derive(Default)]
struct Responses {
    answer: Answer,
    texts: Vec<(u64, Vec<u8>)>,
    output_tokens: Vec<u32>,
    metrics: PerfMetrics,
}

/// What the server says of the request itself, each as the last response has it. Times are nanoseconds of its own clock,
/// and 0 before they are known.
#[derive(Clone, Copy, Default)]
struct PerfMetrics {
    arrival: Option<u64>,
    first_scheduled: Option<u64>,
    first_token: Option<u64>,
    reused_blocks: Option<u64>,
}

impl PerfMetrics {
    /// `None` of a server that said nothing. One that was not asked, or does not know, may send zeros.
    fn said(self) -> Option<ServerSaid> {
        let Self { arrival, first_scheduled, first_token, reused_blocks } = self;
        let since_arrival = |moment: Option<u64>| moment?.checked_sub(arrival.filter(|&arrival| arrival > 0)?);
        match arrival {
            Some(0) => None,
            None => reused_blocks.map(|_| ServerSaid { reused_blocks, ..ServerSaid::default() }),
            Some(_) => Some(ServerSaid {
                queue_ns: since_arrival(first_scheduled),
                ttft_ns: since_arrival(first_token),
                reused_blocks,
            }),
        }
    }
}

/// Reads the messages of one request on a `ModelStreamInfer` stream, each with its prefix.
pub(super) fn read_grpc(messages: &Arrivals) -> Answer {
    let mut responses = Responses::default();
    for (at_ns, message) in messages.pieces() {
        responses.answer.first_response_ns.get_or_insert(at_ns);
        match ModelStreamInferResponse::decode(message.get(PREFIX..).unwrap_or_default()) {
            Ok(message) if !message.error_message.is_empty() => {
                responses.answer.fail("server", shorten(&message.error_message));
            }
            Ok(message) => {
                if let Some(response) = message.infer_response {
                    responses.add_tensors(at_ns, &response);
                }
            }
            Err(error) => responses.answer.fail("parse", error.to_string()),
        }
    }
    responses.answer()
}

/// Reads the events of `generate_stream`. Nothing marks the last one: the body just ends.
pub(super) fn read_stream(body: &Arrivals) -> Answer {
    let mut responses = Responses::default();
    let found = sse::events(body);
    for event in &found.events {
        responses.answer.first_response_ns.get_or_insert(event.at_ns);
        responses.add_json(event.at_ns, &event.data);
    }
    if found.events.is_empty() && found.torn {
        // Triton answers with a plain JSON object when it cannot stream.
        responses.add_json(0, &body.bytes);
    }
    if found.torn {
        responses.answer.fail("stream", "the stream ended inside an event".to_owned());
    }
    responses.answer()
}

/// Reads the one JSON object of `generate`.
pub(super) fn read_body(body: &Arrivals, end_ns: u64) -> Answer {
    let mut responses = Responses::default();
    responses.answer.first_response_ns = body.marks.first().map(|first| first.at_ns);
    responses.add_json(end_ns, &body.bytes);
    responses.answer()
}

impl Responses {
    fn add_json(&mut self, at_ns: u64, json: &[u8]) {
        #[derive(Deserialize)]
        struct Response {
            text_output: Option<JsonText>,
            num_input_tokens: Option<Value>,
            num_output_tokens: Option<Value>,
            arrival_time_ns: Option<Value>,
            first_scheduled_time_ns: Option<Value>,
            first_token_time_ns: Option<Value>,
            #[serde(alias = "kv_cache_reused_block")]
            kv_cache_reused_blocks: Option<Value>,
            error: Option<Value>,
        }
        match serde_json::from_slice::<Response>(json) {
            Ok(response) => {
                if let Some(error) = response.error {
                    self.answer.fail("server", shorten(&json_message(&error).unwrap_or_else(|| error.to_string())));
                }
                self.texts.extend(response.text_output.map(|JsonText(text)| (at_ns, text)));
                self.answer.input_tokens = json_count(response.num_input_tokens).or(self.answer.input_tokens);
                self.output_tokens.extend(json_count(response.num_output_tokens));
                let metrics = &mut self.metrics;
                metrics.arrival = json_number(response.arrival_time_ns).or(metrics.arrival);
                metrics.first_scheduled = json_number(response.first_scheduled_time_ns).or(metrics.first_scheduled);
                metrics.first_token = json_number(response.first_token_time_ns).or(metrics.first_token);
                metrics.reused_blocks = json_number(response.kv_cache_reused_blocks).or(metrics.reused_blocks);
            }
            Err(error) => self.answer.fail("parse", format!("{error} in {}", shorten(&String::from_utf8_lossy(json)))),
        }
    }

    fn add_tensors(&mut self, at_ns: u64, response: &ModelInferResponse) {
        for (index, tensor) in response.outputs.iter().enumerate() {
            let raw = response.raw_output_contents.get(index);
            let number = || tensor_number(tensor, raw.map(|raw| &raw[..]));
            let count = || number().and_then(|number| u32::try_from(number).ok());
            let metrics = &mut self.metrics;
            match tensor.name.as_str() {
                TEXT_OUTPUT => {
                    let contents = tensor.contents.as_ref();
                    let typed =
                        || contents.and_then(|contents| contents.bytes_contents.first()).map(|text| text.to_vec());
                    match raw.map(|raw| first_element(raw)) {
                        Some(Some(text)) => self.texts.push((at_ns, text.to_vec())),
                        Some(None) => self.answer.fail("parse", format!("tensor `{TEXT_OUTPUT}` is cut short")),
                        None => self.texts.extend(typed().map(|text| (at_ns, text))),
                    }
                }
                NUM_INPUT_TOKENS => self.answer.input_tokens = count().or(self.answer.input_tokens),
                NUM_OUTPUT_TOKENS => self.output_tokens.extend(count()),
                ARRIVAL => metrics.arrival = number().or(metrics.arrival),
                FIRST_SCHEDULED => metrics.first_scheduled = number().or(metrics.first_scheduled),
                FIRST_TOKEN => metrics.first_token = number().or(metrics.first_token),
                name if REUSED_BLOCKS.contains(&name) => metrics.reused_blocks = number().or(metrics.reused_blocks),
                _ => {}
            }
        }
    }

    fn answer(mut self) -> Answer {
        self.answer.add_texts(&self.texts, LEAST_GROWTH);
        self.answer.output_tokens = total(&self.output_tokens).map(|tokens| (tokens, TokenSource::ServerTensor));
        self.answer.server = self.metrics.said();
        self.answer
    }
}

/// The first element of a raw BYTES tensor: a length in four little-endian bytes, then the bytes. An empty tensor is
/// empty text.
fn first_element(raw: &[u8]) -> Option<&[u8]> {
    let Some((length, rest)) = raw.split_first_chunk::<4>() else {
        return raw.is_empty().then_some(raw);
    };
    rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

/// The first element of a tensor of integers, or of texts that are integers: the LLM API model writes them so.
fn tensor_number(tensor: &InferOutputTensor, raw: Option<&[u8]>) -> Option<u64> {
    let contents = || tensor.contents.as_ref();
    let number = match (tensor.datatype.as_str(), raw) {
        ("BYTES", Some(raw)) => return text_number(first_element(raw)?),
        ("BYTES", None) => return text_number(contents()?.bytes_contents.first()?),
        ("INT64", Some(raw)) => i64::from_le_bytes(*raw.first_chunk()?),
        ("INT64", None) => *contents()?.int64_contents.first()?,
        (_, Some(raw)) => i32::from_le_bytes(*raw.first_chunk()?).into(),
        (_, None) => (*contents()?.int_contents.first()?).into(),
    };
    u64::try_from(number).ok()
}

fn text_number(text: &[u8]) -> Option<u64> {
    str::from_utf8(text).ok()?.parse().ok()
}

fn json_count(value: Option<Value>) -> Option<u32> {
    u32::try_from(json_number(value)?).ok()
}

fn json_number(value: Option<Value>) -> Option<u64> {
    match value? {
        Value::Array(elements) => json_number(elements.into_iter().next()),
        Value::String(text) => text.parse().ok(),
        single => single.as_u64(),
    }
}

/// Servers report either the tokens of each response or those so far: counts that rise with every response, the last
/// repeated at most, are the latter.
fn total(counts: &[u32]) -> Option<u32> {
    let (last, _) = counts.split_last()?;
    let rising = counts.iter().take_while(|count| *count < last).count();
    let (before, repeated) = counts.split_at(rising);
    let cumulative =
        !before.is_empty() && before.is_sorted_by(|a, b| a < b) && repeated.iter().all(|count| count == last);
    if cumulative { Some(*last) } else { counts.iter().try_fold(0u32, |sum, count| sum.checked_add(*count)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_each_response_or_so_far() {
        for (counts, expected) in [
            (&[][..], None),
            (&[7], Some(7)),
            (&[1, 1, 1], Some(3)),
            (&[1, 1, 1, 0], Some(3)),
            (&[1, 2, 3], Some(3)),
            (&[1, 2, 3, 3], Some(3)),
            (&[1, 1, 2], Some(4)),
            (&[u32::MAX, 1], None),
        ] {
            assert_eq!(total(counts), expected, "{counts:?}");
        }
    }

    #[test]
    fn a_tensor_that_lies_about_its_length_has_no_element() {
        assert_eq!(first_element(b"\x02\0\0\0ab"), Some(&b"ab"[..]));
        assert_eq!(first_element(b""), Some(&b""[..]));
        assert_eq!(first_element(b"\x03\0\0\0ab"), None);
        assert_eq!(first_element(b"\x03\0"), None);
    }
}
