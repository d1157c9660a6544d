//! Everything that happens to a request after its last byte: reading the answer, counting, writing.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use super::answer::{Answer, server_message};
use super::exchange::{End, Exchange};
use super::request::streams;
use super::worker::prompt_index;
use super::{LoadError, openai, sse, triton_answer};
use crate::record::{RequestError, RequestRecord, RequestStatus, TokenSource};
use crate::spec::{LoadPoint, OutputMode, Protocol};
use crate::workload::{Prompt, Tokenizer};

/// Where records go: one JSON object a line.
pub struct RecordSink {
    path: PathBuf,
    file: BufWriter<File>,
}

impl RecordSink {
    /// Makes the file, or empties it; its folder must exist.
    pub fn create(path: &Path) -> Result<Self, LoadError> {
        let file = File::create(path).map_err(|source| LoadError::Write { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    fn write(&mut self, record: &RequestRecord) -> io::Result<()> {
        serde_json::to_writer(&mut self.file, record)?;
        self.file.write_all(b"\n")
    }
}

/// What is needed to make records out of exchanges.
pub(super) struct Writer {
    pub(super) point: LoadPoint,
    pub(super) prompts: Arc<[Prompt]>,
    pub(super) tokenizer: Option<Arc<Tokenizer>>,
    pub(super) sink: RecordSink,
}

impl Writer {
    /// Writes until every sender is gone; gives the number of records. Blocks: runs on a thread of its own.
    pub(super) fn write_all(
        mut self,
        mut exchanges: mpsc::Receiver<Exchange>,
        progress: impl Fn(u64),
    ) -> Result<u64, LoadError> {
        let mut written = 0;
        while let Some(exchange) = exchanges.blocking_recv() {
            let record = self.record(&exchange)?;
            self.sink.write(&record).map_err(|source| self.write_failed(source))?;
            written += 1;
            progress(written);
        }
        self.sink.file.flush().map_err(|source| self.write_failed(source))?;
        Ok(written)
    }

    fn write_failed(&self, source: io::Error) -> LoadError {
        LoadError::Write { path: self.sink.path.clone(), source }
    }

    fn record(&self, exchange: &Exchange) -> Result<RequestRecord, LoadError> {
        let index = prompt_index(exchange.ticket.request, &self.prompts);
        let sent_tokens = self.prompts[index].input_tokens;
        let answer = self.read(exchange);
        let text = String::from_utf8_lossy(&answer.text).into_owned();
        let output_tokens = self.count(&answer, &text)?;
        let (status, error) = self.judge(exchange, answer.error, answer.output_tokens);
        let streamed = streams(&self.point);
        Ok(RequestRecord {
            request: exchange.ticket.request,
            kind: exchange.ticket.kind,
            prompt: index as u64,
            worker: exchange.worker,
            due_ns: exchange.due_ns,
            sent_ns: exchange.sent_ns,
            first_response_ns: answer.first_response_ns,
            first_token_ns: answer.chunk_ns.first().copied().filter(|_| streamed),
            last_token_ns: answer.chunk_ns.last().copied(),
            end_ns: exchange.end_ns,
            chunk_ns: answer.chunk_ns,
            status,
            error,
            input_tokens: answer.input_tokens.or(sent_tokens),
            input_tokens_sent: sent_tokens,
            output_tokens: output_tokens.map(|(tokens, _)| tokens),
            output_tokens_source: output_tokens.map(|(_, source)| source),
            finish_reason: answer.finish_reason,
            output_text: text,
        })
    }

    /// What the bytes say. An answer that does not stream has all its text at its end.
    fn read(&self, exchange: &Exchange) -> Answer {
        let arrivals = &exchange.arrivals;
        if arrivals.is_empty() || matches!(exchange.end, End::Refused { .. }) {
            return no_answer(exchange);
        }
        let mut answer = match (self.point.protocol, self.point.streaming) {
            (Protocol::OpenaiCompletions | Protocol::OpenaiChat, true) => openai::read_stream(arrivals),
            (Protocol::OpenaiCompletions | Protocol::OpenaiChat, false) => openai::read_body(arrivals, exchange.end_ns),
            (Protocol::TritonGrpc, _) => triton_answer::read_grpc(arrivals),
            (Protocol::TritonGenerateStream, _) => triton_answer::read_stream(arrivals),
            (Protocol::TritonGenerate, _) => triton_answer::read_body(arrivals, exchange.end_ns),
        };
        if !streams(&self.point) && !answer.chunk_ns.is_empty() {
            answer.chunk_ns = vec![exchange.end_ns];
        }
        answer
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
        problem: Option<RequestError>,
        counted: Option<(u32, TokenSource)>,
    ) -> (RequestStatus, Option<RequestError>) {
        let error = match (&exchange.end, problem) {
            (End::CutOff, _) => return (RequestStatus::CutOff, None),
            (End::Refused { status }, _) => {
                let message = server_message(&sse::join(&exchange.arrivals));
                Some(RequestError { kind: format!("http_{status}"), message })
            }
            (End::Failed(_), Some(problem)) if problem.kind == "server" => Some(problem),
            (End::Failed(error), _) => Some(error.clone()),
            (End::Complete, Some(problem)) => Some(problem),
            (End::Complete, None) => self.wrong_length(exchange, counted),
        };
        (if error.is_some() { RequestStatus::Failed } else { RequestStatus::Ok }, error)
    }

    fn wrong_length(&self, exchange: &Exchange, counted: Option<(u32, TokenSource)>) -> Option<RequestError> {
        let index = prompt_index(exchange.ticket.request, &self.prompts);
        let wanted = self.prompts[index].answer_tokens(&self.point.output);
        let (tokens, _) = counted.filter(|(tokens, _)| *tokens != wanted)?;
        let message = format!("{wanted} output tokens were asked for, the server counted {tokens}");
        (self.point.output.mode == OutputMode::Exact).then(|| RequestError { kind: "length".to_owned(), message })
    }
}

fn no_answer(exchange: &Exchange) -> Answer {
    let mut answer =
        Answer { first_response_ns: exchange.arrivals.first().map(|first| first.at_ns), ..Answer::default() };
    if matches!(exchange.end, End::Complete) {
        answer.fail("stream", "the answer was empty".to_owned());
    }
    answer
}
