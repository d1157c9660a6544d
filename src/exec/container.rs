use std::path::{Path, PathBuf};

use crate::manifest::DockerRuntime;

/// The program that starts containers.
pub(super) const DOCKER: &str = "docker";

/// A folder that a container sees. It has the same path on both sides, so that no path is ever translated: what a
/// configuration, a log or an error names is what it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Mount {
    pub folder: PathBuf,
    pub writable: bool,
}

/// One command of a recipe, to be run in a container.
pub(super) struct Contained<'a> {
    pub runtime: &'a DockerRuntime,
    /// The container's name, by which it is removed.
    pub name: String,
    pub mounts: Vec<Mount>,
    /// As the image finds it.
    pub program: &'a str,
    pub args: &'a [String],
    /// The command's own variables.
    pub env: Vec<(&'a str, &'a str)>,
    /// `UID:GID` of whoever runs benchrun.
    pub own_user: String,
}

/// The arguments of `docker` that run a command.
pub(super) fn run_arguments(contained: &Contained<'_>) -> Vec<String> {
    let runtime = contained.runtime;
    let mut words: Vec<String> =
        ["run", "--rm", "--init", "--name", &contained.name, "--network", "host"].map(str::to_owned).into();
    let mut add = |option: &str, value: &str| words.extend([option.to_owned(), value.to_owned()]);
    if !runtime.gpus.is_empty() {
        add("--gpus", &runtime.gpus);
    }
    if let Some(size) = &runtime.shm_size {
        add("--shm-size", size);
    }
    // Pinned memory and deep stacks, as NVIDIA's images ask for.
    add("--ulimit", "memlock=-1");
    add("--ulimit", "stack=67108864");
    add("--user", runtime.user.as_ref().unwrap_or(&contained.own_user));
    // A user that the image does not know has no home.
    add("--env", "HOME=/tmp");
    for Mount { folder, writable } in &contained.mounts {
        let folder = folder.display();
        add("--volume", &if *writable { format!("{folder}:{folder}") } else { format!("{folder}:{folder}:ro") });
    }
    runtime.mounts.iter().for_each(|mount| add("--volume", mount));
    let of_runtime = runtime.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in of_runtime.chain(contained.env.iter().copied()) {
        add("--env", &format!("{name}={value}"));
    }
    // By name alone: docker takes the value from its own environment, and no argument list has it.
    runtime.pass_env.iter().for_each(|name| add("--env", name));
    if let Some(entrypoint) = &runtime.entrypoint {
        add("--entrypoint", entrypoint);
    }
    words.push(runtime.image.clone());
    words.push(contained.program.to_owned());
    words.extend(contained.args.iter().cloned());
    words
}

/// The arguments of `docker` that remove a container, whether or not its client is still there.
pub(super) fn remove_arguments(name: &str) -> Vec<String> {
    ["rm", "--force", name].map(str::to_owned).into()
}

/// What a container has to see to read a model: a hub's snapshot is links into the cache's folder of its repository.
pub(super) fn folder_of_model(folder: &Path) -> PathBuf {
    let real = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let snapshots = real.parent().filter(|parent| parent.ends_with("snapshots"));
    snapshots.and_then(Path::parent).map_or(real.clone(), Path::to_owned)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn runtime(yaml: serde_json::Value) -> DockerRuntime {
        serde_json::from_value(yaml).unwrap()
    }

    fn arguments(runtime: &DockerRuntime) -> Vec<String> {
        run_arguments(&Contained {
            runtime,
            name: "benchrun-1".to_owned(),
            mounts: vec![
                Mount { folder: "/home/me/store".into(), writable: false },
                Mount { folder: "/home/me/store/tmp/1".into(), writable: true },
            ],
            program: "trtllm-build",
            args: &["--workers".to_owned(), "1".to_owned()],
            env: vec![("LEVEL", "a b")],
            own_user: "1000:100".to_owned(),
        })
    }

    #[test]
    fn the_argument_list_is_exact() {
        let words = arguments(&runtime(serde_json::json!({
            "image": "image@sha256:0", "gpus": "device=0,1", "shm_size": "16g", "mounts": ["/data:/data:ro"],
            "env": {"NCCL_DEBUG": "WARN"}, "pass_env": ["HF_TOKEN"], "entrypoint": "env",
        })));
        let expected = "run --rm --init --name benchrun-1 --network host --gpus device=0,1 --shm-size 16g --ulimit memlock=-1 \
            --ulimit stack=67108864 --user 1000:100 --env HOME=/tmp --volume /home/me/store:/home/me/store:ro \
            --volume /home/me/store/tmp/1:/home/me/store/tmp/1 --volume /data:/data:ro --env NCCL_DEBUG=WARN";
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let (start, rest) = words.split_at(expected.len());
        assert_eq!(start, expected);
        let expected =
            ["--env", "LEVEL=a b", "--env", "HF_TOKEN", "--entrypoint", "env", "image@sha256:0", "trtllm-build"];
        assert_eq!(rest[..expected.len()], expected);
        assert_eq!(rest[expected.len()..], ["--workers", "1"]);
    }

    #[test]
    fn what_is_not_asked_for_is_not_there() {
        let words = arguments(&runtime(serde_json::json!({"image": "image@sha256:0", "gpus": "", "user": "root"})));
        assert!(
            !words.iter().any(|word| word == "--gpus" || word == "--shm-size" || word == "--entrypoint"),
            "{words:?}"
        );
        assert!(words.windows(2).any(|pair| pair == ["--user", "root"]), "{words:?}");
    }

    #[test]
    fn a_snapshot_brings_the_folder_of_its_blobs() {
        let cache = tempfile::tempdir().unwrap();
        let cache = cache.path().canonicalize().unwrap();
        let snapshot = cache.join("models--a--b/snapshots/c0ffee");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir(cache.join("own")).unwrap();
        std::os::unix::fs::symlink(&snapshot, cache.join("link")).unwrap();
        assert_eq!(folder_of_model(&cache.join("link")), cache.join("models--a--b"));
        assert_eq!(folder_of_model(&cache.join("own")), cache.join("own"));
    }
}
