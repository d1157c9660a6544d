//! Arguments to settings, one function per subcommand, error text, exit codes.
//!
//! **Invariant:** data goes to stdout, everything else to stderr; nothing here decides what a run does.

mod apply;
mod args;
mod bench;
mod compare;
mod engine;
mod exit;
mod explain;
mod failure;
mod init;
mod kept;
mod output;
mod plan;
mod render;
mod report;
mod signals;
mod validate;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Arguments, Command};
use exit::Exit;
use failure::Failure;
use output::Output;

/// Does what the command line says; the first argument is the program's name.
#[must_use]
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason for another message.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let mut output = Output::standard();
    match dispatch(arguments, &mut output) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

fn dispatch(arguments: Arguments, output: &mut Output) -> Result<Exit, Failure> {
    let home = arguments.home;
    match arguments.command {
        Command::Init(args) => init::run(&args, output),
        Command::Validate(args) => validate::run(&args, output),
        Command::Plan(args) => plan::run(&args, home, output),
        Command::Apply(args) => apply::run(&args, home, output),
        Command::Bench(args) => bench::run(*args, &home, output),
        Command::Why(args) => explain::run(&args, home, output),
        Command::Render(args) => render::run(&args, &home, output),
        Command::Report(args) => report::run(&args, &home, output),
        Command::Compare(args) => compare::run(&args, &home, output),
        Command::Runs(args) => kept::runs(args.command.as_ref(), &home, output),
        Command::Store(args) => kept::store(args.command.as_ref(), &home, output),
        Command::Schema => output.json(&crate::manifest::json_schema()).map(|()| Exit::Done),
        Command::Engine(args) => engine::run(args.command, output),
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Arguments::command(), "benchrun", &mut script);
            output.bytes(&script).map(|()| Exit::Done)
        }
    }
}

/// A runtime for commands that wait for processes or the network.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    Ok(runtime.block_on(future))
}
