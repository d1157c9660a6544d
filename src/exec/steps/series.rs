use super::{Job, Message};
use crate::event::Event;
use crate::exec::{StepError, publish};
use crate::plan::PlannedSeries;
use crate::report;
use crate::spec::Series;
use crate::stats::{Outcome, SearchState, SearchStep, SeriesState, UntilState, series_state};

/// A series on its way: what the run has of it so far.
pub(super) struct Way<'a> {
    job: &'a Job,
    series: &'a PlannedSeries,
    outcomes: Vec<Outcome>,
}

impl<'a> Way<'a> {
    /// The series of a load point, if it is of one, with the results that were there before.
    pub(super) fn of(job: &'a Job, number: usize) -> Result<Option<Self>, StepError> {
        let plan = &job.prepared.plan;
        let Some(series) = plan.points[number].series.map(|index| &plan.series[index]) else { return Ok(None) };
        let mut way = Self { job, series, outcomes: Vec::new() };
        for number in series.points.clone() {
            if publish::is_there(plan, &job.run, number) {
                way.add(number)?;
            }
        }
        Ok(Some(way))
    }

    /// The load point to be measured after this one. `None` at the series' end, and when this one says nothing of the
    /// server under its load, because it was interrupted or never sent.
    pub(super) fn after(&mut self, number: usize) -> Result<Option<usize>, StepError> {
        if !self.add(number)? {
            return Ok(None);
        }
        let state = series_state(&self.series.rule, &self.outcomes);
        let next = state.next().map(|place| self.series.points.start + place);
        if next.is_none() {
            self.tell_end(number, &state);
        }
        Ok(next)
    }

    /// Whether a search has ended with a load that keeps its bounds: then loads above it were meant to fail.
    pub(super) fn has_found(&self) -> bool {
        match series_state(&self.series.rule, &self.outcomes) {
            SeriesState::Search(SearchState { next: SearchStep::End(_), kept, .. }) => kept.is_some(),
            SeriesState::Search(_) | SeriesState::Until(_) => false,
        }
    }

    fn add(&mut self, number: usize) -> Result<bool, StepError> {
        let folder = publish::folder(&self.job.prepared.plan, &self.job.run, number);
        let outcome = report::read_point(&self.job.run.id, &folder)?.outcome();
        let added = outcome.is_some();
        self.outcomes.extend(outcome);
        Ok(added)
    }

    fn tell_end(&self, number: usize, state: &SeriesState) {
        let point = &self.job.prepared.plan.points[number];
        let cell = self.job.prepared.plan.cells[point.cell].id.clone();
        let phase = point.load.phase.clone();
        let event = match (self.series.rule.as_ref(), state) {
            (Series::Search(search), SeriesState::Search(state)) => {
                let SearchStep::End(end) = state.next else { return };
                let (of, tries, load_s) = (search.of, state.tries as u64, state.seconds);
                Event::SearchEnded { cell, phase, of, end, limit: state.kept, missed_at: state.missed, tries, load_s }
            }
            (_, SeriesState::Until(state)) => {
                let UntilState { rounds, half_width, enough, .. } = *state;
                let point = point.load.arrival.label();
                Event::RoundsEnded { cell, phase, point, rounds: rounds as u64, half_width, enough }
            }
            (Series::Until(_), SeriesState::Search(_)) => return,
        };
        self.job.tell(Message::Event(event));
    }
}
