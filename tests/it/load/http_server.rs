//! An HTTP/1.1 server that answers by script and keeps account.

use std::sync::Arc;
use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

/// What the server does with one request.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) status: u16,
    /// Each is sent as one HTTP chunk.
    pub(super) chunks: Vec<Vec<u8>>,
    pub(super) ending: Ending,
}

#[derive(Clone, Copy)]
pub(super) enum Ending {
    Complete,
    /// Completes the answer, and closes the connection without having said so.
    CompleteThenClose,
    /// Closes the connection in the middle of the answer.
    Break,
    /// Never ends the answer.
    Hang,
}

impl Script {
    pub(super) fn stream(chunks: &[&str]) -> Self {
        let chunks = chunks.iter().map(|chunk| chunk.as_bytes().to_vec()).collect();
        Self { status: 200, chunks, ending: Ending::Complete }
    }
}

#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    pub(super) paths: Vec<String>,
    pub(super) bodies: Vec<serde_json::Value>,
    pub(super) at_once: usize,
    pub(super) most_at_once: usize,
}

pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

impl Server {
    /// Answers the n-th request, counted over all connections, as `script(n)` says.
    pub(super) async fn start(script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        Self::start_gated(1, script).await
    }

    /// As `start`, and no request is answered before `gate` of them are there.
    pub(super) async fn start_gated(gate: usize, script: impl Fn(usize) -> Script + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Seen::default()));
        let account = Arc::clone(&seen);
        let (script, gate) = (Arc::new(script), Arc::new(Barrier::new(gate)));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                account.lock().unwrap().connections += 1;
                let (account, script, gate) = (Arc::clone(&account), Arc::clone(&script), Arc::clone(&gate));
                connections.spawn(async move { serve(socket, &account, &*script, &gate).await });
            }
        });
        Self { url, seen, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

async fn serve(socket: TcpStream, seen: &Mutex<Seen>, script: &(dyn Fn(usize) -> Script + Sync), gate: &Barrier) {
    let mut socket = BufReader::new(socket);
    while let Some((path, body)) = read_request(&mut socket).await {
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.paths.push(path);
            seen.bodies.push(serde_json::from_slice(&body).unwrap_or_default());
            seen.at_once += 1;
            seen.most_at_once = seen.most_at_once.max(seen.at_once);
            seen.bodies.len() - 1
        };
        gate.wait().await;
        let script = script(number);
        let head = format!("HTTP/1.1 {} X\r\nTransfer-Encoding: chunked\r\n\r\n", script.status);
        socket.write_all(head.as_bytes()).await.unwrap();
        for chunk in &script.chunks {
            let framed = [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat();
            socket.write_all(&framed).await.unwrap();
        }
        seen.lock().unwrap().at_once -= 1;
        match script.ending {
            Ending::Complete => socket.write_all(b"0\r\n\r\n").await.unwrap(),
            Ending::CompleteThenClose => return socket.write_all(b"0\r\n\r\n").await.unwrap(),
            Ending::Break => return,
            Ending::Hang => std::future::pending().await,
        }
    }
}

/// The path and the body of the next request; `None` when the client has hung up.
async fn read_request(socket: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut first = String::new();
    socket.read_line(&mut first).await.ok()?;
    let path = first.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await.ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await.ok()?;
    Some((path, body))
}
