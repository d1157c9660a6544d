use std::borrow::Borrow;
use std::sync::LazyLock;

use indexmap::{IndexMap, IndexSet};
use serde_json::Value;

use crate::base::{RunId, Scalar};
use crate::record::{Certificate, Check, ServerMetrics, SocketQueue};
use crate::report::Row;
use crate::stats::{ClientVerdict, Distribution, Latency, OutputTokensSource, Steady, Summary, advice};

/// What a column holds for a row; null where it is not known.
type Read = fn(&Row) -> Value;
type OfLatency = fn(&Latency) -> Option<&Distribution>;
type OfDistribution = fn(&Distribution) -> f64;

/// A column of the results.
pub(super) struct Column<'a> {
    pub(super) name: &'a str,
    source: Source,
}

#[derive(Clone, Copy)]
enum Source {
    /// The axis of the column's name.
    Axis,
    /// A fact of the point; where it is not known, the axis of the column's name.
    Fact(Read),
    /// An outcome in words.
    Word(Read),
    /// A measured number.
    Number(Read),
    /// A measured number, in milliseconds.
    Latency(OfLatency, OfDistribution),
}

impl<'a> Column<'a> {
    /// The column `name`, which is an axis if it is nothing else.
    pub(super) fn named(name: &'a str) -> Self {
        Self { name, source: FIXED.get(name).copied().unwrap_or(Source::Axis) }
    }

    pub(super) fn value(&self, row: &Row) -> Value {
        match self.source {
            Source::Axis => axis(row, self.name),
            Source::Fact(read) => match read(row) {
                Value::Null => axis(row, self.name),
                fact => fact,
            },
            Source::Word(read) | Source::Number(read) => read(row),
            Source::Latency(latency, statistic) => {
                row.summary.as_ref().and_then(|summary| latency(&summary.latency)).map(statistic).into()
            }
        }
    }
}

fn axis(row: &Row, name: &str) -> Value {
    match row.point.axes.get(name) {
        Some(Scalar::Bool(value)) => (*value).into(),
        Some(Scalar::Int(value)) => (*value).into(),
        Some(Scalar::Float(value)) => (*value).into(),
        Some(Scalar::Text(value)) => value.as_str().into(),
        None => Value::Null,
    }
}

/// The columns of the results of `rows`, in order.
///
/// Each axis of any of the rows has a column under its own name, after the known axes. One named like a fact of the
/// point (`concurrency`) shares that column; one named like a figure ([`known_metric_columns`]) has no column, so that
/// nothing set is ever taken for something measured: a manifest must refuse it.
#[must_use]
pub fn columns<R: Borrow<Row>>(rows: &[R]) -> Vec<String> {
    let axes: IndexSet<&String> = rows.iter().flat_map(|row| row.borrow().point.axes.keys()).collect();
    let other_axes = axes.into_iter().filter(|axis| !FIXED.contains_key(*axis)).cloned();
    let mut names: Vec<String> = FIXED.keys().cloned().collect();
    let place = START.len() + KNOWN_AXES.len();
    names.splice(place..place, other_axes);
    names
}

/// The columns that say what was measured, whatever the round.
pub(super) fn identity_columns(rows: &[Row]) -> Vec<String> {
    let is_identity = |name: &String| {
        name != "round"
            && FIXED.get(name).is_none_or(|source| match source {
                Source::Axis | Source::Fact(_) => true,
                Source::Word(_) | Source::Number(_) | Source::Latency(..) => false,
            })
    };
    columns(rows).into_iter().filter(is_identity).collect()
}

/// The columns that hold measured numbers, in the results' order: what a threshold can be set on.
#[must_use]
pub fn known_metric_columns() -> &'static [String] {
    static NUMBERS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let is_number = |source: &Source| matches!(source, Source::Number(_) | Source::Latency(..));
        FIXED.iter().filter(|(_, source)| is_number(source)).map(|(name, _)| name.clone()).collect()
    });
    &NUMBERS
}

/// Every column but those of other axes, in the contract's order.
static FIXED: LazyLock<IndexMap<String, Source>> = LazyLock::new(|| {
    let latencies = LATENCIES.iter().flat_map(|&(latency, of_latency)| {
        STATISTICS.iter().map(move |&(statistic, of_distribution)| {
            (format!("{latency}_{statistic}"), Source::Latency(of_latency, of_distribution))
        })
    });
    START
        .iter()
        .map(owned)
        .chain(KNOWN_AXES.map(|name| (name.to_owned(), Source::Axis)))
        .chain(LOAD.iter().chain(OUTCOME).chain(VOLUME).chain(RATES).chain(GOODPUT).map(owned))
        .chain(latencies)
        .chain(STEADY.iter().chain(TRUST).chain(HARDWARE).chain(SERVER).chain(PROVENANCE).map(owned))
        .collect()
});

fn owned(&(name, source): &(&str, Source)) -> (String, Source) {
    (name.to_owned(), source)
}

const START: &[(&str, Source)] = &[
    ("run", Source::Fact(|row| row.run.as_str().into())),
    ("cell", Source::Fact(|row| row.point.cell.as_str().into())),
    ("engine", Source::Fact(|row| row.point.engine.as_str().into())),
];

/// Axes that have a column whether or not the manifest sweeps them.
const KNOWN_AXES: [&str; 7] = ["model", "precision", "tp", "pp", "batch_size", "isl", "osl"];

const LOAD: &[(&str, Source)] = &[
    ("phase", Source::Fact(|row| row.point.phase.as_str().into())),
    ("load_point", Source::Fact(|row| row.point.load_point.as_str().into())),
    ("protocol", Source::Fact(|row| row.point.protocol.name().into())),
    ("arrival", Source::Fact(|row| row.point.arrival.as_str().into())),
    ("concurrency", Source::Fact(|row| row.point.concurrency.into())),
    ("request_rate", Source::Fact(|row| row.point.request_rate.into())),
    ("round", Source::Fact(|row| row.point.round.into())),
];

const OUTCOME: &[(&str, Source)] = &[
    ("status", Source::Word(|row| row.point.status.name().into())),
    ("reason", Source::Word(|row| row.point.reason.as_deref().into())),
    ("requests_sent", Source::Number(|row| figure(row, |it| Some(it.requests.sent)))),
    ("requests_ok", Source::Number(|row| figure(row, |it| Some(it.requests.ok)))),
    ("requests_failed", Source::Number(|row| figure(row, |it| Some(it.requests.failed)))),
    ("requests_cut_off", Source::Number(|row| figure(row, |it| Some(it.requests.cut_off)))),
    ("requests_late", Source::Number(|row| figure(row, |it| it.requests.late))),
    ("requests_held", Source::Number(|row| figure(row, |it| it.requests.held))),
];

const VOLUME: &[(&str, Source)] = &[
    ("duration_s", Source::Number(|row| figure(row, |it| it.volume.duration_s))),
    ("input_tokens", Source::Number(|row| figure(row, |it| it.volume.input_tokens))),
    ("output_tokens", Source::Number(|row| figure(row, |it| it.volume.output_tokens))),
    ("input_tokens_mean", Source::Number(|row| figure(row, |it| it.volume.input_tokens_mean))),
    ("output_tokens_mean", Source::Number(|row| figure(row, |it| it.volume.output_tokens_mean))),
    (
        "output_tokens_source",
        Source::Word(|row| figure(row, |it| it.volume.output_tokens_source.map(OutputTokensSource::name))),
    ),
    ("input_tokens_sent_mean", Source::Number(|row| figure(row, |it| it.volume.input_tokens_sent_mean))),
];

const RATES: &[(&str, Source)] = &[
    ("requests_per_s", Source::Number(|row| figure(row, |it| it.rates.requests_per_s))),
    ("requests_per_min", Source::Number(|row| figure(row, |it| it.rates.requests_per_min))),
    ("input_tokens_per_s", Source::Number(|row| figure(row, |it| it.rates.input_tokens_per_s))),
    ("output_tokens_per_s", Source::Number(|row| figure(row, |it| it.rates.output_tokens_per_s))),
    ("total_tokens_per_s", Source::Number(|row| figure(row, |it| it.rates.total_tokens_per_s))),
    ("output_tokens_per_s_per_user", Source::Number(|row| figure(row, |it| it.rates.output_tokens_per_s_per_user))),
    ("output_tokens_per_s_per_gpu", Source::Number(|row| figure(row, |it| it.rates.output_tokens_per_s_per_gpu))),
];

const GOODPUT: &[(&str, Source)] = &[
    (
        "goodput_requests_per_s",
        Source::Number(|row| figure(row, |it| it.goodput.and_then(|goodput| goodput.requests_per_s))),
    ),
    ("goodput_share", Source::Number(|row| figure(row, |it| it.goodput.map(|goodput| goodput.share)))),
];

const STEADY: &[(&str, Source)] = &[
    ("steady_from_s", Source::Number(|row| steady(row, |it| Some(it.from_s)))),
    ("steady_to_s", Source::Number(|row| steady(row, |it| Some(it.to_s)))),
    ("steady_requests", Source::Number(|row| steady(row, |it| Some(it.requests)))),
    ("steady_requests_per_s", Source::Number(|row| steady(row, |it| Some(it.requests_per_s)))),
    ("steady_output_tokens_per_s", Source::Number(|row| steady(row, |it| it.output_tokens_per_s))),
    ("steady_ttft_ms_p50", Source::Number(|row| steady(row, |it| it.ttft_ms_p50))),
    ("steady_ttft_ms_p99", Source::Number(|row| steady(row, |it| it.ttft_ms_p99))),
    ("steady_tpot_ms_p50", Source::Number(|row| steady(row, |it| it.tpot_ms_p50))),
    ("steady_tpot_ms_p99", Source::Number(|row| steady(row, |it| it.tpot_ms_p99))),
];

const LATENCIES: &[(&str, OfLatency)] = &[
    ("ttft_ms", |it| it.ttft_ms.as_ref()),
    ("itl_ms", |it| it.itl_ms.as_ref()),
    ("tpot_ms", |it| it.tpot_ms.as_ref()),
    ("e2e_ms", |it| it.e2e_ms.as_ref()),
    ("e2e_from_due_ms", |it| it.e2e_from_due_ms.as_ref()),
    ("ttft_from_due_ms", |it| it.ttft_from_due_ms.as_ref()),
    ("cap_wait_ms", |it| it.cap_wait_ms.as_ref()),
];

const STATISTICS: &[(&str, OfDistribution)] = &[
    ("mean", |it| it.mean),
    ("std", |it| it.std),
    ("min", |it| it.min),
    ("p50", |it| it.p50),
    ("p75", |it| it.p75),
    ("p90", |it| it.p90),
    ("p95", |it| it.p95),
    ("p99", |it| it.p99),
    ("p99_9", |it| it.p99_9),
    ("max", |it| it.max),
];

const TRUST: &[(&str, Source)] = &[
    ("dispatch_lag_ms_p99", Source::Number(|row| figure(row, |it| it.trust.dispatch_lag_ms_p99))),
    ("client_cpu_share", Source::Number(|row| row.point.client.cpu_share.into())),
    ("client_poll_delay_ms_p99", Source::Number(|row| row.point.client.poll_delay_ms_p99.into())),
    ("client_poll_delay_ms_p99_9", Source::Number(|row| row.point.client.poll_delay_ms_p99_9.into())),
    ("client_socket_wait_ms_mean", Source::Number(|row| socket_queue(row, |it| it.wait_ms_mean))),
    ("client_socket_bytes_max", Source::Number(|row| socket_queue(row, |it| Some(it.bytes_max)))),
    ("client_ttft_ms_p99", Source::Number(|row| certified(row, |it| it.ttft_ms_p99))),
    ("client_itl_ms_p99", Source::Number(|row| certified(row, |it| it.itl_ms_p99))),
    ("client_dispatch_lag_ms_p99", Source::Number(|row| certified(row, |it| it.dispatch_lag_ms_p99))),
    ("certified_requests", Source::Number(|row| certified(row, |it| Some(it.requests)))),
    ("certified_concurrency", Source::Number(|row| certified(row, |it| it.concurrency))),
    ("certified_at_ttft_ms", Source::Number(|row| certified(row, |it| Some(it.timetable_ttft_ms)))),
    ("certified_at_itl_ms", Source::Number(|row| certified(row, |it| Some(it.timetable_itl_ms)))),
    ("client_verdict", Source::Word(|row| figure(row, |it| it.trust.client_verdict.map(ClientVerdict::name)))),
    ("client_limits", Source::Word(|row| figure(row, |it| advice(&it.trust.client_limits)))),
    ("request_rate_reached", Source::Number(|row| figure(row, |it| it.trust.request_rate_reached))),
];

const HARDWARE: &[(&str, Source)] = &[
    ("gpus", Source::Number(|row| row.point.server.gpus.into())),
    ("gpu_memory_mib_peak", Source::Number(|row| row.point.server.gpu_memory_mib_peak.into())),
    ("gpu_power_w_mean", Source::Number(|row| row.point.server.gpu_power_w_mean.into())),
    ("energy_j_per_output_token", Source::Number(|row| figure(row, |it| it.energy_j_per_output_token))),
    ("gpu_busy_mean", Source::Number(|row| row.point.server.gpu_busy_mean.into())),
    ("host_rss_mib_peak", Source::Number(|row| row.point.server.host_rss_mib_peak.into())),
    ("server_cpu_cores_mean", Source::Number(|row| row.point.server.cpu_cores_mean.into())),
];

/// What the server says of itself.
const SERVER: &[(&str, Source)] = &[
    ("server_ttft_ms_mean", Source::Number(|row| metric(row, |it| it.ttft_ms_mean))),
    ("server_ttft_ms_p99", Source::Number(|row| metric(row, |it| it.ttft_ms_p99))),
    ("server_queue_ms_mean", Source::Number(|row| metric(row, |it| it.queue_ms_mean))),
    ("server_kv_cache_usage_peak", Source::Number(|row| metric(row, |it| it.kv_cache_usage_peak))),
    ("server_prefix_hit_share", Source::Number(|row| metric(row, |it| it.prefix_hit_share))),
    ("server_requests_in_flight_mean", Source::Number(|row| metric(row, |it| it.requests_in_flight_mean))),
    ("server_window", Source::Word(|row| metric(row, |it| Some(it.window.name())))),
    ("server_checks", Source::Word(|row| metric(row, |it| Some(words(&it.checks))))),
    (
        "server_request_queue_ms_mean",
        Source::Number(|row| figure(row, |it| it.server.queue_ms.as_ref().map(|it| it.mean))),
    ),
    (
        "server_request_queue_ms_p99",
        Source::Number(|row| figure(row, |it| it.server.queue_ms.as_ref().map(|it| it.p99))),
    ),
    (
        "server_request_ttft_ms_mean",
        Source::Number(|row| figure(row, |it| it.server.ttft_ms.as_ref().map(|it| it.mean))),
    ),
    ("server_request_ttft_ms_p99", Source::Number(|row| figure(row, |it| it.server.ttft_ms.as_ref().map(|it| it.p99)))),
    ("server_reused_blocks_mean", Source::Number(|row| figure(row, |it| it.server.reused_blocks_mean))),
];

const PROVENANCE: &[(&str, Source)] = &[
    ("measured_in", Source::Word(|row| row.point.measured_in.as_ref().map(RunId::as_str).into())),
    ("workload", Source::Word(|row| row.point.workload.as_deref().into())),
];

fn certified<T: Into<Value>>(row: &Row, read: fn(&Certificate) -> Option<T>) -> Value {
    row.point.client.certificate.as_ref().and_then(read).into()
}

fn socket_queue<T: Into<Value>>(row: &Row, read: fn(&SocketQueue) -> Option<T>) -> Value {
    row.point.client.socket_queue.as_ref().and_then(read).into()
}

/// One word a check.
fn words(checks: &[Check]) -> String {
    checks.iter().map(Check::to_string).collect::<Vec<_>>().join(" ")
}

fn metric<T: Into<Value>>(row: &Row, read: fn(&ServerMetrics) -> Option<T>) -> Value {
    row.point.server.metrics.as_ref().and_then(read).into()
}

fn figure<T: Into<Value>>(row: &Row, read: fn(&Summary) -> Option<T>) -> Value {
    row.summary.as_ref().and_then(read).into()
}

fn steady<T: Into<Value>>(row: &Row, read: fn(&Steady) -> Option<T>) -> Value {
    row.summary.as_ref().and_then(|summary| summary.steady.as_ref()).and_then(read).into()
}
