use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::container::DOCKER;
use crate::base::{Scalar, sha256_file};
use crate::engine;
use crate::manifest::{Manifest, Runtime};
use crate::process::{CommandSpec, program_version, resolve_program};
use crate::recipe::{LoadedRecipe, Program};

/// The name under which a recipe calls this very executable.
const OURSELVES: &str = "benchrun";
/// Python programs that import a GPU stack take long to print their version.
const VERSION_LIMIT: Duration = Duration::from_mins(2);

/// A program of the recipe on this machine.
#[derive(Clone, Debug)]
pub(super) struct FoundProgram {
    /// `None` when it is not on this machine.
    pub path: Option<PathBuf>,
    /// What it prints of itself; a word in its place when it cannot be asked.
    pub version: String,
}

/// Looks for each program of the recipe and asks for its version.
pub(super) async fn find(
    recipe: &LoadedRecipe,
    runtime: &Runtime,
    path: &OsStr,
    cancel: &CancellationToken,
) -> BTreeMap<String, FoundProgram> {
    let mut found = BTreeMap::new();
    if let Runtime::Docker(docker) = runtime {
        // What is in an image is what its digest says.
        let program = FoundProgram { path: on_path(DOCKER, path), version: format!("in {}", docker.image) };
        return recipe.recipe.programs.keys().map(|name| (name.clone(), program.clone())).collect();
    }
    for (name, program) in &recipe.recipe.programs {
        found.insert(name.clone(), find_one(program, path, cancel).await);
    }
    found
}

fn on_path(program: &str, path: &OsStr) -> Option<PathBuf> {
    resolve_program(Path::new(program), path).ok()
}

/// What the machine says of the settings that ask it, as far as the manifest does not give them.
pub(super) async fn ask(
    recipe: &LoadedRecipe,
    manifest: &Manifest,
    path: &OsStr,
    cancel: &CancellationToken,
) -> BTreeMap<String, Scalar> {
    let mut asked = BTreeMap::new();
    for (name, setting) in &recipe.recipe.settings {
        let Some((program, args)) = setting.ask.split_first() else { continue };
        let program = on_path(&recipe.recipe.programs[program].program, path);
        if let Some(program) = program.filter(|_| !manifest.engine.settings.contains_key(name))
            && let Some(text) = first_line(&program, args, cancel).await
        {
            asked.extend(setting.kind.parse(&text).map(|value| (name.clone(), value)));
        }
    }
    asked
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

async fn find_one(program: &Program, path: &OsStr, cancel: &CancellationToken) -> FoundProgram {
    if program.program == OURSELVES {
        return FoundProgram { path: std::env::current_exe().ok(), version: ours() };
    }
    let Some(found) = on_path(&program.program, path) else {
        return FoundProgram { path: None, version: "not found".to_owned() };
    };
    let said = match program.version.as_slice() {
        [] => None,
        args => first_line(&found, args, cancel).await,
    };
    let version = said.unwrap_or_else(|| by_content(&found));
    FoundProgram { path: Some(found), version }
}
