//! External commands and servers: started from an argument list, recorded, and never left behind.
//!
//! ```text
//! benchrun ──pipe──▶ supervisor (own process group, child subreaper) ──▶ program (own session) ──▶ workers, daemons …
//! ```
//!
//! A program runs below a small supervisor, which is benchrun's own executable. The supervisor ends the program and
//! everything that descends from it when it is told to, when the program ends, and when the pipe closes: that is how
//! it learns that benchrun was killed, even by SIGKILL. As a subreaper it adopts what daemonises, so that *descends
//! from the supervisor* is one and the same answer to whom to stop, whose memory to count and whose port it is.
//!
//! - [`run`] waits for a command; [`Server`] keeps one up. Both are described by a [`CommandSpec`].
//! - [`supervise`] is the hidden subcommand that the supervisor runs.
//!
//! **Invariant:** no shell is involved, and nothing here knows what a recipe, a model or a readiness probe is.

mod error;
mod exit;
mod family;
mod log;
mod ports;
mod program;
mod record;
mod run;
mod server;
mod spec;
mod supervise;

pub use error::ProcessError;
pub use exit::{Exit, ExitFacts};
pub use family::{ProcessTree, Usage};
pub use log::tail;
pub use ports::{PortOwner, free_port, port_in_use};
pub use program::{program_version, resolve_program};
pub use record::CommandRecord;
pub use run::{Finished, run};
pub use server::Server;
pub use spec::{CommandSpec, EnvValue};
pub use supervise::{SUPERVISE, supervise};
