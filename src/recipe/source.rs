use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use include_dir::{Dir, include_dir};

use crate::base::Digest;

static BUILT_IN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The name of the file that makes a folder a recipe.
pub(super) const RECIPE: &str = "recipe.yaml";

/// How the names of templates end.
const TEMPLATE: &str = ".j2";

/// The texts of one recipe's folder, by relative path; a user's file stands in for the built-in one of the same name.
#[derive(Clone, Debug)]
pub struct RecipeFiles {
    pub engine: String,
    texts: BTreeMap<String, (PathBuf, String)>,
}

impl RecipeFiles {
    /// The files of an engine: those of `folder/<engine>/`, over the built-in ones of the same engine.
    ///
    /// # Errors
    /// When a file of the user's folder cannot be read as text.
    pub fn find(engine: &str, folder: Option<&Path>) -> io::Result<Self> {
        let mut texts = BTreeMap::new();
        if let Some(built_in) = BUILT_IN.get_dir(engine) {
            collect_built_in(built_in, engine, &mut texts);
        }
        if let Some(folder) = folder.map(|folder| folder.join(engine)).filter(|folder| folder.is_dir()) {
            collect_folder(&folder, &folder, &mut texts)?;
        }
        Ok(Self { engine: engine.to_owned(), texts })
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(|(_, text)| text.as_str())
    }

    pub(super) fn is_template(&self, name: &str) -> bool {
        self.templates().any(|(template, _)| template == name)
    }

    /// Where a file of this recipe is, for messages: built-in ones lie under `templates/`.
    #[must_use]
    pub fn origin(&self, name: &str) -> PathBuf {
        self.texts
            .get(name)
            .map_or_else(|| Path::new("templates").join(&self.engine).join(name), |(path, _)| path.clone())
    }

    pub(super) fn templates(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.texts.iter().filter(|(name, _)| name.ends_with(TEMPLATE));
        texts.map(|(name, (_, text))| (name.as_str(), text.as_str()))
    }

    /// The sha256 over the recipe and its templates; what else lies in the folder decides nothing.
    #[must_use]
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        for (name, (_, text)) in self.texts.iter().filter(|(name, _)| *name == RECIPE || name.ends_with(TEMPLATE)) {
            digest.update(format!("{name} {}\n{text}", text.len()).as_bytes());
        }
        digest.hex()
    }
}

/// The engines that benchrun brings, in alphabetical order.
#[must_use]
pub fn built_in_names() -> Vec<String> {
    let mut names: Vec<String> = BUILT_IN
        .dirs()
        .filter(|folder| folder.get_file(folder.path().join(RECIPE)).is_some())
        .map(|folder| folder.path().display().to_string())
        .collect();
    names.sort();
    names
}

fn collect_built_in(folder: &Dir<'static>, engine: &str, texts: &mut BTreeMap<String, (PathBuf, String)>) {
    for file in folder.files() {
        let name = file.path().strip_prefix(engine).unwrap_or(file.path()).display().to_string();
        let text = file.contents_utf8().expect("the templates in this repository are text");
        texts.insert(name, (Path::new("templates").join(file.path()), text.to_owned()));
    }
    for inner in folder.dirs() {
        collect_built_in(inner, engine, texts);
    }
}

fn collect_folder(folder: &Path, root: &Path, texts: &mut BTreeMap<String, (PathBuf, String)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect_folder(&path, root, texts)?;
        } else {
            let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            let text = fs::read_to_string(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("`{}`: {error}", path.display())))?;
            texts.insert(name, (path, text));
        }
    }
    Ok(())
}
