use std::collections::HashMap;

use procfs::ProcResult;
use procfs::process::{Process, Stat, all_processes};

use crate::process::error::ProcessError;

/// The ids of every process below `root`, itself not included.
///
/// A snapshot: what forks or ends meanwhile may be missing or already gone.
pub(super) fn descendants(root: i32) -> ProcResult<Vec<i32>> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    // Only numbers are kept: each `Process` holds a file descriptor, and a host may have thousands of processes.
    for stat in all_processes()?.filter_map(|process| process.and_then(|process| process.stat()).ok()) {
        children.entry(stat.ppid).or_default().push(stat.pid);
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let more = children.remove(parent).unwrap_or_default();
        found.extend(more);
        next += 1;
    }
    Ok(found)
}

/// A server's processes: all that descend from its supervisor.
#[derive(Clone, Copy, Debug)]
pub struct ProcessTree {
    pub(super) root: i32,
}

/// What processes take of their host, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in MiB; pages that several processes share count for each.
    pub rss_mib: f64,
    /// CPU seconds since they began, with those of ended processes that were waited for.
    pub cpu_s: f64,
}

impl ProcessTree {
    /// A snapshot; see [`descendants`].
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn usage(self) -> Result<Usage, ProcessError> {
        let processes = descendants(self.root).map_err(|source| ProcessError::ProcessTable { source })?;
        let of_process = |pid: i32| Process::new(pid).and_then(|process| process.stat());
        let waited_for = |stat: &Stat| stat.cutime.saturating_add(stat.cstime).max(0).cast_unsigned();
        // What has ended meanwhile counts nothing here, and then with the one that waited for it.
        let mut ticks = of_process(self.root).map_or(0, |supervisor| waited_for(&supervisor));
        let mut pages = 0;
        for stat in processes.into_iter().filter_map(|pid| of_process(pid).ok()) {
            ticks += stat.utime + stat.stime + waited_for(&stat);
            pages += stat.rss;
        }
        Ok(Usage {
            rss_mib: (pages * procfs::page_size()) as f64 / f64::from(1 << 20),
            cpu_s: ticks as f64 / procfs::ticks_per_second() as f64,
        })
    }
}
