//! A server that is up already.

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
        let [host, port] = ["127.0.0.1", http.rsplit_once(':').unwrap().1];
        std::net::TcpStream::connect(format!("{host}:{port}")).is_ok()
    });
    Served { env, http, grpc, _server: server }
}
