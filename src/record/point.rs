use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::base::{CellId, RunId, Scalar};
use crate::spec::{Method, Protocol, Series, Slo};

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PointStatus {
    Ok,
    Failed,
    /// The engine cannot do it; `reason` says why.
    Unsupported,
    /// Not tried: excluded, interrupted, or an earlier step failed; `reason` says which.
    Skipped,
}

impl PointStatus {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Unsupported => "unsupported",
            Self::Skipped => "skipped",
        }
    }
}

/// What the client knows of itself while it measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ClientFacts {
    /// CPU seconds of the client's process a second of the window, over the host's cores: 1 is all cores busy.
    pub cpu_share: Option<f64>,
    /// Percentiles of the time that an event waited to be seen by the event loops, in milliseconds.
    pub poll_delay_ms_p99: Option<f64>,
    pub poll_delay_ms_p99_9: Option<f64>,
    /// `None` where the host does not tell, and of a load point that was too short to look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_queue: Option<SocketQueue>,
    /// The zero of the records' times on the host's CLOCK_MONOTONIC.
    pub began_monotonic_ns: Option<u64>,
    /// Connections opened to the server, warm-up included.
    pub connections: Option<u64>,
    /// Only if the load point was certified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// What of the server's answers lay unread in the kernel's socket buffers, at random moments of the load point, warm-up
/// included.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct SocketQueue {
    pub looks: u64,
    /// Those that found anything unread.
    pub looks_unread: u64,
    /// The most that one look found, in all connections together.
    pub bytes_max: u64,
    /// How long a byte lay there on average, in milliseconds: by Little's law the mean of the bytes found / bytes of answers
    /// that came in a second.
    pub wait_ms_mean: Option<f64>,
}

/// What the client adds to a load: the same load on a server without a model, on the same host, less what that server
/// took by its timetable. Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Certificate {
    /// Requests of the replay that the percentiles are over.
    pub requests: u64,
    /// The most requests of the replay that were under way at a time, with those before the window.
    pub concurrency: Option<u64>,
    /// The timetable: from a request's arrival to the first chunk, and between chunks.
    pub timetable_ttft_ms: f64,
    pub timetable_itl_ms: f64,
    /// TTFT - the timetable's.
    pub ttft_ms_p99: Option<f64>,
    /// Gaps between chunks - the timetable's.
    pub itl_ms_p99: Option<f64>,
    /// Sent - due.
    pub dispatch_lag_ms_p99: Option<f64>,
}

/// What was seen of the server while it was measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ServerFacts {
    pub gpus: Option<u32>,
    /// What the GPUs' memory held before this server, of other programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mib_before: Option<f64>,
    pub gpu_memory_mib_peak: Option<f64>,
    /// Watts, all GPUs of the server together.
    pub gpu_power_w_mean: Option<f64>,
    pub gpu_energy_j: Option<f64>,
    /// Share of the time in which a kernel ran, mean over the GPUs.
    pub gpu_busy_mean: Option<f64>,
    /// MiB, all processes of the server together.
    pub host_rss_mib_peak: Option<f64>,
    /// CPU seconds a second, all processes of the server together.
    pub cpu_cores_mean: Option<f64>,
    /// What it said of itself, if it did.
    pub metrics: Option<ServerMetrics>,
    /// Of a Triton server, whose models count each for itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub statistics: Vec<ModelCounts>,
}

/// What Triton counted for a model over all requests of a load point, warm-up included. Means are over the requests that
/// succeeded, in milliseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ModelCounts {
    pub model: String,
    pub version: String,
    pub requests_ok: u64,
    pub requests_failed: u64,
    /// Batches that were computed.
    pub executions: u64,
    /// From arrival in the server to the end of the answer.
    pub latency_ms_mean: Option<f64>,
    pub queue_ms_mean: Option<f64>,
    pub compute_input_ms_mean: Option<f64>,
    pub compute_infer_ms_mean: Option<f64>,
    pub compute_output_ms_mean: Option<f64>,
}

/// A server's own figures.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ServerMetrics {
    /// Which requests they are over.
    pub window: ServerWindow,
    pub ttft_ms_mean: Option<f64>,
    /// Estimated from a histogram's buckets.
    pub ttft_ms_p99: Option<f64>,
    pub queue_ms_mean: Option<f64>,
    /// 0 to 1.
    pub kv_cache_usage_peak: Option<f64>,
    /// 0 to 1, of the prompts' tokens.
    pub prefix_hit_share: Option<f64>,
    /// Running and waiting, as the server said while the measured requests were under way.
    pub requests_in_flight_mean: Option<f64>,
    /// The client's counts against the server's, over all requests.
    pub checks: Vec<Check>,
}

/// The requests that a server's own figures are over.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ServerWindow {
    Measured,
    /// The warm-up too: no page could be read between the two.
    All,
}

impl ServerWindow {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::All => "all",
        }
    }
}

/// A number of the client against the server's.
///
/// Its text is `NAME=ok`, `NAME=failed(SERVER!=CLIENT)` or `NAME=unknown`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Check {
    pub name: String,
    /// `None` when one of the numbers is not known.
    pub ok: Option<bool>,
    pub server: Option<f64>,
    pub client: Option<f64>,
}

impl Check {
    /// A sentence for a warning, if the check failed.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let Self { name, ok: Some(false), server: Some(server), client: Some(client) } = self else { return None };
        Some(format!("the check `{name}` failed: the server says {}, the client {}", short(*server), short(*client)))
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, ok, server, client } = self;
        match ok {
            Some(true) => write!(f, "{name}=ok"),
            Some(false) => {
                let [server, client] = [server, client].map(|number| number.map(short).unwrap_or_default());
                write!(f, "{name}=failed({server}!={client})")
            }
            None => write!(f, "{name}=unknown"),
        }
    }
}

/// Two digits after the point where there are any.
fn short(number: f64) -> String {
    ((number * 100.0).round() / 100.0).to_string()
}

/// One load point of one round, without the figures that its request records give.
///
/// Kept as `point.json` beside `requests.jsonl`, so that reports can be rebuilt.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PointRecord {
    /// Position in the plan, from 0: the order of the results' rows.
    pub order: u64,
    pub cell: CellId,
    pub engine: String,
    /// Every axis of the cell, in the manifest's order, under its own name.
    pub axes: IndexMap<String, Scalar>,
    pub phase: String,
    /// The published method that was reproduced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// What tells load points of a phase apart: `c8`, `rate2.5`, `stages`, `trace`.
    #[serde(default)]
    pub load_point: String,
    pub protocol: Protocol,
    /// `closed` in a closed loop.
    pub arrival: String,
    pub concurrency: Option<u32>,
    /// Requests a second asked for, in open loop.
    pub request_rate: Option<f64>,
    /// The load is meant to be the same from beginning to end: no stages, no trace.
    #[serde(default = "yes")]
    pub constant_load: bool,
    /// The bounds on single requests that goodput counts by.
    #[serde(default)]
    pub slo: Option<Slo>,
    /// From 1.
    pub round: u32,
    /// What this measurement is part of: its outcome decides what else is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    pub status: PointStatus,
    pub reason: Option<String>,
    /// The run that measured it: an earlier one for a result that was there already.
    #[serde(default)]
    pub measured_in: Option<RunId>,
    /// sha256 over the exact prompts and the settings that requests carry.
    #[serde(default)]
    pub workload: Option<String>,
    #[serde(default)]
    pub client: ClientFacts,
    #[serde(default)]
    pub server: ServerFacts,
}

fn yes() -> bool {
    true
}
