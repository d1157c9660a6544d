//! Where a text that is one word to its tokenizer can be cut: between characters that no token of the vocabulary joins.

use memchr::memmem::Finder;
use rustc_hash::FxHashSet;
use serde_json::json;
use tokenizers::models::bpe::BPE;

/// Pairs of characters that stand side by side in a token. Whatever byte-pair encoding merges is a token, so that a merge
/// across any other pair cannot happen, and the pieces between have the tokens of the whole.
pub(super) struct Joints {
    /// By the first character and the second, both ASCII.
    ascii: Vec<[bool; ASCII]>,
    others: FxHashSet<(char, char)>,
    /// Added tokens, which are found before anything is merged.
    added: Vec<Finder<'static>>,
}

const ASCII: usize = 128;

/// What such tokenizers write for a space.
const SPACE: char = '▁';

impl Joints {
    /// `None` for a tokenizer that is not like Llama 2's: spaces are written as [`SPACE`], with one before the text, and a
    /// character without a token is made of tokens for its bytes.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer, model: &BPE) -> Option<Self> {
        let normalizer = serde_json::to_value(tokenizer.get_normalizer()).ok()?;
        let spaces = json!([
            {"type": "Prepend", "prepend": SPACE},
            {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        ]);
        let is_one_word = tokenizer.get_pre_tokenizer().is_none() && normalizer["normalizers"] == spaces;
        let vocabulary = tokenizer.get_vocab(false);
        let is_byte = |token: &str| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>');
        let bytes_are_apart = vocabulary.keys().all(|token| is_byte(token) || !token.contains("<0x"));
        let has_bytes =
            model.byte_fallback && (0..=u8::MAX).all(|byte| vocabulary.contains_key(&format!("<0x{byte:02X}>")));
        if !is_one_word || !has_bytes || !bytes_are_apart || model.ignore_merges {
            return None;
        }
        let added = tokenizer.get_added_tokens_decoder();
        let added = added.values().map(|token| Finder::new(&token.content).into_owned()).collect();
        let mut joints = Self { ascii: vec![[false; ASCII]; ASCII], others: FxHashSet::default(), added };
        for token in vocabulary.keys().filter(|token| !is_byte(token)) {
            for (first, second) in token.chars().zip(token.chars().skip(1)) {
                joints.join(first, second);
            }
        }
        Some(joints)
    }

    fn join(&mut self, first: char, second: char) {
        let (first, second) = (in_text(first), in_text(second));
        if first.is_ascii() && second.is_ascii() {
            self.ascii[first as usize][second as usize] = true;
        } else {
            self.others.insert((first, second));
        }
    }

    fn are_joined(&self, first: char, second: char) -> bool {
        let (first, second) = (in_text(first), in_text(second));
        if first.is_ascii() && second.is_ascii() {
            self.ascii[first as usize][second as usize]
        } else {
            self.others.contains(&(first, second))
        }
    }

    /// Whether a text can be cut at all: an added token in it may take what stands around it.
    pub(super) fn fit(&self, text: &str) -> bool {
        self.added.iter().all(|added| added.find(text.as_bytes()).is_none())
    }

    /// The pieces of a text.
    pub(super) fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> {
        let mut start = 0;
        let mut before = None;
        let mut rest = text.char_indices();
        std::iter::from_fn(move || {
            for (at, character) in rest.by_ref() {
                if before.replace(character).is_some_and(|before| !self.are_joined(before, character)) {
                    let piece = &text[start..at];
                    start = at;
                    return Some(piece);
                }
            }
            let last = &text[start..];
            start = text.len();
            (!last.is_empty()).then_some(last)
        })
    }
}

/// A piece as the model reads it.
pub(super) fn normalized(piece: &str) -> String {
    piece.replace(' ', SPACE.encode_utf8(&mut [0; 4]))
}

/// The first piece of a text as the model reads it.
pub(super) fn normalized_first(piece: &str) -> String {
    format!("{SPACE}{}", normalized(piece))
}

/// A space as it stands in a text.
fn in_text(character: char) -> char {
    if character == SPACE { ' ' } else { character }
}
