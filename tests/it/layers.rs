use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What each module of `src/lib.rs` may use besides itself. A row names only modules of rows above it, so there is no cycle.
const MAY_USE: &[(&str, &[&str])] = &[
    ("base", &[]),
    ("kserve", &[]),
    ("spec", &["base"]),
    ("event", &["base", "spec"]),
    ("record", &["base", "spec"]),
    ("stats", &["base", "record", "spec"]),
    ("manifest", &["base", "spec"]),
    ("render", &[]),
    ("recipe", &["base", "event", "kserve", "manifest", "render", "spec"]),
    ("matrix", &["base", "manifest"]),
    ("plan", &["base", "event", "manifest", "matrix", "recipe", "render", "spec", "stats"]),
    ("store", &["base", "event"]),
    ("process", &["base"]),
    ("observe", &["process", "record"]),
    ("hub", &["base"]),
    ("engine", &["kserve"]),
    ("dummy", &["engine"]),
    ("workload", &["base", "spec"]),
    ("load", &["kserve", "record", "spec", "workload"]),
    ("null", &["kserve", "spec"]),
    ("report", &["base", "record", "spec", "stats"]),
    (
        "exec",
        &[
            "base", "dummy", "engine", "event", "hub", "load", "manifest", "matrix", "observe", "plan", "process",
            "recipe", "record", "render", "report", "spec", "stats", "store", "workload",
        ],
    ),
    ("progress", &["base", "event", "spec"]),
    (
        "cli",
        &[
            "base", "dummy", "engine", "event", "exec", "load", "manifest", "null", "observe", "plan", "progress",
            "recipe", "record", "report", "spec", "store", "workload",
        ],
    ),
];

/// The modules that an outside crate is named in. What is not here may be named anywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("axum", &["engine"]),
    ("candle_core", &["engine"]),
    ("candle_nn", &["engine"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("comfy_table", &["report"]),
    ("csv", &["report", "workload"]),
    ("duct", &["process"]),
    ("h2", &["load"]),
    ("hdrhistogram", &["stats"]),
    ("hf_hub", &["hub"]),
    ("http_body_util", &["null"]),
    ("httpdate", &["load"]),
    ("hyper", &["null"]),
    ("hyper_util", &["null"]),
    ("indicatif", &["progress", "cli"]),
    ("jiff", &["store", "workload", "cli"]),
    // A model's chat template is minijinja too, with other rules than ours.
    ("minijinja", &["render", "engine"]),
    ("miette", &["recipe"]),
    ("nvml_wrapper", &["observe"]),
    ("parquet", &["workload"]),
    ("pep440_rs", &["exec"]),
    ("prost", &["kserve", "load", "null"]),
    ("prost_reflect", &["recipe"]),
    ("reqwest", &["hub", "load", "observe"]),
    ("safetensors", &["engine"]),
    ("serde_yaml", &["manifest"]),
    ("snap", &["load"]),
    ("statrs", &["stats"]),
    ("tokenizers", &["workload", "engine", "dummy"]),
    ("toml", &["manifest"]),
    ("tonic", &["kserve", "load", "engine"]),
];

#[test]
fn every_module_has_a_row_and_a_line_in_the_map() {
    let lib = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let (map, code) = lib.split_once("\npub mod ").unwrap();
    let mut declared: Vec<&str> =
        code.lines().map(|line| line.trim_start_matches("pub mod ").trim_end_matches(';')).collect();
    declared.sort_unstable();
    let mut rows: Vec<&str> = MAY_USE.iter().map(|(module, _)| *module).collect();
    rows.sort_unstable();
    assert_eq!(declared, rows, "the modules of src/lib.rs and the rows of this test");
    for module in rows {
        let lines = map.lines().filter(|line| line.starts_with("//! | [") && line.contains(&format!("[`{module}`]")));
        assert_eq!(lines.count(), 1, "the map in src/lib.rs has one line for `{module}`");
    }
}

#[test]
fn rows_name_only_modules_of_rows_above() {
    for (index, (module, allowed)) in MAY_USE.iter().enumerate() {
        for used in *allowed {
            let above = MAY_USE[..index].iter().any(|(above, _)| above == used);
            assert!(above, "`{module}` may use `{used}`, whose row is not above: a cycle, or a row out of order");
        }
    }
}

#[test]
fn modules_use_what_their_rows_allow() {
    let path = Regex::new(r"\b(?:crate|benchrun)::(\w*)").unwrap();
    let above_its_folder = "super::super::";
    for (module, allowed) in MAY_USE {
        let mut unused: Vec<&str> = allowed.to_vec();
        for (file, text) in sources(module) {
            for found in path.captures_iter(&text) {
                let used = &found[1];
                assert!(!used.is_empty(), "{file}: `{}{{` hides which modules are used", &found[0]);
                unused.retain(|allowed| *allowed != used);
                assert!(used == *module || allowed.contains(&used), "{file}: `{module}` may not use `{used}`");
            }
            assert!(!text.contains(above_its_folder), "{file}: a path that leaves its folder starts with `crate::`");
        }
        assert!(unused.is_empty(), "`{module}` does not use {unused:?}: its row can be shorter");
    }
}

#[test]
fn outside_crates_are_named_in_their_homes() {
    for (outside, homes) in HOMES {
        let named = Regex::new(&format!(r"(?m)(^|[^:\w]|[^\w:]::){outside}(::|;|\s+as\b)")).unwrap();
        for (module, _) in MAY_USE {
            let user = sources(module).into_iter().find(|(_, text)| named.is_match(text));
            match user {
                Some((file, _)) => assert!(homes.contains(module), "{file}: `{outside}` belongs into {homes:?}"),
                None => assert!(!homes.contains(module), "`{module}` does not name `{outside}`: it is no home of it"),
            }
        }
    }
}

/// The files of a module, by path from the repository's root.
fn sources(module: &str) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("src").join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                sources.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!sources.is_empty(), "`{module}` has a folder under src");
    sources
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}
