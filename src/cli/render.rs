use std::path::Path;

use super::args::RenderArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::plan::prepare;
use crate::base::write_atomically;
use crate::plan::CellState;

/// Writes the rendered files of one cell; folders of outputs that are not there yet are named as they will be.
pub(super) fn run(args: &RenderArgs, home: &Path, output: &mut Output) -> Result<Exit, Failure> {
    let prepared = prepare(args.manifest.clone(), home.to_owned(), None)?;
    let cell = prepared.plan.cells.iter().find(|cell| cell.id.as_str() == args.cell);
    let server = match cell.map(|cell| &cell.state) {
        Some(CellState::Planned { server }) => *server,
        Some(CellState::Excluded { because } | CellState::Unsupported { because }) => {
            return Err(Failure::Refused(format!("cell `{}` has no files: {because}", args.cell)));
        }
        Some(CellState::NotChosen) | None => {
            let known: Vec<&str> = prepared.plan.cells.iter().take(10).map(|cell| cell.id.as_str()).collect();
            return Err(Failure::Usage {
                problem: format!("the manifest has no cell `{}`", args.cell),
                hint: format!("cells are named as `benchrun plan` shows them: {}", known.join(", ")),
            });
        }
    };
    let files = prepared.rendered_files(server, home).map_err(crate::exec::PrepareError::from)?;
    for (name, text) in files {
        let path = args.out.join(name);
        write_atomically(&path, text.as_bytes()).map_err(|source| Failure::File {
            doing: "write",
            path: path.clone(),
            source,
        })?;
        output.line(&path.display().to_string())?;
    }
    Ok(Exit::Done)
}
