//! One HTTP/1.1 connection, opened and given up by its worker. A pool would hide when a connection is made; this
//! cannot.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderValue};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::address::Address;
use super::connection::{ClosedByServer, failure};
use super::exchange::{Arrival, Clock, End, Exchange};
use crate::record::RequestError;

pub(super) struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    /// Reads and writes the socket; ends when this value does.
    _driver: JoinSet<()>,
    /// At least one answer came through.
    used: bool,
    /// A request is under way, or was when it was given up.
    busy: bool,
}

impl HttpConnection {
    pub(super) async fn open(address: &Address) -> Result<Self, RequestError> {
        let failed = |error: &dyn std::error::Error| failure("connect", error);
        let socket = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| failed(&error))?;
        socket.set_nodelay(true).map_err(|error| failed(&error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(socket)).await.map_err(|error| failed(&error))?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // Its error also reaches the request under way, which reports it.
            let _ = connection.await;
        });
        Ok(Self { sender, _driver: driver, used: false, busy: false })
    }

    /// Whether a request can be sent. Waits until the end of the last answer has been worked off.
    pub(super) async fn is_ready(&mut self) -> bool {
        !self.busy && self.sender.ready().await.is_ok()
    }

    /// Sends one request and keeps what comes back, each piece with its time.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        clock: Clock,
        seen: &mut Exchange,
    ) -> Result<End, ClosedByServer> {
        self.busy = true;
        seen.sent_ns = clock.now_ns();
        let response = match self.sender.send_request(request).await {
            Ok(response) => response,
            Err(_) if self.used => return Err(ClosedByServer),
            Err(error) => return Ok(End::Failed(failure("stream", &error))),
        };
        self.used = true;
        let status = response.status();
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            let at_ns = clock.now_ns();
            match frame.map(hyper::body::Frame::into_data) {
                Ok(Ok(bytes)) => seen.arrivals.push(Arrival { at_ns, bytes }),
                Ok(Err(_trailers)) => {}
                Err(error) => return Ok(End::Failed(failure("stream", &error))),
            }
        }
        self.busy = false;
        Ok(if status.is_success() { End::Complete } else { End::Refused { status: status.as_u16() } })
    }
}

pub(super) fn post(address: &Address, path: PathAndQuery, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = get(address, path);
    *request.method_mut() = Method::POST;
    *request.body_mut() = Full::new(body);
    request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request
}

fn get(address: &Address, path: PathAndQuery) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = Uri::from(path);
    request.headers_mut().insert(header::HOST, address.host_header.clone());
    request
}

/// Asks the server for a small document, over a connection of its own.
pub(super) async fn fetch(address: &Address, path: PathAndQuery) -> Result<(StatusCode, Bytes), RequestError> {
    let mut connection = HttpConnection::open(address).await?;
    let failed = |error| failure("stream", &error);
    let response = connection.sender.send_request(get(address, path)).await.map_err(failed)?;
    let status = response.status();
    Ok((status, response.into_body().collect().await.map_err(failed)?.to_bytes()))
}
