use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StoreError;

/// How long to wait between looks at a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(100);

/// An advisory lock on a file, released when dropped and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until the lock is free; `None` when cancelled before that.
    pub async fn acquire(path: &Path, cancel: &CancellationToken) -> Result<Option<Self>, StoreError> {
        loop {
            if let Some(lock) = Self::try_acquire(path)? {
                return Ok(Some(lock));
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// `None` when somebody else holds it.
    pub fn try_acquire(path: &Path) -> Result<Option<Self>, StoreError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(StoreError::at("create", folder))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(StoreError::at("open", path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::at("lock", path)(source)),
        }
    }
}
