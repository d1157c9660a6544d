//! Weight matrices in their stored precision, and their products with activations.

use candle_core::{CpuStorage, Device, Storage, Tensor};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use safetensors::tensor::Dtype;

use crate::engine::EngineError;
use crate::engine::tensors::Stored;
use crate::engine::weights::{SCALE, Weights};

/// Up to this many activation rows, each weight row is widened once and used in place. Beyond, widening a panel
/// and leaving the product to candle's matrix kernel pays.
const FEW_ROWS: usize = 8;
/// Rows widened at a time for a large product: bounds the extra memory and keeps the panel near the processor.
const PANEL_ROWS: usize = 512;
/// Rows that one parallel task takes in a small product.
const TASK_ROWS: usize = 64;
/// Vector sums that grow independently: one would wait for its own last addition.
const UNROLL: usize = 4;

/// A matrix of `rows` output channels, kept in its stored precision and widened inside the product.
pub(crate) enum Matrix {
    Full(Tensor),
    Narrow(NarrowMatrix),
}

impl Matrix {
    pub(crate) fn load(weights: &Weights, name: &str) -> Result<Self, EngineError> {
        let stored = weights.read(name)?;
        let scales = format!("{name}{SCALE}");
        let scales = weights.contains(&scales).then(|| weights.read(&scales)).transpose()?;
        Self::from_stored(&stored, scales.as_ref())
    }

    pub(crate) fn from_stored(stored: &Stored, scales: Option<&Stored>) -> Result<Self, EngineError> {
        let (rows, columns) = stored.matrix_shape()?;
        let values = match (stored.outline.dtype, scales) {
            (Dtype::I8, Some(scales)) => {
                let scales = scales.to_f32()?;
                if scales.len() != rows {
                    return Err(stored.error(format!("{} scales for {rows} rows", scales.len())));
                }
                Values::Int8 { values: stored.to_i8()?, scales }
            }
            (Dtype::F16, _) => Values::Fp16(stored.to_f16()?),
            _ => return Ok(Self::Full(Tensor::from_vec(stored.to_f32()?, (rows, columns), &Device::Cpu)?)),
        };
        Ok(Self::Narrow(NarrowMatrix { values, rows, columns }))
    }

    /// `activations` times this matrix transposed: (m, columns) to (m, rows).
    pub(crate) fn product(&self, activations: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Full(weights) => activations.matmul(&weights.t()?),
            Self::Narrow(narrow) if activations.dim(0)? <= FEW_ROWS => narrow.product_with_few(activations),
            Self::Narrow(narrow) => narrow.product_by_panels(activations),
        }
    }

    /// Some rows as floats: (indices, columns). An index outside the matrix is an error.
    pub(crate) fn gather(&self, indices: &[u32]) -> candle_core::Result<Tensor> {
        match self {
            Self::Full(weights) => weights.index_select(&Tensor::new(indices, &Device::Cpu)?, 0),
            Self::Narrow(narrow) => narrow.gather(indices),
        }
    }
}

enum Values {
    Fp16(Vec<f16>),
    Int8 { values: Vec<i8>, scales: Vec<f32> },
}

/// A matrix whose weights are narrower than 32 bits.
pub(crate) struct NarrowMatrix {
    values: Values,
    rows: usize,
    columns: usize,
}

impl NarrowMatrix {
    fn gather(&self, indices: &[u32]) -> candle_core::Result<Tensor> {
        let mut floats = vec![0.0; indices.len() * self.columns];
        for (index, row) in indices.iter().zip(floats.chunks_exact_mut(self.columns)) {
            let index = *index as usize;
            if index >= self.rows {
                candle_core::bail!("token id {index} is outside the vocabulary of {}", self.rows);
            }
            self.widen(index, row);
        }
        Tensor::from_vec(floats, (indices.len(), self.columns), &Device::Cpu)
    }

    fn product_with_few(&self, activations: &Tensor) -> candle_core::Result<Tensor> {
        let (count, activations) = (activations.dim(0)?, activations.contiguous()?);
        let (storage, layout) = activations.storage_and_layout();
        let Storage::Cpu(CpuStorage::F32(floats)) = &*storage else {
            candle_core::bail!("activations are not 32-bit floats in main memory");
        };
        let floats = &floats[layout.start_offset()..][..count * self.columns];
        let mut transposed = vec![0.0; self.rows * count];
        transposed.par_chunks_mut(TASK_ROWS * count).enumerate().for_each(|(task, results)| {
            let first_row = task * TASK_ROWS;
            pulp::Arch::new().dispatch(RowsTimes { matrix: self, first_row, activations: floats, count, results });
        });
        Tensor::from_vec(transposed, (self.rows, count), &Device::Cpu)?.t()?.contiguous()
    }

    fn product_by_panels(&self, activations: &Tensor) -> candle_core::Result<Tensor> {
        let mut products = Vec::with_capacity(self.rows.div_ceil(PANEL_ROWS));
        for first in (0..self.rows).step_by(PANEL_ROWS) {
            let rows = PANEL_ROWS.min(self.rows - first);
            let mut panel = vec![0.0; rows * self.columns];
            panel.par_chunks_exact_mut(self.columns).enumerate().for_each(|(offset, row)| {
                pulp::Arch::new().dispatch(WidenRow { matrix: self, row: first + offset, floats: row });
            });
            let panel = Tensor::from_vec(panel, (rows, self.columns), &Device::Cpu)?;
            products.push(activations.matmul(&panel.t()?)?);
        }
        Tensor::cat(&products, 1)
    }

    #[expect(clippy::inline_always, reason = "as for `with_simd`")]
    #[inline(always)]
    fn widen(&self, row: usize, floats: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        match &self.values {
            Values::Fp16(halves) => halves[range].convert_to_f32_slice(floats),
            Values::Int8 { values, scales } => {
                let scale = scales[row];
                for (float, value) in floats.iter_mut().zip(&values[range]) {
                    *float = f32::from(*value) * scale;
                }
            }
        }
    }
}

/// A few products of some rows; `dispatch` compiles it for each instruction set and picks one at run time.
struct RowsTimes<'a> {
    matrix: &'a NarrowMatrix,
    first_row: usize,
    activations: &'a [f32],
    /// Rows of `activations`.
    count: usize,
    /// For each matrix row, one product with each row of `activations`.
    results: &'a mut [f32],
}

impl WithSimd for RowsTimes<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "`dispatch` inlines it to compile it for each instruction set")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let columns = self.matrix.columns;
        let mut row = vec![0.0; columns];
        for (offset, results) in self.results.chunks_exact_mut(self.count).enumerate() {
            self.matrix.widen(self.first_row + offset, &mut row);
            for (result, activations) in results.iter_mut().zip(self.activations.chunks_exact(columns)) {
                *result = dot(simd, &row, activations);
            }
        }
    }
}

/// One row as floats, compiled like [`RowsTimes`].
struct WidenRow<'a> {
    matrix: &'a NarrowMatrix,
    row: usize,
    floats: &'a mut [f32],
}

impl WithSimd for WidenRow<'_> {
    type Output = ();

    #[expect(clippy::inline_always, reason = "`dispatch` inlines it to compile it for each instruction set")]
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.matrix.widen(self.row, self.floats);
    }
}

#[expect(clippy::inline_always, reason = "as for `with_simd`")]
#[inline(always)]
fn dot<S: Simd>(simd: S, left: &[f32], right: &[f32]) -> f32 {
    let (left, left_rest) = S::as_simd_f32s(left);
    let (right, right_rest) = S::as_simd_f32s(right);
    let (left_blocks, left) = left.as_chunks::<UNROLL>();
    let (right_blocks, right) = right.as_chunks::<UNROLL>();
    let mut sums = [simd.splat_f32s(0.0); UNROLL];
    for (left, right) in left_blocks.iter().zip(right_blocks) {
        for lane in 0..UNROLL {
            sums[lane] = simd.mul_add_f32s(left[lane], right[lane], sums[lane]);
        }
    }
    for (left, right) in left.iter().zip(right) {
        sums[0] = simd.mul_add_f32s(*left, *right, sums[0]);
    }
    let sum = sums.into_iter().reduce(|left, right| simd.add_f32s(left, right));
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    rest + sum.map_or(0.0, |sum| simd.reduce_sum_f32s(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::quantize::int8_rows;
    use crate::engine::tensors::{Outline, f32_bytes};

    fn stored(dtype: Dtype, shape: &[usize], bytes: Vec<u8>) -> Stored {
        Stored { outline: Outline { name: "w".to_owned(), dtype, shape: shape.to_vec() }, bytes }
    }

    /// Numbers between -1 and 1 without a pattern that a wrong stride would keep.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(i16::from_be_bytes([state.to_be_bytes()[0], state.to_be_bytes()[1]])) / 32768.0
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn each_precision_gives_the_product_of_the_weights_it_stores() {
        let (rows, columns) = (70, 45);
        let floats = numbers(rows * columns, 1);
        let fp32 = stored(Dtype::F32, &[rows, columns], f32_bytes(&floats));
        let halves = fp32.to_f16().unwrap();
        let half_bytes = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
        let fp16 = stored(Dtype::F16, &[rows, columns], half_bytes);
        let (values, scales) = int8_rows(&floats, columns);
        let int8 = stored(Dtype::I8, &[rows, columns], values.iter().map(|value| value.cast_unsigned()).collect());
        let scales = stored(Dtype::F32, &[rows], f32_bytes(&scales));

        // Rounding to 16 bits loses 2^-11 of a weight, rounding to 8 bits half of 1/127 of the row's largest.
        for (matrix, tolerance) in [
            (Matrix::from_stored(&fp32, None).unwrap(), 1e-5),
            (Matrix::from_stored(&fp16, None).unwrap(), 45.0 / 2048.0),
            (Matrix::from_stored(&int8, Some(&scales)).unwrap(), 45.0 / 254.0),
        ] {
            for count in [1, 3, FEW_ROWS, FEW_ROWS + 1, 20] {
                let activations = numbers(count * columns, 2);
                let input = Tensor::from_slice(&activations, (count, columns), &Device::Cpu).unwrap();
                let products = matrix.product(&input).unwrap().to_vec2::<f32>().unwrap();
                for (i, row) in products.iter().enumerate() {
                    for (j, product) in row.iter().enumerate() {
                        let expected: f32 =
                            (0..columns).map(|k| activations[i * columns + k] * floats[j * columns + k]).sum();
                        assert!(
                            (product - expected).abs() < tolerance,
                            "{count} rows, ({i}, {j}): {product} {expected}"
                        );
                    }
                }
            }
        }
    }
}
