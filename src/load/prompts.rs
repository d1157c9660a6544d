//! What is sent: prompts from a file or made here, and the hash that names a workload.

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::json_text::JsonText;
use super::{LoadError, Tokenizer, synthetic as exact};
use crate::base::Digest;
use crate::spec::LoadPoint;

/// One text to send.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prompt {
    pub text: String,
    /// Tokens under the model's tokenizer, without special tokens; `None` when nobody counted.
    pub input_tokens: Option<u32>,
}

/// `count` different prompts of exactly `isl` tokens each: a pure function of the arguments. Blocks; uses all cores.
pub fn synthetic(tokenizer: &Tokenizer, isl: u32, count: u64, seed: u64) -> Result<Vec<Prompt>, LoadError> {
    exact::synthetic(tokenizer, isl, count, seed)
}

/// The prompts of a file with one JSON object a line that has a `text_input`; blank lines are skipped. Blocks.
pub fn jsonl(path: &Path) -> Result<Vec<Prompt>, LoadError> {
    let bytes = fs::read(path).map_err(|source| LoadError::ReadPrompts { path: path.to_owned(), source })?;
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut prompts = Vec::new();
    for (line, number) in text.split(|&byte| byte == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        let text = text_input(line).map_err(|problem| LoadError::PromptLine {
            path: path.to_owned(),
            line: number,
            problem,
        })?;
        prompts.push(Prompt { text, input_tokens: None });
    }
    if prompts.is_empty() {
        return Err(LoadError::EmptyPrompts { path: path.to_owned() });
    }
    Ok(prompts)
}

/// Counts every prompt under `tokenizer`. Blocks; uses all cores.
pub fn count_tokens(tokenizer: &Tokenizer, prompts: &mut [Prompt]) -> Result<(), LoadError> {
    prompts.par_iter_mut().try_for_each(|prompt| {
        prompt.input_tokens = Some(tokenizer.count(&prompt.text)?);
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
        "concurrency": point.concurrency,
        "volume": point.volume,
        "warmup_requests": point.warmup_requests,
    });
    let mut digest = Digest::default();
    digest.update(settings.to_string().as_bytes());
    for prompt in prompts {
        digest.update(&(prompt.text.len() as u64).to_le_bytes());
        digest.update(prompt.text.as_bytes());
    }
    digest.hex()
}

fn text_input(line: &[u8]) -> Result<String, String> {
    #[derive(Deserialize)]
    struct Line {
        text_input: Option<JsonText>,
    }
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let JsonText(bytes) = line.text_input.ok_or("`text_input` is missing")?;
    let text = String::from_utf8(bytes).map_err(|_| "`text_input` is not UTF-8")?;
    if text.is_empty() { Err("`text_input` is empty".to_owned()) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Data, Output, OutputMode, Protocol, Sampling, Volume};

    fn read(content: &[u8]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        fs::write(&path, content).unwrap();
        match jsonl(&path) {
            Ok(prompts) => Ok(prompts.into_iter().map(|prompt| prompt.text).collect()),
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
            (b"{\"text_input\": \"\xff\"}", "`text_input` is not UTF-8"),
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
            concurrency: 2,
            volume: Volume::Requests(3),
            warmup_requests: 1,
            round: 1,
            prompt_seed: 0,
            sampling_seed: 0,
            request_timeout_s: 1.0,
            point_timeout_s: 1.0,
        };
        let prompts = |texts: &[&str]| -> Vec<Prompt> {
            texts.iter().map(|text| Prompt { text: (*text).to_owned(), input_tokens: None }).collect()
        };
        let base = workload_hash(&prompts(&["ab", "c"]), &point);
        assert_eq!(base, workload_hash(&prompts(&["ab", "c"]), &LoadPoint { round: 2, ..point.clone() }));
        assert_ne!(base, workload_hash(&prompts(&["a", "bc"]), &point));
        assert_ne!(base, workload_hash(&prompts(&["c", "ab"]), &point));
        assert_ne!(base, workload_hash(&prompts(&["ab", "c"]), &LoadPoint { concurrency: 3, ..point }));
    }
}
