use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::base::{StepKey, plain_text};
use crate::event::{Event, Outcome, Stamped, StepKind};
use crate::progress::estimate::Pace;
use crate::progress::line;
use crate::progress::words::{amount, requests};

/// Load points done of all, a line for each thing that is happening now, and above them what has ended.
pub(super) struct Bars {
    screen: MultiProgress,
    /// Absent when no load point has work to do.
    overall: Option<ProgressBar>,
    pace: Pace,
    /// Steps under way but for bench steps, which the server's line shows.
    steps: HashMap<StepKey, Activity>,
    /// What the one server is doing; a measurement has the host for itself.
    server: Option<ProgressBar>,
    /// Requests of the present load point.
    point_requests: Option<u64>,
}

struct Activity {
    bar: ProgressBar,
    label: String,
}

impl Bars {
    pub(super) fn new(target: ProgressDrawTarget) -> Self {
        Self {
            screen: MultiProgress::with_draw_target(target),
            overall: None,
            pace: Pace::default(),
            steps: HashMap::new(),
            server: None,
            point_requests: None,
        }
    }

    pub(super) fn show(&mut self, stamped: &Stamped) {
        if stays_on_screen(&stamped.event)
            && let Some(line) = line(stamped)
        {
            // A terminal that went away is no reason to stop measuring.
            let _ = self.screen.println(line);
        }
        self.follow(stamped);
        if let Some(overall) = &self.overall {
            overall.set_length(self.pace.total);
            overall.set_position(self.pace.ended);
            overall.set_message(self.pace.left(stamped.elapsed_s).map(|left| format!(", {left}")).unwrap_or_default());
        }
    }

    fn follow(&mut self, stamped: &Stamped) {
        let now_s = stamped.elapsed_s;
        match &stamped.event {
            Event::RunStarted { points, .. } => self.start(*points),
            Event::StepStarted { kind: StepKind::Bench, .. }
            | Event::SearchEnded { .. }
            | Event::RoundsEnded { .. }
            | Event::Warning { .. } => {}
            Event::StepStarted { key, label, .. } => {
                let activity = Activity { bar: self.new_line(label), label: label.clone() };
                self.steps.insert(key.clone(), activity);
            }
            Event::StepProgress { key, done, total, unit } => {
                if let Some(Activity { bar, label }) = self.steps.get(key) {
                    bar.set_message(plain_text(&format!("{label}: {}", amount(*done, *total, unit))));
                }
            }
            Event::StepFinished { key, .. } => {
                if let Some(Activity { bar, .. }) = self.steps.remove(key) {
                    bar.finish_and_clear();
                }
            }
            Event::ServerStarting { cell, .. } => {
                self.pace.began(now_s);
                self.server_does(&format!("{cell}: starting server"));
            }
            Event::ServerReady { cell, .. } => self.server_does(&format!("{cell}: server ready")),
            Event::ServerStopped { .. } => self.end_server(),
            Event::PointStarted { cell, phase, point, requests: total } => {
                self.pace.began(now_s);
                self.point_requests = *total;
                self.server_does(&format!("{cell} {phase} {point}: {}", requests(0, *total)));
            }
            Event::PointProgress { cell, phase, point, requests: done } => {
                self.server_does(&format!("{cell} {phase} {point}: {}", requests(*done, self.point_requests)));
            }
            Event::PointFinished { cell, outcome, .. } => {
                self.pace.point_ended(outcome, now_s);
                if self.server.is_some() {
                    self.server_does(cell.as_str());
                }
            }
            Event::Interrupted => self.server_does("stopping"),
            Event::RunFinished { .. } => self.finish(),
        }
    }

    fn start(&mut self, points: u64) {
        self.pace = Pace::new(points);
        if points > 0 {
            let style = style("{bar:24} {pos}/{len} load points, {elapsed}{msg}");
            let overall = self.screen.add(ProgressBar::new(points).with_style(style));
            overall.enable_steady_tick(Duration::from_secs(1));
            self.overall = Some(overall);
        }
    }

    fn new_line(&self, message: &str) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}"));
        let bar = match &self.overall {
            Some(overall) => self.screen.insert_before(overall, bar),
            None => self.screen.add(bar),
        };
        bar.set_message(plain_text(message));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn server_does(&mut self, what: &str) {
        match &self.server {
            Some(bar) => bar.set_message(plain_text(what)),
            None => self.server = Some(self.new_line(what)),
        }
    }

    fn end_server(&mut self) {
        if let Some(bar) = self.server.take() {
            bar.finish_and_clear();
        }
    }

    fn finish(&mut self) {
        self.end_server();
        for (_, Activity { bar, .. }) in self.steps.drain() {
            bar.finish_and_clear();
        }
        if let Some(overall) = self.overall.take() {
            overall.finish_and_clear();
        }
    }
}

/// A run that ends by an error leaves no bar behind.
impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one of ours")
}

/// What a reader wants to find above the bars afterwards: ends, and what went wrong.
fn stays_on_screen(event: &Event) -> bool {
    match event {
        Event::StepFinished { outcome, .. } | Event::PointFinished { outcome, .. } => *outcome != Outcome::Cached,
        Event::RunStarted { .. }
        | Event::SearchEnded { .. }
        | Event::RoundsEnded { .. }
        | Event::Warning { .. }
        | Event::Interrupted
        | Event::RunFinished { .. } => true,
        Event::StepStarted { .. }
        | Event::StepProgress { .. }
        | Event::ServerStarting { .. }
        | Event::ServerReady { .. }
        | Event::ServerStopped { .. }
        | Event::PointStarted { .. }
        | Event::PointProgress { .. } => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::CellId;

    fn shown(bars: &mut Bars, elapsed_s: f64, event: Event) {
        bars.show(&Stamped { time: "2026-01-02T03:04:05.678Z".to_owned(), elapsed_s, event });
    }

    #[test]
    fn bars_follow_a_run() {
        let cell = CellId::new("tiny/fp32/bs1".to_owned());
        let (phase, point) = ("chat".to_owned(), "c4".to_owned());
        let (run, manifest) = ("r".to_owned(), "m".to_owned());
        let mut bars = Bars::new(ProgressDrawTarget::hidden());
        shown(&mut bars, 0.0, Event::RunStarted { run, manifest, cells: 1, steps: 2, points: 3 });

        let key = StepKey::new("f".to_owned());
        let fetch = Event::StepStarted { kind: StepKind::Fetch, key: key.clone(), label: "fetch tiny".to_owned() };
        shown(&mut bars, 0.0, fetch);
        let unit = "bytes".to_owned();
        shown(&mut bars, 1.0, Event::StepProgress { key: key.clone(), done: 1 << 20, total: None, unit });
        assert_eq!(bars.steps[&key].bar.message(), "fetch tiny: 1.00 MiB");

        let log = "log".to_owned();
        shown(&mut bars, 10.0, Event::ServerStarting { cell: cell.clone(), pid: 1, log });
        let server = bars.server.clone().unwrap();
        assert_eq!(server.message(), "tiny/fp32/bs1: starting server");
        let requests = Some(16);
        let started = Event::PointStarted { cell: cell.clone(), phase: phase.clone(), point: point.clone(), requests };
        shown(&mut bars, 11.0, started);
        let progress =
            Event::PointProgress { cell: cell.clone(), phase: phase.clone(), point: point.clone(), requests: 12 };
        shown(&mut bars, 12.0, progress);
        assert_eq!(server.message(), "tiny/fp32/bs1 chat c4: 12/16 requests");
        let overall = bars.overall.clone().unwrap();
        assert_eq!((overall.position(), overall.message().as_str()), (0, ""));
        let ended = Event::PointFinished { cell, phase, point, seconds: 3.0, outcome: Outcome::Done };
        shown(&mut bars, 40.0, ended);
        assert_eq!((overall.position(), overall.message().as_str()), (1, ", about 60 s left"));

        let counts = Event::RunFinished { ok: 1, failed: 0, unsupported: 0, skipped: 2, cached: 0, seconds: 41.0 };
        shown(&mut bars, 41.0, counts);
        assert!(overall.is_finished() && server.is_finished() && bars.steps.is_empty());
    }
}
