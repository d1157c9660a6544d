use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::base::{CellId, RunId, Scalar};
use crate::spec::Protocol;

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
    /// 99th percentile of the time that an event waited to be seen by the event loops, in milliseconds.
    pub poll_delay_ms_p99: Option<f64>,
    /// The zero of the records' times on the host's CLOCK_MONOTONIC.
    pub began_monotonic_ns: Option<u64>,
    /// Connections opened to the server, warm-up included.
    pub connections: Option<u64>,
    /// Only if the load point was certified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
}

/// What the client adds to a load: the same load on a server without a model, on the same host, less what that server
/// took by its timetable. 99th percentiles, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Certificate {
    /// TTFT - the timetable's.
    pub ttft_added_ms_p99: Option<f64>,
    /// Gaps between chunks - the timetable's.
    pub itl_added_ms_p99: Option<f64>,
    /// Sent - due.
    pub dispatch_lag_ms_p99: Option<f64>,
}

/// What was seen of the server while it was measured.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct ServerFacts {
    pub gpus: Option<u32>,
    pub gpu_memory_mib_peak: Option<f64>,
    /// Watts, all GPUs of the server together.
    pub gpu_power_w_mean: Option<f64>,
    pub gpu_energy_j: Option<f64>,
    /// MiB, all processes of the server together.
    pub host_rss_mib_peak: Option<f64>,
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
    pub protocol: Protocol,
    /// `closed` in a closed loop.
    pub arrival: String,
    pub concurrency: Option<u32>,
    /// Requests a second asked for, in open loop.
    pub request_rate: Option<f64>,
    /// From 1.
    pub round: u32,
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
