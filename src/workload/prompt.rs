//! What is sent, and the hash that names it.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::base::Digest;
use crate::spec::{LoadPoint, Output};

/// One turn to send: most often a whole conversation of one turn.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Prompt {
    pub content: Content,
    /// Tokens under the model's tokenizer, without special tokens and without the turns before; `None` when nobody
    /// counted.
    pub input_tokens: Option<u32>,
    /// Stands in for the load point's own length, which is not always a number.
    pub output_tokens: Option<u32>,
    /// 0 begins a conversation; any other continues that of the prompt before, after its answer.
    pub turn: u32,
    /// From the end of the answer before to this turn.
    pub think_time: Duration,
}

/// What a turn adds to its conversation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    Text(String),
    Messages(Vec<Message>),
    /// Ids of the model's tokens.
    Tokens(Vec<u32>),
}

/// One message of a chat.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Message {
    /// `system`, `user`, `assistant` …
    pub role: String,
    pub content: String,
}

/// Everything that a load point sends.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Sent in order, again from the first after the last. The first begins a conversation.
    pub prompts: Arc<[Prompt]>,
    /// When the conversations of a trace begin, in nanoseconds since its start, rising; one for each of its
    /// conversations.
    pub due_ns: Option<Arc<[u64]>>,
}

impl Prompt {
    /// A conversation of one turn.
    #[must_use]
    pub fn of_text(text: String, input_tokens: Option<u32>) -> Self {
        Self { content: Content::Text(text), input_tokens, output_tokens: None, turn: 0, think_time: Duration::ZERO }
    }

    /// Tokens of the answer to ask for.
    #[must_use]
    pub fn answer_tokens(&self, output: &Output) -> u32 {
        // Every prompt of a workload has a length of its own where the load point has none.
        self.output_tokens.or(output.tokens.number()).unwrap_or(1)
    }
}

impl Content {
    /// As text, for protocols without roles. Of tokens it is their ids, since only a protocol that takes ids sends them.
    #[must_use]
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Text(text) => Cow::Borrowed(text),
            Self::Messages(messages) => {
                messages.iter().map(|message| message.content.as_str()).collect::<Vec<_>>().join("\n").into()
            }
            Self::Tokens(ids) => ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ").into(),
        }
    }

    /// As messages, for protocols with roles: a text is what a user says.
    #[must_use]
    pub fn messages(&self) -> Cow<'_, [Message]> {
        match self {
            Self::Text(_) | Self::Tokens(_) => {
                Cow::Owned(vec![Message { role: "user".to_owned(), content: self.text().into_owned() }])
            }
            Self::Messages(messages) => Cow::Borrowed(messages),
        }
    }
}

impl Workload {
    /// The sha256 of the exact turns, in order, of when they are due, and of every setting of `point` that changes what
    /// a server is asked to do. The phase's name, the round, time limits and the path of the data do not count.
    #[must_use]
    pub fn hash(&self, point: &LoadPoint) -> String {
        let mut settings = json!({
            "protocol": point.protocol,
            "streaming": point.streaming,
            "output": point.output,
            "sampling": point.sampling,
            "sampling_seed": point.sampling_seed,
            "arrival": point.arrival,
            "arrival_seed": point.arrival.is_open_loop().then(|| point.own_arrival_seed()),
            "volume": point.volume,
            "warmup_requests": point.warmup_requests,
        });
        if let Some(method) = point.method {
            settings["method"] = json!(method);
        }
        let mut digest = Digest::default();
        let mut field = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        field(settings.to_string().as_bytes());
        for prompt in self.prompts.iter() {
            match &prompt.content {
                Content::Text(text) => field(text.as_bytes()),
                Content::Tokens(ids) => field(format!("{ids:?}").as_bytes()),
                Content::Messages(messages) => {
                    field(&serde_json::to_vec(messages).expect("messages are plain data"));
                }
            }
            let more = (prompt.output_tokens, prompt.turn, prompt.think_time.as_nanos());
            field(format!("{more:?}").as_bytes());
        }
        for due_ns in self.due_ns.iter().flat_map(|due| due.iter()) {
            field(&due_ns.to_le_bytes());
        }
        digest.hex()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Arrival, Data};
    use crate::workload::fixture;

    #[test]
    fn the_workload_hash_names_prompts_and_settings() {
        let point = fixture::point(Data::synthetic(1));
        let of_texts = |texts: &[&str]| {
            let prompts = texts.iter().map(|text| Prompt::of_text((*text).to_owned(), None)).collect();
            Workload { prompts, due_ns: None }
        };
        let workload = of_texts(&["ab", "c"]);
        let base = workload.hash(&point);
        assert_eq!(base, workload.hash(&LoadPoint { round: 2, ..point.clone() }));
        let mut others = vec![of_texts(&["a", "bc"]), of_texts(&["c", "ab"])];
        let edits: [fn(&mut Prompt); 4] = [
            |prompt| prompt.turn = 1,
            |prompt| prompt.think_time = Duration::from_millis(1),
            |prompt| prompt.output_tokens = Some(1),
            |prompt| prompt.content = Content::Messages(prompt.content.messages().into_owned()),
        ];
        for edit in edits {
            let mut prompts = workload.prompts.to_vec();
            edit(&mut prompts[1]);
            others.push(Workload { prompts: prompts.into(), due_ns: None });
        }
        others.push(Workload { due_ns: Some(Arc::new([0, 1])), ..workload.clone() });
        for other in others {
            assert_ne!(base, other.hash(&point), "{other:?}");
        }
        let arrival = Arrival::Closed { concurrency: 3 };
        assert_ne!(base, workload.hash(&LoadPoint { arrival, ..point }));
    }
}
