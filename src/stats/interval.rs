use statrs::distribution::{ContinuousCDF as _, StudentsT};

use crate::stats::percentile::mean;

/// The share of intervals that hold the true value, in percent.
pub(super) const CONFIDENCE: f64 = 95.0;

/// A mean, and where the true one lies with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    pub mean: f64,
    pub low: f64,
    pub high: f64,
}

impl Interval {
    /// The mean of `values` ± t × s / √n, with s² the sample variance (divisor n - 1) and t the 97.5 % quantile of
    /// Student's distribution with n - 1 degrees of freedom. `None` for fewer than two values.
    #[must_use]
    pub fn of(values: &[f64]) -> Option<Self> {
        let (mean, variance) = moments(values)?;
        let n = values.len() as f64;
        Some(Self::around(mean, quantile(n - 1.0)? * (variance / n).sqrt()))
    }

    /// mean(new) - mean(base), by Welch's method: ± t × √(s₁²/n₁ + s₂²/n₂), with the degrees of freedom of Welch and
    /// Satterthwaite. `None` when either has fewer than two values.
    #[must_use]
    pub fn of_difference(base: &[f64], new: &[f64]) -> Option<Self> {
        let ((base_mean, base_variance), (new_mean, new_variance)) = (moments(base)?, moments(new)?);
        let (base_n, new_n) = (base.len() as f64, new.len() as f64);
        let (base_part, new_part) = (base_variance / base_n, new_variance / new_n);
        let both = base_part + new_part;
        let difference = new_mean - base_mean;
        if both == 0.0 {
            return Some(Self::around(difference, 0.0));
        }
        let freedom = both.powi(2) / (base_part.powi(2) / (base_n - 1.0) + new_part.powi(2) / (new_n - 1.0));
        Some(Self::around(difference, quantile(freedom)? * both.sqrt()))
    }

    fn around(mean: f64, half_width: f64) -> Self {
        Self { mean, low: mean - half_width, high: mean + half_width }
    }

    #[must_use]
    pub fn half_width(&self) -> f64 {
        (self.high - self.low) / 2.0
    }

    /// Half the width / the mean's size; `None` around 0.
    #[must_use]
    pub fn relative_half_width(&self) -> Option<f64> {
        (self.mean != 0.0).then(|| self.half_width() / self.mean.abs())
    }
}

/// Mean and sample variance.
fn moments(values: &[f64]) -> Option<(f64, f64)> {
    let others = values.len().checked_sub(2)? + 1;
    let mean = mean(values)?;
    Some((mean, values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / others as f64))
}

/// The 97.5 % quantile of Student's t.
fn quantile(freedom: f64) -> Option<f64> {
    let upper = 0.5 + CONFIDENCE / 200.0;
    StudentsT::new(0.0, 1.0, freedom).ok().map(|student| student.inverse_cdf(upper))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 5e-4 * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn quantiles_are_those_of_the_table() {
        let table = [(1.0, 12.706), (2.0, 4.3027), (4.0, 2.7764), (9.0, 2.2622), (29.0, 2.0452), (1000.0, 1.9623)];
        for (freedom, expected) in table {
            close(quantile(freedom).unwrap(), expected);
        }
    }

    proptest! {
        /// Welch's degrees of freedom are no whole numbers.
        #[test]
        fn quantiles_are_the_inverse_of_the_distribution(freedom in 1.0..200.0) {
            let share = StudentsT::new(0.0, 1.0, freedom).unwrap().cdf(quantile(freedom).unwrap());
            prop_assert!((share - 0.975).abs() < 1e-6, "{freedom}: {share}");
        }
    }

    #[test]
    fn a_mean_has_students_interval() {
        // Mean 5, s² = 32 / 7, n = 8, t = 2.3646.
        let it = Interval::of(&[2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        close(it.mean, 5.0);
        close(it.half_width(), 2.3646 * (32.0_f64 / 7.0 / 8.0).sqrt());
        close(it.relative_half_width().unwrap(), it.half_width() / 5.0);
        assert_eq!(Interval::of(&[1.0]), None);
        assert_eq!(Interval::of(&[3.0, 3.0]), Some(Interval { mean: 3.0, low: 3.0, high: 3.0 }));
    }

    #[test]
    fn a_difference_has_welchs_interval() {
        // Variances 0.09 and 1 / 3: 4.64568 degrees of freedom, t = 2.63069, √(0.09 / 3 + 1 / 12) = 0.336650.
        let it = Interval::of_difference(&[20.1, 19.8, 20.4], &[22.3, 21.5, 22.9, 22.1]).unwrap();
        close(it.mean, 2.1);
        close(it.half_width(), 0.88562);
        assert_eq!(Interval::of_difference(&[1.0], &[1.0, 2.0]), None);
    }
}
