//! Everything that happens to a request after its last byte: reading the answer, counting, writing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::LoadError;
use super::answer::Answer;
use super::exchange::{Clock, End, Exchange};
use super::reading::{Reading, read};
use crate::record::{RequestError, RequestRecord, RequestStatus, TokenSource};
use crate::spec::{LoadPoint, OutputMode};
use crate::workload::{Prompt, Tokenizer};

/// Where records go: one JSON object a line.
pub struct RecordSink {
    path: PathBuf,
    file: BufWriter<File>,
    written: u64,
}

impl RecordSink {
    /// Makes the file, or empties it; its folder must exist.
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let file = File::create(path).map_err(|source| LoadError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file), written: 0 })
    }

    fn write(&mut self, line: &[u8]) -> Result<u64, LoadError> {
        self.file.write_all(line).map_err(|source| self.failed(source))?;
        self.written += 1;
        Ok(self.written)
    }

    /// The number of records, once all of them are in the file.
    pub(super) fn finish(mut self) -> Result<u64, LoadError> {
        self.file.flush().map_err(|source| self.failed(source))?;
        Ok(self.written)
    }

    fn failed(&self, source: io::Error) -> LoadError {
        LoadError::Write { path: self.path.clone(), source }
    }
}

/// What is needed to make records out of exchanges.
pub(super) struct Writer<P> {
    pub(super) point: LoadPoint,
    pub(super) clock: Clock,
    pub(super) prompts: Arc<[Prompt]>,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    /// Shared with the writers of other shards; held while a finished line is handed over.
    pub(super) sink: Arc<Mutex<RecordSink>>,
    /// Gets the number of records so far.
    pub(super) progress: Arc<P>,
}

impl<P: Fn(u64)> Writer<P> {
    /// Writes until every sender is gone. Blocks: runs on a thread of its own.
    pub(super) fn write_all(self, mut exchanges: mpsc::Receiver<Exchange>) -> Result<(), LoadError> {
        let mut line = Vec::new();
        while let Some(exchange) = exchanges.blocking_recv() {
            let record = self.record(&exchange)?;
            line.clear();
            serde_json::to_writer(&mut line, &record).expect("records are plain data");
            line.push(b'\n');
            let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
            (self.progress)(sink.write(&line)?);
        }
        Ok(())
    }

    fn record(&self, exchange: &Exchange) -> Result<RequestRecord, LoadError> {
        let ticket = exchange.ticket;
        let prompt = &self.prompts[ticket.prompt];
        // What earlier turns and answers add to a later turn is the server's to count.
        let sent_tokens = prompt.input_tokens.filter(|_| prompt.turn == 0);
        let Reading { mut answer, refused } = read(&self.point, self.clock, exchange);
        if let Some(at) = not_utf8(&answer.text) {
            answer.fail("utf8", format!("the text is not UTF-8 at byte {at}"));
        }
        let text = String::from_utf8_lossy(&answer.text).into_owned();
        let output_tokens = self.count(&answer, &text)?;
        let (status, error) = self.judge(exchange, refused, answer.error, answer.output_tokens, &text);
        let streamed = self.point.streams();
        let own_ns = answer.own_ns.unwrap_or(exchange.sent_ns..exchange.end_ns);
        Ok(RequestRecord {
            request: ticket.request,
            kind: ticket.kind,
            prompt: ticket.prompt as u64,
            conversation: ticket.conversation,
            worker: exchange.worker,
            due_ns: exchange.due_ns,
            free_ns: exchange.free_ns,
            connect_ns: exchange.connect_ns,
            sent_ns: own_ns.start,
            attempts: exchange.attempts,
            first_response_ns: answer.first_response_ns,
            first_token_ns: answer.chunk_ns.first().copied().filter(|_| streamed),
            last_token_ns: answer.chunk_ns.last().copied(),
            end_ns: own_ns.end,
            chunk_ns: answer.chunk_ns,
            chunk_bytes: answer.chunk_bytes,
            status,
            error,
            input_tokens: answer.input_tokens.or(sent_tokens),
            input_tokens_sent: sent_tokens,
            output_tokens: output_tokens.map(|(tokens, _)| tokens),
            output_tokens_asked: Some(exchange.wanted_tokens),
            output_tokens_source: output_tokens.map(|(_, source)| source),
            finish_reason: answer.finish_reason,
            server: answer.server,
            output_text: text,
        })
    }

    /// The server's count, or ours of the joined text.
    fn count(&self, answer: &Answer, text: &str) -> Result<Option<(u32, TokenSource)>, LoadError> {
        match (&self.tokenizer, answer.output_tokens) {
            (_, Some(counted)) => Ok(Some(counted)),
            (Some(tokenizer), None) if !text.is_empty() => Ok(Some((tokenizer.count(text)?, TokenSource::Tokenizer))),
            (Some(_) | None, None) => Ok(None),
        }
    }

    /// An error that the server wrote into its answer says more than the break of the connection that follows it.
    fn judge(
        &self,
        exchange: &Exchange,
        refused: Option<RequestError>,
        problem: Option<RequestError>,
        counted: Option<(u32, TokenSource)>,
        text: &str,
    ) -> (RequestStatus, Option<RequestError>) {
        let error = match (&exchange.end, refused, problem) {
            (End::CutOff, _, _) => return (RequestStatus::CutOff, None),
            (End::Complete, Some(refused), _) => Some(refused),
            (End::Failed(_), _, Some(problem)) if problem.kind == "server" => Some(problem),
            (End::Failed(error), _, _) => Some(error.clone()),
            (End::Complete, None, Some(problem)) => Some(problem),
            (End::Complete, None, None) => self.wrong_count(exchange.wanted_tokens, counted, text),
        };
        (if error.is_some() { RequestStatus::Failed } else { RequestStatus::Ok }, error)
    }

    fn wrong_count(&self, wanted: u32, counted: Option<(u32, TokenSource)>, text: &str) -> Option<RequestError> {
        let (tokens, _) = counted?;
        if tokens == 0 && !text.is_empty() {
            let message = "the server counted 0 output tokens of an answer with text".to_owned();
            return Some(RequestError { kind: "usage".to_owned(), message });
        }
        let (right, asked) = match self.point.output.mode {
            OutputMode::Exact => (tokens == wanted, "output tokens were asked for"),
            OutputMode::AtMost => (tokens <= wanted, "output tokens at most were asked for"),
        };
        let message = format!("{wanted} {asked}, the server counted {tokens}");
        (!right).then(|| RequestError { kind: "length".to_owned(), message })
    }
}

/// Where the text stops being UTF-8. Its last token may be a part of a character, which is no mistake.
fn not_utf8(text: &[u8]) -> Option<usize> {
    let error = str::from_utf8(text).err()?;
    error.error_len().map(|_| error.valid_up_to())
}
