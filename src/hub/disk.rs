use std::io;
use std::path::{Path, PathBuf};

use super::error::HubError;

/// Free bytes of the file system that holds the folder.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let status = rustix::fs::statvfs(folder)?;
    Ok(status.f_bavail.saturating_mul(status.f_frsize))
}

/// Runs what blocks where it holds up no other download.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic, and only a runtime that ends drops it")
}

/// The error for a failed write of the part file: a full disk deserves its own.
pub(super) fn write_error(path: PathBuf, missing: u64) -> impl FnOnce(io::Error) -> HubError {
    move |source| {
        let is_full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        match path.parent() {
            Some(folder) if is_full => {
                HubError::DiskFull { folder: folder.to_owned(), needed: missing, free: free_bytes(folder).unwrap_or(0) }
            }
            _ => HubError::io("write", path)(source),
        }
    }
}
