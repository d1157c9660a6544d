use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;

use super::EngineInputs;
use crate::base::Scalar;
use crate::manifest::{Manifest, Phase, Runtime};
use crate::recipe::{LoadedRecipe, Part};
use crate::render::Context;
use crate::spec::{Amount, OutputTokens};

/// The axes that benchrun itself knows, in the order of the result columns.
pub const KNOWN_AXES: [&str; 7] = ["model", "precision", "tp", "pp", "batch_size", "isl", "osl"];

/// What a cell gives to templates: its axes, the engine's settings and what follows from them.
///
/// A sweep may have a hundred thousand of these: a cell keeps its own values and shares the rest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Values {
    /// The index of the engine that they are for.
    engine: usize,
    axes: Arc<[String]>,
    /// One for each of `axes`; `None` for one that the engine does not know.
    own: Vec<Option<Scalar>>,
    /// What all cells have in common; an axis of the same name hides it.
    common: Arc<BTreeMap<String, Scalar>>,
    /// The entries of the cell's precision: `quant` in templates.
    quant: Arc<BTreeMap<String, Scalar>>,
}

/// Makes the values of each cell of a sweep.
pub(super) struct ValuesOf {
    engine: usize,
    axes: Arc<[String]>,
    common: Arc<BTreeMap<String, Scalar>>,
    /// By precision.
    quants: BTreeMap<String, Arc<BTreeMap<String, Scalar>>>,
}

impl ValuesOf {
    /// Weakest first: what the phases need at most, the recipe's defaults, what the machine was asked, the manifest's
    /// settings; then each cell's axes.
    #[must_use]
    pub(super) fn new(index: usize, manifest: &Manifest, engine: &EngineInputs<'_>, axes: &[String]) -> Self {
        let said = &engine.recipe.recipe;
        let mut scalars: BTreeMap<String, Scalar> =
            BTreeMap::from([("tp".to_owned(), Scalar::Int(1)), ("pp".to_owned(), Scalar::Int(1))]);
        scalars.extend(longest(manifest));
        if let Some(precision) = said.precisions.keys().next() {
            scalars.insert("precision".to_owned(), Scalar::Text(precision.clone()));
        }
        scalars.insert("version".to_owned(), Scalar::Text(engine.version()));
        let defaults =
            said.settings.iter().filter_map(|(name, setting)| Some((name.clone(), setting.default.clone()?)));
        scalars.extend(defaults);
        scalars.extend(engine.asked.clone());
        let given = said.defaults.iter().chain(&engine.chosen.said.settings);
        scalars.extend(given.map(|(name, value)| (name.clone(), value.clone())));
        let quant = |entries: &IndexMap<String, Scalar>| Arc::new(entries.clone().into_iter().collect());
        let quants = said.precisions.iter().map(|(name, entries)| (name.clone(), quant(entries))).collect();
        Self { engine: index, axes: axes.into(), common: Arc::new(scalars), quants }
    }

    /// Whether a cell may have a value of this name.
    #[must_use]
    pub(super) fn may_have(&self, name: &str) -> bool {
        name == "quant" || self.common.contains_key(name) || self.axes.iter().any(|axis| axis == name)
    }

    /// The values of a cell, from one for each axis.
    #[must_use]
    pub(super) fn cell(&self, own: Vec<Option<Scalar>>) -> Values {
        let (axes, common) = (self.axes.clone(), self.common.clone());
        let mut values = Values { engine: self.engine, axes, own, common, quant: Arc::default() };
        let precision = values.get("precision").and_then(Scalar::as_text);
        if let Some(quant) = precision.and_then(|name| self.quants.get(name)) {
            values.quant = quant.clone();
        }
        values
    }
}

impl Values {
    /// The index of their engine, in the order of [`Manifest::chosen_engines`].
    #[must_use]
    pub fn engine(&self) -> usize {
        self.engine
    }

    /// The value of an axis of the matrix, and only of an axis.
    #[must_use]
    pub fn axis(&self, name: &str) -> Option<&Scalar> {
        self.axes.iter().position(|axis| axis == name).and_then(|at| self.own[at].as_ref())
    }

    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Scalar> {
        self.axis(name).or_else(|| self.common.get(name))
    }

    /// The values that the templates of a part name, the recipe's own apart: what its output can depend on besides those
    /// and its inputs.
    #[must_use]
    pub fn named_by(&self, recipe: &LoadedRecipe, part: Part) -> BTreeMap<String, &Scalar> {
        let mut used = BTreeMap::new();
        for name in recipe.named(part) {
            if name == "quant" {
                used.extend(self.quant.iter().map(|(key, value)| (format!("quant.{key}"), value)));
            } else if let Some(value) = self.get(name) {
                used.insert(name.clone(), value);
            }
        }
        used
    }

    /// For templates, together with the folders, the host and the ports.
    #[must_use]
    pub fn with(&self, places: &Places) -> Context {
        let common = self.common.iter().map(|(name, value)| (name.as_str(), value));
        let own = self.axes.iter().zip(&self.own).filter_map(|(name, value)| Some((name.as_str(), value.as_ref()?)));
        let scalars = common.chain(own).collect();
        Context::of(&All {
            scalars,
            folders: &places.folders,
            quant: &self.quant,
            host: &places.host,
            port: &places.ports,
        })
    }
}

#[derive(Serialize)]
struct All<'a> {
    #[serde(flatten)]
    scalars: BTreeMap<&'a str, &'a Scalar>,
    #[serde(flatten)]
    folders: &'a BTreeMap<&'static str, String>,
    quant: &'a BTreeMap<String, Scalar>,
    host: &'a str,
    port: &'a BTreeMap<String, String>,
}

/// What a template is told of this machine. In a key these are symbols: where something lies changes no output.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// `fetch`, `quantize`, `build`, `render` and `output`, as far as they are known.
    pub folders: BTreeMap<&'static str, String>,
    pub host: String,
    /// Numbers by name.
    pub ports: BTreeMap<String, String>,
}

impl Places {
    /// Symbols in place of folders and ports, for a key.
    #[must_use]
    pub fn symbolic(runtime: &Runtime, recipe: &LoadedRecipe) -> Self {
        let folders = ["fetch", "quantize", "build", "render", "output"];
        let ports = &recipe.recipe.server.ports;
        Self {
            folders: folders.into_iter().map(|name| (name, format!("<{name}>"))).collect(),
            host: runtime.listen().to_owned(),
            ports: ports.iter().map(|name| (name.clone(), format!("<port {name}>"))).collect(),
        }
    }
}

fn longest_output(phase: &Phase) -> Option<u32> {
    match phase.output.tokens.as_ref()? {
        OutputTokens::Amount(amount) => Some(amount.largest()),
        OutputTokens::Data(_) => None,
    }
}

/// The last turn of a conversation carries those before it, with their answers.
fn longest_input(phase: &Phase) -> Option<u32> {
    let synthetic = phase.data.as_synthetic()?;
    let turns = synthetic.turns.as_ref().map_or(1, Amount::largest);
    let answers = longest_output(phase).unwrap_or_default().saturating_mul(turns - 1);
    Some(synthetic.isl.as_ref()?.largest().saturating_mul(turns).saturating_add(answers))
}

/// The longest input and output that the phases ask for by themselves, for recipes that size an engine by them.
fn longest(manifest: &Manifest) -> impl Iterator<Item = (String, Scalar)> {
    let isl = manifest.benchmarks.values().filter_map(longest_input);
    let osl = manifest.benchmarks.values().filter_map(longest_output);
    let longest = [("isl", isl.max()), ("osl", osl.max())];
    longest.into_iter().filter_map(|(name, tokens)| Some((name.to_owned(), Scalar::Int(i64::from(tokens?)))))
}
