//! How many conversations a load point needs, and which of them share a prefix.

use rand::RngExt as _;

use super::draw::Purpose;
use crate::spec::{Arrival, LoadPoint, RateStage, SharedPrefix, Volume};

/// More prompts than this are used again from the first: they are held in memory.
pub(super) const MOST_PROMPTS: u64 = 200_000;
/// Prompts for a load point that ends by time, where nothing says how many it will send; used again from the first when
/// they run out.
const PROMPTS_BY_TIME: u64 = 2048;

/// Which conversations begin with which shared prefix.
pub(super) struct Groups<'p> {
    prefix: Option<&'p SharedPrefix>,
    seed: u64,
    conversations: u64,
}

impl<'p> Groups<'p> {
    pub(super) fn new(prefix: Option<&'p SharedPrefix>, seed: u64) -> Self {
        Self { prefix, seed, conversations: 0 }
    }

    /// Spread evenly, so that any number of conversations has the stated share.
    pub(super) fn next(&mut self) -> Option<usize> {
        let prefix = self.prefix?;
        let before = (self.conversations as f64 * prefix.share).floor();
        self.conversations += 1;
        let shares = (self.conversations as f64 * prefix.share).floor() > before;
        let mut random = Purpose::Prefix.generator(self.seed, self.conversations, 0);
        shares.then(|| random.random_range(0..prefix.groups.max(1)) as usize)
    }
}

/// How many conversations are still to be made.
pub(super) struct Quota {
    /// Of the warm-up and of the measurement, each of which begins with a conversation of its own.
    left: [u64; 2],
    /// In open loop conversations are counted, each of which is due at its moment; in a closed loop requests.
    open_loop: bool,
    prompts: u64,
}

impl Quota {
    pub(super) fn of(point: &LoadPoint) -> Self {
        let left = [point.warmup_requests, measured_requests(point)];
        Self { left, open_loop: point.arrival.is_open_loop(), prompts: 0 }
    }

    pub(super) fn is_open(&self) -> bool {
        self.left != [0, 0] && self.prompts < MOST_PROMPTS
    }

    pub(super) fn take(&mut self, turns: u64) {
        if let Some(left) = self.left.iter_mut().find(|left| **left > 0) {
            *left = left.saturating_sub(if self.open_loop { 1 } else { turns });
        }
        self.prompts += turns;
    }
}

/// The measured requests of the load point, as far as they are known before.
pub(super) fn measured_requests(point: &LoadPoint) -> u64 {
    let requests = match (point.volume, &point.arrival) {
        (Volume::Requests(requests), _) => requests,
        (Volume::DurationS(seconds), Arrival::Open { rate, .. }) => more_than(rate * seconds),
        (Volume::DurationS(_), Arrival::OpenStages { stages, .. }) => {
            let mean = |stage: &RateStage| stage.duration_s * f64::midpoint(stage.from, stage.to);
            more_than(stages.iter().map(mean).sum())
        }
        (Volume::DurationS(_), Arrival::Closed { .. } | Arrival::ClosedStages { .. } | Arrival::Trace { .. }) => {
            PROMPTS_BY_TIME.max(u64::from(point.arrival.concurrency().unwrap_or_default()) * 4)
        }
    };
    requests.max(1)
}

/// Random arrivals may be more than their mean.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
fn more_than(mean: f64) -> u64 {
    (mean * 1.1 + 64.0) as u64
}
