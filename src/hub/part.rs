use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt as _;

use super::cache::RepoCache;
use super::disk::{off_thread, write_error};
use super::error::HubError;
use super::listing::RemoteFile;
use super::verify::Hasher;

/// Bytes that are here, of all bytes wanted.
pub(super) struct Progress<'a> {
    done: AtomicU64,
    total: u64,
    report: &'a (dyn Fn(u64, u64) + Sync),
}

impl<'a> Progress<'a> {
    pub(super) fn new(total: u64, report: &'a (dyn Fn(u64, u64) + Sync)) -> Self {
        Self { done: AtomicU64::new(0), total, report }
    }

    pub(super) fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        (self.report)(before + bytes, self.total);
    }

    /// Bytes that have to come again.
    pub(super) fn take_back(&self, bytes: u64) {
        let before = self.done.fetch_sub(bytes, Ordering::Relaxed);
        (self.report)(before - bytes, self.total);
    }
}

/// A blob on its way: what has arrived of it, on disk and hashed.
pub(super) struct Part<'a> {
    remote: &'a RemoteFile,
    path: PathBuf,
    blob: PathBuf,
    file: File,
    hasher: Hasher,
    length: u64,
    is_pieced_together: bool,
    progress: &'a Progress<'a>,
}

impl<'a> Part<'a> {
    /// Opens the part file, and takes in what an earlier attempt or process has left in it.
    pub(super) async fn open(
        cache: &RepoCache,
        remote: &'a RemoteFile,
        progress: &'a Progress<'a>,
    ) -> Result<Self, HubError> {
        let (path, blob) = (cache.part(&remote.hash), cache.blob(&remote.hash));
        let blobs = cache.blobs();
        fs::create_dir_all(&blobs).await.map_err(HubError::io("make the folder", blobs))?;
        let opened = OpenOptions::new().create(true).append(true).open(&path).await;
        let file = opened.map_err(HubError::io("open", &path))?;
        let mut hasher = Hasher::new(&remote.hash, remote.size);
        let existing = path.clone();
        let (hasher, length) = off_thread(move || {
            let length = hasher.update_from(&existing)?;
            io::Result::Ok((hasher, length))
        })
        .await
        .map_err(HubError::io("read", &path))?;
        let is_pieced_together = length > 0;
        let mut part = Self { remote, path, blob, file, hasher, length, is_pieced_together, progress };
        part.progress.add(length);
        if length > remote.size {
            part.restart().await?;
        }
        Ok(part)
    }

    pub(super) fn remote(&self) -> &'a RemoteFile {
        self.remote
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    pub(super) fn missing(&self) -> u64 {
        self.remote.size.saturating_sub(self.length)
    }

    /// Its bytes come from more than one answer.
    pub(super) fn is_pieced_together(&self) -> bool {
        self.is_pieced_together
    }

    pub(super) fn continue_with_another_piece(&mut self) {
        self.is_pieced_together = true;
    }

    pub(super) async fn append(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        let length = bytes.len() as u64;
        if length > self.missing() {
            return Err(self.wrong_length(self.length + length).await);
        }
        self.file.write_all(bytes).await.map_err(write_error(self.path.clone(), self.missing()))?;
        self.hasher.update(bytes);
        self.length += length;
        self.progress.add(length);
        Ok(())
    }

    /// Drops all that has arrived.
    pub(super) async fn restart(&mut self) -> Result<(), HubError> {
        self.flush().await?;
        self.file.set_len(0).await.map_err(HubError::io("empty", &self.path))?;
        self.progress.take_back(self.length);
        self.length = 0;
        self.hasher = Hasher::new(&self.remote.hash, self.remote.size);
        self.is_pieced_together = false;
        Ok(())
    }

    /// Waits until all that was appended is in the file.
    pub(super) async fn flush(&mut self) -> Result<(), HubError> {
        self.file.flush().await.map_err(write_error(self.path.clone(), self.missing()))
    }

    /// Makes the whole part file the blob if its hash is right, and removes it if not. Returns its sha256.
    pub(super) async fn finish(mut self) -> Result<String, HubError> {
        self.flush().await?;
        let hashed = self.hasher.finish();
        if hashed.promised != self.remote.hash {
            self.progress.take_back(self.length);
            fs::remove_file(&self.path).await.map_err(HubError::io("remove", &self.path))?;
            return Err(HubError::WrongContent {
                path: self.remote.path.clone(),
                expected: self.remote.hash.to_string(),
                actual: hashed.promised.to_string(),
            });
        }
        self.file.sync_all().await.map_err(write_error(self.path.clone(), 0))?;
        fs::rename(&self.path, &self.blob).await.map_err(HubError::io("rename", &self.path))?;
        Ok(hashed.sha256)
    }

    /// The error for a file of another length than the hub lists; nothing of it is kept.
    pub(super) async fn wrong_length(&mut self, actual: u64) -> HubError {
        if let Err(error) = self.restart().await {
            return error;
        }
        HubError::WrongContent {
            path: self.remote.path.clone(),
            expected: format!("{} bytes", self.remote.size),
            actual: format!("{actual} bytes"),
        }
    }
}
