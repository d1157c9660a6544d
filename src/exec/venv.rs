use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::python::{Installer, Pins, PythonError, Runner, read, version_of, write};
use crate::base::Digest;
use crate::manifest::VenvRuntime;
use crate::store::{Hold, Lock};

/// Written last: an environment without it is half-made.
const FACTS: &str = "venv.json";

/// An environment that a manifest asks for.
#[derive(Debug)]
pub(super) struct WantedVenv<'a> {
    runtime: &'a VenvRuntime,
    /// From the manifest's lock.
    pins: Pins,
    /// Its place in the store.
    folder: PathBuf,
    lock: PathBuf,
}

/// An environment that is there.
#[derive(Clone, Debug)]
pub(super) struct Venv {
    /// The folder of its programs.
    pub bin: PathBuf,
    facts: Facts,
}

/// What is in an environment.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Facts {
    /// The interpreter's version.
    python: String,
    packages: Pins,
}

impl Venv {
    pub(super) fn pins(&self) -> &Pins {
        &self.facts.packages
    }

    /// Twelve digits that tell environments with other contents apart.
    pub(super) fn digest(&self) -> String {
        let names: Vec<&str> = self.facts.packages.keys().map(String::as_str).collect();
        let mut digest = Digest::of(format!("{}\n{}", self.facts.python, names.join("\n")).as_bytes());
        digest.truncate(12);
        digest
    }
}

impl<'a> WantedVenv<'a> {
    /// `pins` are a lock's; without any, the installer chooses.
    pub(super) fn of(runtime: &'a VenvRuntime, pins: Pins, store: &Path) -> Self {
        let material = serde_json::json!({ "python": runtime.python, "packages": runtime.packages, "pins": pins });
        let key = Digest::of(material.to_string().as_bytes());
        // A relative folder on PATH is no place to look for programs.
        let store = std::path::absolute(store).unwrap_or_else(|_| store.to_owned());
        let (folder, lock) = (store.join("venv").join(&key), store.join("locks").join(&key));
        Self { runtime, pins, folder, lock }
    }

    /// The environment, if an earlier run has made it and its interpreter is still there.
    pub(super) fn made(&self) -> Option<Venv> {
        let facts = serde_json::from_str(&read(&self.folder.join(FACTS)).ok()?).ok()?;
        let bin = self.folder.join("venv/bin");
        bin.join("python").is_file().then_some(Venv { bin, facts })
    }

    /// Makes it, unless another run is faster. Programs know the place that they were installed to, so it is made where
    /// it stays.
    pub(super) async fn make(
        &self,
        path: &OsStr,
        time_limit: Duration,
        cancel: &CancellationToken,
    ) -> Result<Venv, PythonError> {
        let _lock = Lock::acquire(&self.lock, Hold::Alone, cancel).await?.ok_or(PythonError::Interrupted)?;
        if let Some(venv) = self.made() {
            return Ok(venv);
        }
        let failed = |source| PythonError::File { path: self.folder.clone(), source };
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder).map_err(failed)?;
        }
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        let run = Runner { folder: &self.folder, time_limit, cancel };
        let installer = Installer::find(&self.runtime.python, path, cancel).await?;
        let bin = self.folder.join("venv/bin");
        let python = bin.join("python");
        installer.make_venv(&self.runtime.python, &self.folder.join("venv"), &run).await?;
        let packages = if self.pins.is_empty() {
            installer.resolve(&self.runtime.packages, &python, &run).await?
        } else {
            self.pins.clone()
        };
        installer.install(&packages, &python, &run).await?;
        let facts = Facts { python: version_of(&python, cancel).await.unwrap_or_default(), packages };
        write(&self.folder.join(FACTS), &serde_json::to_string_pretty(&facts).expect("facts are plain data"))?;
        Ok(Venv { bin, facts })
    }

    /// What is about to happen, for whoever waits for it.
    pub(super) fn announcement(&self) -> String {
        let packages = self.runtime.packages.join(", ");
        format!("installing {packages} once, for this and later runs (logs: {})", self.folder.join("logs").display())
    }
}
