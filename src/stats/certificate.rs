use std::fmt;

use crate::record::{Certificate, ClientFacts, RequestKind, RequestRecord, RequestStatus};
use crate::stats::percentile;
use crate::stats::percentile::mean;
use crate::stats::summarizer::dispatch_lag_ms;

/// How a server answered, as a timetable that a server without a model can keep.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cadence {
    /// Median TTFT; of answers in one piece, the median time until they were there.
    pub ttft_ms: f64,
    /// Median gap between chunks with text; 0 if no answer had two.
    pub itl_ms: f64,
    /// Mean over requests.
    pub output_tokens: u32,
    /// Output tokens / chunks with text, over all requests.
    pub tokens_per_chunk: u32,
    /// Bytes of output text / chunks with text, over all requests.
    pub chunk_bytes: u32,
}

impl Cadence {
    /// Of the measured requests with status `ok`; `None` without one.
    #[must_use]
    pub fn of(records: &[RequestRecord]) -> Option<Self> {
        let good: Vec<&RequestRecord> = measured(records).collect();
        let first = |it: &&RequestRecord| milliseconds(it.sent_ns, it.first_token_ns.unwrap_or(it.end_ns));
        let gaps = |it: &&RequestRecord| gaps_ms(it).collect::<Vec<_>>();
        let tokens: Vec<f64> = good.iter().filter_map(|it| it.output_tokens).map(f64::from).collect();
        let chunks = good.iter().map(|it| it.chunk_ns.len().max(1)).sum::<usize>() as f64;
        let bytes = good.iter().map(|it| it.output_text.len()).sum::<usize>() as f64;
        Some(Self {
            ttft_ms: quantile(good.iter().map(first).collect(), 50.0)?,
            itl_ms: quantile(good.iter().flat_map(gaps).collect(), 50.0).unwrap_or_default(),
            output_tokens: whole(mean(&tokens).unwrap_or(1.0)),
            tokens_per_chunk: whole(tokens.iter().sum::<f64>() / chunks),
            chunk_bytes: whole(bytes / chunks),
        })
    }
}

/// The nearest whole number, and 1 at least.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float keeps to the range")]
fn whole(number: f64) -> u32 {
    number.round().max(1.0) as u32
}

/// What the client adds to a load, from the records of the same load on a server that kept `cadence`.
///
/// The percentiles are over the measured requests with status `ok`, and over all gaps between their chunks. They hold all
/// that lies between the server's timetable and the client's records: both programs' and the kernel's delays.
#[must_use]
pub fn certify(cadence: Cadence, records: &[RequestRecord]) -> Certificate {
    let good = || measured(records);
    let first = |it: &RequestRecord| Some(milliseconds(it.sent_ns, it.first_token_ns?) - cadence.ttft_ms);
    Certificate {
        ttft_added_ms_p99: quantile(good().filter_map(first).collect(), 99.0),
        itl_added_ms_p99: quantile(good().flat_map(gaps_ms).map(|gap| gap - cadence.itl_ms).collect(), 99.0),
        dispatch_lag_ms_p99: quantile(good().filter_map(dispatch_lag_ms).collect(), 99.0),
    }
}

fn measured(records: &[RequestRecord]) -> impl Iterator<Item = &RequestRecord> {
    records.iter().filter(|it| it.kind == RequestKind::Measure && it.status == RequestStatus::Ok)
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

/// A figure of a load point that the client's own delay is held against, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reported {
    pub ttft_ms_p99: Option<f64>,
    pub itl_ms_p99: Option<f64>,
    pub e2e_ms_p50: Option<f64>,
}

/// Why a client cannot show what the server does. Its text says what to do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ClientLimit {
    /// More than 80 % of the host's cores were busy with the client.
    Cpu { share: f64 },
    /// The 99th percentile of the dispatch lag is more than 4 % of the median E2E.
    Dispatch { lag_ms: f64, e2e_ms: f64 },
    /// The 99th percentile of what waited for the event loops is more than 4 % of that of `figure`.
    Poll { delay_ms: f64, figure: &'static str, reported_ms: f64 },
    /// The 99th percentile of what the certificate says is added is more than 4 % of that of `figure`.
    Added { added_ms: f64, figure: &'static str, reported_ms: f64 },
}

impl ClientLimit {
    /// Above this, requests and answers wait for a core of the client.
    const CPU_SHARE: f64 = 0.8;
    /// Above this share of a figure, the client's own delay shows in it: a little below the 5 % by which a figure may be
    /// wrong, since the sign must come first.
    const DELAY_SHARE: f64 = 0.04;

    /// Every sign that the client was the limit.
    #[must_use]
    pub fn all(client: &ClientFacts, dispatch_lag_ms_p99: Option<f64>, reported: Reported) -> Vec<Self> {
        let certificate = client.certificate.unwrap_or_default();
        let figures = [
            ("TTFT", reported.ttft_ms_p99, certificate.ttft_added_ms_p99),
            ("ITL", reported.itl_ms_p99, certificate.itl_added_ms_p99),
        ];
        let cpu = client.cpu_share.filter(|&share| share > Self::CPU_SHARE).map(|share| Self::Cpu { share });
        let dispatch =
            exceeds(dispatch_lag_ms_p99, reported.e2e_ms_p50).map(|(lag_ms, e2e_ms)| Self::Dispatch { lag_ms, e2e_ms });
        let poll = figures.iter().filter_map(|&(figure, reported, _)| {
            let (delay_ms, reported_ms) = exceeds(client.poll_delay_ms_p99, reported)?;
            Some(Self::Poll { delay_ms, figure, reported_ms })
        });
        let added = figures.iter().filter_map(|&(figure, reported, added)| {
            let (added_ms, reported_ms) = exceeds(added, reported)?;
            Some(Self::Added { added_ms, figure, reported_ms })
        });
        cpu.into_iter().chain(dispatch).chain(poll).chain(added).collect()
    }
}

/// Both, if the delay shows in the figure.
fn exceeds(delay_ms: Option<f64>, reported_ms: Option<f64>) -> Option<(f64, f64)> {
    delay_ms.zip(reported_ms).filter(|(delay, reported)| *delay > ClientLimit::DELAY_SHARE * reported)
}

impl fmt::Display for ClientLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu { share } => {
                write!(f, "the client used {:.0} % of the host's cores: give it more, or lower the load", share * 100.0)
            }
            Self::Dispatch { lag_ms, e2e_ms } => write!(
                f,
                "requests left up to {lag_ms:.1} ms (p99) late, for a median E2E of {e2e_ms:.1} ms: give the client cores \
                 of its own, or lower the load"
            ),
            Self::Poll { delay_ms, figure, reported_ms } => write!(
                f,
                "chunks waited up to {delay_ms:.2} ms (p99) for the client, for a {figure} of {reported_ms:.2} ms (p99): \
                 give the client cores of its own, or lower the load"
            ),
            Self::Added { added_ms, figure, reported_ms } => write!(
                f,
                "on a server without a model the client saw a {figure} that was {added_ms:.2} ms (p99) too long, for \
                 {reported_ms:.2} ms (p99) measured: give the client cores of its own, or lower the load"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        let expected = Cadence { ttft_ms: 10.0, itl_ms: 20.0, output_tokens: 6, tokens_per_chunk: 2, chunk_bytes: 1 };
        assert_eq!(cadence, expected);
        let whole = Cadence::of(&[answered(100, 150, 8)]).unwrap();
        assert_eq!((whole.ttft_ms, whole.itl_ms, whole.tokens_per_chunk), (50.0, 0.0, 8));
        assert_eq!(Cadence::of(&[]), None);
    }

    #[test]
    fn what_goes_beyond_the_timetable_was_added() {
        let cadence = Cadence { ttft_ms: 10.0, itl_ms: 20.0, output_tokens: 3, tokens_per_chunk: 1, chunk_bytes: 5 };
        let certificate = certify(cadence, &[streamed(100, &[113, 134, 154], 3)]);
        // Gaps of 21 and 20 ms.
        assert_eq!(certificate.ttft_added_ms_p99, Some(3.0));
        assert!((certificate.itl_added_ms_p99.unwrap() - 0.99).abs() < 1e-9);
        assert_eq!(certificate.dispatch_lag_ms_p99, Some(1.0));
        assert_eq!(certify(cadence, &[answered(100, 150, 3)]).ttft_added_ms_p99, None);
    }

    #[test]
    fn every_sign_alone_tells_that_the_client_was_the_limit() {
        let reported = Reported { ttft_ms_p99: Some(100.0), itl_ms_p99: Some(10.0), e2e_ms_p50: Some(1000.0) };
        let good = ClientFacts {
            cpu_share: Some(0.5),
            poll_delay_ms_p99: Some(0.3),
            certificate: Some(Certificate {
                ttft_added_ms_p99: Some(3.9),
                itl_added_ms_p99: Some(0.39),
                dispatch_lag_ms_p99: Some(0.1),
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
        let polled = limits(ClientFacts { poll_delay_ms_p99: Some(0.5), ..good.clone() }, 1.0);
        assert_eq!(polled, [ClientLimit::Poll { delay_ms: 0.5, figure: "ITL", reported_ms: 10.0 }]);
        let slow = Certificate { ttft_added_ms_p99: Some(4.1), ..good.certificate.unwrap() };
        let added = limits(ClientFacts { certificate: Some(slow), ..good }, 1.0);
        assert_eq!(added, [ClientLimit::Added { added_ms: 4.1, figure: "TTFT", reported_ms: 100.0 }]);
        assert!(added[0].to_string().contains("4.10 ms (p99) too long"));
    }
}
