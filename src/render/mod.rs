//! minijinja with one rule: an undefined value is an error that names the template, the line and what is known.
//!
//! **Invariant:** rendering is a pure function of a template's text and the values given.

use std::collections::{BTreeMap, BTreeSet};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, merge_maps};
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;

/// A set of named templates and expressions, compiled once.
#[derive(Clone, Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

/// What templates look values up in.
#[derive(Clone, Debug)]
pub struct Context(Value);

impl Context {
    /// The fields of a struct or the entries of a map, by name.
    #[must_use]
    pub fn of(values: &impl Serialize) -> Self {
        Self(Value::from(Serde(values)))
    }

    /// The same with one more value, which hides another of its name.
    #[must_use]
    pub fn with(&self, name: &str, value: impl Serialize) -> Self {
        let one = Self::of(&BTreeMap::from([(name, value)]));
        Self(merge_maps([self.0.clone(), one.0]))
    }
}

/// A template or an expression that cannot be compiled, or cannot be rendered with the values given.
#[derive(Debug, thiserror::Error)]
#[error("cannot render `{template}`, line {line}: {message}")]
pub struct RenderError {
    pub template: String,
    /// From 1, within the template's own text.
    pub line: usize,
    pub message: String,
}

impl Default for Templates {
    fn default() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the default delimiters are distinct"));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        Self { environment }
    }
}

impl Templates {
    /// Compiles a template under a name that its errors will carry.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), RenderError> {
        self.environment
            .add_template_owned(name.to_owned(), text.to_owned())
            .map_err(|error| described(name, &error, &BTreeSet::new()))
    }

    /// Compiles an expression such as `pp > 1` under a name; [`Templates::holds`] evaluates it.
    pub fn add_condition(&mut self, name: &str, expression: &str) -> Result<(), RenderError> {
        self.add(name, &format!("{{% if {expression} %}}true{{% endif %}}"))
    }

    /// Compiles an expression whose value [`Templates::render`] gives as text.
    pub fn add_expression(&mut self, name: &str, expression: &str) -> Result<(), RenderError> {
        self.add(name, &format!("{{{{ {expression} }}}}"))
    }

    /// The names of the values that a template looks up, at the top level.
    #[must_use]
    pub fn used(&self, name: &str) -> BTreeSet<String> {
        let template = self.environment.get_template(name).expect("every name asked for was added");
        template.undeclared_variables(false).into_iter().collect()
    }

    pub fn render(&self, name: &str, values: &Context) -> Result<String, RenderError> {
        let template = self.environment.get_template(name).expect("every name asked for was added");
        template.render(values.0.clone()).map_err(|error| described(name, &error, &self.missing(name, values)))
    }

    /// Whether a condition is true for these values.
    pub fn holds(&self, name: &str, values: &Context) -> Result<bool, RenderError> {
        self.render(name, values).map(|text| text == "true")
    }

    fn missing(&self, name: &str, values: &Context) -> BTreeSet<String> {
        self.used(name)
            .into_iter()
            .filter(|used| values.0.get_attr(used).map_or(true, |value| value.is_undefined()))
            .collect()
    }
}

fn described(template: &str, error: &minijinja::Error, missing: &BTreeSet<String>) -> RenderError {
    let mut message =
        error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()));
    if error.kind() == minijinja::ErrorKind::UndefinedError && !missing.is_empty() {
        let names: Vec<String> = missing.iter().map(|name| format!("`{name}`")).collect();
        message = format!("no value for {}", names.join(", "));
    }
    RenderError { template: template.to_owned(), line: error.line().unwrap_or(1), message }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn render(text: &str, values: &Value) -> Result<String, String> {
        let mut templates = Templates::default();
        templates.add("t.j2", text).map_err(|error| error.to_string())?;
        templates.render("t.j2", &Context::of(values)).map_err(|error| error.to_string())
    }

    #[test]
    fn an_undefined_value_names_template_line_and_variable() {
        assert_eq!(
            render("a\n{{ batch }}", &json!({"tp": 1})),
            Err("cannot render `t.j2`, line 2: no value for `batch`".to_owned())
        );
    }

    #[test]
    fn a_broken_template_is_refused_when_it_is_added() {
        let error = render("a\n{{ batch", &json!({})).unwrap_err();
        assert!(error.starts_with("cannot render `t.j2`, line 2: syntax error"), "{error}");
    }

    #[test]
    fn conditions_are_true_or_false() {
        let mut templates = Templates::default();
        templates.add_condition("limit", "pp > 1").unwrap();
        assert!(templates.holds("limit", &Context::of(&json!({"pp": 2}))).unwrap());
        assert!(!templates.holds("limit", &Context::of(&json!({"pp": 1}))).unwrap());
        assert!(templates.holds("limit", &Context::of(&json!({"tp": 1}))).is_err());
        assert_eq!(templates.used("limit"), BTreeSet::from(["pp".to_owned()]));
    }

    #[test]
    fn text_is_kept_as_it_is() {
        assert_eq!(render("<a> & {{ x }}\n", &json!({"x": "\"q\""})).unwrap(), "<a> & \"q\"\n");
    }
}
