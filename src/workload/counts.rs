//! The lengths of a file's conversations, counted once.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde::{Deserialize, Serialize};

use super::Tokenizer;
use crate::base::{Digest, sha256_file, write_atomically};

/// Raised when the rule by which conversations are left out changes.
const FORMAT: u32 = 1;

/// A conversation of fitting length.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Fitting(pub(super) usize, pub(super) u32, pub(super) u32);

impl Fitting {
    /// Its place among those of the file.
    pub(super) fn at(self) -> usize {
        self.0
    }

    pub(super) fn input_tokens(self) -> u32 {
        self.1
    }

    pub(super) fn output_tokens(self) -> u32 {
        self.2
    }
}

/// How far the counting of a file is, and where its outcome is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Counting {
    pub(super) done: Arc<AtomicU64>,
    pub(super) kept: Option<Kept>,
}

#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) folder: PathBuf,
    /// The sha256 of the data file.
    pub(super) digest: String,
}

impl Kept {
    /// What was kept, or what `count` finds. A lost or broken file costs time, not correctness.
    pub(super) fn or_count<E>(
        &self,
        tokenizer: &Tokenizer,
        output_tokens: Option<u32>,
        most: usize,
        count: impl FnOnce() -> Result<Vec<Fitting>, E>,
    ) -> Result<Vec<Fitting>, E> {
        let Ok(vocabulary) = sha256_file(tokenizer.path()) else { return count() };
        let key = Digest::of(format!("{FORMAT} {} {vocabulary} {output_tokens:?}", self.digest).as_bytes());
        let path = self.folder.join(format!("{key}.json"));
        let known: Option<Vec<Fitting>> = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(known) = known.filter(|known| known.iter().all(|fitting| fitting.at() < most)) {
            return Ok(known);
        }
        let counted = count()?;
        let text = serde_json::to_vec(&counted).expect("numbers are JSON");
        drop(fs::create_dir_all(&self.folder).and_then(|()| write_atomically(&path, &text)));
        Ok(counted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::WorkloadError;
    use crate::workload::fixture::byte_level;

    #[test]
    fn what_was_counted_is_not_counted_again() {
        let folder = tempfile::tempdir().unwrap();
        byte_level().save(folder.path().join("tokenizer.json"), false).unwrap();
        let tokenizer = Tokenizer::load(folder.path()).unwrap();
        let kept = |digest: &str| Kept { folder: folder.path().join("counts"), digest: digest.to_owned() };
        let of = |kept: &Kept, output_tokens, most, found: u32| {
            let count = || Ok::<_, WorkloadError>(vec![Fitting(2, found, 9)]);
            kept.or_count(&tokenizer, output_tokens, most, count).unwrap()[0].input_tokens()
        };
        assert_eq!(of(&kept("a"), None, 3, 5), 5);
        assert_eq!(of(&kept("a"), None, 3, 6), 5, "it is kept");
        assert_eq!(of(&kept("b"), None, 3, 6), 6, "another file");
        assert_eq!(of(&kept("a"), Some(4), 3, 7), 7, "another rule");
        assert_eq!(of(&kept("a"), None, 2, 8), 8, "it names a conversation that there is not");
        for file in fs::read_dir(folder.path().join("counts")).unwrap() {
            fs::write(file.unwrap().path(), "[[").unwrap();
        }
        assert_eq!(of(&kept("b"), None, 3, 7), 7, "it is broken");
    }
}
