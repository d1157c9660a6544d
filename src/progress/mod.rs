//! Events to a person at a terminal: bars that move, or plain lines for a log.
//!
//! **Invariant:** it only shows. Nothing here decides anything, reads a clock or fails a run: a terminal that went away
//! is not an error.

mod bars;
mod estimate;
mod lines;
mod words;

use std::io::Write;

use indicatif::ProgressDrawTarget;

use crate::event::Stamped;
use crate::progress::bars::Bars;
use crate::progress::lines::Lines;

pub use lines::line;

/// Where progress goes.
pub enum Terminal {
    /// Bars on stderr; they show nothing when it is not a terminal.
    Bars,
    /// A line for each event worth one, without control characters.
    Lines(Box<dyn Write + Send>),
}

/// Shows a run's events as they come.
pub struct Progress(View);

enum View {
    Bars(Bars),
    Lines(Lines),
}

impl Progress {
    #[must_use]
    pub fn new(terminal: Terminal) -> Self {
        Self(match terminal {
            Terminal::Bars => View::Bars(Bars::new(ProgressDrawTarget::stderr())),
            Terminal::Lines(writer) => View::Lines(Lines::new(writer)),
        })
    }

    pub fn show(&mut self, stamped: &Stamped) {
        match &mut self.0 {
            View::Bars(bars) => bars.show(stamped),
            View::Lines(lines) => lines.show(stamped),
        }
    }
}
