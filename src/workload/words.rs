//! The words that byte-level tokenizers make tokens of, found in ASCII text without an expression.

use serde_json::Value;

/// What Llama 3 and Qwen 2 split a text by.
pub(super) const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub(super) const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// How a tokenizer splits a text into words, each of which it makes tokens of by itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Words {
    /// GPT-2's `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`, perhaps with digits split off
    /// first.
    Gpt2(Digits),
    /// [`LLAMA_3`] or [`QWEN_2`], by the most digits of a word.
    Llama3 { digits: usize },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Digits {
    /// With the space before them.
    Together,
    Apart,
    Single,
}

impl Words {
    /// Of a tokenizer whose splitter is known.
    pub(super) fn of(splitter: &Value) -> Option<Self> {
        let bytes = |part: &Value, splits: bool| {
            part["type"] == "ByteLevel" && part["add_prefix_space"] == false && part["use_regex"] == splits
        };
        let Some(parts) = splitter["pretokenizers"].as_array() else {
            return bytes(splitter, true).then_some(Self::Gpt2(Digits::Together));
        };
        let [first, second] = parts.as_slice() else { return None };
        if first["type"] == "Digits" && bytes(second, true) {
            let single = first["individual_digits"] == true;
            return Some(Self::Gpt2(if single { Digits::Single } else { Digits::Apart }));
        }
        let isolates = first["type"] == "Split" && first["behavior"] == "Isolated" && first["invert"] == false;
        match first["pattern"]["Regex"].as_str().filter(|_| isolates && bytes(second, false)) {
            Some(LLAMA_3) => Some(Self::Llama3 { digits: 3 }),
            Some(QWEN_2) => Some(Self::Llama3 { digits: 1 }),
            Some(_) | None => None,
        }
    }

    /// The words of a text of ASCII.
    pub(super) fn split(self, text: &str) -> impl Iterator<Item = &str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let length = match self {
                _ if rest.is_empty() => return None,
                Self::Gpt2(digits) => gpt2(rest.as_bytes(), digits),
                Self::Llama3 { digits } => llama3(rest.as_bytes(), digits),
            };
            let (word, after) = rest.split_at(length);
            rest = after;
            Some(word)
        })
    }
}

/// A word of ASCII as a byte-level model reads it: bytes that cannot be seen have a character of their own. By GPT-2's
/// `bytes_to_unicode`.
pub(super) fn byte_level(word: &str) -> String {
    let seen = |byte: u8| match byte {
        b'!'..=b'~' => char::from(byte),
        0x7f => '\u{121}',
        _ => char::from_u32(0x100 + u32::from(byte)).expect("it is no surrogate"),
    };
    word.bytes().map(seen).collect()
}

/// Bytes of the first word. The order of the alternatives is the expression's.
fn gpt2(text: &[u8], digits: Digits) -> usize {
    if let Some(length) = contraction(text, |letter| letter) {
        return length;
    }
    let space = usize::from(text[0] == b' ');
    match text.get(space) {
        Some(first) if first.is_ascii_alphabetic() => space + run(&text[space..], is_letter),
        Some(first) if first.is_ascii_digit() => match digits {
            Digits::Together => space + run(&text[space..], is_digit),
            Digits::Apart | Digits::Single if space == 1 => 1,
            Digits::Apart => run(text, is_digit),
            Digits::Single => 1,
        },
        Some(&first) if is_sign(first) => space + run(&text[space..], is_sign),
        Some(_) | None => {
            let spaces = run(text, is_space);
            // Digits that are split off leave an end before them.
            let at_end = text.get(spaces).is_none_or(|next| digits != Digits::Together && next.is_ascii_digit());
            if at_end { spaces } else { (spaces - 1).max(1) }
        }
    }
}

/// As [`gpt2`].
fn llama3(text: &[u8], digits: usize) -> usize {
    if let Some(length) = contraction(text, |letter| letter.to_ascii_lowercase()) {
        return length;
    }
    let letters = |from: usize| run(&text[from..], is_letter);
    let joins = !text[0].is_ascii_alphanumeric() && !is_line_end(text[0]) && letters(1) > 0;
    if joins || text[0].is_ascii_alphabetic() {
        return usize::from(joins) + letters(usize::from(joins));
    }
    if text[0].is_ascii_digit() {
        return run(text, is_digit).min(digits);
    }
    let space = usize::from(text[0] == b' ');
    let signs = run(&text[space..], is_sign);
    if signs > 0 {
        let end = space + signs;
        return end + run(&text[end..], is_line_end);
    }
    let spaces = run(text, is_space);
    match text[..spaces].iter().rposition(|&byte| is_line_end(byte)) {
        Some(last) => last + 1,
        None if spaces == text.len() => spaces,
        None => (spaces - 1).max(1),
    }
}

fn contraction(text: &[u8], letter: impl Fn(u8) -> u8) -> Option<usize> {
    let rest = text.strip_prefix(b"'")?;
    let first = letter(*rest.first()?);
    match (first, rest.get(1).map(|&second| letter(second))) {
        (b's' | b't' | b'm' | b'd', _) => Some(2),
        (b'r' | b'v', Some(b'e')) | (b'l', Some(b'l')) => Some(3),
        _ => None,
    }
}

fn run(text: &[u8], of: impl Fn(u8) -> bool) -> usize {
    text.iter().take_while(|&&byte| of(byte)).count()
}

fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic()
}

fn is_digit(byte: u8) -> bool {
    byte.is_ascii_digit()
}

/// The white space of expressions, which has the vertical tab.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

fn is_sign(byte: u8) -> bool {
    !is_space(byte) && !byte.is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::digits::Digits as DigitsApart;
    use tokenizers::pre_tokenizers::sequence::Sequence;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _};

    use super::*;
    use crate::workload::fixture::{byte_level, digits, splitting};

    /// The words as the tokenizer itself finds them.
    fn found(tokenizer: &tokenizers::Tokenizer, text: &str) -> Vec<String> {
        let mut words = PreTokenizedString::from(text);
        tokenizer.get_pre_tokenizer().unwrap().pre_tokenize(&mut words).unwrap();
        let splits = words.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().map(|(_, (from, to), _)| text[from..to].to_owned()).collect()
    }

    fn known() -> [tokenizers::Tokenizer; 5] {
        let mut apart = byte_level();
        let parts = vec![DigitsApart::new(false).into(), ByteLevel::new(false, true, true).into()];
        apart.with_pre_tokenizer(Some(Sequence::new(parts)));
        [byte_level(), digits(), apart, splitting(LLAMA_3), splitting(QWEN_2)]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

        #[test]
        fn words_are_those_that_the_tokenizer_finds(
            text in r"([ ]{1,3}|[\t\n\r\x0b\x0c]|[a-eA-E]{1,3}|[0-9]{1,4}|'|'(s|T|re|Ve|ll|LL|m|d|l|x)|[.(){}<#_/-]|[\x00-\x7f]){0,16}",
        ) {
            thread_local!(static KNOWN: [tokenizers::Tokenizer; 5] = known());
            KNOWN.with(|known| {
                for tokenizer in known {
                    let splitter = serde_json::to_value(tokenizer.get_pre_tokenizer()).unwrap();
                let words = Words::of(&splitter).unwrap();
                let split: Vec<String> = words.split(&text).map(ToOwned::to_owned).collect();
                prop_assert_eq!(split, found(tokenizer, &text), "{:?}", words);
              }
              Ok(())
            })?;
        }
    }
}
