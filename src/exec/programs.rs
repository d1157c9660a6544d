use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::{CommandSpec, program_version, resolve_program};
use crate::recipe::{LoadedRecipe, Program};

/// The name under which a recipe calls this very executable.
const OURSELVES: &str = "benchrun";
/// Python programs that import a GPU stack take long to print their version.
const VERSION_LIMIT: Duration = Duration::from_secs(120);

/// A program of the recipe on this machine.
#[derive(Clone, Debug)]
pub(super) struct FoundProgram {
    /// `None` when it is not on this machine.
    pub path: Option<PathBuf>,
    /// What it prints of itself; a word in its place when it cannot be asked.
    pub version: String,
}

/// Looks for each program of the recipe and asks for its version.
pub(super) async fn find(recipe: &LoadedRecipe, path: &std::ffi::OsStr, cancel: &CancellationToken) -> BTreeMap<String, FoundProgram> {
    let mut found = BTreeMap::new();
    for (name, program) in &recipe.recipe.programs {
        found.insert(name.clone(), find_one(program, path, cancel).await);
    }
    found
}

async fn find_one(program: &Program, path: &std::ffi::OsStr, cancel: &CancellationToken) -> FoundProgram {
    if program.program == OURSELVES {
        return FoundProgram { path: std::env::current_exe().ok(), version: env!("CARGO_PKG_VERSION").to_owned() };
    }
    let Ok(found) = resolve_program(Path::new(&program.program), path) else {
        return FoundProgram { path: None, version: "not found".to_owned() };
    };
    if program.version.is_empty() {
        return FoundProgram { path: Some(found), version: "unknown".to_owned() };
    }
    let Ok(logs) = tempfile::tempdir() else {
        return FoundProgram { path: Some(found), version: "unknown".to_owned() };
    };
    let spec = CommandSpec {
        args: program.version.clone(),
        time_limit: Some(VERSION_LIMIT),
        ..CommandSpec::new(&found, logs.path())
    };
    let version = program_version(&spec, cancel).await.unwrap_or_else(|_| "unknown".to_owned());
    FoundProgram { path: Some(found), version }
}
