use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// A file that is written piece by piece and appears under its name whole, or not at all.
#[derive(Debug)]
pub struct PartFile {
    path: PathBuf,
    file: BufWriter<NamedTempFile>,
}

impl PartFile {
    /// Begins the file beside its place, and makes the folder.
    ///
    /// # Errors
    /// When the folder cannot be made or written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
        Ok(Self { path: path.to_owned(), file: BufWriter::new(file) })
    }

    /// Puts it in its place.
    ///
    /// # Errors
    /// When it cannot be written to its end; the old file is then untouched.
    pub fn finish(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.as_file().sync_data()?;
        file.persist(self.path).map_err(|error| error.error)?;
        Ok(())
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a whole file or leaves the old one: a reader never sees half of it.
///
/// # Errors
/// When the folder cannot be made or written, for instance on a full disk; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = PartFile::create(path)?;
    file.write_all(bytes)?;
    file.finish()
}

/// Appends one line with one write, so that lines of several writers do not mix.
///
/// # Errors
/// When the file cannot be written.
pub fn append_line(file: &mut File, line: &str) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(line.len() + 1);
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    file.write_all(&bytes)
}

/// What to do about an error that comes from a full disk, anywhere in its chain of causes; `None` for any other.
#[must_use]
pub fn disk_full_hint(error: &(dyn Error + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
        if let Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) = kind {
            let hint = "the disk is full: free some space (`benchrun store gc` removes outputs that no run needs), then run \
                        the same command again; what was measured is kept";
            return Some(hint.to_owned());
        }
        cause = error.source();
    }
    None
}
