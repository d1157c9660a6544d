//! How each engine names what all engines count. Data only: a new engine, or a name that changed, is a line here.

/// The names on one engine's page.
///
/// A series is named `NAME` or `NAME{LABEL=VALUE}`: one with another value of the label is left out, one without the
/// label counts. `$model` is the model that requests name. Where an engine's names changed, the newest comes first; the
/// first that is on the page counts.
#[derive(Debug)]
pub(super) struct Family {
    /// What the names begin with.
    pub prefix: &'static str,
    /// Requests that have ended. Each of these is a list of alternatives, each alternative a sum of counters.
    pub requests: &'static [Sum],
    /// Prompt tokens, those out of a prefix cache included.
    pub prompt_tokens: &'static [Sum],
    pub generation_tokens: &'static [Sum],
    pub ttft: &'static [Timer],
    pub queue: &'static [Timer],
    /// Gauges, 0 to 1.
    pub kv_cache_usage: &'static [Share],
    /// Counters, of tokens.
    pub prefix_hits: &'static [Share],
    /// Gauges: requests that are computed.
    pub running: &'static [Sum],
    /// Gauges: requests that wait for it.
    pub waiting: &'static [Sum],
    /// A counter that rises while anything is computed, for pages without the gauges.
    pub work: &'static [Sum],
}

pub(super) type Sum = &'static [&'static str];

/// Durations of requests: their sum and their number, and how many milliseconds the sum's unit has.
#[derive(Debug)]
pub(super) enum Timer {
    /// `NAME_sum`, `NAME_count` and `NAME_bucket`.
    Histogram {
        name: &'static str,
        unit_ms: f64,
    },
    Counters {
        sum: &'static str,
        count: &'static str,
        unit_ms: f64,
    },
}

#[derive(Debug)]
pub(super) struct Share {
    pub part: Sum,
    /// Empty where the part is the share already.
    pub whole: Sum,
}

/// The family whose page this is.
pub(super) fn family_of(names: &[&str]) -> Option<&'static Family> {
    FAMILIES.iter().find(|family| names.iter().any(|name| name.starts_with(family.prefix)))
}

const fn seconds(name: &'static str) -> Timer {
    Timer::Histogram { name, unit_ms: 1000.0 }
}

const fn gauge(part: Sum) -> Share {
    Share { part, whole: &[] }
}

/// Triton's page may hold a backend's names as well, and then the backend's say more: it comes last.
static FAMILIES: &[Family] = &[EMBEDDED, VLLM, SGLANG, LMDEPLOY, TRTLLM_SERVE, LLAMA_CPP, TRITON];

/// `engine::metrics`.
const EMBEDDED: Family = Family {
    prefix: "benchrun_engine_",
    requests: &[&["benchrun_engine_requests_finished_total"]],
    prompt_tokens: &[&["benchrun_engine_prompt_tokens_total"]],
    generation_tokens: &[&["benchrun_engine_generation_tokens_total"]],
    ttft: &[seconds("benchrun_engine_time_to_first_token_seconds")],
    queue: &[seconds("benchrun_engine_queue_time_seconds")],
    kv_cache_usage: &[],
    prefix_hits: &[],
    running: &[&["benchrun_engine_requests_running"]],
    waiting: &[&["benchrun_engine_requests_waiting"]],
    work: &[],
};

/// docs.vllm.ai, "Production Metrics". `gpu_cache_usage_perc` and `gpu_prefix_cache_*` are the names until v0.10.
const VLLM: Family = Family {
    prefix: "vllm:",
    requests: &[&["vllm:request_success_total"]],
    prompt_tokens: &[&["vllm:prompt_tokens_total"]],
    generation_tokens: &[&["vllm:generation_tokens_total"]],
    ttft: &[seconds("vllm:time_to_first_token_seconds")],
    queue: &[seconds("vllm:request_queue_time_seconds")],
    kv_cache_usage: &[gauge(&["vllm:kv_cache_usage_perc"]), gauge(&["vllm:gpu_cache_usage_perc"])],
    prefix_hits: &[
        Share { part: &["vllm:prefix_cache_hits_total"], whole: &["vllm:prefix_cache_queries_total"] },
        Share { part: &["vllm:gpu_prefix_cache_hits_total"], whole: &["vllm:gpu_prefix_cache_queries_total"] },
    ],
    running: &[&["vllm:num_requests_running"]],
    waiting: &[&["vllm:num_requests_waiting"]],
    work: &[],
};

/// docs.sglang.io, "Production Metrics"; only with `--enable-metrics`. With `--enable-metrics-for-all-schedulers` every
/// rank of a tensor parallel group tells the same.
const SGLANG: Family = Family {
    prefix: "sglang:",
    requests: &[&["sglang:num_requests_total"]],
    prompt_tokens: &[&["sglang:prompt_tokens_total"]],
    generation_tokens: &[&["sglang:generation_tokens_total"]],
    ttft: &[seconds("sglang:time_to_first_token_seconds")],
    queue: &[seconds("sglang:queue_time_seconds{tp_rank=0}")],
    kv_cache_usage: &[gauge(&["sglang:token_usage"])],
    prefix_hits: &[Share { part: &["sglang:cached_tokens_total"], whole: &["sglang:prompt_tokens_total"] }],
    running: &[&["sglang:num_running_reqs{tp_rank=0}"]],
    waiting: &[&["sglang:num_queue_reqs{tp_rank=0}"]],
    work: &[],
};

/// lmdeploy/metrics/loggers.py; on by default since v0.11.
const LMDEPLOY: Family = Family {
    prefix: "lmdeploy:",
    requests: &[&["lmdeploy:request_success_total"]],
    prompt_tokens: &[&["lmdeploy:prompt_tokens_total"]],
    generation_tokens: &[&["lmdeploy:generation_tokens_total"]],
    ttft: &[seconds("lmdeploy:time_to_first_token_seconds")],
    queue: &[seconds("lmdeploy:request_queue_time_seconds")],
    kv_cache_usage: &[gauge(&["lmdeploy:gpu_cache_usage_perc"])],
    prefix_hits: &[Share { part: &["lmdeploy:cached_tokens_total"], whole: &["lmdeploy:prompt_tokens_total"] }],
    running: &[&["lmdeploy:num_requests_running"]],
    waiting: &[&["lmdeploy:num_requests_waiting"]],
    work: &[],
};

/// tensorrt_llm/metrics/collector.py; at `/prometheus/metrics`, with `return_perf_metrics`. The first versions have the
/// requests and the histograms alone, the very first (1.1) without the prefix; token counters and gauges came in 2026, the
/// gauges with `enable_iter_perf_stats`.
const TRTLLM_SERVE: Family = Family {
    prefix: "trtllm_",
    requests: &[&["trtllm_request_success_total"]],
    prompt_tokens: &[&["trtllm_prompt_tokens_total"]],
    generation_tokens: &[&["trtllm_generation_tokens_total"]],
    ttft: &[seconds("trtllm_time_to_first_token_seconds")],
    queue: &[seconds("trtllm_request_queue_time_seconds")],
    kv_cache_usage: &[gauge(&["trtllm_kv_cache_utilization"])],
    prefix_hits: &[Share { part: &["trtllm_prompt_cached_tokens_total"], whole: &["trtllm_prompt_tokens_total"] }],
    running: &[&["trtllm_num_requests_running"]],
    waiting: &[&["trtllm_num_requests_waiting"]],
    work: &[],
};

/// tools/server/README.md of llama.cpp; only with `--metrics`. It counts no requests, and `prompt_tokens_total` leaves
/// out what came from the cache: without the other counter the prompts' tokens are not known.
const LLAMA_CPP: Family = Family {
    prefix: "llamacpp:",
    requests: &[],
    prompt_tokens: &[&["llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"]],
    generation_tokens: &[&["llamacpp:tokens_predicted_total"]],
    ttft: &[],
    queue: &[],
    kv_cache_usage: &[gauge(&["llamacpp:kv_cache_usage_ratio"])],
    prefix_hits: &[Share {
        part: &["llamacpp:prompt_tokens_cached_total"],
        whole: &["llamacpp:prompt_tokens_total", "llamacpp:prompt_tokens_cached_total"],
    }],
    running: &[&["llamacpp:requests_processing"]],
    waiting: &[&["llamacpp:requests_deferred"]],
    work: &[],
};

/// Triton with the TensorRT-LLM backend. Every model of an ensemble counts a request, so only the one that was asked is
/// read; queues add up over the ensemble. The first response's histogram needs `--metrics-config histogram_latencies=true`,
/// and the `fraction` of blocks a later backend than the other two.
const TRITON: Family = Family {
    prefix: "nv_",
    requests: &[&["nv_inference_request_success{model=$model}"]],
    prompt_tokens: &[&["nv_llm_input_token_len_sum"]],
    generation_tokens: &[&["nv_llm_output_token_len_sum"]],
    ttft: &[Timer::Histogram { name: "nv_inference_first_response_histogram_ms{model=$model}", unit_ms: 1.0 }],
    queue: &[Timer::Counters {
        sum: "nv_inference_queue_duration_us",
        count: "nv_inference_request_success{model=$model}",
        unit_ms: 0.001,
    }],
    kv_cache_usage: &[
        gauge(&["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=fraction}"]),
        Share {
            part: &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=used}"],
            whole: &["nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=max}"],
        },
    ],
    prefix_hits: &[],
    running: &[&["nv_trt_llm_request_metrics{request_type=active}"]],
    waiting: &[&["nv_trt_llm_request_metrics{request_type=waiting}"]],
    work: &[&["nv_inference_count"]],
};
