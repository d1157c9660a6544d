use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio_util::sync::CancellationToken;

use crate::process::error::ProcessError;
use crate::process::run::run;
use crate::process::spec::CommandSpec;

/// The file that a program's name means: looked up in the absolute folders of `path` (the value of a PATH variable),
/// unless the name has a slash.
///
/// # Errors
/// When there is no such program, or it may not be executed.
pub fn resolve_program(name: &Path, path: &OsStr) -> Result<PathBuf, ProcessError> {
    if name.components().count() > 1 || name.is_absolute() {
        return match is_executable(name) {
            true => Ok(name.to_owned()),
            false if name.exists() => Err(ProcessError::NotExecutable { program: name.to_owned() }),
            false => Err(ProcessError::NoSuchProgram { program: name.to_owned() }),
        };
    }
    // An empty entry means the working directory to a shell; running whatever lies there would be a surprise.
    let folders = std::env::split_paths(path).filter(|folder| folder.is_absolute());
    folders.map(|folder| folder.join(name)).find(|file| is_executable(file)).ok_or_else(|| ProcessError::NotOnPath {
        program: name.display().to_string(),
        path: path.to_string_lossy().into_owned(),
    })
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && access(path, Access::EXEC_OK).is_ok()
}

/// What a program says of its version: the first line that it prints, on stdout or else on stderr.
///
/// `spec` is the whole command, `trtexec --version` for instance; its logs stay, as every command's do.
///
/// # Errors
/// When the command fails, see [`run`], or prints nothing.
pub async fn program_version(spec: &CommandSpec, cancel: &CancellationToken) -> Result<String, ProcessError> {
    /// Enough for a program that loads a GPU runtime first.
    const MOST: Duration = Duration::from_mins(1);
    let mut spec = spec.clone();
    spec.time_limit.get_or_insert(MOST);
    run(&spec, cancel).await?;
    [spec.stdout(), spec.stderr()]
        .iter()
        .find_map(|log| first_line(log))
        .ok_or_else(|| ProcessError::NoVersion { program: spec.name() })
}

fn first_line(log: &Path) -> Option<String> {
    let bytes = fs::read(log).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_is_looked_up_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for sub in ["first", "second", "third"] {
            fs::create_dir(folder.path().join(sub)).unwrap();
        }
        // Not executable, so it does not count.
        fs::write(folder.path().join("first/tool"), "").unwrap();
        for sub in ["second", "third"] {
            let file = folder.path().join(sub).join("tool");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = std::env::join_paths(["first", "second", "third"].map(|sub| folder.path().join(sub))).unwrap();
        let found = resolve_program(Path::new("tool"), &path).unwrap();
        assert_eq!(found, folder.path().join("second/tool"));
    }

    #[test]
    fn what_is_missing_is_named_with_where_it_was_looked_for() {
        let error = resolve_program(Path::new("no such tool"), OsStr::new("/a:/b")).unwrap_err();
        assert_eq!(error.to_string(), "program `no such tool` was not found on PATH (`/a:/b`)");
        assert!(error.hint().is_some());
    }

    #[test]
    fn a_path_must_exist_and_be_executable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("script");
        assert!(matches!(resolve_program(&file, OsStr::new("")), Err(ProcessError::NoSuchProgram { .. })));
        fs::write(&file, "").unwrap();
        assert!(matches!(resolve_program(&file, OsStr::new("")), Err(ProcessError::NotExecutable { .. })));
        assert!(matches!(resolve_program(folder.path(), OsStr::new("")), Err(ProcessError::NotExecutable { .. })));
    }
}
