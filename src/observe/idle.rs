use std::time::Duration;

use super::observation::{read_page, web_client};
use super::snapshot::{Snapshot, family_of_page};

/// Between two looks: longer than a token takes.
const PAUSE: Duration = Duration::from_secs(1);

/// Waits until the server at `metrics_url` computes nothing any more, at most for `limit`; whether that was seen.
///
/// A server may go on with requests that were given up: Triton does behind an ensemble, to their last token. `true` where
/// the page does not tell, or does not answer: there is nothing to wait for then.
pub async fn wait_until_idle(metrics_url: &str, limit: Duration) -> bool {
    tokio::time::timeout(limit, idle(metrics_url)).await.is_ok()
}

async fn idle(metrics_url: &str) {
    let client = web_client();
    let mut earlier = None;
    while let Some(page) = Box::pin(read_page(&client, metrics_url)).await {
        let Some(activity) = Activity::of_page(&page) else { return };
        if earlier.is_some_and(|earlier| activity.is_idle_since(earlier)) {
            return;
        }
        earlier = Some(activity);
        tokio::time::sleep(PAUSE).await;
    }
}

/// What a page says of the work that is done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activity {
    /// Requests that run or wait.
    InFlight(f64),
    /// Work done so far.
    Done(f64),
}

impl Activity {
    pub(super) fn of_page(page: &str) -> Option<Self> {
        let family = family_of_page(page)?;
        let page = Snapshot::of_page(page, family, 0.0);
        // Requests for whatever model keep the server busy.
        let sum = |alternatives| page.sum(alternatives, "");
        match sum(family.running) {
            Some(running) => Some(Self::InFlight(running + sum(family.waiting).unwrap_or_default())),
            None => sum(family.work).map(Self::Done),
        }
    }

    pub(super) fn is_idle_since(self, earlier: Self) -> bool {
        match self {
            Self::InFlight(requests) => requests == 0.0 && earlier == self,
            Self::Done(_) => earlier == self,
        }
    }
}
