use std::path::Path;

use super::args::{CompareArgs, CompareFormat, FailOn};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color};
use crate::base::Scalar;
use crate::manifest::{self, Locked};
use crate::report;
use crate::store::{RunFolder, Runs};

/// Puts two runs beside each other and says what differs beyond chance.
pub(super) fn run(args: &CompareArgs, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let runs = Runs::of_home(home);
    let (base, new) = (runs.find(&args.base)?, runs.find(&args.new)?);
    let base_rows = report::read_run_with_samples(&base.id, &base.path)?;
    let new_rows = report::read_run_with_samples(&new.id, &new.path)?;
    let mut comparison = report::compare((&base.id, &base_rows), (&new.id, &new_rows));
    comparison.notes.splice(..0, surroundings(&base, &new));
    match args.format {
        CompareFormat::Text => output.line(report::comparison_text(&comparison, color()).trim_end())?,
        CompareFormat::Json => output.json(&report::comparison_json(&comparison))?,
        CompareFormat::Csv => {
            comparison.notes.iter().for_each(|note| output.remark(&format!("note: {note}")));
            let mut text = Vec::new();
            report::comparison_csv(&comparison, &mut text)?;
            output.bytes(&text)?;
        }
    }
    let missed = matches!(args.fail_on, Some(FailOn::Worse)) && comparison.shows_worse();
    Ok(if missed { Exit::Missed } else { Exit::Done })
}

/// How the machines and the programs differ, by the lock files; a run of `benchrun bench` has none.
fn surroundings(base: &RunFolder, new: &RunFolder) -> Vec<String> {
    let (Some(base), Some(new)) = (locked(base), locked(new)) else {
        return vec!["a run without a lock file: nobody can say that both were on the same machine".to_owned()];
    };
    let mut notes = Vec::new();
    let text = |value: Option<&Scalar>| value.map_or_else(|| "not known".to_owned(), ToString::to_string);
    let others = new.host.keys().filter(|name| !base.host.contains_key(*name));
    for name in base.host.keys().chain(others) {
        let (before, now) = (base.host.get(name), new.host.get(name));
        if before != now {
            notes.push(format!("another host: {name} was {}, is {}", text(before), text(now)));
        }
    }
    for (label, engine) in &new.engines {
        let Some(before) = base.engines.get(label) else { continue };
        for (name, now) in &engine.programs {
            match before.programs.get(name) {
                Some(before) if before != now => notes.push(format!("{name} was {before}, is {now}")),
                Some(_) | None => {}
            }
        }
    }
    if base.benchrun != new.benchrun {
        notes.push(format!("measured by benchrun {} and {}", base.benchrun, new.benchrun));
    }
    notes
}

fn locked(run: &RunFolder) -> Option<Locked> {
    manifest::read(&run.path.join("lock.yaml")).ok()?.value.locked
}
