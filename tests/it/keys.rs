//! What decides the keys of steps and load points, and what becomes of them when a part of it changes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use benchrun::base::StepKey;
use benchrun::event::StepKind;
use benchrun::manifest::{Format, Manifest, Model, read_text};
use benchrun::matrix::expand;
use benchrun::plan::{
    CellState, EngineInputs, History, Inputs, ModelIdentity, PastStep, Plan, PlannedCell, State, plan,
};
use benchrun::recipe::{LoadedRecipe, RecipeFiles};

const MANIFEST: &str = "\
name: sweep
seed: 1
seeds: {prompts: 5, sampling: 6}
models: {tiny: {dummy: {seed: 7, config: {hidden_size: 64}}}}
engine: {name: embedded, settings: {max_seq_len: 256, threads: 1}}
runtime: {host: {env: {A: '1', B: '2'}, listen: 127.0.0.1}}
matrix:
  axes: {precision: [fp16, int8_wo], batch_size: [1, 4], isl/osl: [[64, 16]]}
benchmarks:
  made:
    protocol: openai-completions
    concurrency: [1, 2]
    requests: 4
  read:
    protocol: triton-grpc
    streaming: true
    data: {jsonl: {path: prompts.jsonl}}
    output: {tokens: 8}
    sampling: {temperature: 0.5, top_k: 40, top_p: 0.9}
    concurrency: [3]
    duration: 10s
    warmup_requests: 2
    request_timeout: 60s
    point_timeout: 10m
    thresholds: {ttft_ms_p99: {max: 100}}
time_limits: {ready: 5m}
";

/// All that a plan is made of, to be changed one at a time.
struct World {
    manifest: String,
    /// Edits of files under `templates/embedded`: name, old text, new text.
    recipe_edits: Vec<(&'static str, &'static str, &'static str)>,
    program_version: &'static str,
    data_hash: &'static str,
    generator: u32,
    history: History,
}

impl Default for World {
    fn default() -> Self {
        Self {
            manifest: MANIFEST.to_owned(),
            recipe_edits: Vec::new(),
            program_version: "1.0",
            data_hash: "d1",
            generator: 1,
            history: History::default(),
        }
    }
}

impl World {
    fn with_edit(old: &str, new: &str) -> Self {
        Self { manifest: replaced(MANIFEST, old, new), ..Self::default() }
    }

    fn plan(&self) -> Plan {
        let manifest = read_text("m.yaml", &self.manifest, Format::Yaml).unwrap().value;
        let recipe = self.recipe();
        let cells = expand(&manifest, &|_, _| true).unwrap();
        let identities = self.identities(&manifest);
        let data_files: HashMap<PathBuf, String> =
            ["prompts.jsonl", "elsewhere.jsonl"].map(|path| (path.into(), self.data_hash.to_owned())).into();
        plan(Inputs {
            manifest: &manifest,
            engines: vec![EngineInputs {
                chosen: manifest.chosen_engines()[0],
                recipe: &recipe,
                programs: BTreeMap::from([("benchrun".to_owned(), self.program_version.to_owned())]),
                asked: BTreeMap::new(),
            }],
            chosen: vec![true; cells.cells.len()],
            cells,
            models: &identities,
            data_files: &data_files,
            history: &self.history,
            outcome: &|_, _| None,
        })
        .unwrap()
    }

    /// Read from a new folder each time, so that a key which depended on the place would show.
    fn recipe(&self) -> LoadedRecipe {
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("embedded");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/embedded")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            let text = fs::read_to_string(&path).unwrap();
            let edits = self.recipe_edits.iter().filter(|(file, _, _)| *file == name);
            let text = edits.fold(text, |text, (_, old, new)| replaced(&text, old, new));
            fs::write(copy.join(name), text).unwrap();
        }
        LoadedRecipe::load(RecipeFiles::find("embedded", Some(folder.path())).unwrap()).unwrap()
    }

    fn identities(&self, manifest: &Manifest) -> BTreeMap<String, ModelIdentity> {
        let identity = |model: &Model| match model {
            Model::Hf(model) => ModelIdentity::Hf {
                repo: model.repo.clone(),
                commit: model.revision.clone(),
                pinned: true,
                files: model.files.clone(),
            },
            Model::Path(path) => {
                ModelIdentity::Path { files: BTreeMap::from([("config.json".to_owned(), path.display().to_string())]) }
            }
            Model::Package(model) => {
                ModelIdentity::Package { requirement: model.requirement.clone(), files: model.files.clone() }
            }
            Model::Dummy(model) => ModelIdentity::Dummy {
                model: model.clone(),
                seed: model.seed.unwrap_or(manifest.seed),
                generator: self.generator,
            },
        };
        manifest.models.iter().map(|(name, model)| (name.clone(), identity(model))).collect()
    }
}

fn replaced(text: &str, old: &str, new: &str) -> String {
    assert_eq!(text.matches(old).count(), 1, "`{old}` is there once");
    text.replace(old, new)
}

/// Kind to keys of all that a cell's results come from.
type Keys = BTreeMap<&'static str, Vec<StepKey>>;

fn keys_of(plan: &Plan, cell: &PlannedCell) -> Keys {
    let CellState::Planned { server } = cell.state else { return Keys::new() };
    let mut keys = Keys::new();
    for &step in plan.steps[server].chain.iter().chain([&server]) {
        keys.insert(plan.steps[step].kind.name(), vec![plan.steps[step].key.clone()]);
    }
    let points = plan.points[cell.points.clone()].iter().filter_map(|point| point.key().cloned());
    keys.insert("point", points.collect());
    keys
}

/// The kinds whose keys differ in any cell, cells compared by position.
fn changed(old: &Plan, new: &Plan) -> String {
    assert_eq!(old.cells.len(), new.cells.len());
    let kinds = ["fetch", "quantize", "build", "render", "bench", "point"];
    let cells: Vec<(Keys, Keys)> =
        old.cells.iter().zip(&new.cells).map(|(a, b)| (keys_of(old, a), keys_of(new, b))).collect();
    let differ = |kind: &&str| cells.iter().any(|(a, b)| a.get(*kind) != b.get(*kind));
    kinds.into_iter().filter(differ).collect::<Vec<_>>().join(" ")
}

const ALL_BUT_RENDER: &str = "fetch quantize build bench point";
const FROM_QUANTIZE: &str = "quantize build bench point";
const FROM_BUILD: &str = "build bench point";
const FROM_RENDER: &str = "render bench point";
const FROM_BENCH: &str = "bench point";
const POINT: &str = "point";
const NOTHING: &str = "";

#[test]
fn a_field_of_the_manifest_changes_the_keys_of_what_it_decides_and_no_other() {
    let table = [
        ("name: sweep", "name: other", NOTHING),
        ("seed: 1\n", "seed: 2\n", NOTHING),
        ("prompts: 5", "prompts: 6", POINT),
        ("sampling: 6", "sampling: 7", POINT),
        ("seeds: {prompts: 5, sampling: 6}\n", "", POINT),
        ("seed: 7", "seed: 8", ALL_BUT_RENDER),
        ("seed: 7, ", "", ALL_BUT_RENDER),
        ("hidden_size: 64", "hidden_size: 128", ALL_BUT_RENDER),
        ("{tiny: ", "{renamed: ", FROM_RENDER),
        ("max_seq_len: 256", "max_seq_len: 512", FROM_BUILD),
        ("threads: 1", "threads: 2", FROM_RENDER),
        ("A: '1'", "A: '2'", FROM_QUANTIZE),
        ("A: '1'", "C: '1'", FROM_QUANTIZE),
        ("A: '1', B: '2'", "B: '2', A: '1'", NOTHING),
        ("127.0.0.1", "127.0.0.2", FROM_BENCH),
        ("[fp16, int8_wo]", "[fp32, int8_wo]", FROM_QUANTIZE),
        ("[1, 4]", "[1, 8]", "build render bench point"),
        ("[[64, 16]]", "[[32, 16]]", POINT),
        ("[[64, 16]]", "[[64, 8]]", POINT),
        ("openai-completions", "openai-chat", POINT),
        ("[1, 2]", "[1, 3]", POINT),
        ("requests: 4", "requests: 5", POINT),
        ("  made:", "  renamed:", POINT),
        ("streaming: true", "streaming: false", POINT),
        ("prompts.jsonl", "elsewhere.jsonl", NOTHING),
        ("{tokens: 8}", "{tokens: 9}", POINT),
        ("{tokens: 8}", "{tokens: 8, mode: at_most}", POINT),
        ("temperature: 0.5", "temperature: 0.6", POINT),
        ("top_k: 40", "top_k: 41", POINT),
        ("top_p: 0.9", "top_p: 0.8", POINT),
        ("[3]", "[4]", POINT),
        ("duration: 10s", "duration: 20s", POINT),
        ("duration: 10s", "duration: 10000ms", NOTHING),
        ("duration: 10s", "requests: 10", POINT),
        ("warmup_requests: 2", "warmup_requests: 3", POINT),
        ("request_timeout: 60s", "request_timeout: 61s", POINT),
        ("point_timeout: 10m", "point_timeout: 11m", NOTHING),
        ("{ttft_ms_p99: {max: 100}}", "{ttft_ms_p50: {max: 10}}", NOTHING),
        ("point_timeout: 10m", "point_timeout: 10m\n    slo: {ttft_ms: 200}", NOTHING),
        ("{ready: 5m}", "{ready: 6m, fetch: 1h, step: 1h, stop: 5s}", NOTHING),
    ];
    let before = World::default().plan();
    for (old, new, expected) in table {
        assert_eq!(changed(&before, &World::with_edit(old, new).plan()), expected, "`{old}` to `{new}`");
    }
}

#[test]
fn sources_of_a_model_decide_all_that_comes_of_it() {
    let with = |model: &str| World::with_edit("{dummy: {seed: 7, config: {hidden_size: 64}}}", model).plan();
    let hub = with("{hf: {repo: a/b, revision: c1}}");
    for model in [
        "{hf: {repo: a/c, revision: c1}}",
        "{hf: {repo: a/b, revision: c2}}",
        "{hf: {repo: a/b, revision: c1, files: ['*.bin']}}",
        "{path: m1}",
        "{dummy: {}}",
    ] {
        assert_eq!(changed(&hub, &with(model)), ALL_BUT_RENDER, "{model}");
    }
    assert_eq!(changed(&with("{path: m1}"), &with("{path: m2}")), ALL_BUT_RENDER);
}

#[test]
fn recipe_programs_and_data_change_the_keys_of_what_they_decide_and_no_other() {
    let edit = |file, old, new| World { recipe_edits: vec![(file, old, new)], ..World::default() };
    let table = [
        (World { program_version: "1.1", ..World::default() }, FROM_QUANTIZE),
        (World { data_hash: "d2", ..World::default() }, POINT),
        (World { generator: 2, ..World::default() }, ALL_BUT_RENDER),
        (edit("recipe.yaml", "engine: embedded", "# a comment\nengine: embedded"), NOTHING),
        (edit("recipe.yaml", "about: benchrun's", "about: our"), NOTHING),
        (edit("recipe.yaml", "hint: another program took", "hint: some program took"), NOTHING),
        (edit("recipe.yaml", "- --max-seq-len", "- --longest"), FROM_BUILD),
        (edit("recipe.yaml", "engine, quantize,", "engine, quantise,"), FROM_QUANTIZE),
        (edit("recipe.yaml", "engine, serve,", "engine, start,"), FROM_BENCH),
        (edit("recipe.yaml", "served_model: \"{{ model }}\"", "served_model: \"the {{ model }}\""), FROM_BENCH),
        (edit("recipe.yaml", "batch_size > 256", "batch_size > 255"), NOTHING),
        (edit("serve.yaml.j2", "max_batch_size:", "max_batch:"), FROM_RENDER),
    ];
    let before = World::default().plan();
    for (index, (world, expected)) in table.into_iter().enumerate() {
        assert_eq!(changed(&before, &world.plan()), expected, "row {index}: {:?}", world.recipe_edits);
    }
}

/// Keys by what identifies a cell for its reader: its values, whatever their order.
fn by_values(plan: &Plan) -> BTreeMap<String, Keys> {
    let name = |cell: &PlannedCell| {
        let values =
            plan.axes.iter().zip(&cell.values).filter_map(|(axis, value)| Some(format!("{axis}={}", value.as_ref()?)));
        values.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(",")
    };
    let planned = plan.cells.iter().filter(|cell| matches!(cell.state, CellState::Planned { .. }));
    planned.map(|cell| (name(cell), keys_of(plan, cell))).collect()
}

#[test]
fn what_is_beside_a_cell_does_not_change_its_keys() {
    let before = by_values(&World::default().plan());
    let edits = [
        ("[fp16, int8_wo]", "[int8_wo, fp16]", 4),
        ("[fp16, int8_wo]", "[fp16]", 2),
        ("[1, 4]", "[4, 2, 1]", 4),
        ("precision: [fp16, int8_wo], batch_size: [1, 4]", "batch_size: [1, 4], precision: [fp16, int8_wo]", 4),
        ("isl/osl: [[64, 16]]", "osl/isl: [[16, 64]]", 4),
        ("isl/osl: [[64, 16]]", "isl: [64], osl: [16]", 4),
        ("isl/osl: [[64, 16]]", "isl/osl: [[8, 8], [64, 16]]", 4),
        ("[[64, 16]]}", "[[64, 16]]}\n  include: [{batch_size: 64}]", 4),
        ("[[64, 16]]}", "[[64, 16]]}\n  exclude: [{where: {precision: fp16, batch_size: 1}, because: slow}]", 3),
        ("{tiny: ", "{other: {dummy: {}}, tiny: ", 4),
        ("{max_seq_len: 256, threads: 1}", "{threads: 1, max_seq_len: 256}", 4),
    ];
    for (old, new, survivors) in edits {
        let after = by_values(&World::with_edit(old, new).plan());
        let common: Vec<&String> = before.keys().filter(|cell| after.contains_key(*cell)).collect();
        assert_eq!(common.len(), survivors, "`{new}`: {:?}", after.keys());
        for cell in common {
            assert_eq!(before[cell], after[cell], "`{new}`: {cell}");
        }
    }
}

#[test]
fn more_rounds_or_concurrencies_or_phases_keep_the_points_that_were_there() {
    let points =
        |plan: &Plan| -> HashSet<StepKey> { plan.points.iter().filter_map(|point| point.key().cloned()).collect() };
    let before = points(&World::default().plan());
    for (old, new) in [
        ("requests: 4", "requests: 4\n    rounds: 3"),
        ("[1, 2]", "[8, 2, 1]"),
        ("  made:", "  more: {protocol: openai-chat, concurrency: [1], requests: 1}\n  made:"),
    ] {
        let after = points(&World::with_edit(old, new).plan());
        assert!(after.len() > before.len() && before.is_subset(&after), "`{new}`");
    }
}

#[test]
fn cells_share_a_server_exactly_when_it_would_be_started_alike() {
    let plan = World::with_edit(
        "axes: {precision: [fp16, int8_wo], batch_size: [1, 4], isl/osl: [[64, 16]]}",
        "axes: {model: [tiny, other], precision: [fp16, int8_wo], batch_size: [1, 4], threads: [1, 2], \
         isl/osl: [[64, 16], [32, 8]], concurrency: [1, 2], temperature: [0.0, 1.0]}",
    );
    let plan = World { manifest: replaced(&plan.manifest, "{tiny: ", "{other: {dummy: {}}, tiny: "), ..plan }.plan();
    let at = |axis: &str| plan.axes.iter().position(|name| name == axis).unwrap();
    let decides = ["model", "precision", "batch_size", "threads"].map(at);
    let server = |cell: &PlannedCell| match cell.state {
        CellState::Planned { server } => server,
        _ => panic!("{} is planned", cell.id),
    };
    for a in &plan.cells {
        for b in &plan.cells {
            let alike = decides.iter().all(|&axis| a.values[axis] == b.values[axis]);
            assert_eq!(server(a) == server(b), alike, "{} and {}", a.id, b.id);
        }
    }
    let count = |kind: StepKind| plan.steps.iter().filter(|step| step.kind == kind).count();
    assert_eq!(StepKind::ALL.map(count), [2, 4, 8, 8, 16], "fetch, quantize, build, render, bench");
}

#[test]
fn equal_models_share_their_files_and_not_their_servers() {
    let plan = World::with_edit("{tiny: ", "{twin: {dummy: {seed: 7, config: {hidden_size: 64}}}, tiny: ").plan();
    let count = |kind: StepKind| plan.steps.iter().filter(|step| step.kind == kind).count();
    assert_eq!(StepKind::ALL.map(count), [1, 2, 4, 4, 8], "the served name differs");
}

#[test]
fn steps_come_after_what_they_read() {
    let plan = World::default().plan();
    for (index, step) in plan.steps.iter().enumerate() {
        assert!(step.inputs.iter().chain(&step.chain).all(|&input| input < index), "{}", step.label);
    }
}

/// All keys of a plan, as after a run that did everything.
fn everything(plan: &Plan) -> HashSet<StepKey> {
    let steps = plan.steps.iter().map(|step| step.key.clone());
    steps.chain(plan.points.iter().filter_map(|point| point.key().cloned())).collect()
}

fn past(plan: &Plan) -> Vec<PastStep> {
    let json = serde_json::to_value(plan).unwrap();
    let listed = ["steps", "points"].into_iter().flat_map(|name| json[name].as_array().unwrap().clone());
    listed.map(|step| serde_json::from_value(step).unwrap()).collect()
}

fn key_of(plan: &Plan, label: &str) -> StepKey {
    let step = plan.steps.iter().find(|step| step.label == label);
    step.unwrap_or_else(|| panic!("no `{label}` among {:?}", labels(plan))).key.clone()
}

fn labels(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.label.as_str()).collect()
}

fn word(state: &State) -> String {
    match state {
        State::Cached => "cached".to_owned(),
        State::NotNeeded => "not needed".to_owned(),
        State::Run => "run".to_owned(),
        State::Stale { changes } => {
            let changes: Vec<String> =
                changes.iter().map(|change| format!("{} {} {}", change.what, change.from, change.to)).collect();
            format!("stale: {}", changes.join(", "))
        }
    }
}

/// The states of the steps, by kind, each different one once; and the number of load points to measure.
fn states(plan: &Plan) -> (BTreeMap<&'static str, BTreeSet<String>>, usize) {
    let mut states: BTreeMap<&'static str, BTreeSet<String>> = BTreeMap::new();
    for step in &plan.steps {
        states.entry(step.kind.name()).or_default().insert(word(&step.state));
    }
    (states, plan.summary().points_to_measure)
}

fn expect(plan: &Plan, expected: [(&'static str, &[&str]); 5], points: usize) {
    let set = |states: &[&str]| states.iter().map(|&state| state.to_owned()).collect::<BTreeSet<_>>();
    let expected: BTreeMap<&'static str, BTreeSet<String>> =
        expected.into_iter().map(|(kind, states)| (kind, set(states))).collect();
    assert_eq!(states(plan), (expected, points));
}

fn after(stored: HashSet<StepKey>) -> Plan {
    World { history: History::new(stored, Vec::new(), HashSet::new()), ..World::default() }.plan()
}

#[test]
fn without_a_history_everything_runs_and_with_all_of_it_nothing_does() {
    let first = World::default().plan();
    let run: &[&str] = &["run"];
    expect(&first, [("fetch", run), ("quantize", run), ("build", run), ("render", run), ("bench", run)], 12);
    let cached: &[&str] = &["cached"];
    let all = [("fetch", cached), ("quantize", cached), ("build", cached), ("render", cached), ("bench", cached)];
    expect(&after(everything(&first)), all, 0);
}

#[test]
fn what_nothing_reads_is_not_made_again() {
    let first = World::default().plan();
    let mut stored = everything(&first);
    for label in ["fetch tiny", "quantize tiny fp16"] {
        stored.remove(&key_of(&first, label));
    }
    let (gone, cached): (&[&str], &[&str]) = (&["not needed"], &["cached"]);
    let (both, bench): (&[&str], &[&str]) = (&["cached", "not needed"], &["cached", "run"]);
    let unread = [("fetch", gone), ("quantize", both), ("build", cached), ("render", cached), ("bench", cached)];
    expect(&after(stored.clone()), unread, 0);

    // One load point to measure: its server reads the model's tokenizer and the build, but no checkpoint.
    let point = first.points.iter().find_map(|point| point.key()).unwrap();
    stored.remove(point);
    let one =
        [("fetch", &["run"] as &[&str]), ("quantize", both), ("build", cached), ("render", cached), ("bench", bench)];
    expect(&after(stored.clone()), one, 1);

    // Its build is gone too: now the checkpoint is read.
    let server = first.server_of(&first.points[0]).unwrap();
    stored.remove(&first.steps[first.steps[server].chain[2]].key);
    let (run, some): (&[&str], &[&str]) = (&["run"], &["cached", "run"]);
    expect(
        &after(stored),
        [("fetch", run), ("quantize", some), ("build", some), ("render", cached), ("bench", some)],
        1,
    );
}

#[test]
fn a_changed_setting_makes_its_steps_stale_and_says_what_changed() {
    let first = World::default().plan();
    let history = History::new(everything(&first), past(&first), HashSet::new());
    let second = World { history, ..World::with_edit("max_seq_len: 256", "max_seq_len: 512") }.plan();
    let (states, points) = states(&second);
    let cached = BTreeSet::from(["cached".to_owned()]);
    assert_eq!((&states["fetch"], &states["quantize"], &states["render"]), (&cached, &cached, &cached));
    assert_eq!(states["build"], BTreeSet::from(["stale: max_seq_len 256 512".to_owned()]));
    assert!(states["bench"].iter().all(|state| state.starts_with("stale: ")), "{:?}", states["bench"]);
    assert_eq!(points, 12);
    for step in second.steps.iter().filter(|step| step.kind == StepKind::Bench) {
        let State::Stale { changes } = &step.state else { panic!("{}", step.label) };
        let what: Vec<&str> = changes.iter().map(|change| change.what.as_str()).collect();
        assert_eq!(what, ["build"], "{}", step.label);
    }
}

#[test]
fn a_changed_axis_value_makes_the_nearest_earlier_step_stale() {
    let first = World::default().plan();
    let history = History::new(everything(&first), past(&first), HashSet::new());
    let second = World { history, ..World::with_edit("[fp16, int8_wo]", "[fp32, int8_wo]") }.plan();
    let (states, points) = states(&second);
    let expected = ["cached", "stale: precision \"fp16\" \"fp32\""].map(str::to_owned);
    assert_eq!(states["quantize"], BTreeSet::from(expected));
    assert_eq!(points, 6);
}

#[test]
fn what_is_new_beside_what_was_there_is_not_stale() {
    let first = World::default().plan();
    let history = History::new(everything(&first), past(&first), HashSet::new());
    let second = World { history, ..World::with_edit("[fp16, int8_wo]", "[fp16, int8_wo, fp32]") }.plan();
    let (new, cached): (&[&str], &[&str]) = (&["cached", "run"], &["cached"]);
    expect(&second, [("fetch", cached), ("quantize", new), ("build", new), ("render", cached), ("bench", new)], 6);
}

#[test]
fn what_is_to_be_done_anew_runs_although_it_is_there() {
    let first = World::default().plan();
    let anew = |kind| {
        let history = History::new(everything(&first), past(&first), HashSet::from([kind]));
        World { history, ..World::default() }.plan()
    };
    let (run, cached): (&[&str], &[&str]) = (&["run"], &["cached"]);
    let bench = [("fetch", cached), ("quantize", cached), ("build", cached), ("render", cached), ("bench", run)];
    expect(&anew(StepKind::Bench), bench, 12);
    let quantize = [("fetch", cached), ("quantize", run), ("build", cached), ("render", cached), ("bench", cached)];
    expect(&anew(StepKind::Quantize), quantize, 0);
}
