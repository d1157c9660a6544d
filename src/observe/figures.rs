use super::checks::checks;
use super::families::Family;
use super::sent::Sent;
use super::snapshot::{Snapshot, Window};
use crate::record::{ServerMetrics, ServerWindow};

/// The pages of one load point.
pub(super) struct Pages {
    pub family: &'static Family,
    /// The model that requests name.
    pub model: String,
    pub before: Snapshot,
    /// Read when the warm-up had ended.
    pub marked: Option<Snapshot>,
    pub after: Snapshot,
    /// Requests running and waiting at each second.
    pub in_flight: Vec<(f64, f64)>,
    pub kv_cache_usage_peak: Option<f64>,
}

impl Pages {
    pub(super) fn new(family: &'static Family, model: String, before: Snapshot) -> Self {
        let after = before.clone();
        let mut pages =
            Self { family, model, before, marked: None, after, in_flight: Vec::new(), kv_cache_usage_peak: None };
        pages.take(pages.after.clone());
        pages
    }

    /// Takes in the next page.
    pub(super) fn take(&mut self, page: Snapshot) {
        let usage = page.share(self.family.kv_cache_usage, &self.model);
        self.kv_cache_usage_peak = self.kv_cache_usage_peak.into_iter().chain(usage).reduce(f64::max);
        if let Some(running) = page.sum(self.family.running, &self.model) {
            let waiting = page.sum(self.family.waiting, &self.model).unwrap_or_default();
            self.in_flight.push((page.at_s, running + waiting));
        }
        self.after = page;
    }

    /// Whether the last page has counted so many requests; `true` where it counts none.
    pub(super) fn has_counted(&self, requests: u64) -> bool {
        self.window(&self.before).count(self.family.requests).is_none_or(|counted| counted >= requests as f64)
    }

    pub(super) fn metrics(&self, sent: &Sent) -> ServerMetrics {
        let (over, from) = self.measured_from(sent);
        let window = self.window(from);
        ServerMetrics {
            window: over,
            ttft_ms_mean: window.mean_ms(self.family.ttft),
            ttft_ms_p99: window.percentile_ms(self.family.ttft, 0.99),
            queue_ms_mean: window.mean_ms(self.family.queue),
            kv_cache_usage_peak: self.kv_cache_usage_peak,
            prefix_hit_share: window.share(self.family.prefix_hits),
            requests_in_flight_mean: self.in_flight_mean(sent),
            checks: checks(&self.window(&self.before), self.family, sent, &self.in_flight),
        }
    }

    /// The page that was read between warm-up and measurement, if it was read in time: when the server had counted just
    /// the warm-up.
    fn measured_from(&self, sent: &Sent) -> (ServerWindow, &Snapshot) {
        if sent.warmup == 0 {
            return (ServerWindow::Measured, &self.before);
        }
        let in_time = self.marked.as_ref().filter(|marked| {
            let warmup = Window { from: &self.before, to: marked, model: &self.model };
            warmup.timed(self.family.ttft).or_else(|| warmup.count(self.family.requests)) == Some(sent.warmup as f64)
        });
        in_time.map_or((ServerWindow::All, &self.before), |marked| (ServerWindow::Measured, marked))
    }

    fn in_flight_mean(&self, sent: &Sent) -> Option<f64> {
        let (first, last) = sent.measured_s()?;
        let seen: Vec<f64> =
            self.in_flight.iter().filter(|(at, _)| (first..=last).contains(at)).map(|it| it.1).collect();
        (!seen.is_empty()).then(|| seen.iter().sum::<f64>() / seen.len() as f64)
    }

    fn window<'a>(&'a self, from: &'a Snapshot) -> Window<'a> {
        Window { from, to: &self.after, model: &self.model }
    }
}
