use super::families::Family;
use super::sent::{Sent, Tokens};
use super::snapshot::Window;
use crate::record::Check;

/// Fewer samples than this say nothing of a mean.
const LEAST_SAMPLES: usize = 10;
/// By how much our own count of a text may differ from the server's, of the whole.
const RECOUNTED_SHARE: f64 = 0.02;
/// How far concurrency may be from what Little's law says, of the whole and in requests.
const LITTLE_SHARE: f64 = 0.1;
const LITTLE_REQUESTS: f64 = 0.5;

/// The client's counts against the server's, over all requests of the load point. `in_flight` holds the requests that
/// the server had at each second of the observation's clock.
pub(super) fn checks(all: &Window, family: &Family, sent: &Sent, in_flight: &[(f64, f64)]) -> Vec<Check> {
    vec![
        requests(all.count(family.requests), sent),
        tokens("input_tokens", all.count(family.prompt_tokens), sent, sent.input_tokens),
        tokens("output_tokens", all.count(family.generation_tokens), sent, sent.output_tokens),
        littles_law(sent, in_flight),
    ]
}

/// What went wrong may or may not have reached the server.
fn requests(counted: Option<f64>, sent: &Sent) -> Check {
    let most = sent.all() + sent.repeats;
    let ok = counted.map(|counted| (sent.ok as f64..=most as f64).contains(&counted));
    Check { name: "requests".to_owned(), ok, server: counted, client: Some(sent.all() as f64) }
}

/// Exact where the server counted for us too. Otherwise a token a request, or 2 %, may be between the two: special tokens,
/// and texts that encode to other tokens than they were decoded from.
fn tokens(name: &str, counted: Option<f64>, sent: &Sent, tokens: Tokens) -> Check {
    let is_known = sent.not_ok == 0 && sent.repeats == 0 && tokens.missing == 0;
    let client = is_known.then_some(tokens.sum as f64);
    let tolerance = match tokens.counted_here {
        0 => 0.0,
        requests => (requests as f64).max(tokens.sum as f64 * RECOUNTED_SHARE),
    };
    let ok = counted.zip(client).map(|(server, client)| (server - client).abs() <= tolerance);
    Check { name: name.to_owned(), ok, server: counted, client }
}

/// Mean requests in the server = their rate x their mean time in it. The right side is what the client saw: the sum of
/// end - sent over the measured window.
fn littles_law(sent: &Sent, in_flight: &[(f64, f64)]) -> Check {
    let mut check = Check { name: "littles_law".to_owned(), ok: None, server: None, client: None };
    let Some((first, last)) = sent.measured_s().filter(|(first, last)| last > first) else { return check };
    let expected = sent.under_way_ns as f64 / 1e9 / (last - first);
    check.client = Some(expected);
    let seen: Vec<f64> =
        in_flight.iter().filter(|(at, _)| (first..=last).contains(at)).map(|&(_, requests)| requests).collect();
    if seen.len() < LEAST_SAMPLES {
        return check;
    }
    let count = seen.len() as f64;
    let mean = seen.iter().sum::<f64>() / count;
    let variance = seen.iter().map(|requests| (requests - mean).powi(2)).sum::<f64>() / count;
    // Three standard errors: samples of a load that swings differ by chance.
    let tolerance = LITTLE_REQUESTS + LITTLE_SHARE * expected + 3.0 * (variance / count).sqrt();
    check.server = Some(mean);
    check.ok = Some((mean - expected).abs() <= tolerance);
    check
}
