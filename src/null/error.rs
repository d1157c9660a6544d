use std::io;
use std::path::PathBuf;

/// Why the null server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NullError {
    #[error("cannot listen on port {port} of `{host}`")]
    Listen { host: String, port: u16, source: io::Error },
    #[error("cannot write `{}`", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("the server stopped")]
    Serve { source: io::Error },
}
