use std::process::ExitCode;

/// How the program ends; the numbers are part of the contract.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Exit {
    Done,
    OurBug,
    Usage,
    /// A manifest or a plan was refused before anything ran.
    Refused,
    /// A step or a cell failed.
    Failed,
    /// Done, but a threshold of the manifest was missed.
    Missed,
    /// `plan --detailed-exitcode`: there is work to do.
    Work,
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::OurBug => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Failed => 4,
            Exit::Missed => 5,
            Exit::Work => 10,
            Exit::Interrupted => 130,
        })
    }
}
