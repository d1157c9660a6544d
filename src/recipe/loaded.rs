use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

use super::compile::{self, Compiled, Condition, PREFIX_CACHE};
use super::source::RECIPE;
use super::{Action, Argument, CheckedFile, File, Recipe, RecipeFiles, check};
use crate::event::StepKind;
use crate::manifest::{Format, ReadError, SourceText, read_document};
use crate::render::{Context, RenderError};
use crate::spec::Protocol;

/// The parts of a recipe that render by themselves.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Part {
    Quantize,
    Build,
    Render,
    Server,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Quantize, Self::Build, Self::Render, Self::Server];

    #[must_use]
    pub fn step(self) -> StepKind {
        match self {
            Self::Quantize => StepKind::Quantize,
            Self::Build => StepKind::Build,
            Self::Render => StepKind::Render,
            Self::Server => StepKind::Bench,
        }
    }
}

/// What a part says for given values.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Rendered {
    /// The first word is a name under `programs`; empty for a step that only writes files.
    pub command: Vec<String>,
    pub env: IndexMap<String, String>,
    /// Text by path.
    pub files: IndexMap<String, String>,
}

#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    #[error("no recipe for engine `{engine}` (known: {})", .known.join(", "))]
    Unknown { engine: String, known: Vec<String> },
    #[error("cannot read the recipe of engine `{engine}`")]
    Files { engine: String, source: std::io::Error },
    #[error("the recipe of engine `{engine}` has mistakes")]
    Mistakes { engine: String, source: ReadError },
    #[error("`{}`: `{at}` {problem}", .file.display())]
    Inconsistent { file: PathBuf, at: String, problem: String },
    #[error("`{path}`, made from `{}`, is wrong in line {line}: {problem}", .template.display())]
    NotWhatItMustBe { path: String, template: PathBuf, line: usize, problem: String },
    #[error("`{}`", .file.display())]
    Template { file: PathBuf, source: RenderError },
}

/// A recipe, checked and compiled.
#[derive(Clone, Debug)]
pub struct LoadedRecipe {
    pub recipe: Recipe,
    files: RecipeFiles,
    compiled: Compiled,
}

impl LoadedRecipe {
    pub fn load(files: RecipeFiles) -> Result<Self, RecipeError> {
        let engine = files.engine.clone();
        let Some(text) = files.text(RECIPE) else {
            return Err(RecipeError::Unknown { engine, known: super::built_in_names() });
        };
        let source = SourceText {
            file: files.origin(RECIPE).display().to_string(),
            text: text.to_owned(),
            format: Format::Yaml,
        };
        let document = read_document::<Recipe>(source)
            .map_err(|source| RecipeError::Mistakes { engine: engine.clone(), source })?;
        let recipe = document.value;
        let compiled = compile::compile(&recipe, &files)?;
        Ok(Self { recipe, files, compiled })
    }

    /// The sha256 over the recipe's files.
    #[must_use]
    pub fn digest(&self) -> String {
        self.files.digest()
    }

    /// The names of the values that decide a part. The recipe's own are not among them: what they are worked out from is.
    #[must_use]
    pub fn used(&self, part: Part) -> &BTreeSet<String> {
        &self.compiled.parts[&part].used
    }

    /// The names of the values as the templates of a part have them, the recipe's own among them.
    #[must_use]
    pub fn named(&self, part: Part) -> &BTreeSet<String> {
        &self.compiled.parts[&part].named
    }

    /// Those of the recipe's own values that the templates of a part name, worked out. What cannot be is left out: a
    /// template that needs it will say so.
    #[must_use]
    pub fn worked_out(&self, part: Part, values: &Context) -> BTreeMap<String, String> {
        let own = self.named(part).iter().filter(|name| self.recipe.values.contains_key(*name));
        own.filter_map(|name| Some((name.clone(), self.text(&compile::value_at(name), values).ok()?))).collect()
    }

    /// The names of the values that one of the recipe's own is worked out from.
    #[must_use]
    pub fn worked_out_from(&self, name: &str) -> BTreeSet<String> {
        self.compiled.templates.used(&compile::value_at(name))
    }

    /// The names of the values that the limits and contradictions look up.
    #[must_use]
    pub fn used_by_limits(&self) -> BTreeSet<String> {
        let all = Condition::ALL
            .into_iter()
            .flat_map(|list| (0..list.of(&self.recipe).len()).map(move |index| (list, index)));
        all.flat_map(|(list, index)| [list.when(index), list.because(index)])
            .flat_map(|name| self.compiled.templates.used(&name))
            .collect()
    }

    /// Whether any part or limit looks up this value.
    #[must_use]
    pub fn uses(&self, name: &str) -> bool {
        Part::ALL.into_iter().any(|part| self.used(part).contains(name)) || self.used_by_limits().contains(name)
    }

    /// What a part says for these values; `None` when none of its actions applies.
    pub fn render(&self, part: Part, values: &Context) -> Result<Option<Rendered>, RecipeError> {
        for (at, action) in compile::actions(&self.recipe, part) {
            if action.when.is_none() || self.holds(&format!("{at}.when"), values)? {
                return self.render_action(&at, &action, values).map(Some);
            }
        }
        Ok(None)
    }

    /// Why a cell with these values is unsupported, if it is.
    pub fn limit_met(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        self.first_met(Condition::LIMITS, values)
    }

    /// Which settings of a cell with these values cannot both be meant, if any.
    pub fn contradiction(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        self.first_met(Condition::CONTRADICTIONS, values)
    }

    /// What a phase asks that a cell with these values cannot do, if anything; `phase` is what the conditions know of it.
    pub fn phase_contradiction(&self, values: &Context, phase: &impl Serialize) -> Result<Option<String>, RecipeError> {
        self.first_met(Condition::OF_PHASES, &values.with("phase", phase))
    }

    fn first_met(&self, list: Condition, values: &Context) -> Result<Option<String>, RecipeError> {
        for index in 0..list.of(&self.recipe).len() {
            if self.holds(&list.when(index), values)? {
                return self.text(&list.because(index), values).map(Some);
            }
        }
        Ok(None)
    }

    /// The addresses that all must answer before the server is ready.
    pub fn ready_urls(&self, values: &Context) -> Result<Vec<String>, RecipeError> {
        (0..self.recipe.server.ready.len())
            .map(|index| self.text(&format!("server.ready[{index}].http"), values))
            .collect()
    }

    /// Where the server serves a protocol, and the model's name there.
    pub fn endpoint(&self, protocol: Protocol, values: &Context) -> Result<Option<(String, String)>, RecipeError> {
        let Some(endpoint) = self.recipe.server.protocols.get(&protocol) else {
            return Ok(None);
        };
        let url = self.text(&format!("server.protocols.{protocol}.url"), values)?;
        let model = match endpoint.model {
            Some(_) => self.text(&format!("server.protocols.{protocol}.model"), values)?,
            None => self.text("server.served_model", values)?,
        };
        Ok(Some((url, model)))
    }

    /// Where the server tells Triton's statistics, if it does.
    pub fn statistics_url(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        self.address(self.recipe.server.statistics.as_ref(), "server.statistics", values)
    }

    /// Where the server tells its metrics, if it does.
    pub fn metrics_url(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        self.address(self.recipe.server.metrics.as_ref(), "server.metrics", values)
    }

    /// Of a template that may be absent, or come out empty.
    fn address(&self, template: Option<&String>, name: &str, values: &Context) -> Result<Option<String>, RecipeError> {
        let address = template.map(|_| self.text(name, values)).transpose()?;
        Ok(address.filter(|address| !address.is_empty()))
    }

    /// Whether a server with these values keeps what it computed for earlier prompts; `None` when the recipe does not say.
    pub fn reuses_prefixes(&self, values: &Context) -> Result<Option<bool>, RecipeError> {
        if self.recipe.server.prefix_cache.is_none() {
            return Ok(None);
        }
        self.holds(PREFIX_CACHE, values).map(Some)
    }

    /// The GPUs that a server with these values takes; 0 for an engine that says nothing of them.
    pub fn gpus(&self, values: &Context) -> Result<u32, RecipeError> {
        if self.recipe.server.gpus.is_none() {
            return Ok(0);
        }
        self.number("server.gpus", values)
    }

    /// What the known log lines among these say to do.
    #[must_use]
    pub fn hints(&self, log: &str) -> Vec<&str> {
        let known = |pattern: &str| regex::Regex::new(pattern).expect("patterns are compiled when a recipe is loaded");
        self.recipe
            .log_hints
            .iter()
            .filter(|hint| known(&hint.pattern).is_match(log))
            .map(|hint| hint.hint.as_str())
            .collect()
    }

    fn render_action(&self, at: &str, action: &Action, values: &Context) -> Result<Rendered, RecipeError> {
        let mut rendered = Rendered::default();
        self.render_arguments(&format!("{at}.command"), &action.command, values, &mut rendered.command)?;
        if let Some(program) = rendered.command.first().filter(|name| !self.recipe.programs.contains_key(*name)) {
            let problem = format!("starts `{program}`, which is not a name under `programs`");
            return Err(self.inconsistent(format!("{at}.command"), problem));
        }
        for name in action.env.keys() {
            rendered.env.insert(name.clone(), self.text(&format!("{at}.env.{name}"), values)?);
        }
        for (path, file) in &action.files {
            let text = self.text(file.template(), values)?;
            if let File::Checked(CheckedFile { template, check }) = file {
                check::check(*check, &text).map_err(|(line, problem)| RecipeError::NotWhatItMustBe {
                    path: path.clone(),
                    template: self.files.origin(template),
                    line,
                    problem,
                })?;
            }
            rendered.files.insert(path.clone(), text);
        }
        Ok(rendered)
    }

    fn render_arguments(
        &self,
        at: &str,
        arguments: &[Argument],
        values: &Context,
        words: &mut Vec<String>,
    ) -> Result<(), RecipeError> {
        for (index, argument) in arguments.iter().enumerate() {
            let at = format!("{at}[{index}]");
            let Argument::Several(several) = argument else {
                words.push(self.text(&at, values)?);
                continue;
            };
            if several.when.is_some() && !self.holds(&format!("{at}.when"), values)? {
                continue;
            }
            let inner = format!("{at}.args");
            if several.repeat.is_none() {
                self.render_arguments(&inner, &several.args, values, words)?;
                continue;
            }
            for index in 0..self.number(&format!("{at}.repeat"), values)? {
                let values = values.with(compile::INDEX, index);
                self.render_arguments(&inner, &several.args, &values, words)?;
            }
        }
        Ok(())
    }

    fn number(&self, name: &str, values: &Context) -> Result<u32, RecipeError> {
        let text = self.text(name, values)?;
        let problem = || format!("gives `{text}`, which is no number of anything");
        text.trim().parse().map_err(|_| self.inconsistent(name.to_owned(), problem()))
    }

    fn inconsistent(&self, at: String, problem: String) -> RecipeError {
        RecipeError::Inconsistent { file: self.files.origin(RECIPE), at, problem }
    }

    fn text(&self, name: &str, values: &Context) -> Result<String, RecipeError> {
        self.compiled.templates.render(name, values).map_err(|source| self.template_error(source))
    }

    fn holds(&self, name: &str, values: &Context) -> Result<bool, RecipeError> {
        self.compiled.templates.holds(name, values).map_err(|source| self.template_error(source))
    }

    fn template_error(&self, source: RenderError) -> RecipeError {
        compile::template_error(&self.files, source)
    }
}
