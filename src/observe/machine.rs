use std::time::Instant;

use super::gpu::{GpuSample, Gpus};
use crate::process::ProcessTree;
use crate::record::ServerFacts;

/// What a server takes of its host.
pub(super) struct Machine {
    processes: Option<ProcessTree>,
    gpus: Option<Gpus>,
    gpu_memory_mib_before: Option<f64>,
    rss_mib_peak: Option<f64>,
    gpu_memory_mib_peak: Option<f64>,
    /// Since the mark.
    gpu_power_w: Mean,
    gpu_busy: Mean,
    mark: Mark,
}

/// Counters where the measured part begins.
struct Mark {
    at: Instant,
    cpu_s: Option<f64>,
    energy_j: Option<f64>,
}

#[derive(Clone, Copy, Default)]
struct Mean {
    sum: f64,
    count: u32,
}

impl Machine {
    pub(super) fn new(processes: Option<ProcessTree>, gpus: Vec<String>, gpu_memory_mib_before: Option<f64>) -> Self {
        let gpus = Gpus::open(gpus);
        let mark = Mark::now(processes, gpus.as_ref());
        let (gpu_power_w, gpu_busy) = (Mean::default(), Mean::default());
        Self {
            processes,
            gpus,
            gpu_memory_mib_before,
            rss_mib_peak: None,
            gpu_memory_mib_peak: None,
            gpu_power_w,
            gpu_busy,
            mark,
        }
    }

    /// Means and counters begin here; peaks are of all the time.
    pub(super) fn mark(&mut self) {
        self.mark = Mark::now(self.processes, self.gpus.as_ref());
        (self.gpu_power_w, self.gpu_busy) = (Mean::default(), Mean::default());
    }

    /// A sample that fails is one sample less.
    pub(super) fn sample(&mut self) {
        if let Some(Ok(usage)) = self.processes.map(ProcessTree::usage) {
            self.rss_mib_peak = Some(usage.rss_mib.max(self.rss_mib_peak.unwrap_or_default()));
        }
        let GpuSample { memory_mib, power_w, busy } = self.gpus.as_ref().map(Gpus::sample).unwrap_or_default();
        self.gpu_memory_mib_peak = self.gpu_memory_mib_peak.into_iter().chain(memory_mib).reduce(f64::max);
        self.gpu_power_w.add(power_w);
        self.gpu_busy.add(busy);
    }

    /// What was seen so far.
    pub(super) fn facts(&self) -> ServerFacts {
        let now = Mark::now(self.processes, self.gpus.as_ref());
        let seconds = (now.at - self.mark.at).as_secs_f64();
        let since = |from: Option<f64>, to: Option<f64>| from.zip(to).map(|(from, to)| (to - from).max(0.0));
        let power_w = self.gpu_power_w.value();
        let energy_j = since(self.mark.energy_j, now.energy_j);
        ServerFacts {
            host_rss_mib_peak: self.rss_mib_peak,
            cpu_cores_mean: since(self.mark.cpu_s, now.cpu_s).filter(|_| seconds > 0.0).map(|cpu_s| cpu_s / seconds),
            gpu_memory_mib_before: self.gpu_memory_mib_before,
            gpu_memory_mib_peak: self.gpu_memory_mib_peak,
            gpu_power_w_mean: power_w,
            gpu_busy_mean: self.gpu_busy.value(),
            gpu_energy_j: energy_j.or(power_w.map(|watts| watts * seconds)),
            ..ServerFacts::default()
        }
    }
}

impl Mark {
    fn now(processes: Option<ProcessTree>, gpus: Option<&Gpus>) -> Self {
        let cpu_s = processes.and_then(|processes| processes.usage().ok()).map(|usage| usage.cpu_s);
        Self { at: Instant::now(), cpu_s, energy_j: gpus.and_then(Gpus::energy_j) }
    }
}

impl Mean {
    fn add(&mut self, value: Option<f64>) {
        self.sum += value.unwrap_or_default();
        self.count += u32::from(value.is_some());
    }

    fn value(self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}
