use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::connection::Route;
use super::exchange::Clock;
use super::request::Requests;
use super::signs::Signs;
use crate::record::RequestKind;
use crate::spec::LoadPoint;
use crate::workload::Prompt;

/// What everybody who sends shares and nobody changes.
pub(super) struct Job {
    pub(super) route: Route,
    pub(super) requests: Requests,
    pub(super) model: String,
    pub(super) point: LoadPoint,
    pub(super) conversations: Conversations,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    /// Numbers requests in the order of sending.
    pub(super) next_request: AtomicU64,
    pub(super) signs: Signs,
    /// Ends all requests at once.
    pub(super) stop: CancellationToken,
    /// Nothing is sent any more but later turns of conversations under way.
    pub(super) all_sent: CancellationToken,
}

/// Time limits of one request.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) request: Duration,
    /// Without a byte, once an answer has begun.
    pub(super) idle: Option<Duration>,
}

/// A workload's turns as conversations, used in order and again from the first after the last.
pub(super) struct Conversations {
    prompts: Arc<[Prompt]>,
    /// Where each begins; `None` if every turn is one.
    starts: Option<Vec<usize>>,
}

impl Conversations {
    pub(super) fn new(prompts: Arc<[Prompt]>) -> Self {
        let several_turns = prompts.iter().any(|prompt| prompt.turn > 0);
        let starts = several_turns.then(|| (0..prompts.len()).filter(|&at| at == 0 || prompts[at].turn == 0).collect());
        Self { prompts, starts }
    }

    pub(super) fn prompts(&self) -> &Arc<[Prompt]> {
        &self.prompts
    }

    pub(super) fn have_turns(&self) -> bool {
        self.starts.is_some()
    }

    /// The turns of the n-th conversation of a load point.
    pub(super) fn turns(&self, number: u64) -> Range<usize> {
        match &self.starts {
            None => {
                let at = remainder(number, self.prompts.len());
                at..at + 1
            }
            Some(starts) => {
                let at = remainder(number, starts.len());
                starts[at]..starts.get(at + 1).copied().unwrap_or(self.prompts.len())
            }
        }
    }

    /// The fewest conversations from the n-th on that have `requests` turns.
    pub(super) fn that_have(&self, from: u64, requests: u64) -> u64 {
        if self.starts.is_none() {
            return requests;
        }
        let mut turns = 0;
        let mut conversations = 0;
        while turns < requests {
            turns += self.turns(from + conversations).len() as u64;
            conversations += 1;
        }
        conversations
    }
}

fn remainder(number: u64, length: usize) -> usize {
    usize::try_from(number % length as u64).expect("it is less than a length")
}

/// One half of a load point, warm-up or measurement, in a closed loop: which conversations are left.
pub(super) struct Part {
    pub(super) kind: RequestKind,
    pub(super) began_ns: u64,
    /// The number of the next conversation: of all workers, or of each, who then has rounds of its own.
    next: Vec<AtomicU64>,
    pub(super) limit: Limit,
}

pub(super) enum Limit {
    /// Conversations below this number.
    Conversations(u64),
    /// None from this time on.
    Until { ns: u64 },
}

impl Limit {
    /// How many conversations there are before it, where that is known.
    pub(super) fn conversations(&self) -> u64 {
        match self {
            Self::Conversations(limit) => *limit,
            Self::Until { .. } => 0,
        }
    }
}

impl Part {
    /// Conversations from number `from`, which the workers take turns in; in rounds each has its own of every
    /// `workers`, however fast the others are.
    pub(super) fn new(kind: RequestKind, began_ns: u64, from: u64, rounds_of: Option<u32>, limit: Limit) -> Self {
        let counters = u64::from(rounds_of.unwrap_or(1));
        Self { kind, began_ns, next: (from..from + counters).map(AtomicU64::new).collect(), limit }
    }

    pub(super) fn is_over(&self, worker: u32, clock: Clock) -> bool {
        match self.limit {
            Limit::Conversations(limit) => self.next_of(worker).load(Ordering::Relaxed) >= limit,
            Limit::Until { ns } => clock.now_ns() >= ns,
        }
    }

    /// The number of the next conversation.
    pub(super) fn take(&self, worker: u32, clock: Clock) -> Option<u64> {
        if self.is_over(worker, clock) {
            return None;
        }
        let number = self.next_of(worker).fetch_add(self.next.len() as u64, Ordering::Relaxed);
        // Others may have taken the last ones since.
        match self.limit {
            Limit::Conversations(limit) => (number < limit).then_some(number),
            Limit::Until { .. } => Some(number),
        }
    }

    /// Whether no worker has any left.
    pub(super) fn is_over_for_all(&self, clock: Clock) -> bool {
        (0..).take(self.next.len()).all(|worker| self.is_over(worker, clock))
    }

    fn next_of(&self, worker: u32) -> &AtomicU64 {
        &self.next[worker as usize % self.next.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversations(turns: &[u32]) -> Conversations {
        let prompt = |&turn: &u32| Prompt { turn, ..Prompt::of_text(String::new(), None) };
        Conversations::new(turns.iter().map(prompt).collect())
    }

    #[test]
    fn turns_are_used_in_order_and_again() {
        let single = conversations(&[0, 0]);
        assert_eq!((single.turns(0), single.turns(3), single.that_have(0, 5)), (0..1, 1..2, 5));
        assert!(!single.have_turns());
        let several = conversations(&[0, 1, 2, 0, 0, 1]);
        assert_eq!([0, 1, 2, 3].map(|number| several.turns(number)), [0..3, 3..4, 4..6, 0..3]);
        assert_eq!((several.that_have(0, 3), several.that_have(0, 4), several.that_have(1, 4)), (1, 2, 3));
        assert!(several.have_turns());
    }

    #[test]
    fn workers_share_what_is_left_or_have_rounds_of_their_own() {
        let clock = Clock::start();
        let part = |rounds_of| Part::new(RequestKind::Measure, 0, 4, rounds_of, Limit::Conversations(8));
        let taken = |part: &Part, workers: &[u32]| -> Vec<Option<u64>> {
            workers.iter().map(|&worker| part.take(worker, clock)).collect()
        };
        assert_eq!(taken(&part(None), &[1, 1, 1, 0, 0]), [Some(4), Some(5), Some(6), Some(7), None]);
        assert_eq!(taken(&part(Some(2)), &[1, 1, 1, 0, 0]), [Some(5), Some(7), None, Some(4), Some(6)]);
    }
}
