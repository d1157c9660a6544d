//! Requests to Triton's text models. Their tensors differ by version, so inputs are chosen by what the model lists.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::LoadError;
use super::request::Ask;
use crate::kserve::infer_parameter::ParameterChoice;
use crate::kserve::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::kserve::{InferParameter, ModelInferRequest, ModelMetadataResponse};
use crate::spec::{LoadPoint, OutputMode};

pub(super) const TEXT_OUTPUT: &str = "text_output";
pub(super) const NUM_INPUT_TOKENS: &str = "num_input_tokens";
pub(super) const NUM_OUTPUT_TOKENS: &str = "num_output_tokens";
pub(super) const ARRIVAL: &str = "arrival_time_ns";
pub(super) const FIRST_SCHEDULED: &str = "first_scheduled_time_ns";
pub(super) const FIRST_TOKEN: &str = "first_token_time_ns";
/// The second is the LLM API model's.
pub(super) const REUSED_BLOCKS: [&str; 2] = ["kv_cache_reused_blocks", "kv_cache_reused_block"];

/// The outputs that a model sets only when it is asked by one of [`RETURN_PERF_METRICS`].
const PERF_METRICS: [&str; 5] = [ARRIVAL, FIRST_SCHEDULED, FIRST_TOKEN, REUSED_BLOCKS[0], REUSED_BLOCKS[1]];
const RETURN_PERF_METRICS: &[&str] =
    &["return_perf_metrics", "return_kv_cache_reuse_stats", "sampling_param_return_perf_metrics"];

/// The inputs and outputs that a model lists, and its name for each input that we may set.
#[derive(Debug)]
pub(super) struct Tensors {
    inputs: Vec<Tensor>,
    outputs: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Tensor {
    name: String,
    shape: Vec<i64>,
}

const BEAM_WIDTH: &[&str] = &["beam_width"];

/// Every input that we know how to set. Names are TensorRT-LLM's, oldest first; the last are those of its LLM API
/// model.
const INPUTS: &[(&[&str], Input)] = &[
    (&["text_input"], Input::Text),
    (&["max_tokens", "sampling_param_max_tokens"], Input::MaxTokens),
    (&["min_length", "min_tokens"], Input::MinTokens),
    (&["stream", "streaming"], Input::Stream),
    (BEAM_WIDTH, Input::BeamWidth),
    (&["temperature", "sampling_param_temperature"], Input::Temperature),
    (&["top_k", "sampling_param_top_k"], Input::TopK),
    (&["top_p", "sampling_param_top_p"], Input::TopP),
    (&["random_seed", "seed", "sampling_param_seed"], Input::Seed),
    (&["exclude_input_in_output", "sampling_param_exclude_input_from_output"], Input::Always),
    (&["return_num_input_tokens"], Input::Always),
    (&["return_num_output_tokens"], Input::Always),
    (RETURN_PERF_METRICS, Input::Always),
];

#[derive(Clone, Copy)]
enum Input {
    Text,
    MaxTokens,
    MinTokens,
    Stream,
    BeamWidth,
    Temperature,
    TopK,
    TopP,
    Seed,
    /// A switch that is always on.
    Always,
}

enum Element<'a> {
    Bytes(Cow<'a, str>),
    Bool(bool),
    Int32(u32),
    Uint64(u64),
    Fp32(f64),
}

impl Tensors {
    pub(super) fn from_grpc(model: &str, metadata: ModelMetadataResponse) -> Result<Self, LoadError> {
        let inputs = metadata.inputs.into_iter().map(|input| Tensor { name: input.name, shape: input.shape }).collect();
        let outputs = metadata.outputs.into_iter().map(|output| output.name).collect();
        Self { inputs, outputs }.checked(model)
    }

    /// Reads the JSON of `/v2/models/M`; `Err` is what is wrong with it.
    pub(super) fn from_json(model: &str, json: &[u8]) -> Result<Result<Self, LoadError>, serde_json::Error> {
        #[derive(Deserialize)]
        struct Metadata {
            #[serde(default)]
            inputs: Vec<Tensor>,
            #[serde(default)]
            outputs: Vec<Tensor>,
        }
        let metadata: Metadata = serde_json::from_slice(json)?;
        let outputs = metadata.outputs.into_iter().map(|output| output.name).collect();
        Ok(Self { inputs: metadata.inputs, outputs }.checked(model))
    }

    fn checked(self, model: &str) -> Result<Self, LoadError> {
        for (names, input) in INPUTS {
            if matches!(input, Input::Text | Input::MaxTokens) && self.input(names).is_none() {
                return Err(LoadError::NotTextModel {
                    model: model.to_owned(),
                    input: names[0].to_owned(),
                    inputs: self.inputs.into_iter().map(|input| input.name).collect(),
                });
            }
        }
        Ok(self)
    }

    pub(super) fn take_a_least_length(&self) -> bool {
        INPUTS.iter().any(|(names, input)| matches!(input, Input::MinTokens) && self.input(names).is_some())
    }

    pub(super) fn take_a_beam_width(&self) -> bool {
        self.input(BEAM_WIDTH).is_some()
    }

    /// A `ModelInferRequest`, encoded.
    pub(super) fn message(&self, model: &str, point: &LoadPoint, ask: &Ask<'_>, request: u64) -> Bytes {
        let mut message = ModelInferRequest {
            model_name: model.to_owned(),
            id: request.to_string(),
            outputs: self.wanted_outputs(),
            ..ModelInferRequest::default()
        };
        // With it, the last response of every model is marked.
        let empty_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        message.parameters.insert("triton_enable_empty_final_response".to_owned(), empty_final);
        for (tensor, element) in self.values(point, ask) {
            message.inputs.push(InferInputTensor {
                name: tensor.name.clone(),
                datatype: element.datatype().to_owned(),
                shape: vec![1; tensor.shape.len()],
                ..InferInputTensor::default()
            });
            message.raw_input_contents.push(element.raw());
        }
        message.encode_to_vec().into()
    }

    /// The body of `generate` and `generate_stream`.
    pub(super) fn json(&self, point: &LoadPoint, ask: &Ask<'_>) -> Bytes {
        let fields: Map<String, Value> =
            self.values(point, ask).map(|(tensor, element)| (tensor.name.clone(), element.json())).collect();
        Value::Object(fields).to_string().into()
    }

    fn values<'a>(
        &'a self,
        point: &'a LoadPoint,
        ask: &'a Ask<'a>,
    ) -> impl Iterator<Item = (&'a Tensor, Element<'a>)> + 'a {
        INPUTS.iter().filter_map(|(names, input)| Some((self.input(names)?, input.value(point, ask)?)))
    }

    fn input(&self, names: &[&str]) -> Option<&Tensor> {
        names.iter().find_map(|name| self.inputs.iter().find(|input| input.name == *name))
    }

    /// Text, counts and the server's own times only: log probabilities and logits would swell every response. An ensemble
    /// never answers when it is asked for an output that no model of it sets.
    fn wanted_outputs(&self) -> Vec<InferRequestedOutputTensor> {
        let metrics = self.input(RETURN_PERF_METRICS).map_or(&[][..], |_| &PERF_METRICS);
        [TEXT_OUTPUT, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS]
            .iter()
            .chain(metrics)
            .filter(|name| self.outputs.iter().any(|output| output == *name))
            .map(|name| InferRequestedOutputTensor {
                name: (*name).to_owned(),
                ..InferRequestedOutputTensor::default()
            })
            .collect()
    }
}

impl Input {
    /// `None` for what the load point does not ask for.
    fn value<'a>(self, point: &LoadPoint, ask: &'a Ask<'a>) -> Option<Element<'a>> {
        let sampling = &point.sampling;
        let greedy = sampling.temperature == 0.0;
        match self {
            Self::Text => Some(Element::Bytes(ask.content.text())),
            Self::MaxTokens => Some(Element::Int32(ask.output_tokens)),
            Self::MinTokens => (point.output.mode == OutputMode::Exact).then_some(Element::Int32(ask.output_tokens)),
            Self::Stream => Some(Element::Bool(point.streams())),
            Self::BeamWidth => (point.beam_width > 1).then_some(Element::Int32(point.beam_width)),
            // TensorRT-LLM refuses a temperature of 0: the one most likely token says the same.
            Self::Temperature => (!greedy).then_some(Element::Fp32(sampling.temperature)),
            Self::TopK => if greedy { Some(1) } else { sampling.top_k }.map(Element::Int32),
            Self::TopP => sampling.top_p.filter(|_| !greedy).map(Element::Fp32),
            Self::Seed => Some(Element::Uint64(point.sampling_seed)),
            Self::Always => Some(Element::Bool(true)),
        }
    }
}

impl Element<'_> {
    fn datatype(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "BYTES",
            Self::Bool(_) => "BOOL",
            Self::Int32(_) => "INT32",
            Self::Uint64(_) => "UINT64",
            Self::Fp32(_) => "FP32",
        }
    }

    fn raw(&self) -> Bytes {
        let mut raw = BytesMut::new();
        match self {
            Self::Bytes(text) => {
                raw.put_u32_le(u32::try_from(text.len()).unwrap_or(u32::MAX));
                raw.put_slice(text.as_bytes());
            }
            Self::Bool(value) => raw.put_u8(u8::from(*value)),
            Self::Int32(value) => raw.put_i32_le(i32::try_from(*value).unwrap_or(i32::MAX)),
            Self::Uint64(value) => raw.put_u64_le(*value),
            #[expect(clippy::cast_possible_truncation, reason = "the tensor's type")]
            Self::Fp32(value) => raw.put_f32_le(*value as f32),
        }
        raw.freeze()
    }

    fn json(&self) -> Value {
        match self {
            Self::Bytes(text) => Value::from(text.as_ref()),
            Self::Bool(value) => Value::from(*value),
            Self::Int32(value) => Value::from(*value),
            Self::Uint64(value) => Value::from(*value),
            Self::Fp32(value) => Value::from(*value),
        }
    }
}
