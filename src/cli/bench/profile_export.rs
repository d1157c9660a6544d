//! perf_analyzer's `profile_export.json`, from which GenAI-Perf computes its figures.

use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::base::PartFile;
use crate::record::{RequestKind, RequestRecord, RequestStatus};
use crate::spec::{LoadPoint, OutputMode, Protocol};
use crate::workload::Prompt;

/// The file in the making: a load point after the other.
pub(super) struct ProfileExport {
    file: PartFile,
    protocol: Protocol,
    experiments: u64,
}

impl ProfileExport {
    /// Begins the file, so that a place that cannot be written is known before anything is measured.
    pub(super) fn create(path: &Path, protocol: Protocol) -> io::Result<Self> {
        let mut file = PartFile::create(path)?;
        file.write_all(br#"{"experiments":["#)?;
        Ok(Self { file, protocol, experiments: 0 })
    }

    /// Adds a load point: its measured requests with status `ok`. A point without one is left out, since its readers
    /// divide by the time from the first request to the last.
    ///
    /// `zero_ns` is when the records' clock began, in nanoseconds since 1970: all times of an export are such.
    pub(super) fn add(
        &mut self,
        point: &LoadPoint,
        prompts: &[Prompt],
        zero_ns: u64,
        records: impl Iterator<Item = io::Result<RequestRecord>>,
    ) -> io::Result<()> {
        let mut window: Option<(u64, u64)> = None;
        for record in records {
            let record = record?;
            if record.kind != RequestKind::Measure || record.status != RequestStatus::Ok {
                continue;
            }
            let prompt = usize::try_from(record.prompt).ok().and_then(|index| prompts.get(index));
            let Some(prompt) = prompt else { continue };
            self.file.write_all(match (window, self.experiments) {
                (Some(_), _) => b",",
                (None, 0) => br#"{"requests":["#,
                (None, _) => br#",{"requests":["#,
            })?;
            serde_json::to_writer(&mut self.file, &request(point, prompt, zero_ns, &record))?;
            let (first, last) = window.unwrap_or((u64::MAX, 0));
            window = Some((first.min(record.sent_ns), last.max(record.end_ns)));
        }
        let Some((first, last)) = window else { return Ok(()) };
        self.experiments += 1;
        let experiment = match point.arrival.rate() {
            Some(rate) => json!({"mode": "request_rate", "value": rate}),
            None => json!({"mode": "concurrency", "value": point.arrival.concurrency()}),
        };
        let boundaries = json!([zero_ns + first, zero_ns + last]);
        write!(self.file, r#"],"experiment":{experiment},"window_boundaries":{boundaries}}}"#)
    }

    /// Puts the file in its place.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let (service, endpoint) = match self.protocol {
            Protocol::TritonGrpc
            | Protocol::TritonGenerate
            | Protocol::TritonGenerateStream
            | Protocol::LmdeployTriton => ("triton", ""),
            Protocol::OpenaiCompletions | Protocol::InProcess => ("openai", "v1/completions"),
            Protocol::OpenaiChat => ("openai", "v1/chat/completions"),
        };
        let version = env!("CARGO_PKG_VERSION");
        write!(self.file, r#"],"version":"{version}","service_kind":"{service}","endpoint":"{endpoint}"}}"#)?;
        self.file.finish()
    }
}

fn request(point: &LoadPoint, prompt: &Prompt, zero_ns: u64, record: &RequestRecord) -> Value {
    let outputs: Vec<Value> = chunks(record).into_iter().map(|text| output(point.protocol, text)).collect();
    let times: Vec<u64> = record.chunk_ns.iter().map(|at_ns| zero_ns + at_ns).collect();
    json!({
        "timestamp": zero_ns + record.sent_ns,
        "request_inputs": inputs(point, prompt),
        "response_timestamps": times,
        "response_outputs": outputs,
    })
}

/// The tensors or the body that were sent, as far as readers look at them.
fn inputs(point: &LoadPoint, prompt: &Prompt) -> Value {
    let max_tokens = prompt.answer_tokens(&point.output);
    let payload = |field: &str, content: Value| json!({"payload": json!({field: content, "max_tokens": max_tokens, "stream": point.streaming}).to_string()});
    match point.protocol {
        Protocol::TritonGrpc | Protocol::TritonGenerate | Protocol::TritonGenerateStream | Protocol::LmdeployTriton => {
            let mut tensors =
                json!({"text_input": prompt.content.text(), "max_tokens": max_tokens, "stream": point.streaming});
            if point.output.mode == OutputMode::Exact {
                tensors["min_length"] = max_tokens.into();
            }
            tensors
        }
        Protocol::OpenaiCompletions | Protocol::InProcess => payload("prompt", json!([prompt.content.text()])),
        Protocol::OpenaiChat => payload("messages", json!(prompt.content.messages())),
    }
}

fn output(protocol: Protocol, text: &str) -> Value {
    let event = |object: &str, choice: Value| json!({"response": format!("data: {}", json!({"object": object, "choices": [choice]}))});
    match protocol {
        Protocol::TritonGrpc | Protocol::TritonGenerate | Protocol::TritonGenerateStream | Protocol::LmdeployTriton => {
            json!({"text_output": text})
        }
        Protocol::OpenaiCompletions | Protocol::InProcess => event("text_completion", json!({"text": text})),
        Protocol::OpenaiChat => event("chat.completion.chunk", json!({"delta": {"content": text}})),
    }
}

/// The text of each chunk. Half a character at a chunk's end belongs to the next one.
fn chunks(record: &RequestRecord) -> Vec<&str> {
    let mut rest = record.output_text.as_str();
    let (mut come, mut taken) = (0, 0);
    let mut texts = Vec::with_capacity(record.chunk_bytes.len());
    for bytes in &record.chunk_bytes {
        come += *bytes as usize;
        let (text, later) = rest.split_at(rest.floor_char_boundary(come - taken));
        (taken, rest) = (taken + text.len(), later);
        texts.push(text);
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_cut_where_its_chunks_end() {
        let record = |text: &str, chunk_bytes: &[u32]| {
            let record = json!({
                "request": 0, "kind": "measure", "prompt": 0, "worker": 0, "due_ns": 0, "sent_ns": 0,
                "first_response_ns": null, "first_token_ns": null, "last_token_ns": null, "end_ns": 0, "chunk_ns": [],
                "chunk_bytes": chunk_bytes, "status": "ok", "input_tokens": null, "output_tokens": null,
                "output_tokens_source": null, "finish_reason": null, "output_text": text,
            });
            serde_json::from_value::<RequestRecord>(record).unwrap()
        };
        for (text, bytes, expected) in [
            ("abc", &[1, 2][..], &["a", "bc"][..]),
            ("aéb", &[2, 1, 1], &["a", "é", "b"]),
            ("你", &[1, 1, 1], &["", "", "你"]),
            ("ab", &[1, 7], &["a", "b"]),
            ("", &[], &[]),
        ] {
            assert_eq!(chunks(&record(text, bytes)), expected, "{text}");
        }
    }
}
