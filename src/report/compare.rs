use crate::base::RunId;
use crate::report::{Rounds, Row, rounds};
use crate::stats::{Interval, Samples, Verdict, Wanted, percentile_difference};

/// Two runs beside each other.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub base: RunId,
    pub new: RunId,
    /// What a reader should know before the figures.
    pub notes: Vec<String>,
    /// In the order of the new run.
    pub points: Vec<ComparedPoint>,
}

/// One load point of both runs.
#[derive(Clone, Debug)]
pub struct ComparedPoint {
    pub cell: String,
    pub phase: String,
    pub load_point: String,
    /// Rounds that were measured well, in the base run and in the new one.
    pub rounds: (usize, usize),
    pub figures: Vec<ComparedFigure>,
}

/// One figure of both runs; of several rounds, its mean.
#[derive(Clone, Debug)]
pub struct ComparedFigure {
    /// The column of the results.
    pub column: &'static str,
    pub base: f64,
    pub new: f64,
    /// new - base with its 95 % interval: Welch's over the rounds of both, or a bootstrap over the requests where one of
    /// them has a single round.
    pub difference: Option<Interval>,
    pub verdict: Verdict,
}

/// The requests' values that a percentile is taken of.
type OfSamples = fn(&Samples) -> &[f64];

/// A compared column: which way it is wanted, and the requests' values that it is a percentile of.
struct Compared {
    column: &'static str,
    wanted: Wanted,
    percentile: Option<(OfSamples, f64)>,
}

const fn rate(column: &'static str) -> Compared {
    Compared { column, wanted: Wanted::More, percentile: None }
}

const fn latency(column: &'static str, values: fn(&Samples) -> &[f64], percent: f64) -> Compared {
    Compared { column, wanted: Wanted::Less, percentile: Some((values, percent)) }
}

const COMPARED: [Compared; 10] = [
    rate("output_tokens_per_s"),
    rate("requests_per_s"),
    rate("goodput_requests_per_s"),
    latency("ttft_ms_p50", |it| &it.ttft_ms, 50.0),
    latency("ttft_ms_p99", |it| &it.ttft_ms, 99.0),
    latency("tpot_ms_p50", |it| &it.tpot_ms, 50.0),
    latency("tpot_ms_p99", |it| &it.tpot_ms, 99.0),
    Compared { column: "itl_ms_p99", wanted: Wanted::Less, percentile: None },
    latency("e2e_ms_p50", |it| &it.e2e_ms, 50.0),
    latency("e2e_ms_p99", |it| &it.e2e_ms, 99.0),
];

/// Rows with the values of their single requests, as [`crate::report::read_run_with_samples`] gives them.
pub type SampledRows = [(Row, Samples)];

/// Compares the load points that both runs measured: those with the same values of all axes, phase and load.
#[must_use]
pub fn compare((base, base_rows): (&RunId, &SampledRows), (new, new_rows): (&RunId, &SampledRows)) -> Comparison {
    let base_points = rounds(base_rows.iter().map(|(row, _)| row));
    let new_points = rounds(new_rows.iter().map(|(row, _)| row));
    let mut comparison = Comparison { base: base.clone(), new: new.clone(), notes: Vec::new(), points: Vec::new() };
    let mut pairs = Vec::new();
    for point in &new_points {
        match base_points.iter().find(|base| is_same_load(base, point)) {
            Some(base) => pairs.push((base, point)),
            None => comparison.notes.push(format!("only in {new}: {}", name(point))),
        }
    }
    for point in base_points.iter().filter(|point| !new_points.iter().any(|new| is_same_load(point, new))) {
        comparison.notes.push(format!("only in {base}: {}", name(point)));
    }
    for (base, new) in pairs {
        comparison.notes.extend(notes_of(base, new));
        let figures = COMPARED.iter().filter_map(|compared| figure(compared, base, new, base_rows, new_rows)).collect();
        comparison.points.push(ComparedPoint {
            cell: new.point().cell.to_string(),
            phase: new.point().phase.clone(),
            load_point: load_of(new),
            rounds: (base.ok().count(), new.ok().count()),
            figures,
        });
    }
    comparison
}

impl Comparison {
    /// Whether any figure got worse beyond chance.
    #[must_use]
    pub fn shows_worse(&self) -> bool {
        self.figures().any(|(_, figure)| figure.verdict == Verdict::Worse)
    }

    pub(super) fn figures(&self) -> impl Iterator<Item = (&ComparedPoint, &ComparedFigure)> {
        self.points.iter().flat_map(|point| point.figures.iter().map(move |figure| (point, figure)))
    }
}

impl ComparedFigure {
    /// The difference and its interval in percent of the base.
    pub(super) fn percent(&self) -> Option<Interval> {
        let it = self.difference.filter(|_| self.base > 0.0)?;
        let of_base = |value: f64| value / self.base * 100.0;
        Some(Interval { mean: of_base(it.mean), low: of_base(it.low), high: of_base(it.high) })
    }
}

fn is_same_load(base: &Rounds<'_>, new: &Rounds<'_>) -> bool {
    let (base, new) = (base.point(), new.point());
    base.axes == new.axes
        && base.phase == new.phase
        && base.arrival == new.arrival
        && base.concurrency == new.concurrency
        && base.request_rate == new.request_rate
        && base.load_point == new.load_point
}

/// What makes the rows of this load point less comparable than they look.
fn notes_of(base: &Rounds<'_>, new: &Rounds<'_>) -> Vec<String> {
    let name = name(new);
    let mut notes = Vec::new();
    let workloads = |it: &Rounds<'_>| it.ok().filter_map(|row| row.point.workload.clone()).collect::<Vec<_>>();
    let (base_workloads, new_workloads) = (workloads(base), workloads(new));
    if base_workloads.iter().zip(&new_workloads).any(|(base, new)| base != new) {
        notes.push(format!("{name}: the servers were not asked the same (the workloads differ)"));
    }
    if base.point().protocol != new.point().protocol {
        notes.push(format!("{name}: over {} before, now over {}", base.point().protocol, new.point().protocol));
    }
    if base.point().slo != new.point().slo {
        notes.push(format!("{name}: goodput counts by other bounds"));
    }
    let limited = |it: &Rounds<'_>| it.ok().any(|row| row.value("client_verdict") == "client_limited");
    if limited(base) || limited(new) {
        notes.push(format!("{name}: the client was the limit, so the server may differ more or less than shown"));
    }
    notes
}

fn figure(
    compared: &Compared,
    base: &Rounds<'_>,
    new: &Rounds<'_>,
    base_rows: &SampledRows,
    new_rows: &SampledRows,
) -> Option<ComparedFigure> {
    let (base_mean, new_mean) = (base.figure(compared.column)?.mean, new.figure(compared.column)?.mean);
    let welch = Interval::of_difference(&base.numbers(compared.column), &new.numbers(compared.column));
    let difference = welch.or_else(|| {
        let (values, percent) = compared.percentile?;
        let (base, new) = (only_samples(base, base_rows)?, only_samples(new, new_rows)?);
        percentile_difference(values(base), values(new), percent)
    });
    let verdict = Verdict::of(difference, compared.wanted);
    Some(ComparedFigure { column: compared.column, base: base_mean, new: new_mean, difference, verdict })
}

/// The requests of a load point of one good round.
fn only_samples<'a>(point: &Rounds<'_>, rows: &'a SampledRows) -> Option<&'a Samples> {
    let mut ok = point.ok();
    let (Some(only), None) = (ok.next(), ok.next()) else { return None };
    rows.iter().find(|(row, _)| row.point.order == only.point.order).map(|(_, samples)| samples)
}

fn name(point: &Rounds<'_>) -> String {
    format!("{} {} {}", point.point().cell, point.point().phase, load_of(point))
}

/// Records of an earlier benchrun have no name of the load point.
fn load_of(point: &Rounds<'_>) -> String {
    let point = point.point();
    match (point.load_point.as_str(), point.concurrency) {
        ("", Some(concurrency)) => format!("c{concurrency}"),
        (load_point, _) => load_point.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{PointRecord, PointStatus, RequestRecord};
    use crate::report::{comparison_csv, comparison_json, comparison_text, table::Color};
    use crate::stats::Summarizer;
    use crate::stats::fixture::{point, streamed};

    fn id(name: &str) -> RunId {
        RunId::new(name.to_owned())
    }

    /// A round of 200 requests, one after the other, that take some 100 ms, all longer by `slower`.
    fn round(number: u32, slower: f64) -> (Row, Samples) {
        let mut summarizer = Summarizer::default();
        for index in 0..200_u64 {
            let wobble = (index * 7 + u64::from(number) * 3) % 20;
            let stretch = |ms: u64| {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some 100 ms")]
                let ms = ((ms + wobble) as f64 * slower) as u64;
                index * 500 + ms
            };
            let record: RequestRecord = streamed(index * 500, &[stretch(50), stretch(100)], 11);
            summarizer.add(&record);
        }
        let point =
            PointRecord { round: number, order: u64::from(number), workload: Some("same".to_owned()), ..point() };
        let samples = summarizer.samples();
        let summary = Some(summarizer.finish(&point));
        (Row { run: id("run"), point, summary, note: None }, samples)
    }

    fn verdicts(comparison: &Comparison) -> Vec<(&'static str, Verdict)> {
        comparison.figures().map(|(_, figure)| (figure.column, figure.verdict)).collect()
    }

    fn verdict(comparison: &Comparison, column: &str) -> Verdict {
        verdicts(comparison).into_iter().find(|(name, _)| *name == column).unwrap().1
    }

    #[test]
    fn one_round_is_compared_by_its_requests() {
        let (base, slower) = ([round(1, 1.0)], [round(1, 1.3)]);
        let comparison = compare((&id("a"), &base), (&id("b"), &slower));
        assert_eq!(verdict(&comparison, "ttft_ms_p50"), Verdict::Worse);
        assert_eq!(verdict(&comparison, "e2e_ms_p99"), Verdict::Worse);
        assert_eq!(verdict(&comparison, "output_tokens_per_s"), Verdict::OneRound);
        assert!(comparison.shows_worse());
        let reverse = compare((&id("b"), &slower), (&id("a"), &base));
        assert_eq!(verdict(&reverse, "ttft_ms_p50"), Verdict::Better);
        assert!(!reverse.shows_worse());
        let same = compare((&id("a"), &base), (&id("a"), &base));
        assert_eq!(verdict(&same, "ttft_ms_p50"), Verdict::NotShown);
        assert!(same.notes.is_empty(), "{:?}", same.notes);
    }

    #[test]
    fn rounds_are_compared_by_their_spread() {
        let base: Vec<_> = (1..=3).map(|number| round(number, 1.0)).collect();
        let noisy: Vec<_> =
            [0.8, 1.0, 1.3].into_iter().zip(1..).map(|(slower, number)| round(number, slower)).collect();
        let comparison = compare((&id("a"), &base), (&id("b"), &noisy));
        assert_eq!(comparison.points[0].rounds, (3, 3));
        assert_eq!(verdict(&comparison, "e2e_ms_p50"), Verdict::NotShown, "its requests alone would show one");
        let slower: Vec<_> = (1..=3).map(|number| round(number, 1.3)).collect();
        let comparison = compare((&id("a"), &base), (&id("b"), &slower));
        assert_eq!(verdict(&comparison, "e2e_ms_p50"), Verdict::Worse);
        let change = comparison.figures().find(|(_, it)| it.column == "e2e_ms_p50").unwrap().1.percent().unwrap();
        assert!(change.low > 25.0 && change.high < 35.0, "{change:?}");
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let (base, mut new) = ([round(1, 1.0)], [round(1, 1.0), round(2, 1.0), round(3, 1.0)]);
        new[0].0.point.workload = Some("another".to_owned());
        new[1].0.point.phase = "other".to_owned();
        new[2].0.point.status = PointStatus::Failed;
        let comparison = compare((&id("a"), &base), (&id("b"), &new));
        assert_eq!(
            comparison.notes,
            [
                "only in b: tiny/fp32/bs1 other c4",
                "tiny/fp32/bs1 chat c4: the servers were not asked the same (the workloads differ)"
            ]
        );
        assert_eq!(comparison.points[0].rounds, (1, 1));
    }

    #[test]
    fn every_format_is_what_it_was() {
        let (base, slower) = ([round(1, 1.0)], [round(1, 1.3)]);
        let mut comparison = compare((&id("a"), &base), (&id("b"), &slower));
        comparison.notes.push("the hosts differ: cores 2 and 4".to_owned());
        insta::assert_snapshot!("compare_text", comparison_text(&comparison, Color::Never));
        let mut csv = Vec::new();
        comparison_csv(&comparison, &mut csv).unwrap();
        insta::assert_snapshot!("compare_csv", String::from_utf8(csv).unwrap());
        let json = comparison_json(&comparison);
        assert_eq!(json["points"][0]["figures"]["ttft_ms_p50"]["verdict"], "worse");
        assert_eq!(json["points"][0]["figures"]["output_tokens_per_s"]["ci95_low"], serde_json::Value::Null);
    }
}
