use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::types::Manifest;
use crate::base::Scalar;

/// The serving system: a recipe and its settings.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The recipe: a folder under `templates/`, built in or your own. Under `engines`, by default what the entry is called.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"), example = &"embedded")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The engine's version; the recipe's default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Values for the recipe's settings, the same for all cells.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub settings: IndexMap<String, Scalar>,
    /// Another program for a name under the recipe's `programs`: a name on PATH, or a path relative to the manifest.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub programs: IndexMap<String, PathBuf>,
    /// A folder of recipes, relative to the manifest, searched before the built-in ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipes: Option<PathBuf>,
    /// Where this engine's commands and servers run, in place of the manifest's `runtime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
}

/// One of the engines that a manifest measures.
#[derive(Clone, Copy, Debug)]
pub struct ChosenEngine<'a> {
    /// How the axis `engine`, the plan and the results call it.
    pub label: &'a str,
    /// The recipe's name.
    pub recipe: &'a str,
    pub said: &'a Engine,
    pub runtime: &'a Runtime,
}

impl Manifest {
    /// The engines, in the manifest's order: the one under `engine`, or those under `engines`.
    #[must_use]
    pub fn chosen_engines(&self) -> Vec<ChosenEngine<'_>> {
        let one = self.engine.iter().map(|said| (said.name.as_deref().unwrap_or_default(), said));
        let several = self.engines.iter().map(|(label, said)| (label.as_str(), said));
        let chosen = one.chain(several).map(|(label, said)| ChosenEngine {
            label,
            recipe: said.name.as_deref().unwrap_or(label),
            said,
            runtime: said.runtime.as_ref().unwrap_or(&self.runtime),
        });
        chosen.collect()
    }
}

/// Where commands and servers run: exactly one kind.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Runtime {
    /// Directly on this machine.
    Host(HostRuntime),
    /// On this machine, with programs from Python packages that benchrun installs into a folder of its own.
    Venv(VenvRuntime),
    /// Each in a container of its own, started by `docker run`.
    Docker(DockerRuntime),
}

impl Runtime {
    /// Environment variables for every command and server.
    #[must_use]
    pub fn env(&self) -> &IndexMap<String, String> {
        match self {
            Self::Host(host) => &host.env,
            Self::Venv(venv) => &venv.env,
            Self::Docker(docker) => &docker.env,
        }
    }

    /// The address on which servers are reached.
    #[must_use]
    pub fn listen(&self) -> &str {
        match self {
            Self::Host(host) => &host.listen,
            Self::Venv(venv) => &venv.listen,
            // A container shares the host's network.
            Self::Docker(_) => LOOPBACK,
        }
    }
}

impl Default for Runtime {
    fn default() -> Self {
        Self::Host(HostRuntime::default())
    }
}

/// Directly on this machine.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HostRuntime {
    /// Environment variables for every command and server.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// The address that servers listen on.
    #[serde(default = "loopback", skip_serializing_if = "is_loopback")]
    pub listen: String,
}

impl Default for HostRuntime {
    fn default() -> Self {
        Self { env: IndexMap::new(), listen: loopback() }
    }
}

const LOOPBACK: &str = "127.0.0.1";

/// Programs from Python packages, installed once by uv or pip and used again by every run that asks for the same.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct VenvRuntime {
    /// The versions of Python that will do: `>=3.10,<3.13`.
    #[schemars(regex(pattern = r"^[~=!<>0-9.*, ]+$"))]
    #[serde(default = "python_of_today")]
    pub python: String,
    /// What to install: `vllm==0.32.0`. Whatever they need besides is chosen by the installer, and pinned in `lock.yaml`.
    #[schemars(
        length(min = 1),
        inner(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[A-Za-z0-9._, -]*\])?\s*([~=!<>][^@;]*)?$"))
    )]
    pub packages: Vec<String>,
    /// Environment variables for every command and server.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// The address that servers listen on.
    #[serde(default = "loopback", skip_serializing_if = "is_loopback")]
    pub listen: String,
}

fn python_of_today() -> String {
    ">=3.10".to_owned()
}

fn loopback() -> String {
    LOOPBACK.to_owned()
}

fn is_loopback(address: &String) -> bool {
    address == LOOPBACK
}

/// Each command and server in a container of its own, with the host's network. Folders have the same paths inside.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DockerRuntime {
    /// The image by its digest, so that it is the same one tomorrow: `docker images --digests` shows it.
    #[schemars(
        regex(pattern = r"^[a-z0-9][A-Za-z0-9._:/-]*@sha256:[0-9a-f]{64}$"),
        example = "nvcr.io/nvidia/tritonserver@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )]
    pub image: String,
    /// What `docker run --gpus` takes: `all`, a number, or `device=0,2`; an empty text for none.
    #[serde(default = "all_gpus", skip_serializing_if = "is_all_gpus")]
    pub gpus: String,
    /// Shared memory, such as `16g`.
    #[schemars(regex(pattern = r"^[1-9][0-9]*[bkmgBKMG]?$"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<String>,
    /// More folders of this machine, as `/host/folder:/container/folder` or with `:ro` at the end. Models and the store
    /// are there without.
    #[schemars(inner(regex(pattern = r"^/[^:]*:/[^:]*(:r[ow])?$")))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// Who the commands run as, `USER` or `UID:GID`; by default you, so that the outputs are yours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What starts in place of the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<String>,
    /// Environment variables for every command and server.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub env: IndexMap<String, String>,
    /// Names of variables of your own environment that commands and servers get, too: tokens and keys, which do not belong
    /// in a manifest.
    #[schemars(inner(regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$")), example = ["HF_TOKEN"])]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
}

fn all_gpus() -> String {
    "all".to_owned()
}

fn is_all_gpus(gpus: &String) -> bool {
    gpus == "all"
}
