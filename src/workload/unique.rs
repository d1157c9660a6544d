//! Random tokens before prompts that are sent more than once, so that no prefix cache answers for them.

use std::collections::HashSet;

use rayon::prelude::*;

use super::WorkloadError;
use super::draw::Purpose;
use super::prompt::{Content, Prompt};
use super::synthetic::{DRAWS, Wanted, Writer};

/// What stands between the random tokens and the prompt, and how many tokens it most likely is. Which of them keeps the
/// prompt's own tokens as they are depends on the tokenizer.
const SEPARATORS: [(&str, u32); 3] = [("\n", 1), (" ", 0), ("", 0)];

/// Puts exactly `tokens` tokens before each conversation of `prompts`, none of them twice. The prompts are counted.
pub(super) fn prepend(
    writer: &Writer<'_>,
    prompts: &mut [Prompt],
    tokens: u32,
    seed: u64,
) -> Result<(), WorkloadError> {
    let task =
        |(index, prompt): (usize, &Prompt)| Task { writer, tokens, seed, index, text: prompt.content.text().into() };
    let first: Vec<Option<Drawn>> = prompts
        .par_iter()
        .enumerate()
        .map(|(index, prompt)| if prompt.turn == 0 { task((index, prompt)).draw(0) } else { Ok(None) })
        .collect::<Result<_, _>>()?;
    let mut seen = HashSet::new();
    for ((index, prompt), drawn) in prompts.iter_mut().enumerate().zip(first) {
        if prompt.turn > 0 {
            continue;
        }
        let mut drawn = drawn;
        let prefix = loop {
            let Some(Drawn { prefix, attempt }) = drawn else {
                let path = writer.tokenizer.path().to_owned();
                return Err(WorkloadError::UniquePrefix { path, prompt: index + 1, tokens });
            };
            if seen.insert(prefix.clone()) {
                break prefix;
            }
            drawn = task((index, prompt)).draw(attempt + 1)?;
        };
        put_before(&prefix, prompt, tokens);
    }
    Ok(())
}

fn put_before(prefix: &str, prompt: &mut Prompt, tokens: u32) {
    let first = match &mut prompt.content {
        Content::Text(text) => Some(text),
        Content::Tokens(_) => None,
        Content::Messages(messages) => messages.first_mut().map(|message| &mut message.content),
    };
    if let Some(text) = first {
        text.insert_str(0, prefix);
    }
    prompt.input_tokens = prompt.input_tokens.map(|own| own.saturating_add(tokens));
}

struct Drawn {
    prefix: String,
    attempt: u64,
}

/// One prompt that a prefix is looked for.
struct Task<'t> {
    writer: &'t Writer<'t>,
    tokens: u32,
    seed: u64,
    index: usize,
    text: String,
}

impl Task<'_> {
    /// The first draw from `attempt` on that lengthens the prompt by exactly the tokens asked for.
    fn draw(&self, attempt: u64) -> Result<Option<Drawn>, WorkloadError> {
        let tokenizer = self.writer.tokenizer;
        let wanted = tokenizer.count(&self.text)?.saturating_add(self.tokens);
        for attempt in attempt..DRAWS {
            let (separator, of_separator) = SEPARATORS[usize::try_from(attempt % 3).unwrap_or_default()];
            let random = Purpose::UniquePrefix.generator(self.seed, self.index as u64, attempt);
            let tokens = self.tokens.saturating_sub(of_separator).max(1);
            let Some(words) = self.writer.exact(&Wanted { tokens, ..Wanted::default() }, random)? else { continue };
            let prefix = words + separator;
            if tokenizer.count(&format!("{prefix}{}", self.text))? == wanted {
                return Ok(Some(Drawn { prefix, attempt }));
            }
        }
        Ok(None)
    }
}
