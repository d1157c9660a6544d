use crate::record::{PointRecord, RequestKind, RequestRecord, RequestStatus};
use crate::stats::percentile::mean;
use crate::stats::{
    ClientVerdict, Distribution, InputTokensDifference, Latency, OutputTokensSource, Rates, Requests, Summary, Trust,
    Volume, percentile,
};

/// Collects what a [`Summary`] needs of each request; it keeps times and counts, no texts.
#[derive(Debug, Default)]
pub struct Summarizer {
    requests: Requests,
    all_sent_ns: Option<Span>,
    window_ns: Option<Span>,
    input_tokens: Total,
    output_tokens: Total,
    source: Option<OutputTokensSource>,
    ttft_ms: Vec<f64>,
    itl_ms: Vec<f64>,
    tpot_ms: Vec<f64>,
    e2e_ms: Vec<f64>,
    e2e_from_due_ms: Vec<f64>,
    dispatch_lag_ms: Vec<f64>,
    input_comparison: InputComparison,
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
    /// Takes one request into account, in any order; warm-up requests change nothing.
    pub fn add(&mut self, record: &RequestRecord) {
        match record.kind {
            RequestKind::Warmup => return,
            RequestKind::Measure => self.requests.sent += 1,
        }
        extend(&mut self.all_sent_ns, record.sent_ns, record.sent_ns);
        match record.status {
            RequestStatus::Ok => self.add_ok(record),
            RequestStatus::Failed => self.requests.failed += 1,
            RequestStatus::CutOff => self.requests.cut_off += 1,
        }
    }

    fn add_ok(&mut self, record: &RequestRecord) {
        self.requests.ok += 1;
        extend(&mut self.window_ns, record.sent_ns, record.last_token_ns.unwrap_or(record.end_ns));
        self.input_tokens.add(record.input_tokens);
        self.output_tokens.add(record.output_tokens);
        self.add_source(record);
        self.input_comparison.add(record);
        self.dispatch_lag_ms.extend(milliseconds(record.due_ns, record.sent_ns));
        self.add_latencies(record);
    }

    fn add_source(&mut self, record: &RequestRecord) {
        let Some(source) = record.output_tokens_source.map(OutputTokensSource::All) else { return };
        self.source = match self.source {
            Some(before) if before != source => Some(OutputTokensSource::Mixed),
            Some(_) | None => Some(source),
        };
    }

    fn add_latencies(&mut self, record: &RequestRecord) {
        let gaps = record.chunk_ns.array_windows().filter_map(|&[from, to]| milliseconds(from, to));
        self.itl_ms.extend(gaps);
        let ttft = record.first_token_ns.and_then(|first| milliseconds(record.sent_ns, first));
        self.ttft_ms.extend(ttft);
        let Some(answered_ns) = answered_ns(record) else { return };
        let e2e = milliseconds(record.sent_ns, answered_ns);
        self.e2e_ms.extend(e2e);
        self.e2e_from_due_ms.extend(milliseconds(record.due_ns, answered_ns));
        let gaps_between_tokens = record.output_tokens.filter(|&n| n >= 2).map(|n| f64::from(n - 1));
        if let (Some(e2e), Some(ttft), Some(gaps)) = (e2e, ttft, gaps_between_tokens) {
            self.tpot_ms.push((e2e - ttft).max(0.0) / gaps);
        }
    }

    /// The figures of everything added. `point` gives what the requests do not: its arrival, the GPUs, the client's CPU.
    #[must_use]
    pub fn finish(self, point: &PointRecord) -> Summary {
        let open_loop = point.arrival != "closed";
        let volume = self.volume();
        let rates = self.rates(&volume, point.server.gpus);
        let energy_j_per_output_token = quotient(point.server.gpu_energy_j, volume.output_tokens.map(|n| n as f64));
        let dispatch_lag_ms_p99 = p99(self.dispatch_lag_ms);
        let latency = Latency {
            ttft_ms: Distribution::of(self.ttft_ms),
            itl_ms: Distribution::of(self.itl_ms),
            tpot_ms: Distribution::of(self.tpot_ms),
            e2e_ms: Distribution::of(self.e2e_ms),
            e2e_from_due_ms: Distribution::of(self.e2e_from_due_ms).filter(|_| open_loop),
        };
        let median_ms = latency.e2e_ms.as_ref().map(|e2e| e2e.p50);
        let trust = Trust {
            dispatch_lag_ms_p99,
            client_verdict: verdict(point.client.cpu_share, dispatch_lag_ms_p99, median_ms),
            request_rate_reached: send_rate(self.requests.sent, self.all_sent_ns).filter(|_| open_loop),
            input_tokens_difference: self.input_comparison.difference(),
        };
        Summary { requests: self.requests, volume, rates, latency, trust, energy_j_per_output_token }
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
        }
    }

    fn rates(&self, volume: &Volume, gpus: Option<u32>) -> Rates {
        let a_second = |count: Option<u64>| quotient(count.map(|n| n as f64), volume.duration_s);
        let requests_per_s = a_second(Some(self.requests.ok));
        let output_tokens_per_s = a_second(volume.output_tokens);
        let total = volume.input_tokens.zip(volume.output_tokens).map(|(input, output)| input + output);
        let per_user: Vec<f64> = self.tpot_ms.iter().filter(|&&tpot| tpot > 0.0).map(|tpot| 1e3 / tpot).collect();
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

/// When the user had the whole answer; `None` for an answer without text.
fn answered_ns(record: &RequestRecord) -> Option<u64> {
    record.last_token_ns.or_else(|| (!record.output_text.is_empty()).then_some(record.end_ns))
}

/// `None` when the times are not in order, which no honest record has.
fn milliseconds(from_ns: u64, to_ns: u64) -> Option<f64> {
    to_ns.checked_sub(from_ns).map(|ns| ns as f64 / 1e6)
}

/// `None` unless both are known and the divisor is above 0.
fn quotient(dividend: Option<f64>, divisor: Option<f64>) -> Option<f64> {
    divisor.filter(|&divisor| divisor > 0.0).and_then(|divisor| dividend.map(|dividend| dividend / divisor))
}

fn p99(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    percentile(&values, 99.0)
}

fn verdict(cpu_share: Option<f64>, lag_ms: Option<f64>, median_ms: Option<f64>) -> Option<ClientVerdict> {
    Some(ClientVerdict::of(cpu_share?, lag_ms?, median_ms?))
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

#[derive(Debug, Default)]
struct InputComparison {
    compared: u64,
    differing: u64,
    range: Option<(i64, i64)>,
}

impl InputComparison {
    fn add(&mut self, record: &RequestRecord) {
        let (Some(counted), Some(sent)) = (record.input_tokens, record.input_tokens_sent) else { return };
        self.compared += 1;
        if counted == sent {
            return;
        }
        let difference = i64::from(counted) - i64::from(sent);
        let (least, most) = self.range.unwrap_or((difference, difference));
        self.differing += 1;
        self.range = Some((least.min(difference), most.max(difference)));
    }

    fn difference(&self) -> Option<InputTokensDifference> {
        let Self { compared, differing, .. } = *self;
        self.range.map(|(least, most)| InputTokensDifference { compared, differing, least, most })
    }
}
