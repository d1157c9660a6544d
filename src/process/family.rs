use std::collections::HashMap;

use procfs::ProcResult;
use procfs::process::{Process, all_processes};

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

/// Resident memory of every process below `root` in bytes; pages that several of them share count for each.
pub(super) fn resident_bytes(root: i32) -> ProcResult<u64> {
    let page = procfs::page_size();
    let resident = |pid: i32| Process::new(pid).and_then(|process| process.statm()).map_or(0, |memory| memory.resident);
    Ok(descendants(root)?.into_iter().map(|pid| resident(pid) * page).sum())
}
