use std::fs::File;
use std::io::Write as _;

use super::args::InitArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::recipe::{RecipeFiles, built_in_names};

/// The starter manifest beside an engine's recipe.
const STARTER: &str = "starter.yaml";

pub(super) fn run(args: &InitArgs, output: &mut Output) -> Result<Exit, Failure> {
    let failed = |source| Failure::File { doing: "write", path: args.path.clone(), source };
    let files = RecipeFiles::find(&args.engine, None).map_err(failed)?;
    let Some(starter) = files.text(STARTER) else {
        return Err(Failure::Usage {
            problem: format!("no starter manifest for engine `{}`", args.engine),
            hint: format!("engines with one: {}", built_in_names().join(", ")),
        });
    };
    // `create_new`: a manifest that somebody wrote is never overwritten.
    let mut file = File::create_new(&args.path).map_err(failed)?;
    file.write_all(starter.as_bytes()).map_err(failed)?;
    output.line(&format!("wrote {}; next: benchrun plan {}", args.path.display(), args.path.display()))?;
    Ok(Exit::Done)
}
