//! The server: both ports bound, the model loaded on its own thread, everything ended together.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

use crate::engine::build::{BuildOptions, ENGINE_JSON, EngineJson, check_limits};
use crate::engine::chat::ChatTemplate;
use crate::engine::config::ModelConfig;
use crate::engine::model::Model;
use crate::engine::scheduler::Scheduler;
use crate::engine::service::{Loaded, Service};
use crate::engine::text::TextCodec;
use crate::engine::triton_grpc::TritonGrpc;
use crate::engine::weights::Weights;
use crate::engine::{EngineError, folder, openai, triton_http};
use crate::kserve::grpc_inference_service_server::GrpcInferenceServiceServer;

/// Prompts are sent whole, so a request may be larger than the frameworks' defaults.
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// Sequences at a time for a Hugging Face folder that names no limit.
const DEFAULT_BATCH_SIZE: usize = 8;
/// How long open connections may take to end after `shutdown`.
const GRACE: Duration = Duration::from_secs(3);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct ServeOptions {
    /// A built engine, or a Hugging Face folder.
    pub folder: PathBuf,
    /// A host name or address.
    pub host: String,
    /// OpenAI and Triton over HTTP; 0 is any free port.
    pub http_port: u16,
    /// Triton over gRPC; 0 is any free port.
    pub grpc_port: u16,
    /// Besides this name, Triton's protocols also take `ensemble`.
    pub served_model_name: String,
    /// At most what the engine was built for; its whole batch when `None`.
    pub max_batch_size: Option<usize>,
    /// Threads that compute; one for each core when `None`.
    pub threads: Option<usize>,
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub grpc: SocketAddr,
}

/// Serves until `shutdown`. `listening` is called once both ports are bound; the weights load after that, and
/// `/health` answers 503 until they are in memory.
///
/// # Errors
/// When a port cannot be bound, when the model cannot be loaded, when a server or the model thread stops by itself.
pub async fn serve(
    options: ServeOptions,
    shutdown: CancellationToken,
    listening: impl FnOnce(Addresses),
) -> Result<(), EngineError> {
    let http = bind(&options.host, options.http_port, "HTTP").await?;
    let grpc = bind(&options.host, options.grpc_port, "gRPC").await?;
    let address = |listener: &TcpListener, purpose, port| {
        listener.local_addr().map_err(|source| EngineError::Listen {
            purpose,
            host: options.host.clone(),
            port,
            source,
        })
    };
    listening(Addresses {
        http: address(&http, "HTTP", options.http_port)?,
        grpc: address(&grpc, "gRPC", options.grpc_port)?,
    });

    // Whatever ends first, ends all.
    let shutdown = shutdown.child_token();
    let service = Arc::new(Service::new(options.served_model_name.clone()));
    let mut parts = JoinSet::new();
    parts.spawn(serve_http(http, Arc::clone(&service), shutdown.clone()));
    parts.spawn(serve_grpc(grpc, Arc::clone(&service), shutdown.clone()));
    parts.spawn(run_model(options, service, shutdown.clone()));

    let outcome = tokio::select! {
        first = parts.join_next() => first.map_or(Ok(()), part_outcome),
        () = shutdown.cancelled() => Ok(()),
    };
    shutdown.cancel();
    let rest = async {
        let mut outcome = outcome;
        while let Some(part) = parts.join_next().await {
            outcome = outcome.and(part_outcome(part));
        }
        outcome
    };
    // Connections that do not end by themselves are cut when the set is dropped.
    tokio::time::timeout(GRACE, rest).await.unwrap_or(Ok(()))
}

fn part_outcome(part: Result<Result<(), EngineError>, tokio::task::JoinError>) -> Result<(), EngineError> {
    part.unwrap_or(Err(EngineError::ModelThread))
}

async fn bind(host: &str, port: u16, purpose: &'static str) -> Result<TcpListener, EngineError> {
    TcpListener::bind((host, port)).await.map_err(|source| EngineError::Listen {
        purpose,
        host: host.to_owned(),
        port,
        source,
    })
}

async fn serve_http(
    listener: TcpListener,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let router = Router::new()
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .merge(openai::routes())
        .merge(triton_http::routes())
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(service);
    // A token must leave at once. A connection where this fails is slower, not wrong.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown.cancelled_owned())
        .await
        .map_err(|source| EngineError::Server { purpose: "HTTP", source: source.into() })
}

async fn health(State(service): State<Arc<Service>>) -> StatusCode {
    if service.loaded().is_ok() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

async fn metrics(State(service): State<Arc<Service>>) -> String {
    service.metrics.to_prometheus()
}

async fn serve_grpc(
    listener: TcpListener,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let grpc = GrpcInferenceServiceServer::new(TritonGrpc { service, shutdown: shutdown.clone() })
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    tonic::transport::Server::builder()
        .add_service(grpc)
        .serve_with_incoming_shutdown(incoming, shutdown.cancelled_owned())
        .await
        .map_err(|source| EngineError::Server { purpose: "gRPC", source: source.into() })
}

/// The thread that owns the model, seen as a task that ends when the thread does.
async fn run_model(
    options: ServeOptions,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> Result<(), EngineError> {
    let (sender, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let outcome = load(&options, &service, jobs).map(|scheduler| {
            // The thread idles on the queue, which closes when the last handler drops the service.
            drop(service);
            scheduler.run(receiver, &shutdown);
        });
        // The receiver is gone only when the server is.
        let _ = sender.send(outcome);
    });
    ended.await.unwrap_or(Err(EngineError::ModelThread))
}

/// Loads the model and opens the service. The pool's threads are the model's only ones.
fn load(
    options: &ServeOptions,
    service: &Service,
    jobs: mpsc::UnboundedSender<crate::engine::scheduler::Job>,
) -> Result<Scheduler, EngineError> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads.unwrap_or(0))
        .build()
        .map_err(|source| EngineError::Threads { source })?;
    let (config, weights, limits) = open(&options.folder, options.max_batch_size)?;
    let codec = Arc::new(TextCodec::read(&options.folder)?);
    let model = pool.install(|| Model::load(&config, &weights, limits.max_seq_len))?;
    service.set_loaded(Loaded {
        codec: Arc::clone(&codec),
        chat: ChatTemplate::read(&options.folder)?,
        eos: folder::eos_token_ids(&options.folder, config.eos_token_ids())?,
        vocab_size: config.vocab_size,
        max_batch_size: limits.max_batch_size,
        max_seq_len: limits.max_seq_len,
        jobs,
    });
    let metrics = Arc::clone(&service.metrics);
    Ok(Scheduler { model, codec, metrics, max_batch_size: limits.max_batch_size, pool })
}

/// A folder with an `engine.json` is a built engine; any other is a model, with the model's own limits.
fn open(folder: &Path, max_batch_size: Option<usize>) -> Result<(ModelConfig, Weights, BuildOptions), EngineError> {
    let engine_json = folder.join(ENGINE_JSON);
    let (model, weights, built) = if engine_json.exists() {
        let engine = EngineJson::read(&engine_json)?;
        let weights = Weights::of_engine(folder, &engine.model)?;
        (engine.model, weights, engine.options)
    } else {
        let model = ModelConfig::read(folder)?;
        let weights = Weights::of_checkpoint(folder, &model)?;
        let batch = max_batch_size.unwrap_or(DEFAULT_BATCH_SIZE);
        let limits = BuildOptions { max_batch_size: batch, max_seq_len: model.max_position_embeddings };
        (model, weights, limits)
    };
    let limits = BuildOptions { max_batch_size: max_batch_size.unwrap_or(built.max_batch_size), ..built };
    if limits.max_batch_size > built.max_batch_size {
        return Err(EngineError::BatchTooLarge { asked: limits.max_batch_size, limit: built.max_batch_size });
    }
    check_limits(&model, limits)?;
    Ok((model, weights, limits))
}
