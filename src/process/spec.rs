use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;

use crate::base::Secret;

/// A command or a server: what to run, and where its records go.
#[derive(Clone)]
pub struct CommandSpec {
    /// A name to look up on PATH, or a path (a relative one counts from `cwd`).
    pub program: PathBuf,
    /// Handed over as they are; no shell reads them.
    pub args: Vec<String>,
    /// Changes to the inherited environment.
    pub env: IndexMap<String, EnvValue>,
    /// `None` is benchrun's own working directory.
    pub cwd: Option<PathBuf>,
    /// A folder of this command alone: `stdout.log`, `stderr.log` and `command.json` are written there.
    pub logs: PathBuf,
    /// Time until a command is stopped. A server has none: whoever starts it decides how long to wait.
    pub time_limit: Option<Duration>,
    /// Time between asking (SIGTERM) and killing (SIGKILL).
    pub grace: Duration,
    /// What to run once the program and all its descendants are gone, however they ended: the whole command, or nothing.
    pub afterwards: Vec<String>,
    /// The executable whose hidden subcommand watches over the program: benchrun's own, except in tests.
    pub supervisor: PathBuf,
}

/// The value of an environment variable.
#[derive(Clone, Debug)]
pub enum EnvValue {
    Plain(String),
    /// Masked wherever the command is recorded, in its arguments and quoted log lines too.
    Secret(Secret),
}

impl EnvValue {
    pub(super) fn reveal(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(secret) => secret.reveal(),
        }
    }
}

pub(super) const MASK: &str = "***";

impl CommandSpec {
    /// A command with no arguments, the inherited environment, no time limit and a grace of 5 s.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, logs: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            args: Vec::new(),
            env: IndexMap::new(),
            cwd: None,
            logs: logs.into(),
            time_limit: None,
            grace: Duration::from_secs(5),
            afterwards: Vec::new(),
            // Still this very program when the file was replaced by a newer build.
            supervisor: PathBuf::from("/proc/self/exe"),
        }
    }

    #[must_use]
    pub fn stdout(&self) -> PathBuf {
        self.logs.join("stdout.log")
    }

    #[must_use]
    pub fn stderr(&self) -> PathBuf {
        self.logs.join("stderr.log")
    }

    /// Where the [`CommandRecord`](crate::process::CommandRecord) goes.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.logs.join("command.json")
    }

    /// The text without the values of this command's secrets.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        let mut secrets: Vec<&str> = self
            .env
            .values()
            .filter_map(|value| match value {
                EnvValue::Plain(_) => None,
                EnvValue::Secret(secret) => Some(secret.reveal()),
            })
            .filter(|secret| !secret.is_empty())
            .collect();
        // A secret that contains another one goes first, or its rest would stay.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.into_iter().fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    pub(super) fn name(&self) -> String {
        self.program.display().to_string()
    }

    /// The PATH that the program will see.
    pub(super) fn path_variable(&self) -> OsString {
        match self.env.get("PATH") {
            Some(value) => value.reveal().into(),
            None => std::env::var_os("PATH").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_secret_is_masked_and_nothing_else() {
        let mut spec = CommandSpec::new("curl", "logs");
        for (name, value) in [("A", "tok"), ("B", "token-long"), ("C", "")] {
            spec.env.insert(name.to_owned(), EnvValue::Secret(Secret::new(value.to_owned())));
        }
        spec.env.insert("D".to_owned(), EnvValue::Plain("plain".to_owned()));
        assert_eq!(spec.mask("--auth=token-long tok plain"), "--auth=*** *** plain");
    }
}
