use std::error::Error;
use std::io::{self, BufWriter, IsTerminal, Write};

use serde::Serialize;

use super::Failure;
use crate::report::Color;

/// Standard output for data and standard error for the rest.
pub(super) struct Output {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
}

impl Output {
    pub(super) fn standard() -> Self {
        Self { out: Box::new(io::stdout().lock()), err: Box::new(io::stderr()) }
    }

    /// Data, with a line end.
    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())?;
        self.bytes(b"\n")
    }

    pub(super) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut out = BufWriter::new(&mut self.out);
        serde_json::to_writer_pretty(&mut out, value).map_err(|error| Failure::Stdout(error.into()))?;
        out.write_all(b"\n").and_then(|()| out.flush()).map_err(Failure::Stdout)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self.out.write_all(bytes).and_then(|()| self.out.flush()) {
            // A reader that went away, as `head` does, changes nothing about what was done.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(Failure::Stdout),
        }
    }

    /// A remark for whoever watches; a standard error that went away takes nothing with it.
    pub(super) fn remark(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    pub(super) fn failure(&mut self, failure: &Failure) {
        self.remark(&format!("error: {failure}"));
        let mut cause = failure.source();
        while let Some(source) = cause {
            self.remark(&format!("caused by: {source}"));
            cause = source.source();
        }
        if let Some(hint) = failure.hint() {
            self.remark(&format!("hint: {hint}"));
        }
    }
}

/// The columns of the terminal that data goes to; wide when it goes elsewhere.
pub(super) fn width() -> u16 {
    rustix::termios::tcgetwinsize(io::stdout()).map_or(200, |size| size.ws_col.max(40))
}

pub(super) fn color() -> Color {
    #[expect(clippy::disallowed_methods, reason = "https://no-color.org")]
    let wanted = std::env::var("NO_COLOR").map_or(true, |value| value.is_empty());
    if wanted && io::stdout().is_terminal() { Color::Always } else { Color::Never }
}
