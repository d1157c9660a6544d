use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::Serialize;

use super::source::RECIPE;
use super::{Action, Argument, Recipe, RecipeFiles};
use crate::event::StepKind;
use crate::manifest::{Format, ReadError, SourceText, read_document};
use crate::render::{Context, RenderError, Templates};
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
    #[error("`{}`", .file.display())]
    Template { file: PathBuf, source: RenderError },
}

/// A recipe, checked and compiled.
#[derive(Clone, Debug)]
pub struct LoadedRecipe {
    pub recipe: Recipe,
    files: RecipeFiles,
    templates: Templates,
    /// The values that each part looks up, whichever of its actions applies.
    used: BTreeMap<Part, BTreeSet<String>>,
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
        let mut loaded = Self { recipe: document.value, files, templates: Templates::default(), used: BTreeMap::new() };
        loaded.check_consistency()?;
        loaded.compile()?;
        Ok(loaded)
    }

    /// The sha256 over the recipe's files.
    #[must_use]
    pub fn digest(&self) -> String {
        self.files.digest()
    }

    /// The names of the values that a part looks up.
    #[must_use]
    pub fn used(&self, part: Part) -> &BTreeSet<String> {
        &self.used[&part]
    }

    /// The names of the values that the limits look up.
    #[must_use]
    pub fn used_by_limits(&self) -> BTreeSet<String> {
        let sources = (0..self.recipe.limits.len()).flat_map(|index| [limit_condition(index), limit_reason(index)]);
        sources.flat_map(|name| self.templates.used(&name)).collect()
    }

    /// Whether any part or limit looks up this value.
    #[must_use]
    pub fn uses(&self, name: &str) -> bool {
        self.used.values().any(|names| names.contains(name)) || self.used_by_limits().contains(name)
    }

    /// What a part says for these values; `None` when none of its actions applies.
    pub fn render(&self, part: Part, values: &Context) -> Result<Option<Rendered>, RecipeError> {
        for (at, action) in self.actions(part) {
            if action.when.is_none() || self.holds(&format!("{at}.when"), values)? {
                return self.render_action(&at, action, values).map(Some);
            }
        }
        Ok(None)
    }

    /// Why a cell with these values is unsupported, if it is.
    pub fn limit_met(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        for index in 0..self.recipe.limits.len() {
            if self.holds(&limit_condition(index), values)? {
                return self.text(&limit_reason(index), values).map(Some);
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

    /// Where the server tells its metrics, if it does.
    pub fn metrics_url(&self, values: &Context) -> Result<Option<String>, RecipeError> {
        self.recipe.server.metrics.as_ref().map(|_| self.text("server.metrics", values)).transpose()
    }

    /// The GPUs that a server with these values takes; 0 for an engine that says nothing of them.
    pub fn gpus(&self, values: &Context) -> Result<u32, RecipeError> {
        if self.recipe.server.gpus.is_none() {
            return Ok(0);
        }
        let text = self.text("server.gpus", values)?;
        text.trim().parse().map_err(|_| RecipeError::Inconsistent {
            file: self.files.origin(RECIPE),
            at: "server.gpus".to_owned(),
            problem: format!("gives `{text}`, which is no number of GPUs"),
        })
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

    fn actions(&self, part: Part) -> Vec<(String, Action)> {
        let named = |name: &str, actions: &[Action]| -> Vec<(String, Action)> {
            actions.iter().enumerate().map(|(index, action)| (format!("{name}[{index}]"), action.clone())).collect()
        };
        let server = &self.recipe.server;
        match part {
            Part::Quantize => named("steps.quantize", &self.recipe.steps.quantize),
            Part::Build => named("steps.build", &self.recipe.steps.build),
            Part::Render => named("steps.render", &self.recipe.steps.render),
            Part::Server => {
                let action = Action { command: server.command.clone(), env: server.env.clone(), ..Action::default() };
                vec![("server".to_owned(), action)]
            }
        }
    }

    fn render_action(&self, at: &str, action: Action, values: &Context) -> Result<Rendered, RecipeError> {
        let mut rendered = Rendered::default();
        for (index, argument) in action.command.iter().enumerate() {
            let at = format!("{at}.command[{index}]");
            match argument {
                Argument::Always(_) => rendered.command.push(self.text(&at, values)?),
                Argument::Sometimes(several) => {
                    if self.holds(&format!("{at}.when"), values)? {
                        for inner in 0..several.args.len() {
                            rendered.command.push(self.text(&format!("{at}.args[{inner}]"), values)?);
                        }
                    }
                }
            }
        }
        for name in action.env.keys() {
            rendered.env.insert(name.clone(), self.text(&format!("{at}.env.{name}"), values)?);
        }
        for (path, template) in action.files {
            rendered.files.insert(path, self.text(&template, values)?);
        }
        Ok(rendered)
    }

    fn text(&self, name: &str, values: &Context) -> Result<String, RecipeError> {
        self.templates.render(name, values).map_err(|source| self.template_error(source))
    }

    fn holds(&self, name: &str, values: &Context) -> Result<bool, RecipeError> {
        self.templates.holds(name, values).map_err(|source| self.template_error(source))
    }

    fn template_error(&self, source: RenderError) -> RecipeError {
        let file = if self.files.text(&source.template).is_some() { &source.template } else { RECIPE };
        RecipeError::Template { file: self.files.origin(file), source }
    }

    fn check_consistency(&self) -> Result<(), RecipeError> {
        let problem = |at: String, problem: String| {
            Err(RecipeError::Inconsistent { file: self.files.origin(RECIPE), at, problem })
        };
        if self.recipe.engine != self.files.engine {
            return problem("engine".to_owned(), format!("must be the folder's name, `{}`", self.files.engine));
        }
        for (index, hint) in self.recipe.log_hints.iter().enumerate() {
            if let Err(error) = regex::Regex::new(&hint.pattern) {
                return problem(format!("log_hints[{index}].match"), format!("is no regular expression: {error}"));
            }
        }
        for part in Part::ALL {
            for (at, action) in self.actions(part) {
                match action.command.first() {
                    Some(Argument::Always(name)) if self.recipe.programs.contains_key(name) => {}
                    None if !action.files.is_empty() => {}
                    Some(_) => return problem(format!("{at}.command[0]"), "is not a name under `programs`".to_owned()),
                    None => return problem(at, "has neither a command nor files".to_owned()),
                }
                for (path, template) in &action.files {
                    if !self.files.is_template(template) {
                        return problem(
                            format!("{at}.files.{path}"),
                            format!("names `{template}`, but there is no template of this name (they end with `.j2`)"),
                        );
                    }
                }
            }
        }
        Ok(())
    }

    fn compile(&mut self) -> Result<(), RecipeError> {
        let mut sources: Vec<(String, Source)> = Vec::new();
        for (index, limit) in self.recipe.limits.iter().enumerate() {
            sources.push((limit_condition(index), Source::Condition(limit.when.clone())));
            sources.push((limit_reason(index), Source::Text(limit.because.clone())));
        }
        let server = &self.recipe.server;
        sources.push(("server.served_model".to_owned(), Source::Text(server.served_model.clone())));
        sources.extend(server.metrics.iter().map(|url| ("server.metrics".to_owned(), Source::Text(url.clone()))));
        let gpus = server.gpus.iter().map(|gpus| ("server.gpus".to_owned(), Source::Text(format!("{{{{ {gpus} }}}}"))));
        sources.extend(gpus);
        for (index, probe) in server.ready.iter().enumerate() {
            sources.push((format!("server.ready[{index}].http"), Source::Text(probe.http.clone())));
        }
        for (protocol, endpoint) in &server.protocols {
            let at = format!("server.protocols.{protocol}");
            sources.push((format!("{at}.url"), Source::Text(endpoint.url.clone())));
            sources.extend(endpoint.model.iter().map(|model| (format!("{at}.model"), Source::Text(model.clone()))));
        }
        sources.extend(self.files.templates().map(|(name, text)| (name.to_owned(), Source::Text(text.to_owned()))));
        for (name, source) in &sources {
            self.add(name, source)?;
        }
        for part in Part::ALL {
            let mut used = BTreeSet::new();
            for (at, action) in self.actions(part) {
                for (name, source) in action_sources(&at, &action) {
                    self.add(&name, &source)?;
                    used.extend(self.templates.used(&name));
                }
                used.extend(action.files.values().flat_map(|template| self.templates.used(template)));
            }
            if part == Part::Server {
                for (name, _) in sources.iter().filter(|(name, _)| name.starts_with("server.")) {
                    used.extend(self.templates.used(name));
                }
            }
            self.used.insert(part, used);
        }
        Ok(())
    }

    fn add(&mut self, name: &str, source: &Source) -> Result<(), RecipeError> {
        let added = match source {
            Source::Text(text) => self.templates.add(name, text),
            Source::Condition(expression) => self.templates.add_condition(name, expression),
        };
        added.map_err(|source| self.template_error(source))
    }
}

/// A string of the recipe that minijinja reads.
enum Source {
    Text(String),
    Condition(String),
}

fn limit_condition(index: usize) -> String {
    format!("limits[{index}].when")
}

fn limit_reason(index: usize) -> String {
    format!("limits[{index}].because")
}

/// Name and text of each template of an action, files apart.
fn action_sources(at: &str, action: &Action) -> Vec<(String, Source)> {
    let mut templates = Vec::new();
    templates.extend(action.when.iter().map(|when| (format!("{at}.when"), Source::Condition(when.clone()))));
    for (index, argument) in action.command.iter().enumerate() {
        let at = format!("{at}.command[{index}]");
        match argument {
            Argument::Always(text) => templates.push((at, Source::Text(text.clone()))),
            Argument::Sometimes(several) => {
                templates.push((format!("{at}.when"), Source::Condition(several.when.clone())));
                for (inner, text) in several.args.iter().enumerate() {
                    templates.push((format!("{at}.args[{inner}]"), Source::Text(text.clone())));
                }
            }
        }
    }
    templates.extend(action.env.iter().map(|(name, text)| (format!("{at}.env.{name}"), Source::Text(text.clone()))));
    templates
}
