//! Counting the tokens of many texts: a piece that was counted before is not encoded again.

use memchr::memchr_iter;
use rustc_hash::FxHashMap;
use serde_json::json;
use tokenizers::{AddedToken, ModelWrapper};

use super::words::Words;
use super::{Tokenizer, WorkloadError};

/// Longer pieces hardly come twice.
const LONGEST_KEPT: usize = 64;
/// Bounds the memory of a [`Counter`], at some 50 bytes each.
const MOST_KEPT: usize = 2_000_000;

/// Where a text can be cut so that its pieces have together exactly the tokens of the whole: at a space between certain
/// bytes. A text is first divided by added tokens; the bytes that those begin and end with are not among them where that
/// matters.
struct Cuts {
    kind: Kind,
    /// By byte, whether it may come before the space.
    before: [bool; 256],
    /// And after it.
    after: [bool; 256],
    /// Whether an added token may begin with it.
    begins_added: [bool; 256],
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    /// Before the space, which a letter or a sign follows. All of [`Words`] begin a word there, whatever comes before; and since they look at most one character ahead, and only past white space, the text before splits as if
    /// it ended there: `\s+(?!\S)` leaves the last space of several to the word, and at an end takes all that are left.
    /// Digits are another matter: some tokenizers split them off first.
    BeforeSpace(Words),
    /// At the space, which stands between two visible characters. It begins the next piece and is left out of it, since
    /// the tokenizer puts one before every text. No token of the vocabulary has a space after another character, so none
    /// can be made across the cut.
    AtSpace,
}

impl Cuts {
    /// `None` for a tokenizer of which nothing is known.
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let added = tokenizer.get_added_tokens_decoder();
        let holds = |token: &AddedToken| {
            !token.lstrip && !token.rstrip && !token.single_word && !token.content.contains([' ', SPACE])
        };
        let kind = Kind::of(tokenizer).filter(|_| added.values().all(holds))?;
        let visible = |byte: u8| byte.is_ascii_graphic();
        let mut cuts = Self {
            kind,
            before: std::array::from_fn(|byte| kind != Kind::AtSpace || u8::try_from(byte).is_ok_and(visible)),
            begins_added: [false; 256],
            after: std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(|it| visible(it) && !it.is_ascii_digit())),
        };
        for content in added.values().map(|token| token.content.as_bytes()) {
            if let (Some(first), Some(last)) = (content.first(), content.last()) {
                cuts.after[usize::from(*first)] = false;
                cuts.begins_added[usize::from(*first)] = true;
                cuts.before[usize::from(*last)] &= kind != Kind::AtSpace;
            }
        }
        Some(cuts)
    }

    /// How a piece can be divided further: plain ASCII without an added token.
    fn words_of(&self, piece: &str) -> Option<Words> {
        let Kind::BeforeSpace(words) = self.kind else { return None };
        let plain = |byte: &u8| byte.is_ascii() && !self.begins_added[usize::from(*byte)];
        piece.as_bytes().iter().all(plain).then_some(words)
    }

    /// The pieces of a text.
    fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let bytes = text.as_bytes();
        let fits = |at: usize| {
            let (before, after) = (at.checked_sub(1).map(|at| bytes[at]), bytes.get(at + 1));
            before.is_some_and(|byte| self.before[usize::from(byte)])
                && after.is_some_and(|&byte| self.after[usize::from(byte)])
        };
        let left_out = usize::from(self.kind == Kind::AtSpace);
        let mut start = 0;
        memchr_iter(b' ', bytes).filter(move |&at| fits(at)).map(Some).chain([None]).map(move |cut| {
            let piece = &text[start..cut.unwrap_or(text.len())];
            start = cut.map_or(text.len(), |at| at + left_out);
            piece
        })
    }
}

impl Kind {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        if model.dropout.is_some() || !affixes.into_iter().flatten().all(String::is_empty) {
            return None;
        }
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
        let splitter = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
        if normalizer.is_null() || normalizer["type"] == "NFC" {
            return Words::of(&splitter).map(Self::BeforeSpace);
        }
        let spaces = json!([
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]);
        let is_metaspace =
            splitter.is_null() && normalizer["type"] == "Sequence" && normalizer["normalizers"] == spaces;
        let joins = |token: &String| token.trim_start_matches(SPACE).contains(SPACE);
        let has_space = tokenizer.token_to_id("▁").is_some();
        (is_metaspace && has_space && !tokenizer.get_vocab(false).keys().any(joins)).then_some(Self::AtSpace)
    }
}

/// What stands for a space inside such a tokenizer.
const SPACE: char = '▁';

/// Counts tokens as [`Tokenizer::count`] does, of texts that live as long as it. For one thread.
pub(super) struct Counter<'t> {
    tokenizer: &'t Tokenizer,
    cuts: Option<Cuts>,
    /// What the tokenizer puts around a text.
    special: u32,
    known: Known<'t>,
}

/// Tokens by text. Most words are short: they are keys themselves, so that finding one is one look into memory.
#[derive(Default)]
struct Known<'t> {
    short: FxHashMap<[u8; SHORT], u32>,
    long: FxHashMap<&'t str, u32>,
}

/// Bytes of a short text and its length.
const SHORT: usize = 16;

impl<'t> Known<'t> {
    fn of(&mut self, text: &'t str, tokenizer: &Tokenizer) -> Result<u32, WorkloadError> {
        let short = short(text);
        let known = match &short {
            Some(key) => self.short.get(key),
            None => self.long.get(text),
        };
        if let Some(&tokens) = known {
            return Ok(tokens);
        }
        let tokens = tokenizer.count(text)?;
        if self.short.len() + self.long.len() < MOST_KEPT {
            match short {
                Some(key) => drop(self.short.insert(key, tokens)),
                None if text.len() <= LONGEST_KEPT => drop(self.long.insert(text, tokens)),
                None => {}
            }
        }
        Ok(tokens)
    }
}

fn short(text: &str) -> Option<[u8; SHORT]> {
    let mut key = [0; SHORT];
    let (last, bytes) = key.split_last_mut()?;
    bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
    *last = u8::try_from(text.len()).ok()?;
    Some(key)
}

impl<'t> Counter<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, with_special: bool) -> Result<Self, WorkloadError> {
        let special = if with_special { tokenizer.count_with_special("")? } else { 0 };
        Ok(Self { tokenizer, cuts: Cuts::of(tokenizer.inner()), special, known: Known::default() })
    }

    /// Tokens of `text`; `None` for more than `most`, of which no more are counted than shows it.
    pub(super) fn count(&mut self, text: &'t str, most: u32) -> Result<Option<u32>, WorkloadError> {
        let Self { tokenizer, cuts, known, .. } = self;
        let mut tokens = self.special;
        let Some(cuts) = cuts else {
            tokens += tokenizer.count(text)?;
            return Ok((tokens <= most).then_some(tokens));
        };
        for piece in cuts.pieces(text) {
            tokens += match cuts.words_of(piece) {
                Some(words) => {
                    let mut tokens = 0;
                    for word in words.split(piece) {
                        tokens += known.of(word, tokenizer)?;
                    }
                    tokens
                }
                None => known.of(piece, tokenizer)?,
            };
            if tokens > most {
                return Ok(None);
            }
        }
        Ok((tokens <= most).then_some(tokens))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::workload::fixture::{byte_level, digits, loaded, metaspace, prepended, splitting, words};
    use crate::workload::words::{Digits, LLAMA_3, QWEN_2};

    #[test]
    fn only_what_is_known_is_cut() {
        for (tokenizer, expected) in [
            (byte_level(), Some(Kind::BeforeSpace(Words::Gpt2(Digits::Together)))),
            (digits(), Some(Kind::BeforeSpace(Words::Gpt2(Digits::Single)))),
            (splitting(LLAMA_3), Some(Kind::BeforeSpace(Words::Llama3 { digits: 3 }))),
            (splitting(QWEN_2), Some(Kind::BeforeSpace(Words::Llama3 { digits: 1 }))),
            (splitting("[a-z]+"), None),
            (prepended(), Some(Kind::AtSpace)),
            (metaspace(), None),
            (words(), None),
        ] {
            assert_eq!(Cuts::of(&tokenizer).map(|cuts| cuts.kind), expected, "{:?}", tokenizer.get_pre_tokenizer());
        }
        let mut spaced = byte_level();
        spaced.add_special_tokens([AddedToken::from("two words", true)]).unwrap();
        assert!(Cuts::of(&spaced).is_none());
        let mut greedy = byte_level();
        greedy.add_special_tokens([AddedToken::from("<|pad|>", true).rstrip(true)]).unwrap();
        assert!(Cuts::of(&greedy).is_none(), "it would take the space that the next piece begins with");
    }

    #[test]
    fn counting_ends_where_there_are_too_many() {
        let tokenizer = loaded(&byte_level());
        let mut counter = Counter::new(&tokenizer, false).unwrap();
        let text = "the dog jumps over the fox";
        let all = tokenizer.count(text).unwrap();
        assert_eq!(counter.count(text, all).unwrap(), Some(all));
        assert_eq!(counter.count(text, all - 1).unwrap(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        /// Twice, since the second time no piece is encoded.
        #[test]
        fn pieces_have_the_tokens_of_the_whole(
            parts in prop::collection::vec(prop::sample::select(vec![
                " ", " ", "  ", "\n", "\r\n", "\t", "\u{a0}", "the", "dog", "'s", "'LL", "a", "Q", "7", "42", "1234", ".", "(",
                "'", "▁", "e\u{301}", "é", "你好", "🦊", "<|end|>", "<", "\0", "_", "#!",
            ]), 0..24),
        ) {
            thread_local!(static KNOWN: Vec<Tokenizer> = [
                byte_level(), digits(), splitting(LLAMA_3), splitting(QWEN_2), prepended(), metaspace(), words(),
            ].iter().map(loaded).collect());
            let text = parts.concat();
            KNOWN.with(|known| {
                for tokenizer in known {
                    let mut counter = Counter::new(tokenizer, false).unwrap();
                    let whole = tokenizer.count(&text).unwrap();
                    for _ in 0..2 {
                        let counted = counter.count(&text, u32::MAX).unwrap();
                        prop_assert_eq!(counted, Some(whole), "{:?} {:?}", &text, counter.cuts.as_ref().map(|cuts| cuts.kind));
                    }
                }
                Ok(())
            })?;
        }
    }
}
