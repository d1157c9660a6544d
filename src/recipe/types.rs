use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::base::Scalar;
use crate::spec::Protocol;

/// How an engine is prepared, started and recognised.
///
/// Strings marked *template* are minijinja. They may use the cell's axes (`model`, `precision`, `tp`, `pp`, `batch_size`,
/// ...), the settings below, `version`, `quant` (the entries of the cell's precision), the output folders `fetch`,
/// `quantize`, `build` and `render`, and `output` (the step's own). A server may also use `host`, `port.NAME` and
/// `served_model`.
/// A step that has no action hands on what it was given: without one, `build` is the same folder as `quantize`.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The folder's name, and the manifest's `engine.name`.
    pub engine: String,
    /// One sentence for `benchrun plan` and the documentation.
    pub about: String,
    /// Known versions of the engine; the first is the default.
    #[schemars(length(min = 1))]
    pub versions: Vec<String>,
    /// Programs that commands start, by the name used as a command's first word.
    pub programs: IndexMap<String, Program>,
    /// What a manifest may set, under `engine.settings` or as an axis.
    #[serde(default)]
    pub settings: IndexMap<String, Setting>,
    /// Values of the known axes for a manifest that does not name them.
    #[serde(default)]
    pub defaults: IndexMap<String, Scalar>,
    /// The precisions that the engine has, and what each means: values that templates read as `quant.NAME`.
    #[schemars(extend("minProperties" = 1))]
    pub precisions: IndexMap<String, IndexMap<String, Scalar>>,
    /// Values worked out from others, by name: minijinja expressions, each of which may use those before it.
    #[serde(default)]
    pub values: IndexMap<String, String>,
    /// What the engine cannot do; a cell that meets one is `unsupported`.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Settings that cannot both be meant; a cell that meets one makes the whole manifest refused.
    #[serde(default)]
    pub contradictions: Vec<Limit>,
    /// What a phase cannot ask of a cell; one that does makes the whole manifest refused. Besides the cell's values there
    /// are `phase.protocol`, `phase.streams`, whether tokens come as they are made, and `phase.isl` and `phase.tokens`, the
    /// longest prompt and answer, which are not defined where the data decide.
    #[serde(default)]
    pub phase_contradictions: Vec<Limit>,
    #[serde(default)]
    pub steps: Steps,
    pub server: Server,
    /// Known lines of the logs, and what to do about them.
    #[serde(default)]
    pub log_hints: Vec<LogHint>,
}

/// A program that commands start.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// A path, or a name looked up on PATH; `benchrun` is this very executable.
    pub program: String,
    /// Arguments that make it print its version.
    #[serde(default)]
    pub version: Vec<String>,
    /// How to get it.
    #[serde(default)]
    pub hint: Option<String>,
}

/// What a manifest may set.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    pub kind: SettingKind,
    pub about: String,
    /// Without a default, a template that uses the setting needs the manifest to give it.
    #[serde(default)]
    pub default: Option<Scalar>,
    #[serde(default)]
    pub min: Option<f64>,
    #[serde(default)]
    pub max: Option<f64>,
    /// The only values allowed.
    #[serde(default)]
    pub one_of: Vec<Scalar>,
    /// A command whose first line is the value where the manifest gives none: a fact of this machine. The first word is a
    /// name under `programs`. Where it fails, the value does not exist.
    #[serde(default)]
    pub ask: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SettingKind {
    Bool,
    Int,
    Float,
    Text,
}

impl SettingKind {
    /// A value of this kind that a program printed.
    #[must_use]
    pub fn parse(self, text: &str) -> Option<Scalar> {
        match self {
            Self::Bool => text.parse().ok().map(Scalar::Bool),
            Self::Int => text.parse().ok().map(Scalar::Int),
            Self::Float => text.parse().ok().filter(|value: &f64| value.is_finite()).map(Scalar::Float),
            Self::Text => Some(Scalar::Text(text.to_owned())),
        }
    }
}

/// What cannot be, and why.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// A minijinja expression; where it is true, the limit is met.
    pub when: String,
    /// Template. The reason, with the numbers.
    pub because: String,
}

/// The steps between the model and the server.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Steps {
    /// Weights to a checkpoint in the cell's precision. The first action whose `when` holds is taken.
    pub quantize: Vec<Action>,
    /// Checkpoint to the artefact that is served.
    pub build: Vec<Action>,
    /// Configuration files.
    pub render: Vec<Action>,
}

/// One way of doing a step: a command, files to write, or both (files first).
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Action {
    /// A minijinja expression; without it the action always applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The argument list: a name under `programs`, then templates. Never seen by a shell.
    pub command: Vec<Argument>,
    /// Environment variables of the command. Templates.
    pub env: IndexMap<String, String>,
    /// Files to write into `output`: the path, then the name of the template beside the recipe.
    pub files: IndexMap<String, File>,
    /// Values that decide the output though nothing above names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
}

/// The template of a file, and how to check what it gives.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(untagged)]
pub enum File {
    Template(String),
    Checked(CheckedFile),
}

impl File {
    #[must_use]
    pub fn template(&self) -> &str {
        match self {
            Self::Template(template) | Self::Checked(CheckedFile { template, .. }) => template,
        }
    }
}

/// A file that is read back before anything runs.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CheckedFile {
    /// The name of the template beside the recipe.
    pub template: String,
    pub check: FileCheck,
}

/// What a rendered file must be.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileCheck {
    /// Triton's `inference.ModelConfig` in protobuf text format, with no `${` left in it.
    TritonModelConfig,
}

/// One argument, or several under a condition or several times.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(untagged)]
pub enum Argument {
    One(String),
    Several(SeveralArguments),
}

/// Arguments that are there only under a condition, or once for each of several things, such as the ranks of a server.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SeveralArguments {
    /// A minijinja expression; without it they are always there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// A minijinja expression: how often they come. Templates in `args` may then use `index`, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat: Option<String>,
    /// Templates, or such groups with plain templates in them.
    #[schemars(with = "Vec<InnerArgument>")]
    pub args: Vec<Argument>,
}

/// An [`Argument`] within a group, for the schema: groups hold groups, but no deeper.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum InnerArgument {
    One(String),
    Several(InnerArguments),
}

/// Arguments that are there only under a condition.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used")]
struct InnerArguments {
    /// A minijinja expression.
    when: String,
    /// Templates.
    args: Vec<String>,
}

/// The server of a cell.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// The argument list; see [`Action::command`]. Without one nothing is started or stopped: the server is up already.
    #[serde(default)]
    pub command: Vec<Argument>,
    /// Environment variables. Templates.
    #[serde(default)]
    pub env: IndexMap<String, String>,
    /// Names of the ports it listens on; each gets a free number. A server without a command has none.
    #[serde(default)]
    pub ports: Vec<String>,
    /// An expression: the GPUs that the server takes.
    #[serde(default)]
    pub gpus: Option<String>,
    /// An expression: whether the server is told to answer a prompt's known beginning from a cache. Its answers to a
    /// repeated prompt are held against it.
    #[serde(default)]
    pub prefix_cache: Option<String>,
    /// The name that requests give the model. Template.
    pub served_model: String,
    /// All must succeed before the server counts as ready.
    #[schemars(length(min = 1))]
    pub ready: Vec<Probe>,
    /// Where each protocol is served.
    #[schemars(extend("minProperties" = 1))]
    pub protocols: IndexMap<Protocol, Endpoint>,
    /// The address of its Prometheus metrics. Template.
    #[serde(default)]
    pub metrics: Option<String>,
    /// The address of Triton's statistics of all models. Template.
    #[serde(default)]
    pub statistics: Option<String>,
}

/// A sign of readiness: a GET that answers with status 200.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// Template.
    pub http: String,
}

/// Where a protocol is served.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// `http://HOST:PORT`. Template.
    pub url: String,
    /// The model's name in this protocol; `served_model` by default. Template.
    #[serde(default)]
    pub model: Option<String>,
}

/// A known line of a log.
#[derive(Clone, Debug, Deserialize, JsonSchema, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogHint {
    /// A regular expression, searched in the last lines of the log.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What to do about it.
    pub hint: String,
}
