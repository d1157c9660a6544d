use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::base::{sha256_file, write_atomically};

/// sha256 of files that are not ours, remembered by path, size, inode and time of change, so that a hundred gigabytes of
/// weights are read once.
#[derive(Debug)]
pub struct FileHashes {
    path: PathBuf,
    /// `path size mtime ctime inode` to sha256.
    known: HashMap<String, String>,
    changed: bool,
}

impl FileHashes {
    #[must_use]
    pub fn load(store: &Path) -> Self {
        let path = store.join("hashes.json");
        // A lost or broken memory costs time, not correctness.
        let known = fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Self { path, known, changed: false }
    }

    /// The sha256 of a file's bytes.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn sha256(&mut self, file: &Path) -> io::Result<String> {
        let facts = fs::metadata(file)?;
        let path = fs::canonicalize(file)?;
        let (modified, changed) = ((facts.mtime(), facts.mtime_nsec()), (facts.ctime(), facts.ctime_nsec()));
        let id = format!("{} {} {modified:?} {changed:?} {}", path.display(), facts.len(), facts.ino());
        if let Some(hash) = self.known.get(&id) {
            return Ok(hash.clone());
        }
        let hash = sha256_file(&path)?;
        self.known.insert(id, hash.clone());
        self.changed = true;
        Ok(hash)
    }

    /// Writes what is new.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.changed) {
            let text = serde_json::to_vec(&self.known).expect("a map of strings is JSON");
            write_atomically(&self.path, &text)?;
        }
        Ok(())
    }
}
