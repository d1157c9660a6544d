use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Instant;

use jiff::Timestamp;
use serde::Serialize;

use super::StoreError;
use super::outputs::folders_in;
use crate::base::{CellId, RunId, append_line, write_atomically};
use crate::event::{Event, Stamped};

const LATEST: &str = "latest";
/// Links to runs that were kept elsewhere by `--run-dir`. No manifest's name starts with a dot.
const ELSEWHERE: &str = ".elsewhere";

/// The folders of runs, by manifest name and run id.
#[derive(Clone, Debug)]
pub struct Runs {
    root: PathBuf,
}

/// One run's folder.
#[derive(Clone, Debug)]
pub struct RunFolder {
    pub id: RunId,
    pub path: PathBuf,
}

impl Runs {
    #[must_use]
    pub fn of_home(home: &Path) -> Self {
        Self { root: home.join("runs") }
    }

    /// Makes a new run's folder: `at`, or one named by time under the manifest's name with `latest` pointing to it.
    pub fn create(&self, name: &str, at: Option<&Path>) -> Result<RunFolder, StoreError> {
        let random: u32 = rand::random();
        // Runs are in the order of their ids: two of the same second are told apart, too.
        let time = Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ");
        let id = RunId::new(format!("{time}-{:04x}", random & 0xffff));
        let path = at.map_or_else(|| self.root.join(name).join(id.as_str()), Path::to_owned);
        fs::create_dir_all(&path).map_err(StoreError::at("create", &path))?;
        let path = fs::canonicalize(&path).map_err(StoreError::at("find", &path))?;
        match at {
            None => self.point_latest_to(name, &id)?,
            Some(_) => {
                clear_earlier_run(&path)?;
                self.remember(&id, &path)?;
            }
        }
        Ok(RunFolder { id, path })
    }

    /// Notes where a run is that is not under the home, so that the store's garbage collection spares its outputs.
    fn remember(&self, id: &RunId, path: &Path) -> Result<(), StoreError> {
        let folder = self.root.join(ELSEWHERE);
        fs::create_dir_all(&folder).map_err(StoreError::at("create", &folder))?;
        let link = folder.join(id.as_str());
        symlink(path, &link).map_err(StoreError::at("link", &link))
    }

    /// The folders of all runs whose outputs the store must keep, those elsewhere included.
    pub fn folders(&self) -> Result<Vec<PathBuf>, StoreError> {
        let mut folders: Vec<PathBuf> = self.list()?.into_iter().map(|(_, run)| run.path).collect();
        let elsewhere = fs::read_dir(self.root.join(ELSEWHERE)).into_iter().flatten().flatten();
        folders.extend(elsewhere.filter_map(|link| fs::canonicalize(link.path()).ok()));
        Ok(folders)
    }

    fn point_latest_to(&self, name: &str, id: &RunId) -> Result<(), StoreError> {
        let link = self.root.join(name).join(LATEST);
        let fresh = self.root.join(name).join(format!(".{id}"));
        symlink(id.as_str(), &fresh).map_err(StoreError::at("link", &fresh))?;
        fs::rename(&fresh, &link).map_err(StoreError::at("move", &fresh))
    }

    /// The newest run of a manifest.
    #[must_use]
    pub fn latest(&self, name: &str) -> Option<RunFolder> {
        RunFolder::open(&fs::canonicalize(self.root.join(name).join(LATEST)).ok()?)
    }

    /// All runs, oldest first.
    pub fn list(&self) -> Result<Vec<(String, RunFolder)>, StoreError> {
        let mut runs = Vec::new();
        for manifest in folders_in(&self.root)? {
            let name = manifest.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let found = folders_in(&manifest)?;
            runs.extend(found.iter().filter_map(|path| RunFolder::open(path)).map(|run| (name.clone(), run)));
        }
        runs.sort_by(|(_, a), (_, b)| a.id.cmp(&b.id));
        Ok(runs)
    }

    /// A run by folder, by id, by manifest name (its newest) or by `latest` (the newest of all).
    pub fn find(&self, run: &str) -> Result<RunFolder, StoreError> {
        if run != LATEST
            && let Some(found) = fs::canonicalize(run).ok().and_then(|path| RunFolder::open(&path))
        {
            return Ok(found);
        }
        let runs = self.list()?.into_iter().rev();
        let matching = runs.filter(|(name, folder)| run == LATEST || run == folder.id.as_str() || run == name);
        matching
            .map(|(_, folder)| folder)
            .next()
            .ok_or_else(|| StoreError::NoSuchRun { run: run.to_owned(), runs: self.root.clone() })
    }
}

/// Makes a folder that held a run ready for another; a folder that holds anything else is not ours to empty.
fn clear_earlier_run(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(StoreError::at("read", path))?;
    if path.join(RUN_ID).is_file() {
        for entry in entries {
            let entry = entry.map_err(StoreError::at("read", path))?.path();
            let removed = if entry.is_dir() { fs::remove_dir_all(&entry) } else { fs::remove_file(&entry) };
            removed.map_err(StoreError::at("remove", &entry))?;
        }
        return Ok(());
    }
    if entries.count() > 0 {
        return Err(StoreError::NotARun { path: path.to_owned() });
    }
    Ok(())
}

/// The file that names a run, in its folder.
const RUN_ID: &str = "run-id";

impl RunFolder {
    fn open(path: &Path) -> Option<Self> {
        if !path.join("events.jsonl").is_file() {
            return None;
        }
        // A folder chosen by `--run-dir` has a name of its own: the id is in its log.
        let id = path.file_name()?.to_str()?.to_owned();
        let id = fs::read_to_string(path.join(RUN_ID)).map_or(id, |text| text.trim().to_owned());
        Some(Self { id: RunId::new(id), path: path.to_owned() })
    }

    #[must_use]
    pub fn cell(&self, cell: &CellId) -> PathBuf {
        self.path.join("cells").join(cell.as_str())
    }

    #[must_use]
    pub fn point(&self, cell: &CellId, phase: &str, point: &str) -> PathBuf {
        self.cell(cell).join(phase).join(point)
    }

    /// Writes a file of the run, whole.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path.join(name);
        write_atomically(&path, bytes).map_err(StoreError::at("write", &path))
    }

    /// Writes a file of the run as JSON.
    pub fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let bytes = serde_json::to_vec_pretty(value)
            .map_err(|source| StoreError::Json { path: self.path.join(name), source })?;
        self.write(name, &bytes)
    }
}

/// `events.jsonl`, written while things happen.
#[derive(Debug)]
pub struct EventLog {
    file: File,
    path: PathBuf,
    began: Instant,
}

impl EventLog {
    pub fn create(run: &RunFolder) -> Result<Self, StoreError> {
        run.write(RUN_ID, run.id.as_str().as_bytes())?;
        let path = run.path.join("events.jsonl");
        let file = File::options().create(true).append(true).open(&path).map_err(StoreError::at("open", &path))?;
        Ok(Self { file, path, began: Instant::now() })
    }

    /// Stamps an event and appends it.
    pub fn append(&mut self, event: Event) -> Result<Stamped, StoreError> {
        let time = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let stamped = Stamped { time, elapsed_s: self.began.elapsed().as_secs_f64(), event };
        let line =
            serde_json::to_string(&stamped).map_err(|source| StoreError::Json { path: self.path.clone(), source })?;
        append_line(&mut self.file, &line).map_err(StoreError::at("write", &self.path))?;
        Ok(stamped)
    }
}
