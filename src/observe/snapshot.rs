use std::collections::BTreeMap;

use super::families::{Family, Share, Sum, Timer, family_of};
use super::prometheus::{Series, samples};

/// The series that a family names, with their values at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Snapshot {
    /// Seconds since the observation began.
    pub at_s: f64,
    /// By name and labels as they stand on the page.
    pub values: BTreeMap<String, f64>,
}

/// Which series are meant; see [`Family`].
#[derive(Clone, Copy)]
struct Selector<'a> {
    name: &'a str,
    /// What is added to the name: `_sum`.
    suffix: &'a str,
    label: Option<(&'a str, &'a str)>,
}

/// The family of a page, if it has one.
pub(super) fn family_of_page(page: &str) -> Option<&'static Family> {
    let names: Vec<&str> = samples(page).map(|sample| sample.series.name).collect();
    family_of(&names)
}

impl Snapshot {
    /// What `family` names, out of a page.
    pub(super) fn of_page(page: &str, family: &Family, at_s: f64) -> Self {
        let names = names_of(family);
        let known = samples(page).filter(|sample| names.iter().any(|name| name == sample.series.name));
        Self { at_s, values: known.map(|sample| (sample.series.text.to_owned(), sample.value)).collect() }
    }

    /// The sum of the first alternative that is there whole.
    pub(super) fn sum(&self, alternatives: &[Sum], model: &str) -> Option<f64> {
        alternatives.iter().find_map(|sum| self.sum_of(sum, model))
    }

    /// The share of gauges: the largest where there are several.
    pub(super) fn share(&self, alternatives: &[Share], model: &str) -> Option<f64> {
        alternatives.iter().find_map(|share| match share.whole {
            [] => share.part.iter().flat_map(|text| self.matching(Selector::parse(text, model))).reduce(f64::max),
            whole => ratio(self.sum_of(share.part, model)?, self.sum_of(whole, model)?),
        })
    }

    fn sum_of(&self, sum: Sum, model: &str) -> Option<f64> {
        sum.iter().map(|text| self.total(Selector::parse(text, model))).sum()
    }

    fn total(&self, selector: Selector) -> Option<f64> {
        self.matching(selector).reduce(|total, value| total + value)
    }

    fn matching<'a>(&'a self, selector: Selector<'a>) -> impl Iterator<Item = f64> {
        self.series(selector).map(|(_, value)| value)
    }

    fn series<'a>(&'a self, selector: Selector<'a>) -> impl Iterator<Item = (Series<'a>, f64)> {
        let all = self.values.iter().filter_map(|(text, &value)| Some((Series::parse(text)?, value)));
        all.filter(move |(series, _)| selector.takes(series))
    }
}

/// What was counted between two snapshots. A counter that was not there yet began at 0.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub from: &'a Snapshot,
    pub to: &'a Snapshot,
    /// The model that requests name.
    pub model: &'a str,
}

impl Window<'_> {
    /// What the first alternative that is there whole has counted; `None` when a counter fell, as after a restart.
    pub(super) fn count(&self, alternatives: &[Sum]) -> Option<f64> {
        alternatives.iter().find_map(|sum| self.count_of(sum))
    }

    /// The part of what was counted; `None` when nothing was.
    pub(super) fn share(&self, alternatives: &[Share]) -> Option<f64> {
        alternatives.iter().find_map(|share| ratio(self.count_of(share.part)?, self.count_of(share.whole)?))
    }

    /// The mean in milliseconds.
    pub(super) fn mean_ms(&self, timers: &[Timer]) -> Option<f64> {
        timers.iter().find_map(|timer| {
            let (sum, count, unit_ms) = match *timer {
                Timer::Histogram { name, unit_ms } => {
                    let selector = Selector::parse(name, self.model);
                    (selector.suffixed("_sum"), selector.suffixed("_count"), unit_ms)
                }
                Timer::Counters { sum, count, unit_ms } => {
                    (Selector::parse(sum, self.model), Selector::parse(count, self.model), unit_ms)
                }
            };
            ratio(self.delta(sum)?, self.delta(count)?).map(|mean| mean * unit_ms)
        })
    }

    /// How many durations were counted.
    pub(super) fn timed(&self, timers: &[Timer]) -> Option<f64> {
        timers.iter().find_map(|timer| match *timer {
            Timer::Histogram { name, .. } => self.delta(Selector::parse(name, self.model).suffixed("_count")),
            Timer::Counters { count, .. } => self.delta(Selector::parse(count, self.model)),
        })
    }

    /// The percentile (0 to 1) in milliseconds, as far as a histogram's buckets tell: linear within the bucket that holds
    /// it, as Prometheus' `histogram_quantile`. `None` above the last bound.
    pub(super) fn percentile_ms(&self, timers: &[Timer], percentile: f64) -> Option<f64> {
        timers.iter().find_map(|timer| match *timer {
            Timer::Histogram { name, unit_ms } => {
                let buckets = self.buckets(Selector::parse(name, self.model).suffixed("_bucket"))?;
                quantile(&buckets, percentile).map(|value| value * unit_ms)
            }
            Timer::Counters { .. } => None,
        })
    }

    fn count_of(&self, sum: Sum) -> Option<f64> {
        sum.iter().map(|text| self.delta(Selector::parse(text, self.model))).sum()
    }

    fn delta(&self, selector: Selector) -> Option<f64> {
        let counted = self.to.total(selector)? - self.from.total(selector).unwrap_or(0.0);
        (counted >= 0.0).then_some(counted)
    }

    /// Upper bounds, rising, and how many were at most that large. Buckets of several label sets add up.
    fn buckets(&self, selector: Selector) -> Option<Vec<(f64, f64)>> {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for (snapshot, sign) in [(self.to, 1.0), (self.from, -1.0)] {
            for (series, value) in snapshot.series(selector) {
                let bound: f64 = series.label("le")?.parse().ok()?;
                match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                    Some((_, count)) => *count += sign * value,
                    None => buckets.push((bound, sign * value)),
                }
            }
        }
        buckets.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        Some(buckets)
    }
}

/// Of cumulative buckets.
fn quantile(buckets: &[(f64, f64)], percentile: f64) -> Option<f64> {
    let &(_, all) = buckets.last()?;
    let rank = percentile * all;
    let holding = buckets.iter().position(|&(_, count)| count >= rank && count > 0.0)?;
    let (upper, upper_count) = buckets[holding];
    let (lower, lower_count) = if holding == 0 { (0.0, 0.0) } else { buckets[holding - 1] };
    let inside = ratio(rank - lower_count, upper_count - lower_count)?;
    upper.is_finite().then_some(lower + (upper - lower) * inside)
}

fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then_some(part / whole)
}

impl<'a> Selector<'a> {
    fn parse(text: &'a str, model: &'a str) -> Self {
        let Some((name, label)) = text.split_once('{') else { return Self { name: text, suffix: "", label: None } };
        let label = label.trim_end_matches('}').split_once('=');
        Self { name, suffix: "", label: label.map(|(key, value)| (key, if value == "$model" { model } else { value })) }
    }

    fn suffixed(self, suffix: &'a str) -> Self {
        Self { suffix, ..self }
    }

    fn takes(&self, series: &Series) -> bool {
        let is_named = series.name.strip_prefix(self.name).is_some_and(|rest| rest == self.suffix);
        is_named && self.label.is_none_or(|(key, wanted)| series.label(key).is_none_or(|value| value == wanted))
    }
}

/// Every name that a family reads.
fn names_of(family: &Family) -> Vec<String> {
    let counted = [family.requests, family.prompt_tokens, family.generation_tokens];
    let sums = counted.into_iter().chain([family.running, family.waiting, family.work]).flatten().copied();
    let shares = family.kv_cache_usage.iter().chain(family.prefix_hits).flat_map(|share| [share.part, share.whole]);
    let name = |text: &str| Selector::parse(text, "").name.to_owned();
    let timers = family.ttft.iter().chain(family.queue).flat_map(|timer| match *timer {
        Timer::Histogram { name: text, .. } => {
            ["_sum", "_count", "_bucket"].map(|suffix| format!("{}{suffix}", name(text))).to_vec()
        }
        Timer::Counters { sum, count, .. } => vec![name(sum), name(count)],
    });
    sums.chain(shares).flatten().map(|text| name(text)).chain(timers).collect()
}
