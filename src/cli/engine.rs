use std::fs;
use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::args::{EngineCommand, NullArgs, ServeArgs};
use super::exit::Exit;
use super::failure::Failure;
use super::output::Output;
use super::{block_on, signals};
use crate::base::write_atomically;
use crate::dummy;
use crate::engine::{self, BuildOptions, ServeOptions};
use crate::exec::PrepareError;
use crate::manifest::{SourceText, read_document};
use crate::null::{NullOptions, NullServer};

pub(super) fn run(command: EngineCommand, output: &mut Output) -> Result<Exit, Failure> {
    match command {
        EngineCommand::Dummy { out, config, seed } => {
            let config = config.map(|path| read_config(&path)).transpose()?;
            dummy::write_model(&out, config.as_ref(), seed).map_err(|source| Failure::Dummy { path: out, source })?;
        }
        EngineCommand::Quantize { model, precision, out } => engine::quantize(&model, &out, precision)?,
        EngineCommand::Build { checkpoint, max_batch_size, max_seq_len, out } => {
            engine::build(&checkpoint, &out, BuildOptions { max_batch_size, max_seq_len })?;
        }
        EngineCommand::Serve(args) => serve(args, output)?,
        EngineCommand::Null(args) => serve_null(args, output)?,
    }
    Ok(Exit::Done)
}

fn read_config(path: &Path) -> Result<serde_json::Map<String, serde_json::Value>, Failure> {
    let failed = |source| Failure::File { doing: "read", path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    serde_json::from_slice(&bytes).map_err(|source| failed(source.into()))
}

/// The file that `--config` names.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ServeConfig {
    served_model: Option<String>,
    max_batch_size: Option<usize>,
    threads: Option<usize>,
}

fn serve(args: ServeArgs, output: &mut Output) -> Result<(), Failure> {
    let config = match &args.config {
        None => ServeConfig::default(),
        Some(path) => SourceText::load(path).and_then(read_document::<ServeConfig>).map_err(PrepareError::from)?.value,
    };
    let folder_name =
        || args.folder.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned());
    let options = ServeOptions {
        served_model_name: args.served_model.clone().or(config.served_model).unwrap_or_else(folder_name),
        max_batch_size: args.max_batch_size.or(config.max_batch_size),
        threads: args.threads.or(config.threads).filter(|&threads| threads > 0),
        folder: args.folder,
        host: args.host,
        http_port: args.http_port,
        grpc_port: args.grpc_port,
    };
    let name = options.served_model_name.clone();
    let shutdown = CancellationToken::new();
    block_on(async {
        let _signals = signals::listen(&shutdown);
        let listening = |at: engine::Addresses| {
            output.remark(&format!("loading `{name}`, to serve HTTP at http://{}, gRPC at {}", at.http, at.grpc));
        };
        engine::serve(options, shutdown.clone(), listening).await
    })??;
    Ok(())
}

fn serve_null(args: NullArgs, output: &mut Output) -> Result<(), Failure> {
    let options = NullOptions {
        host: args.host,
        port: args.port,
        ttft: args.ttft,
        ttft_spread: args.ttft_spread,
        itl: args.itl,
        tokens_per_chunk: args.tokens_per_chunk,
        chunk_bytes: args.chunk_bytes,
        threads: args.threads,
        truth: args.truth,
    };
    let server = NullServer::bind(options)?;
    if let Some(path) = args.port_file {
        let json = serde_json::json!({"address": server.address()}).to_string();
        write_atomically(&path, json.as_bytes()).map_err(|source| Failure::File { doing: "write", path, source })?;
    }
    output.remark(&format!("serving nothing: all protocols at http://{}", server.address()));
    let shutdown = CancellationToken::new();
    block_on(async {
        let _signals = signals::listen(&shutdown);
        let serving = shutdown.clone();
        tokio::task::spawn_blocking(move || server.serve(&serving)).await
    })?
    .expect("the server returns its failures")?;
    Ok(())
}
