//! The forward pass of the Qwen2 and Llama families: RMS norms, rotary positions, grouped attention, SwiGLU.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::kv_cache::KvCache;
use candle_nn::ops::{rms_norm, silu, softmax_last_dim};
use candle_nn::rotary_emb::rope;
use rayon::prelude::*;

use crate::engine::EngineError;
use crate::engine::config::ModelConfig;
use crate::engine::matrix::Matrix;
use crate::engine::tensors::Stored;
use crate::engine::weights::Weights;

/// Positions that a KV cache grows by.
const CACHE_STEP: usize = 256;

/// The keys and values of one sequence so far, for each layer, as 32-bit floats.
pub(crate) struct Cache {
    layers: Vec<KvCache>,
    positions: usize,
}

/// The next tokens of one sequence: a piece of its prompt, or the token just generated.
pub(crate) struct Segment<'a> {
    pub(crate) tokens: &'a [u32],
    pub(crate) cache: &'a mut Cache,
}

/// A loaded model.
pub(crate) struct Model {
    shape: Shape,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Tensor,
    /// The embedding serves where the model has no head of its own.
    head: Option<Matrix>,
    /// Cosine and sine of each position's angles: (positions, head size / 2).
    rotary: [Tensor; 2],
}

struct Layer {
    input_norm: Tensor,
    qkv: Matrix,
    qkv_bias: Option<Tensor>,
    out: Matrix,
    post_norm: Tensor,
    gate_up: Matrix,
    down: Matrix,
}

#[derive(Clone, Copy)]
struct Shape {
    heads: usize,
    groups: usize,
    head_dim: usize,
    inner: usize,
    layers: usize,
    norm_eps: f32,
}

impl Model {
    /// Loads the weights; positions from `max_seq_len` on do not exist.
    pub(crate) fn load(
        config: &ModelConfig,
        weights: &Weights,
        max_seq_len: usize,
    ) -> std::result::Result<Self, EngineError> {
        let layers = (0..config.num_hidden_layers)
            .map(|layer| Layer::load(weights, layer))
            .collect::<std::result::Result<_, _>>()?;
        let head = (!config.tie_word_embeddings).then(|| Matrix::load(weights, "head.weight")).transpose()?;
        #[expect(clippy::cast_possible_truncation, reason = "candle norms in 32 bits")]
        let shape = Shape {
            heads: config.num_attention_heads,
            groups: config.key_value_heads(),
            head_dim: config.head_dim(),
            inner: config.intermediate_size,
            layers: config.num_hidden_layers,
            norm_eps: config.rms_norm_eps as f32,
        };
        Ok(Self {
            shape,
            embedding: Matrix::load(weights, "embedding.weight")?,
            layers,
            norm: vector(&weights.read("norm.weight")?)?,
            head,
            rotary: rotary_table(config, max_seq_len)?,
        })
    }

    pub(crate) fn new_cache(&self) -> Cache {
        Cache { layers: (0..self.shape.layers).map(|_| KvCache::new(1, CACHE_STEP)).collect(), positions: 0 }
    }

    /// Advances every sequence by its tokens; the logits after the last token of each: (segments, vocabulary).
    ///
    /// Linear layers take the tokens of all segments as one batch; each segment attends to its own cache.
    pub(crate) fn forward(&self, segments: &mut [Segment]) -> Result<Tensor> {
        let tokens: Vec<u32> = segments.iter().flat_map(|segment| segment.tokens).copied().collect();
        let positions: Vec<u32> = segments.iter().flat_map(Segment::positions).collect();
        let positions = Tensor::new(positions, &Device::Cpu)?;
        let angles = [self.rotary[0].index_select(&positions, 0)?, self.rotary[1].index_select(&positions, 0)?];
        let mut hidden = self.embedding.gather(&tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden = layer.forward(&hidden, index, segments, &angles, self.shape)?;
        }
        for segment in segments.iter_mut() {
            segment.cache.positions += segment.tokens.len();
        }
        let hidden = hidden.index_select(&last_rows(segments)?, 0)?;
        let hidden = rms_norm(&hidden, &self.norm, self.shape.norm_eps)?;
        self.head.as_ref().unwrap_or(&self.embedding).product(&hidden)
    }
}

impl Segment<'_> {
    fn positions(&self) -> impl Iterator<Item = u32> + use<> {
        let start = self.cache.positions;
        (start..start + self.tokens.len()).map(|position| u32::try_from(position).unwrap_or(u32::MAX))
    }
}

/// The row of each segment's last token in the batch.
fn last_rows(segments: &[Segment]) -> Result<Tensor> {
    let mut end = 0;
    let rows = segments.iter().map(|segment| {
        end += segment.tokens.len();
        i64::try_from(end).map_or(0, |end| end - 1)
    });
    Tensor::new(rows.collect::<Vec<i64>>(), &Device::Cpu)
}

impl Layer {
    fn load(weights: &Weights, layer: usize) -> std::result::Result<Self, EngineError> {
        let matrix = |name: &str| Matrix::load(weights, &format!("layers.{layer}.{name}.weight"));
        let norm = |name: &str| vector(&weights.read(&format!("layers.{layer}.{name}.weight"))?);
        let bias = format!("layers.{layer}.qkv.bias");
        let qkv_bias = weights.contains(&bias).then(|| vector(&weights.read(&bias)?)).transpose()?;
        Ok(Self {
            input_norm: norm("input_norm")?,
            qkv: matrix("qkv")?,
            qkv_bias,
            out: matrix("out")?,
            post_norm: norm("post_norm")?,
            gate_up: matrix("gate_up")?,
            down: matrix("down")?,
        })
    }

    fn forward(
        &self,
        hidden: &Tensor,
        index: usize,
        segments: &mut [Segment],
        angles: &[Tensor; 2],
        shape: Shape,
    ) -> Result<Tensor> {
        let normed = rms_norm(hidden, &self.input_norm, shape.norm_eps)?;
        let mut qkv = self.qkv.product(&normed)?;
        if let Some(bias) = &self.qkv_bias {
            qkv = qkv.broadcast_add(bias)?;
        }
        let attended = attend(&qkv, index, segments, angles, shape)?;
        let hidden = (hidden + self.out.product(&attended)?)?;
        let normed = rms_norm(&hidden, &self.post_norm, shape.norm_eps)?;
        let gate_up = self.gate_up.product(&normed)?;
        let gate = silu(&gate_up.narrow(1, 0, shape.inner)?)?;
        let inner = (gate * gate_up.narrow(1, shape.inner, shape.inner)?)?;
        hidden + self.down.product(&inner)?
    }
}

/// Attention of every segment: (tokens, query and key and value) to (tokens, query).
fn attend(qkv: &Tensor, layer: usize, segments: &mut [Segment], angles: &[Tensor; 2], shape: Shape) -> Result<Tensor> {
    let tokens = qkv.dim(0)?;
    let split = |first: usize, heads: usize| {
        let part = qkv.narrow(1, first * shape.head_dim, heads * shape.head_dim)?;
        part.reshape((tokens, heads, shape.head_dim))?.transpose(0, 1)?.contiguous()
    };
    let turn = |part: Tensor| rope(&part.unsqueeze(0)?, &angles[0], &angles[1])?.squeeze(0);
    let queries = turn(split(0, shape.heads)?)?;
    let keys = turn(split(shape.heads, shape.groups)?)?;
    let values = split(shape.heads + shape.groups, shape.groups)?;

    let mut end = 0;
    let starts: Vec<usize> = segments
        .iter()
        .map(|segment| {
            end += segment.tokens.len();
            end - segment.tokens.len()
        })
        .collect();
    let attended = segments.par_iter_mut().zip(starts).map(|(segment, start)| {
        let count = segment.tokens.len();
        let of_segment = |part: &Tensor| part.narrow(1, start, count)?.contiguous();
        let cache = &mut segment.cache.layers[layer];
        let (keys, values) = cache.append(&of_segment(&keys)?, &of_segment(&values)?)?;
        attend_one(&of_segment(&queries)?, &keys, &values, shape)
    });
    Tensor::cat(&attended.collect::<Result<Vec<_>>>()?, 0)
}

/// Attention of one sequence. Queries: (heads, new, head size); keys and values: (groups, all, head size).
fn attend_one(queries: &Tensor, keys: &Tensor, values: &Tensor, shape: Shape) -> Result<Tensor> {
    let Shape { heads, groups, head_dim, .. } = shape;
    let (new, all) = (queries.dim(1)?, keys.dim(1)?);
    // The query heads of a group share its keys, so they are rows of one product.
    let queries = queries.reshape((groups, heads / groups * new, head_dim))?;
    let mut scores = (queries.matmul(&keys.transpose(1, 2)?)? * (1.0 / (head_dim as f64).sqrt()))?;
    if new > 1 {
        let masked = scores.reshape((heads, new, all))?.broadcast_add(&causal_mask(new, all)?)?;
        scores = masked.reshape((groups, heads / groups * new, all))?;
    }
    let attended = softmax_last_dim(&scores)?.matmul(values)?;
    attended.reshape((heads, new, head_dim))?.transpose(0, 1)?.reshape((new, heads * head_dim))
}

/// 0 where a new token may look, minus infinity at the tokens after it.
fn causal_mask(new: usize, all: usize) -> Result<Tensor> {
    let before = all - new;
    let row = |token: usize| (0..all).map(move |seen| if seen <= before + token { 0.0 } else { f32::NEG_INFINITY });
    Tensor::from_vec((0..new).flat_map(row).collect(), (new, all), &Device::Cpu)
}

fn rotary_table(config: &ModelConfig, positions: usize) -> Result<[Tensor; 2]> {
    let head_dim = config.head_dim();
    #[expect(clippy::cast_possible_truncation, reason = "Hugging Face computes the angles in 32 bits")]
    let frequencies: Vec<f32> =
        (0..head_dim).step_by(2).map(|i| config.rope_theta().powf(-(i as f64) / head_dim as f64) as f32).collect();
    let frequencies = Tensor::new(frequencies, &Device::Cpu)?.unsqueeze(0)?;
    let end = u32::try_from(positions).unwrap_or(u32::MAX);
    let positions = Tensor::arange(0, end, &Device::Cpu)?.to_dtype(DType::F32)?.unsqueeze(D::Minus1)?;
    let angles = positions.matmul(&frequencies)?;
    Ok([angles.cos()?, angles.sin()?])
}

fn vector(stored: &Stored) -> std::result::Result<Tensor, EngineError> {
    Ok(Tensor::new(stored.to_f32()?, &Device::Cpu)?)
}
