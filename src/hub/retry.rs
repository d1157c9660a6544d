use std::time::Duration;

use super::error::HubError;
use super::settings::Patience;

/// Why an attempt failed, and whether another one may do better.
pub(super) enum Failure {
    Final(HubError),
    Passing {
        error: HubError,
        /// The pause that the hub asks for.
        wait: Option<Duration>,
    },
}

impl Failure {
    pub(super) fn passing(error: HubError) -> Self {
        Self::Passing { error, wait: None }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

/// Counts failures in a row, and says how long to pause after each.
pub(super) struct Backoff {
    patience: Patience,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(patience: Patience) -> Self {
        Self { patience, failures: 0 }
    }

    /// Something new has arrived: the next failure is a first one again.
    pub(super) fn progressed(&mut self) {
        self.failures = 0;
    }

    /// The pause before the next attempt at `what`, or the error to end with.
    pub(super) fn after(&mut self, failure: Failure, what: &str) -> Result<Duration, HubError> {
        let (error, wait) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Passing { error, wait } => (error, wait),
        };
        self.failures += 1;
        if self.failures >= self.patience.attempts {
            return Err(HubError::GaveUp { what: what.to_owned(), failures: self.failures, source: Box::new(error) });
        }
        let doubled = self.patience.first_pause.saturating_mul(1 << (self.failures - 1).min(20));
        // Clients that failed together should not come back together.
        let spread = doubled.min(self.patience.longest_pause).mul_f64(rand::random_range(0.5..=1.0));
        Ok(wait.map_or(spread, |wait| wait.min(self.patience.longest_pause)))
    }
}

/// Attempts until one succeeds, one fails for good, or patience ends.
pub(super) async fn retrying<T, Attempt: Future<Output = Result<T, Failure>>>(
    patience: Patience,
    what: &str,
    mut attempt: impl FnMut() -> Attempt,
) -> Result<T, HubError> {
    let mut backoff = Backoff::new(patience);
    loop {
        match attempt().await {
            Ok(value) => return Ok(value),
            Err(failure) => tokio::time::sleep(backoff.after(failure, what)?).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(wait: Option<Duration>) -> Failure {
        Failure::Passing { error: HubError::Cancelled, wait }
    }

    #[test]
    fn pauses_double_up_to_the_limit_and_failures_in_a_row_are_bounded() {
        let limit = Duration::from_secs(3);
        let patience =
            Patience { attempts: 5, first_pause: Duration::from_secs(1), longest_pause: limit, ..Patience::default() };
        let mut backoff = Backoff::new(patience);
        for longest in [1, 2, 3, 3].map(Duration::from_secs) {
            let pause = backoff.after(passing(None), "x").unwrap();
            assert!(pause >= longest / 2 && pause <= longest, "{pause:?} of {longest:?}");
        }
        assert!(matches!(backoff.after(passing(None), "x"), Err(HubError::GaveUp { failures: 5, .. })));
    }

    #[test]
    fn a_hub_may_ask_for_a_pause_but_not_for_a_very_long_one() {
        let mut backoff = Backoff::new(Patience::default());
        assert_eq!(backoff.after(passing(Some(Duration::ZERO)), "x").unwrap(), Duration::ZERO);
        let pause = backoff.after(passing(Some(Duration::from_hours(5))), "x").unwrap();
        assert_eq!(pause, Patience::default().longest_pause);
    }

    #[test]
    fn progress_makes_the_next_failure_a_first_one() {
        let mut backoff = Backoff::new(Patience { attempts: 2, ..Patience::default() });
        for _ in 0..5 {
            assert!(backoff.after(passing(None), "x").is_ok());
            backoff.progressed();
        }
    }
}
