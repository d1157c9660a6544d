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
        if let Event::StepProgress { key, done, total, unit } = &stamped.event {
            return self.steps.get_mut(key)?.say(stamped.elapsed_s, &amount(*done, *total, unit));
        }
        if let Event::PointProgress { requests: done, .. } = &stamped.event {
            let point = self.point.as_mut()?;
            return point.say(stamped.elapsed_s, &requests(*done, point.requests));
        }
        None
    }

    fn follow(&mut self, stamped: &Stamped) {
        let last_said_s = stamped.elapsed_s;
        if let Event::StepStarted { key, label, .. } = &stamped.event {
            self.steps.insert(key.clone(), UnderWay { label: label.clone(), requests: None, last_said_s });
        } else if let Event::StepFinished { key, .. } = &stamped.event {
            self.steps.remove(key);
        } else if let Event::PointStarted { cell, phase, point, requests } = &stamped.event {
            let label = format!("{cell} {phase} {point}");
            self.point = Some(UnderWay { label, requests: *requests, last_said_s });
        }
    }
}

impl UnderWay {
    fn say(&mut self, now_s: f64, how_far: &str) -> Option<String> {
        if now_s - self.last_said_s < QUIET_S {
            return None;
        }
        self.last_said_s = now_s;
        Some(stamp(now_s, &format!("{}: {how_far}", self.label)))
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
        Event::SearchEnded { cell, phase, of, end, limit, tries, load_s, .. } => {
            let limit = limit.map_or_else(|| "no load keeps the thresholds".to_owned(), |limit| of.words(limit));
            let (tries, after) =
                (if *tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") }, seconds(*load_s));
            format!("{cell} {phase}: search ended ({}): {limit}, after {tries} and {after} of load", end.name())
        }
        Event::RoundsEnded { cell, phase, point, rounds, half_width, enough } => {
            let width =
                half_width.map_or_else(|| "figures unknown".to_owned(), |width| format!("± {:.1} %", width * 100.0));
            let verdict = if *enough { "close enough" } else { "still too far apart" };
            format!("{cell} {phase} {point}: {} {verdict}: {width}", count(*rounds, "round"))
        }
        // A load point's name begins with its cell's.
        Event::Warning { cell: Some(cell), message } if !message.starts_with(cell.as_str()) => {
            format!("warning: {cell}: {}", indented(message))
        }
        Event::Warning { message, .. } => format!("warning: {}", indented(message)),
        Event::Interrupted => {
            "interrupted: nothing new starts, what runs is stopped; press Ctrl-C again to kill it".to_owned()
        }
        Event::RunFinished { ok, failed, unsupported, skipped, cached, seconds: s } => {
            let earlier = if *cached > 0 { format!(" ({cached} of them from earlier runs)") } else { String::new() };
            let after = seconds(*s);
            format!(
                "finished in {after}: {ok} ok{earlier}, {failed} failed, {unsupported} unsupported, {skipped} skipped"
            )
        }
        Event::StepProgress { .. } | Event::PointProgress { .. } => return None,
    })
}

fn ended(what: &str, after_s: f64, outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done => format!("{what}: done in {}", seconds(after_s)),
        Outcome::Cached => format!("{what}: cached"),
        Outcome::Failed { error } => format!("{what}: failed after {}: {}", seconds(after_s), first_line(error)),
        Outcome::Skipped { because } => format!("{what}: skipped: {}", indented(because)),
    }
}

/// All of an error is in the list of failures at the end, and in the event log.
fn first_line(error: &str) -> &str {
    error.lines().next().unwrap_or_default()
}

/// Lines after the first are set in, so that they are not taken for events.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n  ")
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::base::CellId;
    use crate::event::StepKind;
    use crate::spec::{SearchEnd, Searched};

    fn at(elapsed_s: f64, event: Event) -> Stamped {
        Stamped { time: "2026-01-02T03:04:05.678Z".to_owned(), elapsed_s, event }
    }

    fn cell() -> CellId {
        CellId::new("模型-a/int8_wo/bs4".to_owned())
    }

    fn step_finished(outcome: Outcome) -> Event {
        let (kind, key, label) = (StepKind::Quantize, StepKey::new("k".to_owned()), "quantize tiny int8_wo".to_owned());
        Event::StepFinished { kind, key, label, seconds: 192.0, outcome }
    }

    fn point_finished(outcome: Outcome) -> Event {
        let (phase, point) = ("chat".to_owned(), "c4 round 2".to_owned());
        Event::PointFinished { cell: cell(), phase, point, seconds: 3.21, outcome }
    }

    fn search_ended(limit: Option<f64>, tries: u64) -> Event {
        let (of, end) = (Searched::RequestRate, limit.map_or(SearchEnd::BelowRange, |_| SearchEnd::Found));
        let phase = "chat".to_owned();
        Event::SearchEnded { cell: cell(), phase, of, end, limit, missed_at: Some(12.0), tries, load_s: 130.5 }
    }

    fn rounds_ended(half_width: Option<f64>, enough: bool) -> Event {
        let (phase, point) = ("chat".to_owned(), "c4".to_owned());
        Event::RoundsEnded { cell: cell(), phase, point, rounds: 10, half_width, enough }
    }

    #[test]
    fn each_event_has_its_line() {
        let error = "`convert` exited with code 1\ncaused by: \x1b[31mout of memory\x1b[0m\nlog: logs/convert\n";
        let events = [
            Event::RunStarted {
                run: "20260102T030405Z-ab12".to_owned(),
                manifest: "quickstart".to_owned(),
                cells: 4,
                steps: 1,
                points: 12,
            },
            Event::StepStarted {
                kind: StepKind::Quantize,
                key: StepKey::new("k".to_owned()),
                label: "quantize tiny int8_wo".to_owned(),
            },
            step_finished(Outcome::Done),
            step_finished(Outcome::Cached),
            step_finished(Outcome::Failed { error: error.to_owned() }),
            step_finished(Outcome::Skipped { because: "`fetch tiny` failed".to_owned() }),
            Event::ServerStarting { cell: cell(), pid: 321, log: "cells/a/logs/server".to_owned() },
            Event::ServerReady { cell: cell(), seconds: 1.25 },
            Event::ServerStopped { cell: cell(), seconds: 0.3 },
            Event::PointStarted { cell: cell(), phase: "chat".to_owned(), point: "c4".to_owned(), requests: Some(16) },
            Event::PointStarted { cell: cell(), phase: "chat".to_owned(), point: "c4".to_owned(), requests: None },
            point_finished(Outcome::Done),
            point_finished(Outcome::Failed { error: "cut off".to_owned() }),
            search_ended(Some(11.5), 14),
            search_ended(None, 1),
            rounds_ended(Some(0.043), true),
            rounds_ended(None, false),
            Event::Warning { cell: Some(cell()), message: "first line\nsecond line".to_owned() },
            Event::Warning { cell: None, message: "the disk is nearly full".to_owned() },
            Event::Interrupted,
            Event::RunFinished { ok: 10, failed: 1, unsupported: 1, skipped: 0, cached: 3, seconds: 4800.0 },
        ];
        let lines: Vec<String> = events.into_iter().map(|event| line(&at(12.34, event)).unwrap()).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    /// A writer whose writes can be read while it is owned by someone else.
    struct Sent(Sender<u8>);

    impl Write for Sent {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            for &byte in bytes {
                self.0.send(byte).map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fetching(done: u64) -> Event {
        Event::StepProgress {
            key: StepKey::new("f".to_owned()),
            done: done << 20,
            total: Some(100 << 20),
            unit: "bytes".to_owned(),
        }
    }

    fn asking(requests: u64) -> Event {
        Event::PointProgress { cell: cell(), phase: "chat".to_owned(), point: "c4".to_owned(), requests }
    }

    #[test]
    fn long_steps_and_points_say_now_and_then_how_far_they_are() {
        let (sender, written) = channel();
        let mut lines = Lines::new(Box::new(Sent(sender)));
        let label = "fetch tiny".to_owned();
        let started = Event::StepStarted { kind: StepKind::Fetch, key: StepKey::new("f".to_owned()), label };
        for (second, event) in [
            (0.0, started),
            (4.0, fetching(10)),
            (11.0, fetching(30)),
            (12.0, fetching(31)),
            (20.9, fetching(50)),
            (21.0, fetching(51)),
        ] {
            lines.show(&at(second, event));
        }
        let (phase, point) = ("chat".to_owned(), "c4".to_owned());
        lines.show(&at(30.0, Event::PointStarted { cell: cell(), phase, point, requests: Some(16) }));
        lines.show(&at(31.0, asking(1)));
        lines.show(&at(45.0, asking(9)));
        drop(lines);
        let text = String::from_utf8(written.iter().collect()).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_reader_that_went_away_is_no_panic() {
        let (sender, written) = channel();
        drop(written);
        Lines::new(Box::new(Sent(sender))).show(&at(1.0, Event::Interrupted));
    }
}
