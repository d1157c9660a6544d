//! `benchrun bench`: load on a server that is up, without a manifest.

mod bar;
mod profile_export;
mod script;
pub(super) mod script_args;
mod task;

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::args::BenchArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color, width};
use super::{block_on, signals};
use crate::base::{CellId, Scalar, write_atomically};
use crate::event::Event;
use crate::load::{self, CutOff, LoadError, LoadJob, PointRun, RecordSink, Target};
use crate::observe::{Observation, Sent, Watch};
use crate::record::{PointRecord, PointStatus, RequestError, RequestKind, RequestRecord, ServerFacts};
use crate::report::{self, Row};
use crate::spec::{LoadPoint, Volume};
use crate::store::{EventLog, RunFolder, Runs};
use crate::workload::{self, Workload};
use profile_export::ProfileExport;
use script::ScriptFile;
use task::Task;

/// The name that runs without a manifest are kept under, and their phase.
const NAME: &str = "bench";
/// Between two reads of the server's metrics.
const METRICS_PAUSE: Duration = Duration::from_secs(1);

/// Puts load on a server that is up; keeps records as `apply` does.
pub(super) fn run(mut args: BenchArgs, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let task = match args.script.take() {
        Some(script) => script::task(script, home)?,
        None => task::of_flags(args)?,
    };
    for note in &task.notes {
        output.remark(&format!("note: {note}"));
    }
    let began = Instant::now();
    let cancel = CancellationToken::new();
    let path = task.export.as_deref();
    let export = path.map(|path| ProfileExport::create(path, task.points[0].protocol)).transpose();
    let export = export.map_err(|source| task.export_failed(source))?;
    let run = Runs::of_home(home).create(NAME, None)?;
    let mut log = EventLog::create(&run)?;
    let mut bench = Bench { task, run, rows: Vec::new(), export };
    let interrupted = block_on(async {
        let _signals = signals::listen(&cancel);
        bench.measure_all(output, &cancel).await
    })?;
    // What was measured is shown and kept, also when a later load point went wrong.
    output.line(report::table(&bench.rows, width(), color()).trim_end())?;
    bench.finish_script(output)?;
    output.remark(&format!("\nresults: {}", bench.run.path.join("results.csv").display()));
    bench.finish_export()?;
    let failed = bench.rows.iter().filter(|row| row.point.status == PointStatus::Failed).count();
    log.append(Event::RunFinished {
        ok: (bench.rows.len() - failed) as u64,
        failed: failed as u64,
        unsupported: 0,
        skipped: 0,
        cached: 0,
        seconds: began.elapsed().as_secs_f64(),
    })?;
    Ok(match (interrupted?, failed > 0) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Failed,
        (false, false) => Exit::Done,
    })
}

struct Bench {
    task: Task,
    run: RunFolder,
    rows: Vec<Row>,
    export: Option<ProfileExport>,
}

impl Bench {
    /// `true` when interrupted.
    async fn measure_all(&mut self, output: &mut Output, cancel: &CancellationToken) -> Result<bool, Failure> {
        for (index, point) in self.task.points.clone().into_iter().enumerate() {
            let pause = tokio::time::sleep(self.task.pause);
            if index > 0 && cancel.run_until_cancelled(pause).await.is_none() {
                return Ok(true);
            }
            let workload = self.workload(&point)?;
            output.remark(&format!("{}: {}", words(&point), volume(&point)));
            if self.measure(&point, workload, output, cancel).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn workload(&self, point: &LoadPoint) -> Result<Workload, Failure> {
        let tokenizer = self.task.tokenizer.as_deref().ok_or("give `--tokenizer-path DIR`");
        let source = self.task.source.as_ref();
        let bar = source.map(bar::counting);
        let workload = workload::make(point, source, tokenizer);
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        Ok(workload?)
    }

    async fn measure(
        &mut self,
        point: &LoadPoint,
        workload: Workload,
        output: &mut Output,
        cancel: &CancellationToken,
    ) -> Result<bool, Failure> {
        let folder = self.run.point(&server_cell(), &point.phase, &point.arrival.label());
        fs::create_dir_all(&folder).map_err(|source| Failure::File {
            doing: "create",
            path: folder.clone(),
            source,
        })?;
        let records = folder.join("requests.jsonl");
        let observation = self.observe(&folder).await;
        let warmup = observation.marker(point.warmup_requests);
        let job = LoadJob {
            target: Target {
                protocol: point.protocol,
                base_url: with_scheme(&self.task.url),
                model: self.task.model.clone(),
            },
            point: point.clone(),
            workload: workload.clone(),
            tokenizer: self.task.tokenizer.clone(),
        };
        let zero_ns = now_ns();
        let ran = load::run(job, RecordSink::create(&records)?, move |requests| warmup.ended(requests), cancel.clone());
        let (ran, not_begun) = match ran.await {
            Ok(ran) => (ran, None),
            // Over another protocol, each request would say that the server does not answer.
            Err(error @ (LoadError::Metadata { .. } | LoadError::Chatbot { .. })) => {
                (PointRun::default(), Some(error.to_string()))
            }
            Err(error) => return Err(error.into()),
        };
        observation.load_ended();
        let read = |source| Failure::File { doing: "read", path: records.clone(), source };
        let answers = Answers { not_begun, ..Answers::read(&records).map_err(read)? };
        let (server, complaints) = observation.finish(&answers.sent).await;
        for complaint in complaints {
            output.remark(&format!("warning: {complaint}"));
        }
        if let Some(export) = &mut self.export {
            let requests = read_records(&records).map_err(read)?;
            export
                .add(point, &workload.prompts, zero_ns, requests)
                .map_err(|source| self.task.export_failed(source))?;
        }
        let cut_off = ran.cut_off;
        self.keep(&folder, &self.record(point, &answers, ran, server, workload.hash(point)))?;
        for warning in self.rows.last().map(Row::warnings).unwrap_or_default() {
            output.remark(&format!("warning: {}: {warning}", point.arrival.label()));
        }
        Ok(cut_off == Some(CutOff::Cancelled))
    }

    async fn observe(&self, folder: &Path) -> Observation {
        let observation = Observation::start(Watch {
            metrics_url: self.task.metrics_url.as_deref().map(with_scheme),
            statistics_url: None,
            pause: METRICS_PAUSE,
            model: self.task.model.clone(),
            series: folder.join("metrics.jsonl"),
            processes: None,
            gpus: Vec::new(),
            gpu_memory_mib_before: None,
        });
        observation.await
    }

    fn record(
        &self,
        point: &LoadPoint,
        answers: &Answers,
        ran: PointRun,
        server: ServerFacts,
        workload: String,
    ) -> PointRecord {
        let reason = answers.reason(ran.cut_off);
        PointRecord {
            order: self.rows.len() as u64,
            cell: server_cell(),
            engine: self.task.engine.clone(),
            axes: self.axes(point),
            phase: point.phase.clone(),
            method: point.method,
            load_point: point.arrival.label(),
            protocol: point.protocol,
            arrival: point.arrival.name().to_owned(),
            concurrency: point.arrival.concurrency(),
            request_rate: point.arrival.rate(),
            constant_load: point.arrival.is_constant(),
            slo: None,
            round: 1,
            series: None,
            status: if reason.is_none() { PointStatus::Ok } else { PointStatus::Failed },
            reason,
            measured_in: Some(self.run.id.clone()),
            workload: Some(workload),
            client: ran.client,
            server,
        }
    }

    /// Writes what is known of a load point besides its requests, and the results anew.
    fn keep(&mut self, folder: &Path, record: &PointRecord) -> Result<(), Failure> {
        let path = folder.join("point.json");
        let text = serde_json::to_vec_pretty(record).expect("records are plain data");
        write_atomically(&path, &text).map_err(|source| Failure::File { doing: "write", path, source })?;
        self.rows.push(report::read_point(&self.run.id, folder)?);
        Ok(report::save(&self.run.id, &self.rows, &self.run.path)?)
    }

    /// The model, and what a script's command line decided for all requests.
    fn axes(&self, point: &LoadPoint) -> IndexMap<String, Scalar> {
        let model = Scalar::Text(self.task.model.clone());
        let mut axes = IndexMap::from([("model".to_owned(), model)]);
        let number = |tokens: u32| Scalar::Int(i64::from(tokens));
        let isl = fixed_lengths(point).map(|[isl, _]| isl);
        let osl = point.output.tokens.number().filter(|_| point.method.is_some());
        axes.extend(isl.map(|isl| ("isl".to_owned(), number(isl))));
        axes.extend(osl.map(|osl| ("osl".to_owned(), number(osl))));
        axes
    }

    /// Writes the script's CSV file, and shows its figures beside the correct ones.
    fn finish_script(&self, output: &mut Output) -> Result<(), Failure> {
        let Some(ScriptFile { path, append }) = &self.task.csv else { return Ok(()) };
        let points = report::lmdeploy_points(&self.run.path.join("cells"))?;
        report::write_lmdeploy_csv(&points, path, *append)?;
        output.line("")?;
        output.line(report::lmdeploy_table(&points, &self.rows, color()).trim_end())?;
        output.remark(&format!("\nthe script's file: {}", path.display()));
        Ok(())
    }

    fn finish_export(&mut self) -> Result<(), Failure> {
        match self.export.take() {
            Some(export) => export.finish().map_err(|source| self.task.export_failed(source)),
            None => Ok(()),
        }
    }
}

/// How the requests of a load point ended.
#[derive(Default)]
struct Answers {
    sent: Sent,
    any_good: bool,
    first_error: Option<RequestError>,
    /// Why no request was sent.
    not_begun: Option<String>,
}

impl Answers {
    fn read(records: &Path) -> io::Result<Self> {
        let mut answers = Self::default();
        for record in read_records(records)? {
            let record = record?;
            answers.sent.add(&record);
            answers.any_good |= record.kind == RequestKind::Measure && record.error.is_none();
            answers.first_error = answers.first_error.or(record.error);
        }
        Ok(answers)
    }

    /// Why the load point failed, if it did.
    fn reason(&self, cut_off: Option<CutOff>) -> Option<String> {
        match cut_off {
            Some(CutOff::Cancelled) => Some("interrupted".to_owned()),
            Some(CutOff::PointTimeout) => Some("cut off after a day".to_owned()),
            None if self.any_good => None,
            None => {
                let of_request = || self.first_error.as_ref().map(|error| format!("{}: {}", error.kind, error.message));
                Some(self.not_begun.clone().or_else(of_request).unwrap_or_default())
            }
        }
    }
}

fn read_records(path: &Path) -> io::Result<impl Iterator<Item = io::Result<RequestRecord>>> {
    let lines = BufReader::new(File::open(path)?).lines();
    Ok(lines.map(|line| Ok(serde_json::from_str(&line?)?)))
}

/// There is one server, and nothing is known of its settings.
fn server_cell() -> CellId {
    CellId::new("server".to_owned())
}

/// What tells a load point from the others, in words.
fn words(point: &LoadPoint) -> String {
    let load = match point.arrival.concurrency() {
        Some(concurrency) => format!("concurrency {concurrency}"),
        None => point.arrival.label(),
    };
    match fixed_lengths(point) {
        Some([isl, osl]) => format!("{load}, {isl} tokens to {osl}"),
        None => load,
    }
}

/// The lengths of a published method that are the same for all requests.
fn fixed_lengths(point: &LoadPoint) -> Option<[u32; 2]> {
    let isl = point.data.as_synthetic()?.isl.fixed()?;
    Some([isl, point.output.tokens.number()?]).filter(|_| point.method.is_some())
}

fn volume(point: &LoadPoint) -> String {
    match point.volume {
        Volume::Requests(requests) => format!("{} requests", requests + point.warmup_requests),
        Volume::DurationS(seconds) => format!("{seconds} s"),
    }
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// Nanoseconds since 1970.
fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
