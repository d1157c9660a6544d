use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;

/// The GPUs of a server, through the driver's own library.
pub(super) struct Gpus {
    nvml: Nvml,
    /// Indices or UUIDs.
    names: Vec<String>,
}

/// All GPUs of a server together, now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct GpuSample {
    /// MiB, of all processes on them.
    pub memory_mib: Option<f64>,
    /// Watts.
    pub power_w: Option<f64>,
    /// Share of the time in which a kernel ran, mean over the GPUs.
    pub busy: Option<f64>,
}

/// The GPUs that a server takes: the first `count` of `CUDA_VISIBLE_DEVICES`, or of the host where that is not set.
#[must_use]
pub fn visible_gpus(count: u32, cuda_visible_devices: Option<&str>) -> Vec<String> {
    let count = count as usize;
    match cuda_visible_devices {
        // As CUDA reads it: what comes after a name that is none does not count.
        Some(list) => {
            let names = list.split(',').map(str::trim).take_while(|name| !name.is_empty() && *name != "-1");
            names.map(str::to_owned).take(count).collect()
        }
        None => (0..count).map(|index| index.to_string()).collect(),
    }
}

/// MiB that all processes on these GPUs have now; `None` without GPUs, or without their driver's library.
#[must_use]
pub fn gpu_memory_mib(names: Vec<String>) -> Option<f64> {
    Gpus::open(names)?.sample().memory_mib
}

impl Gpus {
    /// `None` without GPUs to watch, or where the driver's library is not there.
    pub(super) fn open(names: Vec<String>) -> Option<Self> {
        if names.is_empty() {
            return None;
        }
        Nvml::init().ok().map(|nvml| Self { nvml, names })
    }

    /// Each figure is there if every GPU gives it.
    pub(super) fn sample(&self) -> GpuSample {
        let memory_bytes = self.total(|gpu| gpu.memory_info().map(|memory| memory.used as f64));
        let power_mw = self.total(|gpu| gpu.power_usage().map(f64::from));
        let busy_percent = self.total(|gpu| gpu.utilization_rates().map(|rates| f64::from(rates.gpu)));
        GpuSample {
            memory_mib: memory_bytes.map(|bytes| bytes / f64::from(1 << 20)),
            power_w: power_mw.map(|power| power / 1000.0),
            busy: busy_percent.map(|percent| percent / 100.0 / self.names.len() as f64),
        }
    }

    /// Joules since the driver was loaded; GPUs before Volta do not count them.
    pub(super) fn energy_j(&self) -> Option<f64> {
        self.total(|gpu| gpu.total_energy_consumption().map(|energy_mj| energy_mj as f64)).map(|energy| energy / 1000.0)
    }

    fn total(&self, read: impl Fn(nvml_wrapper::Device) -> Result<f64, NvmlError>) -> Option<f64> {
        let of_gpu = |name: &String| match name.parse() {
            Ok(index) => self.nvml.device_by_index(index),
            Err(_) => self.nvml.device_by_uuid(name.as_str()),
        };
        self.names.iter().map(|name| of_gpu(name).and_then(&read).ok()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::visible_gpus;

    #[test]
    fn a_server_sees_the_gpus_of_its_environment() {
        for (count, list, expected) in [
            (2, None, vec!["0", "1"]),
            (2, Some("3, 1,0"), vec!["3", "1"]),
            (2, Some("GPU-8a1b,-1,2"), vec!["GPU-8a1b"]),
            (1, Some(""), vec![]),
            (0, None, vec![]),
            (0, Some("1"), vec![]),
        ] {
            assert_eq!(visible_gpus(count, list), expected, "{count} of {list:?}");
        }
    }
}
