use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::{Hold, Lock, StoreError};
use crate::base::{StepKey, write_atomically};
use crate::event::StepKind;

const MATERIAL: &str = "material.json";
const OUTPUT: &str = "output";

/// Outputs of steps by key.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// An output that is being made, with the lock on its key. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    folder: TempDir,
    store: Store,
    target: PathBuf,
    _lock: Lock,
}

/// An output in the store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    pub kind: StepKind,
    pub key: StepKey,
    pub folder: PathBuf,
    /// Bytes of all files, links not followed.
    pub bytes: u64,
    pub made: SystemTime,
}

impl Store {
    /// The store of a home folder; its folders are made when something is put there.
    #[must_use]
    pub fn of_home(home: &Path) -> Self {
        Self { root: home.join("store") }
    }

    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where lengths of conversations are kept, which take long to count and little to lose.
    #[must_use]
    pub fn counts(&self) -> PathBuf {
        self.root.join("counts")
    }

    /// Every output that is there, whole.
    pub fn keys(&self) -> Result<HashSet<StepKey>, StoreError> {
        let mut keys = HashSet::new();
        for kind in StepKind::ALL {
            for folder in folders_in(&self.root.join(kind.name()))?.iter().filter(|folder| is_whole(folder)) {
                keys.extend(
                    folder.file_name().and_then(|name| name.to_str()).map(|name| StepKey::new(name.to_owned())),
                );
            }
        }
        Ok(keys)
    }

    #[must_use]
    pub fn holds(&self, kind: StepKind, key: &StepKey) -> bool {
        is_whole(&self.folder(kind, key))
    }

    /// Where an output is, once it is there.
    #[must_use]
    pub fn output(&self, kind: StepKind, key: &StepKey) -> PathBuf {
        self.folder(kind, key).join(OUTPUT)
    }

    #[must_use]
    pub fn material(&self, kind: StepKind, key: &StepKey) -> Option<Value> {
        let bytes = fs::read(self.folder(kind, key).join(MATERIAL)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Begins an output, as soon as no other run is making the same one.
    pub async fn begin(&self, kind: StepKind, key: &StepKey, cancel: &CancellationToken) -> Result<Draft, StoreError> {
        let lock = Lock::acquire(&self.root.join("locks").join(key.as_str()), Hold::Alone, cancel).await?;
        let lock = lock.ok_or_else(|| StoreError::Interrupted { key: key.clone() })?;
        let tmp = self.root.join("tmp");
        fs::create_dir_all(&tmp).map_err(StoreError::at("create", &tmp))?;
        let prefix = format!("{key}-");
        // Whoever held the lock before and died may have left a half-made output.
        for left in folders_in(&tmp)? {
            if left.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&prefix)) {
                fs::remove_dir_all(&left).map_err(StoreError::at("remove", &left))?;
            }
        }
        let folder =
            tempfile::Builder::new().prefix(&prefix).tempdir_in(&tmp).map_err(StoreError::at("create", &tmp))?;
        let draft = Draft { folder, store: self.clone(), target: self.folder(kind, key), _lock: lock };
        fs::create_dir(draft.output()).map_err(StoreError::at("create", &draft.output()))?;
        Ok(draft)
    }

    /// Everything in the store, in no particular order.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        for kind in StepKind::ALL {
            for folder in folders_in(&self.root.join(kind.name()))? {
                let Some(key) = folder.file_name().and_then(|name| name.to_str()) else { continue };
                let made = fs::metadata(&folder).and_then(|facts| facts.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
                entries.push(Entry { kind, key: StepKey::new(key.to_owned()), bytes: size_of(&folder), made, folder });
            }
        }
        Ok(entries)
    }

    /// Removes an output, unless some run is working on it; `false` then.
    pub fn remove(&self, entry: &Entry) -> Result<bool, StoreError> {
        let path = self.root.join("locks").join(entry.key.as_str());
        let Some(_lock) = Lock::try_acquire(&path, Hold::Alone)? else { return Ok(false) };
        self.retire(&entry.folder)?;
        Ok(true)
    }

    /// Removes what makers that died have left, and what is easily made again. Nobody may be making anything: see
    /// [`Store::in_use`].
    pub fn clear_leftovers(&self) -> Result<(), StoreError> {
        let counts = self.counts();
        if counts.exists() {
            fs::remove_dir_all(&counts).map_err(StoreError::at("remove", &counts))?;
        }
        for left in folders_in(&self.root.join("tmp"))? {
            fs::remove_dir_all(&left).map_err(StoreError::at("remove", &left))?;
        }
        Ok(())
    }

    /// Held by each run that may read outputs, shared, and alone by whoever removes them; `None` when it cannot be had now.
    pub fn in_use(&self, hold: Hold) -> Result<Option<Lock>, StoreError> {
        Lock::try_acquire(&self.root.join("in-use"), hold)
    }

    /// Takes an output away by one rename before its files go, so that half of it is never seen.
    fn retire(&self, folder: &Path) -> Result<(), StoreError> {
        let tmp = self.root.join("tmp");
        fs::create_dir_all(&tmp).map_err(StoreError::at("create", &tmp))?;
        let grave = TempDir::with_prefix_in("old-", &tmp).map_err(StoreError::at("create", &tmp))?;
        fs::rename(folder, grave.path().join("gone")).map_err(StoreError::at("remove", folder))?;
        grave.close().map_err(StoreError::at("remove", folder))
    }

    fn folder(&self, kind: StepKind, key: &StepKey) -> PathBuf {
        self.root.join(kind.name()).join(key.as_str())
    }
}

impl Draft {
    /// The folder to fill.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.folder.path().join(OUTPUT)
    }

    /// Makes the output a link to something that lies elsewhere and is not ours to copy.
    pub fn link_output(&self, target: &Path) -> Result<(), StoreError> {
        let output = self.output();
        fs::remove_dir(&output).map_err(StoreError::at("replace", &output))?;
        std::os::unix::fs::symlink(target, &output).map_err(StoreError::at("link", &output))
    }

    /// Where the output will be: for files that name their own place.
    #[must_use]
    pub fn final_output(&self) -> PathBuf {
        self.target.join(OUTPUT)
    }

    /// Puts the output in its place, whole, instead of an older one of the same key.
    pub fn finish(self, material: &Value) -> Result<PathBuf, StoreError> {
        let path = self.folder.path().join(MATERIAL);
        let text =
            serde_json::to_vec_pretty(material).map_err(|source| StoreError::Json { path: path.clone(), source })?;
        write_atomically(&path, &text).map_err(StoreError::at("write", &path))?;
        let output = self.final_output();
        if let Some(parent) = self.target.parent() {
            fs::create_dir_all(parent).map_err(StoreError::at("create", parent))?;
        }
        if self.target.exists() {
            self.store.retire(&self.target)?;
        }
        let folder = self.folder.keep();
        fs::rename(&folder, &self.target).map_err(StoreError::at("move", &folder))?;
        Ok(output)
    }
}

/// An output that links to what is gone is not there.
fn is_whole(folder: &Path) -> bool {
    folder.join(MATERIAL).is_file() && folder.join(OUTPUT).exists()
}

/// The folders directly in a folder; none if it is not there.
pub(super) fn folders_in(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(StoreError::at("read", folder))?,
    };
    let mut folders = Vec::new();
    for entry in entries {
        let entry = entry.map_err(StoreError::at("read", folder))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => size_of(&entry.path()),
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |facts| facts.len()),
            Ok(_) | Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn store() -> (TempDir, Store, StepKey) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::of_home(home.path());
        (home, store, StepKey::new("0123".to_owned()))
    }

    #[tokio::test]
    async fn an_output_appears_whole_or_not_at_all() {
        let (_home, store, key) = store();
        let never = CancellationToken::new();
        let draft = store.begin(StepKind::Build, &key, &never).await.unwrap();
        fs::write(draft.output().join("half"), "x").unwrap();
        assert!(!store.holds(StepKind::Build, &key));
        drop(draft);
        assert!(store.keys().unwrap().is_empty());

        let draft = store.begin(StepKind::Build, &key, &never).await.unwrap();
        fs::write(draft.output().join("whole"), "xyz").unwrap();
        draft.finish(&json!({"a": 1})).unwrap();
        assert_eq!(store.keys().unwrap(), HashSet::from([key.clone()]));
        assert_eq!(fs::read_to_string(store.output(StepKind::Build, &key).join("whole")).unwrap(), "xyz");
        assert_eq!(store.material(StepKind::Build, &key), Some(json!({"a": 1})));
    }

    #[tokio::test]
    async fn a_second_maker_waits_and_can_be_interrupted() {
        let (_home, store, key) = store();
        let never = CancellationToken::new();
        let draft = store.begin(StepKind::Build, &key, &never).await.unwrap();
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        assert!(matches!(store.begin(StepKind::Build, &key, &cancelled).await, Err(StoreError::Interrupted { .. })));
        drop(draft);
        assert!(store.begin(StepKind::Build, &key, &never).await.is_ok());
    }

    #[tokio::test]
    async fn what_a_dead_maker_left_is_removed() {
        let (_home, store, key) = store();
        let left = store.root().join("tmp").join(format!("{key}-dead"));
        fs::create_dir_all(&left).unwrap();
        let _draft = store.begin(StepKind::Build, &key, &CancellationToken::new()).await.unwrap();
        assert!(!left.exists());
    }

    #[tokio::test]
    async fn removing_spares_what_is_in_use() {
        let (_home, store, key) = store();
        let never = CancellationToken::new();
        store.begin(StepKind::Build, &key, &never).await.unwrap().finish(&json!({})).unwrap();
        let entry = store.entries().unwrap().remove(0);
        let busy = store.begin(StepKind::Build, &key, &never).await.unwrap();
        assert!(!store.remove(&entry).unwrap());
        drop(busy);
        assert!(store.remove(&entry).unwrap());
        assert!(store.entries().unwrap().is_empty());
    }
}
