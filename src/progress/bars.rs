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
            overall.set_position(self.pace.ended);
            overall.set_message(self.pace.left(stamped.elapsed_s).map(|left| format!(", {left}")).unwrap_or_default());
        }
    }

    fn follow(&mut self, stamped: &Stamped) {
        let now_s = stamped.elapsed_s;
        match &stamped.event {
            Event::RunStarted { points, .. } => self.start(*points),
            Event::StepStarted { kind: StepKind::Bench, .. } | Event::Warning { .. } => {}
            Event::StepStarted { key, label, .. } => {
                let activity = Activity { bar: self.new_line(label.clone()), label: label.clone() };
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
                self.server_does(format!("{cell}: starting server"));
            }
            Event::ServerReady { cell, .. } => self.server_does(format!("{cell}: server ready")),
            Event::ServerStopped { .. } => self.end_server(),
            Event::PointStarted { cell, phase, point, requests: total } => {
                self.pace.began(now_s);
                self.point_requests = *total;
                self.server_does(format!("{cell} {phase} {point}: {}", requests(0, *total)));
            }
            Event::PointProgress { cell, phase, point, requests: done } => {
                self.server_does(format!("{cell} {phase} {point}: {}", requests(*done, self.point_requests)));
            }
            Event::PointFinished { cell, outcome, .. } => {
                self.pace.point_ended(outcome, now_s);
                if self.server.is_some() {
                    self.server_does(cell.to_string());
                }
            }
            Event::Interrupted => self.server_does("stopping".to_owned()),
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

    fn new_line(&self, message: String) -> ProgressBar {
        let bar = ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}"));
        let bar = match &self.overall {
            Some(overall) => self.screen.insert_before(overall, bar),
            None => self.screen.add(bar),
        };
        bar.set_message(plain_text(&message));
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }

    fn server_does(&mut self, what: String) {
        match &self.server {
            Some(bar) => bar.set_message(plain_text(&what)),
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is one of ours")
}

/// What a reader wants to find above the bars afterwards: ends, and what went wrong.
fn stays_on_screen(event: &Event) -> bool {
    match event {
        Event::StepFinished { outcome, .. } | Event::PointFinished { outcome, .. } => *outcome != Outcome::Cached,
        Event::RunStarted { .. } | Event::Warning { .. } | Event::Interrupted | Event::RunFinished { .. } => true,
        Event::StepStarted { .. }
        | Event::StepProgress { .. }
        | Event::ServerStarting { .. }
        | Event::ServerReady { .. }
        | Event::ServerStopped { .. }
        | Event::PointStarted { .. }
        | Event::PointProgress { .. } => false,
    }
}
