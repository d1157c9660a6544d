//! Text to tokens and back. Back is incremental: a character split over two tokens waits for its last byte.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::engine::EngineError;
use crate::engine::config::read_json;

/// A tokenizer, and the bytes that each of its tokens stands for.
pub(crate) struct TextCodec {
    tokenizer: Tokenizer,
    token_bytes: Vec<Vec<u8>>,
}

impl TextCodec {
    pub(crate) fn read(folder: &Path) -> Result<Self, EngineError> {
        let path = folder.join("tokenizer.json");
        let json: Value = read_json(&path)?;
        let tokenizer = Tokenizer::from_file(&path)
            .map_err(|e| EngineError::Tokenizer { path: path.clone(), complaint: e.to_string() })?;
        let byte_level = json["decoder"].to_string().contains("\"ByteLevel\"");
        let token_bytes = token_bytes(&tokenizer, byte_level);
        Ok(Self { tokenizer, token_bytes })
    }

    pub(crate) fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, String> {
        let encoding = self.tokenizer.encode_fast(text, add_special_tokens).map_err(|e| e.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Nothing for a special token, and for an id without a token: a vocabulary may be padded.
    pub(crate) fn bytes_of(&self, token: u32) -> &[u8] {
        self.token_bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }
}

fn token_bytes(tokenizer: &Tokenizer, byte_level: bool) -> Vec<Vec<u8>> {
    let added = tokenizer.get_added_tokens_decoder();
    let size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
    (0..size)
        .map(|index| {
            let id = u32::try_from(index).unwrap_or(u32::MAX);
            match (added.get(&id), tokenizer.id_to_token(id)) {
                (Some(special), _) if special.special => Vec::new(),
                (Some(added), _) => added.content.clone().into_bytes(),
                (None, Some(token)) if byte_level => byte_level_bytes(&token),
                (None, Some(token)) => sentencepiece_bytes(&token),
                (None, None) => Vec::new(),
            }
        })
        .collect()
}

/// Undoes GPT-2's table, where each byte is one printable character: itself, or the next free one from U+0100.
fn byte_level_bytes(token: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(token.len());
    for character in token.chars() {
        match u32::from(character) {
            code @ (33..=126 | 161..=172 | 174..=255) => bytes.push(low_byte(code)),
            code @ 256..=288 => bytes.push(low_byte(code - 256)),
            code @ 289..=322 => bytes.push(low_byte(code - 289 + 127)),
            323 => bytes.push(173),
            _ => bytes.extend(character.to_string().into_bytes()),
        }
    }
    bytes
}

fn low_byte(code: u32) -> u8 {
    code.to_le_bytes()[0]
}

/// `▁` is a space and `<0x0A>` a byte.
fn sentencepiece_bytes(token: &str) -> Vec<u8> {
    let byte = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    match byte.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
        Some(byte) => vec![byte],
        None => token.replace('▁', " ").into_bytes(),
    }
}

/// The text of one answer as it grows.
#[derive(Debug, Default)]
pub(crate) struct TextStream {
    stop: Vec<String>,
    /// The first bytes of a character.
    partial: Vec<u8>,
    /// Text that may turn out to be the beginning of a stop string.
    held: String,
    stopped: bool,
}

impl TextStream {
    pub(crate) fn new(stop: Vec<String>) -> Self {
        Self { stop: stop.into_iter().filter(|stop| !stop.is_empty()).collect(), ..Self::default() }
    }

    /// The text that a token's bytes complete; often one word, sometimes nothing.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> String {
        self.partial.extend_from_slice(bytes);
        let mut rest = self.partial.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    self.held.push_str(text);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.held.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    self.held.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        self.partial = rest.to_vec();
        self.release()
    }

    /// What is still held when the answer ends: a character without its last byte shows as U+FFFD.
    pub(crate) fn finish(&mut self) -> String {
        if !std::mem::take(&mut self.partial).is_empty() {
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        let text = self.release();
        if self.stopped { text } else { text + &std::mem::take(&mut self.held) }
    }

    /// A stop string was met; the text ended before it.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    fn release(&mut self) -> String {
        if self.stopped {
            return String::new();
        }
        if let Some(at) = self.stop.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins_stop = |at: &usize| self.stop.iter().any(|stop| stop.starts_with(&self.held[*at..]));
        let boundaries = self.held.char_indices().map(|(at, _)| at);
        let keep = boundaries.clone().find(begins_stop).unwrap_or(self.held.len());
        let kept = self.held.split_off(keep);
        std::mem::replace(&mut self.held, kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_waits_for_its_last_byte() {
        let mut stream = TextStream::new(Vec::new());
        let bytes = "a好b".as_bytes();
        let pieces: Vec<String> = bytes.iter().map(|byte| stream.push(&[*byte])).collect();
        assert_eq!(pieces, ["a", "", "", "好", "b"]);
        assert_eq!(stream.push(&[0xFF, 0xE4]), "\u{FFFD}");
        assert_eq!(stream.finish(), "\u{FFFD}");
    }

    #[test]
    fn a_stop_string_ends_the_text_even_over_pieces() {
        let mut stream = TextStream::new(vec!["END".to_owned()]);
        assert_eq!(stream.push(b"one E"), "one ");
        assert_eq!(stream.push(b"N"), "");
        assert_eq!(stream.push(b"O EN"), "ENO ");
        assert_eq!(stream.push(b"D more"), "");
        assert!(stream.is_stopped());
        assert_eq!(stream.finish(), "");

        let mut open = TextStream::new(vec!["END".to_owned()]);
        assert_eq!(open.push(b"x EN"), "x ");
        assert_eq!(open.finish(), "EN");
    }

    #[test]
    fn every_byte_has_its_character() {
        // The table as GPT-2 writes it: printable bytes are themselves, the others follow from U+0100 in order.
        let mut next = 256;
        for byte in 0..=255_u8 {
            let code = match byte {
                33..=126 | 161..=172 | 174..=255 => u32::from(byte),
                _ => {
                    next += 1;
                    next - 1
                }
            };
            let token = char::from_u32(code).unwrap().to_string();
            assert_eq!(byte_level_bytes(&token), [byte], "U+{code:04X}");
        }
        assert_eq!(sentencepiece_bytes("▁a"), b" a");
        assert_eq!(sentencepiece_bytes("<0x0A>"), b"\n");
    }
}
