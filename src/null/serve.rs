use std::io;
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::Sender;
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::NullError;
use super::answer::{Pace, Shard};
use super::ask::Chunking;
use super::metronome::{Metronome, nanoseconds};
use super::routes::respond;
use super::truth::{Truth, TruthWriter};

/// Window of a gRPC connection: prompts are sent whole.
const WINDOW_BYTES: u32 = 4 << 20;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// After a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(10);

/// Where to serve, and on which timetable.
#[derive(Clone, Debug)]
pub struct NullOptions {
    /// A host name or address.
    pub host: String,
    /// All protocols are on one port; 0 is any free one.
    pub port: u16,
    /// From a request's arrival to its first chunk.
    pub ttft: Duration,
    /// How much longer that takes at most, evenly spread over the requests.
    pub ttft_spread: Duration,
    /// From one chunk to the next; 0 is as fast as possible.
    pub itl: Duration,
    pub tokens_per_chunk: NonZero<u32>,
    /// Text in a whole chunk, in bytes, shared out evenly; no token has less than two.
    pub chunk_bytes: u32,
    /// Threads that serve; each takes connections as they come.
    pub threads: NonZero<usize>,
    /// A file that gets a JSON line for each request.
    pub truth: Option<PathBuf>,
}

/// A server whose port is open already: what connects now is served once it serves.
#[derive(Debug)]
pub struct NullServer {
    options: NullOptions,
    listener: std::net::TcpListener,
    address: SocketAddr,
}

impl NullServer {
    pub fn bind(options: NullOptions) -> Result<Self, NullError> {
        let listen = || {
            let listener = event_loop()?.block_on(listen(&options.host, options.port))?;
            Ok((listener.local_addr()?, listener))
        };
        let failed = |source| NullError::Listen { host: options.host.clone(), port: options.port, source };
        let (address, listener) = listen().map_err(failed)?;
        Ok(Self { options, listener, address })
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown`, on threads of its own. Blocks.
    pub fn serve(&self, shutdown: &CancellationToken) -> Result<(), NullError> {
        allow_many_connections();
        let (truth, writer) = self.options.truth.as_deref().map(TruthWriter::create).transpose()?.unzip();
        thread::scope(|scope| {
            let writer = writer.map(|writer| scope.spawn(|| writer.run()));
            let serve = |truth: Option<Sender<Truth>>| {
                event_loop()?.block_on(serve_shard(&self.options, self.listener.try_clone()?, truth, shutdown))
            };
            let shards: Vec<_> = (0..self.options.threads.get())
                .map(|_| truth.clone())
                .map(|truth| scope.spawn(move || serve(truth)))
                .collect();
            // The writer ends with the last sender.
            drop(truth);
            let ends: Vec<io::Result<()>> = shards.into_iter().map(joined).collect();
            let served = ends.into_iter().collect::<io::Result<()>>().map_err(|source| NullError::Serve { source });
            served.and(writer.map_or(Ok(()), joined))
        })
    }
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Without a timer: the metronome is one.
fn event_loop() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_io().build()
}

/// With room for all connections of a load point that are made at once.
async fn listen(host: &str, port: u16) -> io::Result<std::net::TcpListener> {
    let address = tokio::net::lookup_host((host, port)).await?.next();
    let address = address.ok_or_else(|| io::Error::other("the name has no address"))?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Each connection is a file; the usual limit of 1024 is for programs that `select`.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    // Refused or not, what is allowed now still works.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn serve_shard(
    options: &NullOptions,
    listener: std::net::TcpListener,
    truth: Option<Sender<Truth>>,
    shutdown: &CancellationToken,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let metronome = Arc::new(Metronome::new()?);
    let shard = Arc::new(Shard {
        pace: Pace {
            ttft_ns: nanoseconds(options.ttft),
            ttft_spread_ns: nanoseconds(options.ttft_spread),
            itl_ns: nanoseconds(options.itl),
        },
        chunking: Chunking {
            tokens_per_chunk: options.tokens_per_chunk.get(),
            token_bytes: (options.chunk_bytes / options.tokens_per_chunk).max(2) as usize,
        },
        metronome: Arc::clone(&metronome),
        truth,
        requests: AtomicU64::new(0),
    });
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { metronome.run().await });
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => accepted,
            // Only the metronome's failure is one: without it nothing moves. Connections end as they like.
            Some(Ok(Err(error))) = tasks.join_next() => return Err(error),
            () = shutdown.cancelled() => return Ok(()),
        };
        match socket {
            Ok((socket, _)) => drop(tasks.spawn(serve_connection(socket, Arc::clone(&shard)))),
            // Out of files, or the client has gone again: the others must not wait for it.
            Err(_) => shard.metronome.sleep(PAUSE).await,
        }
    }
}

async fn serve_connection(socket: TcpStream, shard: Arc<Shard>) -> io::Result<()> {
    // A connection where this fails is slower, not wrong.
    let _ = socket.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().initial_stream_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES);
    let service = service_fn(|request| respond(Arc::clone(&shard), request));
    // A client that goes away ends its connection with an error.
    let _ = builder.serve_connection(TokioIo::new(socket), service).await;
    Ok(())
}
