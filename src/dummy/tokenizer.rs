//! The tokenizer of dummy models: a byte-level BPE of 4096 tokens, trained by `scripts/train_dummy_tokenizer.py`.

/// `tokenizer.json` in the format of Hugging Face tokenizers. It encodes any UTF-8 text and gives it back.
pub(crate) const TOKENIZER_JSON: &str = include_str!("tokenizer.json");
/// Tokens of [`TOKENIZER_JSON`].
pub(crate) const VOCABULARY: usize = 4096;
pub(crate) const END_OF_TEXT: (&str, u32) = ("<|endoftext|>", 0);
pub(crate) const END_OF_TURN: (&str, u32) = ("<|im_end|>", 2);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokenizers::Tokenizer;

    use super::*;

    fn tokenizer() -> Tokenizer {
        TOKENIZER_JSON.parse().unwrap()
    }

    #[test]
    fn the_constants_are_those_of_the_file() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.get_vocab_size(true), VOCABULARY);
        for (token, id) in [END_OF_TEXT, END_OF_TURN] {
            assert_eq!(tokenizer.token_to_id(token), Some(id));
        }
    }

    #[test]
    fn any_text_comes_back() {
        let tokenizer = tokenizer();
        proptest!(|(text in "\\PC*|[a-z ]{0,40}|[\\x00-\\x7F]{0,20}")| {
            let ids = tokenizer.encode_fast(text.as_str(), false).unwrap();
            prop_assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
        });
    }
}
