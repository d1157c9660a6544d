//! Tokenizers of several kinds and a load point, for tests.

use std::collections::HashSet;
use std::str::FromStr as _;

use tokenizers::AddedToken;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::{Prepend, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::whitespace::Whitespace;
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::Tokenizer;
use crate::spec::{Arrival, Data, LoadPoint, Output, OutputMode, OutputTokens, Protocol, Sampling, Volume};

const CORPUS: &str = "the quick brown fox jumps over the lazy dog and then the other dogs jump over the foxes \
    while a slow green turtle reads what others wrote about jumping animals in another country 你好世界 你好";

fn trained(mut tokenizer: tokenizers::Tokenizer, alphabet: bool) -> tokenizers::Tokenizer {
    let mut trainer = BpeTrainer::builder().vocab_size(400).show_progress(false);
    if alphabet {
        trainer = trainer.initial_alphabet(ByteLevel::alphabet().into_iter().collect());
    }
    let mut trainer = TrainerWrapper::BpeTrainer(trainer.build());
    tokenizer.train(&mut trainer, [CORPUS, "the dog", "a fox"].into_iter()).unwrap();
    tokenizer.add_special_tokens([AddedToken::from("<|end|>", true)]).unwrap();
    tokenizer
}

pub(super) fn byte_level() -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let part = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(part)).with_decoder(Some(part));
    trained(tokenizer, true)
}

pub(super) fn metaspace() -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let part = Metaspace::new('▁', PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(part.clone())).with_decoder(Some(part));
    trained(tokenizer, false)
}

/// Splits off each digit before anything else, as SmolLM does.
pub(super) fn digits() -> tokenizers::Tokenizer {
    in_parts(Digits::new(true).into(), true)
}

/// Splits by an expression, as Llama 3 and Qwen 2 do.
pub(super) fn splitting(pattern: &str) -> tokenizers::Tokenizer {
    let pattern = SplitPattern::Regex(pattern.to_owned());
    in_parts(Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap().into(), false)
}

fn in_parts(first: PreTokenizerWrapper, use_regex: bool) -> tokenizers::Tokenizer {
    let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
    let bytes = ByteLevel::new(false, true, use_regex);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![first, bytes.into()]))).with_decoder(Some(bytes));
    trained(tokenizer, true)
}

/// Makes one word of the whole text, with `▁` for spaces, and falls back on bytes, as Llama 2 does.
pub(super) fn prepended() -> tokenizers::Tokenizer {
    let spaces = [Prepend::new("▁".to_owned()).into(), Replace::new(" ", "▁").unwrap().into()];
    let mut tokenizer = metaspace();
    tokenizer.with_pre_tokenizer(None::<Metaspace>).with_normalizer(Some(Normalizers::new(spaces.into()))).unwrap();
    let mut file: serde_json::Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
    file["model"]["byte_fallback"] = true.into();
    let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
    vocabulary.extend((0..=u8::MAX).map(|byte| (format!("<0x{byte:02X}>"), (1000 + u32::from(byte)).into())));
    tokenizers::Tokenizer::from_str(&file.to_string()).unwrap()
}

pub(super) fn words() -> tokenizers::Tokenizer {
    let vocabulary = CORPUS.split(' ').collect::<HashSet<_>>();
    let model = WordLevel::builder()
        .vocab(vocabulary.into_iter().map(str::to_owned).zip(0..).collect())
        .unk_token("the".to_owned())
        .build()
        .unwrap();
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(Whitespace));
    tokenizer
}

/// As read from a file.
pub(super) fn loaded(tokenizer: &tokenizers::Tokenizer) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path().join("tokenizer.json"), false).unwrap();
    Tokenizer::load(folder.path()).unwrap()
}

/// A load point of four requests with nothing special about it.
pub(super) fn point(data: Data) -> LoadPoint {
    LoadPoint {
        phase: "load".to_owned(),
        method: None,
        protocol: Protocol::OpenaiChat,
        streaming: true,
        data,
        output: Output { mode: OutputMode::Exact, tokens: OutputTokens::fixed(4) },
        sampling: Sampling::default(),
        beam_width: 1,
        arrival: Arrival::Closed { concurrency: 2 },
        volume: Volume::Requests(3),
        drain_s: None,
        warmup_requests: 1,
        round: 1,
        prompt_seed: 0,
        sampling_seed: 0,
        arrival_seed: 0,
        cold_connections: false,
        retries: 0,
        request_timeout_s: 1.0,
        idle_timeout_s: None,
        point_timeout_s: 1.0,
    }
}
