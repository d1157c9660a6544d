//! The command line; everything else is in the library.

use std::ffi::OsString;
use std::process::ExitCode;

use benchrun::{cli, process};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    match arguments.get(1) {
        // Before everything else: a supervisor has no command line of its own and must start at once.
        Some(subcommand) if subcommand == process::SUPERVISE => process::supervise(&arguments[2..]),
        _ => cli::main(arguments),
    }
}
