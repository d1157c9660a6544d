//! The client's certificate: a load point once more, on a server without a model that keeps the cadence of the one that was
//! measured. What is seen there beyond its timetable is the client's and the host's own.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{Job, Message};
use crate::base::CellId;
use crate::event::Event;
use crate::exec::StepError;
use crate::exec::publish::REQUESTS;
use crate::load::{self, LoadJob, RecordSink, Target};
use crate::process::{CommandSpec, Server};
use crate::record::{Certificate, RequestRecord};
use crate::spec::{LoadPoint, Output, OutputMode, Volume};
use crate::stats::{Cadence, certify};

/// The longest that a load is repeated for, besides the end of its last requests.
const LONGEST_S: f64 = 10.0;
/// Requests that a cadence is read from, at most.
const READ_REQUESTS: usize = 10_000;
/// How long the server without a model may take to open its port, and between two looks for that.
const START: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// Certifies the client for `load`, whose measurement left `records`. Without a certificate the measurement stands all
/// the same, and a warning says why there is none.
pub(super) async fn certificate(
    job: &Job,
    cell: &CellId,
    load: LoadJob,
    records: &Path,
    cancel: &CancellationToken,
) -> Option<Certificate> {
    let measured = read(records).ok()?;
    let cadence = Cadence::of(&measured)?;
    let point = repeated(&load.point, cadence, span_s(&measured));
    drop(measured);
    match on_null_server(job, cell, LoadJob { point, ..load }, cadence, cancel).await {
        Ok(certificate) => Some(certificate),
        Err(error) if error.is_interruption() => None,
        Err(error) => {
            let message = format!("{cell}: the client could not be certified: {}", error.report());
            job.tell(Message::Event(Event::Warning { cell: Some(cell.clone()), message }));
            None
        }
    }
}

/// The same load with answers as long as they were, and no longer than needed.
fn repeated(point: &LoadPoint, cadence: Cadence, span_s: f64) -> LoadPoint {
    let volume = if span_s > LONGEST_S { Volume::DurationS(LONGEST_S) } else { point.volume };
    let warmup_requests = point.warmup_requests.min(point.arrival.concurrency().unwrap_or(1).into());
    let output = Output { mode: OutputMode::Exact, tokens: cadence.output_tokens };
    LoadPoint { volume, warmup_requests, output, ..point.clone() }
}

async fn on_null_server(
    job: &Job,
    cell: &CellId,
    load: LoadJob,
    cadence: Cadence,
    cancel: &CancellationToken,
) -> Result<Certificate, StepError> {
    let folder = tempfile::tempdir().map_err(|source| StepError::Write { path: std::env::temp_dir(), source })?;
    let logs = job.run.cell(cell).join("logs").join("certify");
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

fn read(records: &Path) -> std::io::Result<Vec<RequestRecord>> {
    let lines = BufReader::new(File::open(records)?).lines().take(READ_REQUESTS);
    lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect()
}

/// From the first request sent to the last one's end.
fn span_s(records: &[RequestRecord]) -> f64 {
    let began = records.iter().map(|record| record.sent_ns).min().unwrap_or_default();
    let ended = records.iter().map(|record| record.end_ns).max().unwrap_or_default();
    ended.saturating_sub(began) as f64 / 1e9
}
