use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use serde::{Deserialize, Serialize};

/// How a program ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    Code(i32),
    /// The number of the signal that ended it.
    Signal(i32),
    /// It is gone, but the kernel kept no status: whoever started benchrun told it to ignore its children.
    Unknown,
}

/// How a program ended, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExitFacts {
    pub exit: Exit,
    /// Seconds from the start until the program and all its descendants were gone, on the monotonic clock.
    pub seconds: f64,
}

/// What shells add to a signal's number to make an exit code of it.
const SIGNAL_BASE: i32 = 128;
const LAST_SIGNAL: i32 = 64;

impl Exit {
    /// What a supervisor's status says about its program.
    ///
    /// The supervisor passes codes on and says `128 + n` for signal n, as shells do, so that a wrapper script which
    /// reports its own child's signal in this way is understood as well.
    pub(super) fn of_supervisor(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) if (SIGNAL_BASE + 1..=SIGNAL_BASE + LAST_SIGNAL).contains(&code) => {
                Self::Signal(code - SIGNAL_BASE)
            }
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            (None, None) => Self::Unknown,
        }
    }

    /// The exit code with which a supervisor passes this on.
    pub(super) fn supervisor_code(self) -> u8 {
        let code = match self {
            Self::Code(code) => code,
            Self::Signal(signal) => SIGNAL_BASE + signal,
            Self::Unknown => i32::MAX,
        };
        // Codes and signals are below 256 on Linux.
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => f.write_str(name),
                None => write!(f, "signal {signal}"),
            },
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_supervisor_passes_every_end_on() {
        for exit in [Exit::Code(0), Exit::Code(3), Exit::Code(127), Exit::Code(255), Exit::Signal(9), Exit::Signal(15)]
        {
            let status = ExitStatus::from_raw(i32::from(exit.supervisor_code()) << 8);
            assert_eq!(Exit::of_supervisor(status), exit);
        }
    }

    #[test]
    fn a_supervisor_that_was_killed_is_told_by_its_signal() {
        assert_eq!(Exit::of_supervisor(ExitStatus::from_raw(9)), Exit::Signal(9));
    }

    #[test]
    fn ends_read_well() {
        assert_eq!(Exit::Code(3).to_string(), "exit code 3");
        assert_eq!(Exit::Signal(11).to_string(), "SIGSEGV");
        assert_eq!(Exit::Signal(40).to_string(), "signal 40");
    }
}
