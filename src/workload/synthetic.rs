//! Random text of an exact number of tokens.
//!
//! Text is made of ordinary tokens that keep their identity when written side by side, encoded again, and repaired
//! until the count is exact. Every prompt has a random generator of its own, so the order of work does not change it.

use std::collections::HashSet;

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::Prompt;
use super::{Tokenizer, WorkloadError};

/// Tokens to draw from: enough that prompts of two tokens differ, few enough that they are found at once.
const POOL: usize = 4096;
/// With fewer tokens than these that bring a space, the others are drawn as well.
const ENOUGH_WORDS: usize = 64;
/// Corrections of one draw before it is given up.
const REPAIRS: usize = 64;
/// Draws of one prompt before it counts as impossible.
const DRAWS: u64 = 256;

pub(super) fn synthetic(tokenizer: &Tokenizer, isl: u32, count: u64, seed: u64) -> Result<Vec<Prompt>, WorkloadError> {
    let impossible = |reason| WorkloadError::Synthetic { path: tokenizer.path().to_owned(), isl, count, reason };
    if isl == 0 {
        return Err(impossible("a prompt has at least one token"));
    }
    // Prompts of one token differ only if there are more tokens than prompts.
    let single = if isl == 1 { usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2) } else { 0 };
    let pool = side_by_side_tokens(tokenizer, ENOUGH_WORDS.max(single))?;
    if pool.is_empty() {
        return Err(impossible("no token of it survives being decoded and encoded again"));
    }
    let draw = |index, attempt| exact_text(tokenizer, &pool, isl, generator([seed, u64::from(isl), index, attempt]));
    let first_draws: Vec<Option<String>> =
        (0..count).into_par_iter().map(|index| draw(index, 0)).collect::<Result<_, _>>()?;

    let mut texts = HashSet::new();
    let mut prompts = Vec::new();
    for (index, mut text) in (0..count).zip(first_draws) {
        let mut attempt = 0;
        let unique = loop {
            match text {
                Some(text) if texts.insert(text.clone()) => break text,
                Some(_) | None if attempt == DRAWS => {
                    return Err(impossible(
                        "too few texts have that many tokens; take longer prompts or fewer of them",
                    ));
                }
                Some(_) | None => {
                    attempt += 1;
                    text = draw(index, attempt)?;
                }
            }
        };
        prompts.push(Prompt::of_text(unique, Some(isl)));
    }
    Ok(prompts)
}

/// Tokens whose text, written twice, is encoded as the token twice: words rather than fragments, whatever the kind of
/// tokenizer. Tokens that bring their own space are preferred, since nothing merges across a space.
fn side_by_side_tokens(tokenizer: &Tokenizer, enough: usize) -> Result<Vec<u32>, WorkloadError> {
    let limit = POOL.max(enough);
    let mut ids = tokenizer.ordinary_ids();
    ids.shuffle(&mut generator([0; 4]));
    let (mut words, mut others) = (Vec::new(), Vec::new());
    for some in ids.chunks(POOL) {
        let kept: Vec<Option<(u32, bool)>> =
            some.par_iter().map(|&id| side_by_side(tokenizer, id)).collect::<Result<_, _>>()?;
        for (id, spaced) in kept.into_iter().flatten() {
            if spaced { words.push(id) } else { others.push(id) }
        }
        if words.len() >= limit {
            break;
        }
    }
    if words.len() < enough {
        words.append(&mut others);
    }
    words.truncate(limit);
    Ok(words)
}

/// The token and whether its text brings a space, or nothing for a token that does not survive.
fn side_by_side(tokenizer: &Tokenizer, id: u32) -> Result<Option<(u32, bool)>, WorkloadError> {
    let text = tokenizer.decode(&[id, id])?;
    let readable = !text.chars().any(|character| character.is_control() || character == char::REPLACEMENT_CHARACTER);
    let survives = readable && !text.trim().is_empty() && tokenizer.encode(&text)? == [id, id];
    Ok(survives.then(|| (id, text.trim().contains(' '))))
}

/// One draw; `None` when repairing it does not end.
fn exact_text(
    tokenizer: &Tokenizer,
    pool: &[u32],
    isl: u32,
    mut random: ChaCha8Rng,
) -> Result<Option<String>, WorkloadError> {
    let isl = isl as usize;
    let mut draw = || *pool.choose(&mut random).expect("the caller checked that the pool is not empty");
    let mut ids: Vec<u32> = (0..isl).map(|_| draw()).collect();
    for _ in 0..REPAIRS {
        let text = tokenizer.decode(&ids)?;
        ids = tokenizer.encode(&text)?;
        if ids.len() == isl {
            return Ok(Some(text));
        }
        // Too long: cut. Too short: add. A cut may itself change the count, so one more token is replaced each time.
        ids.truncate(isl.saturating_sub(1));
        ids.resize_with(isl, &mut draw);
    }
    Ok(None)
}

/// A stream of its own for each combination; prompts of different lengths share no beginning, which a server might have
/// cached.
fn generator(numbers: [u64; 4]) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokenizers::AddedToken;
    use tokenizers::decoders::byte_level::ByteLevel;
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::models::wordlevel::WordLevel;
    use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
    use tokenizers::pre_tokenizers::whitespace::Whitespace;

    use super::*;

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

    fn byte_level() -> tokenizers::Tokenizer {
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        let part = ByteLevel::new(false, true, true);
        tokenizer.with_pre_tokenizer(Some(part)).with_decoder(Some(part));
        trained(tokenizer, true)
    }

    fn metaspace() -> tokenizers::Tokenizer {
        let mut tokenizer = tokenizers::Tokenizer::new(BPE::default());
        let part = Metaspace::new('▁', PrependScheme::Always, true);
        tokenizer.with_pre_tokenizer(Some(part.clone())).with_decoder(Some(part));
        trained(tokenizer, false)
    }

    fn words() -> tokenizers::Tokenizer {
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

    fn saved(tokenizer: &tokenizers::Tokenizer, folder: &Path) -> Tokenizer {
        tokenizer.save(folder.join("tokenizer.json"), false).unwrap();
        Tokenizer::load(folder).unwrap()
    }

    #[test]
    fn prompts_are_exact_different_and_repeatable() {
        for tokenizer in [byte_level(), metaspace(), words()] {
            let folder = tempfile::tempdir().unwrap();
            let tokenizer = saved(&tokenizer, folder.path());
            for (isl, count) in [(1, 4), (2, 20), (7, 50), (200, 10)] {
                let prompts = synthetic(&tokenizer, isl, count, 5).unwrap();
                let different: HashSet<String> =
                    prompts.iter().map(|prompt| prompt.content.text().into_owned()).collect();
                assert_eq!(different.len() as u64, count);
                for prompt in &prompts {
                    assert_eq!(tokenizer.count(&prompt.content.text()).unwrap(), isl, "{prompt:?}");
                }
                assert_eq!(prompts, synthetic(&tokenizer, isl, count, 5).unwrap());
                assert_ne!(prompts, synthetic(&tokenizer, isl, count, 6).unwrap());
                assert_eq!(prompts[..2], synthetic(&tokenizer, isl, 2, 5).unwrap());
            }
        }
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = saved(&words(), folder.path());
        for (isl, count) in [(0, 1), (1, 1000)] {
            let error = synthetic(&tokenizer, isl, count, 0).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("cannot make {count} different prompts of exactly {isl} tokens")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_tokenizer_that_cannot_be_read_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = Tokenizer::load(folder.path()) else { panic!("there is no file") };
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}
