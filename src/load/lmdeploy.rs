//! The client of LMDeploy v0.1.0, its `Chatbot`, which calls three models of a Triton server.
//!
//! `preprocessing` makes ids of the prompt. `turbomind` adds ids to them, in a stream of its own for each request, which
//! ends when the server closes it: nothing marks the last response. After each response `postprocessing` makes text of all
//! the ids that there are by then, before the next response is looked at. A text that ends within a character is held back
//! until the next one brings the rest.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tonic::transport::Channel;

use super::LoadError;
use super::address::Address;
use super::answer::{Answer, shorten};
use super::exchange::{Arrivals, Clock, End, Exchange};
use super::grpc::{connect, refused};
use super::lmdeploy_models::ChatModel;
use super::lmdeploy_tensors::{
    Call, INPUT_ID, OUTPUT, TURBOMIND, answer_ids, count, numbers, postprocessing, preprocessing, text,
};
use super::received::Received;
use super::request::Ask;
use crate::kserve::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::kserve::{ModelConfigRequest, ModelInferRequest, ModelInferResponse};
use crate::record::{RequestError, TokenSource};
use crate::spec::{LoadPoint, OutputMode};

type Client = GrpcInferenceServiceClient<Channel>;

/// What is known of the server before the first request.
#[derive(Debug)]
pub(super) struct Chatbot {
    model: ChatModel,
    /// The id that ends a sequence, as a signed number: -1 where there is none.
    end: i32,
}

impl Chatbot {
    pub(super) async fn of_server(address: &Address, limit: Duration) -> Result<Self, LoadError> {
        let failed = |reason| LoadError::Chatbot { url: address.url(), reason };
        let channel = connect(address, Some(limit)).await.map_err(|error| failed(error.message))?;
        Self::ask(Client::new(channel)).await.map_err(failed)
    }

    /// `Err` is a reason.
    async fn ask(mut client: Client) -> Result<Self, String> {
        let request = ModelConfigRequest { name: TURBOMIND.to_owned(), version: String::new() };
        let answer = client.model_config(request).await.map_err(|status| status.message().to_owned())?;
        let config = answer.into_inner().config.unwrap_or_default();
        let name = config.parameters.get("model_name").map(|parameter| &parameter.string_value);
        let name = name.ok_or_else(|| format!("model `{TURBOMIND}` has no parameter `model_name`"))?;
        let model = ChatModel::of(name).ok_or_else(|| format!("LMDeploy v0.1.0 knows no model `{name}`"))?;
        let end = infer(&mut client, preprocessing("<EOS>")).await.map_err(|error| error.message)?;
        let end = *numbers(&end, INPUT_ID)?.first().ok_or("model `preprocessing` does not say what ends a sequence")?;
        Ok(Self { model, end: end.cast_signed() })
    }

    /// What [`LmdeployConnection::exchange`] carries out.
    pub(super) fn call(&self, point: &LoadPoint, ask: &Ask<'_>, request: u64) -> Bytes {
        let sampling = &point.sampling;
        let greedy = sampling.temperature == 0.0;
        #[expect(clippy::cast_possible_truncation, reason = "the tensors' type")]
        let fp32 = |number: f64| if greedy { 1.0 } else { number as f32 };
        let call = Call {
            prompt: self.model.prompt(&ask.content.text()),
            output_tokens: ask.output_tokens,
            // Two requests of one session never run at the same time.
            session: point.arrival.concurrency().map_or(request + 1, |_| ask.worker.into()),
            session_len: self.model.session_len,
            top_p: fp32(sampling.top_p.unwrap_or(1.0)),
            top_k: if greedy { Some(1) } else { sampling.top_k },
            temperature: fp32(sampling.temperature),
            repetition_penalty: self.model.repetition_penalty,
            banned: (point.output.mode == OutputMode::Exact).then_some(self.end),
            random_seed: point.sampling_seed.wrapping_add(request),
        };
        serde_json::to_vec(&call).expect("text and numbers always serialise").into()
    }
}

/// A worker's connection. (The script's threads share one as long as a call of any is under way.)
pub(super) struct LmdeployConnection {
    client: Client,
    broken: bool,
}

/// A line of what is kept of an answer: what the `Chatbot` yields.
#[derive(Debug, Deserialize, Serialize)]
struct Yielded {
    /// What is new.
    text: String,
    input_tokens: u32,
    /// So far.
    output_tokens: u32,
}

impl LmdeployConnection {
    pub(super) async fn open(address: &Address) -> Result<Self, RequestError> {
        Ok(Self { client: Client::new(connect(address, None).await?), broken: false })
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.broken
    }

    /// Carries out one [`Chatbot::call`].
    pub(super) async fn exchange(
        &mut self,
        call: &[u8],
        clock: Clock,
        seen: &mut Exchange,
        heard_ns: &AtomicU64,
    ) -> End {
        let call = serde_json::from_slice(call).expect("a call as it was made");
        match self.answer(&call, clock, &mut seen.received, heard_ns).await {
            Ok(()) => End::Complete,
            Err(error) => {
                self.broken = true;
                End::Failed(error)
            }
        }
    }

    async fn answer(
        &mut self,
        call: &Call,
        clock: Clock,
        received: &mut Received,
        heard_ns: &AtomicU64,
    ) -> Result<(), RequestError> {
        let prompt = infer(&mut self.client, preprocessing(&call.prompt)).await?;
        let prompt = numbers(&prompt, INPUT_ID).map_err(unreadable)?;
        fits(call, &prompt)?;
        let request = stream::iter([call.turbomind(&prompt)]);
        let mut responses =
            self.client.model_stream_infer(request).await.map_err(|status| refused(&status))?.into_inner();
        let mut yielded = Yielded { text: String::new(), input_tokens: count(&prompt), output_tokens: 0 };
        let mut known = 0;
        while let Some(response) = responses.message().await.map_err(|status| refused(&status))? {
            heard_ns.store(clock.now_ns(), Ordering::Relaxed);
            if !response.error_message.is_empty() {
                return Err(failure("server", shorten(&response.error_message)));
            }
            let ids = answer_ids(&response.infer_response.unwrap_or_default(), prompt.len()).map_err(unreadable)?;
            let new = infer(&mut self.client, postprocessing(&ids, known)).await?;
            yielded.text = text(&new, OUTPUT).map_err(unreadable)?;
            yielded.output_tokens = count(&ids);
            if !yielded.text.ends_with(char::REPLACEMENT_CHARACTER) {
                known = yielded.output_tokens;
                yielded.keep(received, clock);
            }
        }
        // The last yield says that the stream has ended, and has what is still held back.
        yielded.keep(received, clock);
        Ok(())
    }
}

impl Yielded {
    fn keep(&mut self, received: &mut Received, clock: Clock) {
        let at_ns = clock.now_ns();
        serde_json::to_writer(&mut received.tail, self).expect("text and numbers always serialise");
        received.mark(at_ns, received.tail.len());
        received.pack(received.tail.len());
        self.text.clear();
    }
}

async fn infer(client: &mut Client, request: ModelInferRequest) -> Result<ModelInferResponse, RequestError> {
    Ok(client.model_infer(request).await.map_err(|status| refused(&status))?.into_inner())
}

/// What is longer than a session is not sent to `turbomind`.
fn fits(call: &Call, prompt: &[u32]) -> Result<(), RequestError> {
    let Call { output_tokens, session_len, .. } = call;
    if count(prompt).saturating_add(*output_tokens) <= *session_len {
        return Ok(());
    }
    let message = format!("{} tokens to {output_tokens} are more than a session's {session_len}", prompt.len());
    Err(failure("session_len", message))
}

fn unreadable(complaint: String) -> RequestError {
    failure("parse", complaint)
}

fn failure(kind: &str, message: String) -> RequestError {
    RequestError { kind: kind.to_owned(), message }
}

/// Reads the lines that [`LmdeployConnection::exchange`] kept.
pub(super) fn read(lines: &Arrivals) -> Answer {
    let mut answer = Answer::default();
    for (at_ns, line) in lines.pieces() {
        answer.first_response_ns.get_or_insert(at_ns);
        match serde_json::from_slice::<Yielded>(line) {
            Ok(Yielded { text, input_tokens, output_tokens }) => {
                answer.add_text(at_ns, text.as_bytes());
                answer.input_tokens = Some(input_tokens);
                answer.output_tokens = Some((output_tokens, TokenSource::ServerTensor));
            }
            Err(error) => answer.fail("parse", error.to_string()),
        }
    }
    answer
}
