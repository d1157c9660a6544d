//! LMDeploy's three Triton models: `preprocessing` gives each word an id, `turbomind` adds ids on the timetable, and
//! `postprocessing` makes of each a token's text.

use bytes::Bytes;

use super::ask::{Ask, Chunking};
use crate::kserve::model_infer_response::InferOutputTensor;
use crate::kserve::{ModelConfig, ModelInferRequest, ModelInferResponse, ModelParameter};

pub(super) const PREPROCESSING: &str = "preprocessing";
pub(super) const TURBOMIND: &str = "turbomind";
pub(super) const POSTPROCESSING: &str = "postprocessing";

const BEGIN_ID: u32 = 1;
const END_ID: u32 = 2;
const WORD_ID: u32 = 3;

/// Says what `lmdeploy convert` was told: a model without a chat template.
pub(super) fn config(name: String) -> ModelConfig {
    let model_name = ModelParameter { string_value: "llama".to_owned() };
    ModelConfig { name, parameters: [("model_name".to_owned(), model_name)].into(), ..ModelConfig::default() }
}

/// `Err` is a complaint.
pub(super) fn preprocess(request: &ModelInferRequest) -> Result<ModelInferResponse, String> {
    let text = String::from_utf8_lossy(raw(request, "QUERY")?.get(4..).unwrap_or_default());
    let ids = match &*text {
        "<BOS>" => vec![BEGIN_ID],
        "<EOS>" => vec![END_ID],
        text => std::iter::once(BEGIN_ID).chain(text.split_whitespace().map(|_| WORD_ID)).collect(),
    };
    let lengths = [u32::try_from(ids.len()).unwrap_or(u32::MAX)];
    Ok(response(request, [uint32s("INPUT_ID", &[1, ids.len()], &ids), uint32s("REQUEST_INPUT_LEN", &[1, 1], &lengths)]))
}

/// What `turbomind` is asked, or a complaint.
pub(super) fn read(request: &ModelInferRequest) -> Result<Ask, String> {
    let input_tokens = raw(request, "input_ids")?.len() / size_of::<u32>();
    Ask::new(input_tokens, Some(first(request, "request_output_len")?), true)
}

/// A response of `turbomind` after so many tokens: the ids of prompt and answer, with room for what is still to come.
pub(super) fn so_far(request: &ModelInferRequest, ask: &Ask, tokens: u32) -> ModelInferResponse {
    let mut ids = vec![WORD_ID; ask.input_tokens + ask.output_tokens as usize];
    ids[tokens as usize + ask.input_tokens..].fill(0);
    let length = u32::try_from(ask.input_tokens).unwrap_or(u32::MAX).saturating_add(tokens);
    let ids = uint32s("output_ids", &[1, 1, ids.len()], &ids);
    response(request, [ids, uint32s("sequence_length", &[1, 1], &[length])])
}

/// `Err` is a complaint.
pub(super) fn postprocess(request: &ModelInferRequest, chunking: Chunking) -> Result<ModelInferResponse, String> {
    let ids = raw(request, "TOKENS_BATCH")?.len() / size_of::<u32>();
    let new = u32::try_from(ids).unwrap_or(u32::MAX).saturating_sub(first(request, "sequence_length")?);
    let text = chunking.text(new);
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let text = (tensor("OUTPUT", "BYTES", &[1]), [&length, text.as_bytes()].concat().into());
    Ok(response(request, [text]))
}

fn raw<'r>(request: &'r ModelInferRequest, name: &str) -> Result<&'r [u8], String> {
    let index = request.inputs.iter().position(|input| input.name == name);
    let raw = index.and_then(|index| request.raw_input_contents.get(index));
    raw.map(|raw| &raw[..]).ok_or_else(|| format!("input `{name}` is missing"))
}

fn first(request: &ModelInferRequest, name: &str) -> Result<u32, String> {
    let first = raw(request, name)?.first_chunk().ok_or_else(|| format!("input `{name}` is empty"))?;
    Ok(u32::from_le_bytes(*first))
}

type Output = (InferOutputTensor, Bytes);

fn uint32s(name: &str, shape: &[usize], numbers: &[u32]) -> Output {
    (tensor(name, "UINT32", shape), numbers.iter().flat_map(|number| number.to_le_bytes()).collect())
}

fn tensor(name: &str, datatype: &str, shape: &[usize]) -> InferOutputTensor {
    InferOutputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.iter().map(|&length| i64::try_from(length).unwrap_or(i64::MAX)).collect(),
        ..InferOutputTensor::default()
    }
}

fn response<const N: usize>(request: &ModelInferRequest, outputs: [Output; N]) -> ModelInferResponse {
    let (outputs, raw_output_contents) = outputs.into_iter().unzip();
    ModelInferResponse {
        model_name: request.model_name.clone(),
        model_version: "1".to_owned(),
        id: request.id.clone(),
        outputs,
        raw_output_contents,
        ..ModelInferResponse::default()
    }
}
