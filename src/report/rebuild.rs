use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::base::RunId;
use crate::record::{PointRecord, RequestRecord};
use crate::report::{ReportError, Row};
use crate::stats::{Samples, Summarizer};

const POINT: &str = "point.json";
const REQUESTS: &str = "requests.jsonl";

/// Rebuilds the rows of a run from its records, in the order of its plan.
///
/// # Errors
/// When a file cannot be read, or is not what its name says. A folder without `cells` is a run without rows.
pub fn read_run(run: &RunId, run_dir: &Path) -> Result<Vec<Row>, ReportError> {
    Ok(read_points(run, run_dir, |_| ())?.into_iter().map(|(row, ())| row).collect())
}

/// As [`read_run`], each row with the values of its single requests.
///
/// # Errors
/// As [`read_run`].
pub fn read_run_with_samples(run: &RunId, run_dir: &Path) -> Result<Vec<(Row, Samples)>, ReportError> {
    read_points(run, run_dir, Summarizer::samples)
}

/// The rows of a run, each with what `keep` makes of its requests.
fn read_points<T: Default>(
    run: &RunId,
    run_dir: &Path,
    keep: impl Fn(&Summarizer) -> T,
) -> Result<Vec<(Row, T)>, ReportError> {
    fs::metadata(run_dir).map_err(|source| unreadable(run_dir, source))?;
    let mut points = Vec::new();
    let cells = run_dir.join("cells");
    if cells.is_dir() {
        find_points(&cells, &mut points)?;
    }
    let mut rows = points.iter().map(|point| read_whole(run, point, &keep)).collect::<Result<Vec<_>, _>>()?;
    rows.sort_by_key(|(row, _)| row.point.order);
    Ok(rows)
}

/// Folders at any depth below `folder` that hold a load point, sorted. Links are not followed.
fn find_points(folder: &Path, found: &mut Vec<PathBuf>) -> Result<(), ReportError> {
    let failed = |source| unreadable(folder, source);
    let mut entries = fs::read_dir(folder).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() {
            find_points(&entry.path(), found)?;
        } else if entry.file_name() == POINT {
            found.push(folder.to_owned());
        }
    }
    Ok(())
}

/// The row of the load point whose `point.json` and `requests.jsonl` lie in `folder`. Without the latter nothing was
/// measured. A last line that was cut short by a kill is left out, and the row's note says so.
///
/// # Errors
/// When a file cannot be read, or is not what its name says.
pub fn read_point(run: &RunId, folder: &Path) -> Result<Row, ReportError> {
    read_whole(run, folder, |_| ()).map(|(row, ())| row)
}

/// The row of a load point whose requests lie in `folder`; one that is not in a run's folder yet, for instance.
///
/// # Errors
/// When the requests cannot be read, or are not what they should be.
pub fn row_of(run: &RunId, point: PointRecord, folder: &Path) -> Result<Row, ReportError> {
    with_requests(run, point, folder, |_| ()).map(|(row, ())| row)
}

fn read_whole<T: Default>(
    run: &RunId,
    folder: &Path,
    keep: impl Fn(&Summarizer) -> T,
) -> Result<(Row, T), ReportError> {
    let point = read_point_record(folder)?;
    with_requests(run, point, folder, keep)
}

fn with_requests<T: Default>(
    run: &RunId,
    point: PointRecord,
    folder: &Path,
    keep: impl Fn(&Summarizer) -> T,
) -> Result<(Row, T), ReportError> {
    let mut summarizer = Summarizer::default();
    let Some(Read { note }) = read_requests(&folder.join(REQUESTS), |record| summarizer.add(&record))? else {
        return Ok((Row { run: run.clone(), point, summary: None, note: None }, T::default()));
    };
    let kept = keep(&summarizer);
    let summary = Some(summarizer.finish(&point));
    Ok((Row { run: run.clone(), point, summary, note }, kept))
}

fn read_point_record(folder: &Path) -> Result<PointRecord, ReportError> {
    let path = folder.join(POINT);
    let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
    serde_json::from_slice(&bytes).map_err(|source| ReportError::Point { path, source })
}

/// A load point and its requests.
pub(super) type Recorded = (PointRecord, Vec<RequestRecord>);

/// The load points in a phase's folder, in the order of the plan.
pub(super) fn records_of(phase: &Path) -> Result<Vec<Recorded>, ReportError> {
    let mut folders = Vec::new();
    find_points(phase, &mut folders)?;
    let read = |folder: &PathBuf| {
        let mut records = Vec::new();
        read_requests(&folder.join(REQUESTS), |record| records.push(record))?;
        Ok((read_point_record(folder)?, records))
    };
    let mut points: Vec<Recorded> = folders.iter().map(read).collect::<Result<_, ReportError>>()?;
    points.sort_by_key(|(point, _)| point.order);
    Ok(points)
}

/// A file of requests was read to its end.
struct Read {
    /// What a reader should know of it.
    note: Option<String>,
}

/// Gives each request to `take`; `None` without a file.
fn read_requests(path: &Path, mut take: impl FnMut(RequestRecord)) -> Result<Option<Read>, ReportError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(unreadable(path, source)),
    };
    let mut reader = BufReader::new(file);
    let mut note = None;
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).map_err(|source| unreadable(path, source))? == 0 {
            break;
        }
        match serde_json::from_slice::<RequestRecord>(&bytes) {
            Ok(record) => take(record),
            // Every whole line ends in a line feed, so this one is the last, and its writer was killed.
            Err(_) if bytes.last() != Some(&b'\n') => {
                note =
                    Some(format!("the last line of `{}`, line {line}, was cut short and is left out", path.display()));
            }
            Err(source) => return Err(ReportError::Request { path: path.to_owned(), line, source }),
        }
    }
    Ok(Some(Read { note }))
}

fn unreadable(path: &Path, source: io::Error) -> ReportError {
    ReportError::Read { path: path.to_owned(), source }
}
