use std::collections::{BTreeMap, BTreeSet};

use crate::plan::Plan;

/// Which steps can run next: a step is ready when all of its inputs that had work are done.
#[derive(Debug)]
pub(super) struct State {
    /// Steps that wait, with the number of inputs still to be done.
    waiting: BTreeMap<usize, usize>,
    ready: BTreeSet<usize>,
    /// Input to the steps that read it.
    readers: BTreeMap<usize, Vec<usize>>,
}

impl State {
    pub(super) fn new(plan: &Plan) -> Self {
        let has_work = |index: &usize| plan.steps[*index].state.has_work();
        let work = (0..plan.steps.len()).filter(has_work);
        Self::of(work.map(|index| (index, plan.steps[index].inputs.iter().copied().filter(has_work).collect())))
    }

    /// From the steps that have work, each with those of its inputs that have.
    fn of(work: impl Iterator<Item = (usize, Vec<usize>)>) -> Self {
        let mut state = Self { waiting: BTreeMap::new(), ready: BTreeSet::new(), readers: BTreeMap::new() };
        for (index, inputs) in work {
            if inputs.is_empty() {
                state.ready.insert(index);
            } else {
                state.waiting.insert(index, inputs.len());
            }
            for input in inputs {
                state.readers.entry(input).or_default().push(index);
            }
        }
        state
    }

    /// The next step to start: in the order of the plan.
    pub(super) fn next_ready(&mut self) -> Option<usize> {
        self.ready.pop_first()
    }

    /// A step is done: its readers may be ready.
    pub(super) fn done(&mut self, index: usize) {
        for reader in self.readers.remove(&index).unwrap_or_default() {
            let Some(count) = self.waiting.get_mut(&reader) else { continue };
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&reader);
                self.ready.insert(reader);
            }
        }
    }

    /// A step failed: all that read it, directly or not, cannot run. Gives them in the order of the plan.
    pub(super) fn failed(&mut self, index: usize) -> Vec<usize> {
        let mut lost = BTreeSet::new();
        let mut reached = vec![index];
        while let Some(step) = reached.pop() {
            for reader in self.readers.remove(&step).unwrap_or_default() {
                if self.waiting.remove(&reader).is_some() {
                    lost.insert(reader);
                    reached.push(reader);
                }
            }
        }
        lost.into_iter().collect()
    }

    /// Nothing new starts. Gives the steps that never will, in the order of the plan.
    pub(super) fn stop(&mut self) -> Vec<usize> {
        let mut left: BTreeSet<usize> = std::mem::take(&mut self.ready);
        left.extend(std::mem::take(&mut self.waiting).into_keys());
        left.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two checkpoints of one model; the first is built twice, the second once, and each build is served.
    fn state() -> State {
        let inputs: [&[usize]; 9] = [&[], &[0], &[1], &[0, 2], &[1], &[0, 4], &[0], &[6], &[0, 7]];
        State::of(inputs.into_iter().map(<[usize]>::to_vec).enumerate())
    }

    fn all_ready(state: &mut State) -> Vec<usize> {
        std::iter::from_fn(|| state.next_ready()).collect()
    }

    #[test]
    fn steps_are_ready_once_their_inputs_are_done() {
        let mut state = state();
        assert_eq!(all_ready(&mut state), [0]);
        state.done(0);
        assert_eq!(all_ready(&mut state), [1, 6]);
        state.done(1);
        assert_eq!(all_ready(&mut state), [2, 4]);
        state.done(4);
        state.done(6);
        assert_eq!(all_ready(&mut state), [5, 7]);
    }

    #[test]
    fn a_failure_takes_what_reads_it_and_nothing_else() {
        let mut state = state();
        assert_eq!(all_ready(&mut state), [0]);
        state.done(0);
        assert_eq!(all_ready(&mut state), [1, 6]);
        assert_eq!(state.failed(1), [2, 3, 4, 5]);
        assert!(state.failed(1).is_empty(), "once is enough");
        state.done(6);
        assert_eq!(all_ready(&mut state), [7]);
        state.done(7);
        assert_eq!(all_ready(&mut state), [8], "its neighbour goes on");
    }

    #[test]
    fn a_step_that_two_failures_reach_is_lost_once() {
        let mut state = State::of([(0, vec![]), (1, vec![]), (2, vec![0, 1])].into_iter());
        assert_eq!(state.failed(0), [2]);
        assert!(state.failed(1).is_empty());
        assert_eq!(all_ready(&mut state), [0, 1]);
    }

    #[test]
    fn an_input_that_is_read_in_two_roles_counts_as_done_in_both() {
        let mut state = State::of([(0, vec![]), (1, vec![0, 0])].into_iter());
        state.done(0);
        assert_eq!(all_ready(&mut state), [0, 1]);
    }

    #[test]
    fn after_a_stop_nothing_starts() {
        let mut state = state();
        assert_eq!(state.next_ready(), Some(0));
        assert_eq!(state.stop(), [1, 2, 3, 4, 5, 6, 7, 8]);
        state.done(0);
        assert_eq!(state.next_ready(), None);
    }
}
