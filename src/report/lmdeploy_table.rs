//! The figures of LMDeploy's scripts beside the correct ones.

use comfy_table::{Cell, CellAlignment};

use super::lmdeploy::{Measured, columns, of_script};
use super::table::{empty_table, short};
use super::{Color, Row};

/// For a terminal: two lines for each load point, what the script would have printed and what `results.csv` has.
#[must_use]
pub fn lmdeploy_table(points: &[Measured], rows: &[Row], color: Color) -> String {
    let mut table = empty_table(color);
    for (point, records) in points {
        let Some((method, cells)) = of_script(point, records) else { continue };
        let row = rows.iter().find(|row| row.point.order == point.order);
        let shown = || {
            columns(method)
                .iter()
                .zip(&cells)
                .filter(|(column, _)| LABELS.contains(column) || correct(column).is_some())
        };
        if table.header().is_none() {
            let heading = |(column, _): (&&str, _)| Cell::new(column).set_alignment(CellAlignment::Right);
            table.set_header([Cell::new("figures")].into_iter().chain(shown().map(heading)));
        }
        let cell = |text: String| Cell::new(text).set_alignment(CellAlignment::Right);
        let of_script = shown().map(|(_, text)| cell(text.parse().map_or_else(|_| text.clone(), shortened)));
        table.add_row([Cell::new("the script's")].into_iter().chain(of_script));
        let figure = |column: &str| {
            let (name, factor) = correct(column)?;
            Some(short(row?.number(name)? * factor))
        };
        let of_row = shown().map(|(column, _)| cell(figure(column).unwrap_or_default()));
        table.add_row([Cell::new("correct")].into_iter().chain(of_row));
    }
    table.trim_fmt() + "\n"
}

/// Whole numbers as they are.
fn shortened(number: f64) -> String {
    if number.fract() == 0.0 { number.to_string() } else { short(number) }
}

/// Columns that tell load points apart.
const LABELS: [&str; 4] = ["batch", "prompt_tokens", "completion_tokens", "request_rate"];

/// The column of `results.csv` for what a script's column is about, and what makes its unit the script's.
fn correct(column: &str) -> Option<(&'static str, f64)> {
    Some(match column {
        "RPS" | "request_throughput" => ("requests_per_s", 1.0),
        "RPM" => ("requests_per_min", 1.0),
        "completed" => ("requests_ok", 1.0),
        "FTL(ave)(s)" | "1st_token_latency(ave)(s)" => ("ttft_ms_mean", 1e-3),
        "FTL(min)(s)" | "1st_token_latency(min)(s)" => ("ttft_ms_min", 1e-3),
        "FTL(max)(s)" | "1st_token_latency(max)(s)" => ("ttft_ms_max", 1e-3),
        "50%(s)" | "percentile50(s)" => ("itl_ms_p50", 1e-3),
        "75%(s)" | "percentile75(s)" => ("itl_ms_p75", 1e-3),
        "95%(s)" | "percentile95(s)" => ("itl_ms_p95", 1e-3),
        "99%(s)" | "percentile99(s)" => ("itl_ms_p99", 1e-3),
        "throughput(out tok/s)" | "output token thr(tokens/s" | "throughput(token/s)" | "output_throughput" => {
            ("output_tokens_per_s", 1.0)
        }
        "throughput(total tok/s)" | "total token thr(token/s)" => ("total_tokens_per_s", 1.0),
        "mean_e2e_latency_ms" => ("e2e_ms_mean", 1.0),
        "mean_ttft_ms" => ("ttft_ms_mean", 1.0),
        "mean_tpot_ms" => ("tpot_ms_mean", 1.0),
        "mean_itl_ms" => ("itl_ms_mean", 1.0),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::known_metric_columns;
    use crate::spec::Method;

    #[test]
    fn every_correct_figure_is_a_column_of_the_results() {
        let methods =
            [Method::Api, Method::ApiA1, Method::Serving, Method::Static, Method::StaticA1, Method::Throughput];
        let correct: Vec<&str> =
            methods.into_iter().flat_map(columns).filter_map(|column| Some(correct(column)?.0)).collect();
        assert!(correct.len() > 40, "{correct:?}");
        for name in correct {
            assert!(known_metric_columns().iter().any(|known| known == name), "{name}");
        }
    }
}
