use std::ffi::OsString;
use std::process::ExitCode;

use benchrun::process;

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.split_first() {
        Some((subcommand, rest)) if subcommand == process::SUPERVISE => process::supervise(rest),
        _ => ExitCode::SUCCESS,
    }
}
