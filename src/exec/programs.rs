use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::venv::Venv;
use crate::base::sha256_file;
use crate::engine;
use crate::process::{CommandSpec, program_version, resolve_program};
use crate::recipe::{LoadedRecipe, Program};

/// The name under which a recipe calls this very executable.
const OURSELVES: &str = "benchrun";
/// Python programs that import a GPU stack take long to print their version.
const VERSION_LIMIT: Duration = Duration::from_mins(2);

/// A program of the recipe on this machine.
#[derive(Clone, Debug)]
pub(super) struct FoundProgram {
    /// What is looked for.
    pub name: PathBuf,
    /// `None` when it is not on this machine.
    pub path: Option<PathBuf>,
    /// What it prints of itself; a word in its place when it cannot be asked.
    pub version: String,
}

/// Where programs are looked for.
pub(super) struct Places<'a> {
    /// The PATH of whoever started benchrun.
    pub path: &'a OsStr,
    /// Comes before it.
    pub venv: Option<&'a Venv>,
    /// The manifest's own choices, and the folder that they count from.
    pub chosen: &'a IndexMap<String, PathBuf>,
    pub base: &'a Path,
}

/// Looks for each program of the recipe and asks for its version.
pub(super) async fn find(
    recipe: &LoadedRecipe,
    places: &Places<'_>,
    cancel: &CancellationToken,
) -> BTreeMap<String, FoundProgram> {
    let path = match places.venv {
        Some(venv) => before(&venv.bin, places.path),
        None => places.path.to_owned(),
    };
    let mut found = BTreeMap::new();
    for (name, program) in &recipe.recipe.programs {
        let wanted = match places.chosen.get(name) {
            Some(chosen) if chosen.components().count() > 1 => places.base.join(chosen),
            Some(chosen) => chosen.clone(),
            None => PathBuf::from(&program.program),
        };
        let mut one = find_one(program, wanted, &path, cancel).await;
        // The version of one package says nothing of the others that it runs with.
        if let Some(venv) = places.venv
            && one.path.as_ref().is_some_and(|file| file.starts_with(&venv.bin))
        {
            one.version = format!("{} (venv {})", one.version, venv.digest());
        }
        found.insert(name.clone(), one);
    }
    found
}

/// A PATH with one more folder, which comes first.
pub(super) fn before(folder: &Path, path: &OsStr) -> OsString {
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(path));
    // A folder with a colon in its name cannot be on a PATH.
    std::env::join_paths(folders).unwrap_or_else(|_| path.to_owned())
}

/// Our own version: the package's, and the engine's where it computes otherwise than before.
fn ours() -> String {
    format!("{} (engine {})", env!("CARGO_PKG_VERSION"), engine::REVISION)
}

/// A program that says no version is known by its content.
fn by_content(path: &Path) -> String {
    sha256_file(path).map_or_else(|_| "unreadable".to_owned(), |hash| format!("sha256 {hash}"))
}

async fn find_one(program: &Program, name: PathBuf, path: &OsStr, cancel: &CancellationToken) -> FoundProgram {
    if name == Path::new(OURSELVES) {
        return FoundProgram { name, path: std::env::current_exe().ok(), version: ours() };
    }
    let Ok(found) = resolve_program(&name, path) else {
        return FoundProgram { name, path: None, version: "not found".to_owned() };
    };
    let logs = if program.version.is_empty() { None } else { tempfile::tempdir().ok() };
    let Some(logs) = logs else {
        return FoundProgram { name, version: by_content(&found), path: Some(found) };
    };
    let spec = CommandSpec {
        args: program.version.clone(),
        time_limit: Some(VERSION_LIMIT),
        ..CommandSpec::new(&found, logs.path())
    };
    let version = program_version(&spec, cancel).await.unwrap_or_else(|_| by_content(&found));
    FoundProgram { name, path: Some(found), version }
}
