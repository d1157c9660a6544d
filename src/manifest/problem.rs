use std::fmt;
use std::io;

/// The number of problems that [`ReadError`] prints; the rest is counted.
const MOST_PRINTED: usize = 50;
/// The number of known names that a hint lists.
const MOST_LISTED: usize = 25;
/// Names longer than this are no slip of the finger, and comparing them takes time.
const LONGEST_COMPARED: usize = 80;

/// A place in a file. Both count from 1; the column counts characters.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Location {
    pub line: usize,
    pub column: usize,
}

impl Location {
    /// The place of the byte at `offset`. A byte order mark takes no column.
    #[must_use]
    pub(super) fn of(text: &str, offset: usize) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before[line_start..].chars().filter(|character| *character != '\u{feff}').count() + 1;
        Self { line, column }
    }
}

/// The way from the top of a file to a value: `benchmarks.smoke.concurrency[1]`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct KeyPath(Vec<Segment>);

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Segment {
    Key(String),
    Index(usize),
}

impl KeyPath {
    /// The path of keys only.
    #[must_use]
    pub fn of_keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Segment::Key((*key).to_owned())).collect())
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        let mut path = self.clone();
        path.push(Segment::Key(key.to_owned()));
        path
    }

    /// `index` counts from 0.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        let mut path = self.clone();
        path.push(Segment::Index(index));
        path
    }

    pub(super) fn push(&mut self, segment: Segment) {
        self.0.push(segment);
    }

    pub(super) fn pop(&mut self) {
        self.0.pop();
    }

    pub(super) fn segments(&self) -> &[Segment] {
        &self.0
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => {
                    let dot = if position == 0 { "" } else { "." };
                    let plain = |c: char| c.is_alphanumeric() || "_-/+:@".contains(c);
                    if !key.is_empty() && key.chars().all(plain) {
                        write!(f, "{dot}{key}")?;
                    } else {
                        write!(f, "{dot}\"{}\"", key.escape_debug())?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// One mistake in a file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    pub location: Location,
    /// Empty for a mistake of the whole file, for instance of its syntax.
    pub path: KeyPath,
    pub message: String,
    /// What to try next.
    pub hint: Option<String>,
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read `{file}`")]
    Open { file: String, source: io::Error },
    #[error("{}", Listing { file, problems })]
    Refused { file: String, problems: Vec<Problem> },
}

impl ReadError {
    /// Sorts the problems by their place in the file.
    #[must_use]
    pub fn refused(file: impl Into<String>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.location);
        Self::Refused { file: file.into(), problems }
    }

    /// The mistakes, in the order of the file; none when the file could not be opened.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Open { .. } => &[],
            Self::Refused { problems, .. } => problems,
        }
    }
}

struct Listing<'a> {
    file: &'a str,
    problems: &'a [Problem],
}

impl fmt::Display for Listing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, problem) in self.problems.iter().take(MOST_PRINTED).enumerate() {
            let newline = if position == 0 { "" } else { "\n" };
            let Problem { location: Location { line, column }, path, message, hint } = problem;
            write!(f, "{newline}{}:{line}:{column}: ", self.file)?;
            if !path.segments().is_empty() {
                write!(f, "{path}: ")?;
            }
            write!(f, "{message}")?;
            if let Some(hint) = hint {
                write!(f, "\n  hint: {hint}")?;
            }
        }
        match self.problems.len().saturating_sub(MOST_PRINTED) {
            0 => Ok(()),
            rest => write!(f, "\n{}: and {rest} more problems", self.file),
        }
    }
}

/// A hint for an unknown `word`: the known word that was probably meant, and all known words of that `kind` (plural).
#[must_use]
pub fn did_you_mean(word: &str, kind: &str, known: &[&str]) -> String {
    let list = listed(known);
    match closest(word, known) {
        Some(meant) if known.len() > MOST_LISTED => format!("did you mean `{meant}`?"),
        Some(meant) => format!("did you mean `{meant}`? known {kind}: {list}"),
        None if known.is_empty() => format!("there are no {kind} here"),
        None => format!("known {kind}: {list}"),
    }
}

pub(super) fn listed(words: &[&str]) -> String {
    let list: Vec<String> = words.iter().take(MOST_LISTED).map(|word| format!("`{word}`")).collect();
    match words.len().saturating_sub(MOST_LISTED) {
        0 => list.join(", "),
        rest => format!("{} and {rest} more", list.join(", ")),
    }
}

/// The known word that `word` is a slip of: a few wrong letters, its parts in another order, or the one that has
/// them all and the fewest others, as `ttft_ms_p99` has those of `ttft_p99`.
pub(super) fn closest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace(['-', ' '], "_");
    let sorted = |text: &str| {
        let mut parts: Vec<String> = plain(text).split('_').map(str::to_owned).collect();
        parts.sort();
        parts
    };
    if word.len() > LONGEST_COMPARED {
        return None;
    }
    if let Some(turned) = known.iter().find(|candidate| sorted(candidate) == sorted(word)) {
        return Some(turned);
    }
    let parts = sorted(word);
    let word = plain(word);
    let slips_allowed = (word.chars().count() / 3).max(1);
    let slip = known
        .iter()
        .filter(|candidate| candidate.len() <= LONGEST_COMPARED)
        .map(|candidate| (strsim::damerau_levenshtein(&word, &plain(candidate)), *candidate))
        .filter(|(slips, _)| *slips <= slips_allowed)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate);
    slip.or_else(|| {
        let has_all = |candidate: &&&str| parts.iter().all(|part| sorted(candidate).contains(part));
        let longer: Vec<&str> = known.iter().filter(has_all).copied().collect();
        let parts_of = |candidate: &&str| sorted(candidate).len();
        let fewest = longer.iter().map(parts_of).min()?;
        let mut shortest = longer.into_iter().filter(|candidate| parts_of(candidate) == fewest);
        shortest.next().filter(|_| shortest.next().is_none())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_understood() {
        let known = ["ttft_ms_p99", "ttft_ms_p50", "itl_ms_p99", "status"];
        for (word, meant) in [
            ("statsu", Some("status")),
            ("ttft-p99-ms", Some("ttft_ms_p99")),
            ("ttft_p99", Some("ttft_ms_p99")),
            ("TTFT_P50", Some("ttft_ms_p50")),
            // Two have it.
            ("p99", None),
            ("throughput", None),
            ("", None),
        ] {
            assert_eq!(closest(word, &known), meant, "{word}");
        }
    }
}
