use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future;
use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::container::DOCKER;
use super::venv::Venv;
use crate::base::{Scalar, sha256_file};
use crate::engine;
use crate::manifest::{Engine, Runtime};
use crate::process::{CommandSpec, program_version, resolve_program};
use crate::recipe::{LoadedRecipe, Program, Setting};

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
    runtime: &Runtime,
    places: &Places<'_>,
    cancel: &CancellationToken,
) -> BTreeMap<String, FoundProgram> {
    let path = match places.venv {
        Some(venv) => before(&venv.bin, places.path),
        None => places.path.to_owned(),
    };
    if let Runtime::Docker(docker) = runtime {
        // What is in an image is what its digest says.
        let name = PathBuf::from(DOCKER);
        let version = format!("in {}", docker.image);
        let program = FoundProgram { name, path: on_path(DOCKER, &path), version };
        return recipe.recipe.programs.keys().map(|name| (name.clone(), program.clone())).collect();
    }
    let one = async |(name, program): (&String, &Program)| {
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
        (name.clone(), one)
    };
    future::join_all(recipe.recipe.programs.iter().map(one)).await.into_iter().collect()
}

/// A PATH with one more folder, which comes first.
pub(super) fn before(folder: &Path, path: &OsStr) -> OsString {
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(path));
    // A folder with a colon in its name cannot be on a PATH.
    std::env::join_paths(folders).unwrap_or_else(|_| path.to_owned())
}

fn on_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    resolve_program(Path::new(program), path).ok()
}

/// What the machine says of the settings that ask it, as far as the manifest does not give them.
pub(super) async fn ask(
    recipe: &LoadedRecipe,
    engine: &Engine,
    path: &OsStr,
    cancel: &CancellationToken,
) -> BTreeMap<String, Scalar> {
    let one = async |(name, setting): (&String, &Setting)| {
        let (program, args) = setting.ask.split_first()?;
        let program = on_path(&recipe.recipe.programs[program].program, path);
        let program = program.filter(|_| !engine.settings.contains_key(name))?;
        let text = first_line(&program, args, cancel).await?;
        Some((name.clone(), setting.kind.parse(&text)?))
    };
    future::join_all(recipe.recipe.settings.iter().map(one)).await.into_iter().flatten().collect()
}

/// The first line that a program prints; `None` when it fails or says nothing.
async fn first_line(program: &Path, args: &[String], cancel: &CancellationToken) -> Option<String> {
    let logs = tempfile::tempdir().ok()?;
    let spec =
        CommandSpec { args: args.to_vec(), time_limit: Some(VERSION_LIMIT), ..CommandSpec::new(program, logs.path()) };
    program_version(&spec, cancel).await.ok()
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
    let said = match program.version.as_slice() {
        [] => None,
        args => first_line(&found, args, cancel).await,
    };
    let version = said.unwrap_or_else(|| by_content(&found));
    FoundProgram { name, path: Some(found), version }
}
