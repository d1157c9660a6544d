//! The client's certificate: before a load point is measured, the busiest part of its schedule and its prompts go to a
//! server without a model that keeps the cadence of the one to be measured. What is seen there beyond the timetable is the client's and the
//! host's own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Job, Message};
use crate::event::Event;
use crate::exec::StepError;
use crate::exec::publish::REQUESTS;
use crate::load::{self, LoadJob, RecordSink, Target};
use crate::plan::Point;
use crate::process::{CommandSpec, Server};
use crate::record::{Certificate, RequestKind, RequestRecord};
use crate::spec::{LoadPoint, Protocol};
use crate::stats::{Cadence, certify};

/// So much of a load point is replayed at most, and as much before it so that answers are under way.
const LONGEST_S: f64 = 5.0;
/// Measured requests that a cadence or a certificate is read from, at most.
const READ_REQUESTS: usize = 10_000;
/// How long the server without a model may take to open its port, and between two looks for that.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What is known of the load points of a server.
#[derive(Default)]
pub(super) struct Certifier {
    /// The last one measured: its phase, and how the server answered.
    last: Option<(String, Cadence)>,
    /// Of load points that differ in more than the round.
    certificates: Vec<(LoadPoint, Certificate)>,
}

impl Certifier {
    /// Before a load point is measured: the certificate at the cadence that the server had at the last one of the phase,
    /// or at the default one. One round's stands for all rounds. `None` where the manifest wants none, and where none
    /// could be had, which a warning says: the measurement stands all the same.
    pub(super) async fn before(
        &mut self,
        job: &Job,
        point: &Point,
        load: &LoadJob,
        cancel: &CancellationToken,
    ) -> Option<Certificate> {
        // Times that the engine takes itself have nothing of the client in them.
        if load.point.protocol == Protocol::InProcess || !job.prepared.document.value.certifies(&load.point.phase) {
            return None;
        }
        let any_round = LoadPoint { round: 1, ..load.point.clone() };
        if let Some((_, known)) = self.certificates.iter().find(|(known, _)| *known == any_round) {
            return Some(*known);
        }
        let last = self.last.as_ref().filter(|(phase, _)| *phase == load.point.phase);
        let cadence = last.map(|(_, cadence)| *cadence).unwrap_or_default();
        let certificate = issue(job, point, load, cadence, cancel).await?;
        self.certificates.push((any_round, certificate));
        Some(certificate)
    }

    /// After it was measured, with `records`. A server that was faster than what was replayed is replayed once more, as it
    /// was.
    pub(super) async fn after(
        &mut self,
        job: &Job,
        point: &Point,
        load: &LoadJob,
        records: &Path,
        certificate: Option<Certificate>,
        cancel: &CancellationToken,
    ) -> Option<Certificate> {
        let certificate = certificate?;
        let Some(cadence) = read(records).ok().and_then(|records| Cadence::of(&records)) else {
            return Some(certificate);
        };
        self.last = Some((load.point.phase.clone(), cadence));
        if !cadence.is_faster_than(&certificate) {
            return Some(certificate);
        }
        let certificate = issue(job, point, load, cadence, cancel).await?;
        for (known, of_other_rounds) in &mut self.certificates {
            if *known == (LoadPoint { round: 1, ..load.point.clone() }) {
                *of_other_rounds = certificate;
            }
        }
        Some(certificate)
    }
}

async fn issue(
    job: &Job,
    point: &Point,
    load: &LoadJob,
    cadence: Cadence,
    cancel: &CancellationToken,
) -> Option<Certificate> {
    let output = &load.point.output;
    let tokens = load.workload.prompts.iter().map(|prompt| prompt.answer_tokens(output)).max().unwrap_or_default();
    let lead_s = (cadence.answer_ms(tokens) / 1000.0).min(LONGEST_S);
    let mut part = load::busiest(load.clone(), LONGEST_S, lead_s);
    part.point.beam_width = 1;
    // The first answers may have come so late. What is under way when the time is over counts as far as it came.
    part.point.point_timeout_s += cadence.ttft_ms / 1000.0;
    match on_null_server(job, point, part, cadence, cancel).await {
        Ok(certificate) => Some(certificate),
        Err(error) if error.is_interruption() => None,
        Err(error) => {
            let cell = job.prepared.plan.cells[point.cell].id.clone();
            let message = format!("{cell}: the client could not be certified: {}", error.report());
            job.tell(Message::Event(Event::Warning { cell: Some(cell), message }));
            None
        }
    }
}

async fn on_null_server(
    job: &Job,
    point: &Point,
    load: LoadJob,
    cadence: Cadence,
    cancel: &CancellationToken,
) -> Result<Certificate, StepError> {
    let folder = tempfile::tempdir().map_err(|source| StepError::Write { path: std::env::temp_dir(), source })?;
    let logs = job.run.cell(&job.prepared.plan.cells[point.cell].id).join("logs").join("certify");
    fs::create_dir_all(&logs).map_err(|source| StepError::Write { path: logs.clone(), source })?;
    let port_file = folder.path().join("port.json");
    let program =
        std::env::current_exe().map_err(|source| StepError::Read { path: "/proc/self/exe".into(), source })?;
    let spec = CommandSpec { args: arguments(cadence, &port_file), ..CommandSpec::new(program, &logs) };
    let mut server = Server::start(&spec).map_err(|source| StepError::Process(Box::new(source)))?;
    let records = folder.path().join(REQUESTS);
    let loaded = async {
        let address = address(&mut server, &port_file, cancel).await?;
        let target = Target { base_url: format!("http://{address}"), ..load.target.clone() };
        let sink = RecordSink::create(&records)?;
        load::run(LoadJob { target, ..load }, sink, |_| (), cancel.clone()).await?;
        if cancel.is_cancelled() { Err(StepError::Interrupted) } else { Ok(()) }
    };
    let loaded = loaded.await;
    server.stop().await;
    loaded?;
    let records = read(&records).map_err(|source| StepError::Read { path: records, source })?;
    Ok(certify(cadence, &records))
}

fn arguments(cadence: Cadence, port_file: &Path) -> Vec<String> {
    let microseconds = |ms: f64| format!("{:.0}us", ms * 1e3);
    let flags = [
        ("--port", "0".to_owned()),
        ("--port-file", port_file.display().to_string()),
        ("--ttft", microseconds(cadence.ttft_ms)),
        ("--itl", microseconds(cadence.itl_ms)),
        ("--tokens-per-chunk", cadence.tokens_per_chunk.to_string()),
        ("--chunk-bytes", cadence.chunk_bytes.to_string()),
    ];
    let flags = flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    ["engine".to_owned(), "--null".to_owned()].into_iter().chain(flags).collect()
}

/// Where the server listens, once it does.
async fn address(server: &mut Server, port_file: &Path, cancel: &CancellationToken) -> Result<SocketAddr, StepError> {
    #[derive(Deserialize)]
    struct Port {
        address: SocketAddr,
    }
    let written = async {
        loop {
            if let Some(port) = fs::read(port_file).ok().and_then(|json| serde_json::from_slice::<Port>(&json).ok()) {
                return port.address;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    let failed = |exit: String, server: &Server| StepError::ServerDied {
        exit,
        log: server.log_tail(5),
        path: PathBuf::new(),
        hints: Vec::new(),
    };
    tokio::select! {
        address = written => Ok(address),
        facts = server.exited() => Err(failed(facts.exit.to_string(), server)),
        () = tokio::time::sleep(START) => Err(failed("no address".to_owned(), server)),
        () = cancel.cancelled() => Err(StepError::Interrupted),
    }
}

/// All records up to the measured ones that are enough.
fn read(records: &Path) -> std::io::Result<Vec<RequestRecord>> {
    let (mut read, mut measured) = (Vec::new(), 0);
    for line in BufReader::new(File::open(records)?).lines() {
        let record: RequestRecord = serde_json::from_str(&line?)?;
        measured += usize::from(record.kind == RequestKind::Measure);
        read.push(record);
        if measured == READ_REQUESTS {
            break;
        }
    }
    Ok(read)
}
