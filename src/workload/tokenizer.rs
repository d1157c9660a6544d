use std::path::{Path, PathBuf};

use tokenizers::Model as _;

use super::WorkloadError;

/// A model's own tokenizer. A prompt is counted as text, without special tokens, unless a method counts otherwise.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a model's folder. Blocks for up to a second on large vocabularies.
    pub fn load(folder: &Path) -> Result<Self, WorkloadError> {
        let path = folder.join("tokenizer.json");
        let failed = |reason: String| WorkloadError::Tokenizer { path: path.clone(), reason };
        let mut inner = tokenizers::Tokenizer::from_file(&path).map_err(|error| failed(error.to_string()))?;
        // Some files ask for a fixed length; a count must be that of the whole text.
        inner.with_truncation(None).map_err(|error| failed(error.to_string()))?;
        inner.with_padding(None);
        Ok(Self { inner, path })
    }

    /// Tokens of `text`.
    pub fn count(&self, text: &str) -> Result<u32, WorkloadError> {
        self.count_as(text, false)
    }

    /// Tokens of `text` and of what the tokenizer puts around it, such as a token for its beginning.
    pub(super) fn count_with_special(&self, text: &str) -> Result<u32, WorkloadError> {
        self.count_as(text, true)
    }

    fn count_as(&self, text: &str, with_special: bool) -> Result<u32, WorkloadError> {
        let tokens = self.encode_as(text, with_special)?.len();
        u32::try_from(tokens).map_err(|_| self.too_many())
    }

    /// Tokens of what the model gets as one word, as it gets it: normalized.
    pub(super) fn count_word(&self, word: &str) -> Result<u32, WorkloadError> {
        let tokens = self.inner.get_model().tokenize(word);
        let tokens = tokens.map_err(|error| self.failed("encode text", error.to_string()))?.len();
        u32::try_from(tokens).map_err(|_| self.too_many())
    }

    pub(super) fn encode(&self, text: &str) -> Result<Vec<u32>, WorkloadError> {
        Ok(self.encode_as(text, false)?.get_ids().to_vec())
    }

    fn encode_as(&self, text: &str, with_special: bool) -> Result<tokenizers::Encoding, WorkloadError> {
        self.inner.encode_fast(text, with_special).map_err(|error| self.failed("encode text", error.to_string()))
    }

    pub(super) fn decode(&self, ids: &[u32]) -> Result<String, WorkloadError> {
        self.inner.decode(ids, true).map_err(|error| self.failed("decode tokens", error.to_string()))
    }

    /// Ids of the model's vocabulary that are not added or special tokens, in rising order.
    pub(super) fn ordinary_ids(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let mut ids: Vec<u32> =
            self.inner.get_vocab(false).into_values().filter(|id| !added.contains_key(id)).collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn too_many(&self) -> WorkloadError {
        self.failed("encode text", "it has more than 2^32 tokens".to_owned())
    }

    fn failed(&self, action: &'static str, reason: String) -> WorkloadError {
        WorkloadError::Tokenize { path: self.path.clone(), action, reason }
    }
}
