//! The ensemble of TensorRT-LLM's Triton backend, as tensors: what HTTP and gRPC have in common.
//!
//! Both generations of names are read (`min_length` and `min_tokens`, `random_seed` and `seed`). `bad_words`, `pad_id`
//! and the penalties are accepted and have no effect.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::sample::Sampling;
use crate::engine::scheduler::Chunk;
use crate::engine::service::{Ask, End, Prompt, Service};

/// Under this name Triton serves the chain of tokenizer, engine and detokenizer.
pub(crate) const ENSEMBLE: &str = "ensemble";
pub(crate) const VERSION: &str = "1";
pub(crate) const TEXT_OUTPUT: &str = "text_output";
pub(crate) const NUM_INPUT_TOKENS: &str = "num_input_tokens";
pub(crate) const NUM_OUTPUT_TOKENS: &str = "num_output_tokens";

/// Name, type, and whether a request must have it.
pub(crate) const INPUTS: [(&str, &str, bool); 23] = [
    ("text_input", "BYTES", true),
    ("max_tokens", "INT32", true),
    ("bad_words", "BYTES", false),
    ("stop_words", "BYTES", false),
    ("exclude_input_in_output", "BOOL", false),
    ("end_id", "INT32", false),
    ("pad_id", "INT32", false),
    ("top_k", "INT32", false),
    ("top_p", "FP32", false),
    ("temperature", "FP32", false),
    ("length_penalty", "FP32", false),
    ("repetition_penalty", "FP32", false),
    ("min_length", "INT32", false),
    ("min_tokens", "INT32", false),
    ("presence_penalty", "FP32", false),
    ("frequency_penalty", "FP32", false),
    ("random_seed", "UINT64", false),
    ("seed", "UINT64", false),
    ("beam_width", "INT32", false),
    ("stream", "BOOL", false),
    ("return_num_input_tokens", "BOOL", false),
    ("return_num_output_tokens", "BOOL", false),
    ("return_log_probs", "BOOL", false),
];

pub(crate) const OUTPUTS: [(&str, &str); 3] =
    [(TEXT_OUTPUT, "BYTES"), (NUM_INPUT_TOKENS, "INT32"), (NUM_OUTPUT_TOKENS, "INT32")];

impl Service {
    pub(crate) fn serves(&self, model: &str) -> bool {
        model == ENSEMBLE || model == self.model_name
    }
}

/// The elements of each input tensor by name.
pub(crate) type Inputs = BTreeMap<String, Vec<Value>>;

/// A request to the ensemble.
#[derive(Debug)]
pub(crate) struct Inference {
    pub(crate) ask: Ask,
    pub(crate) stream: bool,
    pub(crate) layout: Layout,
}

/// What an answer consists of.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// Text that a whole answer begins with: the prompt, unless `exclude_input_in_output`. A stream has none.
    echo: String,
    prompt_tokens: usize,
    with_input_count: bool,
    with_output_count: bool,
}

/// One response.
#[derive(Debug, PartialEq)]
pub(crate) struct Output {
    pub(crate) text: String,
    pub(crate) prompt_tokens: Option<usize>,
    /// Of this response: 1 in a stream, all of them in a whole answer.
    pub(crate) generated_tokens: Option<usize>,
}

impl Inference {
    pub(crate) fn read(inputs: &Inputs) -> Result<Self, String> {
        let text = one(inputs, "text_input", Value::as_str)?.ok_or("input `text_input` is missing")?;
        let max_tokens = count(inputs, "max_tokens")?.ok_or("input `max_tokens` is missing")?;
        let min_tokens = count(inputs, "min_tokens")?.or(count(inputs, "min_length")?).unwrap_or(0);
        if count(inputs, "beam_width")?.is_some_and(|width| width != 1) {
            return Err("only `beam_width` 1 is supported".to_owned());
        }
        let flag = |name| one(inputs, name, Value::as_bool).map(|flag| flag == Some(true));
        let stream = flag("stream")?;
        let echo = if stream || flag("exclude_input_in_output")? { String::new() } else { text.to_owned() };
        let layout = Layout {
            echo,
            prompt_tokens: 0,
            with_input_count: flag("return_num_input_tokens")?,
            with_output_count: flag("return_num_output_tokens")?,
        };
        let end = match one(inputs, "end_id", Value::as_i64)? {
            None => End::Model,
            Some(id) => u32::try_from(id).map_or(End::Never, End::Token),
        };
        let stop =
            inputs.get("stop_words").into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        let ask = Ask {
            prompt: Prompt::Text(text.to_owned()),
            max_tokens: Some(max_tokens),
            min_tokens,
            sampling: sampling(inputs)?,
            end,
            stop,
        };
        Ok(Self { ask, stream, layout })
    }
}

impl Layout {
    pub(crate) fn with_prompt_tokens(self, prompt_tokens: usize) -> Self {
        Self { prompt_tokens, ..self }
    }

    pub(crate) fn chunk(&self, chunk: Chunk) -> Output {
        self.output(chunk.text, 1)
    }

    pub(crate) fn whole(&self, text: &str, tokens: usize) -> Output {
        self.output(format!("{}{text}", self.echo), tokens)
    }

    fn output(&self, text: String, tokens: usize) -> Output {
        Output {
            text,
            prompt_tokens: self.with_input_count.then_some(self.prompt_tokens),
            generated_tokens: self.with_output_count.then_some(tokens),
        }
    }
}

/// Neither `top_k` nor `top_p` means greedy, as in TensorRT-LLM, and so does `top_k` 1.
fn sampling(inputs: &Inputs) -> Result<Sampling, String> {
    let seed = one(inputs, "seed", Value::as_u64)?.or(one(inputs, "random_seed", Value::as_u64)?).unwrap_or(0);
    let top_k = count(inputs, "top_k")?.unwrap_or(0);
    let top_p = float(inputs, "top_p")?.unwrap_or(0.0);
    let temperature = float(inputs, "temperature")?.unwrap_or(1.0);
    if !(0.0..=1.0).contains(&top_p) || temperature < 0.0 {
        return Err(format!("`top_p` {top_p} is not between 0 and 1, or `temperature` {temperature} is negative"));
    }
    if top_k == 0 && top_p == 0.0 {
        return Ok(Sampling { seed, ..Sampling::GREEDY });
    }
    let top_p = if top_p == 0.0 { 1.0 } else { top_p };
    Ok(Sampling { temperature, top_k, top_p, seed })
}

/// The first element of an input.
fn one<'a, T>(inputs: &'a Inputs, name: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, String> {
    let Some(value) = inputs.get(name).and_then(|elements| elements.first()) else { return Ok(None) };
    read(value).map(Some).ok_or_else(|| format!("input `{name}` has the unusable value {value}"))
}

fn count(inputs: &Inputs, name: &str) -> Result<Option<usize>, String> {
    one(inputs, name, |value| value.as_u64().and_then(|count| usize::try_from(count).ok()))
}

#[expect(clippy::cast_possible_truncation, reason = "sampling is done in 32 bits")]
fn float(inputs: &Inputs, name: &str) -> Result<Option<f32>, String> {
    one(inputs, name, |value| value.as_f64().filter(|float| float.is_finite()).map(|float| float as f32))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(json: &Value) -> Result<Inference, String> {
        let elements = json.as_object().unwrap().iter().map(|(name, value)| (name.clone(), vec![value.clone()]));
        Inference::read(&elements.collect())
    }

    #[test]
    fn both_generations_of_names_mean_the_same() {
        let old =
            read(&json!({"text_input": "a", "max_tokens": 5, "min_length": 5, "random_seed": 7, "top_k": 3})).unwrap();
        let new = read(&json!({"text_input": "a", "max_tokens": 5, "min_tokens": 5, "seed": 7, "top_k": 3})).unwrap();
        assert_eq!(format!("{old:?}"), format!("{new:?}"));
        assert_eq!((old.ask.min_tokens, old.ask.sampling.seed, old.ask.sampling.top_p), (5, 7, 1.0));
    }

    #[test]
    fn end_id_decides_what_ends_an_answer() {
        let end = |end_id: Value| read(&json!({"text_input": "a", "max_tokens": 1, "end_id": end_id})).unwrap().ask.end;
        assert_eq!(end(json!(-1)), End::Never);
        assert_eq!(end(json!(2)), End::Token(2));
        assert_eq!(read(&json!({"text_input": "a", "max_tokens": 1})).unwrap().ask.end, End::Model);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for (json, words) in [
            (json!({"max_tokens": 1}), "text_input"),
            (json!({"text_input": "a"}), "max_tokens"),
            (json!({"text_input": "a", "max_tokens": -1}), "max_tokens"),
            (json!({"text_input": "a", "max_tokens": 1, "beam_width": 2}), "beam_width"),
            (json!({"text_input": "a", "max_tokens": 1, "top_p": 1.5}), "top_p"),
            (json!({"text_input": 3, "max_tokens": 1}), "text_input"),
        ] {
            let complaint = read(&json).unwrap_err();
            assert!(complaint.contains(words), "{json}: {complaint}");
        }
    }

    #[test]
    fn only_a_whole_answer_repeats_the_prompt() {
        let whole = read(&json!({"text_input": "ab", "max_tokens": 1, "return_num_output_tokens": true})).unwrap();
        let expected = Output { text: "abc".to_owned(), prompt_tokens: None, generated_tokens: Some(4) };
        assert_eq!(whole.layout.whole("c", 4), expected);
        let excluded = read(&json!({"text_input": "ab", "max_tokens": 1, "exclude_input_in_output": true})).unwrap();
        assert_eq!(excluded.layout.whole("c", 4).text, "c");
    }
}
