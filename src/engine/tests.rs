//! The forward pass against Hugging Face transformers, against itself without a cache, and across precisions.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::engine::config::{ModelConfig, read_json};
use crate::engine::model::{Cache, Model, Segment};
use crate::engine::weights::{ENGINE_FILE, Weights};
use crate::engine::{BuildOptions, EngineError, Precision, build, quantize};

/// Made by `scripts/golden_logits.py`.
#[derive(Deserialize)]
struct Golden {
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
}

fn fixture(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fixtures/golden").join(family)
}

fn load(folder: &Path) -> Model {
    let config = ModelConfig::read(folder).unwrap();
    let weights = Weights::of_checkpoint(folder, &config).unwrap();
    Model::load(&config, &weights, config.max_position_embeddings).unwrap()
}

fn logits(model: &Model, steps: &mut [(&[u32], &mut Cache)]) -> Vec<Vec<f32>> {
    let mut segments: Vec<Segment> = steps.iter_mut().map(|(tokens, cache)| Segment { tokens, cache }).collect();
    model.forward(&mut segments).unwrap().to_vec2().unwrap()
}

/// Without a cache: all tokens at once.
fn naive(model: &Model, tokens: &[u32]) -> Vec<f32> {
    logits(model, &mut [(tokens, &mut model.new_cache())]).remove(0)
}

fn largest_difference(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| (left - right).abs()).fold(0.0, f32::max)
}

fn argmax(logits: &[f32]) -> u32 {
    let best = (0..logits.len()).max_by(|left, right| logits[*left].total_cmp(&logits[*right])).unwrap();
    u32::try_from(best).unwrap()
}

#[test]
fn logits_are_those_of_transformers() {
    for family in ["qwen2", "llama"] {
        let model = load(&fixture(family));
        let golden: Golden = read_json(&fixture(family).join("golden.json")).unwrap();
        for (count, expected) in (1..).zip(&golden.logits) {
            let difference = largest_difference(&naive(&model, &golden.tokens[..count]), expected);
            assert!(difference < 1e-4, "{family}, {count} tokens: {difference}");
        }
    }
}

#[test]
fn a_batch_with_caches_gives_what_each_sequence_gives_alone() {
    let model = load(&fixture("qwen2"));
    let prompts: [&[u32]; 3] = [&[3, 17, 5], &[39], &[0, 21, 8, 8, 30]];
    let mut sequences: Vec<(Vec<u32>, Vec<u32>, Cache)> =
        prompts.iter().map(|prompt| (prompt.to_vec(), prompt.to_vec(), model.new_cache())).collect();
    // The second joins when the first has generated, the third in pieces of two tokens.
    for step in 0..20 {
        let mut batch = Vec::new();
        for (index, (pending, _, cache)) in sequences.iter_mut().enumerate().take(step + 1) {
            let count = if index == 2 { pending.len().min(2) } else { pending.len() };
            batch.push((&pending[..count], cache));
        }
        let rows = logits(&model, &mut batch);
        for (index, row) in rows.iter().enumerate() {
            let (pending, all, _) = &mut sequences[index];
            pending.drain(..if index == 2 { pending.len().min(2) } else { pending.len() });
            if !pending.is_empty() {
                continue;
            }
            let alone = naive(&model, all);
            assert!(largest_difference(row, &alone) < 1e-4, "step {step}, sequence {index}");
            assert_eq!(argmax(row), argmax(&alone), "step {step}, sequence {index}");
            pending.push(argmax(row));
            all.push(argmax(row));
        }
    }
}

#[test]
fn quantized_models_stay_close_and_get_smaller() {
    let golden: Golden = read_json(&fixture("llama").join("golden.json")).unwrap();
    let exact = golden.logits.last().unwrap();
    let spread = exact.iter().fold(0.0_f32, |largest, logit| largest.max(logit.abs()));
    let bytes = |folder: &Path| std::fs::metadata(folder.join("model.safetensors")).unwrap().len() as f64;
    for (precision, tolerance) in [(Precision::Fp32, 1e-5), (Precision::Fp16, 2e-3), (Precision::Int8Wo, 0.1)] {
        let folder = tempfile::tempdir().unwrap();
        quantize(&fixture("llama"), folder.path(), precision).unwrap();
        let difference = largest_difference(&naive(&load(folder.path()), &golden.tokens), exact) / spread;
        assert!(difference < tolerance, "{precision}: {difference}");
        assert!(bytes(folder.path()) <= bytes(&fixture("llama")) * 1.1, "{precision}");
    }
}

#[test]
fn a_built_engine_computes_what_its_checkpoint_computes() {
    let options = BuildOptions { max_batch_size: 2, max_seq_len: 64 };
    for precision in Precision::ALL {
        let (checkpoint, engine) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        quantize(&fixture("qwen2"), checkpoint.path(), precision).unwrap();
        build(checkpoint.path(), engine.path(), options).unwrap();
        assert!(engine.path().join(ENGINE_FILE).exists());
        let config = ModelConfig::read(checkpoint.path()).unwrap();
        let weights = Weights::of_engine(engine.path(), &config).unwrap();
        assert_eq!(weights.precision().unwrap(), precision);
        let built = Model::load(&config, &weights, 64).unwrap();
        assert_eq!(naive(&built, &[1, 2, 3]), naive(&load(checkpoint.path()), &[1, 2, 3]), "{precision}");
    }
}

#[test]
fn refusals_name_the_numbers() {
    let out = tempfile::tempdir().unwrap();
    let error = build(&fixture("qwen2"), out.path(), BuildOptions { max_batch_size: 1, max_seq_len: 65 }).unwrap_err();
    assert_eq!(error.to_string(), "max_seq_len 65 is over the model's max_position_embeddings 64");
    let error = build(&fixture("qwen2"), out.path(), BuildOptions { max_batch_size: 0, max_seq_len: 64 }).unwrap_err();
    assert_eq!(error.to_string(), "max_batch_size must be at least 1");

    quantize(&fixture("qwen2"), out.path(), Precision::Int8Wo).unwrap();
    let again = quantize(out.path(), &out.path().join("again"), Precision::Fp16).unwrap_err();
    assert!(matches!(again, EngineError::AlreadyQuantized { .. }), "{again}");
    assert!("int4".parse::<Precision>().unwrap_err().to_string().contains("`int8_wo`"));
}

#[test]
fn broken_weights_are_errors() {
    let out = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture("qwen2").join(name), out.path().join(name)).unwrap();
    }
    let whole = std::fs::read(out.path().join("model.safetensors")).unwrap();
    for bytes in [&whole[..0], &whole[..100], &whole[..whole.len() - 1], b"<html>403 Forbidden</html>"] {
        std::fs::write(out.path().join("model.safetensors"), bytes).unwrap();
        let config = ModelConfig::read(out.path()).unwrap();
        assert!(Weights::of_checkpoint(out.path(), &config).is_err(), "{} bytes", bytes.len());
    }
}
