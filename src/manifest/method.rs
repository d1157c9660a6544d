use std::borrow::Cow;

use super::Phase;
use crate::spec::{Data, OutputTokens, Sampling};

impl Phase {
    /// The phase with what its method decides filled in where the manifest leaves it out; itself without a method.
    #[must_use]
    pub fn with_method(&self) -> Cow<'_, Self> {
        let Some(method) = self.method else { return Cow::Borrowed(self) };
        let defaults = method.defaults();
        let mut phase = self.clone();
        phase.protocol.get_or_insert(defaults.protocol);
        phase.cold_connections |= defaults.cold_connections;
        if phase.sampling == Sampling::default() {
            phase.sampling = defaults.sampling;
        }
        if phase.concurrency.is_empty() && phase.request_rate.is_empty() {
            phase.concurrency = defaults.concurrency.to_vec();
        }
        if let Data::Sharegpt(file) = &mut phase.data {
            file.sampler = file.sampler.or(defaults.sampler);
            phase.output.tokens.get_or_insert(OutputTokens::FROM_DATA);
        }
        Cow::Owned(phase)
    }
}
