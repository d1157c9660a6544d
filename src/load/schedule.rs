use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, Exp1, Gamma};

use crate::spec::{Arrival, RateStage, Spacing, Volume};

/// What is due when in an open loop: a pure function of the arrival, the number of warm-up requests and the seed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    /// Nanoseconds since the load began, rising; the first `warmup` of them are warm-up.
    pub(super) due_ns: Vec<u64>,
    pub(super) warmup: usize,
}

/// More are not planned ahead; a day at 1,000 requests a second fits.
const MOST: f64 = 1e8;

impl Schedule {
    /// `None` for a closed loop. `trace_ns` are moments that come with the workload, rising: those of a trace, or those
    /// that a method draws by its own rule.
    pub(super) fn of(
        arrival: &Arrival,
        volume: Volume,
        warmup: u64,
        seed: u64,
        trace_ns: Option<&[u64]>,
    ) -> Option<Self> {
        let gaps = Gaps { random: ChaCha8Rng::seed_from_u64(seed) };
        let warmup = usize::try_from(warmup).unwrap_or(usize::MAX);
        let due_ns = match arrival {
            Arrival::Closed { .. } | Arrival::ClosedStages { .. } => return None,
            Arrival::Open { .. } if trace_ns.is_some() => traced(trace_ns.unwrap_or_default(), 1.0, volume, warmup),
            Arrival::Open { spacing, rate, .. } => {
                let measured = match volume {
                    Volume::Requests(requests) => requests as f64,
                    Volume::DurationS(duration) => (rate * duration).round(),
                };
                let count = count(measured + warmup as f64);
                scaled(gaps.unit(*spacing, count), 0.0, count as f64 / rate)
            }
            Arrival::OpenStages { spacing, stages, .. } => staged(stages, *spacing, gaps),
            Arrival::Trace { speed, .. } => traced(trace_ns.unwrap_or_default(), *speed, volume, warmup),
        };
        Some(Self { warmup: warmup.min(due_ns.len()), due_ns })
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to what fits")]
fn count(requests: f64) -> usize {
    requests.clamp(0.0, MOST) as usize
}

struct Gaps {
    random: ChaCha8Rng,
}

impl Gaps {
    /// Moments between 0 and 1: `count` of them in all, the first of them at 0.
    ///
    /// The gaps are scaled so that all of them together fill the time, so the rate asked for is the rate planned. A
    /// Poisson process stays one: given their number, its moments are uniform.
    fn unit(mut self, spacing: Spacing, count: usize) -> Vec<f64> {
        let mut sum = 0.0;
        let mut moments = Vec::with_capacity(count);
        let gamma = match spacing {
            Spacing::Gamma(gamma) => Gamma::new(gamma.burstiness, 1.0 / gamma.burstiness).ok(),
            Spacing::Constant | Spacing::Poisson => None,
        };
        for _ in 0..count {
            moments.push(sum);
            sum += match (spacing, &gamma) {
                (Spacing::Constant, _) => 1.0,
                (Spacing::Gamma(_), Some(gamma)) => gamma.sample(&mut self.random),
                (Spacing::Poisson | Spacing::Gamma(_), _) => Exp1.sample(&mut self.random),
            };
        }
        if sum > 0.0 {
            for moment in &mut moments {
                *moment /= sum;
            }
        }
        moments
    }
}

fn scaled(moments: Vec<f64>, from_s: f64, length_s: f64) -> Vec<u64> {
    moments.into_iter().map(|moment| nanoseconds(from_s + moment * length_s)).collect()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no moment is negative or that far off")]
pub(super) fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

/// Evenly distributed moments are bent so that each falls where the area under the rate says.
fn staged(stages: &[RateStage], spacing: Spacing, gaps: Gaps) -> Vec<u64> {
    let area = |stage: &RateStage| f64::midpoint(stage.from, stage.to) * stage.duration_s;
    let total: f64 = stages.iter().map(area).sum();
    let moments = gaps.unit(spacing, count(total.round()));
    let (mut began_s, mut before, mut rest) = (0.0, 0.0, stages);
    let mut due_ns = Vec::with_capacity(moments.len());
    for moment in moments {
        let wanted = moment * total;
        while let [stage, later @ ..] = rest
            && !later.is_empty()
            && wanted >= before + area(stage)
        {
            before += area(stage);
            began_s += stage.duration_s;
            rest = later;
        }
        if let [stage, ..] = rest {
            due_ns.push(nanoseconds(began_s + time_of_area(stage, wanted - before)));
        }
    }
    due_ns
}

/// Seconds into the stage after which `area` requests were due: the root of from·t + (to - from)·t² / 2d = area.
fn time_of_area(stage: &RateStage, area: f64) -> f64 {
    let slope = (stage.to - stage.from) / stage.duration_s;
    let discriminant = (stage.from * stage.from + 2.0 * slope * area).max(0.0);
    let divisor = stage.from + discriminant.sqrt();
    if divisor > 0.0 { (2.0 * area / divisor).min(stage.duration_s) } else { 0.0 }
}

fn traced(trace_ns: &[u64], speed: f64, volume: Volume, warmup: usize) -> Vec<u64> {
    let due_ns = trace_ns.iter().map(|&ns| nanoseconds(ns as f64 / 1e9 / speed));
    match volume {
        Volume::Requests(requests) => {
            due_ns.take(usize::try_from(requests).unwrap_or(usize::MAX).saturating_add(warmup)).collect()
        }
        Volume::DurationS(duration) => due_ns.take_while(|&ns| ns as f64 / 1e9 < duration).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Gamma as Shape;

    fn open(spacing: Spacing, rate: f64, volume: Volume, seed: u64) -> Vec<u64> {
        let arrival = Arrival::Open { spacing, rate, max_concurrency: None };
        Schedule::of(&arrival, volume, 0, seed, None).unwrap().due_ns
    }

    /// Mean of the gaps in seconds, and their standard deviation over the mean.
    fn gaps(due_ns: &[u64]) -> (f64, f64) {
        let gaps: Vec<f64> = due_ns.array_windows().map(|[from, to]| (to - from) as f64 / 1e9).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean, variance.sqrt() / mean)
    }

    #[test]
    fn constant_gaps_are_equal() {
        assert_eq!(open(Spacing::Constant, 4.0, Volume::Requests(3), 0), [0, 250_000_000, 500_000_000]);
        assert_eq!(open(Spacing::Constant, 2.0, Volume::DurationS(1.5), 0).len(), 3);
    }

    #[test]
    fn random_gaps_have_the_rate_and_the_spread_asked_for() {
        for (spacing, spread) in [
            (Spacing::Poisson, 1.0),
            (Spacing::Gamma(Shape { burstiness: 0.25 }), 2.0),
            (Spacing::Gamma(Shape { burstiness: 4.0 }), 0.5),
        ] {
            let due_ns = open(spacing, 50.0, Volume::Requests(20_000), 7);
            let (mean, found) = gaps(&due_ns);
            assert!((mean * 50.0 - 1.0).abs() < 0.01, "{spacing:?}: a mean gap of {mean} s");
            assert!((found / spread - 1.0).abs() < 0.05, "{spacing:?}: a spread of {found}");
            assert!(due_ns.is_sorted());
        }
    }

    #[test]
    fn a_schedule_is_a_function_of_its_seed() {
        let with = |seed| open(Spacing::Poisson, 5.0, Volume::Requests(50), seed);
        assert_eq!(with(1), with(1));
        assert_ne!(with(1), with(2));
    }

    #[test]
    fn warm_up_comes_before_the_measured_requests() {
        let arrival = Arrival::Open { spacing: Spacing::Constant, rate: 10.0, max_concurrency: None };
        let schedule = Schedule::of(&arrival, Volume::Requests(20), 10, 0, None).unwrap();
        assert_eq!((schedule.due_ns.len(), schedule.warmup), (30, 10));
    }

    #[test]
    fn a_ramp_has_the_area_under_its_line() {
        let stages = vec![
            RateStage { from: 0.0, to: 10.0, duration_s: 10.0 },
            RateStage { from: 10.0, to: 10.0, duration_s: 5.0 },
            RateStage { from: 0.0, to: 0.0, duration_s: 5.0 },
            RateStage { from: 4.0, to: 2.0, duration_s: 2.0 },
        ];
        let arrival = Arrival::OpenStages { spacing: Spacing::Constant, stages, max_concurrency: None };
        let due_ns = Schedule::of(&arrival, Volume::DurationS(22.0), 0, 0, None).unwrap().due_ns;
        let between = |from: u64, to: u64| due_ns.iter().filter(|&&ns| (from..to).contains(&(ns / 1_000_000))).count();
        // 50, 50, 0 and 6 requests; half of the ramp's time has a quarter of its requests.
        assert_eq!(due_ns.len(), 106);
        assert_eq!((between(0, 5_000), between(5_000, 10_000)), (13, 37));
        assert_eq!((between(10_000, 15_000), between(15_001, 20_000), between(20_000, 22_001)), (50, 0, 6));
        assert!(due_ns.is_sorted());
    }

    #[test]
    fn a_trace_is_replayed_at_its_speed() {
        let of = |speed, volume| {
            let arrival = Arrival::Trace { speed, max_concurrency: None };
            Schedule::of(&arrival, volume, 0, 0, Some(&[0, 1_000, 3_000])).unwrap().due_ns
        };
        assert_eq!(of(2.0, Volume::DurationS(1.0)), [0, 500, 1_500]);
        assert_eq!(of(1.0, Volume::Requests(2)), [0, 1_000]);
        assert_eq!(of(1.0, Volume::DurationS(2e-6)), [0, 1_000]);
    }

    #[test]
    fn a_closed_loop_has_no_schedule() {
        assert_eq!(Schedule::of(&Arrival::Closed { concurrency: 1 }, Volume::Requests(1), 0, 0, None), None);
    }
}
