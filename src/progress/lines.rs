use std::collections::HashMap;
use std::io::Write;

use crate::base::{StepKey, plain_text};
use crate::event::{Event, Outcome, Stamped};
use crate::progress::words::{amount, count, requests, seconds};

/// How long a step or a load point says nothing, in seconds.
const QUIET_S: f64 = 10.0;

/// Writes a line for each event worth one, and now and then one for what takes long.
pub(super) struct Lines {
    writer: Box<dyn Write + Send>,
    /// Steps under way.
    steps: HashMap<StepKey, UnderWay>,
    point: Option<UnderWay>,
}

struct UnderWay {
    label: String,
    /// Requests to come; `None` for a step, or while unknown.
    requests: Option<u64>,
    last_said_s: f64,
}

impl Lines {
    pub(super) fn new(writer: Box<dyn Write + Send>) -> Self {
        Self { writer, steps: HashMap::new(), point: None }
    }

    pub(super) fn show(&mut self, stamped: &Stamped) {
        if let Some(line) = line(stamped).or_else(|| self.progress_line(stamped)) {
            // A reader that went away is no reason to stop measuring.
            let _ = writeln!(self.writer, "{line}");
        }
        self.follow(stamped);
    }

    /// A line for what has been quiet long enough.
    fn progress_line(&mut self, stamped: &Stamped) -> Option<String> {
        let now_s = stamped.elapsed_s;
        let (under_way, how_far) = match &stamped.event {
            Event::StepProgress { key, done, total, unit } => (self.steps.get_mut(key)?, amount(*done, *total, unit)),
            Event::PointProgress { requests: done, .. } => {
                let point = self.point.as_mut()?;
                let how_far = requests(*done, point.requests);
                (point, how_far)
            }
            _ => return None,
        };
        if now_s - under_way.last_said_s < QUIET_S {
            return None;
        }
        under_way.last_said_s = now_s;
        Some(stamp(now_s, &format!("{}: {how_far}", under_way.label)))
    }

    fn follow(&mut self, stamped: &Stamped) {
        let last_said_s = stamped.elapsed_s;
        match &stamped.event {
            Event::StepStarted { key, label, .. } => {
                self.steps.insert(key.clone(), UnderWay { label: label.clone(), requests: None, last_said_s });
            }
            Event::StepFinished { key, .. } => {
                self.steps.remove(key);
            }
            Event::PointStarted { cell, phase, point, requests } => {
                let label = format!("{cell} {phase} {point}");
                self.point = Some(UnderWay { label, requests: *requests, last_said_s });
            }
            Event::PointFinished { .. } => self.point = None,
            _ => {}
        }
    }
}

/// The line for an event, with the seconds since the run began; `None` for one that only moves a bar.
///
/// What follows the first line of an error is indented below it.
#[must_use]
pub fn line(stamped: &Stamped) -> Option<String> {
    text(&stamped.event).map(|text| stamp(stamped.elapsed_s, &text))
}

fn stamp(elapsed_s: f64, text: &str) -> String {
    format!("[{elapsed_s:7.1} s] {}", plain_text(text.trim_end()))
}

fn text(event: &Event) -> Option<String> {
    Some(match event {
        Event::RunStarted { run, manifest, cells, steps, points } => format!(
            "run {run} of {manifest}: {}; to do: {}, {}",
            count(*cells, "cell"),
            count(*steps, "step"),
            count(*points, "load point")
        ),
        Event::StepStarted { label, .. } => format!("{label}: started"),
        Event::StepFinished { label, seconds, outcome, .. } => ended(label, *seconds, outcome),
        Event::ServerStarting { cell, pid, log } => format!("{cell}: starting server (process {pid}, log {log})"),
        Event::ServerReady { cell, seconds: s } => format!("{cell}: server ready after {}", seconds(*s)),
        Event::ServerStopped { cell, seconds: s } => format!("{cell}: server stopped after {}", seconds(*s)),
        Event::PointStarted { cell, phase, point, requests: Some(requests) } => {
            format!("{cell} {phase} {point}: started, {}", count(*requests, "request"))
        }
        Event::PointStarted { cell, phase, point, requests: None } => format!("{cell} {phase} {point}: started"),
        Event::PointFinished { cell, phase, point, seconds, outcome } => {
            ended(&format!("{cell} {phase} {point}"), *seconds, outcome)
        }
        Event::Warning { cell: Some(cell), message } => format!("warning: {cell}: {}", indented(message)),
        Event::Warning { cell: None, message } => format!("warning: {}", indented(message)),
        Event::Interrupted => "interrupted: nothing new starts, what runs is stopped; once more to kill it".to_owned(),
        Event::RunFinished { ok, failed, unsupported, skipped, cached, seconds: s } => format!(
            "finished in {}: {ok} ok ({cached} of them from earlier runs), {failed} failed, {unsupported} unsupported, \
             {skipped} skipped",
            seconds(*s)
        ),
        Event::StepProgress { .. } | Event::PointProgress { .. } => return None,
    })
}

fn ended(what: &str, after_s: f64, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => format!("{what}: done in {}", seconds(after_s)),
        Outcome::Cached => format!("{what}: cached"),
        Outcome::Failed { error } => format!("{what}: failed after {}\n  {}", seconds(after_s), indented(error)),
        Outcome::Skipped { because } => format!("{what}: skipped: {}", indented(because)),
    }
}

/// Lines after the first are set in, so that they are not taken for events.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n  ")
}
