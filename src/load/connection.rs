use std::error::Error;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use bytes::Bytes;

use super::LoadError;
use super::address::Address;
use super::answer::server_message;
use super::exchange::{Clock, End, Exchange};
use super::grpc::{self, GrpcConnection};
use super::http::{self, HttpConnection};
use super::lmdeploy::{Chatbot, LmdeployConnection};
use super::probe;
use super::request::{self, Requests};
use super::triton_request::Tensors;
use crate::record::RequestError;
use crate::spec::Protocol;

/// Where and how requests of a load point are sent.
#[derive(Debug)]
pub(super) struct Route {
    address: Address,
    protocol: Protocol,
    path: PathAndQuery,
}

/// Carries one request at a time.
pub(super) enum Connection {
    Http(HttpConnection),
    Grpc(Box<GrpcConnection>),
    Lmdeploy(LmdeployConnection),
}

/// A kept-alive connection turned out to be closed before a byte of the answer came.
#[derive(Debug)]
pub(super) struct ClosedByServer;

impl Route {
    pub(super) fn new(protocol: Protocol, url: &str, model: &str) -> Result<Self, LoadError> {
        let address = Address::parse(url)?;
        let path = address
            .path(&request::path(protocol, model))
            .ok_or_else(|| LoadError::ModelName { model: model.to_owned() })?;
        Ok(Self { address, protocol, path })
    }

    pub(super) fn server(&self) -> &Address {
        &self.address
    }

    pub(super) async fn connect(&self, clock: Clock) -> Result<Connection, RequestError> {
        Ok(match self.protocol {
            Protocol::TritonGrpc => Connection::Grpc(Box::new(GrpcConnection::open(&self.address, clock).await?)),
            Protocol::LmdeployTriton => Connection::Lmdeploy(LmdeployConnection::open(&self.address).await?),
            Protocol::OpenaiCompletions
            | Protocol::OpenaiChat
            | Protocol::TritonGenerate
            | Protocol::TritonGenerateStream
            | Protocol::InProcess => Connection::Http(HttpConnection::open(&self.address).await?),
        })
    }

    /// What to send, which for Triton depends on the tensors that the model lists.
    pub(super) async fn requests(&self, model: &str, limit: Duration) -> Result<Requests, LoadError> {
        Ok(match self.protocol {
            Protocol::OpenaiCompletions | Protocol::InProcess => Requests::OpenaiCompletions,
            Protocol::OpenaiChat => Requests::OpenaiChat,
            Protocol::TritonGrpc => {
                let metadata = grpc::model_metadata(&self.address, model, limit).await?;
                Requests::TritonGrpc(Tensors::from_grpc(model, metadata)?)
            }
            Protocol::LmdeployTriton => Requests::LmdeployTriton(Chatbot::of_server(&self.address, limit).await?),
            Protocol::TritonGenerate | Protocol::TritonGenerateStream => {
                let failed = |reason| LoadError::Metadata { model: model.to_owned(), url: self.address.url(), reason };
                Requests::TritonHttp(self.http_tensors(model, limit).await.map_err(failed)??)
            }
        })
    }

    /// The outer error is what kept us from reading them.
    async fn http_tensors(&self, model: &str, limit: Duration) -> Result<Result<Tensors, LoadError>, String> {
        let path = self.address.path(&format!("/v2/models/{model}")).ok_or("its name fits no URL")?;
        let (status, body) = probe::fetch(&format!("{}{path}", self.address.url()), limit).await?;
        if status != 200 {
            return Err(format!("HTTP status {status}: {}", server_message(&body)));
        }
        Tensors::from_json(model, &body).map_err(|error| error.to_string())
    }

    /// What goes over the connection for the request of this number, whose body or message is `body`.
    pub(super) fn framed(&self, body: &Bytes, request: u64) -> Bytes {
        match self.protocol {
            Protocol::TritonGrpc => grpc::framed(body),
            Protocol::LmdeployTriton => body.clone(),
            Protocol::OpenaiCompletions
            | Protocol::OpenaiChat
            | Protocol::TritonGenerate
            | Protocol::TritonGenerateStream
            | Protocol::InProcess => http::post(&self.address, &self.path, body, request).into(),
        }
    }
}

impl Connection {
    /// Whether it can carry another request.
    pub(super) fn is_ready(&mut self) -> bool {
        match self {
            Self::Http(connection) => connection.is_ready(),
            Self::Grpc(connection) => connection.is_ready(),
            Self::Lmdeploy(connection) => connection.is_ready(),
        }
    }

    /// Sends what [`Route::framed`] made and keeps all that comes back in `seen`. After anything but `End::Complete`, or
    /// when dropped half-way, [`Self::is_ready`] tells whether the connection survived.
    pub(super) async fn exchange(
        &mut self,
        route: &Route,
        request: &Bytes,
        clock: Clock,
        seen: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> Result<End, ClosedByServer> {
        match self {
            Self::Http(connection) => connection.exchange(request, clock, seen, heard_ns).await,
            Self::Grpc(connection) => Ok(connection.exchange(&route.path, request.clone(), seen, heard_ns).await),
            Self::Lmdeploy(connection) => Ok(connection.exchange(request, clock, seen, heard_ns).await),
        }
    }
}

/// An error and all its causes on one line.
pub(super) fn failure(kind: &str, error: &dyn Error) -> RequestError {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Some errors print their cause as well.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = inner.source();
    }
    RequestError { kind: kind.to_owned(), message }
}
