use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};

use serde::Serialize;

use super::NullError;
use crate::spec::Protocol;

/// What really happened to one request: a line of the truth file. Times are nanoseconds on the host's CLOCK_MONOTONIC.
#[derive(Debug, Serialize)]
pub(super) struct Truth {
    /// The client's name for it: the KServe request's id, or the header `x-request-id`; empty if there is none.
    pub(super) client_id: String,
    pub(super) protocol: Protocol,
    /// The request was complete.
    pub(super) arrival_ns: u64,
    /// Right before each chunk with text was written.
    pub(super) chunks_ns: Vec<u64>,
    /// Every chunk was written; otherwise the client went away.
    pub(super) complete: bool,
}

/// Writes what comes through the channel, and ends with its senders.
pub(super) struct TruthWriter {
    /// Unbounded: sending must not hold a chunk up.
    records: Receiver<Truth>,
    path: PathBuf,
    file: BufWriter<File>,
}

impl TruthWriter {
    pub(super) fn create(path: &Path) -> Result<(Sender<Truth>, Self), NullError> {
        let create = || {
            let mut file = File::create(path)?;
            // What the times below are counted from, as other servers' logs have it.
            file.write_all(b"{\"monotonic_start_ns\":0}\n").map(|()| BufWriter::new(file))
        };
        let file = create().map_err(|source| NullError::Write { path: path.to_owned(), source })?;
        let (sender, records) = mpsc::channel();
        Ok((sender, Self { records, path: path.to_owned(), file }))
    }

    pub(super) fn run(mut self) -> Result<(), NullError> {
        while let Ok(first) = self.records.recv() {
            self.write(first).map_err(|source| NullError::Write { path: self.path.clone(), source })?;
        }
        Ok(())
    }

    /// Writes a record and all that wait behind it; then whoever reads along sees whole lines.
    fn write(&mut self, first: Truth) -> io::Result<()> {
        for truth in std::iter::once(first).chain(self.records.try_iter()) {
            serde_json::to_writer(&mut self.file, &truth)?;
            self.file.write_all(b"\n")?;
        }
        self.file.flush()
    }
}
