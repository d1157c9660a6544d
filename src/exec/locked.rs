use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

use super::engines::PreparedEngine;
use super::models::Origin;
use super::{PrepareError, Prepared};
use crate::base::Scalar;
use crate::manifest::{Locked, LockedEngine, LockedModel, Manifest, Model, to_yaml};

/// Refuses a machine on which something is not what the lock says.
pub(super) fn check(lock: &Locked, prepared: &Prepared) -> Result<(), PrepareError> {
    let compare = |what: String, locked: &str, now: &str| {
        if locked.is_empty() || locked == now {
            return Ok(());
        }
        Err(PrepareError::NotAsLocked { what, locked: locked.to_owned(), now: now.to_owned() })
    };
    for engine in prepared.engines.iter().filter(|engine| engine.is_wanted) {
        let Some(locked) = lock.engines.get(&engine.label) else { continue };
        compare(format!("recipe of {}", engine.label), &locked.recipe, &engine.recipe.digest())?;
        for (name, version) in &locked.programs {
            let now = engine.programs.get(name).map_or("not found", |program| &program.version);
            compare(format!("version of {name}"), version, now)?;
        }
    }
    for (name, model) in &lock.models {
        if let Some(crate::plan::ModelIdentity::Path { files }) = prepared.models.get(name).map(|model| &model.identity)
        {
            for (file, hash) in &model.files {
                compare(format!("{name}: {file}"), hash, files.get(file).map_or("missing", String::as_str))?;
            }
        }
    }
    Ok(())
}

/// What a run has resolved so far, beyond what its plan knew.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// sha256 by file, by model.
    pub files: BTreeMap<String, BTreeMap<String, String>>,
    /// The workload's sha256, by cell, phase and load point.
    pub workloads: IndexMap<String, String>,
}

/// The text of `lock.yaml`: the manifest with all that was resolved, itself a manifest.
pub(super) fn lock_text(prepared: &Prepared, resolved: &Resolved) -> String {
    let mut manifest = prepared.document.value.clone();
    make_paths_absolute(&mut manifest, &prepared.base);
    let said = manifest.engine.iter_mut().chain(manifest.engines.values_mut());
    said.zip(&prepared.plan.engines).for_each(|(said, engine)| said.version = Some(engine.version.clone()));
    let wanted = prepared.engines.iter().filter(|engine| engine.is_wanted);
    let mut locked = Locked {
        benchrun: env!("CARGO_PKG_VERSION").to_owned(),
        only: prepared.only.clone(),
        engines: wanted.map(|engine| (engine.label.clone(), locked_engine(engine))).collect(),
        workloads: resolved.workloads.clone(),
        host: host(),
        ..Locked::default()
    };
    for (name, model) in &prepared.models {
        let commit = match &model.origin {
            Origin::Hub { pinned, .. } => pinned.as_ref().map(|pinned| pinned.commit.clone()),
            Origin::Folder(_) | Origin::Package { .. } | Origin::Dummy { .. } => None,
        };
        let files = resolved.files.get(name).into_iter().flatten();
        let files = files.map(|(file, hash)| (file.clone(), hash.clone())).collect();
        locked.models.insert(name.clone(), LockedModel { commit, files });
    }
    manifest.locked = Some(locked);
    to_yaml(&manifest)
}

fn locked_engine(engine: &PreparedEngine) -> LockedEngine {
    let programs = engine.programs.iter().map(|(name, program)| (name.clone(), program.version.clone()));
    LockedEngine {
        recipe: engine.recipe.digest(),
        programs: programs.collect(),
        packages: engine.venv.as_ref().map(|venv| venv.pins().clone()).unwrap_or_default(),
    }
}

/// A lock lies in the run's folder, where the manifest's relative paths would mean something else.
fn make_paths_absolute(manifest: &mut Manifest, base: &Path) {
    let absolute =
        |path: &mut PathBuf| *path = std::path::absolute(base.join(&*path)).unwrap_or_else(|_| base.join(&*path));
    for model in manifest.models.values_mut() {
        if let Model::Path(path) = model {
            absolute(path);
        }
    }
    for engine in manifest.engine.iter_mut().chain(manifest.engines.values_mut()) {
        engine.recipes.iter_mut().for_each(absolute);
        engine.programs.values_mut().filter(|program| program.components().count() > 1).for_each(absolute);
    }
    for phase in manifest.benchmarks.values_mut() {
        phase.data.path_mut().into_iter().for_each(absolute);
    }
}

/// The machine, as far as it matters to who repeats the run.
fn host() -> IndexMap<String, Scalar> {
    let mut host = IndexMap::new();
    let name = rustix::system::uname();
    host.insert("kernel".to_owned(), Scalar::Text(name.release().to_string_lossy().into_owned()));
    host.insert("machine".to_owned(), Scalar::Text(name.machine().to_string_lossy().into_owned()));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    host.insert("cores".to_owned(), Scalar::Int(i64::try_from(cores).unwrap_or(i64::MAX)));
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")).and_then(|rest| rest.split_once(':'));
    host.extend(cpu.map(|(_, cpu)| ("cpu".to_owned(), Scalar::Text(cpu.trim().to_owned()))));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<i64>().ok());
    host.extend(kib.map(|kib| ("memory_mib".to_owned(), Scalar::Int(kib / 1024))));
    host
}
