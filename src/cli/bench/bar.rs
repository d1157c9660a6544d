//! What is shown on a terminal while prompts are prepared.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

use crate::workload::Source;

const PAUSE: Duration = Duration::from_millis(100);
/// Characters of a whole bar.
const LENGTH: u64 = 40;

/// Until it is cleared: that a file is being read.
pub(super) fn reading(path: &Path) -> ProgressBar {
    shown(ProgressStyle::default_spinner()).with_message(format!("reading {}", path.display()))
}

/// Until it is cleared: how many conversations of the file were counted.
pub(super) fn counting(source: &Source) -> ProgressBar {
    let (done, all) = (source.counted(), source.requests());
    let draw = move |_: &ProgressState, out: &mut dyn std::fmt::Write| {
        let done = done.load(Ordering::Relaxed).min(all);
        let length = usize::try_from(done * LENGTH / all.max(1)).unwrap_or_default();
        let bar = "█".repeat(length);
        // A terminal that went away is no concern of the work.
        let _ = write!(out, "{bar:░<40} {} of {}", HumanCount(done), HumanCount(all));
    };
    let template = ProgressStyle::with_template("counting tokens {bar_of_all}").expect("the template is sound");
    shown(template.with_key("bar_of_all", draw))
}

fn shown(style: ProgressStyle) -> ProgressBar {
    let bar = ProgressBar::no_length().with_style(style);
    bar.enable_steady_tick(PAUSE);
    bar
}
