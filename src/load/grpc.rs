//! One HTTP/2 connection and, on it, one gRPC stream that carries a worker's requests one after the other.
//!
//! The task that waits for an answer drives the connection itself: a chunk wakes nobody else, and its time is taken as
//! the read returns from the socket, before HTTP/2 is looked at.

use std::error::Error;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::{self, Builder, ResponseFuture, SendRequest};
use h2::{Ping, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::uri::PathAndQuery;
use http::{Method, Request, Version};
use memchr::memmem;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::LoadError;
use super::address::Address;
use super::answer::shorten;
use super::connection::failure;
use super::exchange::{Clock, End, Exchange};
use crate::kserve::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::kserve::{ModelMetadataRequest, ModelMetadataResponse};
use crate::record::RequestError;

/// The largest window of HTTP/2: the client never makes the server wait.
const WINDOW: u32 = (1 << 31) - 1;
/// Whether a message is compressed (one byte), and its length (four, the highest first), stand before it.
pub(super) const PREFIX: usize = 5;

pub(super) struct GrpcConnection {
    transport: Transport,
    requests: SendRequest<Bytes>,
    /// When the socket was last read, in nanoseconds of the load point's clock.
    read_ns: Arc<AtomicU64>,
    authority: String,
    /// Open between requests; taken out while one is under way, so that giving that up also ends the stream.
    stream: Option<InferStream>,
    broken: bool,
}

type Transport = client::Connection<Stamped, Bytes>;

/// What ended a connection, or a stream with it.
type Broken = Box<dyn Error + Send + Sync>;

struct InferStream {
    requests: SendStream<Bytes>,
    responses: Responses,
}

enum Responses {
    /// A server sends the head of its answer when it has a first response.
    Head(ResponseFuture),
    Body(RecvStream),
}

/// Why a stream gives no more messages.
enum Ended {
    /// Without an error, but it was to go on.
    Early,
    Refused(Status),
    Broken(Broken),
}

impl GrpcConnection {
    pub(super) async fn open(address: &Address, clock: Clock) -> Result<Self, RequestError> {
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await;
        let socket = socket.and_then(|socket| socket.set_nodelay(true).map(|()| socket));
        let socket = socket.map_err(|error| failure("connect", &error))?;
        let read_ns = Arc::new(AtomicU64::new(0));
        let stamped = Stamped { socket, clock, read_ns: Arc::clone(&read_ns) };
        let (requests, mut transport) = Builder::new()
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .enable_push(false)
            .handshake(stamped)
            .await
            .map_err(|error| failure("connect", &error))?;
        went_there_and_back(&mut transport).await.map_err(|error| failure("connect", &*error))?;
        Ok(Self { transport, requests, read_ns, authority: address.authority.clone(), stream: None, broken: false })
    }

    /// Looks at what came unasked, since nobody drives an idle connection.
    pub(super) fn is_ready(&mut self) -> bool {
        let ended = Pin::new(&mut self.transport).poll(&mut Context::from_waker(Waker::noop()));
        self.broken |= ended.is_ready();
        !self.broken
    }

    /// Sends one request, a `ModelInferRequest` as [`framed`] makes it, and keeps each response with its time.
    pub(super) async fn exchange(
        &mut self,
        path: &PathAndQuery,
        message: Bytes,
        seen: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> End {
        let mut stream = match self.stream_for(path, message).await {
            Ok(stream) => stream,
            Err(error) => return self.failed(Ended::Broken(error)),
        };
        let mut next = 0;
        loop {
            let data = match driven(&mut self.transport, |context| stream.responses.poll(context)).await {
                Ok(Ok(data)) => data,
                Ok(Err(ended)) => return self.failed(ended),
                Err(error) => return self.failed(Ended::Broken(error)),
            };
            let at_ns = self.read_ns.load(Ordering::Relaxed);
            heard_ns.store(at_ns, Ordering::Relaxed);
            let received = &mut seen.received;
            received.tail.extend_from_slice(&data);
            while let Some(end) = message_end(&received.tail, next) {
                received.mark(at_ns, end);
                let kind = response_kind(&received.tail[next + PREFIX..end]);
                next = end;
                match kind {
                    ResponseKind::Data => {}
                    ResponseKind::Final => {
                        self.stream = Some(stream);
                        return End::Complete;
                    }
                    // A late final response of this request must not meet the next one: that gets a stream of its own.
                    ResponseKind::Error => return End::Complete,
                }
            }
            next -= received.pack(next);
        }
    }

    /// The stream that is open, or a new one, with the request on its way.
    async fn stream_for(&mut self, path: &PathAndQuery, message: Bytes) -> Result<InferStream, Broken> {
        if let Some(mut stream) = self.stream.take()
            && stream.requests.send_data(message.clone(), false).is_ok()
        {
            return Ok(stream);
        }
        driven(&mut self.transport, |context| self.requests.poll_ready(context)).await??;
        let (responses, mut requests) = self.requests.send_request(self.head(path), false)?;
        requests.send_data(message, false)?;
        Ok(InferStream { requests, responses: Responses::Head(responses) })
    }

    fn head(&self, path: &PathAndQuery) -> Request<()> {
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(format!("http://{}{path}", self.authority))
            .header(TE, "trailers")
            .header(CONTENT_TYPE, "application/grpc");
        request.body(()).expect("an address and a path that were parsed make a URL")
    }

    fn failed(&mut self, ended: Ended) -> End {
        match ended {
            Ended::Early => End::failed("stream", "the stream ended before the final response".to_owned()),
            Ended::Refused(status) => End::Failed(refused(&status)),
            Ended::Broken(error) => {
                self.broken = true;
                End::Failed(failure("stream", &*error))
            }
        }
    }
}

impl Responses {
    /// The next bytes of the stream.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, Ended>> {
        loop {
            let body = match self {
                Self::Body(body) => body,
                Self::Head(head) => {
                    let response = ready!(pin!(head).poll(context)).map_err(broken)?;
                    if let Some(refused) = refusal(&response) {
                        return Poll::Ready(Err(Ended::Refused(refused)));
                    }
                    *self = Self::Body(response.into_body());
                    continue;
                }
            };
            return Poll::Ready(match ready!(body.poll_data(context)) {
                Some(Ok(data)) => {
                    // Fails for a stream that has been closed, which the next call tells.
                    let _ = body.flow_control().release_capacity(data.len());
                    Ok(data)
                }
                Some(Err(error)) => Err(broken(error)),
                None => Err(match ready!(body.poll_trailers(context)) {
                    Ok(trailers) => match trailers.and_then(|trailers| Status::from_header_map(&trailers)) {
                        Some(status) if status.code() != Code::Ok => Ended::Refused(status),
                        Some(_) | None => Ended::Early,
                    },
                    Err(error) => broken(error),
                }),
            });
        }
    }
}

fn broken(error: h2::Error) -> Ended {
    Ended::Broken(error.into())
}

/// A server that refuses a call at once says so in the head of its answer.
fn refusal(response: &http::Response<RecvStream>) -> Option<Status> {
    let status = Status::from_header_map(response.headers()).filter(|status| status.code() != Code::Ok);
    let http = response.status();
    status.or_else(|| (!http.is_success()).then(|| Status::unknown(format!("HTTP status {http}"))))
}

/// Waits for what `look` finds while it drives the connection.
///
/// What `look` waits for can only come out of the connection, which wakes this task; a wake-up of its own would let the
/// task run twice for each chunk.
async fn driven<T>(transport: &mut Transport, mut look: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Result<T, Broken> {
    poll_fn(|context| {
        let ended = Pin::new(&mut *transport).poll(context);
        match (look(&mut Context::from_waker(Waker::noop())), ended) {
            (Poll::Ready(found), _) => Poll::Ready(Ok(found)),
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error.into())),
            (Poll::Pending, Poll::Ready(Ok(()))) => Poll::Ready(Err("the server closed the connection".into())),
            (Poll::Pending, Poll::Pending) => Poll::Pending,
        }
    })
    .await
}

/// Until something has gone there and back, the server may still be busy with the set-up of the connection, and the
/// first request would wait for that.
async fn went_there_and_back(transport: &mut Transport) -> Result<(), Broken> {
    let mut pings = transport.ping_pong().expect("nobody else asked for it");
    pings.send_ping(Ping::opaque())?;
    driven(transport, |context| pings.poll_pong(context)).await??;
    Ok(())
}

/// A message as it travels.
pub(super) fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).expect("a request is below 4 GiB"));
    bytes.put_slice(message);
    bytes.freeze()
}

/// Where the message that begins at `from`, prefix included, ends; `None` while it is incomplete.
fn message_end(bytes: &[u8], from: usize) -> Option<usize> {
    let (prefix, rest) = bytes.get(from..)?.split_first_chunk::<PREFIX>()?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]) as usize;
    (rest.len() >= length).then_some(from + PREFIX + length)
}

/// A socket that notes when it was read.
struct Stamped {
    socket: TcpStream,
    clock: Clock,
    read_ns: Arc<AtomicU64>,
}

impl AsyncRead for Stamped {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.socket).poll_read(context, into));
        self.read_ns.store(self.clock.now_ns(), Ordering::Relaxed);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// Asks the server which tensors `model` has.
pub(super) async fn model_metadata(
    address: &Address,
    model: &str,
    limit: Duration,
) -> Result<ModelMetadataResponse, LoadError> {
    let failed = |reason: String| LoadError::Metadata { model: model.to_owned(), url: address.url(), reason };
    let channel = connect(address, Some(limit)).await.map_err(|error| failed(error.message))?;
    let request = ModelMetadataRequest { name: model.to_owned(), version: String::new() };
    let answer = GrpcInferenceServiceClient::new(channel).model_metadata(request).await;
    Ok(answer.map_err(|status| failed(status.message().to_owned()))?.into_inner())
}

pub(super) async fn connect(address: &Address, limit: Option<Duration>) -> Result<Channel, RequestError> {
    let endpoint = Endpoint::from_shared(address.url()).map_err(|error| failure("connect", &error))?.tcp_nodelay(true);
    let endpoint = endpoint.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW);
    let endpoint = match limit {
        Some(limit) => endpoint.timeout(limit),
        None => endpoint,
    };
    endpoint.connect().await.map_err(|error| failure("connect", &error))
}

enum ResponseKind {
    Data,
    Final,
    Error,
}

/// Looks for the end of an answer without decoding the message.
///
/// `error_message` is the first field, so a message that has one begins with its tag. Triton marks a final response
/// with the parameter `triton_final_response` = true, whose encoding is always these bytes; text would need the name
/// followed by four control characters to be taken for it.
fn response_kind(message: &[u8]) -> ResponseKind {
    const ERROR_MESSAGE: u8 = 0x0a;
    const FINAL: &[u8] = b"triton_final_response\x12\x02\x08\x01";
    if message.first() == Some(&ERROR_MESSAGE) {
        ResponseKind::Error
    } else if memmem::find(message, FINAL).is_some() {
        ResponseKind::Final
    } else {
        ResponseKind::Data
    }
}

/// What a call ended with.
pub(super) fn refused(status: &Status) -> RequestError {
    RequestError { kind: format!("grpc_{}", code_name(status.code())), message: shorten(status.message()) }
}

fn code_name(code: Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_grpc_specification() {
        assert_eq!(code_name(Code::Unavailable), "unavailable");
        assert_eq!(code_name(Code::DeadlineExceeded), "deadline_exceeded");
        assert_eq!(code_name(Code::Ok), "ok");
    }
}
