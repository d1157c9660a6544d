//! The command lines of LMDeploy's scripts as phases of a manifest: what they send is decided where a manifest's is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum as _;
use serde_json::{Value, json};

use super::script_args::{
    ApiArgs, Backend, DatasetName, Script, Served, ServingArgs, StaticArgs, ThroughputArgs, TisArgs,
};
use super::task::Task;
use super::{NAME, bar, with_scheme};
use crate::cli::block_on;
use crate::cli::failure::Failure;
use crate::load;
use crate::manifest::Manifest;
use crate::plan;
use crate::spec::{Data, LoadPoint, Method, Sampling, Volume};
use crate::store::{FileHashes, Store};
use crate::workload::{AnswerLengths, Source, Tokenizer};

/// The scripts wait as long as it takes.
const NO_TIME_LIMIT: &str = "24h";

/// What a script's command line comes to.
struct Given {
    method: Method,
    url: String,
    /// The first of the server's models if it is not named.
    model: Option<String>,
    /// As the rows of the results name it.
    engine: &'static str,
    tokenizer: PathBuf,
    seed: u64,
    /// What each phase says besides the method, by name.
    phases: Vec<(String, Value)>,
    /// Requests of each worker, if they are given as such.
    rounds: Rounds,
    csv: ScriptFile,
    /// Flags that change nothing here, and why.
    notes: Vec<String>,
}

/// The data set, whose counts are kept in the store.
fn source(data: &Data, home: &Path) -> Result<Option<Source>, Failure> {
    let Some(path) = data.path() else { return Ok(None) };
    let bar = bar::reading(path);
    let read = Source::read(data, AnswerLengths::Needed, path).map_err(Failure::Prompts);
    let store = Store::of_home(home);
    let mut hashes = FileHashes::load(store.root());
    // A digest that cannot be had or kept costs time, not correctness.
    let digest = hashes.sha256(path).ok();
    drop(hashes.save());
    bar.finish_and_clear();
    let mut source = read?;
    if let (Some(source), Some(digest)) = (&mut source, digest) {
        source.keep_counts(store.counts(), digest);
    }
    Ok(source)
}

#[derive(Clone, Copy, Debug, Default)]
struct Rounds {
    measured: Option<u64>,
    warmup: Option<u64>,
}

/// Where the script's CSV file goes.
#[derive(Debug)]
pub(super) struct ScriptFile {
    pub(super) path: PathBuf,
    /// Lines are added to a file that is there.
    pub(super) append: bool,
}

/// Asks the server for its model's name if nobody gives it, and reads the data set.
pub(super) fn task(script: Script, home: &Path) -> Result<Task, Failure> {
    let given = given(script)?;
    let mut points = plan::load_points(&given.manifest()).map_err(Failure::LoadPoints)?;
    for point in &mut points {
        given.rounds.apply(point);
    }
    // A script takes each number of workers through all lengths.
    points.sort_by_key(|point| point.arrival.concurrency());
    given.csv.check()?;
    let tokenizer = Tokenizer::load(&given.tokenizer).map_err(Failure::Prompts)?;
    let model = match given.model {
        Some(model) => model,
        None => block_on(load::first_model(&with_scheme(&given.url)))??,
    };
    let source = source(&points[0].data, home)?;
    Ok(Task {
        url: given.url,
        model,
        metrics_url: None,
        engine: given.engine.to_owned(),
        tokenizer: Some(tokenizer.into()),
        source,
        points,
        pause: Duration::ZERO,
        export: None,
        csv: Some(given.csv),
        notes: given.notes,
    })
}

impl ScriptFile {
    /// A place that cannot be written is known before anything is measured.
    fn check(&self) -> Result<(), Failure> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        folder.map_or(Ok(()), |folder| fs::read_dir(folder).map(drop)).map_err(|source| Failure::File {
            doing: "write",
            path: self.path.clone(),
            source,
        })
    }
}

fn given(script: Script) -> Result<Given, Failure> {
    match script {
        Script::Api(args) => Ok(api(Method::Api, args)),
        Script::ApiA1(args) => Ok(api(Method::ApiA1, args)),
        Script::Serving(args) => serving(args),
        Script::Static(args) => fixed_lengths(Method::Static, args),
        Script::StaticA1(args) => fixed_lengths(Method::StaticA1, args),
        Script::Throughput(args) => Ok(throughput(args)),
        Script::Tis(args) => Ok(tis(Method::Tis, args)),
        Script::TisA1(args) => Ok(tis(Method::TisA1, args)),
    }
}

impl Given {
    /// The manifest that would send the same.
    fn manifest(&self) -> Manifest {
        let phase = |(name, phase): &(String, Value)| {
            let mut phase = phase.clone();
            phase["method"] = json!(self.method);
            phase["request_timeout"] = NO_TIME_LIMIT.into();
            phase["point_timeout"] = NO_TIME_LIMIT.into();
            (name.clone(), phase)
        };
        let phases: serde_json::Map<String, Value> = self.phases.iter().map(phase).collect();
        let manifest = json!({
            "name": "bench",
            "seed": self.seed,
            "models": {"served": {"path": self.tokenizer}},
            "engine": {"name": "endpoint"},
            "matrix": {"axes": {}},
            "benchmarks": phases,
        });
        serde_json::from_value(manifest).expect("a script's settings are those of a phase")
    }
}

impl Rounds {
    fn apply(self, point: &mut LoadPoint) {
        let workers = u64::from(point.arrival.concurrency().unwrap_or(1));
        if let Some(rounds) = self.measured {
            point.volume = Volume::Requests(rounds * workers);
        }
        if let Some(rounds) = self.warmup {
            point.warmup_requests = rounds * workers;
        }
    }
}

fn api(method: Method, args: ApiArgs) -> Given {
    let sampling = Sampling { temperature: args.temperature, top_k: None, top_p: Some(args.top_p) };
    Given {
        method,
        url: args.server_addr,
        model: None,
        engine: "lmdeploy",
        tokenizer: args.tokenizer_path,
        seed: args.seed,
        phases: only(json!({
            "data": {"sharegpt": {"path": args.dataset}},
            "concurrency": [args.concurrency],
            "requests": args.num_prompts,
            "streaming": args.stream.or(false),
            "sampling": sampling,
        })),
        rounds: Rounds::default(),
        csv: ScriptFile { path: args.csv, append: false },
        notes: Vec::new(),
    }
}

fn tis(method: Method, args: TisArgs) -> Given {
    let sampling = Sampling { temperature: args.temperature, top_k: Some(args.top_k), top_p: Some(args.top_p) };
    Given {
        method,
        url: args.server_addr,
        model: Some("turbomind".to_owned()),
        engine: "lmdeploy",
        tokenizer: args.tokenizer_path,
        seed: args.seed,
        phases: only(json!({
            "data": {"sharegpt": {"path": args.dataset}},
            "concurrency": [args.concurrency],
            "requests": args.num_prompts,
            "streaming": args.stream.or(true),
            "sampling": sampling,
        })),
        rounds: Rounds::default(),
        csv: ScriptFile { path: args.csv, append: false },
        notes: Vec::new(),
    }
}

fn throughput(args: ThroughputArgs) -> Given {
    let sampling = Sampling { temperature: args.temperature, top_k: Some(args.top_k), top_p: Some(args.top_p) };
    let mut notes = args.served.notes();
    if args.cache_count.is_some() || args.model_format.is_some() {
        notes.push(
            "`--cache-count` and `--model-format` change nothing: the server was started with its own".to_owned(),
        );
    }
    Given {
        method: Method::Throughput,
        url: args.served.url,
        model: None,
        engine: "lmdeploy",
        tokenizer: args.model_path,
        seed: args.seed,
        phases: only(json!({
            "data": {"sharegpt": {"path": args.dataset}},
            "concurrency": [args.concurrency],
            "requests": args.num_prompts,
            "streaming": args.stream.or(true),
            "sampling": sampling,
        })),
        rounds: Rounds::default(),
        csv: ScriptFile { path: args.csv, append: false },
        notes,
    }
}

impl Served {
    fn notes(&self) -> Vec<String> {
        let given = self.tp.is_some() || self.log_level.is_some();
        let note = || "`--tp` and `--log-level` change nothing: the server was started with its own".to_owned();
        given.then(note).into_iter().collect()
    }
}

fn fixed_lengths(method: Method, args: StaticArgs) -> Result<Given, Failure> {
    let (prompts, completions) = (&args.prompt_tokens, &args.completion_tokens);
    if prompts.len() != completions.len() {
        return Err(Failure::Usage {
            problem: format!("{} lengths of prompts for {} of completions", prompts.len(), completions.len()),
            hint: "give as many numbers to `--prompt-tokens` as to `--completion-tokens`: each pair is a case"
                .to_owned(),
        });
    }
    if method == Method::StaticA1 && args.warmup_round.is_some() {
        return Err(refused("--warmup-round", "the script of that version always warms up for two rounds"));
    }
    let of_script = method.defaults().sampling;
    let mut notes = args.served.notes();
    let sampling = if method == Method::StaticA1 {
        if args.top_k.is_some() || args.top_p.is_some() || args.temperature.is_some() {
            notes.push(
                "`--top_k`, `--top_p` and `--temperature` change nothing: the script of that version ignores them"
                    .to_owned(),
            );
        }
        of_script
    } else {
        Sampling {
            temperature: args.temperature.unwrap_or(of_script.temperature),
            top_k: args.top_k.or(of_script.top_k),
            top_p: args.top_p.or(of_script.top_p),
        }
    };
    let case = |(prompt, completion): (&u32, &u32)| {
        let phase = json!({
            "data": {"synthetic": {"isl": prompt, "token_ids": args.token_ids}},
            "output": {"tokens": completion},
            "concurrency": args.concurrency,
            "sampling": sampling,
        });
        (format!("isl{prompt}-osl{completion}"), phase)
    };
    Ok(Given {
        method,
        phases: prompts.iter().zip(completions).map(case).collect(),
        rounds: Rounds { measured: args.test_round, warmup: args.warmup_round },
        url: args.served.url,
        model: None,
        engine: "lmdeploy",
        tokenizer: args.model_path,
        seed: 0,
        csv: ScriptFile { path: args.csv, append: false },
        notes,
    })
}

fn serving(args: ServingArgs) -> Result<Given, Failure> {
    let (engine, port) = args.backend.engine()?;
    args.refuse()?;
    let mut notes = Vec::new();
    if args.disable_tqdm || args.trust_remote_code {
        notes.push("`--disable-tqdm` and `--trust-remote-code` change nothing".to_owned());
    }
    let host_and_port = || format!("http://{}:{}", args.host, args.port.unwrap_or(port));
    let tokenizer = args.tokenizer.clone().or_else(|| args.model_path.clone());
    let tokenizer = given_or("--tokenizer", "a folder with the model's `tokenizer.json`", tokenizer)?;
    let dataset = given_or("--dataset-path", "a ShareGPT file; nothing is downloaded", args.dataset_path.clone())?;
    let mut phase = json!({
        "data": {"sharegpt": {"path": dataset}},
        "requests": args.num_prompts,
        "streaming": !args.disable_stream,
        "output": {"mode": if args.disable_ignore_eos { "at_most" } else { "exact" }},
    });
    if let Some(tokens) = args.sharegpt_output_len {
        phase["output"]["tokens"] = tokens.into();
    }
    if args.disable_warmup {
        phase["warmup_requests"] = 0.into();
    }
    if args.multi {
        phase["request_rate"] = json!(rates(&args.request_rate_range));
    } else if args.request_rate.is_finite() {
        phase["request_rate"] = json!([args.request_rate]);
    }
    let day = jiff::Zoned::now().strftime("%m%d");
    let by_day = format!("{}_{day}_{}_sharegpt.csv", args.backend.name(), args.num_prompts).into();
    Ok(Given {
        method: Method::Serving,
        url: args.base_url.clone().unwrap_or_else(host_and_port),
        model: args.model,
        engine,
        tokenizer,
        seed: args.seed,
        phases: only(phase),
        rounds: Rounds::default(),
        csv: ScriptFile { path: args.output_file.unwrap_or(by_day), append: true },
        notes,
    })
}

fn only(phase: Value) -> Vec<(String, Value)> {
    vec![(NAME.to_owned(), phase)]
}

/// Three numbers are Python's `range`; others are the rates themselves.
fn rates(given: &[u32]) -> Vec<u32> {
    match *given {
        [start, stop, step] => (start..stop).step_by(step as usize).collect(),
        _ => given.to_vec(),
    }
}

impl ServingArgs {
    /// Refuses what cannot be sent as the script does.
    fn refuse(&self) -> Result<(), Failure> {
        if self.dataset_name != DatasetName::Sharegpt || !self.of_other_data.is_empty() {
            let reason = "prompts of random lengths and images are not reproduced, only those of the ShareGPT file";
            return Err(refused("--dataset-name", reason));
        }
        if self.extra_request_body.is_some() {
            return Err(refused("--extra-request-body", "the requests have the script's own fields and no others"));
        }
        if !self.request_rate.is_infinite() && !(0.001..=1e6).contains(&self.request_rate) {
            return Err(refused("--request-rate", "a rate is from 0.001 to 1000000 requests a second, or `inf`"));
        }
        Ok(())
    }
}

impl Backend {
    /// The word on the command line.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// The engine's name and its usual port, of those that are asked for completions.
    fn engine(self) -> Result<(&'static str, u16), Failure> {
        match self {
            Self::Lmdeploy => Ok(("lmdeploy", 23333)),
            Self::Vllm => Ok(("vllm", 8000)),
            Self::SglangOai => Ok(("sglang", 30000)),
            Self::Sglang | Self::SglangNative => Err(refused(
                "--backend sglang",
                "the script's default, SGLang's own endpoint, is not reproduced; for its completions give `sglang-oai`",
            )),
            Self::SglangOaiChat | Self::VllmChat | Self::LmdeployChat => {
                Err(refused("--backend", "only completions are reproduced: `lmdeploy`, `vllm` or `sglang-oai`"))
            }
            Self::Trt => {
                Err(refused("--backend trt", "for Triton with TensorRT-LLM use `benchrun bench -i http-stream`"))
            }
            Self::Gserver => Err(refused("--backend gserver", "the script itself has no client for it")),
        }
    }
}

fn given_or(flag: &str, what: &str, value: Option<PathBuf>) -> Result<PathBuf, Failure> {
    value.ok_or_else(|| Failure::Usage {
        problem: format!("`{flag}` is not given"),
        hint: format!("give `{flag}`, {what}"),
    })
}

fn refused(flag: &str, reason: &str) -> Failure {
    Failure::Refused(format!("`{flag}`: {reason}"))
}
