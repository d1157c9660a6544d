use std::fmt;

use crate::record::{Certificate, ClientFacts, RequestKind, RequestRecord, RequestStatus};
use crate::stats::timing::Timing;
use crate::stats::{Latency, percentile};

/// How a server answers, as a timetable that a server without a model can keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cadence {
    /// Until the first chunk with text.
    pub ttft_ms: f64,
    /// From one chunk with text to the next.
    pub itl_ms: f64,
    pub tokens_per_chunk: u32,
    /// Of text.
    pub chunk_bytes: u32,
}

impl Default for Cadence {
    /// Of a server that nothing is known of: faster than most under load, so that the client has more to do.
    fn default() -> Self {
        Self { ttft_ms: 20.0, itl_ms: 10.0, tokens_per_chunk: 1, chunk_bytes: 5 }
    }
}

impl Cadence {
    /// Of the measured requests with status `ok`; `None` without one. The medians of TTFT and of the gaps between chunks;
    /// tokens and bytes over all chunks. Of answers in one piece, which have no gaps, TTFT is the time until they were there,
    /// and a token is a chunk.
    #[must_use]
    pub fn of(records: &[RequestRecord]) -> Option<Self> {
        let good = || measured(records).filter(|it| it.status == RequestStatus::Ok);
        let first = |it: &RequestRecord| milliseconds(it.sent_ns, it.first_token_ns.unwrap_or(it.end_ns));
        let tokens = good().filter_map(|it| it.output_tokens).map(f64::from).sum::<f64>();
        let streamed = good().map(|it| it.chunk_ns.len()).sum::<usize>() as f64;
        let chunks = if streamed > 0.0 { streamed } else { tokens.max(1.0) };
        let bytes = good().map(|it| it.output_text.len()).sum::<usize>() as f64;
        Some(Self {
            ttft_ms: quantile(good().map(first).collect(), 50.0)?,
            itl_ms: quantile(good().flat_map(gaps_ms).collect(), 50.0).unwrap_or_default(),
            tokens_per_chunk: whole(tokens / chunks),
            chunk_bytes: whole(bytes / chunks),
        })
    }

    /// Until an answer of so many tokens is whole.
    #[must_use]
    pub fn answer_ms(&self, tokens: u32) -> f64 {
        self.ttft_ms + self.itl_ms * f64::from(tokens.div_ceil(self.tokens_per_chunk.max(1)).saturating_sub(1))
    }

    /// Whether a client had less to do when it was certified: chunks, or answers without gaps, came a fifth later.
    #[must_use]
    pub fn is_faster_than(&self, certificate: &Certificate) -> bool {
        let (pace, certified) = if self.itl_ms > 0.0 {
            (self.itl_ms, certificate.timetable_itl_ms)
        } else {
            (self.ttft_ms, certificate.timetable_ttft_ms)
        };
        pace < 0.8 * certified
    }
}

/// The nearest whole number, and 1 at least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float keeps to the range")]
fn whole(number: f64) -> u32 {
    number.round().max(1.0) as u32
}

/// What the client adds to a load, from the records of the same load on a server that kept `cadence`.
///
/// The percentiles are over the measured requests that did not fail, also those that were cut off, and over all gaps
/// between their chunks. They hold all that lies between the server's timetable and the client's records: both programs'
/// and the kernel's delays.
#[must_use]
pub fn certify(cadence: Cadence, records: &[RequestRecord]) -> Certificate {
    let sound = || measured(records).filter(|it| it.status != RequestStatus::Failed);
    let first = |it: &RequestRecord| Some(milliseconds(it.sent_ns, it.first_token_ns?) - cadence.ttft_ms);
    let lag = |it: &RequestRecord| Timing::of(it).dispatch_lag_ms();
    Certificate {
        requests: sound().count() as u64,
        concurrency: concurrency(records),
        timetable_ttft_ms: cadence.ttft_ms,
        timetable_itl_ms: cadence.itl_ms,
        ttft_ms_p99: quantile(sound().filter_map(first).collect(), 99.0),
        itl_ms_p99: quantile(sound().flat_map(gaps_ms).map(|gap| gap - cadence.itl_ms).collect(), 99.0),
        dispatch_lag_ms_p99: quantile(sound().filter_map(lag).collect(), 99.0),
    }
}

/// The most requests under way at a time, whatever became of them.
fn concurrency(records: &[RequestRecord]) -> Option<u64> {
    let sent = records.iter().map(|it| (it.sent_ns, 1));
    let ended = records.iter().map(|it| (it.end_ns, -1));
    let mut changes: Vec<(u64, i64)> = sent.chain(ended).collect();
    // Of what happens at one moment, what ends comes first.
    changes.sort_unstable();
    let under_way = changes.iter().scan(0, |now, (_, change)| {
        *now += change;
        Some(*now)
    });
    under_way.max().map(i64::unsigned_abs)
}

fn measured(records: &[RequestRecord]) -> impl Iterator<Item = &RequestRecord> {
    records.iter().filter(|it| it.kind == RequestKind::Measure)
}

fn gaps_ms(record: &RequestRecord) -> impl Iterator<Item = f64> {
    record.chunk_ns.array_windows().map(|&[from, to]| milliseconds(from, to))
}

fn milliseconds(from_ns: u64, to_ns: u64) -> f64 {
    to_ns.saturating_sub(from_ns) as f64 / 1e6
}

fn quantile(mut values: Vec<f64>, p: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    percentile(&values, p)
}

/// The figures of a load point that the client's own delays are held against, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    pub ttft_ms_p99: Option<f64>,
    pub itl_ms_p99: Option<f64>,
    pub e2e_ms_p50: Option<f64>,
}

impl Reported {
    pub(super) fn of(latency: &Latency) -> Self {
        Self {
            ttft_ms_p99: latency.ttft_ms.as_ref().map(|ttft| ttft.p99),
            itl_ms_p99: latency.itl_ms.as_ref().map(|itl| itl.p99),
            e2e_ms_p50: latency.e2e_ms.as_ref().map(|e2e| e2e.p50),
        }
    }
}

/// Why a client cannot show what the server does. Its text is a clause for a warning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientLimit {
    /// More than 80 % of the host's cores were busy with the client.
    Cpu { share: f64 },
    /// The 99th percentile of the dispatch lag is more than 4 % of the median E2E.
    Dispatch { lag_ms: f64, e2e_ms: f64 },
    /// The 99.9th percentile of what waited for the event loops is more than 4 % of the 99th of `figure`: a percentile can
    /// move by what is rarer than itself.
    Poll { delay_ms: f64, figure: &'static str, reported_ms: f64 },
    /// Bytes lay unread in the kernel for more than 4 % of the 99th percentile of `figure`, on average. One look may come
    /// just when bytes do, so it takes several that found some.
    Unread { wait_ms: f64, figure: &'static str, reported_ms: f64 },
    /// The 99th percentile of what the certificate says is added is more than 4 % of that of `figure`.
    Added { added_ms: f64, figure: &'static str, reported_ms: f64 },
}

impl ClientLimit {
    /// Above this, requests and answers wait for a core of the client.
    const CPU_SHARE: f64 = 0.8;
    /// Above this share of a figure, the client's own delay shows in it: a little below the 5 % by which a figure may be
    /// wrong, since the sign must come first.
    const DELAY_SHARE: f64 = 0.04;

    /// Fewer looks that found bytes unread are chance.
    const LOOKS_UNREAD: u64 = 3;

    /// Every sign that the client was the limit.
    #[must_use]
    pub fn all(client: &ClientFacts, dispatch_lag_ms_p99: Option<f64>, reported: Reported) -> Vec<Self> {
        let certificate = client.certificate.unwrap_or_default();
        let figures = [
            ("TTFT", reported.ttft_ms_p99, certificate.ttft_ms_p99),
            ("ITL", reported.itl_ms_p99, certificate.itl_ms_p99),
        ];
        let cpu = client.cpu_share.filter(|&share| share > Self::CPU_SHARE).map(|share| Self::Cpu { share });
        let dispatch =
            exceeds(dispatch_lag_ms_p99, reported.e2e_ms_p50).map(|(lag_ms, e2e_ms)| Self::Dispatch { lag_ms, e2e_ms });
        let poll = figures.iter().filter_map(|&(figure, reported, _)| {
            let (delay_ms, reported_ms) = exceeds(client.poll_delay_ms_p99_9, reported)?;
            Some(Self::Poll { delay_ms, figure, reported_ms })
        });
        let queue = client.socket_queue.filter(|queue| queue.looks_unread >= Self::LOOKS_UNREAD);
        let wait_ms = queue.and_then(|queue| queue.wait_ms_mean);
        let unread = figures.iter().filter_map(|&(figure, reported, _)| {
            let (wait_ms, reported_ms) = exceeds(wait_ms, reported)?;
            Some(Self::Unread { wait_ms, figure, reported_ms })
        });
        let added = figures.iter().filter_map(|&(figure, reported, added)| {
            let (added_ms, reported_ms) = exceeds(added, reported)?;
            Some(Self::Added { added_ms, figure, reported_ms })
        });
        cpu.into_iter().chain(dispatch).chain(poll).chain(unread).chain(added).collect()
    }
}

/// What showed that the client was the limit, and what to do; `None` if it was not.
#[must_use]
pub fn advice(limits: &[ClientLimit]) -> Option<String> {
    let causes = limits.iter().map(ClientLimit::to_string).collect::<Vec<_>>().join("; ");
    (!limits.is_empty()).then(|| format!("{causes}: give the client cores of its own, or lower the load"))
}

/// Both, if the delay shows in the figure.
fn exceeds(delay_ms: Option<f64>, reported_ms: Option<f64>) -> Option<(f64, f64)> {
    delay_ms.zip(reported_ms).filter(|(delay, reported)| *delay > ClientLimit::DELAY_SHARE * reported)
}

impl fmt::Display for ClientLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { share } => write!(f, "the client used {:.0} % of the host's cores", share * 100.0),
            Self::Dispatch { lag_ms, e2e_ms } => {
                write!(f, "requests left {lag_ms:.2} ms late (p99) for an E2E of {e2e_ms:.1} ms (p50)")
            }
            Self::Poll { delay_ms, figure, reported_ms } => {
                write!(
                    f,
                    "chunks waited {delay_ms:.2} ms (p99.9) for the client, for a {figure} of {reported_ms:.2} ms (p99)"
                )
            }
            Self::Unread { wait_ms, figure, reported_ms } => write!(
                f,
                "answers lay unread in the kernel for {wait_ms:.2} ms (mean), for a {figure} of {reported_ms:.2} ms (p99)"
            ),
            Self::Added { added_ms, figure, reported_ms } => write!(
                f,
                "without a model the client saw a {figure} {added_ms:.2} ms (p99) too long, for {reported_ms:.2} ms measured"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SocketQueue;
    use crate::stats::fixture::{answered, ended, streamed, warmup};

    #[test]
    fn a_cadence_is_what_the_requests_had_in_common() {
        let records = [
            warmup(streamed(0, &[900], 9)),
            ended(RequestStatus::Failed, streamed(0, &[800], 9)),
            streamed(100, &[110, 130, 150], 6),
            streamed(200, &[210, 230, 250], 6),
        ];
        let cadence = Cadence::of(&records).unwrap();
        let expected = Cadence { ttft_ms: 10.0, itl_ms: 20.0, tokens_per_chunk: 2, chunk_bytes: 1 };
        assert_eq!(cadence, expected);
        let whole = Cadence::of(&[answered(100, 150, 8)]).unwrap();
        assert_eq!((whole.ttft_ms, whole.itl_ms, whole.tokens_per_chunk), (50.0, 0.0, 1));
        assert_eq!(Cadence::of(&[]), None);
        for (tokens, expected_ms) in [(0, 10.0), (1, 10.0), (2, 10.0), (5, 50.0)] {
            assert!((cadence.answer_ms(tokens) - expected_ms).abs() < 1e-9, "{tokens} tokens");
        }
    }

    #[test]
    fn what_goes_beyond_the_timetable_was_added() {
        let cadence = Cadence { ttft_ms: 10.0, itl_ms: 20.0, tokens_per_chunk: 1, chunk_bytes: 5 };
        let certificate = certify(cadence, &[streamed(100, &[113, 134, 154], 3)]);
        // Gaps of 21 and 20 ms.
        assert_eq!(certificate.ttft_ms_p99, Some(3.0));
        assert!((certificate.itl_ms_p99.unwrap() - 0.99).abs() < 1e-9);
        assert_eq!(certificate.dispatch_lag_ms_p99, Some(1.0));
        assert_eq!((certificate.requests, certificate.concurrency), (1, Some(1)));
        let three = [streamed(100, &[113, 134], 3), warmup(streamed(90, &[99], 3)), streamed(120, &[131], 3)];
        let certificate = certify(cadence, &three);
        // The one before the window is under way with the first of the window, and has ended when the second begins.
        assert_eq!((certificate.requests, certificate.concurrency), (2, Some(2)));
        assert_eq!(certify(cadence, &[answered(100, 150, 3)]).ttft_ms_p99, None);
    }

    #[test]
    fn every_sign_alone_tells_that_the_client_was_the_limit() {
        let reported = Reported { ttft_ms_p99: Some(100.0), itl_ms_p99: Some(10.0), e2e_ms_p50: Some(1000.0) };
        let good = ClientFacts {
            cpu_share: Some(0.5),
            poll_delay_ms_p99_9: Some(0.3),
            certificate: Some(Certificate {
                ttft_ms_p99: Some(3.9),
                itl_ms_p99: Some(0.39),
                dispatch_lag_ms_p99: Some(0.1),
                ..Certificate::default()
            }),
            ..ClientFacts::default()
        };
        assert_eq!(ClientLimit::all(&good, Some(39.0), reported), []);
        let limits = |client: ClientFacts, lag| ClientLimit::all(&client, Some(lag), reported);
        assert_eq!(
            limits(ClientFacts { cpu_share: Some(0.9), ..good.clone() }, 1.0),
            [ClientLimit::Cpu { share: 0.9 }]
        );
        assert_eq!(limits(good.clone(), 41.0), [ClientLimit::Dispatch { lag_ms: 41.0, e2e_ms: 1000.0 }]);
        let polled = limits(ClientFacts { poll_delay_ms_p99_9: Some(0.5), ..good.clone() }, 1.0);
        assert_eq!(polled, [ClientLimit::Poll { delay_ms: 0.5, figure: "ITL", reported_ms: 10.0 }]);
        let left = |looks_unread| {
            let queue = SocketQueue { looks: 50, looks_unread, bytes_max: 900, wait_ms_mean: Some(0.5) };
            limits(ClientFacts { socket_queue: Some(queue), ..good.clone() }, 1.0)
        };
        assert_eq!(left(2), [], "chunks that had just come");
        assert_eq!(left(3), [ClientLimit::Unread { wait_ms: 0.5, figure: "ITL", reported_ms: 10.0 }]);
        let slow = Certificate { ttft_ms_p99: Some(4.1), ..good.certificate.unwrap() };
        let added = limits(ClientFacts { certificate: Some(slow), ..good }, 1.0);
        assert_eq!(added, [ClientLimit::Added { added_ms: 4.1, figure: "TTFT", reported_ms: 100.0 }]);
        assert_eq!(
            advice(&added).unwrap(),
            "without a model the client saw a TTFT 4.10 ms (p99) too long, for 100.00 ms measured: give the client cores of \
             its own, or lower the load"
        );
        assert_eq!(advice(&[]), None);
    }
}
