use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use rayon::prelude::*;

use super::conversation::{Conversation, Turn};
use super::draw::{Draws, Purpose};
use super::prompt::{Content, Prompt, Workload};
use super::python_random::NumpyRandom;
use super::quota::{Groups, MOST_PROMPTS, Quota, measured_requests};
use super::source::Held;
use super::synthetic::{Wanted, Writer};
use super::trace::{BLOCK, Recorded};
use super::{Source, Tokenizer, WorkloadError, sharegpt, unique};
use crate::spec::{
    Amount, Arrival, Data, FromData, LoadPoint, Method, OutputTokens, PromptFile, SharedPrefix, Synthetic, Volume,
};

/// Everything that `point` sends: a pure function of the point, of the file that its data name, and of the tokenizer or
/// why there is none. Blocks; uses all cores.
pub fn make(
    point: &LoadPoint,
    source: Option<&Source>,
    tokenizer: Result<&Tokenizer, &str>,
) -> Result<Workload, WorkloadError> {
    let recipe = Recipe { point, seed: point.own_prompt_seed(), tokenizer };
    let counting = source.map(|source| &source.counting);
    let (mut prompts, due_ns) = match (&point.data, source.map(|source| &source.content)) {
        (Data::Synthetic(synthetic), _) => (recipe.random(synthetic)?, None),
        (Data::Sharegpt(PromptFile { sampler: Some(sampler), .. }), Some(Held::Conversations(conversations))) => {
            let counting = counting.cloned().unwrap_or_default();
            sharegpt::chosen(point, *sampler, conversations, &counting, recipe.tokenizer()?)?
        }
        (
            Data::Jsonl(file) | Data::Sharegpt(file) | Data::HfDataset(file) | Data::Csv(file),
            Some(Held::Conversations(conversations)),
        ) => (recipe.given(file, conversations)?, None),
        (Data::Trace(_), Some(Held::Trace(requests))) => recipe.recorded(requests)?,
        (
            Data::Jsonl(_) | Data::Sharegpt(_) | Data::HfDataset(_) | Data::Csv(_) | Data::Trace(_),
            Some(Held::Conversations(_) | Held::Trace(_)) | None,
        ) => return Err(WorkloadError::NotRead { phase: point.phase.clone() }),
    };
    recipe.lengthen_answers(&mut prompts)?;
    Ok(Workload { prompts: prompts.into(), due_ns })
}

struct Recipe<'a> {
    point: &'a LoadPoint,
    seed: u64,
    tokenizer: Result<&'a Tokenizer, &'a str>,
}

/// One turn of a synthetic conversation.
struct Shape {
    turn: u32,
    tokens: u32,
    think_time: Duration,
    /// The shared prefix that it begins with.
    group: Option<usize>,
}

impl<'a> Recipe<'a> {
    fn tokenizer(&self) -> Result<&'a Tokenizer, WorkloadError> {
        let none =
            |reason: &str| WorkloadError::NoTokenizer { phase: self.point.phase.clone(), reason: reason.to_owned() };
        self.tokenizer.map_err(none)
    }

    fn random(&self, synthetic: &Synthetic) -> Result<Vec<Prompt>, WorkloadError> {
        let mut shapes = self.shapes(synthetic)?;
        if matches!(self.point.method, Some(Method::Static | Method::StaticA1)) {
            // The script sends one prompt over and over.
            shapes.truncate(1);
        }
        if synthetic.token_ids {
            return Ok(self.token_ids(&shapes));
        }
        let shared = synthetic.prefix.as_ref().map_or(0, |prefix| prefix.tokens);
        let single = shapes.iter().filter(|shape| shape.tokens == 1 + shape.group.map_or(0, |_| shared)).count();
        let writer = Writer::new(self.tokenizer()?, single)?;
        let starts = synthetic.prefix.as_ref().map_or_else(|| Ok(Vec::new()), |prefix| self.starts(&writer, prefix))?;
        let wanted: Vec<Wanted> = shapes
            .iter()
            .map(|shape| Wanted {
                start: shape.group.map(|group| starts[group].clone()).unwrap_or_default(),
                tokens: shape.tokens,
            })
            .collect();
        let texts = writer.different(&wanted, self.seed)?;
        let prompt = |(shape, text): (&Shape, String)| Prompt {
            turn: shape.turn,
            think_time: shape.think_time,
            ..Prompt::of_text(text, Some(shape.tokens))
        };
        Ok(shapes.iter().zip(texts).map(prompt).collect())
    }

    /// Ids as LMDeploy's script draws them, whatever they mean to the model.
    fn token_ids(&self, shapes: &[Shape]) -> Vec<Prompt> {
        #[expect(clippy::cast_possible_truncation, reason = "numpy's seeds have 32 bits")]
        let mut random = NumpyRandom::seeded(self.point.prompt_seed as u32);
        let prompt = |shape: &Shape| {
            let ids = (0..shape.tokens).map(|_| random.integer(0, 101)).collect();
            Prompt { content: Content::Tokens(ids), ..Prompt::of_text(String::new(), Some(shape.tokens)) }
        };
        shapes.iter().map(prompt).collect()
    }

    fn shapes(&self, synthetic: &Synthetic) -> Result<Vec<Shape>, WorkloadError> {
        let mut tokens = Draws::new(&synthetic.isl, Purpose::InputTokens, self.seed)?;
        let mut turns = Draws::new(&synthetic.turns, Purpose::Turns, self.seed)?;
        let mut pauses = self.pauses(synthetic.think_time_ms.as_ref())?;
        let mut groups = Groups::new(synthetic.prefix.as_ref(), self.seed);
        let (mut shapes, mut quota) = (Vec::new(), Quota::of(self.point));
        while quota.is_open() {
            let (group, turns) = (groups.next(), turns.next());
            quota.take(u64::from(turns));
            for turn in 0..turns {
                let group = group.filter(|_| turn == 0);
                let least = group.and(synthetic.prefix.as_ref()).map_or(1, |prefix| prefix.tokens.saturating_add(1));
                let think_time = if turn == 0 { Duration::ZERO } else { pauses() };
                shapes.push(Shape { turn, tokens: tokens.next().max(least), think_time, group });
            }
        }
        Ok(shapes)
    }

    fn pauses(&self, think_time_ms: Option<&Amount>) -> Result<impl FnMut() -> Duration + use<>, WorkloadError> {
        let mut draws = think_time_ms.map(|amount| Draws::new(amount, Purpose::ThinkTime, self.seed)).transpose()?;
        Ok(move || draws.as_mut().map_or(Duration::ZERO, |draws| Duration::from_millis(u64::from(draws.next()))))
    }

    /// The tokens of each shared prefix.
    fn starts(&self, writer: &Writer<'_>, prefix: &SharedPrefix) -> Result<Vec<Arc<[u32]>>, WorkloadError> {
        let wanted = vec![Wanted { start: Arc::default(), tokens: prefix.tokens }; prefix.groups as usize];
        // Another seed than that of prompts which may be as long.
        let seed = Purpose::Prefix.generator(self.seed, 0, 1).random();
        let texts = writer.different(&wanted, seed)?;
        texts.iter().map(|text| Ok(writer.tokenizer.encode(text)?.into())).collect()
    }

    fn given(&self, file: &PromptFile, conversations: &[Conversation]) -> Result<Vec<Prompt>, WorkloadError> {
        let needs_tokenizer = self.point.output.tokens == OutputTokens::FROM_DATA || file.unique_prefix.is_some();
        let tokenizer = if needs_tokenizer { Some(self.tokenizer()?) } else { self.tokenizer.ok() };
        let mut pauses = self.pauses(file.think_time_ms.as_ref())?;
        let mut turns = Vec::new();
        for conversation in self.chosen(file, conversations) {
            for (turn, number) in conversation.turns.iter().zip(0..) {
                turns.push((turn, number, if number == 0 { Duration::ZERO } else { pauses() }));
            }
        }
        let mut prompts: Vec<Prompt> = turns
            .into_par_iter()
            .map(|(turn, number, think_time)| {
                let input_tokens = tokenizer.map(|tokenizer| tokenizer.count(&turn.content.text())).transpose()?;
                let output_tokens = self.stated_length(turn, tokenizer)?;
                Ok(Prompt { content: turn.content.clone(), input_tokens, output_tokens, turn: number, think_time })
            })
            .collect::<Result<_, WorkloadError>>()?;
        if let Some(tokens) = file.unique_prefix {
            unique::prepend(&Writer::new(self.tokenizer()?, 0)?, &mut prompts, tokens, self.seed)?;
        }
        Ok(prompts)
    }

    /// As many conversations as are needed; by time all of them. A file is used again only where repeats differ.
    fn chosen<'c>(&self, file: &PromptFile, conversations: &'c [Conversation]) -> Vec<&'c Conversation> {
        let by_time = matches!(self.point.volume, Volume::DurationS(_));
        let (mut chosen, mut quota) = (Vec::new(), Quota::of(self.point));
        for (number, conversation) in conversations.iter().cycle().enumerate() {
            let is_new = number < conversations.len();
            let is_needed = quota.is_open() || (by_time && is_new);
            if !is_needed || !(is_new || file.unique_prefix.is_some()) {
                break;
            }
            quota.take(conversation.turns.len() as u64);
            chosen.push(conversation);
        }
        chosen
    }

    /// What the file says of the answer's length, where it is asked or says it in so many words.
    fn stated_length(&self, turn: &Turn, tokenizer: Option<&Tokenizer>) -> Result<Option<u32>, WorkloadError> {
        let counts = turn.output_tokens.is_none() && self.point.output.tokens == OutputTokens::FROM_DATA;
        match (&turn.answer, tokenizer) {
            (Some(answer), Some(tokenizer)) if counts => Ok(Some(tokenizer.count(answer)?.max(1))),
            _ => Ok(turn.output_tokens),
        }
    }

    /// Prompts of the recorded lengths, and when they are due if the load point replays that.
    #[expect(clippy::type_complexity, reason = "the two halves of a workload")]
    fn recorded(&self, requests: &[Recorded]) -> Result<(Vec<Prompt>, Option<Arc<[u64]>>), WorkloadError> {
        let sent = self.sent_of(requests)?;
        let writer = Writer::new(self.tokenizer()?, 0)?;
        let prompts = sent
            .par_iter()
            .enumerate()
            .map(|(index, request)| {
                let text = self.recorded_text(&writer, index, request)?;
                let output_tokens = Some(request.output_tokens);
                Ok(Prompt { output_tokens, ..Prompt::of_text(text, Some(request.input_tokens)) })
            })
            .collect::<Result<_, WorkloadError>>()?;
        let replays = matches!(self.point.arrival, Arrival::Trace { .. });
        Ok((prompts, replays.then(|| sent.iter().map(|request| request.due_ns).collect())))
    }

    fn sent_of<'r>(&self, requests: &'r [Recorded]) -> Result<&'r [Recorded], WorkloadError> {
        let Arrival::Trace { speed, .. } = self.point.arrival else {
            let needed = measured_requests(self.point).saturating_add(self.point.warmup_requests).min(MOST_PROMPTS);
            return Ok(&requests[..usize::try_from(needed).map_or(requests.len(), |needed| needed.min(requests.len()))]);
        };
        let count = match self.point.volume {
            Volume::Requests(count) => usize::try_from(count + self.point.warmup_requests).unwrap_or(usize::MAX),
            Volume::DurationS(seconds) => {
                requests.partition_point(|request| request.due_ns as f64 / speed <= seconds * 1e9)
            }
        };
        let sent = &requests[..count.min(requests.len())];
        if sent.len() as u64 > MOST_PROMPTS {
            return Err(WorkloadError::TooMany { requests: sent.len(), most: MOST_PROMPTS });
        }
        Ok(sent)
    }

    /// Equal hash ids are equal tokens; a request without them is like no other.
    fn recorded_text(&self, writer: &Writer<'_>, index: usize, request: &Recorded) -> Result<String, WorkloadError> {
        let tokens = request.input_tokens as usize;
        let mut planned = Vec::with_capacity(tokens);
        for &hash_id in &request.hash_ids {
            let mut random = Purpose::HashId.generator(self.seed, hash_id, 0);
            planned.extend(writer.planned(&mut random, BLOCK.min(tokens - planned.len()))?);
        }
        let mut random = match request.hash_ids.last() {
            Some(&last) => Purpose::HashId.generator(self.seed, last, 1),
            None => Purpose::InputTokens.generator(self.seed, index as u64, 1),
        };
        planned.extend(writer.planned(&mut random, tokens - planned.len())?);
        match writer.repaired(planned, &mut random)? {
            Some((text, _)) => Ok(text),
            None => Err(writer.impossible(1, request.input_tokens, "repairing one does not end")),
        }
    }

    /// Gives each prompt a length for its answer where the load point has none for all.
    fn lengthen_answers(&self, prompts: &mut [Prompt]) -> Result<(), WorkloadError> {
        match &self.point.output.tokens {
            OutputTokens::Amount(Amount::Fixed(_)) => {}
            OutputTokens::Amount(amount @ Amount::Drawn(_)) => {
                let mut draws = Draws::new(amount, Purpose::OutputTokens, self.seed)?;
                for prompt in prompts {
                    let drawn = draws.next();
                    prompt.output_tokens.get_or_insert(drawn);
                }
            }
            OutputTokens::Data(FromData::FromData) => {
                if let Some(index) = prompts.iter().position(|prompt| prompt.output_tokens.is_none()) {
                    return Err(WorkloadError::NoAnswerLength { prompt: index + 1 });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::fs;

    use super::*;
    use crate::spec::{Bounds, Distribution, TraceFile, TraceFormat, Turns};
    use crate::workload::AnswerLengths;
    use crate::workload::fixture::{byte_level, loaded, metaspace, point, words};

    fn source(data: &Data, content: &str) -> Source {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, content).unwrap();
        Source::read(data, AnswerLengths::Optional, &path).unwrap().unwrap()
    }

    fn made(point: &LoadPoint, source: Option<&Source>, tokenizer: &Tokenizer) -> Workload {
        let workload = make(point, source, Ok(tokenizer)).unwrap();
        assert_eq!(workload.hash(point), make(point, source, Ok(tokenizer)).unwrap().hash(point), "it is repeatable");
        for prompt in workload.prompts.iter() {
            assert_eq!(prompt.input_tokens, Some(tokenizer.count(&prompt.content.text()).unwrap()), "{prompt:?}");
        }
        workload
    }

    fn uniform(min: u32, max: u32) -> Amount {
        Amount::Drawn(Distribution::Uniform(Bounds { min, max }))
    }

    fn texts(workload: &Workload) -> Vec<String> {
        workload.prompts.iter().map(|prompt| prompt.content.text().into_owned()).collect()
    }

    #[test]
    fn conversations_have_the_drawn_turns_lengths_and_pauses() {
        let synthetic = Synthetic {
            isl: uniform(5, 9),
            prefix: None,
            turns: Amount::Fixed(3),
            think_time_ms: Some(uniform(10, 20)),
            token_ids: false,
        };
        let mut point = LoadPoint { volume: Volume::Requests(40), ..point(Data::Synthetic(synthetic)) };
        point.output.tokens = OutputTokens::Amount(uniform(2, 6));
        let workload = made(&point, None, &loaded(&byte_level()));
        assert_eq!(workload.prompts.len(), 3 + 42, "whole conversations, for the warm-up too");
        let lengths: HashSet<u32> = workload.prompts.iter().filter_map(|prompt| prompt.input_tokens).collect();
        assert_eq!(lengths, (5..=9).collect());
        let answers: HashSet<u32> = workload.prompts.iter().filter_map(|prompt| prompt.output_tokens).collect();
        assert_eq!(answers, (2..=6).collect());
        for (prompt, index) in workload.prompts.iter().zip(0..) {
            assert_eq!(prompt.turn, index % 3);
            let pause = prompt.think_time.as_millis();
            assert!(if prompt.turn == 0 { pause == 0 } else { (10..=20).contains(&pause) }, "{prompt:?}");
        }
        assert_eq!(texts(&workload).iter().collect::<HashSet<_>>().len(), 45, "all are different");
    }

    #[test]
    fn the_stated_share_of_prompts_begins_with_the_same_tokens() {
        let prefix = Some(SharedPrefix { tokens: 16, groups: 2, share: 0.75 });
        let synthetic = Synthetic {
            isl: Amount::Fixed(24),
            prefix,
            turns: Amount::Fixed(1),
            think_time_ms: None,
            token_ids: false,
        };
        let point = LoadPoint { volume: Volume::Requests(39), ..point(Data::Synthetic(synthetic)) };
        for tokenizer in [byte_level(), metaspace(), words()].map(|tokenizer| loaded(&tokenizer)) {
            let workload = made(&point, None, &tokenizer);
            let mut groups: HashMap<Vec<u32>, usize> = HashMap::new();
            for prompt in workload.prompts.iter() {
                assert_eq!(prompt.input_tokens, Some(24));
                let ids = tokenizer.encode(&prompt.content.text()).unwrap();
                *groups.entry(ids[..16].to_vec()).or_default() += 1;
            }
            let mut shared: Vec<usize> = groups.into_values().filter(|&count| count > 1).collect();
            assert_eq!((shared.len(), shared.iter().sum::<usize>()), (2, 30), "{shared:?}");
            shared.clear();
        }
    }

    const TALKS: &str = "{\"messages\": [{\"role\": \"user\", \"content\": \"the quick fox\"}, \
        {\"role\": \"assistant\", \"content\": \"jumps over the dog\"}, {\"role\": \"user\", \"content\": \"and then\"}, \
        {\"role\": \"assistant\", \"content\": \"a\"}]}\n{\"prompt\": \"the turtle reads\", \"output_tokens\": 9}\n";

    fn talks(turns: Turns, unique_prefix: Option<u32>) -> Data {
        let file = PromptFile::at("talks.jsonl".into());
        Data::Jsonl(PromptFile { turns: Some(turns), unique_prefix, ..file })
    }

    #[test]
    fn answers_are_as_long_as_the_data_say() {
        let mut point = point(talks(Turns::All, None));
        point.output.tokens = OutputTokens::FROM_DATA;
        let source = source(&point.data, TALKS);
        let workload = made(&point, Some(&source), &loaded(&words()));
        let turns: Vec<_> = workload.prompts.iter().map(|prompt| (prompt.turn, prompt.output_tokens)).collect();
        assert_eq!(turns, [(0, Some(4)), (1, Some(1)), (0, Some(9))]);
        point.output.tokens = OutputTokens::fixed(5);
        let workload = made(&point, Some(&source), &loaded(&words()));
        let lengths: Vec<u32> = workload.prompts.iter().map(|prompt| prompt.answer_tokens(&point.output)).collect();
        assert_eq!(lengths, [5, 5, 9], "a line's own length goes before the load point's");
    }

    #[test]
    fn a_unique_prefix_lengthens_every_conversation_by_the_stated_tokens() {
        for tokenizer in [byte_level(), metaspace(), words()].map(|tokenizer| loaded(&tokenizer)) {
            let plain = LoadPoint { volume: Volume::Requests(3), ..point(talks(Turns::All, None)) };
            let source = source(&plain.data, TALKS);
            let before = made(&plain, Some(&source), &tokenizer);
            let point = LoadPoint { volume: Volume::Requests(20), ..point(talks(Turns::All, Some(6))) };
            let after = made(&point, Some(&source), &tokenizer);
            assert_eq!(before.prompts.len(), 3);
            assert!(after.prompts.len() > 20, "the file is used again");
            let mut seen = HashSet::new();
            for (prompt, index) in after.prompts.iter().zip(0..) {
                let old = &before.prompts[index % 3];
                let grown = if prompt.turn == 0 { 6 } else { 0 };
                assert_eq!(prompt.input_tokens, old.input_tokens.map(|tokens| tokens + grown));
                assert!(prompt.content.text().ends_with(&*old.content.text()));
                assert!(prompt.turn > 0 || seen.insert(prompt.content.text().into_owned()), "{prompt:?}");
            }
            let next_round = LoadPoint { round: 2, ..point.clone() };
            assert_ne!(texts(&made(&next_round, Some(&source), &tokenizer))[0], texts(&after)[0]);
        }
    }

    #[test]
    fn a_trace_gives_lengths_moments_and_shared_beginnings() {
        let data = Data::Trace(TraceFile { path: "trace.jsonl".into(), format: TraceFormat::Mooncake });
        let line = |ms: u32, tokens: u32, ids: &str| {
            format!("{{\"timestamp\":{ms},\"input_length\":{tokens},\"output_length\":{ms},\"hash_ids\":[{ids}]}}\n")
        };
        let content = line(10, 1030, "1,2,3") + &line(20, 700, "1,4") + &line(40, 600, "1,4") + &line(90, 5, "");
        let arrival = Arrival::Trace { speed: 2.0, max_concurrency: None };
        let mut point = LoadPoint { arrival, volume: Volume::DurationS(0.015), ..point(data) };
        point.output.tokens = OutputTokens::FROM_DATA;
        let source = source(&point.data, &content);
        let tokenizer = loaded(&words());
        let workload = made(&point, Some(&source), &tokenizer);
        assert_eq!(workload.due_ns.as_deref(), Some(&[0, 10_000_000, 30_000_000][..]), "the last is too late");
        let lengths: Vec<_> = workload.prompts.iter().map(|it| (it.input_tokens, it.output_tokens)).collect();
        assert_eq!(lengths, [(Some(1030), Some(10)), (Some(700), Some(20)), (Some(600), Some(40))]);
        let ids: Vec<Vec<u32>> = texts(&workload).iter().map(|text| tokenizer.encode(text).unwrap()).collect();
        let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        assert!((512..530).contains(&common(&ids[0], &ids[1])));
        assert_eq!(common(&ids[1], &ids[2]), 600);
        point.arrival = Arrival::Closed { concurrency: 1 };
        point.volume = Volume::Requests(10);
        let workload = made(&point, Some(&source), &tokenizer);
        assert_eq!((workload.due_ns, workload.prompts.len()), (None, 4));
    }

    #[test]
    fn what_is_missing_is_said() {
        let tokenizer = loaded(&words());
        let unread = make(&point(talks(Turns::All, None)), None, Ok(&tokenizer)).unwrap_err();
        assert_eq!(unread.to_string(), "the data of phase `load` were not read");
        let lonely = make(&point(Data::synthetic(4)), None, Err("there is none")).unwrap_err();
        assert_eq!(lonely.to_string(), "phase `load` needs the model's tokenizer: there is none");
        let plain = point(talks(Turns::First, None));
        let workload = make(&plain, Some(&source(&plain.data, TALKS)), Err("there is none")).unwrap();
        assert_eq!((workload.prompts.len(), workload.prompts[0].input_tokens), (2, None), "prompts need none");
    }
}
