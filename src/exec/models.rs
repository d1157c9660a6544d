use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future;
use tokio::sync::Mutex;

use super::PrepareError;
use crate::hub::{Hub, HubSettings, Patience, Pinned};
use crate::manifest::{HfModel, Locked, Manifest, Model};
use crate::plan::ModelIdentity;
use crate::store::FileHashes;

/// Where a model's files come from, found out.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Hub { pinned: Option<Pinned>, patterns: Vec<String> },
    Folder(PathBuf),
    Package { requirement: String, patterns: Vec<String> },
    Dummy { seed: u64 },
}

/// A model's identity for keys, and how to get it.
#[derive(Clone, Debug)]
pub(super) struct ResolvedModel {
    pub identity: ModelIdentity,
    pub origin: Origin,
}

/// What to do when no hub can be asked which commit a revision is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Unpinned {
    /// The plan is made all the same, with provisional keys.
    Tolerate,
    Refuse,
}

/// Finds out what each of the models that are wanted is.
pub(super) async fn resolve(
    manifest: &Manifest,
    wanted: &BTreeSet<String>,
    base: &Path,
    store: &Path,
    unpinned: Unpinned,
) -> Result<BTreeMap<String, ResolvedModel>, PrepareError> {
    let hub = OnceCell::new();
    // What is known of files' hashes has one writer at a time.
    let hashing = Mutex::new(());
    let one = async |(name, model): (&String, &Model)| {
        let model = match model {
            Model::Hf(model) => {
                let hub = match hub.get() {
                    Some(hub) => hub,
                    None => {
                        let new = Hub::new(hub_settings(unpinned)).map_err(|source| hub_error(name, source))?;
                        hub.get_or_init(|| new)
                    }
                };
                hf(name, model, manifest.locked.as_ref(), hub, unpinned).await?
            }
            Model::Path(path) => {
                let _alone = hashing.lock().await;
                folder(name, base.join(path), store.to_owned()).await?
            }
            Model::Package(package) => {
                let (requirement, files) = (package.requirement.clone(), package.files.clone());
                ResolvedModel {
                    identity: ModelIdentity::Package { requirement: requirement.clone(), files: files.clone() },
                    origin: Origin::Package { requirement, patterns: files },
                }
            }
            Model::Dummy(dummy) => {
                let seed = dummy.seed.unwrap_or(manifest.seed);
                let identity = ModelIdentity::Dummy { model: dummy.clone(), seed, generator: crate::dummy::GENERATOR };
                ResolvedModel { identity, origin: Origin::Dummy { seed } }
            }
        };
        Ok((name.clone(), model))
    };
    let wanted = manifest.models.iter().filter(|(name, _)| wanted.contains(*name));
    // In turn but for the waiting: a hub answers several questions at a time.
    future::join_all(wanted.map(one)).await.into_iter().collect()
}

/// Somebody who only looks does not want to wait for a hub that is not there.
fn hub_settings(unpinned: Unpinned) -> HubSettings {
    let mut settings = HubSettings::from_env();
    if unpinned == Unpinned::Tolerate {
        let soon = Duration::from_secs(3);
        settings.patience = Patience { attempts: 1, connect: soon, stall: soon, ..settings.patience };
    }
    settings
}

fn hub_error(model: &str, source: crate::hub::HubError) -> PrepareError {
    PrepareError::Hub { model: model.to_owned(), source: Box::new(source) }
}

async fn hf(
    name: &str,
    model: &HfModel,
    locked: Option<&Locked>,
    hub: &Hub,
    unpinned: Unpinned,
) -> Result<ResolvedModel, PrepareError> {
    let commit = locked.and_then(|locked| locked.models.get(name)).and_then(|model| model.commit.as_ref());
    let revision = commit.unwrap_or(&model.revision);
    let pinned = match hub.resolve(&model.repo, revision).await {
        Ok(pinned) => Some(pinned),
        Err(_) if unpinned == Unpinned::Tolerate => None,
        Err(source) => return Err(hub_error(name, source)),
    };
    let identity = ModelIdentity::Hf {
        repo: model.repo.clone(),
        commit: pinned.as_ref().map_or(revision, |pinned| &pinned.commit).clone(),
        pinned: pinned.is_some(),
        files: model.files.clone(),
    };
    Ok(ResolvedModel { identity, origin: Origin::Hub { pinned, patterns: model.files.clone() } })
}

async fn folder(name: &str, path: PathBuf, store: PathBuf) -> Result<ResolvedModel, PrepareError> {
    let failed =
        |path: &Path, source| PrepareError::ModelFolder { model: name.to_owned(), path: path.to_owned(), source };
    let folder = fs::canonicalize(&path).map_err(|source| failed(&path, source))?;
    let entries = fs::read_dir(&folder).map_err(|source| failed(&path, source))?;
    let is_gguf = |entry: &fs::DirEntry| entry.path().extension().is_some_and(|ending| ending == "gguf");
    if !folder.join("config.json").is_file() && !entries.flatten().any(|entry| is_gguf(&entry)) {
        return Err(PrepareError::NotAModel { model: name.to_owned(), path });
    }
    let hashed = folder.clone();
    let hashing = move || {
        let mut hashes = FileHashes::load(&store);
        let files = hash_folder(&hashed, |file| hashes.sha256(file));
        // A memory that cannot be kept costs time, not correctness.
        let _ = hashes.save();
        files
    };
    let files = tokio::task::spawn_blocking(hashing)
        .await
        .expect("hashing returns its failures")
        .map_err(|source| failed(&folder, source))?;
    Ok(ResolvedModel { identity: ModelIdentity::Path { files }, origin: Origin::Folder(folder) })
}

/// sha256 by relative path of all files of a folder but hidden ones.
pub(super) fn hash_folder(
    folder: &Path,
    mut sha256: impl FnMut(&Path) -> io::Result<String>,
) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(inner) = waiting.pop() {
        for entry in fs::read_dir(&inner)? {
            let path = entry?.path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
                continue;
            }
            if path.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap_or(&path).display().to_string();
                files.insert(name, sha256(&path)?);
            }
        }
    }
    Ok(files)
}
