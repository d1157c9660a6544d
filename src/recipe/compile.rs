use std::collections::{BTreeMap, BTreeSet};

use super::source::RECIPE;
use super::{Action, Argument, Limit, Part, Recipe, RecipeError, RecipeFiles};
use crate::render::{RenderError, Templates};

/// The name of the server's `prefix_cache` among the templates.
pub(super) const PREFIX_CACHE: &str = "server.prefix_cache";
/// The number of a repetition, from 0, in the templates of repeated arguments.
pub(super) const INDEX: &str = "index";

/// The values that a part looks up, whichever of its actions applies.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    /// As its templates name them: the recipe's own values by their own names.
    pub(super) named: BTreeSet<String>,
    /// Those that decide, in the end: what the recipe's own values are worked out from, in their place.
    pub(super) used: BTreeSet<String>,
}

/// A recipe's strings, compiled, each under its place.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) templates: Templates,
    pub(super) parts: BTreeMap<Part, Names>,
}

/// A list of conditions of a recipe, by the name it has there.
#[derive(Clone, Copy)]
pub(super) struct Condition {
    name: &'static str,
    list: fn(&Recipe) -> &[Limit],
}

impl Condition {
    pub(super) const LIMITS: Self = Self { name: "limits", list: |recipe| &recipe.limits };
    pub(super) const CONTRADICTIONS: Self = Self { name: "contradictions", list: |recipe| &recipe.contradictions };
    pub(super) const OF_PHASES: Self =
        Self { name: "phase_contradictions", list: |recipe| &recipe.phase_contradictions };
    pub(super) const ALL: [Self; 3] = [Self::LIMITS, Self::CONTRADICTIONS, Self::OF_PHASES];

    pub(super) fn of(self, recipe: &Recipe) -> &[Limit] {
        (self.list)(recipe)
    }

    pub(super) fn when(self, index: usize) -> String {
        format!("{}[{index}].when", self.name)
    }

    pub(super) fn because(self, index: usize) -> String {
        format!("{}[{index}].because", self.name)
    }
}

/// Checks what the types cannot say, and compiles every string of the recipe that minijinja reads.
pub(super) fn compile(recipe: &Recipe, files: &RecipeFiles) -> Result<Compiled, RecipeError> {
    check_consistency(recipe, files)?;
    let mut compiler = Compiler { recipe, files, templates: Templates::default(), named: BTreeMap::new() };
    for (name, expression) in &recipe.values {
        compiler.add(&value_at(name), &Source::Expression(expression.clone()))?;
    }
    for (name, source) in recipe_sources(recipe) {
        compiler.add(&name, &source)?;
    }
    for (name, text) in files.templates() {
        compiler.add(name, &Source::Text(text.to_owned()))?;
    }
    let mut parts = BTreeMap::new();
    for part in Part::ALL {
        parts.insert(part, compiler.part(part)?);
    }
    Ok(Compiled { templates: compiler.templates, parts })
}

/// Where one of the recipe's own values is, as a template that gives it.
pub(super) fn value_at(name: &str) -> String {
    format!("values.{name}")
}

pub(super) fn template_error(files: &RecipeFiles, source: RenderError) -> RecipeError {
    let file = if files.text(&source.template).is_some() { &source.template } else { RECIPE };
    RecipeError::Template { file: files.origin(file), source }
}

/// The actions of a part, with their places in the recipe.
pub(super) fn actions(recipe: &Recipe, part: Part) -> Vec<(String, Action)> {
    let named = |name: &str, actions: &[Action]| -> Vec<(String, Action)> {
        actions.iter().enumerate().map(|(index, action)| (format!("{name}[{index}]"), action.clone())).collect()
    };
    let server = &recipe.server;
    match part {
        Part::Quantize => named("steps.quantize", &recipe.steps.quantize),
        Part::Build => named("steps.build", &recipe.steps.build),
        Part::Render => named("steps.render", &recipe.steps.render),
        Part::Server => {
            let action = Action { command: server.command.clone(), env: server.env.clone(), ..Action::default() };
            vec![("server".to_owned(), action)]
        }
    }
}

fn check_consistency(recipe: &Recipe, files: &RecipeFiles) -> Result<(), RecipeError> {
    let problem =
        |at: String, problem: String| Err(RecipeError::Inconsistent { file: files.origin(RECIPE), at, problem });
    let no_program = "is not a name under `programs`".to_owned();
    if recipe.engine != files.engine {
        return problem("engine".to_owned(), format!("must be the folder's name, `{}`", files.engine));
    }
    for (index, hint) in recipe.log_hints.iter().enumerate() {
        if let Err(error) = regex::Regex::new(&hint.pattern) {
            return problem(format!("log_hints[{index}].match"), format!("is no regular expression: {error}"));
        }
    }
    for (name, setting) in &recipe.settings {
        if setting.ask.first().is_some_and(|program| !recipe.programs.contains_key(program)) {
            return problem(format!("settings.{name}.ask[0]"), no_program);
        }
    }
    let server = &recipe.server;
    if server.command.is_empty() != server.ports.is_empty() {
        return problem("server".to_owned(), "needs both a command and ports, or neither".to_owned());
    }
    for (at, action) in Part::ALL.into_iter().flat_map(|part| actions(recipe, part)) {
        match action.command.first() {
            // A server without a command is up already.
            None if at == "server" => {}
            Some(Argument::One(name)) if !recipe.programs.contains_key(name) => {
                return problem(format!("{at}.command[0]"), no_program);
            }
            None if action.files.is_empty() => return problem(at, "has neither a command nor files".to_owned()),
            // What a condition decides is checked when it is rendered.
            Some(_) | None => {}
        }
        for (path, file) in &action.files {
            let template = file.template();
            if !files.is_template(template) {
                return problem(
                    format!("{at}.files.{path}"),
                    format!("names `{template}`, but there is no template of this name (they end with `.j2`)"),
                );
            }
        }
    }
    Ok(())
}

/// A string of the recipe that minijinja reads.
enum Source {
    Text(String),
    Expression(String),
    Condition(String),
}

struct Compiler<'a> {
    recipe: &'a Recipe,
    files: &'a RecipeFiles,
    templates: Templates,
    /// The names that each template has in its own text.
    named: BTreeMap<String, BTreeSet<String>>,
}

impl Compiler<'_> {
    /// Adds a template, after the assignments of the recipe's own values that it needs.
    fn add(&mut self, name: &str, source: &Source) -> Result<(), RecipeError> {
        let text = match source {
            Source::Text(text) => text.clone(),
            Source::Expression(expression) => format!("{{{{ {expression} }}}}"),
            Source::Condition(expression) => format!("{{% if {expression} %}}true{{% endif %}}"),
        };
        let error = |source| template_error(self.files, source);
        self.templates.add(name, &text).map_err(error)?;
        let named = self.templates.used(name);
        let assignments = self.assignments(named.clone());
        self.named.insert(name.to_owned(), named);
        if !assignments.is_empty() {
            self.templates.add(name, &format!("{assignments}{text}")).map_err(error)?;
        }
        Ok(())
    }

    /// In front of a template and without a line of their own, so that lines keep their numbers.
    fn assignments(&self, mut needed: BTreeSet<String>) -> String {
        let mut assignments = Vec::new();
        // A value names only those before it.
        for (name, expression) in self.recipe.values.iter().rev() {
            let Some(named) = self.named.get(&value_at(name)).filter(|_| needed.contains(name)) else { continue };
            needed.extend(named.iter().cloned());
            assignments.push(format!("{{%- set {name} = {expression} -%}}"));
        }
        assignments.reverse();
        assignments.concat()
    }

    /// Compiles the actions of a part; gives the values that they look up.
    fn part(&mut self, part: Part) -> Result<Names, RecipeError> {
        let mut names = Names::default();
        for (at, action) in actions(self.recipe, part) {
            let mut sources = Vec::new();
            action_sources(&at, &action, &mut sources);
            for (name, source) in &sources {
                self.add(name, source)?;
                self.collect(name, &mut names);
            }
            action.files.values().for_each(|file| self.collect(file.template(), &mut names));
            names.named.extend(action.depends_on.clone());
            names.used.extend(action.depends_on);
        }
        if part == Part::Server {
            let of_server = recipe_sources(self.recipe).into_iter().filter(|(name, _)| name.starts_with("server."));
            of_server.for_each(|(name, _)| self.collect(&name, &mut names));
        }
        Ok(names)
    }

    fn collect(&self, template: &str, names: &mut Names) {
        names.named.extend(self.named[template].iter().cloned());
        names.used.extend(self.templates.used(template));
    }
}

/// Place and text of each template of a recipe, actions and files apart.
fn recipe_sources(recipe: &Recipe) -> Vec<(String, Source)> {
    let mut sources: Vec<(String, Source)> = Vec::new();
    for list in Condition::ALL {
        for (index, limit) in list.of(recipe).iter().enumerate() {
            sources.push((list.when(index), Source::Condition(limit.when.clone())));
            sources.push((list.because(index), Source::Text(limit.because.clone())));
        }
    }
    let server = &recipe.server;
    sources.push(("server.served_model".to_owned(), Source::Text(server.served_model.clone())));
    for (name, url) in [("server.metrics", &server.metrics), ("server.statistics", &server.statistics)] {
        sources.extend(url.iter().map(|url| (name.to_owned(), Source::Text(url.clone()))));
    }
    sources.extend(server.gpus.iter().map(|gpus| ("server.gpus".to_owned(), Source::Expression(gpus.clone()))));
    let cache = server.prefix_cache.iter();
    sources.extend(cache.map(|on| (PREFIX_CACHE.to_owned(), Source::Condition(on.clone()))));
    for (index, probe) in server.ready.iter().enumerate() {
        sources.push((format!("server.ready[{index}].http"), Source::Text(probe.http.clone())));
    }
    for (protocol, endpoint) in &server.protocols {
        let at = format!("server.protocols.{protocol}");
        sources.push((format!("{at}.url"), Source::Text(endpoint.url.clone())));
        sources.extend(endpoint.model.iter().map(|model| (format!("{at}.model"), Source::Text(model.clone()))));
    }
    sources
}

/// Place and text of each template of an action, files apart.
fn action_sources(at: &str, action: &Action, sources: &mut Vec<(String, Source)>) {
    sources.extend(action.when.iter().map(|when| (format!("{at}.when"), Source::Condition(when.clone()))));
    argument_sources(&format!("{at}.command"), &action.command, sources);
    sources.extend(action.env.iter().map(|(name, text)| (format!("{at}.env.{name}"), Source::Text(text.clone()))));
}

fn argument_sources(at: &str, arguments: &[Argument], sources: &mut Vec<(String, Source)>) {
    for (index, argument) in arguments.iter().enumerate() {
        let at = format!("{at}[{index}]");
        match argument {
            Argument::One(text) => sources.push((at, Source::Text(text.clone()))),
            Argument::Several(several) => {
                let when = several.when.iter().map(|when| (format!("{at}.when"), Source::Condition(when.clone())));
                let repeat =
                    several.repeat.iter().map(|times| (format!("{at}.repeat"), Source::Expression(times.clone())));
                sources.extend(when.chain(repeat));
                argument_sources(&format!("{at}.args"), &several.args, sources);
            }
        }
    }
}
