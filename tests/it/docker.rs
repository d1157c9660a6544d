//! The runtime `docker`, with a program on PATH that writes down how it was called.

use std::fs;
use std::path::Path;

use crate::env::{TestEnv, column, json, one_cell};

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn env_with_docker(more: &str) -> TestEnv {
    let env = TestEnv::new();
    let runtime = format!("runtime:\n  docker:\n    image: team/image@{DIGEST}\n{more}");
    env.write("m.yaml", &(one_cell() + &runtime));
    env
}

fn apply(env: &TestEnv, status: i32) -> crate::env::Ended {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs = Path::new(crate::env::BENCHRUN).parent().unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", root.join("tests/it/bin/docker").display(), programs.display());
    let mut command = env.command(&["apply", "m.yaml"]);
    command.env("PATH", path).env("FAKE_DOCKER_CALLS", env.path("calls")).env("HF_TOKEN", "hunter2");
    env.start(command).end().expect(status)
}

#[test]
fn commands_and_servers_run_in_containers_that_are_removed() {
    let env = env_with_docker("    shm_size: 1g\n    pass_env: [HF_TOKEN]\n    env: {LEVEL: info}\n");
    apply(&env, 0);
    assert_eq!(column(&env.rows("small"), "status"), ["ok", "ok"]);
    let calls = fs::read_to_string(env.path("calls")).unwrap();
    let started: Vec<&str> = calls.lines().filter(|call| call.starts_with("run ")).collect();
    assert_eq!(started.len(), 3, "quantize, build and the server:\n{calls}");
    let store = env.home().join("store").display().to_string();
    for call in &started {
        assert!(call.contains(&format!(" team/image@{DIGEST} benchrun engine ")), "{call}");
        assert!(call.contains(&format!(" --volume {store}:{store}:ro ")), "{call}");
        assert!(call.contains(" --shm-size 1g ") && call.contains(" --env LEVEL=info --env HF_TOKEN "), "{call}");
        let name = call.split(" --name ").nth(1).unwrap().split(' ').next().unwrap();
        assert!(calls.lines().any(|line| line == format!("rm --force {name}")), "{name}:\n{calls}");
    }
    let record = env.latest("small").join("cells/tiny/fp32/isl8/osl4/logs/bench/command.json");
    assert!(!fs::read_to_string(&record).unwrap().contains("hunter2"));
    assert!(json(&record)["argv"][0].as_str().unwrap().ends_with("/docker"));
    env.assert_nothing_runs();

    // Another image is another program.
    let other = fs::read_to_string(env.path("m.yaml")).unwrap().replace("sha256:0", "sha256:1");
    env.write("m.yaml", &other);
    apply(&env, 0);
    let calls = fs::read_to_string(env.path("calls")).unwrap();
    assert_eq!(calls.lines().filter(|call| call.starts_with("run ")).count(), 6);
}

#[test]
fn a_machine_without_docker_is_told_before_anything_runs() {
    let env = env_with_docker("");
    let mut command = env.command(&["apply", "m.yaml"]);
    command.env("PATH", "/nowhere");
    let ended = env.start(command).end().expect(3);
    ended.says("program `docker`, which `quantize tiny fp32` needs, is not on this machine").says("install Docker");
}

#[test]
fn an_image_without_a_digest_and_a_secret_in_the_manifest_are_refused() {
    let env = env_with_docker("    env: {HF_TOKEN: hunter2}\n");
    let text = fs::read_to_string(env.path("m.yaml")).unwrap();
    env.write("m.yaml", &text.replace(&format!("@{DIGEST}"), ":latest"));
    let ended = env.expect(3, &["plan", "m.yaml"]);
    ended.says("`team/image:latest` does not have the right form");
    env.write("m.yaml", &text);
    let ended = env.expect(3, &["plan", "m.yaml"]);
    ended.says("`HF_TOKEN` looks like a secret").says("name it under `runtime.docker.pass_env`");
}
