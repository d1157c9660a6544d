//! Triton's gRPC service with scripted responses.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use benchrun::kserve::grpc_inference_service_server::{GrpcInferenceService, GrpcInferenceServiceServer};
use benchrun::kserve::model_metadata_response::TensorMetadata;
use benchrun::kserve::{self, ModelInferRequest, ModelMetadataResponse, ModelStreamInferResponse};
use futures_util::{Stream, StreamExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) type Responses = Vec<Result<ModelStreamInferResponse, Status>>;

#[derive(Default)]
pub(super) struct Seen {
    pub(super) streams: usize,
    pub(super) requests: Vec<ModelInferRequest>,
    /// Of all methods, in order.
    pub(super) calls: Vec<ModelInferRequest>,
    /// How often a model's configuration was asked for.
    pub(super) configs: usize,
    /// Where requests came from.
    pub(super) peers: HashSet<SocketAddr>,
}

type Answered<T> = Result<T, Status>;
/// Responses to a request, the n-th on a stream.
type Script = Arc<dyn Fn(usize, &ModelInferRequest) -> Responses + Send + Sync>;
type Infer = Arc<dyn Fn(&ModelInferRequest) -> Answered<kserve::ModelInferResponse> + Send + Sync>;

pub(super) struct Server {
    pub(super) url: String,
    seen: Arc<Mutex<Seen>>,
    _tasks: JoinSet<()>,
}

struct Triton {
    inputs: Vec<&'static str>,
    outputs: Vec<&'static str>,
    script: Script,
    infer: Infer,
    config: kserve::ModelConfig,
    seen: Arc<Mutex<Seen>>,
}

impl Server {
    pub(super) async fn start(
        inputs: &[&'static str],
        outputs: &[&'static str],
        script: impl Fn(usize) -> Responses + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Triton {
            inputs: inputs.to_vec(),
            outputs: outputs.to_vec(),
            script: Arc::new(move |number, _| script(number)),
            infer: Arc::new(|_| not_needed()),
            config: kserve::ModelConfig::default(),
            seen: Arc::default(),
        })
        .await
    }

    /// With streams and single answers that depend on what is asked.
    pub(super) async fn of_models(
        config: kserve::ModelConfig,
        script: impl Fn(&ModelInferRequest) -> Responses + Send + Sync + 'static,
        infer: impl Fn(&ModelInferRequest) -> Answered<kserve::ModelInferResponse> + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Triton {
            inputs: Vec::new(),
            outputs: Vec::new(),
            script: Arc::new(move |_, request| script(request)),
            infer: Arc::new(infer),
            config,
            seen: Arc::default(),
        })
        .await
    }

    async fn serve(triton: Triton) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::clone(&triton.seen);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let service = GrpcInferenceServiceServer::new(triton);
            let incoming = TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { url, seen, _tasks: tasks }
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }
}

type ResponseStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

fn not_needed<T>() -> Answered<T> {
    Err(Status::unimplemented("no test needs it"))
}

#[tonic::async_trait]
impl GrpcInferenceService for Triton {
    type ModelStreamInferStream = ResponseStream;

    async fn model_stream_infer(
        &self,
        requests: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<ResponseStream>, Status> {
        self.seen.lock().unwrap().streams += 1;
        self.seen.lock().unwrap().peers.extend(requests.remote_addr());
        let (seen, script) = (Arc::clone(&self.seen), Arc::clone(&self.script));
        let responses = requests.into_inner().flat_map(move |request| {
            let Ok(request) = request else { return futures_util::stream::iter(Vec::new()) };
            let number = {
                let mut seen = seen.lock().unwrap();
                seen.calls.push(request.clone());
                seen.requests.push(request.clone());
                seen.requests.len() - 1
            };
            futures_util::stream::iter(script(number, &request))
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn model_metadata(
        &self,
        _: Request<kserve::ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let tensors = |names: &[&str]| -> Vec<TensorMetadata> {
            let shape = vec![-1, 1];
            let tensor =
                |name: &&str| TensorMetadata { name: (*name).to_owned(), shape: shape.clone(), ..Default::default() };
            names.iter().map(tensor).collect()
        };
        let (inputs, outputs) = (tensors(&self.inputs), tensors(&self.outputs));
        Ok(Response::new(ModelMetadataResponse { inputs, outputs, ..Default::default() }))
    }

    async fn server_live(
        &self,
        _: Request<kserve::ServerLiveRequest>,
    ) -> Result<Response<kserve::ServerLiveResponse>, Status> {
        not_needed()
    }

    async fn server_ready(
        &self,
        _: Request<kserve::ServerReadyRequest>,
    ) -> Result<Response<kserve::ServerReadyResponse>, Status> {
        not_needed()
    }

    async fn model_ready(
        &self,
        _: Request<kserve::ModelReadyRequest>,
    ) -> Result<Response<kserve::ModelReadyResponse>, Status> {
        not_needed()
    }

    async fn server_metadata(
        &self,
        _: Request<kserve::ServerMetadataRequest>,
    ) -> Result<Response<kserve::ServerMetadataResponse>, Status> {
        not_needed()
    }

    async fn model_infer(
        &self,
        request: Request<kserve::ModelInferRequest>,
    ) -> Result<Response<kserve::ModelInferResponse>, Status> {
        let peer = request.remote_addr();
        let request = request.into_inner();
        let mut seen = self.seen.lock().unwrap();
        seen.peers.extend(peer);
        seen.calls.push(request.clone());
        (self.infer)(&request).map(Response::new)
    }

    async fn model_config(
        &self,
        _: Request<kserve::ModelConfigRequest>,
    ) -> Result<Response<kserve::ModelConfigResponse>, Status> {
        self.seen.lock().unwrap().configs += 1;
        Ok(Response::new(kserve::ModelConfigResponse { config: Some(self.config.clone()) }))
    }

    async fn model_statistics(
        &self,
        _: Request<kserve::ModelStatisticsRequest>,
    ) -> Result<Response<kserve::ModelStatisticsResponse>, Status> {
        not_needed()
    }

    async fn repository_index(
        &self,
        _: Request<kserve::RepositoryIndexRequest>,
    ) -> Result<Response<kserve::RepositoryIndexResponse>, Status> {
        not_needed()
    }
}
