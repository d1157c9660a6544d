//! One gRPC channel and, on it, one bidirectional stream that carries a worker's requests one after the other.

use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use memchr::memmem;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder, Streaming};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::LoadError;
use super::address::Address;
use super::connection::failure;
use super::exchange::{Clock, End, Exchange};
use crate::kserve::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::kserve::{ModelMetadataRequest, ModelMetadataResponse, ServerLiveRequest};
use crate::record::RequestError;

pub(super) struct GrpcConnection {
    channel: Channel,
    /// Open between requests; taken out while one is under way, so that giving that up also ends the stream.
    stream: Option<InferStream>,
    broken: bool,
}

struct InferStream {
    /// Unbounded, since at most one request is in it.
    requests: mpsc::UnboundedSender<Bytes>,
    responses: Streaming<Bytes>,
}

impl GrpcConnection {
    pub(super) async fn open(address: &Address) -> Result<Self, RequestError> {
        let channel = connect(address, None).await?;
        // A connection counts as open when something went there and back: until then the server may still be busy with
        // its set-up, and the first request would wait for that. Whether the server implements the call does not
        // matter.
        let alive = GrpcInferenceServiceClient::new(channel.clone()).server_live(ServerLiveRequest {}).await;
        match alive.as_ref().err().and_then(broken_transport) {
            Some(error) => Err(failure("connect", error)),
            None => Ok(Self { channel, stream: None, broken: false }),
        }
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.broken
    }

    /// Sends one request, an encoded `ModelInferRequest`, and keeps each response with its time.
    pub(super) async fn exchange(
        &mut self,
        path: &PathAndQuery,
        message: Bytes,
        clock: Clock,
        seen: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> End {
        let mut stream = match self.stream.take() {
            Some(stream) if stream.requests.send(message.clone()).is_ok() => stream,
            Some(_) | None => match self.open_stream(path, message).await {
                Ok(stream) => stream,
                Err(status) => return self.failed(&status),
            },
        };
        loop {
            let response = stream.responses.message().await;
            let at_ns = clock.now_ns();
            let bytes = match response {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return End::failed("stream", "the stream ended before the final response".to_owned()),
                Err(status) => return self.failed(&status),
            };
            heard_ns.store(at_ns, Ordering::Relaxed);
            seen.arrivals.bytes.extend_from_slice(&bytes);
            seen.arrivals.mark(at_ns);
            let kind = response_kind(&bytes);
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
    }

    /// The first request travels with the opening of the stream: servers answer the opening when they have a response.
    async fn open_stream(&self, path: &PathAndQuery, first: Bytes) -> Result<InferStream, Status> {
        let mut client = Grpc::new(self.channel.clone()).max_decoding_message_size(usize::MAX);
        client.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let (requests, receiver) = mpsc::unbounded_channel();
        // The receiver is at hand, so this cannot fail.
        let _ = requests.send(first);
        let messages = Request::new(UnboundedReceiverStream::new(receiver));
        let responses = client.streaming(messages, path.clone(), RawCodec).await?.into_inner();
        Ok(InferStream { requests, responses })
    }

    fn failed(&mut self, status: &Status) -> End {
        if let Some(error) = broken_transport(status) {
            self.broken = true;
            return End::Failed(failure("stream", error));
        }
        End::failed(&format!("grpc_{}", code_name(status.code())), super::answer::shorten(status.message()))
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

async fn connect(address: &Address, limit: Option<Duration>) -> Result<Channel, RequestError> {
    let endpoint = Endpoint::from_shared(address.url()).map_err(|error| failure("connect", &error))?.tcp_nodelay(true);
    let endpoint = match limit {
        Some(limit) => endpoint.timeout(limit),
        None => endpoint,
    };
    endpoint.connect().await.map_err(|error| failure("connect", &error))
}

/// What broke, if the status is not the server's: only one that tonic made of a broken transport has a source.
fn broken_transport(status: &Status) -> Option<&(dyn Error + 'static)> {
    status.source()
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

fn code_name(code: tonic::Code) -> String {
    let mut name = String::new();
    for character in format!("{code:?}").chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    name
}

/// Messages stay as they travel: encoded before the clock starts, decoded after it stopped.
struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(message);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_of_the_grpc_specification() {
        assert_eq!(code_name(tonic::Code::Unavailable), "unavailable");
        assert_eq!(code_name(tonic::Code::DeadlineExceeded), "deadline_exceeded");
        assert_eq!(code_name(tonic::Code::Ok), "ok");
    }
}
