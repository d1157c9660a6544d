//! Answers of Triton, over gRPC, `generate_stream` and `generate`.

use prost::Message as _;
use serde::Deserialize;
use serde_json::Value;

use super::answer::{Answer, json_message, shorten};
use super::exchange::Arrivals;
use super::grpc::PREFIX;
use super::json_text::JsonText;
use super::sse;
use super::triton_request::{NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, TEXT_OUTPUT};
use crate::kserve::{ModelInferResponse, ModelStreamInferResponse};
use crate::record::TokenSource;

/// Some models of Triton give all the text so far each time, also in answers of two pieces.
const LEAST_GROWTH: usize = 1;

/// What one response adds; put together by [`Responses::answer`].
#[derive(Default)]
struct Responses {
    answer: Answer,
    texts: Vec<(u64, Vec<u8>)>,
    output_tokens: Vec<u32>,
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
            }
            Err(error) => self.answer.fail("parse", format!("{error} in {}", shorten(&String::from_utf8_lossy(json)))),
        }
    }

    fn add_tensors(&mut self, at_ns: u64, response: &ModelInferResponse) {
        for (index, tensor) in response.outputs.iter().enumerate() {
            let raw = response.raw_output_contents.get(index);
            let contents = tensor.contents.as_ref();
            match tensor.name.as_str() {
                TEXT_OUTPUT => {
                    let typed =
                        || contents.and_then(|contents| contents.bytes_contents.first()).map(|text| text.to_vec());
                    match raw.map(|raw| first_element(raw)) {
                        Some(Some(text)) => self.texts.push((at_ns, text.to_vec())),
                        Some(None) => self.answer.fail("parse", format!("tensor `{TEXT_OUTPUT}` is cut short")),
                        None => self.texts.extend(typed().map(|text| (at_ns, text))),
                    }
                }
                NUM_INPUT_TOKENS => {
                    self.answer.input_tokens = tensor_count(raw, contents).or(self.answer.input_tokens);
                }
                NUM_OUTPUT_TOKENS => self.output_tokens.extend(tensor_count(raw, contents)),
                _ => {}
            }
        }
    }

    fn answer(mut self) -> Answer {
        self.answer.add_texts(&self.texts, LEAST_GROWTH);
        self.answer.output_tokens = total(&self.output_tokens).map(|tokens| (tokens, TokenSource::ServerTensor));
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

fn tensor_count(raw: Option<&bytes::Bytes>, contents: Option<&crate::kserve::InferTensorContents>) -> Option<u32> {
    let value = match raw.and_then(|raw| raw.first_chunk::<4>()) {
        Some(bytes) => i32::from_le_bytes(*bytes),
        None => *contents?.int_contents.first()?,
    };
    u32::try_from(value).ok()
}

fn json_count(value: Option<Value>) -> Option<u32> {
    match value? {
        Value::Array(elements) => json_count(elements.into_iter().next()),
        single => u32::try_from(single.as_u64()?).ok(),
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
