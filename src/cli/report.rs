use std::path::Path;

use super::args::{ReportArgs, ReportFormat};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color, width};
use crate::report;
use crate::store::Runs;

/// Rebuilds `results.csv` and `results.json` of a run and prints one form of them.
pub(super) fn run(args: &ReportArgs, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let run = Runs::of_home(home).find(&args.run)?;
    let rows = report::read_run(&run.id, &run.path)?;
    report::save(&run.id, &rows, &run.path)?;
    report::save_rounds(&run.id, &rows, &run.path)?;
    report::save_searches(&run.id, &rows, &run.path)?;
    match args.format {
        ReportFormat::Table => {
            output.line(report::table(&rows, width(), color()).trim_end())?;
            for found in report::searches(&rows) {
                output.line(&format!("search: {} {}: {found}", found.cell(), found.phase()))?;
            }
        }
        ReportFormat::Csv => {
            let mut text = Vec::new();
            report::write_csv(&rows, &mut text)?;
            output.bytes(&text)?;
        }
        ReportFormat::Json => output.json(&report::to_json(&run.id, &rows))?,
    }
    Ok(Exit::Done)
}
