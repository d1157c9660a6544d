use bytes::Bytes;
use serde_json::Value;

/// Answers longer than this are refused: a whole one is made in memory.
const MAX_TOKENS: u32 = 1_000_000;
/// What OpenAI answers with if a request does not say.
const DEFAULT_TOKENS: u32 = 16;

/// What a request asks for, in every protocol.
#[derive(Debug, PartialEq)]
pub(super) struct Ask {
    /// Whitespace-separated words of the prompt, or token ids: this server's input tokens.
    pub(super) input_tokens: usize,
    pub(super) output_tokens: u32,
    pub(super) stream: bool,
}

impl Ask {
    /// `Err` is a complaint.
    pub(super) fn new(input_tokens: usize, output_tokens: Option<u32>, stream: bool) -> Result<Self, String> {
        let output_tokens = output_tokens.unwrap_or(DEFAULT_TOKENS);
        if !(1..=MAX_TOKENS).contains(&output_tokens) {
            return Err(format!("max_tokens is {output_tokens}, not between 1 and {MAX_TOKENS}"));
        }
        Ok(Self { input_tokens, output_tokens, stream })
    }
}

/// Words of a text, or of all texts inside; a number is a token.
pub(super) fn count_tokens(prompt: &Value) -> usize {
    match prompt {
        Value::String(text) => text.split_whitespace().count(),
        Value::Number(_) => 1,
        Value::Array(parts) => parts.iter().map(count_tokens).sum(),
        Value::Object(fields) => fields.get("content").or(fields.get("text")).map_or(0, count_tokens),
        Value::Null | Value::Bool(_) => 0,
    }
}

/// How tokens become chunks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chunking {
    pub(super) tokens_per_chunk: u32,
    /// Bytes of a token's text.
    pub(super) token_bytes: usize,
}

impl Chunking {
    /// As many words, each with a space before it.
    pub(super) fn text(self, tokens: u32) -> String {
        let word: String = std::iter::once(' ').chain("null".chars().cycle()).take(self.token_bytes).collect();
        word.repeat(usize::try_from(tokens).expect("a checked number of tokens"))
    }
}

/// An answer, encoded.
pub(super) struct Chunks {
    /// Chunks that are waited for and not sent: all but the last if the answer comes in one piece.
    pub(super) unsent: u32,
    pub(super) count: u32,
    pub(super) pieces: Pieces,
    /// What follows the last chunk at once: usage, end marks. May be empty.
    pub(super) tail: Bytes,
}

pub(super) enum Pieces {
    /// All chunks but the last are equal.
    Alike { chunk: Bytes, last: Bytes },
    /// The chunk of each index, which says how far the answer has come. Made when it is due: that takes microseconds.
    Each(Box<dyn Fn(u32) -> Bytes + Send>),
}

impl Chunks {
    /// The chunk of an index below [`Self::count`].
    pub(super) fn piece(&self, index: u32) -> Bytes {
        match &self.pieces {
            Pieces::Alike { last, .. } if index + 1 == self.count => last.clone(),
            Pieces::Alike { chunk, .. } => chunk.clone(),
            Pieces::Each(encode) => encode(index),
        }
    }

    /// Chunks that `encode` makes when they are due, out of the number of tokens by then.
    pub(super) fn growing(tokens: u32, chunking: Chunking, encode: impl Fn(u32) -> Bytes + Send + 'static) -> Self {
        let step = chunking.tokens_per_chunk;
        let piece = move |index: u32| encode(tokens.min((index + 1).saturating_mul(step)));
        Self { unsent: 0, count: tokens.div_ceil(step), pieces: Pieces::Each(Box::new(piece)), tail: Bytes::new() }
    }

    /// `encode` makes a chunk of its tokens, knowing whether it is the last.
    pub(super) fn new(ask: &Ask, chunking: Chunking, encode: impl Fn(u32, bool) -> Bytes, tail: Bytes) -> Self {
        let count = ask.output_tokens.div_ceil(chunking.tokens_per_chunk);
        if !ask.stream {
            let last = encode(ask.output_tokens, true);
            return Self { unsent: count - 1, count: 1, pieces: Pieces::Alike { chunk: Bytes::new(), last }, tail };
        }
        let left = ask.output_tokens - (count - 1) * chunking.tokens_per_chunk;
        let pieces = Pieces::Alike { chunk: encode(chunking.tokens_per_chunk, false), last: encode(left, true) };
        Self { unsent: 0, count, pieces, tail }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_chunk_has_the_tokens_that_are_left() {
        let chunking = Chunking { tokens_per_chunk: 4, token_bytes: 3 };
        let encode = |tokens, is_last| Bytes::from(format!("{tokens} {is_last}"));
        for (tokens, count, last) in [(1, 1, "1 true"), (4, 1, "4 true"), (5, 2, "1 true"), (11, 3, "3 true")] {
            let streamed = Chunks::new(&Ask::new(0, Some(tokens), true).unwrap(), chunking, encode, Bytes::new());
            assert_eq!((streamed.unsent, streamed.count), (0, count), "{tokens}");
            assert_eq!(streamed.piece(count - 1), last);
            assert!(count == 1 || streamed.piece(0) == "4 false");
            let growing = Chunks::growing(tokens, chunking, |so_far| so_far.to_string().into());
            assert_eq!(
                (growing.piece(0), growing.piece(count - 1)),
                (tokens.min(4).to_string().into(), tokens.to_string().into())
            );
            let whole = Chunks::new(&Ask::new(0, Some(tokens), false).unwrap(), chunking, encode, Bytes::new());
            assert_eq!((whole.unsent, whole.count, whole.piece(0)), (count - 1, 1, format!("{tokens} true").into()));
        }
        assert_eq!(chunking.text(2), " nu nu");
    }

    #[test]
    fn input_tokens_are_words_and_ids() {
        for (prompt, tokens) in [
            (json!("one  two\nthree"), 3),
            (json!([5, 6]), 2),
            (
                json!([{"role": "user", "content": "a b"}, {"role": "user", "content": [{"type": "text", "text": "c"}]}]),
                3,
            ),
            (json!(null), 0),
        ] {
            assert_eq!(count_tokens(&prompt), tokens, "{prompt}");
        }
    }

    #[test]
    fn an_answer_has_a_token_and_fits_into_memory() {
        assert!(Ask::new(0, Some(0), true).is_err());
        assert!(Ask::new(0, Some(u32::MAX), false).is_err());
        assert_eq!(Ask::new(0, None, false).unwrap().output_tokens, DEFAULT_TOKENS);
    }
}
