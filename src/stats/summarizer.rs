use crate::record::{PointRecord, RequestKind, RequestRecord, RequestStatus};
use crate::stats::counts::{InputComparison, OutputComparison};
use crate::stats::goodput::keeps;
use crate::stats::percentile::mean;
use crate::stats::pool::Pool;
use crate::stats::repeats::SentPrompts;
use crate::stats::server_said::AllSaid;
use crate::stats::timing::Timing;
use crate::stats::{
    ClientLimit, ClientVerdict, Distribution, Goodput, Latency, OutputTokensSource, Rates, Reported, Requests, Steady,
    Summary, Trust, Volume, percentile,
};

/// A request that was sent more than this after it was due was late: ten times what an unhindered one takes.
const LATE_NS: u64 = 1_000_000;

/// Collects what a [`Summary`] needs of each request: the times of the good ones, no texts.
///
/// It holds 80 bytes for each good request, 24 more where the server tells its own times, the numbers of the prompts, and at
/// most 8 MiB for all gaps between chunks.
#[derive(Debug, Default)]
pub struct Summarizer {
    last_end_ns: u64,
    requests: Requests,
    late: u64,
    held: u64,
    all_sent_ns: Option<Span>,
    window_ns: Option<Span>,
    input_tokens: Total,
    output_tokens: Total,
    source: Option<OutputTokensSource>,
    timings: Vec<Timing>,
    gaps: Pool,
    server: AllSaid,
    input_comparison: InputComparison,
    input_tokens_sent: Total,
    output_comparison: OutputComparison,
    prompts: SentPrompts,
}

/// The values of single requests, each in ascending order: what a comparison resamples.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    pub ttft_ms: Vec<f64>,
    pub tpot_ms: Vec<f64>,
    pub e2e_ms: Vec<f64>,
}

/// The figures of the load point `point`, whose requests, warm-up included, are `records`.
#[must_use]
pub fn summarize(point: &PointRecord, records: &[RequestRecord]) -> Summary {
    let mut summarizer = Summarizer::default();
    for record in records {
        summarizer.add(record);
    }
    summarizer.finish(point)
}

impl Summarizer {
    /// Takes one request into account, in any order; a warm-up request changes only [`Summary::load_s`].
    pub fn add(&mut self, record: &RequestRecord) {
        self.last_end_ns = self.last_end_ns.max(record.end_ns);
        self.prompts.add(record);
        match record.kind {
            RequestKind::Warmup => return,
            RequestKind::Measure => self.requests.sent += 1,
        }
        self.late += u64::from(record.sent_ns.saturating_sub(record.due_ns) > LATE_NS);
        self.held += u64::from(record.free_ns.is_some_and(|free_ns| free_ns > record.due_ns));
        extend(&mut self.all_sent_ns, record.sent_ns, record.sent_ns);
        match record.status {
            RequestStatus::Ok => self.add_ok(record),
            RequestStatus::Failed => self.requests.failed += 1,
            RequestStatus::CutOff => self.requests.cut_off += 1,
        }
    }

    fn add_ok(&mut self, record: &RequestRecord) {
        let timing = Timing::of(record);
        self.requests.ok += 1;
        extend(&mut self.window_ns, record.sent_ns, timing.answered_ns());
        self.input_tokens.add(record.input_tokens);
        self.output_tokens.add(record.output_tokens);
        self.add_source(record);
        self.input_comparison.add(record);
        self.input_tokens_sent.add(record.input_tokens_sent);
        self.output_comparison.add(record);
        record.server.iter().for_each(|said| self.server.add(said));
        self.timings.push(timing);
        // Times that are not in order enter nothing; no honest record has any.
        let gaps = record.chunk_ns.array_windows().filter_map(|[from, to]| to.checked_sub(*from));
        gaps.for_each(|gap| self.gaps.add(gap));
    }

    fn add_source(&mut self, record: &RequestRecord) {
        let Some(source) = record.output_tokens_source.map(OutputTokensSource::All) else { return };
        self.source = match self.source {
            Some(before) if before != source => Some(OutputTokensSource::Mixed),
            Some(_) | None => Some(source),
        };
    }

    /// The figures of everything added. `point` gives what the requests do not: its load, its bounds on single requests,
    /// the GPUs, the client's CPU.
    #[must_use]
    pub fn finish(mut self, point: &PointRecord) -> Summary {
        self.timings.sort_unstable_by_key(|timing| timing.sent_ns);
        let open_loop = point.arrival != "closed";
        let bounded = open_loop && point.concurrency.is_some();
        let from_due = |figure: fn(&Timing) -> Option<f64>, is_known: bool| {
            is_known.then(|| Distribution::of(self.each(figure))).flatten()
        };
        let volume = self.volume();
        let rates = self.rates(&volume, point.server.gpus);
        let energy_j_per_output_token = quotient(point.server.gpu_energy_j, volume.output_tokens.map(|n| n as f64));
        let goodput = self.goodput(point, volume.duration_s);
        let steady = self.all_sent_ns.and_then(|sent| Steady::of(point, &self.timings, sent.to));
        let dispatch_lag_ms_p99 = p99(self.each(Timing::dispatch_lag_ms));
        let latency = Latency {
            ttft_ms: Distribution::of(self.each(Timing::ttft_ms)),
            tpot_ms: Distribution::of(self.each(Timing::tpot_ms)),
            e2e_ms: Distribution::of(self.each(Timing::e2e_ms)),
            e2e_from_due_ms: from_due(Timing::e2e_from_due_ms, open_loop),
            ttft_from_due_ms: from_due(Timing::ttft_from_due_ms, open_loop),
            cap_wait_ms: from_due(Timing::cap_wait_ms, bounded),
            itl_ms: self.gaps.distribution(),
        };
        let client_limits = ClientLimit::all(&point.client, dispatch_lag_ms_p99, Reported::of(&latency));
        let known = point.client.cpu_share.is_some() && dispatch_lag_ms_p99.is_some();
        let verdict = if client_limits.is_empty() { ClientVerdict::Ok } else { ClientVerdict::ClientLimited };
        let trust = Trust {
            dispatch_lag_ms_p99,
            client_verdict: known.then_some(verdict),
            client_limits,
            request_rate_reached: send_rate(self.requests.sent, self.all_sent_ns).filter(|_| open_loop),
            input_tokens_difference: self.input_comparison.difference(),
            tokens_below_chunks: self.output_comparison.below(),
            repeats: self.prompts.repeats(),
        };
        let (late, held) = (open_loop.then_some(self.late), bounded.then_some(self.held));
        let requests = Requests { late, held, ..self.requests };
        let load_s = self.last_end_ns as f64 / 1e9;
        let server = self.server.figures();
        Summary { load_s, requests, volume, rates, goodput, latency, steady, trust, server, energy_j_per_output_token }
    }

    /// The values of the good requests added so far.
    #[must_use]
    pub fn samples(&self) -> Samples {
        let sorted = |figure: fn(&Timing) -> Option<f64>| {
            let mut values = self.each(figure);
            values.sort_by(f64::total_cmp);
            values
        };
        Samples { ttft_ms: sorted(Timing::ttft_ms), tpot_ms: sorted(Timing::tpot_ms), e2e_ms: sorted(Timing::e2e_ms) }
    }

    /// One value of each good request that has it.
    fn each(&self, figure: impl Fn(&Timing) -> Option<f64>) -> Vec<f64> {
        self.timings.iter().filter_map(figure).collect()
    }

    fn goodput(&self, point: &PointRecord, window_s: Option<f64>) -> Option<Goodput> {
        let slo = point.slo.as_ref()?;
        let kept = self.timings.iter().filter(|timing| keeps(timing, slo)).count() as f64;
        let share = quotient(Some(kept), Some(self.requests.sent as f64))?;
        Some(Goodput { requests_per_s: quotient(Some(kept), window_s), share })
    }

    fn volume(&self) -> Volume {
        let ok = Some(self.requests.ok as f64);
        let (input_tokens, output_tokens) = (self.input_tokens.known(), self.output_tokens.known());
        Volume {
            duration_s: self.window_ns.map(Span::seconds),
            input_tokens,
            output_tokens,
            input_tokens_mean: quotient(input_tokens.map(|n| n as f64), ok),
            output_tokens_mean: quotient(output_tokens.map(|n| n as f64), ok),
            output_tokens_source: self.source,
            input_tokens_sent_mean: quotient(self.input_tokens_sent.known().map(|n| n as f64), ok),
        }
    }

    fn rates(&self, volume: &Volume, gpus: Option<u32>) -> Rates {
        let a_second = |count: Option<u64>| quotient(count.map(|n| n as f64), volume.duration_s);
        let requests_per_s = a_second(Some(self.requests.ok));
        let output_tokens_per_s = a_second(volume.output_tokens);
        let total = volume.input_tokens.zip(volume.output_tokens).map(|(input, output)| input + output);
        let per_user = self.each(|timing| timing.tpot_ms().filter(|&tpot| tpot > 0.0).map(|tpot| 1e3 / tpot));
        Rates {
            requests_per_s,
            requests_per_min: requests_per_s.map(|rate| rate * 60.0),
            input_tokens_per_s: a_second(volume.input_tokens),
            output_tokens_per_s,
            total_tokens_per_s: a_second(total),
            output_tokens_per_s_per_user: mean(&per_user),
            output_tokens_per_s_per_gpu: quotient(output_tokens_per_s, gpus.map(f64::from)),
        }
    }
}

/// `None` unless both are known and the divisor is above 0.
fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    divisor.filter(|&divisor| divisor > 0.0).and_then(|divisor| dividend.map(|dividend| dividend / divisor))
}

fn p99(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    percentile(&values, 99.0)
}

fn send_rate(sent: u64, span: Option<Span>) -> Option<f64> {
    quotient(Some(sent.checked_sub(1)? as f64), span.map(Span::seconds))
}

/// From the earliest to the latest of some times, in nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    to: u64,
}

impl Span {
    fn seconds(self) -> f64 {
        self.to.saturating_sub(self.from) as f64 / 1e9
    }
}

fn extend(span: &mut Option<Span>, from: u64, to: u64) {
    let before = span.unwrap_or(Span { from, to });
    *span = Some(Span { from: before.from.min(from), to: before.to.max(to) });
}

/// A sum that is known only when each of its parts is.
#[derive(Debug, Default)]
enum Total {
    #[default]
    Nothing,
    Known(u64),
    Unknown,
}

impl Total {
    fn add(&mut self, part: Option<u32>) {
        *self = match (&self, part) {
            (Self::Nothing, Some(part)) => Self::Known(u64::from(part)),
            (Self::Known(sum), Some(part)) => Self::Known(sum + u64::from(part)),
            (Self::Unknown, _) | (_, None) => Self::Unknown,
        };
    }

    fn known(&self) -> Option<u64> {
        match self {
            Self::Known(sum) => Some(*sum),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{ServerSaid, TokenSource};
    use crate::stats::fixture::{MS, answered, ended, open_loop_point, point, streamed, warmup};

    #[track_caller]
    fn close(found: Option<f64>, expected: f64) {
        let found = found.expect("the figure is known");
        assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{found} is not {expected}");
    }

    #[test]
    fn every_figure_is_what_its_formula_says() {
        // Sent at 100 ms, tokens at 110, 130 and 160 ms; sent at 200 ms, tokens at 230 and 240 ms.
        let first = streamed(100, &[110, 130, 160], 3);
        let second = streamed(200, &[230, 240], 2);
        let mut point = point();
        point.server.gpus = Some(2);
        point.server.gpu_energy_j = Some(10.0);
        point.client.cpu_share = Some(0.1);
        let it = summarize(&point, &[first, second]);

        assert_eq!(it.requests, Requests { sent: 2, ok: 2, ..Requests::default() });
        close(it.volume.duration_s, 0.14);
        assert_eq!((it.volume.input_tokens, it.volume.output_tokens), (Some(200), Some(5)));
        close(it.volume.output_tokens_mean, 2.5);
        assert_eq!(it.volume.output_tokens_source, Some(OutputTokensSource::All(TokenSource::ServerUsage)));
        close(it.rates.requests_per_s, 2.0 / 0.14);
        close(it.rates.requests_per_min, 120.0 / 0.14);
        close(it.rates.output_tokens_per_s, 5.0 / 0.14);
        close(it.rates.total_tokens_per_s, 205.0 / 0.14);
        close(it.rates.output_tokens_per_s_per_gpu, 2.5 / 0.14);
        // TPOT: (60 - 10) / 2 = 25 ms and (40 - 30) / 1 = 10 ms.
        close(it.rates.output_tokens_per_s_per_user, f64::midpoint(1e3 / 25.0, 1e3 / 10.0));
        close(it.latency.tpot_ms.map(|tpot| tpot.mean), 17.5);
        close(it.latency.ttft_ms.map(|ttft| ttft.mean), 20.0);
        close(it.latency.e2e_ms.map(|e2e| e2e.p50), 50.0);
        let itl = it.latency.itl_ms.unwrap();
        assert_eq!((itl.min, itl.p50, itl.max), (10.0, 20.0, 30.0));
        assert_eq!(it.latency.e2e_from_due_ms, None);
        // Each was due 1 ms before it was sent.
        close(it.trust.dispatch_lag_ms_p99, 1.0);
        assert_eq!(it.trust.client_verdict, Some(ClientVerdict::Ok));
        assert_eq!(it.trust.request_rate_reached, None);
        close(it.energy_j_per_output_token, 2.0);
    }

    #[test]
    fn what_the_server_says_is_over_the_requests_of_which_it_says_it() {
        let said = |queue_ms, ttft_ms: u64, reused_blocks| RequestRecord {
            server: Some(ServerSaid { queue_ns: Some(queue_ms * MS), ttft_ns: Some(ttft_ms * MS), reused_blocks }),
            ..streamed(100, &[110], 1)
        };
        let requests =
            [said(1, 10, Some(4)), said(3, 30, None), streamed(100, &[110], 1), warmup(said(50, 60, Some(9)))];
        let it = summarize(&point(), &requests).server;
        close(it.queue_ms.map(|queue| queue.mean), 2.0);
        close(it.ttft_ms.map(|ttft| ttft.max), 30.0);
        close(it.reused_blocks_mean, 4.0);
        let silent = summarize(&point(), &[streamed(100, &[110], 1)]).server;
        assert_eq!((silent.queue_ms, silent.ttft_ms, silent.reused_blocks_mean), (None, None, None));
    }

    #[test]
    fn warmup_counts_nowhere_and_failures_only_as_such() {
        let good = streamed(100, &[110, 130], 2);
        let alone = summarize(&point(), std::slice::from_ref(&good));
        let failed = ended(RequestStatus::Failed, streamed(1, &[900], 7));
        let cut_off = ended(RequestStatus::CutOff, streamed(2, &[990], 7));
        let mut among_others = summarize(&point(), &[warmup(streamed(0, &[5000], 9)), failed, good, cut_off]);
        assert_eq!(among_others.requests, Requests { sent: 3, ok: 1, failed: 1, cut_off: 1, ..Requests::default() });
        assert_eq!((among_others.load_s, alone.load_s), (5.005, 0.135));
        (among_others.requests, among_others.load_s) = (alone.requests, alone.load_s);
        // All of them have the same prompt.
        assert!(among_others.trust.repeats.take().is_some());
        assert_eq!(among_others, alone);
    }

    #[test]
    fn an_answer_in_one_piece_has_e2e_only() {
        let it = summarize(&point(), &[answered(100, 150, 8)]);
        close(it.latency.e2e_ms.map(|e2e| e2e.mean), 50.0);
        close(it.volume.duration_s, 0.05);
        close(it.rates.output_tokens_per_s, 160.0);
        assert_eq!((it.latency.ttft_ms, it.latency.itl_ms, it.latency.tpot_ms), (None, None, None));
        assert_eq!(it.rates.output_tokens_per_s_per_user, None);
    }

    #[test]
    fn one_token_has_no_tpot_and_no_text_has_no_e2e() {
        let one = summarize(&point(), &[streamed(100, &[110], 1)]);
        assert_eq!((one.latency.tpot_ms, one.latency.itl_ms), (None, None));
        close(one.latency.ttft_ms.map(|ttft| ttft.mean), 10.0);
        let none = summarize(&point(), &[streamed(100, &[], 0)]);
        assert_eq!((none.latency.e2e_ms, none.latency.ttft_ms), (None, None));
        assert_eq!((none.requests.ok, none.volume.output_tokens), (1, Some(0)));
    }

    #[test]
    fn tokens_that_came_at_once_say_nothing_of_a_users_speed() {
        let it = summarize(&point(), &[streamed(100, &[110], 4), streamed(100, &[110, 120], 2)]);
        assert_eq!(it.latency.tpot_ms.map(|tpot| tpot.min), Some(0.0));
        close(it.rates.output_tokens_per_s_per_user, 100.0);
    }

    #[test]
    fn without_requests_or_gpus_nothing_is_known() {
        let mut point = point();
        point.server.gpus = Some(0);
        let none = summarize(&point, &[]);
        assert_eq!((none.volume.duration_s, none.rates.requests_per_s, none.volume.input_tokens), (None, None, None));
        assert_eq!(none.latency.e2e_ms, None);
        let one = summarize(&point, &[streamed(100, &[110, 120], 2)]);
        assert_eq!(one.rates.output_tokens_per_s_per_gpu, None);
    }

    #[test]
    fn a_count_that_one_request_lacks_is_not_known_and_two_sources_are_mixed() {
        let mut uncounted = streamed(200, &[210], 1);
        uncounted.output_tokens = None;
        uncounted.output_tokens_source = None;
        let it = summarize(&point(), &[streamed(100, &[110], 1), uncounted.clone()]);
        assert_eq!((it.volume.output_tokens, it.rates.output_tokens_per_s), (None, None));
        uncounted.output_tokens_source = Some(TokenSource::Tokenizer);
        let it = summarize(&point(), &[streamed(100, &[110], 1), uncounted, streamed(300, &[310], 1)]);
        assert_eq!(it.volume.output_tokens_source, Some(OutputTokensSource::Mixed));
    }

    #[test]
    fn open_loop_counts_from_due_and_tells_the_rate_reached() {
        let failed = ended(RequestStatus::Failed, streamed(300, &[], 0));
        let it = summarize(&open_loop_point(), &[streamed(100, &[110], 1), streamed(200, &[210], 1), failed]);
        close(it.latency.e2e_from_due_ms.map(|e2e| e2e.mean), 11.0);
        close(it.latency.ttft_from_due_ms.map(|ttft| ttft.mean), 11.0);
        close(it.trust.request_rate_reached, 10.0);
        assert_eq!((it.requests.late, it.requests.held, it.latency.cap_wait_ms), (Some(0), None, None));
    }

    #[test]
    fn what_was_late_and_what_waited_at_the_bound_is_counted() {
        let due_at =
            |due, free, record: RequestRecord| RequestRecord { due_ns: due * MS, free_ns: Some(free * MS), ..record };
        let records = [
            streamed(100, &[110], 1),
            due_at(190, 199, streamed(200, &[215], 1)),
            due_at(290, 299, ended(RequestStatus::Failed, streamed(300, &[], 0))),
        ];
        let bounded = PointRecord { concurrency: Some(1), ..open_loop_point() };
        let it = summarize(&bounded, &records);
        assert_eq!((it.requests.late, it.requests.held), (Some(2), Some(2)));
        let waits = it.latency.cap_wait_ms.unwrap();
        assert_eq!((waits.min, waits.mean, waits.max), (0.0, 4.5, 9.0));
        close(it.latency.ttft_from_due_ms.map(|ttft| ttft.max), 25.0);
        close(it.latency.ttft_ms.map(|ttft| ttft.max), 15.0);
        let closed = summarize(&point(), &records);
        assert_eq!((closed.requests.late, closed.requests.held), (None, None));
        assert_eq!((closed.latency.ttft_from_due_ms, closed.latency.cap_wait_ms), (None, None));
    }

    #[test]
    fn a_slow_client_is_called_so() {
        let mut point = point();
        assert_eq!(summarize(&point, &[streamed(100, &[200], 1)]).trust.client_verdict, None);
        point.client.cpu_share = Some(0.95);
        let limited = Some(ClientVerdict::ClientLimited);
        assert_eq!(summarize(&point, &[streamed(100, &[200], 1)]).trust.client_verdict, limited);
        point.client.cpu_share = Some(0.1);
        // 1 ms late in an answer of 10 ms.
        assert_eq!(summarize(&point, &[streamed(100, &[110], 1)]).trust.client_verdict, limited);
    }

    #[test]
    fn input_counts_are_compared_where_both_are_known() {
        let counted = |input_tokens, input_tokens_sent| RequestRecord {
            input_tokens: Some(input_tokens),
            input_tokens_sent,
            ..streamed(100, &[110], 1)
        };
        let difference = |records: &[RequestRecord]| summarize(&point(), records).trust.input_tokens_difference;
        assert_eq!(difference(&[counted(100, Some(100)), counted(100, None)]), None);
        assert_eq!(
            difference(&[counted(101, Some(100)), counted(101, None), counted(100, Some(100))]).unwrap().to_string(),
            "in 1 of 2 requests the server's count of input tokens differs from what was sent by +1: most often a token or \
             a template that the server adds"
        );
        let found = difference(&[counted(90, Some(100)), counted(103, Some(100))]).unwrap();
        assert_eq!((found.least, found.most, found.differing), (-10, 3, 2));
    }

    #[test]
    fn our_own_count_of_the_prompts_is_kept_beside_the_servers() {
        let first = RequestRecord { input_tokens: Some(101), ..streamed(100, &[110], 1) };
        let second = RequestRecord { input_tokens: Some(103), ..streamed(200, &[210], 1) };
        let it = summarize(&point(), &[first.clone(), second]);
        close(it.volume.input_tokens_mean, 102.0);
        close(it.volume.input_tokens_sent_mean, 100.0);
        let uncounted = RequestRecord { input_tokens_sent: None, ..streamed(200, &[210], 1) };
        assert_eq!(summarize(&point(), &[first, uncounted]).volume.input_tokens_sent_mean, None);
    }

    #[test]
    fn prompts_that_were_sent_again_are_told_of() {
        let with = |prompt, record: RequestRecord| RequestRecord { prompt, ..record };
        let own = [with(0, warmup(streamed(0, &[10], 1))), with(1, streamed(100, &[200], 1))];
        assert_eq!(summarize(&point(), &own).warnings(), [] as [&str; 0]);
        let failed = with(1, ended(RequestStatus::Failed, streamed(200, &[], 0)));
        let [first, second] = own;
        let warnings = summarize(&point(), &[first, second, failed]).warnings();
        assert!(warnings[1].starts_with("3 requests share 2 prompts; a server that caches prefixes"), "{warnings:?}");
    }

    #[test]
    fn fewer_tokens_than_chunks_are_told_of_where_the_server_counted() {
        let low = RequestRecord { request: 7, ..streamed(100, &[110, 120, 130], 1) };
        let ours = RequestRecord { output_tokens_source: Some(TokenSource::Tokenizer), ..low.clone() };
        let below = |records: &[RequestRecord]| summarize(&point(), records).trust.tokens_below_chunks;
        assert_eq!(below(&[streamed(100, &[110], 4), ours.clone()]), None);
        let found = below(&[streamed(100, &[110], 1), ours, low.clone(), low]).unwrap();
        assert_eq!((found.compared, found.below), (3, 2));
        assert!(found.to_string().contains("request 7: 3 chunks, 1 counted"), "{found}");
    }

    #[test]
    fn times_out_of_order_enter_nothing() {
        let mut record = streamed(100, &[110, 120], 2);
        record.chunk_ns = vec![120 * MS, 110 * MS];
        record.first_token_ns = Some(90 * MS);
        let it = summarize(&point(), &[record]);
        assert_eq!((it.latency.ttft_ms, it.latency.itl_ms, it.latency.tpot_ms), (None, None, None));
    }
}
