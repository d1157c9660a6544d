use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Writes a whole file or leaves the old one: a reader never sees half of it.
///
/// # Errors
/// When the folder cannot be made or written, for instance on a full disk; the old file is then untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".part-").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_data()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
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
