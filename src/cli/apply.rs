use std::io::{self, IsTerminal};
use std::path::PathBuf;

use tokio_util::sync::CancellationToken;

use super::args::ApplyArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color, width};
use super::{block_on, signals};
use crate::event::StepKind;
use crate::exec::{self, Purpose, Request, RunOutcome, RunSettings};
use crate::progress::{Progress, Terminal};
use crate::report::{self, Row};
use crate::store::{Hold, Store};

pub(super) fn run(args: &ApplyArgs, home: PathBuf, output: &mut Output) -> Result<Exit, Failure> {
    let rerun = args.rerun.iter().map(|&kind| StepKind::from(kind)).collect();
    let settings = RunSettings { home: home.clone(), run_dir: args.run_dir.clone(), fail_fast: args.fail_fast, rerun };
    let request = Request {
        manifest: args.manifest.clone(),
        home,
        only: args.only.clone(),
        rerun: settings.rerun.clone(),
        path: std::env::var_os("PATH").unwrap_or_default(),
        visible_gpus: std::env::var_os("CUDA_VISIBLE_DEVICES").map(|list| list.to_string_lossy().into_owned()),
        purpose: Purpose::Carry,
    };
    let cancel = CancellationToken::new();
    let outcome = block_on(async {
        let _signals = signals::listen(&cancel);
        let Some(_in_use) = Store::of_home(&request.home).in_use(Hold::Shared)? else {
            return Err(Failure::Refused(
                "`benchrun store gc` is at work on this store; try again when it is done".to_owned(),
            ));
        };
        let prepared = tokio::select! {
            prepared = exec::prepare(&request, |text| output.remark(text), &cancel) => prepared?,
            () = cancel.cancelled() => return Ok(None),
        };
        let mut progress = Progress::new(terminal());
        Ok(Some(exec::run(prepared, &settings, |event| progress.show(event), &cancel).await?))
    })??;
    match outcome {
        Some(outcome) => report_to(&outcome, output),
        None => Ok(Exit::Interrupted),
    }
}

fn terminal() -> Terminal {
    if io::stderr().is_terminal() { Terminal::Bars } else { Terminal::Lines(Box::new(io::stderr())) }
}

fn report_to(outcome: &RunOutcome, output: &mut Output) -> Result<Exit, Failure> {
    let rows: Vec<Row> = outcome.rows.iter().map(|row| briefly(row, outcome)).collect();
    output.line(report::table(&rows, width(), color()).trim_end())?;
    output.remark("");
    let total = outcome.measured + outcome.cached;
    if outcome.measured == 0 && outcome.cached > 0 && outcome.failures.is_empty() && !outcome.interrupted {
        let points = plural(outcome.cached, "load point");
        output.remark(&format!("nothing to do: {points} measured before, and nothing that decides them has changed"));
        output.remark("(`--rerun bench` measures anew, `benchrun why` explains)");
    } else if outcome.cached > 0 {
        output.remark(&format!("{} of {} were measured before", outcome.cached, plural(total, "load point")));
    }
    if total == 0 && outcome.failures.is_empty() && !outcome.interrupted {
        output.remark("nothing was measured: no cell is left to measure");
    }
    for (step, error) in &outcome.failures {
        output.remark(&format!("failed: {step}: {}", error.replace('\n', "\n  ")));
    }
    for found in report::searches(&outcome.rows).iter().filter(|found| !found.has_failed()) {
        output.remark(&format!("search: {} {}: {found}", found.cell(), found.phase()));
    }
    for (point, miss) in &outcome.misses {
        output.remark(&format!("threshold missed: {point}: {miss}"));
    }
    output.remark(&format!("results: {}", outcome.run.path.join("results.csv").display()));
    Ok(exit(outcome))
}

/// A row for the table: of a reason that the list of failures says whole, only the first line.
fn briefly(row: &Row, outcome: &RunOutcome) -> Row {
    let mut row = row.clone();
    if let Some(reason) = &mut row.point.reason
        && outcome.failures.iter().any(|(_, error)| reason.contains(error))
    {
        reason.truncate(reason.find('\n').unwrap_or(reason.len()));
    }
    row
}

fn exit(outcome: &RunOutcome) -> Exit {
    if outcome.interrupted {
        Exit::Interrupted
    } else if !outcome.failures.is_empty() {
        Exit::Failed
    } else if !outcome.misses.is_empty() {
        Exit::Missed
    } else {
        Exit::Done
    }
}

/// `1 load point`, `3 load points`.
pub(super) fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
