//! Counting the tokens of many texts: a piece that was counted before is not encoded again.

use memchr::memchr_iter;
use rustc_hash::FxHashMap;
use tokenizers::{AddedToken, ModelWrapper};

use super::joints::{self, Joints};
use super::words::{self, Words};
use super::{Tokenizer, WorkloadError};

/// Longer pieces hardly come twice.
const LONGEST_KEPT: usize = 64;
/// Bounds the memory of a [`Counter`], at some 50 bytes each.
const MOST_KEPT: usize = 2_000_000;

/// How a text is cut into pieces that have together exactly the tokens of the whole.
enum Cuts {
    BeforeSpace(Box<BeforeSpace>),
    Joints(Joints),
}

/// Cuts before a space that a letter or a sign follows. All of [`Words`] begin a word there, whatever comes before; and since
/// they look at most one character ahead, and only past white space, the text before splits as if it ended there:
/// `\s+(?!\S)` leaves the last space of several to the word, and at an end takes all that are left. Digits are another
/// matter: some tokenizers split them off first. A text is first divided by added tokens; the bytes that those begin with
/// are not among those that may follow.
struct BeforeSpace {
    words: Words,
    /// By byte, whether it may come after the space.
    after: [bool; 256],
    /// Whether an added token may begin with it.
    begins_added: [bool; 256],
}

impl Cuts {
    /// `None` for a tokenizer of which nothing is known.
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
        let stands_alone = |token: &AddedToken| {
            !token.lstrip && !token.rstrip && !token.single_word && !token.content.contains([' ', '▁'])
        };
        let is_plain = model.dropout.is_none()
            && affixes.into_iter().flatten().all(String::is_empty)
            && tokenizer.get_added_tokens_decoder().values().all(stands_alone);
        if !is_plain {
            return None;
        }
        let words = BeforeSpace::of(tokenizer).map(|cuts| Self::BeforeSpace(Box::new(cuts)));
        words.or_else(|| Joints::of(tokenizer, model).map(Self::Joints))
    }
}

impl BeforeSpace {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
        let splitter = serde_json::to_value(tokenizer.get_pre_tokenizer()).ok()?;
        let words = Words::of(&splitter).filter(|_| normalizer.is_null() || normalizer["type"] == "NFC")?;
        let follows = |byte: u8| byte.is_ascii_graphic() && !byte.is_ascii_digit();
        let mut after = std::array::from_fn(|byte| u8::try_from(byte).is_ok_and(follows));
        let mut begins_added = [false; 256];
        for content in tokenizer.get_added_tokens_decoder().values().map(|token| token.content.as_bytes()) {
            if let Some(first) = content.first() {
                after[usize::from(*first)] = false;
                begins_added[usize::from(*first)] = true;
            }
        }
        Some(Self { words, after, begins_added })
    }

    /// How a piece can be divided further: plain ASCII without an added token.
    fn words_of(&self, piece: &str) -> Option<Words> {
        let plain = |byte: &u8| byte.is_ascii() && !self.begins_added[usize::from(*byte)];
        piece.as_bytes().iter().all(plain).then_some(self.words)
    }

    /// The pieces of a text.
    fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let bytes = text.as_bytes();
        let fits = |at: usize| at > 0 && bytes.get(at + 1).is_some_and(|&byte| self.after[usize::from(byte)]);
        let mut start = 0;
        memchr_iter(b' ', bytes).filter(move |&at| fits(at)).chain([text.len()]).map(move |end| {
            let piece = &text[start..end];
            start = end;
            piece
        })
    }
}

/// Tokens by text. Most pieces are short: they are keys themselves, so that finding one is one look into memory.
#[derive(Default)]
struct Known<'t> {
    short: FxHashMap<[u8; SHORT], u32>,
    long: FxHashMap<&'t str, u32>,
}

/// Bytes of a short text and its length.
const SHORT: usize = 16;

impl<'t> Known<'t> {
    fn of(
        &mut self,
        text: &'t str,
        count: impl FnOnce(&str) -> Result<u32, WorkloadError>,
    ) -> Result<u32, WorkloadError> {
        let short = short(text);
        let known = match &short {
            Some(key) => self.short.get(key),
            None => self.long.get(text),
        };
        if let Some(&tokens) = known {
            return Ok(tokens);
        }
        let tokens = count(text)?;
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

/// Counts tokens as [`Tokenizer::count`] does, of texts that live as long as it. For one thread.
pub(super) struct Counter<'t> {
    tokenizer: &'t Tokenizer,
    cuts: Option<Cuts>,
    /// What the tokenizer puts around a text.
    special: u32,
    known: Known<'t>,
}

impl<'t> Counter<'t> {
    pub(super) fn new(tokenizer: &'t Tokenizer, with_special: bool) -> Result<Self, WorkloadError> {
        let special = if with_special { tokenizer.count_with_special("")? } else { 0 };
        Ok(Self { tokenizer, cuts: Cuts::of(tokenizer.inner()), special, known: Known::default() })
    }

    /// Tokens of `text`; `None` for more than `most`, of which no more are counted than shows it.
    pub(super) fn count(&mut self, text: &'t str, most: u32) -> Result<Option<u32>, WorkloadError> {
        let Self { tokenizer, cuts, known, special } = self;
        let mut tokens = *special;
        match cuts {
            Some(Cuts::BeforeSpace(cuts)) => {
                for piece in cuts.pieces(text) {
                    match cuts.words_of(piece) {
                        Some(words) => {
                            for word in words.split(piece) {
                                tokens += known.of(word, |word| tokenizer.count_word(&words::byte_level(word)))?;
                            }
                        }
                        None => tokens += known.of(piece, |piece| tokenizer.count(piece))?,
                    }
                    if tokens > most {
                        return Ok(None);
                    }
                }
            }
            Some(Cuts::Joints(cuts)) if cuts.fit(text) => {
                let mut pieces = cuts.pieces(text);
                if let Some(first) = pieces.next() {
                    tokens += tokenizer.count_word(&joints::normalized_first(first))?;
                }
                for piece in pieces {
                    tokens += known.of(piece, |piece| tokenizer.count_word(&joints::normalized(piece)))?;
                    if tokens > most {
                        return Ok(None);
                    }
                }
            }
            Some(Cuts::Joints(_)) | None => tokens += tokenizer.count(text)?,
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
            (byte_level(), Some(Words::Gpt2(Digits::Together))),
            (digits(), Some(Words::Gpt2(Digits::Single))),
            (splitting(LLAMA_3), Some(Words::Llama3 { digits: 3 })),
            (splitting(QWEN_2), Some(Words::Llama3 { digits: 1 })),
            (splitting("[a-z]+"), None),
            (metaspace(), None),
            (words(), None),
        ] {
            let words = Cuts::of(&tokenizer).map(|cuts| match cuts {
                Cuts::BeforeSpace(cuts) => cuts.words,
                Cuts::Joints(_) => panic!("{:?}", tokenizer.get_pre_tokenizer()),
            });
            assert_eq!(words, expected, "{:?}", tokenizer.get_pre_tokenizer());
        }
        assert!(matches!(Cuts::of(&prepended()), Some(Cuts::Joints(_))));
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
                "'", "▁", "ox", " jump", "<0x41>", "e\u{301}", "é", "你好", "🦊", "<|end|>", "<", "\0", "_", "#!",
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
                        prop_assert_eq!(counted, Some(whole), "{:?} {:?}", &text, tokenizer.inner().get_pre_tokenizer());
                    }
                }
                Ok(())
            })?;
        }
    }
}
