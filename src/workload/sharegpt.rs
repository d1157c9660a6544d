//! Requests chosen out of a ShareGPT file as LMDeploy's scripts chose them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rayon::prelude::*;

use super::conversation::{Conversation, Turn};
use super::counter::Counter;
use super::counts::{Counting, Fitting};
use super::python_random::{NumpyRandom, PythonRandom};
use super::{Content, Prompt, Tokenizer, WorkloadError};
use crate::spec::{Arrival, LoadPoint, Method, Sampler, Volume};

/// Prompts and answers with fewer tokens are left out.
const FEWEST: u32 = 4;
const LONGEST_PROMPT: u32 = 1024;
const LONGEST_TOGETHER: u32 = 2048;
/// The middle generation draws at least so many conversations before it looks at their lengths.
const FEWEST_DRAWN: usize = 1000;
/// From the warm-up to the first measured request, in the script of today.
const PAUSE_AFTER_WARMUP_S: f64 = 1.5;
/// Conversations counted at a time where not all of them are.
const COUNTED_AT_A_TIME: usize = 2048;

/// What a script sends for `point`, and when it is due if the script says so. Its warm-up, if it has one, sends the
/// first of the requests beforehand. Blocks; uses all cores.
#[expect(clippy::type_complexity, reason = "the two halves of a workload")]
pub(super) fn chosen(
    point: &LoadPoint,
    sampler: Sampler,
    conversations: &[Conversation],
    counting: &Counting,
    tokenizer: &Tokenizer,
) -> Result<(Vec<Prompt>, Option<Arc<[u64]>>), WorkloadError> {
    let Volume::Requests(requests) = point.volume else {
        return Err(WorkloadError::NoNumber { phase: point.phase.clone() });
    };
    let choice = Choice {
        sampler,
        requests: usize::try_from(requests).unwrap_or(usize::MAX),
        // As the script's: the same for all load points.
        seed: point.prompt_seed,
        output_tokens: point.output.tokens.number(),
        conversations,
        counting,
        tokenizer,
    };
    let prompts = choice.prompts()?;
    let warmup = usize::try_from(point.warmup_requests).unwrap_or(usize::MAX);
    let repeated = prompts.iter().cycle().take(if prompts.is_empty() { 0 } else { warmup });
    Ok((repeated.chain(&prompts).cloned().collect(), moments(point, requests)))
}

/// Nanoseconds from the beginning at which the requests of a script with gaps of its own are due.
fn moments(point: &LoadPoint, requests: u64) -> Option<Arc<[u64]>> {
    let (Some(Method::Serving), Arrival::Open { rate, .. }) = (point.method, &point.arrival) else { return None };
    #[expect(clippy::cast_possible_truncation, reason = "numpy's seeds have 32 bits")]
    let mut random = NumpyRandom::seeded(point.prompt_seed as u32);
    let mut next_s = if point.warmup_requests > 0 { PAUSE_AFTER_WARMUP_S } else { 0.0 };
    let mut due_ns = vec![0; usize::try_from(point.warmup_requests).unwrap_or_default()];
    for _ in 0..requests {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "no moment is negative or that late"
        )]
        due_ns.push((next_s * 1e9) as u64);
        next_s += random.exponential(1.0 / rate);
    }
    Some(due_ns.into())
}

struct Choice<'a> {
    sampler: Sampler,
    requests: usize,
    seed: u64,
    /// Stands in for the length of every answer, and lifts the bound on prompt and answer together.
    output_tokens: Option<u32>,
    conversations: &'a [Conversation],
    counting: &'a Counting,
    tokenizer: &'a Tokenizer,
}

impl Choice<'_> {
    /// The requests in the script's order.
    fn prompts(&self) -> Result<Vec<Prompt>, WorkloadError> {
        let mut random = PythonRandom::seeded(self.seed);
        let mut order: Vec<usize> = (0..self.conversations.len()).collect();
        let fitting = match self.sampler {
            Sampler::AllThenDraw => self.all_fitting(&order)?,
            Sampler::DrawTwice => {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Python's int()")]
                let drawn = ((self.requests as f64 * 1.2) as usize).max(FEWEST_DRAWN);
                order = random.sample(order.len(), drawn).ok_or_else(|| too_few(order.len(), drawn))?;
                self.fitting(&order)?
            }
            Sampler::Shuffle => {
                random.shuffle(&mut order);
                return Ok(self.first_fitting(&order)?.into_iter().map(|it| self.prompt(it)).collect());
            }
        };
        let chosen = random.sample(fitting.len(), self.requests);
        let chosen = chosen.ok_or_else(|| too_few(fitting.len(), self.requests))?;
        Ok(chosen.into_iter().map(|at| self.prompt(fitting[at])).collect())
    }

    fn first_fitting(&self, order: &[usize]) -> Result<Vec<Fitting>, WorkloadError> {
        let mut found = Vec::new();
        for some in order.chunks(COUNTED_AT_A_TIME) {
            found.extend(self.fitting(some)?);
            if found.len() >= self.requests {
                found.truncate(self.requests);
                return Ok(found);
            }
        }
        Err(too_few(found.len(), self.requests))
    }

    /// As [`Self::fitting`]; what was counted before is not counted again.
    fn all_fitting(&self, order: &[usize]) -> Result<Vec<Fitting>, WorkloadError> {
        match &self.counting.kept {
            Some(kept) => kept.or_count(self.tokenizer, self.output_tokens, order.len(), || self.fitting(order)),
            None => self.fitting(order),
        }
    }

    /// Those of these conversations whose lengths fit, in this order.
    fn fitting(&self, order: &[usize]) -> Result<Vec<Fitting>, WorkloadError> {
        let with_special = self.sampler == Sampler::Shuffle;
        let part = |part: &[usize]| {
            let mut counter = Counter::new(self.tokenizer, with_special)?;
            let mut found = Vec::new();
            for &at in part {
                found.extend(self.lengths(at, &mut counter)?);
                self.counting.done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(found)
        };
        // A part for each core: a counter is the faster the more it has seen.
        let parts = order.par_chunks(order.len().div_ceil(rayon::current_num_threads()).max(1)).map(part);
        Ok(parts.collect::<Result<Vec<_>, WorkloadError>>()?.concat())
    }

    fn lengths<'c>(&'c self, at: usize, counter: &mut Counter<'c>) -> Result<Option<Fitting>, WorkloadError> {
        let [Turn { content: Content::Text(text), answer: Some(answer), .. }] = &*self.conversations[at].turns else {
            return Ok(None);
        };
        let Some(input) = counter.count(text, LONGEST_PROMPT)?.filter(|&input| input >= FEWEST) else {
            return Ok(None);
        };
        let output = match self.output_tokens {
            Some(output) => Some(output),
            None => counter.count(answer, LONGEST_TOGETHER - input)?,
        };
        Ok(output.filter(|&output| output >= FEWEST).map(|output| Fitting(at, input, output)))
    }

    fn prompt(&self, fitting: Fitting) -> Prompt {
        let text = self.conversations[fitting.at()].turns[0].content.text().into_owned();
        let prompt = Prompt::of_text(text, Some(fitting.input_tokens()));
        Prompt { output_tokens: Some(fitting.output_tokens()), ..prompt }
    }
}

fn too_few(found: usize, wanted: usize) -> WorkloadError {
    WorkloadError::TooFew { found, wanted }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Data, OutputTokens, Spacing};
    use crate::workload::fixture::{loaded, point, words};

    /// Conversations without every tenth, which has one entry only; each prompt begins with its number.
    fn conversations() -> Vec<Conversation> {
        let talk = |index: usize| {
            let prompt = [index.to_string(), " dog".repeat(index * 37 % 1100)].concat();
            let answer = vec!["fox"; index * 53 % 1500 + 1].join(" ");
            let turn = Turn { content: Content::Text(prompt), answer: Some(answer), output_tokens: None };
            Conversation { turns: vec![turn] }
        };
        (0..1700).filter(|index| index % 10 != 9).map(talk).collect()
    }

    fn number(prompt: &Prompt) -> usize {
        prompt.content.text().split(' ').next().unwrap().parse().unwrap()
    }

    /// Number and lengths of the first prompts, and a sum over all in their order.
    type Shown = (Vec<(usize, u32, u32)>, usize);

    fn shown(prompts: &[Prompt]) -> Shown {
        let lengths = |it: &Prompt| (number(it), it.input_tokens.unwrap(), it.output_tokens.unwrap());
        let sum: usize = prompts.iter().zip(1..).map(|(prompt, place)| place * number(prompt)).sum();
        (prompts[..4].iter().map(lengths).collect(), sum % 1_000_003)
    }

    /// Printed by `sample_requests` and `sample_sharegpt_requests` of the scripts, with a tokenizer that
    /// splits at spaces.
    #[test]
    fn the_same_seed_gives_the_same_prompts_in_the_same_order_as_the_script() {
        let (conversations, tokenizer) = (conversations(), loaded(&words()));
        let check = |sampler, seed, output_tokens, expected: [(usize, u32, u32); 4], sum| {
            let (conversations, counting) = (&conversations, &Counting::default());
            let choice =
                Choice { sampler, requests: 200, seed, output_tokens, conversations, counting, tokenizer: &tokenizer };
            assert_eq!(shown(&choice.prompts().unwrap()), (expected.to_vec(), sum), "{sampler:?}");
        };
        let first = [(1023, 452, 220), (1111, 408, 384), (115, 956, 96), (696, 453, 889)];
        check(Sampler::AllThenDraw, 0, None, first, 863_568);
        let first = [(1332, 885, 97), (1614, 319, 43), (545, 366, 386), (436, 733, 609)];
        check(Sampler::DrawTwice, 0, None, first, 250_748);
        let first = [(935, 496, 56), (175, 976, 276), (905, 486, 1466), (615, 756, 1096)];
        check(Sampler::Shuffle, 1, None, first, 503_528);
        let first = [(935, 496, 16), (175, 976, 16), (905, 486, 16), (615, 756, 16)];
        check(Sampler::Shuffle, 1, Some(16), first, 447_994);
    }

    #[test]
    fn too_few_are_an_error() {
        let (conversations, tokenizer) = (conversations(), loaded(&words()));
        for (sampler, requests, expected) in [
            (Sampler::AllThenDraw, 5000, "conversations of fitting length are fewer than the 5000"),
            (Sampler::DrawTwice, 1500, "1530 conversations of fitting length are fewer than the 1800"),
            (Sampler::Shuffle, 5000, "conversations of fitting length are fewer than the 5000"),
        ] {
            let (conversations, counting, tokenizer) = (&conversations, &Counting::default(), &tokenizer);
            let choice = Choice { sampler, requests, seed: 0, output_tokens: None, conversations, counting, tokenizer };
            let error = choice.prompts().unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_warm_up_sends_the_first_prompt_and_gaps_are_numpys() {
        let (conversations, tokenizer) = (conversations(), loaded(&words()));
        let data = Data::synthetic(1);
        let arrival = Arrival::Open { spacing: Spacing::Poisson, rate: 2.0, max_concurrency: None };
        let mut point = LoadPoint { prompt_seed: 1, arrival, method: Some(Method::Serving), ..point(data) };
        point.output.tokens = OutputTokens::FROM_DATA;
        let (prompts, due_ns) =
            chosen(&point, Sampler::Shuffle, &conversations, &Counting::default(), &tokenizer).unwrap();
        assert_eq!(prompts.iter().map(number).collect::<Vec<_>>(), [935, 935, 175, 905]);
        let due_s: Vec<f64> = due_ns.unwrap().iter().map(|&ns| ns as f64 / 1e9).collect();
        for (due, expected) in due_s.iter().zip([0.0, 1.5, 1.769_802_918, 2.406_865_544]) {
            assert!((due - expected).abs() < 1e-8, "{due_s:?}");
        }
    }
}
