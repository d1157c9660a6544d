use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use super::snapshot::Snapshot;

/// When a page was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Moment {
    Before,
    /// The last warm-up request has ended, and the first measured ones are under way.
    WarmupEnded,
    During,
    After,
}

/// The pages as JSON lines: of each, the series whose values are not those of the line before.
pub(super) struct SeriesFile {
    path: PathBuf,
    /// Made with the first page.
    file: Option<File>,
    last: BTreeMap<String, f64>,
}

#[derive(Serialize)]
struct Line<'a> {
    /// Seconds since the observation began, which is just before the load point's own clock.
    at_s: f64,
    moment: Moment,
    changed: BTreeMap<&'a str, f64>,
}

impl SeriesFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None, last: BTreeMap::new() }
    }

    /// Adds a page. A page that cannot be kept is lost; the figures do not come from the file.
    pub(super) fn add(&mut self, moment: Moment, page: &Snapshot) {
        if self.file.is_none() {
            self.file = File::create(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        let is_new = |(series, value): &(&String, &f64)| self.last.get(*series) != Some(*value);
        let changed = page.values.iter().filter(is_new).map(|(series, &value)| (series.as_str(), value)).collect();
        let line = Line { at_s: page.at_s, moment, changed };
        let mut text = serde_json::to_vec(&line).expect("finite numbers by name are plain data");
        text.push(b'\n');
        let _ = file.write_all(&text);
        self.last.clone_from(&page.values);
    }
}
