use std::ops::Range;

use crate::record::{RequestError, ServerSaid, TokenSource};

/// What the bytes of one answer say, whatever the protocol.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// Arrival of the first event or message of any kind.
    pub(super) first_response_ns: Option<u64>,
    /// Arrival of each event or message with text.
    pub(super) chunk_ns: Vec<u64>,
    /// Bytes of text in each of these.
    pub(super) chunk_bytes: Vec<u32>,
    /// All text, joined as bytes.
    pub(super) text: Vec<u8>,
    /// The server's count of the prompt.
    pub(super) input_tokens: Option<u32>,
    /// The server's exact count of the answer.
    pub(super) output_tokens: Option<(u32, TokenSource)>,
    pub(super) finish_reason: Option<String>,
    pub(super) server: Option<ServerSaid>,
    /// The first thing wrong with the answer.
    pub(super) error: Option<RequestError>,
    /// From when to when the engine itself was at it, for a protocol that tells.
    pub(super) own_ns: Option<Range<u64>>,
}

impl Answer {
    pub(super) fn add_text(&mut self, at_ns: u64, text: &[u8]) {
        if !text.is_empty() {
            self.add_chunk(at_ns, text);
        }
    }

    /// Adds what is a chunk even without text.
    pub(super) fn add_chunk(&mut self, at_ns: u64, text: &[u8]) {
        self.chunk_ns.push(at_ns);
        self.chunk_bytes.push(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.text.extend_from_slice(text);
    }

    /// Makes one chunk of all text, which came at the end.
    pub(super) fn join_chunks(&mut self, end_ns: u64) {
        if !self.chunk_ns.is_empty() {
            self.chunk_ns = vec![end_ns];
            self.chunk_bytes = vec![u32::try_from(self.text.len()).unwrap_or(u32::MAX)];
        }
    }

    /// Adds the texts of a whole stream, each either what is new or all the text so far: the latter if the text grew so
    /// often, each time from what it was.
    pub(super) fn add_texts(&mut self, texts: &[(u64, Vec<u8>)], least_growth: usize) {
        if !is_cumulative(texts, least_growth) {
            for (at_ns, text) in texts {
                self.add_text(*at_ns, text);
            }
            return;
        }
        let mut known = 0;
        for (at_ns, text) in texts {
            let settled = settled(text);
            self.add_text(*at_ns, settled.get(known..).unwrap_or_default());
            known = known.max(settled.len());
        }
        // What never settled is text all the same.
        if let Some((at_ns, last)) = texts.last() {
            self.add_text(*at_ns, last.get(known..).unwrap_or_default());
        }
    }

    /// Keeps the first error: what follows it is often its consequence.
    pub(super) fn fail(&mut self, kind: &str, message: String) {
        self.error.get_or_insert(RequestError { kind: kind.to_owned(), message });
    }
}

/// Whether each text begins with the one before and the text grows, at least so often. Equal texts in a row are a repeated token, not a
/// stream that stands still.
fn is_cumulative(texts: &[(u64, Vec<u8>)], least_growth: usize) -> bool {
    let mut previous: &[u8] = &[];
    let mut grown = 0;
    for text in texts.iter().map(|(_, text)| text.as_slice()).filter(|text| !text.is_empty()) {
        let begin = settled(previous);
        if !text.starts_with(begin) {
            return false;
        }
        grown += usize::from(!previous.is_empty() && text.len() > begin.len());
        previous = text;
    }
    grown >= least_growth && texts.first().is_none_or(|(_, first)| previous.len() > first.len())
}

/// The text without replacement characters at its end: half a character, which the next text may complete.
fn settled(mut text: &[u8]) -> &[u8] {
    while let Some(shorter) = text.strip_suffix("\u{fffd}".as_bytes()) {
        text = shorter;
    }
    text
}

/// The message of an error that a server wrote as JSON or as plain text, at most 300 characters.
pub(super) fn server_message(body: &[u8]) -> String {
    let parsed = serde_json::from_slice::<serde_json::Value>(body).ok();
    let message = parsed.as_ref().and_then(json_message);
    shorten(&message.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()))
}

/// The message inside `{"error": {"message": ...}}` and its relatives.
pub(super) fn json_message(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Object(fields) => ["error", "message", "detail"]
            .iter()
            .find_map(|name| fields.get(*name).map(|inner| json_message(inner).unwrap_or_else(|| inner.to_string()))),
        _ => None,
    }
}

pub(super) fn shorten(text: &str) -> String {
    const LONGEST: usize = 300;
    text.trim().chars().take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(texts: &[&str], expected: &str, expected_chunks: &[u64]) {
        let texts: Vec<(u64, Vec<u8>)> = (1..).zip(texts).map(|(at, text)| (at, text.as_bytes().to_vec())).collect();
        let mut answer = Answer::default();
        answer.add_texts(&texts, 1);
        assert_eq!(
            (String::from_utf8(answer.text).unwrap().as_str(), answer.chunk_ns.as_slice()),
            (expected, expected_chunks)
        );
    }

    #[test]
    fn incremental_texts_are_joined() {
        check(&["a", "b", "", "c"], "abc", &[1, 2, 4]);
        check(&[" the", " the", " the"], " the the the", &[1, 2, 3]);
        check(&["one"], "one", &[1]);
        check(&[], "", &[]);
    }

    #[test]
    fn cumulative_texts_count_once() {
        check(&["a", "ab", "abc"], "abc", &[1, 2, 3]);
        check(&["a", "a", "ab", "ab"], "ab", &[1, 3]);
        check(&["", "a", "ab"], "ab", &[2, 3]);
    }

    #[test]
    fn half_a_character_at_the_end_of_cumulative_text_is_completed() {
        check(&["a", "a\u{fffd}", "aé"], "aé", &[1, 3]);
        check(&["a", "ab", "ab\u{fffd}"], "ab\u{fffd}", &[1, 2, 3]);
    }

    #[test]
    fn error_messages_are_found_and_short() {
        for (body, expected) in [
            (r#"{"error":{"message":"too long","code":400}}"#, "too long"),
            (r#"{"error":"no such model"}"#, "no such model"),
            (r#"{"object":"error","message":"busy"}"#, "busy"),
            (r#"{"detail":[{"loc":"body"}]}"#, r#"[{"loc":"body"}]"#),
            ("  plain text\n", "plain text"),
        ] {
            assert_eq!(server_message(body.as_bytes()), expected);
        }
        assert_eq!(server_message("é".repeat(400).as_bytes()).chars().count(), 300);
    }
}
