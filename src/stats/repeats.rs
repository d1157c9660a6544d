use std::collections::HashSet;
use std::fmt;

use crate::record::RequestRecord;

/// Prompts of a load point that were sent more than once, which a server that caches prefixes answers faster.
///
/// Over the requests of any kind and status. Its text is a sentence for a warning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Repeats {
    pub requests: u64,
    /// Different ones among the prompts of these requests.
    pub prompts: u64,
}

impl fmt::Display for Repeats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, prompts } = self;
        write!(
            f,
            "{requests} requests share {prompts} prompts; a server that caches prefixes answers repeats faster: give \
             `requests` in place of `duration`, more data, or a `unique_prefix`"
        )
    }
}

#[derive(Debug, Default)]
pub(super) struct SentPrompts {
    requests: u64,
    prompts: HashSet<u64>,
}

impl SentPrompts {
    pub(super) fn add(&mut self, record: &RequestRecord) {
        self.requests += 1;
        self.prompts.insert(record.prompt);
    }

    pub(super) fn repeats(&self) -> Option<Repeats> {
        let (requests, prompts) = (self.requests, self.prompts.len() as u64);
        (requests > prompts).then_some(Repeats { requests, prompts })
    }
}
