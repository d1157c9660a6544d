use std::process;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Turns the first SIGINT, SIGTERM or SIGHUP into a cancellation and the second into an end: servers die with this
/// process, because their supervisors notice.
///
/// The listener ends when the returned set is dropped.
pub(super) fn listen(cancel: &CancellationToken) -> JoinSet<()> {
    let cancel = cancel.clone();
    let mut listener = JoinSet::new();
    listener.spawn(async move {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let mut signals: Vec<Signal> = kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect();
        loop {
            let arrivals = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
            futures_util::future::select_all(arrivals).await;
            if cancel.is_cancelled() {
                #[expect(clippy::exit, reason = "the second signal means: at once")]
                process::exit(130);
            }
            cancel.cancel();
        }
    });
    listener
}
