use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::{ClosedByServer, Connection};
use super::exchange::{Clock, End, Exchange, Ticket};
use super::job::Job;
use super::reading::{Reading, read, refused_for_now};
use super::received::Received;
use super::request::Ask;
use crate::record::{RequestError, RequestKind};
use crate::workload::{Content, Message};

/// Sends one request at a time over a connection of its own.
pub(super) struct Sender {
    pub(super) job: Arc<Job>,
    /// The closed-loop worker, for the records.
    pub(super) number: u32,
    /// Bounded, so that answers which the writer cannot keep up with do not pile up.
    pub(super) exchanges: mpsc::Sender<Exchange>,
    /// A token of this sender alone: asking a shared one on every chunk would be a lock that all fight for.
    pub(super) stop: CancellationToken,
    pub(super) connection: Option<Connection>,
    /// The server closes connections that it promised to keep, so each request gets a fresh one.
    pub(super) fresh_connections: bool,
}

/// When a request was to be sent.
#[derive(Clone, Copy)]
pub(super) struct Due {
    pub(super) due_ns: u64,
    /// See [`Exchange::free_ns`].
    pub(super) free_ns: Option<u64>,
}

/// How a conversation went on.
pub(super) enum Carried {
    /// To its end, or until a request of it failed; the last of its requests ended then.
    Ended { end_ns: u64, unreachable: bool },
    /// The load point is over: it was stopped, or nobody takes records any more.
    Stopped,
}

impl Sender {
    pub(super) fn new(job: &Arc<Job>, number: u32, exchanges: &mpsc::Sender<Exchange>) -> Self {
        Self {
            job: Arc::clone(job),
            number,
            exchanges: exchanges.clone(),
            stop: job.stop.child_token(),
            connection: None,
            fresh_connections: job.point.cold_connections,
        }
    }

    /// Carries out the conversation `number`, each turn with the real answers before it.
    pub(super) async fn converse(&mut self, number: u64, kind: RequestKind, mut due: Due) -> Carried {
        let job = Arc::clone(&self.job);
        let turns = job.conversations.turns(number);
        let mut so_far: Option<Content> = None;
        for prompt in turns.clone() {
            let turn = &job.conversations.prompts()[prompt];
            let content = match so_far.take() {
                None => Cow::Borrowed(&turn.content),
                Some(before) => Cow::Owned(continued(before, &turn.content)),
            };
            let ticket = Ticket {
                request: job.next_request.fetch_add(1, Ordering::Relaxed),
                kind,
                prompt,
                conversation: job.conversations.have_turns().then_some(number),
            };
            let output_tokens = turn.answer_tokens(&job.point.output);
            let ask = Ask { content, output_tokens, worker: self.number };
            let exchange = self.carry_out(ticket, due, &ask).await;
            let end_ns = exchange.end_ns;
            let is_last = prompt + 1 == turns.end;
            let unreachable = exchange.attempts == 0;
            let answer =
                (!is_last && matches!(exchange.end, End::Complete)).then(|| read(&job.point, job.clock, &exchange));
            let good = answer.filter(|reading| reading.refused.is_none() && reading.answer.error.is_none());
            if self.exchanges.send(exchange).await.is_err() {
                // The writer failed and reports why.
                job.stop.cancel();
                return Carried::Stopped;
            }
            let Some(Reading { answer, .. }) = good else { return Carried::Ended { end_ns, unreachable } };
            so_far = Some(with_answer(&ask.content, &answer.text));
            let think_time = job.conversations.prompts()[prompt + 1].think_time;
            if self.stop.run_until_cancelled(sleep(think_time)).await.is_none() {
                return Carried::Stopped;
            }
            due = Due { due_ns: end_ns.saturating_add(nanoseconds(think_time)), free_ns: None };
        }
        Carried::Stopped
    }

    /// Makes sure of a connection; `None` if the load point is stopped meanwhile.
    pub(super) async fn connect(&mut self) -> Option<Result<(), RequestError>> {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.connect_in_time()).await
    }

    pub(super) fn is_connected(&mut self) -> bool {
        !self.fresh_connections && self.connection.as_mut().is_some_and(Connection::is_ready)
    }

    async fn connect_in_time(&mut self) -> Result<(), RequestError> {
        if self.is_connected() {
            return Ok(());
        }
        self.connection = None;
        let limit = self.job.limits.request;
        let connection = timeout(limit, self.job.route.connect(self.job.clock)).await.unwrap_or_else(|_| {
            let message = format!("no connection within {limit:?}");
            Err(RequestError { kind: "connect".to_owned(), message })
        })?;
        self.job.signs.connection_opened();
        self.connection = Some(connection);
        Ok(())
    }

    async fn carry_out(&mut self, ticket: Ticket, due: Due, ask: &Ask<'_>) -> Exchange {
        let clock = self.job.clock;
        let body = self.job.requests.encode(&self.job.model, &self.job.point, ask, ticket.request);
        let request = self.job.route.framed(&body, ticket.request);
        let sent_ns = clock.now_ns();
        let mut exchange = Exchange {
            ticket,
            wanted_tokens: ask.output_tokens,
            worker: self.number,
            due_ns: due.due_ns,
            free_ns: due.free_ns,
            connect_ns: None,
            sent_ns,
            attempts: 0,
            received: Received::default(),
            end_ns: sent_ns,
            end: End::CutOff,
        };
        exchange.end = self.send_within_limits(&request, &mut exchange).await;
        exchange.end_ns = clock.now_ns();
        self.job.signs.received(exchange.received.len());
        exchange
    }

    async fn send_within_limits(&mut self, request: &Bytes, exchange: &mut Exchange) -> End {
        let stop = self.stop.clone();
        let (limits, clock) = (self.job.limits, self.job.clock);
        let heard_ns = AtomicU64::new(0);
        tokio::select! {
            biased;
            end = self.send(request, exchange, &heard_ns) => end,
            () = stop.cancelled() => End::CutOff,
            () = sleep(limits.request) => End::failed("timeout", format!("no complete answer within {:?}", limits.request)),
            idle = silence(limits.idle, &heard_ns, clock) => End::failed("stall", format!("nothing came for {idle:?}")),
        }
    }

    /// Sends, and sends again what the server refused for now, as often as the load point asks for.
    async fn send(&mut self, request: &Bytes, exchange: &mut Exchange, heard_ns: &AtomicU64) -> End {
        loop {
            let end = self.send_once(request, exchange, heard_ns).await;
            if exchange.attempts > self.job.point.retries {
                return end;
            }
            let Some(pause) = refused_for_now(&self.job.point, self.job.clock, exchange, &end) else { return end };
            sleep(pause).await;
            exchange.received.clear();
            heard_ns.store(0, Ordering::Relaxed);
        }
    }

    /// Sends once, or twice when the server had closed the connection that it was to keep: some close after each stream
    /// without saying so, and the close may cross with the next request. That happens once a sender, since it takes
    /// fresh connections from then on. The clock runs on, and the record says how often the request was sent.
    async fn send_once(&mut self, request: &Bytes, exchange: &mut Exchange, heard_ns: &AtomicU64) -> End {
        if let Err(error) = self.connect_for(exchange).await {
            return End::Failed(error);
        }
        if let Ok(end) = self.exchange(request, exchange, heard_ns).await {
            return end;
        }
        self.fresh_connections = true;
        if let Err(error) = self.connect_in_time().await {
            return End::Failed(error);
        }
        let again = self.exchange(request, exchange, heard_ns).await;
        again.unwrap_or_else(|ClosedByServer| End::failed("stream", "the connection was closed".to_owned()))
    }

    /// A connection that is made for this request counts for itself, unless the load point wants cold ones.
    async fn connect_for(&mut self, exchange: &mut Exchange) -> Result<(), RequestError> {
        let clock = self.job.clock;
        if self.is_connected() {
            return Ok(());
        }
        let from_ns = clock.now_ns();
        self.connect_in_time().await?;
        let now_ns = clock.now_ns();
        exchange.connect_ns = Some(now_ns.saturating_sub(from_ns));
        if exchange.attempts == 0 && !self.job.point.cold_connections {
            exchange.sent_ns = now_ns;
        }
        Ok(())
    }

    async fn exchange(
        &mut self,
        request: &Bytes,
        exchange: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> Result<End, ClosedByServer> {
        let connection = self.connection.as_mut().ok_or(ClosedByServer)?;
        exchange.attempts += 1;
        connection.exchange(&self.job.route, request, self.job.clock, exchange, heard_ns).await
    }
}

/// Ends when an answer that has begun (`heard_ns` is not 0) is silent for so long.
async fn silence(limit: Option<Duration>, heard_ns: &AtomicU64, clock: Clock) -> Duration {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let heard = heard_ns.load(Ordering::Relaxed);
        let silent = match heard {
            0 => Duration::ZERO,
            _ => Duration::from_nanos(clock.now_ns().saturating_sub(heard)),
        };
        match limit.checked_sub(silent) {
            Some(left) if left > Duration::ZERO => sleep(left).await,
            Some(_) | None => return limit,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A conversation with its next turn.
fn continued(before: Content, turn: &Content) -> Content {
    match (before, turn) {
        (Content::Text(before), Content::Text(turn)) => Content::Text(before + turn),
        (before, turn) => {
            let mut messages = before.messages().into_owned();
            messages.extend(turn.messages().into_owned());
            Content::Messages(messages)
        }
    }
}

/// A conversation with the answer that it got.
fn with_answer(content: &Content, answer: &[u8]) -> Content {
    let answer = String::from_utf8_lossy(answer).into_owned();
    let mut messages = content.messages().into_owned();
    messages.push(Message { role: "assistant".to_owned(), content: answer });
    Content::Messages(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_follows_the_answer_before_it() {
        let first = Content::Text("one".to_owned());
        let so_far = continued(with_answer(&first, b"two"), &Content::Text("three".to_owned()));
        let Content::Messages(messages) = &so_far else { panic!("several speak") };
        let said: Vec<(&str, &str)> = messages.iter().map(|it| (it.role.as_str(), it.content.as_str())).collect();
        assert_eq!(said, [("user", "one"), ("assistant", "two"), ("user", "three")]);
        assert_eq!(so_far.text(), "one\ntwo\nthree");
    }
}
