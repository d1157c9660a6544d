//! What is sent: prompts from a file or made here, and the hash that names a workload.

use std::borrow::Cow;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::synthetic as exact;
use super::{Tokenizer, WorkloadError};
use crate::base::Digest;
use crate::spec::LoadPoint;

/// One turn to send: most often a whole conversation of one turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prompt {
    pub content: Content,
    /// Tokens under the model's tokenizer, without special tokens and without the turns before; `None` when nobody
    /// counted.
    pub input_tokens: Option<u32>,
    /// Stands in for the load point's own length.
    pub output_tokens: Option<u32>,
    /// 0 begins a conversation; any other continues that of the prompt before, after its answer.
    pub turn: u32,
    /// From the end of the answer before to this turn.
    pub think_time: Duration,
}

/// What a turn adds to its conversation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    Text(String),
    Messages(Vec<Message>),
}

/// One message of a chat.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` …
    pub role: String,
    pub content: String,
}

/// Everything that a load point sends.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Sent in order, again from the first after the last. The first begins a conversation.
    pub prompts: Arc<[Prompt]>,
    /// When the conversations of a trace begin, in nanoseconds since its start, rising; one for each of its
    /// conversations.
    pub due_ns: Option<Arc<[u64]>>,
}

impl Prompt {
    /// A conversation of one turn.
    #[must_use]
    pub fn of_text(text: String, input_tokens: Option<u32>) -> Self {
        Self { content: Content::Text(text), input_tokens, output_tokens: None, turn: 0, think_time: Duration::ZERO }
    }
}

impl Content {
    /// As text, for protocols without roles.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Messages(messages) => {
                messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n").into()
            }
        }
    }

    /// As messages, for protocols with roles: a text is what a user says.
    #[must_use]
    pub fn messages(&self) -> Cow<'_, [Message]> {
        match self {
            Self::Text(text) => Cow::Owned(vec![Message { role: "user".to_owned(), content: text.clone() }]),
            Self::Messages(messages) => Cow::Borrowed(messages),
        }
    }
}

/// `count` different prompts of exactly `isl` tokens each: a pure function of the arguments. Blocks; uses all cores.
pub fn synthetic(tokenizer: &Tokenizer, isl: u32, count: u64, seed: u64) -> Result<Vec<Prompt>, WorkloadError> {
    exact::synthetic(tokenizer, isl, count, seed)
}

/// The prompts of a file with one JSON object a line that has a `text_input`; blank lines are skipped. Blocks.
pub fn jsonl(path: &Path) -> Result<Vec<Prompt>, WorkloadError> {
    let bytes = fs::read(path).map_err(|source| WorkloadError::Read { path: path.to_owned(), source })?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut prompts = Vec::new();
    for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let text =
            text_input(line).map_err(|problem| WorkloadError::Line { path: path.to_owned(), line: number, problem })?;
        prompts.push(Prompt::of_text(text, None));
    }
    if prompts.is_empty() {
        return Err(WorkloadError::Empty { path: path.to_owned() });
    }
    Ok(prompts)
}

/// Counts every prompt under `tokenizer`. Blocks; uses all cores.
pub fn count_tokens(tokenizer: &Tokenizer, prompts: &mut [Prompt]) -> Result<(), WorkloadError> {
    prompts.par_iter_mut().try_for_each(|prompt| {
        prompt.input_tokens = Some(tokenizer.count(&prompt.content.text())?);
        Ok(())
    })
}

/// The sha256 of the exact prompts, in order, and of every setting of `point` that changes what a server is asked to
/// do. The phase's name, the round, time limits and the path of the data do not count.
#[must_use]
pub fn workload_hash(prompts: &[Prompt], point: &LoadPoint) -> String {
    let settings = json!({
        "protocol": point.protocol,
        "streaming": point.streaming,
        "output": point.output,
        "sampling": point.sampling,
        "sampling_seed": point.sampling_seed,
        "arrival": point.arrival,
        "arrival_seed": point.arrival.is_open_loop().then(|| point.own_arrival_seed()),
        "volume": point.volume,
        "warmup_requests": point.warmup_requests,
    });
    let mut digest = Digest::default();
    digest.update(settings.to_string().as_bytes());
    for prompt in prompts {
        let text = prompt.content.text();
        digest.update(&(text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    }
    digest.hex()
}

fn text_input(line: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Line {
        text_input: Option<String>,
    }
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8")?;
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let text = line.text_input.ok_or("`text_input` is missing")?;
    if text.is_empty() { Err("`text_input` is empty".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Arrival, Data, Output, OutputMode, Protocol, Sampling, Volume};

    fn read(content: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        fs::write(&path, content).unwrap();
        match jsonl(&path) {
            Ok(prompts) => Ok(prompts.iter().map(|prompt| prompt.content.text().into_owned()).collect()),
            Err(error) => Err(error.to_string().replace(&path.display().to_string(), "FILE")),
        }
    }

    #[test]
    fn a_prompt_is_a_line() {
        let content = b"{\"text_input\":\"a\\n\"}\r\n\n  \n{\"text_input\": \"\xe4\xbd\xa0\", \"other\": 1}";
        assert_eq!(read(content).unwrap(), ["a\n", "你"]);
        assert_eq!(read(b"\xef\xbb\xbf{\"text_input\":\"a\"}\n").unwrap(), ["a"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        for (line, expected) in [
            (&b"{\"text_input\": 1}"[..], "expected a string"),
            (b"{\"text\": \"a\"}", "`text_input` is missing"),
            (b"{\"text_input\": \"\"}", "`text_input` is empty"),
            (b"{\"text_input\": \"\xff\"}", "it is not UTF-8"),
            (b"nonsense", "expected ident"),
        ] {
            let error = read(&[b"{\"text_input\":\"a\"}\n\n", line, b"\n"].concat()).unwrap_err();
            assert!(error.starts_with("line 3 of `FILE`: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn an_empty_file_has_no_prompts() {
        assert!(read(b"\n\n").unwrap_err().starts_with("`FILE` has no prompts"));
    }

    #[test]
    fn the_workload_hash_names_prompts_and_settings() {
        let point = LoadPoint {
            phase: "load".to_owned(),
            protocol: Protocol::OpenaiChat,
            streaming: true,
            data: Data::Synthetic { isl: 1 },
            output: Output { mode: OutputMode::Exact, tokens: 4 },
            sampling: Sampling::default(),
            arrival: Arrival::Closed { concurrency: 2 },
            volume: Volume::Requests(3),
            drain_s: None,
            warmup_requests: 1,
            round: 1,
            prompt_seed: 0,
            sampling_seed: 0,
            arrival_seed: 0,
            cold_connections: false,
            retries: 0,
            request_timeout_s: 1.0,
            idle_timeout_s: None,
            point_timeout_s: 1.0,
        };
        let prompts = |texts: &[&str]| -> Vec<Prompt> {
            texts.iter().map(|text| Prompt::of_text((*text).to_owned(), None)).collect()
        };
        let base = workload_hash(&prompts(&["ab", "c"]), &point);
        assert_eq!(base, workload_hash(&prompts(&["ab", "c"]), &LoadPoint { round: 2, ..point.clone() }));
        assert_ne!(base, workload_hash(&prompts(&["a", "bc"]), &point));
        assert_ne!(base, workload_hash(&prompts(&["c", "ab"]), &point));
        assert_ne!(
            base,
            workload_hash(&prompts(&["ab", "c"]), &LoadPoint { arrival: Arrival::Closed { concurrency: 3 }, ..point })
        );
    }
}
