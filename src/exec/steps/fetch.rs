use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::{Job, Message};
use crate::base::sha256_file;
use crate::dummy;
use crate::event::Event;
use crate::exec::StepError;
use crate::exec::models::{Origin, hash_folder};
use crate::hub::{Hub, HubError, HubSettings, wanted};
use crate::manifest::Model;
use crate::plan::{ModelIdentity, Step};
use crate::store::Draft;

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
            ModelIdentity::Hf { .. } | ModelIdentity::Dummy { .. } => Hashes::new(),
        },
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
        Model::Hf(_) | Model::Path(_) => None,
    };
    let folder = draft.output();
    let made = tokio::task::spawn_blocking(move || dummy::write_model(&folder, config.as_ref(), seed));
    made.await.expect("making a model returns its failures")?;
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
