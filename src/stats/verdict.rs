use crate::stats::Interval;

/// Which way a figure is wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Wanted {
    More,
    Less,
}

/// What a comparison of two figures shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Better,
    Worse,
    /// The interval of the difference holds 0: there may be one, but this was not enough to show it.
    NotShown,
    /// A figure of one round alone has no interval.
    OneRound,
}

impl Verdict {
    /// By a difference, new - base, and its interval.
    #[must_use]
    pub fn of(difference: Option<Interval>, wanted: Wanted) -> Self {
        let Some(interval) = difference else { return Self::OneRound };
        match wanted {
            _ if interval.low <= 0.0 && interval.high >= 0.0 => Self::NotShown,
            Wanted::More if interval.low > 0.0 => Self::Better,
            Wanted::Less if interval.high < 0.0 => Self::Better,
            Wanted::More | Wanted::Less => Self::Worse,
        }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Worse => "worse",
            Self::NotShown => "no difference shown",
            Self::OneRound => "one round: no interval",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(low: f64, high: f64, more: Verdict, less: Verdict) {
        let interval = Some(Interval { mean: f64::midpoint(low, high), low, high });
        assert_eq!((Verdict::of(interval, Wanted::More), Verdict::of(interval, Wanted::Less)), (more, less));
    }

    #[test]
    fn what_is_shown_depends_on_the_interval_and_on_what_is_wanted() {
        check(1.0, 2.0, Verdict::Better, Verdict::Worse);
        check(-2.0, -1.0, Verdict::Worse, Verdict::Better);
        check(-1.0, 2.0, Verdict::NotShown, Verdict::NotShown);
        check(0.0, 0.0, Verdict::NotShown, Verdict::NotShown);
        assert_eq!(Verdict::of(None, Wanted::More), Verdict::OneRound);
    }
}
