//! A server that is up already.

use std::io::{Read as _, Write as _};

use crate::env::{CONFIG, Running, TestEnv, eventually};

/// An embedded engine that serves a model folder.
pub(crate) struct Served {
    pub(crate) env: TestEnv,
    pub(crate) http: String,
    pub(crate) grpc: String,
    _server: Running,
}

pub(crate) fn serve() -> Served {
    let env = TestEnv::new();
    env.write("config.json", CONFIG);
    env.expect(0, &["engine", "dummy", "model", "--config", "config.json"]);
    let server = env.start(env.command(&["engine", "serve", "model", "--http-port", "0", "--grpc-port", "0"]));
    let said = |before: &str| {
        let text = server.stderr();
        let (_, rest) = text.split_once(before)?;
        let end = rest.find([',', '\n'])?;
        Some(rest[..end].to_owned())
    };
    eventually("the server says where it listens", || said("gRPC at ").is_some());
    let (http, grpc) = (said("HTTP at ").unwrap(), said("gRPC at ").unwrap());
    eventually("the server is ready", || {
        let address = http.trim_start_matches("http://");
        let Ok(mut socket) = std::net::TcpStream::connect(address) else { return false };
        let mut answer = String::new();
        let asked = write!(socket, "GET /health HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        asked.and_then(|()| socket.read_to_string(&mut answer)).is_ok() && answer.starts_with("HTTP/1.1 200")
    });
    Served { env, http, grpc, _server: server }
}
