//! Counts of both sides, compared: tokens of the prompts, and tokens of the answers against the chunks that they came in.

use std::fmt;

use crate::record::{RequestRecord, TokenSource};

/// How the recorded input tokens (the server's count, where it gives one) differ from our count of the prompts sent.
///
/// Over the requests that have both counts. Its text is a sentence for a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct InputTokensDifference {
    /// Requests that have both counts.
    pub compared: u64,
    /// Those among them whose counts differ.
    pub differing: u64,
    /// The smallest and the largest (recorded - sent) of the differing ones, in tokens.
    pub least: i64,
    pub most: i64,
}

impl fmt::Display for InputTokensDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, differing, least, most } = self;
        write!(
            f,
            "in {differing} of {compared} requests the server's count of input tokens differs from what was sent "
        )?;
        if least == most {
            write!(f, "by {least:+}: most often a token or a template that the server adds")
        } else {
            write!(f, "by {least:+} to {most:+}: the server may use another tokenizer, or cut prompts")
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct InputComparison {
    compared: u64,
    differing: u64,
    range: Option<(i64, i64)>,
}

impl InputComparison {
    pub(super) fn add(&mut self, record: &RequestRecord) {
        let (Some(counted), Some(sent)) = (record.input_tokens, record.input_tokens_sent) else { return };
        self.compared += 1;
        if counted == sent {
            return;
        }
        let difference = i64::from(counted) - i64::from(sent);
        let (least, most) = self.range.unwrap_or((difference, difference));
        self.differing += 1;
        self.range = Some((least.min(difference), most.max(difference)));
    }

    pub(super) fn difference(&self) -> Option<InputTokensDifference> {
        let Self { compared, differing, .. } = *self;
        self.range.map(|(least, most)| InputTokensDifference { compared, differing, least, most })
    }
}

/// Requests of which the server counted fewer output tokens than chunks with text came. Some servers send a token in
/// several chunks; of others the count is wrong, and every figure per token with it.
///
/// Over the requests that have the server's count. Its text is a sentence for a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TokensBelowChunks {
    /// Requests that have the server's count.
    pub compared: u64,
    /// Those among them with more chunks than tokens.
    pub below: u64,
    /// The number of one of them, its tokens and its chunks.
    pub request: u64,
    pub tokens: u32,
    pub chunks: usize,
}

impl fmt::Display for TokensBelowChunks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { compared, below, request, tokens, chunks } = self;
        write!(
            f,
            "in {below} of {compared} requests the server counted fewer output tokens than chunks with text came (request \
             {request}: {chunks} chunks, {tokens} counted): unless it sends a token in several chunks, its count is wrong, \
             and TPOT and output tokens a second are too"
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct OutputComparison {
    compared: u64,
    found: Option<TokensBelowChunks>,
}

impl OutputComparison {
    pub(super) fn add(&mut self, record: &RequestRecord) {
        let Some(TokenSource::ServerUsage | TokenSource::ServerTensor) = record.output_tokens_source else { return };
        let (tokens, chunks) = (record.output_tokens.unwrap_or_default(), record.chunk_ns.len());
        self.compared += 1;
        if (tokens as usize) < chunks {
            let example = TokensBelowChunks { compared: 0, below: 0, request: record.request, tokens, chunks };
            self.found.get_or_insert(example).below += 1;
        }
    }

    pub(super) fn below(&self) -> Option<TokensBelowChunks> {
        self.found.map(|found| TokensBelowChunks { compared: self.compared, ..found })
    }
}
