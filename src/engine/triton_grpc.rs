//! Triton's gRPC service: health, metadata, one-answer and streamed inference.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::engine::metrics::Metrics;
use crate::engine::service::{CUT_OFF, Refusal, Service};
use crate::engine::triton::{ENSEMBLE, INPUTS, Inference, OUTPUTS, VERSION};
use crate::engine::triton_tensors::{Envelope, check_outputs, read_inputs};
use crate::kserve::grpc_inference_service_server::GrpcInferenceService;
use crate::kserve::model_metadata_response::TensorMetadata;
use crate::kserve::repository_index_response::ModelIndex;
use crate::kserve::{
    DataType, InferStatistics, ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelInput, ModelMetadataRequest, ModelMetadataResponse, ModelOutput, ModelReadyRequest,
    ModelReadyResponse, ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse, ModelStreamInferResponse,
    ModelTransactionPolicy, RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse, StatisticDuration,
};

/// The service over gRPC; streams end at `shutdown`.
pub(crate) struct TritonGrpc {
    pub(crate) service: Arc<Service>,
    pub(crate) shutdown: CancellationToken,
}

type Answers<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl GrpcInferenceService for TritonGrpc {
    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn server_live(&self, _: Request<ServerLiveRequest>) -> Answers<ServerLiveResponse> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<ServerReadyRequest>) -> Answers<ServerReadyResponse> {
        Ok(Response::new(ServerReadyResponse { ready: self.service.loaded().is_ok() }))
    }

    async fn model_ready(&self, request: Request<ModelReadyRequest>) -> Answers<ModelReadyResponse> {
        let ready = self.service.serves(&request.get_ref().name) && self.service.loaded().is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(&self, _: Request<ServerMetadataRequest>) -> Answers<ServerMetadataResponse> {
        Ok(Response::new(ServerMetadataResponse {
            name: "benchrun-engine".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: Vec::new(),
        }))
    }

    async fn model_metadata(&self, request: Request<ModelMetadataRequest>) -> Answers<ModelMetadataResponse> {
        let name = self.known(request.into_inner().name)?;
        let tensor = |name: &str, datatype: &str| TensorMetadata {
            name: name.to_owned(),
            datatype: datatype.to_owned(),
            shape: vec![-1, -1],
        };
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: vec![VERSION.to_owned()],
            platform: ENSEMBLE.to_owned(),
            inputs: INPUTS.iter().map(|(name, datatype, _)| tensor(name, datatype)).collect(),
            outputs: OUTPUTS.iter().map(|(name, datatype)| tensor(name, datatype)).collect(),
        }))
    }

    /// Only answers of one response; a request with `stream` needs the stream call.
    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answers<ModelInferResponse> {
        let request = request.into_inner();
        self.known(request.model_name.clone())?;
        let inference = read(&request).map_err(Status::invalid_argument)?;
        if inference.stream {
            let message =
                "ModelInfer RPC doesn't support models with decoupled transaction policy: `stream` must be false";
            return Err(Status::unimplemented(message));
        }
        let answer = self.service.ask(inference.ask).await?;
        let layout = inference.layout.with_prompt_tokens(answer.prompt_tokens);
        let whole = answer.whole().await.map_err(Status::internal)?;
        Ok(Response::new(Envelope::of(&request).response(&layout.whole(&whole.text, whole.tokens), true)))
    }

    /// Requests on one stream are answered side by side, each in order; an error is a message and ends only its request.
    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answers<Self::ModelStreamInferStream> {
        let service = Arc::clone(&self.service);
        let requests = request.into_inner().take_while(|request| std::future::ready(request.is_ok()));
        let responses = requests
            .filter_map(|request| std::future::ready(request.ok()))
            .flat_map_unordered(None, move |request| responses(Arc::clone(&service), request))
            .map(Ok)
            .take_until(self.shutdown.clone().cancelled_owned());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn model_config(&self, request: Request<ModelConfigRequest>) -> Answers<ModelConfigResponse> {
        let name = self.known(request.into_inner().name)?;
        let batch = self.service.loaded()?.max_batch_size;
        let input = |(name, datatype, required): &(&str, &str, bool)| ModelInput {
            name: (*name).to_owned(),
            data_type: data_type(datatype).into(),
            dims: vec![1],
            optional: !required,
        };
        let output = |(name, datatype): &(&str, &str)| ModelOutput {
            name: (*name).to_owned(),
            data_type: data_type(datatype).into(),
            dims: vec![-1],
        };
        let config = ModelConfig {
            name,
            platform: ENSEMBLE.to_owned(),
            max_batch_size: i32::try_from(batch).unwrap_or(i32::MAX),
            input: INPUTS.iter().map(input).collect(),
            output: OUTPUTS.iter().map(output).collect(),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
            ..ModelConfig::default()
        };
        Ok(Response::new(ModelConfigResponse { config: Some(config) }))
    }

    async fn model_statistics(&self, request: Request<ModelStatisticsRequest>) -> Answers<ModelStatisticsResponse> {
        let asked = request.into_inner().name;
        let name = if asked.is_empty() { ENSEMBLE.to_owned() } else { self.known(asked)? };
        let metrics = &self.service.metrics;
        let finished = Metrics::read(&metrics.finished);
        let success = StatisticDuration { count: finished, ns: 0 };
        let statistics = ModelStatistics {
            name,
            version: VERSION.to_owned(),
            inference_count: finished,
            execution_count: Metrics::read(&metrics.steps),
            inference_stats: Some(InferStatistics { success: Some(success), ..InferStatistics::default() }),
            ..ModelStatistics::default()
        };
        Ok(Response::new(ModelStatisticsResponse { model_stats: vec![statistics] }))
    }

    async fn repository_index(&self, _: Request<RepositoryIndexRequest>) -> Answers<RepositoryIndexResponse> {
        let state = if self.service.loaded().is_ok() { "READY" } else { "LOADING" };
        let index = |name: &str| ModelIndex {
            name: name.to_owned(),
            version: VERSION.to_owned(),
            state: state.to_owned(),
            reason: String::new(),
        };
        let mut names = vec![ENSEMBLE, &self.service.model_name];
        names.dedup();
        Ok(Response::new(RepositoryIndexResponse { models: names.into_iter().map(index).collect() }))
    }
}

impl TritonGrpc {
    fn known(&self, model: String) -> Result<String, Status> {
        if self.service.serves(&model) { Ok(model) } else { Err(Status::not_found(unknown_model(&model))) }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Loading | Refusal::Stopping => Self::unavailable(refusal.to_string()),
            Refusal::Invalid(complaint) => Self::invalid_argument(complaint),
        }
    }
}

fn unknown_model(model: &str) -> String {
    format!("Request for unknown model: '{model}' is not found")
}

fn read(request: &ModelInferRequest) -> Result<Inference, String> {
    check_outputs(request)?;
    Inference::read(&read_inputs(request)?)
}

/// All responses to one request.
fn responses(service: Arc<Service>, request: ModelInferRequest) -> BoxStream<'static, ModelStreamInferResponse> {
    let responses = async move { start(&service, &request).await.unwrap_or_else(|message| just(failure(message))) };
    stream::once(responses).flatten().boxed()
}

async fn start(
    service: &Service,
    request: &ModelInferRequest,
) -> Result<BoxStream<'static, ModelStreamInferResponse>, String> {
    if !service.serves(&request.model_name) {
        return Err(unknown_model(&request.model_name));
    }
    let inference = read(request)?;
    let answer = service.ask(inference.ask).await.map_err(|refusal| refusal.to_string())?;
    let layout = inference.layout.with_prompt_tokens(answer.prompt_tokens);
    let envelope = Envelope::of(request);
    if !inference.stream {
        let whole = answer.whole().await?;
        let output = layout.whole(&whole.text, whole.tokens);
        let mut responses = vec![success(envelope.response(&output, !envelope.empty_final))];
        responses.extend(envelope.empty_final.then(|| success(envelope.empty(true))));
        return Ok(stream::iter(responses).boxed());
    }
    let mut ended = false;
    let chunks = UnboundedReceiverStream::new(answer.chunks).map(Some).chain(stream::iter([None]));
    let responses = chunks.filter_map(move |chunk| {
        let response = match chunk {
            Some(Ok(chunk)) => {
                ended |= chunk.finish.is_some();
                let is_final = chunk.finish.is_some() && !envelope.empty_final;
                Some(success(envelope.response(&layout.chunk(chunk), is_final)))
            }
            Some(Err(message)) => Some(failure(message)),
            None if !ended => Some(failure(CUT_OFF.to_owned())),
            None => envelope.empty_final.then(|| success(envelope.empty(true))),
        };
        std::future::ready(response)
    });
    Ok(responses.boxed())
}

fn just(response: ModelStreamInferResponse) -> BoxStream<'static, ModelStreamInferResponse> {
    stream::iter([response]).boxed()
}

fn success(response: ModelInferResponse) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message: String::new(), infer_response: Some(response) }
}

fn failure(error_message: String) -> ModelStreamInferResponse {
    ModelStreamInferResponse { error_message, infer_response: None }
}

fn data_type(name: &str) -> DataType {
    match name {
        "BYTES" => DataType::TypeString,
        "BOOL" => DataType::TypeBool,
        "INT32" => DataType::TypeInt32,
        "UINT64" => DataType::TypeUint64,
        "FP32" => DataType::TypeFp32,
        _ => DataType::TypeInvalid,
    }
}
