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
        let mut state = Self { waiting: BTreeMap::new(), ready: BTreeSet::new(), readers: BTreeMap::new() };
        for (index, step) in plan.steps.iter().enumerate().filter(|(_, step)| step.state.has_work()) {
            let inputs = step.inputs.iter().filter(|&&input| plan.steps[input].state.has_work());
            let mut count = 0;
            for &input in inputs {
                state.readers.entry(input).or_default().push(index);
                count += 1;
            }
            if count == 0 {
                state.ready.insert(index);
            } else {
                state.waiting.insert(index, count);
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
