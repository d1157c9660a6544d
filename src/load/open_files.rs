use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::LoadError;

/// Files that the program needs besides connections.
const OTHER_FILES: u64 = 256;

/// Lets this process have so many connections at a time, or as many as it may. The usual soft limit is 1,024 files; it
/// is raised as far as the hard one allows.
pub(super) fn allow(connections: Option<u32>) -> Result<(), LoadError> {
    let needed = connections.map(|connections| u64::from(connections) + OTHER_FILES);
    let Rlimit { current: soft, maximum: hard } = getrlimit(Resource::Nofile);
    if soft.is_none() || needed.is_some_and(|needed| soft >= Some(needed)) {
        return Ok(());
    }
    if let (Some(needed), Some(limit)) = (needed, hard)
        && limit < needed
    {
        return Err(LoadError::OpenFiles { needed, limit });
    }
    let raised = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    raised.map_err(|error| LoadError::RaiseOpenFiles { source: error.into() })
}
