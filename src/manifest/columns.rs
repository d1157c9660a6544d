/// Columns of `results.csv` that a step of the run itself fills; no axis can have their names.
pub(super) const TAKEN: &[&str] = &[
    "run",
    "cell",
    "engine",
    "phase",
    "load_point",
    "round",
    "status",
    "reason",
    "output_tokens_source",
    "client_verdict",
    "client_limits",
];

const MEASURED: &[&str] = &[
    "requests_sent",
    "requests_ok",
    "requests_failed",
    "requests_cut_off",
    "requests_late",
    "requests_held",
    "duration_s",
    "input_tokens",
    "output_tokens",
    "input_tokens_mean",
    "output_tokens_mean",
    "input_tokens_sent_mean",
    "requests_per_s",
    "requests_per_min",
    "input_tokens_per_s",
    "output_tokens_per_s",
    "total_tokens_per_s",
    "output_tokens_per_s_per_user",
    "output_tokens_per_s_per_gpu",
    "goodput_requests_per_s",
    "goodput_share",
    "steady_from_s",
    "steady_to_s",
    "steady_requests",
    "steady_requests_per_s",
    "steady_output_tokens_per_s",
    "steady_ttft_ms_p50",
    "steady_ttft_ms_p99",
    "steady_tpot_ms_p50",
    "steady_tpot_ms_p99",
    "dispatch_lag_ms_p99",
    "client_cpu_share",
    "client_poll_delay_ms_p99",
    "client_poll_delay_ms_p99_9",
    "client_ttft_ms_p99",
    "client_itl_ms_p99",
    "client_dispatch_lag_ms_p99",
    "certified_requests",
    "certified_concurrency",
    "certified_at_ttft_ms",
    "certified_at_itl_ms",
    "request_rate_reached",
    "gpus",
    "gpu_memory_mib_peak",
    "gpu_power_w_mean",
    "energy_j_per_output_token",
    "gpu_busy_mean",
    "host_rss_mib_peak",
    "server_cpu_cores_mean",
    "server_ttft_ms_mean",
    "server_ttft_ms_p99",
    "server_queue_ms_mean",
    "server_kv_cache_usage_peak",
    "server_prefix_hit_share",
    "server_requests_in_flight_mean",
    "server_request_queue_ms_mean",
    "server_request_queue_ms_p99",
    "server_request_ttft_ms_mean",
    "server_request_ttft_ms_p99",
    "server_reused_blocks_mean",
];
const LATENCIES: &[&str] =
    &["ttft_ms", "itl_ms", "tpot_ms", "e2e_ms", "e2e_from_due_ms", "ttft_from_due_ms", "cap_wait_ms"];
const STATISTICS: &[&str] = &["mean", "std", "min", "p50", "p75", "p90", "p95", "p99", "p99_9", "max"];

/// The columns of `results.csv` that hold a measured number, so that a threshold can bound them.
#[must_use]
pub fn known_columns() -> Vec<String> {
    let latencies =
        LATENCIES.iter().flat_map(|latency| STATISTICS.iter().map(move |statistic| format!("{latency}_{statistic}")));
    MEASURED.iter().map(|column| (*column).to_owned()).chain(latencies).collect()
}
