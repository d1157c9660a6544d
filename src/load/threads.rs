use std::future::Future;
use std::num::NonZero;
use std::panic::resume_unwind;
use std::thread::{self, JoinHandle, available_parallelism};

use tokio::runtime::Builder;

/// Half of the cores: the other half is the server's, the writers' and the kernel's.
pub(super) fn number_of_shards(most: usize) -> usize {
    (available_parallelism().map_or(1, NonZero::get) / 2).clamp(1, most.max(1))
}

/// Threads that end when their work does; waited for, not cut off.
pub(super) struct Threads<T = ()>(Vec<JoinHandle<T>>);

impl<T> Default for Threads<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl Threads {
    /// A thread with an event loop of its own: what it carries out wakes nobody on another core.
    pub(super) fn start_loop(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        self.start(name, move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            // The whole program's was made in the same way before.
            runtime.expect("an event loop can be made").block_on(work);
        });
    }
}

impl<T: Send + 'static> Threads<T> {
    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        self.0.push(thread.expect("a thread can be made, as the program's others were"));
    }

    /// A thread that takes what the others leave of the cores.
    pub(super) fn start_behind(&mut self, name: &str, work: impl FnOnce() -> T + Send + 'static) {
        /// A tenth of what a thread of usual priority gets when both want the same core.
        const NICENESS: i32 = 10;
        self.start(name, move || {
            // A host that refuses keeps the usual priority.
            let _ = rustix::process::nice(NICENESS);
            work()
        });
    }

    /// Waits for all of them. Blocks.
    pub(super) fn join(self) -> Vec<T> {
        let joined = self.0.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect()
    }
}
