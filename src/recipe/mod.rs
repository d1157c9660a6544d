//! An engine as data: `templates/<engine>/recipe.yaml` and the templates beside it.
//!
//! A [`Recipe`] is what the file says; a [`LoadedRecipe`] is that, checked and compiled, and answers what a command line,
//! an environment or a rendered file is for given values.
//!
//! **Invariant:** nothing here knows a particular engine. A new one needs a folder, not Rust.

mod check;
mod compile;
mod loaded;
mod source;
#[cfg(test)]
mod tests;
mod types;

pub use loaded::{LoadedRecipe, Part, RecipeError, Rendered};
pub use source::{RecipeFiles, built_in_names};
pub use types::{
    Action, Argument, CheckedFile, Endpoint, File, FileCheck, Limit, LogHint, Probe, Program, Recipe, Server, Setting,
    SettingKind, SeveralArguments, Steps,
};
