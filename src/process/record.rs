use std::io;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::base::write_atomically;
use crate::process::exit::{Exit, ExitFacts};
use crate::process::spec::{CommandSpec, EnvValue, MASK};

/// What was run and how it ended: `command.json` beside the logs.
///
/// Written when the command starts and again when it has ended; a `null` status afterwards means that benchrun itself
/// was gone by then.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct CommandRecord {
    /// Secrets are masked, also inside an argument.
    pub argv: Vec<String>,
    /// Changes to the inherited environment; secrets are masked.
    pub env: IndexMap<String, String>,
    pub cwd: Option<PathBuf>,
    pub status: Option<Exit>,
    pub seconds: Option<f64>,
    pub stdout: PathBuf,
    pub stderr: PathBuf,
}

impl CommandRecord {
    pub(super) fn new(spec: &CommandSpec) -> Self {
        let argv = std::iter::once(spec.name()).chain(spec.args.iter().cloned());
        let masked = |value: &EnvValue| match value {
            EnvValue::Plain(value) => spec.mask(value),
            EnvValue::Secret(_) => MASK.to_owned(),
        };
        Self {
            argv: argv.map(|argument| spec.mask(&argument)).collect(),
            env: spec.env.iter().map(|(name, value)| (name.clone(), masked(value))).collect(),
            cwd: spec.cwd.clone(),
            status: None,
            seconds: None,
            stdout: spec.stdout(),
            stderr: spec.stderr(),
        }
    }

    pub(super) fn ended(mut self, facts: &ExitFacts) -> Self {
        self.status = Some(facts.exit);
        self.seconds = Some(facts.seconds);
        self
    }

    pub(super) fn write(&self, path: &std::path::Path) -> io::Result<()> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        write_atomically(path, &json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Secret;

    #[test]
    fn secrets_never_reach_the_record() {
        let mut spec = CommandSpec::new("curl", "logs");
        spec.args = vec!["--header=Bearer hunter2".to_owned(), "hunter".to_owned()];
        spec.env.insert("TOKEN".to_owned(), EnvValue::Secret(Secret::new("hunter2".to_owned())));
        spec.env.insert("URL".to_owned(), EnvValue::Plain("http://me:hunter2@host".to_owned()));
        let json = serde_json::to_string(&CommandRecord::new(&spec)).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        assert!(json.contains(r#""argv":["curl","--header=Bearer ***","hunter"]"#), "{json}");
        assert!(json.contains(r#""env":{"TOKEN":"***","URL":"http://me:***@host"}"#), "{json}");
        assert!(json.contains(r#""status":null"#), "{json}");
    }
}
