//! Runs a plan: steps, the lease on the host, cancellation, results as they come.
//!
//! [`prepare`] finds out what the machine and the hub say and makes the plan; [`run`] carries it out. One task owns all
//! state of a run; steps tell it what happens through a channel and by returning.
//!
//! **Invariant:** a measurement has the host to itself, and no server outlives the step that started it.

mod container;
mod engines;
mod error;
mod gpus;
mod history;
mod locked;
mod models;
mod prepare;
mod programs;
mod publish;
mod python;
mod run;
mod state;
mod steps;
mod venv;

pub use error::{PrepareError, RunError, StepError};
pub use prepare::{Prepared, Purpose, Request, check, prepare};
pub use python::PythonError;
pub use run::{RunOutcome, RunSettings, run};
