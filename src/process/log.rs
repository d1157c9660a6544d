use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

/// More than enough for the lines that people read, and little for a log of gigabytes.
const MOST_BYTES: u64 = 64 << 10;

/// The last lines of a log of any size, from its last 64 KiB; bytes that are not UTF-8 are replaced.
///
/// Of a line that a progress bar wrote over and over, only the last state is given.
///
/// # Errors
/// When the file cannot be read.
pub fn tail(path: &Path, lines: usize) -> io::Result<String> {
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    let start = size.saturating_sub(MOST_BYTES);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    // The log may still grow: without a limit, a fast writer would be followed for ever.
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let whole_lines = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) if start > 0 && end + 1 < bytes.len() => &bytes[end + 1..],
        _ => &bytes[..],
    };
    let text = String::from_utf8_lossy(whole_lines);
    let all: Vec<&str> = text.lines().map(last_state).collect();
    Ok(all[all.len().saturating_sub(lines)..].join("\n"))
}

fn last_state(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    fn tail_of(bytes: &[u8], lines: usize) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, bytes).unwrap();
        tail(&path, lines).unwrap()
    }

    #[test]
    fn gives_the_last_lines() {
        assert_eq!(tail_of(b"one\ntwo\nthree\n", 2), "two\nthree");
        assert_eq!(tail_of(b"one\ntwo", 5), "one\ntwo");
        assert_eq!(tail_of(b"", 5), "");
        assert_eq!(tail_of(b"one\n", 0), "");
    }

    #[test]
    fn bytes_that_are_no_text_do_not_matter() {
        assert_eq!(tail_of(b"a\xffb\n", 1), "a\u{fffd}b");
    }

    #[test]
    fn a_progress_bar_shows_its_last_state() {
        assert_eq!(tail_of(b"1%\r50%\r100%\r\ndone\r\n", 2), "100%\ndone");
    }

    #[test]
    fn of_a_huge_log_only_whole_lines_of_its_end_are_read() {
        let mut text = String::new();
        for number in 0..20_000 {
            writeln!(text, "line {number}").unwrap();
        }
        let last = tail_of(text.as_bytes(), usize::MAX);
        assert!(last.len() < text.len());
        assert!(last.starts_with("line "));
        assert!(last.ends_with("line 19999"));
    }

    #[test]
    fn one_endless_line_is_cut() {
        let last = tail_of(&vec![b'x'; 200_000], 3);
        assert_eq!(last.len(), 65_536);
    }
}
