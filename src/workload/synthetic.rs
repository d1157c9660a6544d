//! Random text of an exact number of tokens.
//!
//! Text is made of ordinary tokens that keep their identity when written side by side, encoded again, and repaired
//! until the count is exact. Every prompt has a random generator of its own, so the order of work does not change it.

use std::collections::HashSet;
use std::sync::Arc;

use rand::seq::{IndexedRandom, SliceRandom};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rayon::prelude::*;

use super::{Tokenizer, WorkloadError};

/// Tokens to draw from: enough that prompts of two tokens differ, few enough that they are found at once.
const POOL: usize = 4096;
/// With fewer tokens than these that bring a space, the others are drawn as well.
const ENOUGH_WORDS: usize = 64;
/// Corrections of one draw before it is given up.
const REPAIRS: usize = 64;
/// Draws of one prompt before it counts as impossible.
pub(super) const DRAWS: u64 = 256;

/// Makes texts under one tokenizer.
pub(super) struct Writer<'t> {
    pub(super) tokenizer: &'t Tokenizer,
    /// Tokens that survive side by side.
    pool: Vec<u32>,
}

/// A text to make.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// The tokens that it begins with.
    pub start: Arc<[u32]>,
    /// Its tokens in all.
    pub tokens: u32,
}

impl<'t> Writer<'t> {
    /// Finds tokens to write with, enough for so many different texts of one token. Blocks; uses all cores.
    pub(super) fn new(tokenizer: &'t Tokenizer, single: usize) -> Result<Self, WorkloadError> {
        let pool = side_by_side_tokens(tokenizer, ENOUGH_WORDS.max(single.saturating_mul(2)))?;
        Ok(Self { tokenizer, pool })
    }

    /// Different texts, exactly as wanted: a pure function of the arguments. Blocks; uses all cores.
    pub(super) fn different(&self, wanted: &[Wanted], seed: u64) -> Result<Vec<String>, WorkloadError> {
        let draw = |index: usize, attempt| {
            let tokens = u64::from(wanted[index].tokens);
            self.exact(&wanted[index], generator([seed, tokens, index as u64, attempt]))
        };
        let first_draws: Vec<Option<String>> =
            (0..wanted.len()).into_par_iter().map(|index| draw(index, 0)).collect::<Result<_, _>>()?;
        let mut texts = HashSet::new();
        let mut in_order = Vec::new();
        for (index, mut text) in first_draws.into_iter().enumerate() {
            let mut attempt = 0;
            let unique = loop {
                match text {
                    Some(text) if texts.insert(text.clone()) => break text,
                    Some(_) | None if attempt == DRAWS => return Err(self.too_few(wanted, index)),
                    Some(_) | None => {
                        attempt += 1;
                        text = draw(index, attempt)?;
                    }
                }
            };
            in_order.push(unique);
        }
        Ok(in_order)
    }

    /// One draw; `None` when repairing it does not end, or changes what the text is to begin with.
    pub(super) fn exact(&self, wanted: &Wanted, mut random: ChaCha8Rng) -> Result<Option<String>, WorkloadError> {
        if wanted.tokens == 0 {
            return Err(self.impossible(1, wanted.tokens, "a prompt has at least one token"));
        }
        let mut planned = wanted.start.to_vec();
        planned.extend(self.planned(&mut random, (wanted.tokens as usize).saturating_sub(planned.len()))?);
        let text = self.repaired(planned, &mut random)?;
        Ok(text.filter(|(_, ids)| ids.starts_with(&wanted.start)).map(|(text, _)| text))
    }

    /// A text of as many tokens as planned, nearly always of those planned, and the tokens that it has.
    pub(super) fn repaired(
        &self,
        planned: Vec<u32>,
        random: &mut ChaCha8Rng,
    ) -> Result<Option<(String, Vec<u32>)>, WorkloadError> {
        let tokens = planned.len();
        let mut ids = planned;
        for _ in 0..REPAIRS {
            let text = self.tokenizer.decode(&ids)?;
            ids = self.tokenizer.encode(&text)?;
            if ids.len() == tokens {
                return Ok(Some((text, ids)));
            }
            // Too long: cut. Too short: add. A cut may itself change the count, so one more token is replaced each time.
            ids.truncate(tokens.saturating_sub(1));
            let missing = tokens - ids.len();
            ids.extend(self.planned(random, missing)?);
        }
        Ok(None)
    }

    /// Tokens that are likely to survive as they are.
    pub(super) fn planned(&self, random: &mut ChaCha8Rng, count: usize) -> Result<Vec<u32>, WorkloadError> {
        let draw = |_| self.pool.choose(random).copied();
        let none = || self.impossible(count as u64, 1, "no token of it survives being decoded and encoded again");
        (0..count).map(draw).collect::<Option<_>>().ok_or_else(none)
    }

    fn too_few(&self, wanted: &[Wanted], index: usize) -> WorkloadError {
        let tokens = wanted[index].tokens;
        let count = wanted.iter().filter(|other| other.tokens == tokens).count() as u64;
        self.impossible(count, tokens, "too few texts have that many tokens; take longer prompts or fewer of them")
    }

    pub(super) fn impossible(&self, count: u64, isl: u32, reason: &'static str) -> WorkloadError {
        WorkloadError::Synthetic { path: self.tokenizer.path().to_owned(), isl, count, reason }
    }
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

/// A stream of its own for each combination; prompts of different lengths share no beginning, which a server might have
/// cached.
pub(super) fn generator(numbers: [u64; 4]) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, number) in key.chunks_exact_mut(8).zip(numbers) {
        bytes.copy_from_slice(&number.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::fixture::{byte_level, loaded, metaspace, words};

    fn texts(tokenizer: &Tokenizer, isl: u32, count: usize, seed: u64) -> Result<Vec<String>, WorkloadError> {
        let wanted = vec![Wanted { start: Arc::default(), tokens: isl }; count];
        Writer::new(tokenizer, if isl == 1 { count } else { 0 })?.different(&wanted, seed)
    }

    #[test]
    fn prompts_are_exact_different_and_repeatable() {
        for tokenizer in [byte_level(), metaspace(), words()] {
            let tokenizer = loaded(&tokenizer);
            for (isl, count) in [(1, 4), (2, 20), (7, 50), (200, 10)] {
                let prompts = texts(&tokenizer, isl, count, 5).unwrap();
                assert_eq!(prompts.iter().collect::<HashSet<_>>().len(), count);
                for prompt in &prompts {
                    assert_eq!(tokenizer.count(prompt).unwrap(), isl, "{prompt:?}");
                }
                assert_eq!(prompts, texts(&tokenizer, isl, count, 5).unwrap());
                assert_ne!(prompts, texts(&tokenizer, isl, count, 6).unwrap());
                assert_eq!(prompts[..2], texts(&tokenizer, isl, 2, 5).unwrap());
            }
        }
    }

    #[test]
    fn a_text_begins_with_the_tokens_it_is_to() {
        for tokenizer in [byte_level(), metaspace(), words()] {
            let tokenizer = loaded(&tokenizer);
            let start: Arc<[u32]> = tokenizer.encode(&texts(&tokenizer, 20, 1, 1).unwrap()[0]).unwrap().into();
            let wanted = vec![Wanted { start: start.clone(), tokens: 33 }; 20];
            for text in Writer::new(&tokenizer, 0).unwrap().different(&wanted, 2).unwrap() {
                let ids = tokenizer.encode(&text).unwrap();
                assert_eq!((ids.len(), &ids[..20]), (33, &start[..]));
            }
        }
    }

    #[test]
    fn what_cannot_be_made_is_an_error() {
        let tokenizer = loaded(&words());
        for (isl, count) in [(0, 1), (1, 1000)] {
            let error = texts(&tokenizer, isl, count, 0).unwrap_err().to_string();
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
