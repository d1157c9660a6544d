//! Tensors of KServe v2 messages: raw little-endian bytes or typed contents to values, and answers to raw bytes.

use std::collections::HashMap;

use bytes::Bytes;
use serde_json::Value;

use crate::engine::triton::{
    INPUTS, Inputs, NUM_INPUT_TOKENS, NUM_OUTPUT_TOKENS, OUTPUTS, Output, TEXT_OUTPUT, VERSION,
};
use crate::kserve::infer_parameter::ParameterChoice;
use crate::kserve::model_infer_request::InferInputTensor;
use crate::kserve::model_infer_response::InferOutputTensor;
use crate::kserve::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};

/// Every response says whether it is the request's last.
pub(crate) const FINAL_RESPONSE: &str = "triton_final_response";
/// A request parameter: send the final mark in a response of its own.
pub(crate) const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// The inputs of a request; only tensors that the ensemble has.
pub(crate) fn read_inputs(request: &ModelInferRequest) -> Result<Inputs, String> {
    let raw = &request.raw_input_contents;
    if !raw.is_empty() && raw.len() != request.inputs.len() {
        return Err(format!("{} inputs but {} raw_input_contents", request.inputs.len(), raw.len()));
    }
    let read = |(index, tensor): (usize, &InferInputTensor)| {
        if !INPUTS.iter().any(|(name, _, _)| *name == tensor.name) {
            return Err(format!("unexpected inference input '{}' for model '{}'", tensor.name, request.model_name));
        }
        let elements = match (raw.get(index), &tensor.contents) {
            (Some(raw), _) => raw_elements(&tensor.datatype, raw),
            (None, Some(contents)) => typed_elements(&tensor.datatype, contents),
            (None, None) => Ok(Vec::new()),
        };
        let elements = elements.map_err(|complaint| format!("input `{}`: {complaint}", tensor.name))?;
        Ok((tensor.name.clone(), elements))
    };
    request.inputs.iter().enumerate().map(read).collect()
}

/// Refuses to be asked for an output that the ensemble does not have.
pub(crate) fn check_outputs(request: &ModelInferRequest) -> Result<(), String> {
    match request.outputs.iter().find(|asked| !OUTPUTS.iter().any(|(name, _)| *name == asked.name)) {
        None => Ok(()),
        Some(unknown) => {
            Err(format!("unexpected inference output '{}' for model '{}'", unknown.name, request.model_name))
        }
    }
}

fn raw_elements(datatype: &str, raw: &[u8]) -> Result<Vec<Value>, String> {
    match datatype {
        "BYTES" => raw_texts(raw),
        "BOOL" => Ok(raw.iter().map(|byte| Value::Bool(*byte != 0)).collect()),
        "INT32" => raw_numbers(raw, |bytes| i32::from_le_bytes(bytes).into()),
        "INT64" => raw_numbers(raw, |bytes| i64::from_le_bytes(bytes).into()),
        "UINT32" => raw_numbers(raw, |bytes| u32::from_le_bytes(bytes).into()),
        "UINT64" => raw_numbers(raw, |bytes| u64::from_le_bytes(bytes).into()),
        "FP32" => raw_numbers(raw, |bytes| f32::from_le_bytes(bytes).into()),
        "FP64" => raw_numbers(raw, |bytes| f64::from_le_bytes(bytes).into()),
        _ => Err(unsupported(datatype)),
    }
}

fn typed_elements(datatype: &str, contents: &InferTensorContents) -> Result<Vec<Value>, String> {
    fn values<T: Copy + Into<Value>>(elements: &[T]) -> Vec<Value> {
        elements.iter().map(|element| (*element).into()).collect()
    }
    match datatype {
        "BYTES" => contents.bytes_contents.iter().map(|bytes| text(bytes)).collect(),
        "BOOL" => Ok(values(&contents.bool_contents)),
        "INT32" => Ok(values(&contents.int_contents)),
        "INT64" => Ok(values(&contents.int64_contents)),
        "UINT32" => Ok(values(&contents.uint_contents)),
        "UINT64" => Ok(values(&contents.uint64_contents)),
        "FP32" => Ok(values(&contents.fp32_contents)),
        "FP64" => Ok(values(&contents.fp64_contents)),
        _ => Err(unsupported(datatype)),
    }
}

fn unsupported(datatype: &str) -> String {
    format!("type `{datatype}` is not supported")
}

fn text(bytes: &[u8]) -> Result<Value, String> {
    std::str::from_utf8(bytes).map(Value::from).map_err(|error| error.to_string())
}

/// Each element is its length in four little-endian bytes, then its bytes.
fn raw_texts(mut raw: &[u8]) -> Result<Vec<Value>, String> {
    let mut texts = Vec::new();
    while !raw.is_empty() {
        let cut_short = || "the raw contents are cut short".to_owned();
        let (length, rest) = raw.split_first_chunk().ok_or_else(cut_short)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut_short())?;
        let (element, rest) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        texts.push(text(element)?);
        raw = rest;
    }
    Ok(texts)
}

fn raw_numbers<const BYTES: usize>(raw: &[u8], read: impl Fn([u8; BYTES]) -> Value) -> Result<Vec<Value>, String> {
    match raw.as_chunks() {
        (elements, []) => Ok(elements.iter().map(|bytes| read(*bytes)).collect()),
        _ => Err(format!("{} bytes are no multiple of {BYTES}", raw.len())),
    }
}

/// What the responses to one request have in common.
#[derive(Clone, Debug)]
pub(crate) struct Envelope {
    model: String,
    id: String,
    /// All that there are when empty.
    outputs: Vec<String>,
    /// The final mark comes in a response of its own.
    pub(crate) empty_final: bool,
}

impl Envelope {
    pub(crate) fn of(request: &ModelInferRequest) -> Self {
        let parameter = request.parameters.get(EMPTY_FINAL_RESPONSE);
        Self {
            model: request.model_name.clone(),
            id: request.id.clone(),
            outputs: request.outputs.iter().map(|output| output.name.clone()).collect(),
            empty_final: parameter.and_then(|parameter| parameter.parameter_choice.as_ref())
                == Some(&ParameterChoice::BoolParam(true)),
        }
    }

    pub(crate) fn response(&self, output: &Output, is_final: bool) -> ModelInferResponse {
        let mut response = self.empty(is_final);
        let length = u32::try_from(output.text.len()).unwrap_or(u32::MAX).to_le_bytes();
        self.add(&mut response, TEXT_OUTPUT, "BYTES", [&length, output.text.as_bytes()].concat());
        for (name, count) in [(NUM_INPUT_TOKENS, output.prompt_tokens), (NUM_OUTPUT_TOKENS, output.generated_tokens)] {
            if let Some(count) = count {
                let count = i32::try_from(count).unwrap_or(i32::MAX);
                self.add(&mut response, name, "INT32", count.to_le_bytes().to_vec());
            }
        }
        response
    }

    /// A response without tensors.
    pub(crate) fn empty(&self, is_final: bool) -> ModelInferResponse {
        let mark = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(is_final)) };
        ModelInferResponse {
            model_name: self.model.clone(),
            model_version: VERSION.to_owned(),
            id: self.id.clone(),
            parameters: HashMap::from([(FINAL_RESPONSE.to_owned(), mark)]),
            ..ModelInferResponse::default()
        }
    }

    fn add(&self, response: &mut ModelInferResponse, name: &str, datatype: &str, raw: Vec<u8>) {
        if !self.outputs.is_empty() && !self.outputs.iter().any(|asked| asked == name) {
            return;
        }
        response.outputs.push(InferOutputTensor {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![1, 1],
            ..InferOutputTensor::default()
        });
        response.raw_output_contents.push(Bytes::from(raw));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn raw_elements_are_read_by_type() {
        assert_eq!(raw_elements("BYTES", b"\x02\0\0\0hi\0\0\0\0").unwrap(), [json!("hi"), json!("")]);
        assert_eq!(raw_elements("INT32", &(-1_i32).to_le_bytes()).unwrap(), [json!(-1)]);
        assert_eq!(raw_elements("UINT64", &u64::MAX.to_le_bytes()).unwrap(), [json!(u64::MAX)]);
        assert_eq!(raw_elements("FP32", &0.5_f32.to_le_bytes()).unwrap(), [json!(0.5)]);
        assert_eq!(raw_elements("BOOL", &[1, 0]).unwrap(), [json!(true), json!(false)]);
    }

    #[test]
    fn broken_raw_contents_are_errors() {
        for (datatype, raw) in [
            ("BYTES", b"\x09\0\0\0hi".as_slice()),
            ("BYTES", b"\x01\0"),
            ("INT32", b"\0\0\0"),
            ("BYTES", b"\x01\0\0\0\xff"),
            ("FP16", b"\0\0"),
        ] {
            assert!(raw_elements(datatype, raw).is_err(), "{datatype} {raw:?}");
        }
    }
}
