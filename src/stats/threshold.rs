use std::fmt;

use crate::spec::Bound;

/// A bound that was not kept. Its text says by what: "`ttft_ms_p99` is 212.4, above 200".
#[derive(Clone, Debug, PartialEq)]
pub enum Miss {
    Below {
        column: String,
        value: f64,
        min: f64,
    },
    Above {
        column: String,
        value: f64,
        max: f64,
    },
    /// Nobody can say that the bound was kept.
    Unknown {
        column: String,
    },
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below { column, value, min } => write!(f, "{column} is {value}, below {min}"),
            Self::Above { column, value, max } => write!(f, "{column} is {value}, above {max}"),
            Self::Unknown { column } => write!(f, "{column} is not known, so its threshold is not met"),
        }
    }
}

/// The bounds that were missed, in the order of `bounds`. `value` gives a column's number, or `None` where it is empty.
pub fn missed(bounds: &[Bound], value: impl Fn(&str) -> Option<f64>) -> Vec<Miss> {
    bounds.iter().filter_map(|bound| miss(bound, value(&bound.column))).collect()
}

fn miss(bound: &Bound, value: Option<f64>) -> Option<Miss> {
    let column = bound.column.clone();
    let Some(value) = value else { return Some(Miss::Unknown { column }) };
    if let Some(min) = bound.min.filter(|&min| value < min) {
        return Some(Miss::Below { column, value, min });
    }
    bound.max.filter(|&max| value > max).map(|max| Miss::Above { column, value, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(min: Option<f64>, max: Option<f64>, value: Option<f64>, expected: &[&str]) {
        let bounds = [Bound { column: "ttft_ms_p99".to_owned(), min, max }];
        let found: Vec<String> = missed(&bounds, |_| value).iter().map(Miss::to_string).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_bound_is_missed_beyond_it_and_where_nothing_is_known() {
        check(None, Some(200.0), Some(212.4), &["ttft_ms_p99 is 212.4, above 200"]);
        check(Some(30.5), None, Some(30.0), &["ttft_ms_p99 is 30, below 30.5"]);
        check(Some(1.0), Some(200.0), Some(200.0), &[]);
        check(Some(1.0), Some(200.0), Some(1.0), &[]);
        check(None, Some(200.0), None, &["ttft_ms_p99 is not known, so its threshold is not met"]);
    }
}
