use super::LoadJob;
use super::job::Conversations;
use super::schedule::{Schedule, nanoseconds};
use crate::spec::{Arrival, LoadPoint, RateStage, Volume};
use crate::workload::Workload;

/// The hardest part of a load point, as a load point of its own that ends with it.
///
/// Of an open loop: the `window_s` seconds of its schedule with the most requests due, of several such the last, which
/// has the most before it. What is due in the `lead_s` seconds before comes first, as warm-up, so that the window begins
/// with requests under way. Of a closed loop: its first `window_s` seconds, at the highest concurrency of its stages,
/// since all of it is as hard.
#[must_use]
pub fn busiest(load: LoadJob, window_s: f64, lead_s: f64) -> LoadJob {
    let LoadJob { point, workload, .. } = &load;
    let trace_ns = workload.due_ns.as_deref();
    let schedule =
        Schedule::of(&point.arrival, point.volume, point.warmup_requests, point.own_arrival_seed(), trace_ns);
    let point = LoadPoint {
        arrival: at_its_hardest(&point.arrival),
        warmup_requests: 0,
        point_timeout_s: window_s,
        ..point.clone()
    };
    let Some(part) = schedule.and_then(|schedule| Part::busiest_of(&schedule.due_ns, window_s, lead_s)) else {
        return LoadJob { point, ..load };
    };
    let point = LoadPoint {
        warmup_requests: part.lead as u64,
        volume: Volume::Requests((part.due_ns.len() - part.lead) as u64),
        drain_s: None,
        point_timeout_s: part.length_s,
        ..point
    };
    let workload = from_conversation(part.first, part.due_ns, workload);
    LoadJob { point, workload, ..load }
}

/// Without what makes it easier for a time. The moments of an open loop come with the workload.
fn at_its_hardest(arrival: &Arrival) -> Arrival {
    let peak = |stages: &[RateStage]| stages.iter().map(|stage| stage.from.max(stage.to)).fold(0.0, f64::max);
    match arrival {
        Arrival::Closed { .. } | Arrival::Open { .. } => arrival.clone(),
        Arrival::ClosedStages { .. } => Arrival::Closed { concurrency: arrival.concurrency().unwrap_or(1) },
        Arrival::OpenStages { spacing, stages, max_concurrency } => {
            Arrival::Open { spacing: *spacing, rate: peak(stages), max_concurrency: *max_concurrency }
        }
        Arrival::Trace { max_concurrency, .. } => Arrival::Trace { speed: 1.0, max_concurrency: *max_concurrency },
    }
}

/// A part of a schedule.
#[derive(Debug, PartialEq)]
struct Part {
    /// Which request of the schedule is its first.
    first: usize,
    /// Since its first request was due.
    due_ns: Vec<u64>,
    /// So many of them are due before the window.
    lead: usize,
    /// Until the end of the window.
    length_s: f64,
}

impl Part {
    /// `None` of an empty schedule.
    fn busiest_of(due_ns: &[u64], window_s: f64, lead_s: f64) -> Option<Self> {
        let (window_ns, lead_ns) = (nanoseconds(window_s), nanoseconds(lead_s));
        let due_before = |ns: u64| due_ns.partition_point(|due| *due < ns);
        let end_of = |begin: usize| due_before(due_ns[begin].saturating_add(window_ns));
        let begin = (0..due_ns.len()).max_by_key(|&begin| end_of(begin) - begin)?;
        let first = due_before(due_ns[begin].saturating_sub(lead_ns));
        let zero_ns = due_ns[first];
        Some(Self {
            first,
            due_ns: due_ns[first..end_of(begin)].iter().map(|due| due - zero_ns).collect(),
            lead: begin - first,
            length_s: (due_ns[begin] - zero_ns) as f64 / 1e9 + window_s,
        })
    }
}

/// The workload from its conversation number `first` on, one for each of `due_ns`.
fn from_conversation(first: usize, due_ns: Vec<u64>, workload: &Workload) -> Workload {
    let conversations = Conversations::new(workload.prompts.clone());
    let numbers = (first as u64..).take(due_ns.len().min(workload.prompts.len()));
    let turns = numbers.flat_map(|number| conversations.turns(number));
    let prompts = turns.map(|turn| workload.prompts[turn].clone()).collect();
    Workload { prompts, due_ns: Some(due_ns.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spacing;

    const S: u64 = 1_000_000_000;

    fn of(due_s: &[u64], window_s: f64, lead_s: f64) -> (usize, Vec<u64>, usize, f64) {
        let due_ns: Vec<u64> = due_s.iter().map(|due| due * S).collect();
        let part = Part::busiest_of(&due_ns, window_s, lead_s).unwrap();
        (part.first, part.due_ns.iter().map(|due| due / S).collect(), part.lead, part.length_s)
    }

    #[test]
    fn the_burst_at_the_end_of_a_trace_is_its_busiest_part() {
        let trace = [0, 10, 20, 27, 30, 31, 31, 32];
        assert_eq!(of(&trace, 5.0, 0.0), (4, vec![0, 1, 1, 2], 0, 5.0));
        assert_eq!(of(&trace, 5.0, 3.5), (3, vec![0, 3, 4, 4, 5], 1, 8.0), "and what was due before is under way");
        assert_eq!(of(&trace[..1], 5.0, 9.0), (0, vec![0], 0, 5.0));
        assert_eq!(Part::busiest_of(&[], 5.0, 1.0), None);
    }

    #[test]
    fn of_equal_windows_the_last_is_taken_since_it_has_most_before_it() {
        assert_eq!(of(&[0, 1, 2, 3, 4, 5], 2.0, 3.0), (1, vec![0, 1, 2, 3, 4], 3, 5.0));
    }

    #[test]
    fn the_end_of_a_ramp_is_its_busiest_part() {
        let stages = vec![RateStage { from: 0.0, to: 10.0, duration_s: 20.0 }];
        let arrival = Arrival::OpenStages { spacing: Spacing::Constant, stages, max_concurrency: None };
        let due_ns = Schedule::of(&arrival, Volume::DurationS(20.0), 0, 0, None).unwrap().due_ns;
        let part = Part::busiest_of(&due_ns, 5.0, 1.0).unwrap();
        // 100 requests in all, those of the first 15 s are 56; the last but one second before has 8.
        assert_eq!(part.first + part.due_ns.len(), 100);
        assert!((43..=45).contains(&(part.due_ns.len() - part.lead)), "{part:?}");
        assert!((6..=8).contains(&part.lead), "{part:?}");
        assert_eq!(at_its_hardest(&arrival).rate(), Some(10.0));
    }
}
