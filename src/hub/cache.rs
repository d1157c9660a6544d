use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::client::is_commit;
use super::listing::RemoteFile;
use super::verify::BlobHash;
use crate::base::write_atomically;

/// One repository's folder in the cache: `blobs/HASH`, `snapshots/COMMIT/PATH` as links to blobs, `refs/REVISION`.
#[derive(Clone)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, repo: &str) -> Self {
        let name = format!("models--{}", repo.replace('/', "--"));
        Self { folder: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.folder.join("blobs")
    }

    pub(super) fn blob(&self, hash: &BlobHash) -> PathBuf {
        self.blobs().join(hash.as_str())
    }

    /// What has arrived of a blob so far.
    pub(super) fn part(&self, hash: &BlobHash) -> PathBuf {
        self.blobs().join(format!("{}.incomplete", hash.as_str()))
    }

    /// The file that other tools lock as well while they write this blob.
    pub(super) fn lock(&self, hash: &BlobHash) -> PathBuf {
        self.locks.join(format!("{}.lock", hash.as_str()))
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The commit that a branch or tag had when it was last fetched.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let text = fs::read_to_string(self.ref_path(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> io::Result<()> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        write_atomically(&self.ref_path(revision), commit.as_bytes())
    }

    fn ref_path(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Makes the snapshot's entry for a file a link to its blob, relative so that the cache can be moved.
    pub(super) fn link(&self, commit: &str, file: &RemoteFile) -> io::Result<()> {
        let entry = self.snapshot(commit).join(&file.path);
        let up = "../".repeat(2 + file.path.split('/').count() - 1);
        let target = PathBuf::from(format!("{up}blobs/{}", file.hash.as_str()));
        if fs::read_link(&entry).is_ok_and(|current| current == target) {
            return Ok(());
        }
        let folder = entry.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder)?;
        let link = tempfile::Builder::new().prefix(".link-").make_in(folder, |path| symlink(&target, path))?;
        link.persist(&entry).map_err(|error| error.error)?;
        Ok(())
    }

    /// The snapshot's files whose blobs are there; none if there is no snapshot.
    pub(super) fn files_of(&self, commit: &str) -> io::Result<Vec<RemoteFile>> {
        let root = self.snapshot(commit);
        let mut files = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let path = entry?.path();
                if path.is_symlink() {
                    files.extend(linked_file(&root, &path));
                } else if path.is_dir() {
                    folders.push(path);
                }
            }
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }
}

fn linked_file(root: &Path, link: &Path) -> Option<RemoteFile> {
    let target = fs::read_link(link).ok()?;
    let hash = BlobHash::parse(target.file_name()?.to_str()?)?;
    let size = fs::metadata(link).ok()?.len();
    let path = link.strip_prefix(root).ok()?.to_str()?.to_owned();
    Some(RemoteFile { path, size, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_file_reads_as_its_blob_and_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "owner/name");
        let hash = BlobHash::parse(&"a".repeat(64)).unwrap();
        fs::create_dir_all(cache.blobs()).unwrap();
        fs::write(cache.blob(&hash), "text").unwrap();
        let commit = "c".repeat(40);
        let file = |path: &str| RemoteFile { path: path.to_owned(), size: 4, hash: hash.clone() };
        // A copy that stands where the link belongs is replaced.
        fs::create_dir_all(cache.snapshot(&commit)).unwrap();
        fs::write(cache.snapshot(&commit).join("top.json"), "old").unwrap();
        for path in ["top.json", "a/b/deep.json", "top.json"] {
            cache.link(&commit, &file(path)).unwrap();
            assert_eq!(fs::read_to_string(cache.snapshot(&commit).join(path)).unwrap(), "text");
        }
        assert_eq!(cache.files_of(&commit).unwrap(), [file("a/b/deep.json"), file("top.json")]);
        assert!(cache.snapshot(&commit).starts_with(folder.path().join("models--owner--name/snapshots")));
    }

    #[test]
    fn a_ref_with_slashes_is_kept_and_a_commit_needs_none() {
        let folder = tempfile::tempdir().unwrap();
        let cache = RepoCache::new(folder.path(), "owner/name");
        let commit = "c".repeat(40);
        assert_eq!(cache.commit_of("refs/pr/1"), None);
        cache.write_ref("refs/pr/1", &commit).unwrap();
        cache.write_ref(&commit, &commit).unwrap();
        assert_eq!(cache.commit_of("refs/pr/1"), Some(commit.clone()));
        assert_eq!(cache.commit_of(&commit), None);
    }
}
