use std::fs;
use std::path::Path;

use tokio_util::sync::CancellationToken;

use super::Job;
use crate::event::StepKind;
use crate::exec::StepError;
use crate::plan::Step;
use crate::process::{self, CommandSpec, ProcessError};
use crate::recipe::{Part, Rendered};
use crate::store::Draft;

/// Does a step of the recipe: writes its files, then runs its command.
pub(super) async fn run(job: &Job, index: usize, cancel: &CancellationToken) -> Result<(), StepError> {
    let step = &job.prepared.plan.steps[index];
    let draft = job.store.begin(step.kind, &step.key, cancel).await?;
    if job.store.holds(step.kind, &step.key) && !job.is_rerun(step.kind) {
        return Ok(());
    }
    let of_draft = rendered(job, step, &draft.output())?;
    if step.kind == StepKind::Render {
        // What the command brought, such as an engine's own models, is what our files stand in for. A file may name its own
        // folder, and is read where it ends up.
        run_command(job, index, &of_draft, &draft, cancel).await?;
        write_all(&draft, &rendered(job, step, &draft.final_output())?)?;
    } else {
        write_all(&draft, &of_draft)?;
        run_command(job, index, &of_draft, &draft, cancel).await?;
    }
    refuse_empty(&draft)?;
    draft.finish(&job.prepared.plan.material(step))?;
    Ok(())
}

/// What a step says when `output` is this folder.
fn rendered(job: &Job, step: &Step, output: &Path) -> Result<Rendered, StepError> {
    let part = match step.kind {
        StepKind::Quantize => Part::Quantize,
        StepKind::Build => Part::Build,
        StepKind::Render | StepKind::Fetch | StepKind::Bench => Part::Render,
    };
    let mut places = job.places(step);
    places.folders.insert("output", output.display().to_string());
    Ok(job.engine(step).recipe.render(part, &step.values.with(&places))?.unwrap_or_default())
}

/// Runs a step's command, if it has one, to its end.
async fn run_command(
    job: &Job,
    index: usize,
    rendered: &Rendered,
    draft: &Draft,
    cancel: &CancellationToken,
) -> Result<(), StepError> {
    if rendered.command.is_empty() {
        return Ok(());
    }
    let step = &job.prepared.plan.steps[index];
    let spec = CommandSpec {
        time_limit: Some(job.prepared.document.value.time_limits.step.as_std()),
        ..job.command(step, rendered, &job.log_folder(index)?, Some(&draft.output()))
    };
    process::run(&spec, cancel).await.map_err(|source| job.hinted(step, source))?;
    Ok(())
}

fn write_all(draft: &Draft, rendered: &Rendered) -> Result<(), StepError> {
    rendered.files.iter().try_for_each(|(path, text)| write(&draft.output().join(path), text))
}

fn write(path: &Path, text: &str) -> Result<(), StepError> {
    let failed = |source| StepError::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}

fn refuse_empty(draft: &Draft) -> Result<(), StepError> {
    let empty = fs::read_dir(draft.output()).is_ok_and(|mut entries| entries.next().is_none());
    if empty { Err(StepError::NoOutput) } else { Ok(()) }
}

impl Job {
    fn hinted(&self, step: &Step, source: ProcessError) -> StepError {
        match &source {
            ProcessError::Cancelled { .. } => StepError::Interrupted,
            ProcessError::Failed { tail, .. } | ProcessError::TimeLimit { tail, .. } => {
                let known = self.engine(step).recipe.hints(tail).into_iter();
                let hints = known.chain(source.hint()).map(str::to_owned).collect();
                StepError::Hinted { source: Box::new(source), hints }
            }
            _ => StepError::Process(Box::new(source)),
        }
    }
}
