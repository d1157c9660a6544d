use crate::event::Outcome;
use crate::progress::words::whole;

/// How fast load points are measured, servers' starts and stops included. Times are seconds since the run began.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began_s: Option<f64>,
    last_end_s: f64,
    /// Points that were tried: the pace is theirs.
    measured: u64,
    /// Points that need nothing more, however they ended.
    pub(super) ended: u64,
    pub(super) total: u64,
}

impl Pace {
    pub(super) fn new(total: u64) -> Self {
        Self { total, ..Self::default() }
    }

    /// A server was started or a load point begun.
    pub(super) fn began(&mut self, now_s: f64) {
        self.began_s.get_or_insert(now_s);
    }

    pub(super) fn point_ended(&mut self, outcome: &Outcome, now_s: f64) {
        match outcome {
            // It is not among the points that had work to do.
            Outcome::Cached => return,
            Outcome::Done | Outcome::Failed { .. } => self.measured += 1,
            Outcome::Skipped { .. } => {}
        }
        self.ended += 1;
        // How many load points a search takes is known at its end.
        self.total = self.total.max(self.ended);
        self.last_end_s = now_s;
    }

    /// `about 2 min left`; `None` before the first point, after the last, and when the present one takes longer than
    /// all that was expected.
    pub(super) fn left(&self, now_s: f64) -> Option<String> {
        let began_s = self.began_s.filter(|_| self.measured > 0)?;
        let a_point_s = (self.last_end_s - began_s) / self.measured as f64;
        let expected_s = a_point_s * self.total.saturating_sub(self.ended) as f64;
        let left_s = expected_s - (now_s - self.last_end_s);
        (left_s > 0.0).then(|| about(left_s))
    }
}

/// As coarse as the guess is.
fn about(seconds: f64) -> String {
    let seconds = whole(seconds);
    match seconds {
        0..8 => "a few seconds left".to_owned(),
        8..90 => format!("about {} s left", seconds.div_ceil(10) * 10),
        90..5400 => format!("about {} min left", (seconds + 30) / 60),
        5400.. => format!("about {} h {} min left", seconds / 3600, seconds % 3600 / 600 * 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_promised_before_a_point_is_measured() {
        let mut pace = Pace::new(4);
        assert_eq!(pace.left(5.0), None);
        pace.began(10.0);
        assert_eq!(pace.left(12.0), None);
        pace.point_ended(&Outcome::Skipped { because: "its server did not start".to_owned() }, 12.0);
        assert_eq!(pace.left(12.0), None);
    }

    #[test]
    fn what_is_left_goes_by_the_points_measured() {
        let mut pace = Pace::new(4);
        pace.began(10.0);
        pace.point_ended(&Outcome::Done, 70.0);
        assert_eq!(pace.left(70.0).as_deref(), Some("about 3 min left"));
        assert_eq!(pace.left(130.0).as_deref(), Some("about 2 min left"));
        assert_eq!(pace.left(250.0), None, "the present point takes longer than all four should have");
        pace.point_ended(&Outcome::Cached, 250.0);
        pace.point_ended(&Outcome::Failed { error: String::new() }, 250.0);
        assert_eq!((pace.measured, pace.ended), (2, 2));
    }

    #[test]
    fn guesses_are_coarse() {
        for (seconds, expected) in [
            (2.0, "a few seconds left"),
            (33.0, "about 40 s left"),
            (100.0, "about 2 min left"),
            (5400.0, "about 1 h 30 min left"),
        ] {
            assert_eq!(about(seconds), expected);
        }
    }
}
