use crate::record::ServerSaid;
use crate::stats::Distribution;
use crate::stats::percentile::mean;

/// What the server says of single requests, over those of which it says it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFigures {
    /// First scheduled - arrival in the batcher, in milliseconds by the server's clock.
    pub queue_ms: Option<Distribution>,
    /// First token - arrival in the batcher, in milliseconds by the server's clock.
    pub ttft_ms: Option<Distribution>,
    /// Mean of the KV-cache blocks that were there already.
    pub reused_blocks_mean: Option<f64>,
}

/// What the server said of the requests so far.
#[derive(Debug, Default)]
pub(super) struct AllSaid {
    queue_ms: Vec<f64>,
    ttft_ms: Vec<f64>,
    reused_blocks: Vec<f64>,
}

impl AllSaid {
    pub(super) fn add(&mut self, said: &ServerSaid) {
        self.queue_ms.extend(said.queue_ns.map(|ns| ns as f64 / 1e6));
        self.ttft_ms.extend(said.ttft_ns.map(|ns| ns as f64 / 1e6));
        self.reused_blocks.extend(said.reused_blocks.map(|blocks| blocks as f64));
    }

    pub(super) fn figures(self) -> ServerFigures {
        ServerFigures {
            queue_ms: Distribution::of(self.queue_ms),
            ttft_ms: Distribution::of(self.ttft_ms),
            reused_blocks_mean: mean(&self.reused_blocks),
        }
    }
}
