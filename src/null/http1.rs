//! HTTP/1.1, framed by hand: a chunk is encoded once for an answer, and one write sends it.

use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use httparse::{EMPTY_HEADER, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answer::Shard;
use super::routes::{Reply, Request, respond};

const MOST_HEADERS: usize = 128;
/// Prompts are sent whole.
const MOST_BYTES: usize = 64 << 20;
const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// Answers the requests of a connection, one after the other, until the client closes it.
pub(super) async fn serve(shard: &Arc<Shard>, mut socket: TcpStream) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    loop {
        let head = loop {
            match Head::parse(&bytes)? {
                Some(head) if bytes.len() >= head.end => break head,
                Some(_) | None => {}
            }
            if bytes.len() > MOST_BYTES || socket.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let request = bytes.split_to(head.end);
        let Head { method, path, id, body, end } = head;
        let reply = respond(shard, Request { method: &method, path: &path, id, body: &request[body..end] }).await;
        write(&mut socket, reply).await?;
    }
}

async fn write(socket: &mut TcpStream, reply: Reply) -> io::Result<()> {
    match reply {
        Reply::Document { status, json } => {
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                json.len()
            );
            socket.write_all(&[head.as_bytes(), &json].concat()).await
        }
        Reply::Events(answer) => {
            let mut answer = answer.framed(chunk);
            socket.write_all(EVENTS).await?;
            while let Some(chunk) = answer.next().await {
                socket.write_all(&chunk).await?;
            }
            socket.write_all(b"0\r\n\r\n").await
        }
    }
}

/// A piece of a body whose length is not known beforehand.
fn chunk(data: &[u8]) -> Bytes {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat().into()
}

struct Head {
    method: String,
    path: String,
    id: String,
    /// Where the body begins, and where the request ends.
    body: usize,
    end: usize,
}

impl Head {
    /// `None` while it is incomplete.
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut headers = [EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let Status::Complete(body) = request.parse(bytes).map_err(|_| broken())? else { return Ok(None) };
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            str::from_utf8(found.value).ok()
        };
        let length: usize = header("content-length").unwrap_or("0").trim().parse().map_err(|_| broken())?;
        Ok(Some(Self {
            method: request.method.unwrap_or_default().to_owned(),
            path: request.path.unwrap_or_default().to_owned(),
            id: header("x-request-id").unwrap_or_default().to_owned(),
            body,
            end: body.checked_add(length).ok_or_else(broken)?,
        }))
    }
}
