use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use indexmap::IndexMap;
use pep440_rs::{Version, VersionSpecifiers, VersionSpecifiersParseError};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::process::{self, CommandSpec, EnvValue, ProcessError, program_version, resolve_program};
use crate::store::StoreError;

/// `NAME==VERSION` and the sha256 of each archive that it may come from.
pub(super) type Pins = IndexMap<String, Vec<String>>;

/// What a Python is asked for its version.
const SAY_VERSION: &str = "import platform; print(platform.python_version())";
/// The newest and the oldest `python3.N` that is looked for on PATH.
const MINORS: std::ops::RangeInclusive<u32> = 8..=20;

/// Why Python packages could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    #[error("`{python}` is no range of Python versions")]
    Range { python: String, source: Box<VersionSpecifiersParseError> },
    #[error("no Python {python} is on PATH (found: {})", if .found.is_empty() { "none".to_owned() } else { .found.join(", ") })]
    NoPython { python: String, found: Vec<String> },
    #[error("cannot {what}")]
    Command { what: &'static str, source: Box<ProcessError> },
    #[error("cannot read or write `{}`", .path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("`{}` is not what pip writes", .path.display())]
    Report { path: PathBuf },
    #[error("package `{requirement}` has no file that matches `{pattern}`")]
    NoFile { requirement: String, pattern: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("interrupted")]
    Interrupted,
}

impl PythonError {
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Range { .. } => Some("write it like `>=3.10,<3.13`".to_owned()),
            Self::NoPython { .. } => Some(
                "install such a Python, or `uv`, which is used where it is found and brings Pythons along".to_owned(),
            ),
            Self::Command { source, .. } => match &**source {
                ProcessError::Failed { log, .. } => Some(format!("the whole log is `{}`", log.display())),
                source => source.hint().map(str::to_owned),
            },
            Self::Store(source) => source.hint(),
            Self::File { .. } | Self::Report { .. } | Self::NoFile { .. } | Self::Interrupted => None,
        }
    }
}

/// What installs Python packages on this machine. Either follows the user's own configuration of it: indexes, proxies,
/// caches.
#[derive(Clone, Debug)]
pub(super) enum Installer {
    Uv(PathBuf),
    /// An interpreter that has `venv` and `pip`.
    Pip(PathBuf),
}

impl Installer {
    /// uv where it is on PATH, otherwise the first Python there whose version is in the range.
    pub(super) async fn find(python: &str, path: &OsStr, cancel: &CancellationToken) -> Result<Self, PythonError> {
        if let Ok(uv) = resolve_program(Path::new("uv"), path) {
            return Ok(Self::Uv(uv));
        }
        let range = VersionSpecifiers::from_str(python)
            .map_err(|source| PythonError::Range { python: python.to_owned(), source: Box::new(source) })?;
        let mut found = Vec::new();
        let names = ["python3".to_owned(), "python".to_owned()];
        for name in names.into_iter().chain(MINORS.rev().map(|minor| format!("python3.{minor}"))) {
            let Ok(program) = resolve_program(Path::new(&name), path) else { continue };
            let Some(version) = version_of(&program, cancel).await else { continue };
            if Version::from_str(&version).is_ok_and(|version| range.contains(&version)) {
                return Ok(Self::Pip(program));
            }
            if !found.contains(&version) {
                found.push(version);
            }
        }
        if cancel.is_cancelled() {
            return Err(PythonError::Interrupted);
        }
        Err(PythonError::NoPython { python: python.to_owned(), found })
    }

    /// Makes an environment, empty but for pip.
    pub(super) async fn make_venv(&self, python: &str, folder: &Path, run: &Runner<'_>) -> Result<(), PythonError> {
        let folder = folder.display().to_string();
        match self {
            Self::Uv(uv) => {
                run.run("make", "make the Python environment", uv, &["venv", "--python", python, &folder]).await
            }
            Self::Pip(python) => run.run("make", "make the Python environment", python, &["-m", "venv", &folder]).await,
        }
    }

    /// Finds out what these packages need besides, and the archives of all of it.
    pub(super) async fn resolve(
        &self,
        packages: &[String],
        python: &Path,
        run: &Runner<'_>,
    ) -> Result<Pins, PythonError> {
        const WHAT: &str = "find out what the packages need";
        let file = |name: &str| run.folder.join(name);
        match self {
            Self::Uv(uv) => {
                let (wanted, pinned) = (file("wanted.txt"), file("pinned.txt"));
                write(&wanted, &packages.join("\n"))?;
                let (wanted, pinned_text) = (wanted.display().to_string(), pinned.display().to_string());
                let python = python.display().to_string();
                let fixed =
                    ["pip", "compile", "--generate-hashes", "--no-header", "--no-annotate", "--quiet", "--python"];
                let args: Vec<&str> =
                    fixed.into_iter().chain([&*python, "--output-file", &*pinned_text, &*wanted]).collect();
                run.run("resolve", WHAT, uv, &args).await?;
                Ok(pins_of_requirements(&read(&pinned)?))
            }
            Self::Pip(_) => {
                let report = file("report.json");
                let report_text = report.display().to_string();
                let fixed = ["-m", "pip", "install", "--dry-run", "--ignore-installed", "--report", &*report_text];
                let args: Vec<&str> = fixed.into_iter().chain(packages.iter().map(String::as_str)).collect();
                run.run("resolve", WHAT, python, &args).await?;
                pins_of_report(&read(&report)?).ok_or(PythonError::Report { path: report })
            }
        }
    }

    /// Installs exactly what is pinned, and refuses an archive with another hash.
    pub(super) async fn install(&self, pins: &Pins, python: &Path, run: &Runner<'_>) -> Result<(), PythonError> {
        const WHAT: &str = "install the packages";
        let requirements = run.folder.join("requirements.txt");
        write(&requirements, &requirements_of(pins))?;
        let (requirements, python_text) = (requirements.display().to_string(), python.display().to_string());
        // An archive that a package's author names by an address has no hash to hold it to.
        let hashes = pins.values().all(|hashes| !hashes.is_empty()).then_some("--require-hashes");
        let (program, fixed) = match self {
            Self::Uv(uv) => (uv.as_path(), vec!["pip", "install", "--python", &*python_text, "--no-deps"]),
            Self::Pip(_) => (python, vec!["-m", "pip", "install", "--no-deps"]),
        };
        let args: Vec<&str> = fixed.into_iter().chain(hashes).chain(["-r", &*requirements]).collect();
        run.run("install", WHAT, program, &args).await
    }

    /// Unpacks one package into a folder, without what it needs.
    pub(super) async fn unpack(&self, requirement: &str, into: &Path, run: &Runner<'_>) -> Result<(), PythonError> {
        const WHAT: &str = "fetch the package";
        let into = into.display().to_string();
        let fixed = ["install", "--no-deps", "--target", &*into, requirement];
        match self {
            Self::Uv(uv) => run.run("unpack", WHAT, uv, &[&["pip"], &fixed[..]].concat()).await,
            Self::Pip(python) => {
                run.run("unpack", WHAT, python, &[&["-m", "pip"], &fixed[..], &["--no-compile"]].concat()).await
            }
        }
    }
}

/// How the commands of an installer are run.
pub(super) struct Runner<'a> {
    /// Its files, and a folder of logs for each command.
    pub folder: &'a Path,
    pub time_limit: std::time::Duration,
    pub cancel: &'a CancellationToken,
}

impl Runner<'_> {
    async fn run(&self, name: &str, what: &'static str, program: &Path, args: &[&str]) -> Result<(), PythonError> {
        let quiet = ["PIP_NO_INPUT", "PIP_DISABLE_PIP_VERSION_CHECK"];
        let spec = CommandSpec {
            args: args.iter().map(ToString::to_string).collect(),
            env: quiet.into_iter().map(|name| (name.to_owned(), EnvValue::Plain("1".to_owned()))).collect(),
            time_limit: Some(self.time_limit),
            ..CommandSpec::new(program, self.folder.join("logs").join(name))
        };
        match process::run(&spec, self.cancel).await {
            Ok(_) => Ok(()),
            Err(ProcessError::Cancelled { .. }) => Err(PythonError::Interrupted),
            Err(source) => Err(PythonError::Command { what, source: Box::new(source) }),
        }
    }
}

/// The version that an interpreter says it is; `None` for a shim without one.
pub(super) async fn version_of(python: &Path, cancel: &CancellationToken) -> Option<String> {
    let logs = tempfile::tempdir().ok()?;
    let args = ["-c", SAY_VERSION].map(str::to_owned).into();
    let spec = CommandSpec { args, ..CommandSpec::new(python, logs.path()) };
    program_version(&spec, cancel).await.ok()
}

pub(super) fn read(path: &Path) -> Result<String, PythonError> {
    std::fs::read_to_string(path).map_err(|source| PythonError::File { path: path.to_owned(), source })
}

pub(super) fn write(path: &Path, text: &str) -> Result<(), PythonError> {
    std::fs::write(path, text).map_err(|source| PythonError::File { path: path.to_owned(), source })
}

fn requirements_of(pins: &Pins) -> String {
    let line = |(name, hashes): (&String, &Vec<String>)| {
        let hashes: Vec<String> = hashes.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        let hashes = hashes.concat();
        format!("{name}{hashes}\n")
    };
    pins.iter().map(line).collect()
}

/// Reads what uv compiles: `name==1.0 \` and lines of `--hash=sha256:…`.
fn pins_of_requirements(text: &str) -> Pins {
    let mut pins = Pins::new();
    for word in text.split_whitespace() {
        if let Some(hash) = word.strip_prefix("--hash=sha256:") {
            if let Some((_, hashes)) = pins.last_mut() {
                hashes.push(hash.to_owned());
            }
        } else if word.contains("==") {
            pins.insert(word.to_owned(), Vec::new());
        }
    }
    pins
}

/// Reads pip's installation report, version 1.
fn pins_of_report(text: &str) -> Option<Pins> {
    let report: Value = serde_json::from_str(text).ok()?;
    let pin = |entry: &Value| {
        let named = |name: &str| entry.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
        let hash = entry.pointer("/download_info/archive_info/hashes/sha256").and_then(Value::as_str);
        Some((format!("{}=={}", named("name")?, named("version")?), hash.map(str::to_owned).into_iter().collect()))
    };
    let mut pins: Pins = report["install"].as_array()?.iter().map(pin).collect::<Option<_>>()?;
    pins.sort_unstable_keys();
    Some(pins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pip_and_uv_resolve_becomes_the_same_pins() {
        let report = r#"{"version": "1", "install": [
            {"metadata": {"name": "b", "version": "2"}, "download_info": {"archive_info": {"hashes": {"sha256": "22"}}}},
            {"metadata": {"name": "a", "version": "1.0"}, "download_info": {"archive_info": {"hashes": {"sha256": "11"}}}}]}"#;
        let compiled = "a==1.0 \\\n    --hash=sha256:11\nb==2 \\\n    --hash=sha256:22\n";
        let pins = pins_of_report(report).unwrap();
        assert_eq!(pins, pins_of_requirements(compiled));
        assert_eq!(requirements_of(&pins), "a==1.0 --hash=sha256:11\nb==2 --hash=sha256:22\n");
        assert_eq!(pins_of_report("{}"), None);
    }
}
