//! The CSV files of LMDeploy's benchmark scripts: their columns, order, number formats and line ends.

use std::fs;
use std::path::Path;

use crate::base::write_atomically;
use crate::record::{PointRecord, PointStatus, RequestRecord};
use crate::report::{ReportError, rebuild};
use crate::spec::Method;
use crate::stats::lmdeploy::{ScriptFigures, ServingFigures, milliseconds};

/// The file's name, in a phase's folder of a run.
pub const LMDEPLOY_CSV: &str = "lmdeploy.csv";

/// A load point and its requests.
pub type Measured = (PointRecord, Vec<RequestRecord>);

/// The load points that were measured in a folder of a run, a phase's for instance, in the order of the plan.
///
/// # Errors
/// When a record cannot be read.
pub fn lmdeploy_points(folder: &Path) -> Result<Vec<Measured>, ReportError> {
    let mut points = rebuild::records_of(folder)?;
    points.retain(|(point, _)| point.status == PointStatus::Ok);
    Ok(points)
}

/// Writes the script's CSV file: a line for each load point that was measured. Lines are added to a file that is there
/// if `append` says so.
///
/// # Errors
/// When the file cannot be written.
pub fn write_lmdeploy_csv(points: &[Measured], path: &Path, append: bool) -> Result<(), ReportError> {
    let failed = |source| ReportError::Write { path: path.to_owned(), source };
    let mut bytes = lmdeploy_csv(points)?;
    if append && path.exists() {
        let header = bytes.iter().position(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let mut all = fs::read(path).map_err(failed)?;
        all.extend(bytes.drain(header..));
        bytes = all;
    }
    write_atomically(path, &bytes).map_err(failed)
}

fn lmdeploy_csv(points: &[Measured]) -> Result<Vec<u8>, ReportError> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let mut header = None;
    for (point, records) in points {
        let Some((method, cells)) = of_script(point, records) else { continue };
        if header.replace(method).is_none() {
            csv.write_record(columns(method))?;
        }
        csv.write_record(cells)?;
    }
    csv.into_inner().map_err(|error| ReportError::WriteCsv(error.into_error().into()))
}

/// The method of a load point and the script's figures of it, one for each of its [`columns`].
pub(super) fn of_script(point: &PointRecord, records: &[RequestRecord]) -> Option<(Method, Vec<String>)> {
    let method = point.method?;
    Some((method, row(method, point, records)?))
}

/// The header of the script's file, misspelled as it is there.
pub(super) fn columns(method: Method) -> &'static [&'static str] {
    match method {
        Method::Tis | Method::Api => &[
            "batch",
            "num_prompts",
            "RPS",
            "RPM",
            "FTL(ave)(s)",
            "FTL(min)(s)",
            "FTL(max)(s)",
            "throughput(out tok/s)",
            "throughput(total tok/s)",
        ],
        Method::TisA1 | Method::ApiA1 => &[
            "batch",
            "num_prompts",
            "prompt_tokens",
            "completion_tokens",
            "1st_token_latency(min)(s)",
            "1st_token_latency(max)(s)",
            "1st_token_latency(ave)(s)",
            "output token thr(tokens/s",
            "total token thr(token/s)",
            "RPM",
        ],
        Method::Serving => &[
            "backend",
            "dataset_name",
            "sharegpt_output_len",
            "random_input_len",
            "random_output_len",
            "random_range_ratio",
            "request_rate",
            "completed",
            "total_input_tokens",
            "total_output_tokens",
            "duration",
            "request_throughput",
            "input_throughput",
            "output_throughput",
            "mean_e2e_latency_ms",
            "mean_ttft_ms",
            "mean_tpot_ms",
            "mean_itl_ms",
        ],
        Method::Static => &[
            "batch",
            "prompt_tokens",
            "completion_tokens",
            "throughput(out tok/s)",
            "mem(GB)",
            "FTL(ave)(s)",
            "FTL(min)(s)",
            "FTL(max)(s)",
            "50%(s)",
            "75%(s)",
            "95%(s)",
            "99%(s)",
        ],
        Method::StaticA1 => &[
            "batch",
            "prompt_tokens",
            "completion_tokens",
            "1st_token_latency(min)(s)",
            "1st_token_latency(max)(s)",
            "1st_token_latency(ave)(s)",
            "percentile50(s)",
            "percentile75(s)",
            "percentile95(s)",
            "percentile99(s)",
            "throughput(token/s)",
            "mem_per_proc(GB)",
            "mem_per_gpu(GB)",
        ],
        Method::Throughput => &[
            "batch",
            "num_promts",
            "RPS",
            "RPM",
            "FTL(ave)(s)",
            "FTL(min)(s)",
            "FTL(max)(s)",
            "50%(s)",
            "75%(s)",
            "95%(s)",
            "99%(s)",
            "throughput(out tok/s)",
            "throughput(total tok/s)",
        ],
    }
}

/// `None` when nothing was answered.
fn row(method: Method, point: &PointRecord, records: &[RequestRecord]) -> Option<Vec<String>> {
    if method == Method::Serving {
        return ServingFigures::of(records).map(|figures| serving_row(point, &figures));
    }
    let figures = ScriptFigures::of(method, records)?;
    Some(script_row(method, point, &figures))
}

fn script_row(method: Method, point: &PointRecord, figures: &ScriptFigures) -> Vec<String> {
    let batch = point.concurrency.unwrap_or_default().to_string();
    let requests = figures.requests.to_string();
    let three = |number: f64| format!("{number:.3}");
    let two = |number: f64| format!("{number:.2}");
    // What the script has no figure for.
    let none = || "-".to_owned();
    let [mean, min, max] = figures.first_token_s.map_or_else(|| [0; 3].map(|_| none()), |all| all.map(three));
    let rates = [figures.output_tokens_per_s(), figures.total_tokens_per_s()].map(three);
    let (rps, rpm) = (three(figures.requests_per_s()), three(figures.requests_per_s() * 60.0));
    let tokens = [figures.input_tokens, figures.output_tokens].map(|tokens| python_float(tokens as f64));
    let plain = |number: f64| python_float(milliseconds(number));
    let plain_first = || figures.first_token_s.map_or_else(|| [0; 3].map(|_| none()), |all| all.map(plain));
    let later = |format: fn(f64) -> String| {
        let streamed = figures.later_tokens_s.filter(|_| figures.first_token_s.is_some());
        streamed.map_or_else(|| [0; 4].map(|_| none()), |all| all.map(format))
    };
    let lengths = ["isl", "osl"].map(|axis| point.axes.get(axis).map(ToString::to_string).unwrap_or_default());
    let [per_gpu, per_process] = gpu_memory_gib(point);
    let mut cells = vec![batch];
    match method {
        Method::Tis | Method::Api | Method::Serving => {
            cells.extend([requests, rps, rpm, mean, min, max]);
            cells.extend(rates);
        }
        Method::TisA1 | Method::ApiA1 => {
            cells.push(requests);
            cells.extend(tokens);
            cells.extend([min, max, mean]);
            cells.extend(rates);
            cells.push(rpm);
        }
        Method::Static => {
            cells.extend(lengths);
            cells.extend([two(figures.output_tokens_per_s()), two(per_gpu)]);
            cells.extend(plain_first());
            cells.extend(later(python_float));
        }
        Method::StaticA1 => {
            let [mean, min, max] = plain_first();
            cells.extend(lengths);
            cells.extend([min, max, mean]);
            cells.extend(later(python_float));
            cells.extend([two(figures.output_tokens_per_s()), two(per_process), two(per_gpu)]);
        }
        Method::Throughput => {
            cells.extend([requests, rps, rpm, mean, min, max]);
            cells.extend(later(|number| format!("{number:.3}")));
            cells.extend(rates);
        }
    }
    cells
}

/// Of a GPU, and of all of them, above what was there before the server. A script that sees no GPU writes 0.
fn gpu_memory_gib(point: &PointRecord) -> [f64; 2] {
    let [peak, before] =
        [point.server.gpu_memory_mib_peak, point.server.gpu_memory_mib_before].map(Option::unwrap_or_default);
    let all = (peak - before).max(0.0) / 1024.0;
    [all / f64::from(point.server.gpus.unwrap_or(1).max(1)), all]
}

fn serving_row(point: &PointRecord, figures: &ServingFigures) -> Vec<String> {
    let rate = point.request_rate.map_or_else(|| "inf".to_owned(), python_float);
    // A length that the command line gave for all answers.
    let answer = point.axes.get("osl").map(ToString::to_string).unwrap_or_default();
    let nothing = String::new;
    let count = |count: u64| count.to_string();
    let per_s = |count: u64| python_float(count as f64 / figures.duration_s);
    let backend = match point.engine.as_str() {
        "vllm" => "vllm",
        "sglang" => "sglang-oai",
        _ => "lmdeploy",
    };
    let mut cells = vec![backend.to_owned(), "sharegpt".to_owned(), answer, nothing(), nothing()];
    cells.extend([python_float(0.0), rate, count(figures.completed), count(figures.input_tokens)]);
    cells.extend([count(figures.output_tokens), python_float(figures.duration_s), per_s(figures.completed)]);
    cells.extend([per_s(figures.input_tokens), per_s(figures.output_tokens)]);
    cells.extend(
        [figures.e2e_ms_mean, figures.ttft_ms_mean, figures.tpot_ms_mean, figures.itl_ms_mean].map(python_float),
    );
    cells
}

/// As Python's `str` writes it, between 0.0001 and 10^16.
fn python_float(number: f64) -> String {
    format!("{number:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Scalar;
    use crate::record::ServerFacts;
    use crate::stats::fixture::{MS, point, streamed};
    use crate::stats::lmdeploy::ScriptRequest;

    fn figures() -> ScriptFigures {
        let request = |first_token_s, later: &[f64], output_tokens, total: u64| ScriptRequest {
            first_token_s,
            later_tokens_s: later.to_vec(),
            input_tokens: total - output_tokens,
            output_tokens,
        };
        let requests = [
            request(0.012, &[0.01, 0.0, 0.02, 0.01, 0.0], 5, 15),
            request(0.031, &[0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.0], 7, 20),
            request(0.020, &[0.011, 0.012, 0.013, 0.0], 4, 9),
        ];
        ScriptFigures::aggregate(3, &requests, 0.5).unwrap()
    }

    fn line(method: Method, figures: &ScriptFigures) -> String {
        let point = PointRecord { concurrency: Some(2), ..point() };
        let cells = script_row(method, &point, figures);
        assert_eq!(cells.len(), columns(method).len(), "{method:?}");
        cells.join(",")
    }

    /// What the scripts wrote for these requests.
    #[test]
    fn rows_are_those_of_the_scripts() {
        for (method, expected) in [
            (Method::Api, "2,3,6.000,360.000,0.021,0.012,0.031,32.000,88.000"),
            (Method::ApiA1, "2,3,28.0,16.0,0.012,0.031,0.021,32.000,88.000,360.000"),
            (Method::Throughput, "2,3,6.000,360.000,0.021,0.012,0.031,0.010,0.011,0.020,0.020,32.000,88.000"),
        ] {
            assert_eq!(line(method, &figures()), expected, "{method:?}");
        }
        let not_streamed = ScriptFigures { first_token_s: None, ..figures() };
        assert_eq!(line(Method::Tis, &not_streamed), "2,3,6.000,360.000,-,-,-,32.000,88.000");
        assert_eq!(line(Method::Throughput, &not_streamed), "2,3,6.000,360.000,-,-,-,-,-,-,-,32.000,88.000");
    }

    #[test]
    fn memory_is_that_above_what_was_there_before() {
        let memory = |before, peak| {
            let server = ServerFacts {
                gpus: Some(2),
                gpu_memory_mib_before: before,
                gpu_memory_mib_peak: peak,
                ..Default::default()
            };
            gpu_memory_gib(&PointRecord { server, ..point() }).map(|gib| format!("{gib:.1}"))
        };
        assert_eq!(memory(Some(1024.0), Some(4096.0)), ["1.5", "3.0"]);
        assert_eq!(memory(None, Some(4096.0)), ["2.0", "4.0"], "of a server that was up before");
        assert_eq!(memory(None, None), ["0.0", "0.0"]);
    }

    /// A tie in binary, which is not rounded up.
    #[test]
    fn decimals_are_rounded_as_python_does() {
        assert_eq!([0.0625, 0.1875, 2.5].map(|number| format!("{number:.3}")), ["0.062", "0.188", "2.500"]);
        assert_eq!([0.01, 1.0, 28.0, 0.0].map(python_float), ["0.01", "1.0", "28.0", "0.0"]);
    }

    #[test]
    fn a_file_has_a_line_for_each_load_point_and_ends_lines_as_python_does() {
        let axes = [("isl", 128), ("osl", 4)].map(|(axis, tokens)| (axis.to_owned(), Scalar::Int(tokens)));
        let measured = |concurrency| {
            let point = PointRecord {
                method: Some(Method::Static),
                concurrency: Some(concurrency),
                axes: axes.clone().into(),
                ..point()
            };
            let request = RequestRecord { output_tokens_asked: Some(4), ..streamed(0, &[20, 30, 40, 45], 4) };
            (point, vec![request])
        };
        let unanswered = (measured(3).0, Vec::new());
        let text = String::from_utf8(lmdeploy_csv(&[measured(1), unanswered, measured(2)]).unwrap()).unwrap();
        assert_eq!(
            text,
            "batch,prompt_tokens,completion_tokens,throughput(out tok/s),mem(GB),FTL(ave)(s),FTL(min)(s),FTL(max)(s),\
             50%(s),75%(s),95%(s),99%(s)\r\n\
             1,128,4,80.00,0.00,0.02,0.02,0.02,0.01,0.01,0.01,0.01\r\n\
             2,128,4,80.00,0.00,0.02,0.02,0.02,0.01,0.01,0.01,0.01\r\n"
        );
    }

    #[test]
    fn todays_file_has_full_precision() {
        let request =
            RequestRecord { output_tokens_asked: Some(4), end_ns: 45 * MS, ..streamed(0, &[20, 30, 40, 45], 4) };
        let point = PointRecord { method: Some(Method::Serving), ..point() };
        let text = String::from_utf8(lmdeploy_csv(&[(point, vec![request])]).unwrap()).unwrap();
        let line = text.lines().nth(1).unwrap();
        let rates = [1.0, 100.0, 4.0].map(|count| python_float(count / 0.045)).join(",");
        let ms = format!("45.0,20.0,{:?},{:?}", 25.0 / 3.0, 25.0 / 3.0);
        assert_eq!(line, format!("lmdeploy,sharegpt,,,,0.0,inf,1,100,4,0.045,{rates},{ms}"));
    }
}
