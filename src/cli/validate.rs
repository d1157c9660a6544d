use super::args::ValidateArgs;
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use crate::exec;

/// Checks every manifest, also after one of them was refused.
pub(super) fn run(args: &ValidateArgs, output: &mut Output) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    for manifest in &args.manifests {
        match exec::check(manifest) {
            Ok(cells) => {
                output.line(&format!("{}: ok, {}", manifest.display(), super::apply::plural(cells, "cell")))?;
            }
            Err(error) => {
                let failure = Failure::from(error);
                output.failure(&failure);
                exit = failure.exit();
            }
        }
    }
    Ok(exit)
}
