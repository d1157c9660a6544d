//! The least that a client can do: streams in a closed loop, each piece of an answer read and stamped, nothing else. hyper
//! reads OpenAI completions, tonic reads Triton's gRPC. `scripts/accuracy.py measure` holds the load generator against it.
//!
//! ```text
//! cargo bench --bench bare_client -- openai|grpc HOST:PORT STREAMS REQUESTS TOKENS STAMPS.jsonl
//! ```
//!
//! Prints the CPU seconds that it took, and then writes a line for each request: its number, and the stamps of its chunks
//! on the host's CLOCK_MONOTONIC, in ns. Chunks that arrived in one piece share a stamp.

#![expect(clippy::print_stdout, reason = "a program for one figure")]

use std::cell::Cell;
use std::fmt::Write as _;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};
use benchrun::kserve::grpc_inference_service_client::GrpcInferenceServiceClient;
use benchrun::kserve::infer_parameter::ParameterChoice;
use benchrun::kserve::model_infer_request::InferInputTensor;
use benchrun::kserve::{InferParameter, ModelInferRequest};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustix::time::{ClockId, clock_gettime};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local};
use tonic::transport::{Channel, Endpoint};

const PROMPT: &str = "a prompt of some words";

struct Answer {
    request: u32,
    chunk_ns: Vec<i64>,
}

enum Client {
    OpenAi(SendRequest<Full<Bytes>>),
    Grpc(GrpcInferenceServiceClient<Channel>),
}

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [protocol, address, streams, requests, tokens, stamps] = words.as_slice() else {
        println!("usage: bare_client openai|grpc HOST:PORT STREAMS REQUESTS TOKENS STAMPS.jsonl");
        return Ok(());
    };
    let (streams, requests, tokens): (u32, u32, u32) = (streams.parse()?, requests.parse()?, tokens.parse()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = LocalSet::new().block_on(&runtime, load(protocol, address, streams, requests, tokens))?;
    let used = procfs::process::Process::myself()?.stat()?;
    println!("{:.2}", (used.utime + used.stime) as f64 / procfs::ticks_per_second() as f64);
    let mut text = String::new();
    for Answer { request, chunk_ns } in answers {
        writeln!(text, "{{\"request\": {request}, \"chunk_ns\": {chunk_ns:?}}}")?;
    }
    std::fs::write(stamps, text)?;
    Ok(())
}

async fn load(protocol: &str, address: &str, streams: u32, requests: u32, tokens: u32) -> Result<Vec<Answer>> {
    let next = Rc::new(Cell::new(0));
    let mut workers = Vec::new();
    for _ in 0..streams {
        let mut client = Client::connect(protocol, address).await?;
        let next = Rc::clone(&next);
        workers.push(spawn_local(async move {
            let mut answers = Vec::new();
            while next.get() < requests {
                let request = next.replace(next.get() + 1);
                let mut chunk_ns = Vec::with_capacity(tokens as usize);
                client.ask(request, tokens, &mut chunk_ns).await?;
                answers.push(Answer { request, chunk_ns });
            }
            anyhow::Ok(answers)
        }));
    }
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await??);
    }
    Ok(all)
}

impl Client {
    async fn connect(protocol: &str, address: &str) -> Result<Self> {
        if protocol == "grpc" {
            let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
            return Ok(Self::Grpc(GrpcInferenceServiceClient::new(channel)));
        }
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await?;
        // It ends with the connection, whose errors the sender tells as well.
        spawn_local(async move { drop(connection.await) });
        Ok(Self::OpenAi(sender))
    }

    async fn ask(&mut self, request: u32, tokens: u32, chunk_ns: &mut Vec<i64>) -> Result<()> {
        match self {
            Self::OpenAi(sender) => {
                let body = format!(r#"{{"model":"m","prompt":"{PROMPT}","max_tokens":{tokens},"stream":true}}"#);
                let post = hyper::Request::post("/v1/completions")
                    .header("host", "null")
                    .header("content-type", "application/json")
                    .header("x-request-id", request)
                    .body(Full::from(body))?;
                sender.ready().await?;
                let response = sender.send_request(post).await?;
                ensure!(response.status() == 200, "status {}", response.status());
                let mut body = response.into_body();
                while let Some(frame) = body.frame().await {
                    let now = now_ns();
                    let frame = frame?.into_data().ok().context("only data is expected")?;
                    let events = memchr::memmem::find_iter(&frame, "\n\n").count();
                    chunk_ns.extend(std::iter::repeat_n(now, events));
                }
            }
            Self::Grpc(client) => {
                let ask = futures_util::stream::iter([infer_request(request, tokens)]);
                let mut responses = client.model_stream_infer(ask).await?.into_inner();
                while let Some(response) = responses.message().await? {
                    chunk_ns.push(now_ns());
                    ensure!(response.error_message.is_empty(), "{}", response.error_message);
                }
            }
        }
        // What follows the last token tells nothing of its time.
        chunk_ns.truncate(tokens as usize);
        Ok(())
    }
}

fn infer_request(request: u32, tokens: u32) -> ModelInferRequest {
    let tensor = |name: &str, datatype: &str| InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: vec![1, 1],
        ..InferInputTensor::default()
    };
    let length = u32::try_from(PROMPT.len()).expect("a short prompt").to_le_bytes();
    let text = [&length, PROMPT.as_bytes()].concat();
    let empty_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    ModelInferRequest {
        model_name: "ensemble".to_owned(),
        id: request.to_string(),
        parameters: [("triton_enable_empty_final_response".to_owned(), empty_final)].into(),
        inputs: vec![tensor("text_input", "BYTES"), tensor("max_tokens", "INT32"), tensor("stream", "BOOL")],
        raw_input_contents: vec![text.into(), tokens.to_le_bytes().to_vec().into(), vec![1].into()],
        ..ModelInferRequest::default()
    }
}

fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
