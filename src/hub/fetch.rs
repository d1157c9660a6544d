use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::cache::RepoCache;
use super::client::{Hub, Pinned};
use super::disk::{free_bytes, off_thread};
use super::download::Download;
use super::error::HubError;
use super::listing::RemoteFile;
use super::part::Progress;

/// Enough to fill a line, few enough for a hub's limits.
const FILES_AT_ONCE: usize = 4;

/// Files of a commit, all of them whole and checked.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot {
    /// Where they are readable under their own names, as links to blobs. Other files of the commit may be there too.
    pub folder: PathBuf,
    pub commit: String,
    /// By path.
    pub files: BTreeMap<String, SnapshotFile>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotFile {
    /// In bytes.
    pub size: u64,
    /// Of the bytes on disk, in lower-case hexadecimal.
    pub sha256: String,
}

impl Hub {
    /// Brings the files that the cache lacks, and links them all into the commit's snapshot once each is whole.
    ///
    /// What has arrived of a file is kept and goes on from there the next time, in this process or another. Blobs that
    /// are there already are hashed again. `progress` is called with bytes done and bytes in total, often and from any
    /// thread; bytes done can fall when a file has to start over.
    pub async fn fetch(
        &self,
        pinned: &Pinned,
        files: &[RemoteFile],
        progress: impl Fn(u64, u64) + Sync,
        cancel: &CancellationToken,
    ) -> Result<Snapshot, HubError> {
        let cache = self.cache_of(&pinned.repo);
        if !self.settings().offline {
            check_space(&cache, files)?;
        }
        let total = files.iter().map(|file| file.size).fold(0, u64::saturating_add);
        let progress = Progress::new(total, &progress);
        let download = Download { hub: self, pinned, cache: &cache, progress: &progress, cancel };
        // Made beforehand: as a stream's closure over borrowed files, the whole future would not be `Send`.
        let downloads: Vec<_> = files.iter().map(|file| download.file(file)).collect();
        let sha256s: Vec<String> = stream::iter(downloads).buffered(FILES_AT_ONCE).try_collect().await?;

        let (links, commit, revision) = (files.to_vec(), pinned.commit.clone(), pinned.revision.clone());
        let folder = cache.snapshot(&commit);
        off_thread(move || publish(&cache, &commit, &revision, &links)).await?;
        let entries = files.iter().zip(sha256s);
        let files =
            entries.map(|(file, sha256)| (file.path.clone(), SnapshotFile { size: file.size, sha256 })).collect();
        Ok(Snapshot { folder, commit: pinned.commit.clone(), files })
    }
}

/// Links come after the blobs and the ref after the links, so that what a reader finds by a ref is all there.
fn publish(cache: &RepoCache, commit: &str, revision: &str, files: &[RemoteFile]) -> Result<(), HubError> {
    for file in files {
        cache.link(commit, file).map_err(HubError::io("link a file into", cache.snapshot(commit)))?;
    }
    cache.write_ref(revision, commit).map_err(HubError::io("write the ref in", cache.snapshot(commit)))
}

/// Refuses a download that the disk cannot hold before its first byte.
fn check_space(cache: &RepoCache, files: &[RemoteFile]) -> Result<(), HubError> {
    let length = |path: PathBuf| fs::metadata(path).map_or(0, |metadata| metadata.len());
    let missing: BTreeMap<PathBuf, u64> = files
        .iter()
        .filter(|file| length(cache.blob(&file.hash)) != file.size)
        .map(|file| (cache.blob(&file.hash), file.size.saturating_sub(length(cache.part(&file.hash)))))
        .collect();
    let needed = missing.into_values().fold(0, u64::saturating_add);
    if needed == 0 {
        return Ok(());
    }
    let folder = cache.blobs();
    fs::create_dir_all(&folder).map_err(HubError::io("make the folder", &folder))?;
    let free = free_bytes(&folder).map_err(HubError::io("read the free space of", &folder))?;
    if needed > free { Err(HubError::DiskFull { folder, needed, free }) } else { Ok(()) }
}
