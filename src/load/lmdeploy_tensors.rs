//! The tensors of LMDeploy's three models in its Triton server, as the client of v0.1.0 sends and reads them.

use std::collections::HashMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::kserve::infer_parameter::ParameterChoice;
use crate::kserve::model_infer_request::InferInputTensor;
use crate::kserve::{InferParameter, ModelInferRequest, ModelInferResponse};

pub(super) const TURBOMIND: &str = "turbomind";
pub(super) const INPUT_ID: &str = "INPUT_ID";
pub(super) const OUTPUT: &str = "OUTPUT";

/// One request, before its prompt is made of ids.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Call {
    /// In the model's template.
    pub(super) prompt: String,
    pub(super) output_tokens: u32,
    /// Of the session, which begins and ends with this request.
    pub(super) session: u64,
    pub(super) session_len: u32,
    pub(super) top_p: f32,
    /// The model's own if absent.
    pub(super) top_k: Option<u32>,
    pub(super) temperature: f32,
    pub(super) repetition_penalty: f32,
    /// The end of a sequence, where the answer must not have it.
    pub(super) banned: Option<i32>,
    pub(super) random_seed: u64,
}

impl Call {
    /// What `turbomind` is asked to add to these ids.
    pub(super) fn turbomind(&self, prompt: &[u32]) -> ModelInferRequest {
        let tensors = [
            Some(Tensor::uint32("input_ids", &[1, prompt.len()], prompt)),
            Some(Tensor::uint32("input_lengths", &ONE, &[count(prompt)])),
            Some(Tensor::uint32("request_output_len", &ONE, &[self.output_tokens])),
            Some(Tensor::fp32("runtime_top_p", self.top_p)),
            Some(Tensor::fp32("temperature", self.temperature)),
            Some(Tensor::fp32("repetition_penalty", self.repetition_penalty)),
            Some(Tensor::int32("step", &ONE, &[0])),
            self.top_k.map(|top_k| Tensor::uint32("runtime_top_k", &ONE, &[top_k])),
            // Words of one id each, and up to where in these each word goes.
            self.banned.map(|end| Tensor::int32("bad_words_list", &[1, 2, 1], &[end, 1])),
            Some(Tensor::uint32("session_len", &ONE, &[self.session_len])),
            Some(Tensor::int32("START", &ONE, &[1])),
            Some(Tensor::int32("END", &ONE, &[1])),
            Some(Tensor::uint64("CORRID", self.session)),
            Some(Tensor::int32("STOP", &ONE, &[0])),
            Some(Tensor::uint64("random_seed", self.random_seed)),
        ];
        ModelInferRequest { parameters: self.parameters(), ..request(TURBOMIND, tensors.into_iter().flatten()) }
    }

    /// Triton's client takes session 0 for none.
    fn parameters(&self) -> HashMap<String, InferParameter> {
        let Ok(session @ 1..) = i64::try_from(self.session) else { return HashMap::new() };
        let parameters = [
            ("sequence_id", ParameterChoice::Int64Param(session)),
            ("sequence_start", ParameterChoice::BoolParam(true)),
            ("sequence_end", ParameterChoice::BoolParam(true)),
        ];
        parameters.map(|(name, choice)| (name.to_owned(), InferParameter { parameter_choice: Some(choice) })).into()
    }
}

/// What makes ids of a text.
pub(super) fn preprocessing(text: &str) -> ModelInferRequest {
    request("preprocessing", [Tensor::text("QUERY", text)])
}

/// What makes text of an answer's ids, without the first `known` of them.
pub(super) fn postprocessing(ids: &[u32], known: u32) -> ModelInferRequest {
    let all = Tensor::uint32("TOKENS_BATCH", &[1, 1, ids.len()], ids);
    request("postprocessing", [all, Tensor::uint32("sequence_length", &ONE, &[known])])
}

/// An input.
struct Tensor {
    name: &'static str,
    datatype: &'static str,
    shape: Vec<usize>,
    raw: Bytes,
}

/// The shape of a single element: all three models have batches of one.
const ONE: [usize; 2] = [1, 1];

impl Tensor {
    fn uint32(name: &'static str, shape: &[usize], numbers: &[u32]) -> Self {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { name, datatype: "UINT32", shape: shape.to_vec(), raw }
    }

    fn int32(name: &'static str, shape: &[usize], numbers: &[i32]) -> Self {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { name, datatype: "INT32", shape: shape.to_vec(), raw }
    }

    fn uint64(name: &'static str, number: u64) -> Self {
        Self { name, datatype: "UINT64", shape: ONE.to_vec(), raw: Bytes::copy_from_slice(&number.to_le_bytes()) }
    }

    fn fp32(name: &'static str, number: f32) -> Self {
        Self { name, datatype: "FP32", shape: ONE.to_vec(), raw: Bytes::copy_from_slice(&number.to_le_bytes()) }
    }

    fn text(name: &'static str, text: &str) -> Self {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let raw = [&length.to_le_bytes(), text.as_bytes()].concat().into();
        Self { name, datatype: "BYTES", shape: ONE.to_vec(), raw }
    }
}

fn request(model: &str, tensors: impl IntoIterator<Item = Tensor>) -> ModelInferRequest {
    let mut request = ModelInferRequest { model_name: model.to_owned(), ..ModelInferRequest::default() };
    for Tensor { name, datatype, shape, raw } in tensors {
        request.inputs.push(InferInputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.into_iter().map(|length| i64::try_from(length).unwrap_or(i64::MAX)).collect(),
            ..InferInputTensor::default()
        });
        request.raw_input_contents.push(raw);
    }
    request
}

/// The ids of an answer so far, out of a response of `turbomind` to as many ids. `Err` is a complaint.
pub(super) fn answer_ids(response: &ModelInferResponse, prompt: usize) -> Result<Vec<u32>, String> {
    let so_far = *numbers(response, "sequence_length")?.first().ok_or("tensor `sequence_length` is empty")?;
    let mut ids = numbers(response, "output_ids")?;
    ids.truncate(so_far as usize);
    ids.drain(..prompt.min(ids.len()));
    Ok(ids)
}

/// A tensor of UINT32. `Err` is a complaint.
pub(super) fn numbers(response: &ModelInferResponse, name: &str) -> Result<Vec<u32>, String> {
    let (numbers, []) = raw(response, name)?.as_chunks() else { return Err(format!("tensor `{name}` is cut short")) };
    Ok(numbers.iter().map(|number| u32::from_le_bytes(*number)).collect())
}

/// The first text of a tensor. `Err` is a complaint.
pub(super) fn text(response: &ModelInferResponse, name: &str) -> Result<String, String> {
    let (length, rest) =
        raw(response, name)?.split_first_chunk().ok_or_else(|| format!("tensor `{name}` has no element"))?;
    let text = rest.get(..u32::from_le_bytes(*length) as usize);
    let text = text.ok_or_else(|| format!("tensor `{name}` is cut short"))?;
    String::from_utf8(text.to_vec()).map_err(|_| format!("tensor `{name}` is not UTF-8"))
}

fn raw<'r>(response: &'r ModelInferResponse, name: &str) -> Result<&'r [u8], String> {
    let index = response.outputs.iter().position(|output| output.name == name);
    let raw = index.and_then(|index| response.raw_output_contents.get(index));
    raw.map(|raw| &raw[..]).ok_or_else(|| format!("there is no tensor `{name}`"))
}

pub(super) fn count(ids: &[u32]) -> u32 {
    u32::try_from(ids.len()).unwrap_or(u32::MAX)
}
