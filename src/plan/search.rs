use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::spec::Search;

/// One load that was tried.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Try {
    /// Requests a second, or requests under way.
    pub load: f64,
    /// Every threshold was kept.
    pub met: bool,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// What a search does next.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// Measure this load; its how-many-eth time this is, from 1.
    Try { load: f64, round: u32 },
    Found(Limit),
}

/// What a search found.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The highest load that kept the thresholds; a little more did not.
    At(f64),
    /// Not even the lowest load kept them.
    BelowRange,
    /// The highest load of the range kept them.
    AboveRange,
    /// The time was used up; the highest load that kept them so far.
    OutOfTime { best: Option<f64> },
}

impl Search {
    /// The next step after these tries: a pure function of them, so that an interrupted search goes on where it was.
    ///
    /// The load is doubled until it misses a threshold; then the gap between the highest good load and the lowest bad
    /// one is halved (in ratio) until it is narrow enough; then both borders are measured again until each has its
    /// number of votes. A load is good when most of its tries were.
    #[must_use]
    pub fn next(&self, tries: &[Try]) -> Next {
        let mut votes: BTreeMap<u64, Votes> = BTreeMap::new();
        for it in tries {
            // Loads are positive, and the bits of positive numbers have their order.
            let votes = votes.entry(it.load.to_bits()).or_default();
            if it.met { votes.good += 1 } else { votes.bad += 1 }
        }
        let loads: Vec<(f64, Votes)> = votes.into_iter().map(|(bits, votes)| (f64::from_bits(bits), votes)).collect();
        let bad = loads.iter().find(|(_, votes)| !votes.is_good());
        let below = |limit: f64| loads.iter().rev().find(move |(load, votes)| *load < limit && votes.is_good());
        let good = below(bad.map_or(f64::INFINITY, |(load, _)| *load));
        if tries.iter().map(|it| it.seconds).sum::<f64>() >= self.budget_s {
            return Next::Found(Limit::OutOfTime { best: good.map(|(load, _)| *load) });
        }
        match (good, bad) {
            (None, None) => Next::Try { load: self.from, round: 1 },
            (None, Some(&(load, votes))) => self.confirm(load, votes).unwrap_or(Next::Found(Limit::BelowRange)),
            (Some(&(load, votes)), None) if load >= self.to => {
                self.confirm(load, votes).unwrap_or(Next::Found(Limit::AboveRange))
            }
            (Some(&(load, _)), None) => Next::Try { load: (load * 2.0).min(self.to), round: 1 },
            (Some(&(low, low_votes)), Some(&(high, high_votes))) => match self.between(low, high) {
                Some(load) => Next::Try { load, round: 1 },
                None => self
                    .confirm(low, low_votes)
                    .or_else(|| self.confirm(high, high_votes))
                    .unwrap_or(Next::Found(Limit::At(low))),
            },
        }
    }

    /// Another measurement of a border that has too few.
    fn confirm(&self, load: f64, votes: Votes) -> Option<Next> {
        let round = votes.good + votes.bad + 1;
        (round <= self.repeats).then_some(Next::Try { load, round })
    }

    /// A load between two, unless they are close enough.
    fn between(&self, low: f64, high: f64) -> Option<f64> {
        if high <= low * (1.0 + self.precision) {
            return None;
        }
        let middle = (low * high).sqrt();
        if !self.whole {
            // Four digits are enough for any precision, and make short names.
            let scale = 10f64.powi(3 - middle.log10().floor() as i32);
            return Some((middle * scale).round() / scale).filter(|load| *load > low && *load < high);
        }
        Some(middle.round().clamp(low + 1.0, high - 1.0)).filter(|load| *load > low && *load < high)
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Votes {
    good: u32,
    bad: u32,
}

impl Votes {
    fn is_good(self) -> bool {
        self.good > self.bad
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEARCH: Search =
        Search { whole: false, from: 1.0, to: 100.0, precision: 0.05, repeats: 3, budget_s: f64::INFINITY };

    /// Carries a search out against a server of which `met` tells whether it keeps the thresholds at a load.
    fn carried_out(search: &Search, mut met: impl FnMut(f64, u32) -> bool) -> (Limit, Vec<f64>) {
        let mut tries: Vec<Try> = Vec::new();
        loop {
            match search.next(&tries) {
                Next::Found(limit) => return (limit, tries.iter().map(|it| it.load).collect()),
                Next::Try { load, round } => tries.push(Try { load, met: met(load, round), seconds: 1.0 }),
            }
            assert!(tries.len() < 100, "it does not end: {tries:?}");
        }
    }

    #[test]
    fn the_limit_is_found_to_the_precision_asked_for() {
        for limit in [1.5, 7.0, 33.3, 99.0] {
            let (found, tried) = carried_out(&SEARCH, |load, _| load <= limit);
            let Limit::At(found) = found else { panic!("{limit}: {found:?}") };
            assert!(found <= limit && limit <= found * 1.05, "{found} for {limit}");
            assert_eq!(tried.iter().filter(|load| **load == found).count(), 3, "the border is measured again");
            assert!(tried.len() < 20, "{tried:?}");
        }
    }

    #[test]
    fn whole_loads_end_next_to_each_other() {
        let search = Search { whole: true, ..SEARCH };
        for limit in 1..100u32 {
            let (found, tried) = carried_out(&search, |load, _| load <= f64::from(limit));
            let Limit::At(found) = found else { panic!("{limit}: {found:?}") };
            assert!(found <= f64::from(limit) && f64::from(limit) <= (found * 1.05).max(found), "{found} for {limit}");
            assert!(tried.iter().all(|load| load.fract() == 0.0), "{tried:?}");
        }
    }

    #[test]
    fn a_limit_outside_the_range_is_said() {
        assert_eq!(carried_out(&SEARCH, |_, _| false), (Limit::BelowRange, vec![1.0; 3]));
        let (found, tried) = carried_out(&SEARCH, |_, _| true);
        assert_eq!((found, tried.iter().filter(|load| **load == 100.0).count()), (Limit::AboveRange, 3));
    }

    #[test]
    fn one_bad_try_at_the_border_is_outvoted() {
        // The first try of every load up to 20 is bad luck, the others tell the truth.
        let (found, _) = carried_out(&SEARCH, |load, round| load <= 20.0 && !(load == 16.0 && round == 1));
        let Limit::At(found) = found else { panic!("{found:?}") };
        assert!((19.0..=20.0).contains(&found) || found < 16.0, "{found}");
    }

    #[test]
    fn the_time_is_kept() {
        let search = Search { budget_s: 4.0, ..SEARCH };
        assert_eq!(carried_out(&search, |load, _| load <= 50.0).0, Limit::OutOfTime { best: Some(8.0) });
    }
}
