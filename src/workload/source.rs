use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::WorkloadError;
use super::conversation::{Conversation, Turn, conversation};
use super::counts::{Counting, Kept};
use super::pairs;
use super::rows::{self, Row};
use super::trace::{self, Recorded};
use crate::spec::{Data, PromptFile, Turns};

/// A data file, read and checked.
#[derive(Clone, Debug)]
pub struct Source {
    pub(super) content: Held,
    path: PathBuf,
    left_out: u64,
    pub(super) counting: Counting,
}

/// Whether each row has to say how long its answers are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AnswerLengths {
    Needed,
    Optional,
}

#[derive(Clone, Debug)]
pub(super) enum Held {
    Conversations(Vec<Conversation>),
    Trace(Vec<Recorded>),
}

impl Source {
    /// Reads the file of `data` at `path`; `None` for data without one. Holds the prompts, not the file. Blocks.
    pub fn read<S>(data: &Data<S>, lengths: AnswerLengths, path: &Path) -> Result<Option<Self>, WorkloadError> {
        let history = Reading { turns: Turns::History, lengths, unusable: Unusable::Refuse };
        let (content, left_out) = match data {
            Data::Synthetic(_) => return Ok(None),
            Data::Jsonl(file) | Data::HfDataset(file) => history.read(file, path, rows::json_or_parquet)?,
            Data::Csv(file) => history.read(file, path, rows::csv)?,
            Data::Sharegpt(PromptFile { sampler: Some(_), .. }) => {
                let (pairs, left_out) = pairs::read(path).map_err(|broken| broken.at(path))?;
                (Held::Conversations(pairs), left_out)
            }
            Data::Sharegpt(file) => {
                let first = Reading { turns: Turns::First, lengths, unusable: Unusable::LeaveOut };
                first.read(file, path, rows::json_or_parquet)?
            }
            Data::Trace(file) => {
                let (requests, left_out) = trace::read(file, path)?;
                (Held::Trace(requests), left_out)
            }
        };
        let is_empty = match &content {
            Held::Conversations(conversations) => conversations.is_empty(),
            Held::Trace(requests) => requests.is_empty(),
        };
        if is_empty {
            return Err(WorkloadError::Empty { path: path.to_owned(), needed: needed(data) });
        }
        Ok(Some(Self { content, path: path.to_owned(), left_out, counting: Counting::default() }))
    }

    /// Requests that it makes when each is sent once.
    #[must_use]
    pub fn requests(&self) -> u64 {
        match &self.content {
            Held::Conversations(conversations) => {
                conversations.iter().map(|conversation| conversation.turns.len() as u64).sum()
            }
            Held::Trace(requests) => requests.len() as u64,
        }
    }

    /// Keeps what a sampler counts in a folder, so that no run counts it again; `digest` is the file's.
    pub fn keep_counts(&mut self, folder: PathBuf, digest: String) {
        self.counting.kept = Some(Kept { folder, digest });
    }

    /// How many of its conversations were counted so far.
    #[must_use]
    pub fn counted(&self) -> Arc<AtomicU64> {
        self.counting.done.clone()
    }

    /// What of the file is not sent, in words.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        let what = match &self.content {
            Held::Conversations(_) => {
                "conversations without a message of the user's, or without the answer that is to give the length, are left out"
            }
            Held::Trace(_) => "requests without input or output tokens (failed calls) are left out",
        };
        (self.left_out > 0).then(|| format!("`{}`: {} {what}", self.path.display(), self.left_out))
    }
}

fn needed<S>(data: &Data<S>) -> &'static str {
    match data {
        Data::Synthetic(_) => "nothing",
        Data::Jsonl(_) => r#"one JSON object a line, such as {"text_input": "..."}"#,
        Data::Sharegpt(_) => r#"a JSON list of {"conversations": [{"from": "human", "value": "..."}]}"#,
        Data::HfDataset(_) => "rows with a `prompt`, `messages`, or what `column` names",
        Data::Csv(_) => "a header and a line for each prompt",
        Data::Trace(_) => "a line for each request",
    }
}

type ReadRows = fn(&Path, rows::Take<'_>) -> Result<(), rows::Broken>;

/// How rows become conversations.
struct Reading {
    /// Unless the file's settings say otherwise.
    turns: Turns,
    lengths: AnswerLengths,
    unusable: Unusable,
}

/// What becomes of a row that nothing can be asked with.
#[derive(Clone, Copy)]
enum Unusable {
    Refuse,
    /// The published ShareGPT files have such rows.
    LeaveOut,
}

impl Reading {
    fn read(&self, file: &PromptFile, path: &Path, rows: ReadRows) -> Result<(Held, u64), WorkloadError> {
        let (mut conversations, mut left_out) = (Vec::new(), 0);
        let mut take = |row: Row| {
            match (self.usable(file, &row)?, self.unusable) {
                (Ok(conversation), _) => conversations.push(conversation),
                (Err(reason), Unusable::Refuse) => return Err(reason.to_owned()),
                (Err(_), Unusable::LeaveOut) => left_out += 1,
            }
            Ok(())
        };
        rows(path, &mut take).map_err(|broken| broken.at(path))?;
        Ok((Held::Conversations(conversations), left_out))
    }

    /// The outer error is a mistake in the row, the inner one says why a sound row is of no use.
    fn usable(&self, file: &PromptFile, row: &Row) -> Result<Result<Conversation, &'static str>, String> {
        let turns = file.turns.unwrap_or(self.turns);
        let Some(conversation) = conversation(file, turns, row)? else {
            return Ok(Err("there is no message with text of the role `user`"));
        };
        let known = |turn: &Turn| turn.output_tokens.is_some() || turn.answer.is_some();
        Ok(match self.lengths {
            AnswerLengths::Needed if !conversation.turns.iter().all(known) => {
                Err("nothing says how long the answer is: give `output_tokens`, or an answer")
            }
            AnswerLengths::Needed | AnswerLengths::Optional => Ok(conversation),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;
    use crate::spec::{TraceFile, TraceFormat};
    use crate::workload::Content;

    fn file() -> PromptFile {
        PromptFile::at(PathBuf::new())
    }

    fn trace(format: TraceFormat) -> Data {
        Data::Trace(TraceFile { path: PathBuf::new(), format })
    }

    fn read(data: &Data, lengths: AnswerLengths, content: &[u8]) -> Result<Source, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data");
        fs::write(&path, content).unwrap();
        let source = Source::read(data, lengths, &path);
        source.map(Option::unwrap).map_err(|error| error.to_string().replace(&path.display().to_string(), "FILE"))
    }

    /// Each turn as its messages in one line, conversations apart by `|`.
    fn shown(source: &Source) -> String {
        let Held::Conversations(conversations) = &source.content else { panic!("it is no trace") };
        let content = |turn: &Turn| match &turn.content {
            Content::Text(text) => text.clone(),
            Content::Tokens(_) => panic!("a file has no ids"),
            Content::Messages(messages) => {
                let said = messages.iter().map(|message| format!("{}:{}", message.role, message.content));
                said.collect::<Vec<_>>().join(" ")
            }
        };
        let turn = |turn: &Turn| match (&turn.answer, turn.output_tokens) {
            (None, None) => content(turn),
            (answer, tokens) => format!("{} -> {answer:?} {tokens:?}", content(turn)),
        };
        let one = |it: &Conversation| it.turns.iter().map(turn).collect::<Vec<_>>().join("; ");
        conversations.iter().map(one).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn prompts_come_out_of_every_kind_of_file() {
        let jsonl = Data::Jsonl(file());
        let column = |name: &str| PromptFile { column: Some(name.to_owned()), ..file() };
        let with_answer = PromptFile { answer_column: Some("a".to_owned()), ..column("q") };
        for (data, content, expected) in [
            (&jsonl, "{\"text_input\":\"a\\n\"}\r\n\n  \n{\"text_input\": \"你\", \"other\": 1}", "a\n | 你"),
            (&jsonl, "\u{feff}{\"prompt\":\"a\", \"max_tokens\": 3}\n", "a -> None Some(3)"),
            (&jsonl, r#"[{"prompt": "a", "output_tokens": 5}, {"prompt": "b"}]"#, "a -> None Some(5) | b"),
            (
                &jsonl,
                r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "u"}]}]}"#,
                "system:s user:u",
            ),
            (&Data::Csv(column("q")), "id,q\n1,\"one, two\"\n2,three\n", "one, two | three"),
            (&Data::Csv(with_answer.clone()), "q,a,max_tokens\none,two,7\n", "one -> Some(\"two\") Some(7)"),
            (&Data::HfDataset(with_answer), "{\"q\":\"one\",\"a\":\"two\"}", "one -> Some(\"two\") None"),
        ] {
            assert_eq!(shown(&read(data, AnswerLengths::Optional, content.as_bytes()).unwrap()), expected);
        }
    }

    const TALK: &str = r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u1"},
        {"role": "assistant", "content": "a1"}, {"role": "user", "content": "u2"}, {"role": "assistant", "content": "a2"}]}"#;

    #[test]
    fn messages_become_the_requests_that_are_asked_for() {
        for (turns, expected) in [
            (Turns::First, "system:s user:u1 -> Some(\"a1\") None"),
            (Turns::History, "system:s user:u1 assistant:a1 user:u2 -> Some(\"a2\") None"),
            (Turns::All, "system:s user:u1 -> Some(\"a1\") None; user:u2 -> Some(\"a2\") None"),
        ] {
            let data = Data::Jsonl(PromptFile { turns: Some(turns), ..file() });
            let line = TALK.replace('\n', " ");
            assert_eq!(shown(&read(&data, AnswerLengths::Optional, line.as_bytes()).unwrap()), expected);
        }
    }

    #[test]
    fn share_gpt_begins_with_what_a_human_says_and_leaves_out_the_rest() {
        let content = r#"[{"id": "1", "conversations": [{"from": "gpt", "value": "x"}, {"from": "human", "value": "h"},
            {"from": "gpt", "value": "g"}]}, {"id": "2", "conversations": []},
            {"id": "3", "conversations": [{"from": "human", "value": "only"}]}]"#;
        let data = Data::Sharegpt(file());
        let all = read(&data, AnswerLengths::Optional, content.as_bytes()).unwrap();
        assert_eq!(shown(&all), "assistant:x user:h -> Some(\"g\") None | user:only");
        let answered = read(&data, AnswerLengths::Needed, content.as_bytes()).unwrap();
        assert_eq!(shown(&answered), "assistant:x user:h -> Some(\"g\") None");
        assert!(answered.remark().unwrap().contains(": 2 conversations"));
    }

    #[test]
    fn a_mistake_is_named_with_its_place() {
        let jsonl = Data::Jsonl(file());
        let csv = Data::Csv(PromptFile { column: Some("q".to_owned()), ..file() });
        for (data, content, expected) in [
            (&jsonl, &b"{\"prompt\":\"a\"}\n\n{\"text_input\": 1}"[..], "line 3 of `FILE`: `text_input` is neither"),
            (&jsonl, b"{\"text\": \"a\"}", "line 1 of `FILE`: a prompt is missing: none of `text_input`, `prompt`"),
            (&jsonl, b"{\"text_input\": \"\"}", "line 1 of `FILE`: `text_input` is empty"),
            (&jsonl, b"{\"text_input\": \"\xff\"}", "line 1 of `FILE`: it is not UTF-8"),
            (&jsonl, b"nonsense", "line 1 of `FILE`: it is not one JSON object: expected ident at column 2"),
            (
                &jsonl,
                b"{\"prompt\":\"a\",\"max_tokens\":0}",
                "line 1 of `FILE`: `max_tokens` is not a whole number from 1",
            ),
            (
                &jsonl,
                b"{\"messages\":[{\"role\":\"user\"}]}",
                "line 1 of `FILE`: message 1 of `messages`: missing field",
            ),
            (&jsonl, b"{\"messages\":[]}", "line 1 of `FILE`: there is no message with text of the role `user`"),
            (&jsonl, b"[{\"prompt\": \"a\"}, {}]", "entry 2 of `FILE`: a prompt is missing"),
            (&jsonl, b"[{\"prompt\": \"a\"}, 1]", "cannot read `FILE`: it is not a JSON list of objects: invalid type"),
            (&jsonl, b"[{\"prompt\": \"a\"}", "cannot read `FILE`: it is not a JSON list of objects: EOF"),
            (&jsonl, b"\n\n", "`FILE` has no prompts (it needs one JSON object a line"),
            (&jsonl, b"PAR1", "cannot read `FILE`: "),
            (&csv, b"a,b\n1,2\n", "line 2 of `FILE`: `q` is missing (there are `a`, `b`)"),
            (&csv, b"q,b\n1,2\n3\n", "line 3 of `FILE`: 1 fields, but the header has 2"),
            (&csv, b"q\n1\n\xff\n", "line 3 of `FILE`: it is not UTF-8"),
            (&csv, b"", "`FILE` has no prompts"),
            (&trace(TraceFormat::Mooncake), b"{\"timestamp\": 1}", "line 1 of `FILE`: missing field `input_length`"),
            (
                &trace(TraceFormat::Mooncake),
                b"{\"timestamp\": 1, \"input_length\": 513, \"output_length\": 1, \"hash_ids\": [1]}",
                "line 1 of `FILE`: 1 `hash_ids` for 513 tokens",
            ),
            (&trace(TraceFormat::Azure), b"a,b\n1,2\n", "line 2 of `FILE`: the file has no column `TIMESTAMP`"),
            (
                &trace(TraceFormat::Azure),
                b"TIMESTAMP,ContextTokens,GeneratedTokens\nnoon,1,2\n",
                "line 2 of `FILE`: `TIMESTAMP` is `noon`, not a date and time",
            ),
            (
                &trace(TraceFormat::Burstgpt),
                b"Timestamp,Request tokens,Response tokens\n5,-1,2\n",
                "line 2 of `FILE`: `Request tokens` is `-1`, not a number of tokens",
            ),
        ] {
            let error = read(data, AnswerLengths::Optional, content).unwrap_err();
            assert!(error.starts_with(expected), "{error}\n{expected}");
        }
        let error = read(&jsonl, AnswerLengths::Needed, b"{\"prompt\":\"a\"}").unwrap_err();
        assert!(error.starts_with("line 1 of `FILE`: nothing says how long the answer is"), "{error}");
    }

    #[test]
    fn traces_of_all_formats_say_the_same() {
        let mooncake = "{\"timestamp\": 1500, \"input_length\": 600, \"output_length\": 7, \"hash_ids\": [1, 2]}\n\
            {\"timestamp\": 500, \"input_length\": 3, \"output_length\": 9}\n";
        let azure = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:04.0000000,600,7\n\
            2023-11-16 18:17:03,3,9\n2023-11-16 18:17:09,0,0\n";
        let later = "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00.009930+00:00,3,9\n\
            2024-05-10 00:00:01.009930+00:00,600,7\n";
        let burst = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n\
            5,ChatGPT,3,9,12,Conversation log\n6.0,GPT-4,600,7,607,API log\n7,GPT-4,10,0,10,API log\n";
        for (format, content, left_out) in [
            (TraceFormat::Mooncake, mooncake, false),
            (TraceFormat::Azure, azure, true),
            (TraceFormat::Azure, later, false),
            (TraceFormat::Burstgpt, burst, true),
        ] {
            let source = read(&trace(format), AnswerLengths::Optional, content.as_bytes()).unwrap();
            let Held::Trace(requests) = &source.content else { panic!("it is a trace") };
            let requests: Vec<_> = requests.iter().map(|it| (it.due_ns, it.input_tokens, it.output_tokens)).collect();
            assert_eq!(requests, [(0, 3, 9), (1_000_000_000, 600, 7)]);
            assert_eq!(source.remark().is_some(), left_out);
        }
    }

    fn kinds() -> Vec<Data> {
        let csv = PromptFile { column: Some("q".to_owned()), ..file() };
        let mut kinds = vec![Data::Jsonl(file()), Data::Sharegpt(file()), Data::HfDataset(file()), Data::Csv(csv)];
        kinds.extend([TraceFormat::Mooncake, TraceFormat::Azure, TraceFormat::Burstgpt].map(trace));
        kinds
    }

    proptest! {
        /// The result is of no matter: no bytes make a reader panic.
        #[test]
        fn no_bytes_make_a_reader_panic(
            mut content: Vec<u8>,
            start in prop::sample::select(vec![&b""[..], b"[{", b"{\"messages\":[", b"q\n", b"PAR1",
                b"TIMESTAMP,ContextTokens,GeneratedTokens\n", b"Timestamp,Request tokens,Response tokens\n"]),
        ) {
            content.splice(..0, start.iter().copied());
            for data in kinds() {
                drop(read(&data, AnswerLengths::Needed, &content));
            }
        }

        #[test]
        fn a_damaged_line_makes_no_reader_panic(at in 0..300_usize, byte: u8) {
            let mut content = TALK.replace('\n', " ").into_bytes();
            let at = at % content.len();
            content[at] = byte;
            for data in kinds() {
                drop(read(&data, AnswerLengths::Needed, &content));
            }
        }
    }
}
