use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{PlanError, Values, series};
use crate::base::{Digest, Scalar};
use crate::manifest::{Duration, Manifest, Phase, PhaseData, Ramp, Stage, StageRate};
use crate::spec::{
    Amount, Arrival, ConcurrencyStage, Data, Distribution, LoadPoint, Method, Output, OutputTokens, Protocol,
    RateStage, Sampling, Series, Synthetic, Volume,
};

/// Fields of a phase that an axis of the same name overrides.
pub(super) const PHASE_AXES: [&str; 12] = [
    "protocol",
    "streaming",
    "temperature",
    "top_k",
    "top_p",
    "concurrency",
    "request_rate",
    "requests",
    "warmup_requests",
    "rounds",
    "isl",
    "osl",
];

/// A load point with the digest of all that decides its requests.
#[derive(Clone, Debug)]
pub(super) struct Load {
    pub point: Arc<LoadPoint>,
    /// `c4`, or `c4-r2` in later rounds.
    pub name: String,
    /// Over the load point and its data.
    pub digest: Arc<str>,
    /// What the prompts are drawn from: a file's sha256, or the model whose tokenizer makes them.
    pub data: Arc<str>,
}

/// Load points of a phase that are all measured, or of which a series chooses.
#[derive(Debug)]
pub(super) struct Loads {
    pub series: Option<Arc<Series>>,
    pub all: Vec<Load>,
}

/// What a recipe is told of a phase, to say whether a cell can do what it asks.
#[derive(Debug, Serialize)]
pub(super) struct PhaseFacts {
    protocol: &'static str,
    streams: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    isl: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u32>,
}

impl PhaseFacts {
    pub(super) fn of(point: &LoadPoint) -> Self {
        let tokens = match &point.output.tokens {
            OutputTokens::Amount(amount) => Some(longest_meant(amount)),
            OutputTokens::Data(_) => None,
        };
        Self {
            protocol: point.protocol.name(),
            streams: point.streams(),
            isl: point.data.as_synthetic().map(|synthetic| longest_meant(&synthetic.isl)),
            tokens,
        }
    }
}

/// The longest of what is sure to come: where a bell curve ends is no wish of the user's, its mean is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the schema keeps it in range")]
fn longest_meant(amount: &Amount) -> u32 {
    match amount {
        Amount::Drawn(Distribution::Normal(spread) | Distribution::Lognormal(spread)) => {
            (spread.mean as u32).min(spread.max)
        }
        Amount::Fixed(_) | Amount::Drawn(Distribution::Uniform(_) | Distribution::Histogram(_)) => amount.largest(),
    }
}

/// The load points of a manifest's phases where no axis decides any of their settings, in order.
pub fn load_points(manifest: &Manifest) -> Result<Vec<LoadPoint>, PlanError> {
    let files = HashMap::new();
    let mut phases = Phases::new(manifest, &[], &files);
    let mut points = Vec::new();
    for index in 0..manifest.benchmarks.len() {
        let loads = phases.loads(index, &Values::default(), "")?;
        points.extend(loads.iter().flat_map(|loads| &loads.all).map(|load| LoadPoint::clone(&load.point)));
    }
    Ok(points)
}

type Memo = HashMap<(usize, Vec<Option<Scalar>>), Arc<[Loads]>>;

/// Resolves phases to load points, once for each combination of the values that they use.
pub(super) struct Phases<'a> {
    manifest: &'a Manifest,
    /// sha256 by path, as the manifest has it.
    files: &'a HashMap<PathBuf, String>,
    /// Those of [`PHASE_AXES`] that the matrix has.
    axes: Vec<&'static str>,
    memo: Memo,
}

impl<'a> Phases<'a> {
    pub(super) fn new(manifest: &'a Manifest, axes: &[String], files: &'a HashMap<PathBuf, String>) -> Self {
        let axes = PHASE_AXES.into_iter().filter(|&name| axes.iter().any(|axis| axis == name)).collect();
        Self { manifest, files, axes, memo: HashMap::new() }
    }

    /// The load points of the phase at `index` for a cell with these values, whose model's key is `model`.
    pub(super) fn loads(&mut self, index: usize, values: &Values, model: &str) -> Result<Arc<[Loads]>, PlanError> {
        let mut used: Vec<Option<Scalar>> = self.axes.iter().map(|name| values.axis(name).cloned()).collect();
        used.extend([Some(Scalar::from(model)), values.get("beam_width").cloned()]);
        let memo_key = (index, used);
        if let Some(loads) = self.memo.get(&memo_key) {
            return Ok(loads.clone());
        }
        let (name, phase) = self.manifest.benchmarks.get_index(index).expect("the index runs over the phases");
        let loads: Arc<[Loads]> = self.resolve(name, phase, values, model)?.into();
        self.memo.insert(memo_key, loads.clone());
        Ok(loads)
    }

    fn resolve(&self, name: &str, phase: &Phase, values: &Values, model: &str) -> Result<Vec<Loads>, PlanError> {
        let phase = &*phase.with_method();
        let overridden = |field: &'static str| Override { phase: name, field, value: values.axis(field) };
        let missing = |what: &'static str| PlanError::NoLength { phase: name.to_owned(), what };
        let data = resolved(&phase.data, || overridden("isl").given())?.ok_or(missing("isl"))?;
        let digest = data.path().map_or(model, |path| self.files.get(path).map_or("missing", String::as_str));
        let tokens = match (&phase.output.tokens, &data) {
            (Some(tokens), _) => Some(tokens.clone()),
            (None, Data::Trace(_)) => Some(OutputTokens::FROM_DATA),
            (None, _) => overridden("osl").given()?,
        };
        let output = Output { mode: phase.output.mode, tokens: tokens.ok_or(missing("osl"))? };
        let requests = overridden("requests").given()?.or(phase.requests);
        let searched = series::search(phase);
        let arrivals = match &searched {
            Some((_, arrivals)) => arrivals.clone(),
            None => arrivals(name, phase, requests, values)?,
        };
        let seeds = &self.manifest.seeds;
        let template = LoadPoint {
            phase: name.to_owned(),
            method: phase.method,
            protocol: overridden("protocol").given::<Protocol>()?.or(phase.protocol).ok_or(missing("protocol"))?,
            streaming: overridden("streaming").given()?.unwrap_or(phase.streaming),
            data,
            output,
            sampling: Sampling {
                temperature: overridden("temperature").given()?.unwrap_or(phase.sampling.temperature),
                top_k: overridden("top_k").given()?.or(phase.sampling.top_k),
                top_p: overridden("top_p").given()?.or(phase.sampling.top_p),
            },
            beam_width: beam_width(values),
            arrival: Arrival::Closed { concurrency: 1 },
            volume: Volume::Requests(1),
            drain_s: phase.drain.as_ref().map(seconds),
            warmup_requests: 0,
            round: 0,
            prompt_seed: seeds.prompts.unwrap_or(self.manifest.seed),
            sampling_seed: seeds.sampling.unwrap_or(self.manifest.seed),
            arrival_seed: seeds.arrivals.unwrap_or(self.manifest.seed),
            cold_connections: phase.cold_connections,
            retries: phase.retries,
            request_timeout_s: seconds(&phase.request_timeout),
            idle_timeout_s: phase.idle_timeout.as_ref().map(seconds),
            point_timeout_s: seconds(&phase.point_timeout),
        };
        let until = series::until(phase);
        let rounds = match searched.as_ref().map(|(series, _)| series).or(until.as_ref()).map(Arc::as_ref) {
            Some(Series::Search(search)) => search.repeats,
            Some(Series::Until(until)) => until.max_rounds,
            None => overridden("rounds").given()?.unwrap_or(phase.rounds),
        };
        let warmup: Option<u64> = overridden("warmup_requests").given()?.or(phase.warmup_requests);
        let digest: Arc<str> = digest.into();
        let mut points = Vec::new();
        for arrival in &arrivals {
            let amount = phase.method.map(|method| method.defaults().amount);
            let requests = requests.or(amount.map(|amount| amount.requests(arrival)));
            let volume = volume(requests, phase, arrival).ok_or(missing("requests"))?;
            for round in 1..=rounds {
                let of_method = amount.map(|amount| amount.warmup_requests(arrival));
                let warmup_requests = warmup.or(of_method).unwrap_or_else(|| default_warmup(arrival));
                let point = LoadPoint { arrival: arrival.clone(), volume, warmup_requests, round, ..template.clone() };
                points.push(load(point, &digest));
            }
        }
        match (searched, until) {
            (Some((search, _)), _) => Ok(vec![Loads { series: Some(search), all: points }]),
            (None, Some(until)) => {
                let chunks = points.chunks(rounds as usize);
                Ok(chunks.map(|rounds| Loads { series: Some(until.clone()), all: rounds.to_vec() }).collect())
            }
            (None, None) => Ok(vec![Loads { series: None, all: points }]),
        }
    }
}

/// What the engine is set to: one that searches with several beams wants each request to say so.
fn beam_width(values: &Values) -> u32 {
    match values.get("beam_width") {
        Some(Scalar::Int(beams)) => u32::try_from(*beams).unwrap_or(1),
        Some(_) | None => 1,
    }
}

/// One for each load point of the phase. The reader checked that exactly one kind is given.
fn arrivals(name: &str, phase: &Phase, requests: Option<u64>, values: &Values) -> Result<Vec<Arrival>, PlanError> {
    let overridden = |field: &'static str| Override { phase: name, field, value: values.axis(field) };
    let (spacing, max_concurrency) = (phase.spacing, phase.max_concurrency);
    if let Some(replay) = &phase.trace {
        return Ok(vec![Arrival::Trace { speed: replay.speed, max_concurrency }]);
    }
    if !phase.stages.is_empty() {
        return Ok(vec![staged(phase)]);
    }
    let rate = overridden("request_rate").given()?.filter(|_| phase.concurrency.is_empty());
    let rates = rate.map_or_else(|| phase.request_rate.clone(), |one| vec![one]);
    if !rates.is_empty() {
        return Ok(rates.into_iter().map(|rate| Arrival::Open { spacing, rate, max_concurrency }).collect());
    }
    if let Some(method @ Method::Serving) = phase.method {
        // The script sends everything at once.
        let all = requests.unwrap_or_else(|| method.defaults().amount.requests(&Arrival::Closed { concurrency: 1 }));
        return Ok(vec![Arrival::Closed { concurrency: u32::try_from(all).unwrap_or(u32::MAX) }]);
    }
    let concurrency = overridden("concurrency").given()?.map_or_else(|| phase.concurrency.clone(), |one| vec![one]);
    if concurrency.is_empty() {
        return Err(PlanError::NoLength { phase: name.to_owned(), what: "concurrency" });
    }
    Ok(concurrency.into_iter().map(|concurrency| Arrival::Closed { concurrency }).collect())
}

/// `None` without a length. Where the phase has none, `isl` may.
fn resolved<E>(data: &PhaseData, isl: impl FnOnce() -> Result<Option<Amount>, E>) -> Result<Option<Data>, E> {
    Ok(Some(match data {
        Data::Synthetic(given) => {
            let Some(isl) = given.isl.clone().map_or_else(isl, |isl| Ok(Some(isl)))? else { return Ok(None) };
            Data::Synthetic(Synthetic {
                isl,
                prefix: given.prefix.clone(),
                turns: given.turns.clone().unwrap_or(Amount::Fixed(1)),
                think_time_ms: given.think_time_ms.clone(),
                token_ids: given.token_ids,
            })
        }
        Data::Jsonl(file) => Data::Jsonl(file.clone()),
        Data::Sharegpt(file) => Data::Sharegpt(file.clone()),
        Data::HfDataset(file) => Data::HfDataset(file.clone()),
        Data::Csv(file) => Data::Csv(file.clone()),
        Data::Trace(file) => Data::Trace(file.clone()),
    }))
}

fn staged(phase: &Phase) -> Arrival {
    let concurrency: Option<Vec<ConcurrencyStage>> = phase
        .stages
        .iter()
        .map(|stage| Some(ConcurrencyStage { concurrency: stage.concurrency?, duration_s: seconds(&stage.duration) }))
        .collect();
    if let Some(stages) = concurrency {
        return Arrival::ClosedStages { stages };
    }
    let rate = |stage: &Stage| {
        let (from, to) = match stage.request_rate {
            Some(StageRate::Steady(rate)) => (rate, rate),
            Some(StageRate::Ramp(Ramp { from, to })) => (from, to),
            None => (0.0, 0.0),
        };
        RateStage { from, to, duration_s: seconds(&stage.duration) }
    };
    Arrival::OpenStages {
        spacing: phase.spacing,
        stages: phase.stages.iter().map(rate).collect(),
        max_concurrency: phase.max_concurrency,
    }
}

/// Where a load point ends; stages and a trace have an end of their own.
fn volume(requests: Option<u64>, phase: &Phase, arrival: &Arrival) -> Option<Volume> {
    let stages_s = match arrival {
        Arrival::Closed { .. } | Arrival::Open { .. } => None,
        Arrival::ClosedStages { stages } => Some(stages.iter().map(|stage| stage.duration_s).sum()),
        Arrival::OpenStages { stages, .. } => Some(stages.iter().map(|stage| stage.duration_s).sum()),
        // Longer than any trace.
        Arrival::Trace { .. } => Some(1e9),
    };
    let duration_s = phase.duration.as_ref().map(seconds).or(stages_s);
    requests.map(Volume::Requests).or(duration_s.map(Volume::DurationS))
}

/// Fills every slot of a closed loop once; in open loop the first second.
fn default_warmup(arrival: &Arrival) -> u64 {
    match arrival {
        Arrival::Closed { concurrency } => u64::from(*concurrency),
        Arrival::ClosedStages { stages } => stages.first().map_or(0, |stage| u64::from(stage.concurrency)),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the schema keeps it in range")]
        Arrival::Open { rate, .. } => rate.ceil() as u64,
        Arrival::OpenStages { .. } | Arrival::Trace { .. } => 0,
    }
}

fn seconds(duration: &Duration) -> f64 {
    duration.as_std().as_secs_f64()
}

fn load(point: LoadPoint, data: &Arc<str>) -> Load {
    let text = serde_json::to_string(&identity(&point)).expect("load points are plain data");
    let name = match point.round {
        1 => point.arrival.label(),
        round => format!("{}-r{round}", point.arrival.label()),
    };
    let digest = Digest::of(format!("{data} {text}").as_bytes()).into();
    Load { point: Arc::new(point), name, digest, data: data.clone() }
}

/// What of a load point enters its key: a data file counts by its content, not by where it lies; what was measured
/// whole was not cut off by a time limit; and a closed loop draws no moments of arrival.
pub(super) fn identity(point: &LoadPoint) -> LoadPoint {
    let mut data = point.data.clone();
    if let Some(path) = data.path_mut() {
        path.clear();
    }
    let arrival_seed = if point.arrival.is_open_loop() { point.arrival_seed } else { 0 };
    LoadPoint { data, arrival_seed, point_timeout_s: 0.0, ..point.clone() }
}

/// An axis that may stand in for a phase's field.
struct Override<'a> {
    phase: &'a str,
    field: &'static str,
    value: Option<&'a Scalar>,
}

impl Override<'_> {
    fn given<T: DeserializeOwned>(&self) -> Result<Option<T>, PlanError> {
        let Some(value) = self.value else { return Ok(None) };
        let json = serde_json::to_value(value).expect("scalars are plain data");
        serde_json::from_value(json).map(Some).map_err(|source| PlanError::AxisForPhase {
            phase: self.phase.to_owned(),
            axis: self.field,
            value: value.clone(),
            source,
        })
    }
}
