//! What is kept on disk: `benchrun runs` and `benchrun store`.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::Path;

use indicatif::HumanBytes;
use serde_json::Value;

use super::apply::plural;
use super::args::{RunsCommand, StoreCommand};
use super::exit::Exit;
use super::failure::Failure;
use super::output::{Output, color, width};
use crate::report;
use crate::store::{Entry, Hold, RunFolder, Runs, Store};

pub(super) fn runs(command: Option<&RunsCommand>, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let runs = Runs::of_home(home);
    match command.unwrap_or(&RunsCommand::List) {
        RunsCommand::List => {
            for (name, run) in runs.list()? {
                output.line(&format!("{}  {name}  {}", run.id, ending(&run)))?;
            }
        }
        RunsCommand::Show { run } => {
            let run = runs.find(run)?;
            output.line(&format!("{}  {}\n{}\n", run.id, ending(&run), run.path.display()))?;
            output.line(report::table(&report::read_run(&run.id, &run.path)?, width(), color()).trim_end())?;
        }
        RunsCommand::Remove { runs: wanted } => {
            let found = wanted.iter().map(|run| runs.find(run)).collect::<Result<Vec<_>, _>>()?;
            for run in found {
                fs::remove_dir_all(&run.path).map_err(|source| Failure::File {
                    doing: "remove",
                    path: run.path.clone(),
                    source,
                })?;
                output.line(&format!("removed {}", run.id))?;
            }
        }
    }
    Ok(Exit::Done)
}

/// How a run ended, by the last line of its log.
fn ending(run: &RunFolder) -> String {
    let log = fs::read_to_string(run.path.join("events.jsonl")).unwrap_or_default();
    let last: Value = log.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    if last["event"] != "run_finished" {
        return "not finished".to_owned();
    }
    let counts = ["ok", "failed", "unsupported", "skipped", "cached"];
    let said: Vec<String> = counts
        .iter()
        .filter_map(|name| Some((name, last[*name].as_u64()?)))
        .filter(|(_, count)| *count > 0)
        .map(|(name, count)| format!("{count} {name}"))
        .collect();
    said.join(", ")
}

pub(super) fn store(command: Option<&StoreCommand>, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let store = Store::of_home(home);
    let mut entries = store.entries()?;
    entries.sort_by_key(|entry| (entry.kind, entry.made));
    match command.unwrap_or(&StoreCommand::Size) {
        StoreCommand::List => {
            for entry in &entries {
                output.line(&described(entry))?;
            }
        }
        StoreCommand::Size => {
            let mut sizes: BTreeMap<_, (usize, u64)> = BTreeMap::new();
            for entry in &entries {
                let (count, bytes) = sizes.entry(entry.kind).or_default();
                *count += 1;
                *bytes += entry.bytes;
            }
            for (kind, (count, bytes)) in sizes {
                output.line(&format!(
                    "{:<9} {:>12}  {}",
                    kind.name(),
                    HumanBytes(bytes).to_string(),
                    plural(count, "output")
                ))?;
            }
        }
        StoreCommand::Gc { dry_run } => {
            let Some(_alone) = store.in_use(Hold::Alone)? else {
                return Err(Failure::Refused("a run is in progress: its outputs are in use".to_owned()));
            };
            let used = keys_of_runs(&Runs::of_home(home))?;
            if !dry_run {
                store.clear_leftovers()?;
            }
            for entry in entries.iter().filter(|entry| !used.contains(entry.key.as_str())) {
                if *dry_run {
                    output.line(&format!("would remove {}", described(entry)))?;
                } else if store.remove(entry)? {
                    output.line(&format!("removed {}", described(entry)))?;
                } else {
                    output.line(&format!("in use  {}", described(entry)))?;
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn described(entry: &Entry) -> String {
    format!("{:<9} {}  {}", entry.kind.name(), entry.key, HumanBytes(entry.bytes))
}

/// The keys in the plans of all runs that are kept.
fn keys_of_runs(runs: &Runs) -> Result<HashSet<String>, Failure> {
    let mut keys = HashSet::new();
    for run in runs.folders()? {
        let plan = fs::read(run.join("plan.json")).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let items = |list: &Value| list.as_array().cloned().unwrap_or_default();
        if let Some(plan) = plan {
            let planned = items(&plan["steps"]).into_iter().chain(items(&plan["points"]));
            let planned = planned.map(|mut step| step["key"].take());
            let possible = items(&plan["series"]).into_iter().flat_map(|series| items(&series["possible"]));
            keys.extend(planned.chain(possible).filter_map(|key| Some(key.as_str()?.to_owned())));
        }
    }
    Ok(keys)
}
