use std::path::PathBuf;

use super::args::WhyArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::plan::{prepare, state_text};
use crate::plan::Step;

/// Prints what decides the key of each step asked for, and what changed.
pub(super) fn run(args: &WhyArgs, home: PathBuf, output: &mut Output) -> Result<Exit, Failure> {
    let prepared = prepare(args.manifest.clone(), home, None)?;
    let plan = &prepared.plan;
    let wanted = |step: &Step| match &args.step {
        None => true,
        Some(word) => step.kind.name() == word || step.key.as_str().starts_with(word) || step.label.contains(word),
    };
    let mut found = false;
    for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| wanted(step)) {
        found = true;
        output.line(&format!("{}  {}", step.label, state_text(&step.state)))?;
        output.line(&format!("  key {}", step.key))?;
        output.line("  decided by")?;
        let material = serde_json::to_string_pretty(&plan.material(step)).expect("materials are plain data");
        for line in material.lines() {
            output.line(&format!("    {line}"))?;
        }
        for (number, point) in plan.points_of(index) {
            if let crate::plan::PointState::Planned { key, state } = &point.state {
                let cell = &plan.cells[point.cell].id;
                output.line(&format!("  {cell} {} {}  {}", point.load.phase, point.name, state_text(state)))?;
                output.line(&format!("    key {key}, decided by {}", plan.point_material(number)))?;
            }
        }
    }
    if found {
        return Ok(Exit::Done);
    }
    Err(Failure::Usage {
        problem: format!("no step matches `{}`", args.step.as_deref().unwrap_or_default()),
        hint: "give a kind (fetch, quantize, build, render, bench), the start of a key, or words of a label that \
               `benchrun plan` shows"
            .to_owned(),
    })
}
