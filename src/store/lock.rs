use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StoreError;

/// How long to wait between looks at a lock that somebody else holds.
const POLL: Duration = Duration::from_millis(100);

/// How a lock is held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hold {
    /// Together with others who share it.
    Shared,
    Alone,
}

/// An advisory lock on a file, released when dropped and by the kernel when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Waits until the lock is free; `None` when cancelled before that.
    pub async fn acquire(path: &Path, hold: Hold, cancel: &CancellationToken) -> Result<Option<Self>, StoreError> {
        loop {
            if let Some(lock) = Self::try_acquire(path, hold)? {
                return Ok(Some(lock));
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cancel.cancelled() => return Ok(None),
            }
        }
    }

    /// `None` when somebody else holds it.
    pub fn try_acquire(path: &Path, hold: Hold) -> Result<Option<Self>, StoreError> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(StoreError::at("create", folder))?;
        }
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(StoreError::at("open", path))?;
        let locked = match hold {
            Hold::Shared => file.try_lock_shared(),
            Hold::Alone => file.try_lock(),
        };
        match locked {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::at("lock", path)(source)),
        }
    }
}
