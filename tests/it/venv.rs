//! Environments of Python packages, by an installer that only pretends.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::env::{Ended, TestEnv, one_cell};

/// Understands what benchrun asks of uv, keeps a line of each request, and "installs" a program that copies a folder.
const UV: &str = r#"#!/bin/sh
echo "$*" >> "$(dirname "$0")/asked"
case "$1 $2" in
"venv --python")
    mkdir -p "$4/bin"
    printf '#!/bin/sh\necho 3.11.4\n' > "$4/bin/python"
    chmod +x "$4/bin/python" ;;
"pip compile")
    for last; do :; done
    while [ "$1" != --output-file ]; do shift; done
    printf '%s \\\n    --hash=sha256:11aa\nneeded==2.0 --hash=sha256:22bb\n' "$(cat "$last")" > "$2" ;;
"pip install")
    bin=$(dirname "$4")
    printf '#!/bin/sh\n[ "$1" = --version ] && echo thing 1.0 || cp "$1"/* "$2"\n' > "$bin/thing"
    chmod +x "$bin/thing" ;;
esac
"#;

/// The embedded engine, with a copying program of an environment in place of its quantize step.
fn recipe() -> String {
    let (old, new) = (
        r#"[benchrun, engine, quantize, "{{ fetch }}", --precision, "{{ precision }}", --out, "{{ output }}"]"#,
        r#"[thing, "{{ fetch }}", "{{ output }}"]"#,
    );
    let recipe = include_str!("../../templates/embedded/recipe.yaml");
    assert!(recipe.contains(old));
    recipe.replace(old, new).replace("programs:\n", "programs:\n  thing: {program: thing, version: [--version]}\n")
}

fn env_with_uv() -> TestEnv {
    let env = TestEnv::new();
    env.write("bin/uv", UV);
    fs::set_permissions(env.path("bin/uv"), fs::Permissions::from_mode(0o755)).unwrap();
    env.write("my recipes/embedded/recipe.yaml", &recipe());
    let runtime = "runtime: {venv: {python: '>=3.10', packages: [thing==1.0]}}\n";
    env.write(
        "m.yaml",
        &one_cell()
            .replace("name: embedded\n", "name: embedded\n  recipes: my recipes\n")
            .replace("matrix:", &format!("{runtime}matrix:")),
    );
    env
}

fn benchrun(env: &TestEnv, args: &[&str]) -> Ended {
    let path = format!("{}:/usr/bin:/bin", env.path("bin").display());
    let mut command = env.command(args);
    // A home that is named from the working folder, as the default one is.
    command.env("PATH", path).env("BENCHRUN_HOME", "../home");
    env.start(command).end()
}

fn asked(env: &TestEnv) -> Vec<String> {
    let text = fs::read_to_string(env.path("bin/asked")).unwrap_or_default();
    text.lines().map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn an_environment_is_made_once_and_pinned() {
    let env = env_with_uv();
    benchrun(&env, &["plan", "m.yaml"]).expect(0).prints("keys here are provisional");
    assert!(asked(&env).is_empty(), "a plan installs nothing");
    benchrun(&env, &["apply", "m.yaml"]).expect(0).says("installing thing==1.0 once");
    assert_eq!(asked(&env), ["venv --python", "pip compile", "pip install"]);
    benchrun(&env, &["plan", "m.yaml", "--detailed-exitcode"]).expect(0);
    benchrun(&env, &["apply", "m.yaml", "--rerun", "quantize"]).expect(0);
    assert_eq!(asked(&env).len(), 3, "the environment is there");
    let lock = env.latest("small").join("lock.yaml");
    let text = fs::read_to_string(&lock).unwrap();
    assert!(text.contains("thing==1.0:\n        - 11aa") && text.contains("thing 1.0 (venv "), "{text}");
    // A lock installs what it says, asks for nothing else, and measures nothing anew: it is the same environment.
    let lock = lock.display().to_string();
    benchrun(&env, &["apply", &lock]).expect(0).says("nothing to do");
    assert_eq!(asked(&env)[3..], ["venv --python", "pip install"]);
}

#[test]
fn what_keeps_an_environment_from_being_made_is_said() {
    let env = env_with_uv();
    fs::remove_file(env.path("bin/uv")).unwrap();
    let text = fs::read_to_string(env.path("m.yaml")).unwrap();
    env.write("m.yaml", &text.replace(">=3.10", ">=9.1"));
    let refused = benchrun(&env, &["apply", "m.yaml"]).expect(3);
    refused.says("no Python >=9.1 is on PATH").says("hint: install such a Python");
    env.write("m.yaml", &text.replace(">=3.10", ">=a"));
    benchrun(&env, &["apply", "m.yaml"]).expect(3).says("runtime.venv.python");
    env.write("m.yaml", &text.replace("thing==1.0", "--index-url=x"));
    benchrun(&env, &["apply", "m.yaml"]).expect(3).says("runtime.venv.packages[0]");
}
