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
#[derive(Default)]
pub(super) struct Threads(Vec<JoinHandle<()>>);

impl Threads {
    /// A thread with an event loop of its own: what it carries out wakes nobody on another core.
    pub(super) fn start_loop(&mut self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        self.start(name, move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            // The whole program's was made in the same way before.
            runtime.expect("an event loop can be made").block_on(work);
        });
    }

    pub(super) fn start(&mut self, name: &str, work: impl FnOnce() + Send + 'static) {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
        self.0.push(thread.expect("a thread can be made, as the program's others were"));
    }

    /// Waits for all of them. Blocks.
    pub(super) fn join(self) {
        for thread in self.0 {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    }
}
