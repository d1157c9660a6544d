//! A Hugging Face folder to one in another precision.

use std::path::Path;

use safetensors::tensor::Dtype;
use serde_json::json;

use crate::engine::config::{ModelConfig, write_json};
use crate::engine::tensors::{Outline, Shards, Stored, TensorWriter, f32_bytes};
use crate::engine::weights::SCALE;
use crate::engine::{EngineError, Precision, folder};

/// The largest magnitude of a symmetric int8; -128 is not used.
const INT8_MAX: f32 = 127.0;

/// Writes `out`, a Hugging Face folder with the weights of `model` in `precision` and a `quantization.json`.
///
/// In int8 every matrix, embeddings and output head included, becomes an I8 tensor beside a tensor
/// `<name>_scale` of 32-bit floats, one for each row. Memory holds one tensor at a time.
///
/// # Errors
/// When `model` cannot be read or is quantized already, when a weight does not fit, when `out` cannot be written.
pub fn quantize(model: &Path, out: &Path, precision: Precision) -> Result<(), EngineError> {
    ModelConfig::read(model)?;
    let shards = Shards::of_checkpoint(model)?;
    if shards.outlines().any(|outline| outline.dtype == Dtype::I8) {
        return Err(EngineError::AlreadyQuantized { path: model.to_owned(), precision: Precision::Int8Wo });
    }
    folder::create(out)?;
    let outlines: Vec<Outline> = shards.outlines().flat_map(|outline| targets(outline, precision)).collect();
    let mut writer = TensorWriter::create(&out.join("model.safetensors"), &outlines)?;
    for outline in shards.outlines() {
        for bytes in convert(&shards.read(&outline.name)?, precision)? {
            writer.write(&bytes)?;
        }
    }
    writer.finish()?;
    folder::copy("config.json", model, out)?;
    folder::copy_companions(model, out)?;
    let record = json!({"precision": precision, "scheme": precision.scheme()});
    write_json(&out.join("quantization.json"), &record)
}

/// The outlines of what [`convert`] makes of a tensor.
fn targets(outline: &Outline, precision: Precision) -> Vec<Outline> {
    let with = |dtype| Outline { dtype, ..outline.clone() };
    match (precision, outline.shape.as_slice()) {
        (Precision::Fp16, [_, _]) => vec![with(Dtype::F16)],
        (Precision::Int8Wo, [rows, _]) => {
            let name = format!("{}{SCALE}", outline.name);
            vec![with(Dtype::I8), Outline { name, dtype: Dtype::F32, shape: vec![*rows] }]
        }
        (Precision::Fp32 | Precision::Fp16 | Precision::Int8Wo, _) => vec![with(Dtype::F32)],
    }
}

fn convert(stored: &Stored, precision: Precision) -> Result<Vec<Vec<u8>>, EngineError> {
    match (precision, stored.outline.shape.as_slice()) {
        (Precision::Fp16, [_, _]) => Ok(vec![stored.to_f16()?.into_iter().flat_map(half::f16::to_le_bytes).collect()]),
        (Precision::Int8Wo, [_, columns]) => {
            let floats = stored.to_f32()?;
            if floats.iter().any(|float| !float.is_finite()) {
                return Err(stored.error("a weight is not finite"));
            }
            let (values, scales) = int8_rows(&floats, *columns);
            Ok(vec![values.into_iter().map(i8::cast_unsigned).collect(), f32_bytes(&scales)])
        }
        (Precision::Fp32 | Precision::Fp16 | Precision::Int8Wo, _) => Ok(vec![f32_bytes(&stored.to_f32()?)]),
    }
}

/// Each row as integers and the scale that turns them back: `weight ≈ integer · scale`, `scale = max |weight| / 127`.
pub(crate) fn int8_rows(floats: &[f32], columns: usize) -> (Vec<i8>, Vec<f32>) {
    let mut values = Vec::with_capacity(floats.len());
    let mut scales = Vec::with_capacity(floats.len() / columns.max(1));
    for row in floats.chunks_exact(columns.max(1)) {
        let largest = row.iter().fold(0.0_f32, |largest, weight| largest.max(weight.abs()));
        // A row of zeros has no scale of its own; any will do.
        let scale = if largest > 0.0 { (largest / INT8_MAX).max(f32::MIN_POSITIVE) } else { 1.0 };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the quotient is between -127 and 127, and the cast saturates"
        )]
        values.extend(row.iter().map(|weight| (weight / scale).round() as i8));
        scales.push(scale);
    }
    (values, scales)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn int8_keeps_every_weight_within_half_a_step() {
        let floats = [0.5, -1.0, 0.003, 0.0, 0.0, 0.0, 1e-30, -2e-30, 3.0];
        let (values, scales) = int8_rows(&floats, 3);
        assert_eq!(values[1], -127);
        assert_eq!(values[3..6], [0, 0, 0]);
        for (index, weight) in floats.iter().enumerate() {
            let scale = scales[index / 3];
            let back = f32::from(values[index]) * scale;
            assert!((back - weight).abs() <= scale * 0.500_01, "{weight} came back as {back}");
        }
    }
}
