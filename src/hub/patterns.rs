use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};

use super::error::HubError;
use super::listing::RemoteFile;

/// What an engine needs of a repository's root; folders below often hold the same weights in other formats.
const DEFAULT_PATTERNS: [&str; 8] =
    ["*.safetensors", "*.json", "*.model", "*.tiktoken", "tokenizer.*", "merges.txt", "vocab.*", "*.{txt,jinja}"];

/// Mistral's own copy of weights that the repository has as `model*.safetensors` too.
const SECOND_COPY: &str = "consolidated";

/// Loading such a file can run code that it brings along.
const PICKLE_ENDINGS: [&str; 7] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "joblib"];

const OTHER_WEIGHTS: [&str; 5] = ["gguf", "onnx", "h5", "msgpack", "safetensors"];

/// The files that the patterns ask for, in the listing's order.
///
/// Without patterns: safetensors, JSON, tokenizer and text files of the root. In a pattern `*` matches `/` as well, as
/// in other tools of the hub. A pickle file is taken only by a pattern with the same ending: `*` does not ask for it.
///
/// # Errors
/// When a pattern cannot be read or matches nothing, and when there are no safetensors to take by default.
pub fn wanted(files: &[RemoteFile], patterns: &[String]) -> Result<Vec<RemoteFile>, HubError> {
    if patterns.is_empty() {
        return wanted_by_default(files);
    }
    let mut taken = vec![false; files.len()];
    for pattern in patterns {
        let matcher = compile(pattern, Slash::IsMatched)?;
        let (pickle, safe): (Vec<usize>, Vec<usize>) = (0..files.len())
            .filter(|&index| matcher.is_match(&files[index].path))
            .partition(|&index| is_pickle(&files[index].path) && ending(&files[index].path) != ending(pattern));
        if safe.is_empty() {
            return Err(nothing_taken(files, pattern, &pickle));
        }
        for index in safe {
            taken[index] = true;
        }
    }
    Ok(files.iter().zip(taken).filter(|(_, taken)| *taken).map(|(file, _)| file.clone()).collect())
}

fn wanted_by_default(files: &[RemoteFile]) -> Result<Vec<RemoteFile>, HubError> {
    let matchers: Vec<GlobMatcher> =
        DEFAULT_PATTERNS.iter().map(|pattern| compile(pattern, Slash::Separates)).collect::<Result<_, _>>()?;
    let mut chosen: Vec<RemoteFile> = files
        .iter()
        .filter(|file| !is_pickle(&file.path) && matchers.iter().any(|matcher| matcher.is_match(&file.path)))
        .cloned()
        .collect();
    let is_copy = |file: &RemoteFile| is_safetensors(file) && file.path.starts_with(SECOND_COPY);
    if chosen.iter().any(|file| is_safetensors(file) && !is_copy(file)) {
        chosen.retain(|file| !is_copy(file));
    }
    if chosen.iter().any(is_safetensors) {
        return Ok(chosen);
    }
    let weights = |path: &String| is_pickle(path) || ending(path).is_some_and(|ending| OTHER_WEIGHTS.contains(&ending));
    let others = files.iter().map(|file| file.path.clone()).filter(weights).collect();
    Err(HubError::NoSafetensors { others })
}

#[derive(Clone, Copy)]
enum Slash {
    IsMatched,
    Separates,
}

fn compile(pattern: &str, slash: Slash) -> Result<GlobMatcher, HubError> {
    // A folder stands for all that is in it.
    let whole = if pattern.ends_with('/') { format!("{pattern}*") } else { pattern.to_owned() };
    let glob = GlobBuilder::new(&whole).literal_separator(matches!(slash, Slash::Separates)).build();
    let glob = glob.map_err(|source| HubError::BadPattern { pattern: pattern.to_owned(), source })?;
    Ok(glob.compile_matcher())
}

fn nothing_taken(files: &[RemoteFile], pattern: &str, pickle: &[usize]) -> HubError {
    let pattern = pattern.to_owned();
    if !pickle.is_empty() {
        let files = pickle.iter().map(|&index| files[index].path.clone()).collect();
        return HubError::OnlyPickle { pattern, files };
    }
    let mut near: Vec<(f64, &str)> =
        files.iter().map(|file| (strsim::jaro_winkler(&pattern, &file.path), file.path.as_str())).collect();
    near.sort_by(|a, b| b.0.total_cmp(&a.0));
    HubError::NoMatch { near: near.into_iter().take(3).map(|(_, path)| path.to_owned()).collect(), pattern }
}

fn ending(path: &str) -> Option<&str> {
    Path::new(path).extension()?.to_str()
}

fn is_pickle(path: &str) -> bool {
    ending(path).is_some_and(|ending| PICKLE_ENDINGS.contains(&ending))
}

fn is_safetensors(file: &RemoteFile) -> bool {
    ending(&file.path) == Some("safetensors")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::BlobHash;

    fn choose(files: &[&str], patterns: &[&str]) -> Result<Vec<String>, HubError> {
        let files: Vec<RemoteFile> = files
            .iter()
            .map(|path| RemoteFile { path: (*path).to_owned(), size: 1, hash: BlobHash::GitSha1("0".repeat(40)) })
            .collect();
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Ok(wanted(&files, &patterns)?.into_iter().map(|file| file.path).collect())
    }

    #[test]
    fn the_default_is_what_an_engine_loads() {
        let files = [
            ".gitattributes",
            "README.md",
            "chat_template.jinja",
            "config.json",
            "consolidated.safetensors",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "modeling_x.py",
            "original/model.safetensors",
            "pytorch_model.bin",
            "tokenizer.bin",
            "tokenizer.json",
            "tokenizer.model",
            "x.gguf",
        ];
        let chosen = [
            "chat_template.jinja",
            "config.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model-00002-of-00002.safetensors",
            "tokenizer.json",
            "tokenizer.model",
        ];
        assert_eq!(choose(&files, &[]).unwrap(), chosen);
        assert_eq!(choose(&["consolidated.safetensors"], &[]).unwrap(), ["consolidated.safetensors"]);
    }

    #[test]
    fn without_safetensors_the_error_says_what_to_write() {
        let error = choose(&["config.json", "pytorch_model.bin", "x.gguf"], &[]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no safetensors in the repository's root; its weights are: pytorch_model.bin, x.gguf"
        );
        assert!(error.hint().contains(r#"files: ["*.bin", "*.gguf", "*.json", "tokenizer*"]"#), "{}", error.hint());
    }

    #[test]
    fn pickle_comes_only_when_its_ending_is_asked_for() {
        let files = ["a/pytorch_model.bin", "config.json"];
        assert_eq!(choose(&files, &["*"]).unwrap(), ["config.json"]);
        assert_eq!(choose(&files, &["*.bin"]).unwrap(), ["a/pytorch_model.bin"]);
        assert_eq!(choose(&files, &["a/pytorch_model.bin", "*"]).unwrap(), files);
        let error = choose(&files, &["a/"]).unwrap_err();
        assert!(matches!(&error, HubError::OnlyPickle { files, .. } if files == &["a/pytorch_model.bin"]), "{error}");
        assert!(error.hint().contains(r#"files: ["*.bin"]"#), "{}", error.hint());
    }

    #[test]
    fn a_pattern_without_a_file_is_named_with_near_names() {
        let error = choose(&["config.json", "model.safetensors"], &["*.json", "modle.safetensors"]).unwrap_err();
        assert!(
            matches!(&error, HubError::NoMatch { pattern, near } if pattern == "modle.safetensors" && near[0] == "model.safetensors"),
            "{error}"
        );
        assert!(matches!(choose(&["a"], &["a["]).unwrap_err(), HubError::BadPattern { .. }));
    }
}
