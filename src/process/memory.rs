use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::process::family::resident_bytes;

/// Watches the memory of a server's processes until dropped.
///
/// Sampling has its own thread, so that reading `/proc` never delays the tasks that measure.
pub struct RssSampler {
    peak_bytes: Arc<AtomicU64>,
    /// Nothing is ever sent: the thread ends when this is dropped.
    _alive: mpsc::Sender<()>,
}

impl RssSampler {
    /// The first sample is taken at once, so that even the shortest watch has one.
    pub(super) fn start(root: i32, interval: Duration) -> Self {
        // A sample that fails is one sample less.
        let peak_bytes = Arc::new(AtomicU64::new(resident_bytes(root).unwrap_or_default()));
        let (alive, dropped) = mpsc::channel();
        let peak = Arc::clone(&peak_bytes);
        thread::spawn(move || {
            while dropped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                peak.fetch_max(resident_bytes(root).unwrap_or_default(), Ordering::Relaxed);
            }
        });
        Self { peak_bytes, _alive: alive }
    }

    /// The largest sum of resident memory so far, in MiB; `None` when no sample could be taken.
    #[must_use]
    pub fn peak_mib(&self) -> Option<f64> {
        let bytes = self.peak_bytes.load(Ordering::Relaxed);
        (bytes > 0).then(|| mib(bytes))
    }
}

pub(super) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
