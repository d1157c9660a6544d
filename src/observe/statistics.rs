//! Triton's statistics extension: what each model counted since the server started.

use serde::Deserialize;

use super::sent::Sent;
use crate::record::{Check, ModelCounts};

/// The answer of `/v2/models/stats`, as far as it is used.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Statistics {
    model_stats: Vec<Model>,
}

#[derive(Debug, Deserialize)]
struct Model {
    name: String,
    version: String,
    #[serde(default)]
    execution_count: u64,
    inference_stats: Inferences,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Inferences {
    success: Counted,
    fail: Counted,
    queue: Counted,
    compute_input: Counted,
    compute_infer: Counted,
    compute_output: Counted,
}

/// How often, and for how long together.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Counted {
    count: u64,
    ns: u64,
}

impl Statistics {
    /// `None` for what is no such answer.
    pub(super) fn of_page(page: &str) -> Option<Self> {
        serde_json::from_str(page).ok()
    }

    /// What was counted between `before` and now, of each model that counted anything. Counters that fell began anew.
    pub(super) fn since(&self, before: &Self) -> Vec<ModelCounts> {
        let counted = self.model_stats.iter().map(|now| {
            let then = before.model_stats.iter().find(|then| (&then.name, &then.version) == (&now.name, &now.version));
            let (executions, old) =
                then.map_or_else(Default::default, |then| (then.execution_count, then.inference_stats));
            let new = now.inference_stats;
            ModelCounts {
                model: now.name.clone(),
                version: now.version.clone(),
                requests_ok: new.success.since(old.success).count,
                requests_failed: new.fail.since(old.fail).count,
                executions: now.execution_count.saturating_sub(executions),
                latency_ms_mean: new.success.since(old.success).mean_ms(),
                queue_ms_mean: new.queue.since(old.queue).mean_ms(),
                compute_input_ms_mean: new.compute_input.since(old.compute_input).mean_ms(),
                compute_infer_ms_mean: new.compute_infer.since(old.compute_infer).mean_ms(),
                compute_output_ms_mean: new.compute_output.since(old.compute_output).mean_ms(),
            }
        });
        counted.filter(|model| model.requests_ok + model.requests_failed > 0).collect()
    }
}

impl Counted {
    fn since(self, before: Self) -> Self {
        let is_restarted = self.count < before.count || self.ns < before.ns;
        let before = if is_restarted { Self::default() } else { before };
        Self { count: self.count - before.count, ns: self.ns - before.ns }
    }

    fn mean_ms(self) -> Option<f64> {
        (self.count > 0).then(|| self.ns as f64 / self.count as f64 / 1e6)
    }
}

/// The requests that the asked model counted against those that were sent. What went wrong may not have reached it.
pub(super) fn check(statistics: &[ModelCounts], model: &str, sent: &Sent) -> Option<Check> {
    let counted: Vec<u64> = statistics.iter().filter(|it| it.model == model).map(|it| it.requests_ok).collect();
    let counted = (!counted.is_empty()).then(|| counted.iter().sum::<u64>())?;
    let ok = (sent.ok..=sent.all() + sent.repeats).contains(&counted);
    let (server, client) = (Some(counted as f64), Some(sent.all() as f64));
    Some(Check { name: "statistics_requests".to_owned(), ok: Some(ok), server, client })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(ensemble: [u64; 2], engine: [u64; 2]) -> Statistics {
        let model = |name: &str, [count, queue_ns]: [u64; 2]| {
            serde_json::json!({
                "name": name, "version": "1", "last_inference": 1, "inference_count": count, "execution_count": count,
                "inference_stats": {
                    "success": {"count": count, "ns": count * 20_000_000},
                    "fail": {"count": 0, "ns": 0},
                    "queue": {"count": count, "ns": queue_ns},
                    "cache_hit": {"count": 0, "ns": 0},
                },
                "response_stats": {}, "batch_stats": [], "memory_usage": []
            })
        };
        let models = [model("ensemble", ensemble), model("tensorrt_llm", engine), model("idle", [7, 0])];
        Statistics::of_page(&serde_json::json!({"model_stats": models}).to_string()).unwrap()
    }

    #[test]
    fn a_load_point_has_what_was_counted_during_it() {
        let (before, after) = (page([10, 5_000_000], [10, 1_000_000]), page([30, 25_000_000], [5, 2_000_000]));
        let seen = after.since(&before);
        let names: Vec<&str> = seen.iter().map(|it| it.model.as_str()).collect();
        // The engine was loaded anew meanwhile.
        assert_eq!(
            (names.as_slice(), seen[0].requests_ok, seen[1].requests_ok),
            (&["ensemble", "tensorrt_llm"][..], 20, 5)
        );
        assert_eq!((seen[0].queue_ms_mean, seen[0].latency_ms_mean), (Some(1.0), Some(20.0)));
        assert_eq!((seen[0].compute_infer_ms_mean, seen[0].executions), (None, 20));

        let sent = Sent { ok: 20, ..Sent::default() };
        assert_eq!(check(&seen, "ensemble", &sent).unwrap().to_string(), "statistics_requests=ok");
        let sent = Sent { ok: 21, ..sent };
        assert_eq!(check(&seen, "ensemble", &sent).unwrap().to_string(), "statistics_requests=failed(20!=21)");
        assert_eq!(check(&seen, "bls", &sent), None);
        assert!(Statistics::of_page("<html>").is_none());
    }
}
