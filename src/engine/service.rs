//! What every protocol asks of the engine: one request checked, tokenized and queued; its answer, whole or in chunks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::engine::chat::ChatTemplate;
use crate::engine::metrics::Metrics;
use crate::engine::sample::Sampling;
use crate::engine::scheduler::{Chunk, Decoding, Finish, Job};
use crate::engine::text::TextCodec;

/// Shared by the handlers of all protocols.
pub(crate) struct Service {
    pub(crate) model_name: String,
    pub(crate) metrics: Arc<Metrics>,
    /// Filled once the weights are in memory.
    loaded: OnceLock<Loaded>,
    requests: AtomicU64,
}

pub(crate) struct Loaded {
    pub(crate) codec: Arc<TextCodec>,
    pub(crate) chat: ChatTemplate,
    pub(crate) eos: Vec<u32>,
    pub(crate) vocab_size: usize,
    pub(crate) max_batch_size: usize,
    pub(crate) max_seq_len: usize,
    pub(crate) jobs: UnboundedSender<Job>,
}

#[derive(Clone, Debug)]
pub(crate) enum Prompt {
    /// Encoded with the special tokens that the tokenizer puts around a text.
    Text(String),
    /// Encoded as it is: a chat template has written the special tokens.
    Templated(String),
    Tokens(Vec<u32>),
}

/// Which tokens end an answer before its length is reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// The model's end-of-sequence tokens.
    Model,
    /// This one only.
    Token(u32),
    /// None: every answer has `max_tokens` tokens.
    Never,
}

/// One request, in the words that all protocols share.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) prompt: Prompt,
    /// All that the engine has room for when `None`.
    pub(crate) max_tokens: Option<usize>,
    pub(crate) min_tokens: usize,
    pub(crate) sampling: Sampling,
    pub(crate) end: End,
    pub(crate) stop: Vec<String>,
}

/// Why a request was not taken.
#[derive(Debug, Error)]
pub(crate) enum Refusal {
    #[error("the model is still loading")]
    Loading,
    #[error("the server is stopping")]
    Stopping,
    #[error("{0}")]
    Invalid(String),
}

/// An answer under way. Dropping it tells the model thread that the client is gone.
pub(crate) struct Answer {
    pub(crate) prompt_tokens: usize,
    pub(crate) chunks: UnboundedReceiver<Result<Chunk, String>>,
}

/// An answer that has ended.
pub(crate) struct WholeAnswer {
    pub(crate) text: String,
    pub(crate) tokens: usize,
    pub(crate) finish: Finish,
}

pub(crate) const CUT_OFF: &str = "the server stopped before the answer ended";

impl Service {
    pub(crate) fn new(model_name: String) -> Self {
        Self { model_name, metrics: Arc::default(), loaded: OnceLock::new(), requests: AtomicU64::new(0) }
    }

    pub(crate) fn set_loaded(&self, loaded: Loaded) {
        // Set once, by the one thread that loads.
        let _ = self.loaded.set(loaded);
    }

    pub(crate) fn loaded(&self) -> Result<&Loaded, Refusal> {
        self.loaded.get().ok_or(Refusal::Loading)
    }

    pub(crate) fn next_id(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed)
    }

    /// Checks, encodes and queues a request.
    pub(crate) async fn ask(&self, ask: Ask) -> Result<Answer, Refusal> {
        let loaded = self.loaded()?;
        let codec = Arc::clone(&loaded.codec);
        let prompt = ask.prompt.clone();
        let prompt = tokio::task::spawn_blocking(move || encode(prompt, &codec))
            .await
            .map_err(|_| Refusal::Stopping)?
            .map_err(Refusal::Invalid)?;
        let prompt_tokens = prompt.len();
        let decoding = loaded.decoding(ask, &prompt)?;
        let (chunks, receiver) = unbounded_channel();
        loaded.jobs.send(Job { prompt, decoding, chunks, asked: Instant::now() }).map_err(|_| Refusal::Stopping)?;
        Ok(Answer { prompt_tokens, chunks: receiver })
    }
}

impl Loaded {
    fn decoding(&self, ask: Ask, prompt: &[u32]) -> Result<Decoding, Refusal> {
        let invalid = |complaint: String| Err(Refusal::Invalid(complaint));
        if prompt.is_empty() {
            return invalid("the prompt has no tokens".to_owned());
        }
        if let Some(id) = prompt.iter().find(|id| **id as usize >= self.vocab_size) {
            return invalid(format!("token id {id} is outside the vocabulary of {}", self.vocab_size));
        }
        let max_tokens = ask.max_tokens.unwrap_or(self.max_seq_len.saturating_sub(prompt.len()));
        let asked = prompt.len().saturating_add(max_tokens);
        if asked > self.max_seq_len || max_tokens == 0 {
            let (prompt, limit) = (prompt.len(), self.max_seq_len);
            return invalid(format!(
                "{prompt} prompt tokens and {max_tokens} tokens to generate do not fit: at least 1 is generated, and \
                 both together are at most {limit} (max_seq_len)"
            ));
        }
        if ask.min_tokens > max_tokens {
            return invalid(format!("min_tokens {} is over max_tokens {max_tokens}", ask.min_tokens));
        }
        let eos = match ask.end {
            End::Model => self.eos.clone(),
            End::Token(id) => vec![id],
            End::Never => Vec::new(),
        };
        Ok(Decoding { max_tokens, min_tokens: ask.min_tokens, sampling: ask.sampling, eos, stop: ask.stop })
    }
}

impl Answer {
    pub(crate) async fn whole(mut self) -> Result<WholeAnswer, String> {
        let mut whole = WholeAnswer { text: String::new(), tokens: 0, finish: Finish::Length };
        while let Some(chunk) = self.chunks.recv().await {
            let chunk = chunk?;
            whole.text.push_str(&chunk.text);
            whole.tokens += 1;
            if let Some(finish) = chunk.finish {
                whole.finish = finish;
                return Ok(whole);
            }
        }
        Err(CUT_OFF.to_owned())
    }
}

fn encode(prompt: Prompt, codec: &TextCodec) -> Result<Vec<u32>, String> {
    match prompt {
        Prompt::Text(text) => codec.encode(&text, true),
        Prompt::Templated(text) => codec.encode(&text, false),
        Prompt::Tokens(tokens) => Ok(tokens),
    }
}
