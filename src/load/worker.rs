use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{ClosedByServer, Connection, Route};
use super::exchange::{Clock, End, Exchange, Ticket};
use super::request::{Ask, Requests};
use crate::record::{RequestError, RequestKind};
use crate::spec::LoadPoint;
use crate::workload::Prompt;

/// Pause of a worker that could not connect, so that a server which is down costs no storm of attempts.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What all workers of a load point share and none changes.
pub(super) struct Job {
    pub(super) route: Route,
    pub(super) requests: Requests,
    pub(super) model: String,
    pub(super) point: LoadPoint,
    pub(super) prompts: Arc<[Prompt]>,
    pub(super) clock: Clock,
    pub(super) request_timeout: Duration,
}

/// One half of a load point, warm-up or measurement: which requests are left to send.
pub(super) struct Part {
    pub(super) kind: RequestKind,
    pub(super) next: AtomicU64,
    pub(super) limit: Limit,
}

pub(super) enum Limit {
    /// Requests below this number.
    Requests(u64),
    /// No request from this time on.
    Until { ns: u64 },
}

impl Part {
    fn is_over(&self, clock: Clock) -> bool {
        match self.limit {
            Limit::Requests(limit) => self.next.load(Ordering::Relaxed) >= limit,
            Limit::Until { ns } => clock.now_ns() >= ns,
        }
    }

    fn take(&self, clock: Clock) -> Option<Ticket> {
        if self.is_over(clock) {
            return None;
        }
        let request = self.next.fetch_add(1, Ordering::Relaxed);
        // Others may have taken the last ones since.
        let ticket = Ticket { request, kind: self.kind };
        match self.limit {
            Limit::Requests(limit) => (request < limit).then_some(ticket),
            Limit::Until { .. } => Some(ticket),
        }
    }
}

/// Sends one request at a time over a connection of its own.
pub(super) struct Worker {
    pub(super) number: u32,
    pub(super) job: Arc<Job>,
    /// Bounded, so that answers which the writer cannot keep up with do not pile up. A wait for it shows in the
    /// records, as sent later than due.
    pub(super) exchanges: mpsc::Sender<Exchange>,
    /// A token of this worker alone: asking a shared one on every chunk would be a lock that all workers fight for.
    pub(super) stop: CancellationToken,
    pub(super) connection: Option<Connection>,
    /// The server closes connections that it promised to keep, so each request gets a fresh one.
    pub(super) fresh_connections: bool,
    /// Requests sent again because a kept-alive connection was found closed.
    pub(super) resent: u64,
}

impl Worker {
    /// Works until `part` has no more requests or the load point is stopped.
    pub(super) async fn work(mut self, part: &Part) -> Self {
        let clock = self.job.clock;
        let mut due_ns = clock.now_ns();
        while !part.is_over(clock) {
            // Before the request is taken and its clock starts: making a connection is not the server's TTFT.
            let Some(connected) = self.connect().await else { break };
            let Some(ticket) = part.take(clock) else { break };
            let unreachable = connected.is_err();
            let exchange = self.carry_out(ticket, due_ns, connected).await;
            due_ns = exchange.end_ns;
            if self.exchanges.send(exchange).await.is_err() {
                // The writer failed and reports why.
                break;
            }
            if unreachable {
                let stop = self.stop.clone();
                stop.run_until_cancelled(sleep(RECONNECT_PAUSE)).await;
            }
        }
        self
    }

    /// Makes sure of a connection; `None` if the load point is stopped meanwhile.
    pub(super) async fn connect(&mut self) -> Option<Result<(), RequestError>> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.connect_in_time()).await
    }

    async fn connect_in_time(&mut self) -> Result<(), RequestError> {
        if !self.fresh_connections
            && let Some(connection) = &mut self.connection
            && connection.is_ready().await
        {
            return Ok(());
        }
        self.connection = None;
        let limit = self.job.request_timeout;
        let connection = timeout(limit, self.job.route.connect()).await.unwrap_or_else(|_| {
            let message = format!("no connection within {limit:?}");
            Err(RequestError { kind: "connect".to_owned(), message })
        })?;
        self.connection = Some(connection);
        Ok(())
    }

    async fn carry_out(&mut self, ticket: Ticket, due_ns: u64, connected: Result<(), RequestError>) -> Exchange {
        let clock = self.job.clock;
        let sent_ns = clock.now_ns();
        let end = End::CutOff;
        let mut exchange =
            Exchange { ticket, worker: self.number, due_ns, sent_ns, arrivals: Vec::new(), end_ns: sent_ns, end };
        exchange.end = match connected {
            Ok(()) => self.send_within_limits(&mut exchange).await,
            Err(error) => End::Failed(error),
        };
        exchange.end_ns = clock.now_ns();
        exchange
    }

    async fn send_within_limits(&mut self, exchange: &mut Exchange) -> End {
        let stop = self.stop.clone();
        let limit = self.job.request_timeout;
        tokio::select! {
            biased;
            end = self.send(exchange) => end,
            () = stop.cancelled() => End::CutOff,
            () = sleep(limit) => End::failed("timeout", format!("no complete answer within {limit:?}")),
        }
    }

    /// Sends once, or twice when the server had closed the connection that it was to keep: some close after each stream
    /// without saying so, and the close may cross with the next request. That happens once a worker, since it takes
    /// fresh connections from then on; the clock of the request starts anew and [`Self::resent`] counts it.
    async fn send(&mut self, exchange: &mut Exchange) -> End {
        let job = Arc::clone(&self.job);
        let prompt = &job.prompts[prompt_index(exchange.ticket.request, &job.prompts)];
        let ask =
            Ask { content: Cow::Borrowed(&prompt.content), output_tokens: prompt.answer_tokens(&job.point.output) };
        let body = job.requests.encode(&job.model, &job.point, &ask, exchange.ticket.request);
        if let Ok(end) = self.exchange(&body, exchange).await {
            return end;
        }
        self.fresh_connections = true;
        self.resent += 1;
        if let Err(error) = self.connect_in_time().await {
            return End::Failed(error);
        }
        let again = self.exchange(&body, exchange).await;
        again.unwrap_or_else(|ClosedByServer| End::failed("stream", "the connection was closed".to_owned()))
    }

    async fn exchange(&mut self, body: &Bytes, exchange: &mut Exchange) -> Result<End, ClosedByServer> {
        let connection = self.connection.as_mut().ok_or(ClosedByServer)?;
        connection.exchange(&self.job.route, body.clone(), self.job.clock, exchange).await
    }
}

/// Prompts are used in order, again from the first after the last.
pub(super) fn prompt_index(request: u64, prompts: &[Prompt]) -> usize {
    usize::try_from(request % prompts.len() as u64).expect("it is less than a length")
}
