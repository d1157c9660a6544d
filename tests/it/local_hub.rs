//! A hub inside the test, with the faults of real ones: just enough of the API for one repository.
#![expect(clippy::unwrap_used, reason = "a panic here fails the test")]

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, StatusCode, header};
use futures_util::{StreamExt as _, stream};
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use benchrun::base::Digest;

pub(crate) const REPO: &str = "owner/name";
pub(crate) const COMMIT: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

/// Files of at least this many bytes go the LFS way: a redirect to another host.
const LFS_FROM: usize = 10_000;
const ENTRIES_A_PAGE: usize = 2;

/// What a hub does wrong.
#[derive(Clone)]
pub(crate) enum Fault {
    /// A page of HTML with this status and headers; with status 200 it is a proxy's login page.
    Status(u16, Vec<(&'static str, &'static str)>),
    /// Closes the connection after so many bytes.
    Cut(usize),
    /// Sends so many bytes and then nothing.
    Stall(usize),
    /// The right number of wrong bytes.
    WrongBytes,
    /// Everything, whatever range was asked for.
    IgnoredRange,
    /// A 206 that starts elsewhere.
    OtherRange,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

pub(crate) struct LocalHub {
    pub(crate) endpoint: String,
    content: Arc<Mutex<Content>>,
    _server: JoinSet<io::Result<()>>,
}

#[derive(Default)]
pub(crate) struct Content {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Sizes that the listing claims against the truth.
    pub(crate) claimed_sizes: BTreeMap<String, u64>,
    /// What requests to the hub itself must carry.
    pub(crate) token: Option<&'static str>,
    port: u16,
    /// Part of a path, fault, how often still.
    faults: Vec<(String, Fault, usize)>,
    seen: Vec<Seen>,
}

impl LocalHub {
    pub(crate) async fn start(files: &[(&str, &[u8])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.to_vec())).collect();
        let content = Arc::new(Mutex::new(Content { files, port, ..Content::default() }));
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&content));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await });
        Self { endpoint: format!("http://127.0.0.1:{port}"), content, _server: server }
    }

    pub(crate) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    /// The next `times` requests whose path contains the text go wrong.
    pub(crate) fn fail(&self, path: &str, fault: Fault, times: usize) {
        self.content().faults.push((path.to_owned(), fault, times));
    }

    /// The requests since the last call whose path contains the text.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        let seen = std::mem::take(&mut self.content().seen);
        seen.into_iter().filter(|request| request.path.contains(path)).collect()
    }
}

/// The name of a file's blob in the cache.
pub(crate) fn blob_name(bytes: &[u8]) -> String {
    if bytes.len() >= LFS_FROM { Digest::of(bytes) } else { git_sha1(bytes) }
}

fn git_sha1(bytes: &[u8]) -> String {
    let sha1 = Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize();
    sha1.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

async fn answer(State(content): State<Arc<Mutex<Content>>>, request: Request) -> Response<Body> {
    let mut content = content.lock().unwrap();
    let text = |name: header::HeaderName| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
    let seen = Seen {
        path: request.uri().to_string(),
        host: text(header::HOST).unwrap_or_default(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
    };
    content.seen.push(seen.clone());
    let fault = content.fault(&seen.path);
    if let Some(Fault::Status(status, headers)) = fault {
        return error(status, &headers);
    }
    content.route(&seen, fault.as_ref())
}

impl Content {
    fn fault(&mut self, path: &str) -> Option<Fault> {
        let (_, fault, left) =
            self.faults.iter_mut().find(|(part, _, left)| *left > 0 && path.contains(part.as_str()))?;
        *left -= 1;
        Some(fault.clone())
    }

    fn route(&self, seen: &Seen, fault: Option<&Fault>) -> Response<Body> {
        let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
        if let Some(file) = path.strip_prefix("/cdn/") {
            return body(&self.files[file], seen.range.as_deref(), fault);
        }
        if let Some(token) = self.token
            && seen.authorization.as_deref() != Some(&format!("Bearer {token}"))
        {
            return error(401, &[("x-error-code", "GatedRepo")]);
        }
        if let Some(rest) = path.strip_prefix("/api/models/").and_then(|path| path.strip_prefix(REPO)) {
            return match rest.split('/').collect::<Vec<_>>()[..] {
                ["", "revision", "main"] => json_page(&json!({ "id": REPO, "sha": COMMIT }), None),
                ["", "tree", COMMIT] => self.tree(path, query),
                _ => error(404, &[("x-error-code", "RevisionNotFound")]),
            };
        }
        match path.strip_prefix(&format!("/{REPO}/resolve/{COMMIT}/")).and_then(|file| self.files.get_key_value(file)) {
            Some((file, bytes)) if bytes.len() >= LFS_FROM => {
                let location = format!("http://localhost:{}/cdn/{file}", self.port);
                Response::builder().status(302).header(header::LOCATION, location).body("Found".into()).unwrap()
            }
            Some((_, bytes)) => body(bytes, seen.range.as_deref(), fault),
            None if path.contains(REPO) => error(404, &[("x-error-code", "EntryNotFound")]),
            None => error(404, &[("x-error-code", "RepoNotFound")]),
        }
    }

    fn tree(&self, path: &str, query: &str) -> Response<Body> {
        let start = query.split_once("cursor=").map_or(0, |(_, cursor)| cursor.parse().unwrap());
        let entries: Vec<_> = self.files.iter().skip(start).take(ENTRIES_A_PAGE).map(|file| self.entry(file)).collect();
        let next = start + ENTRIES_A_PAGE;
        let link = format!("<http://127.0.0.1:{}{path}?recursive=true&cursor={next}>; rel=\"next\"", self.port);
        json_page(&json!(entries), (next < self.files.len()).then_some(link))
    }

    fn entry(&self, (path, bytes): (&String, &Vec<u8>)) -> serde_json::Value {
        let size = self.claimed_sizes.get(path).copied().unwrap_or(bytes.len() as u64);
        let mut entry = json!({ "type": "file", "path": path, "size": size, "oid": git_sha1(bytes) });
        if bytes.len() >= LFS_FROM {
            entry["lfs"] = json!({ "oid": Digest::of(bytes), "size": size, "pointerSize": 134 });
        }
        entry
    }
}

fn json_page(value: &serde_json::Value, link: Option<String>) -> Response<Body> {
    let mut response = Response::builder().header(header::CONTENT_TYPE, "application/json");
    if let Some(link) = link {
        response = response.header(header::LINK, link);
    }
    response.body(value.to_string().into()).unwrap()
}

fn error(status: u16, headers: &[(&str, &str)]) -> Response<Body> {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, "text/html");
    let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body("<html>an error page</html>".into()).unwrap()
}

fn body(bytes: &[u8], range: Option<&str>, fault: Option<&Fault>) -> Response<Body> {
    let size = bytes.len();
    let asked = range.map(|range| range.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
    let start = match (fault, asked) {
        (Some(Fault::IgnoredRange), _) | (_, None) => None,
        (Some(Fault::OtherRange), Some(start)) => Some(start - 1),
        (_, Some(start)) => Some(start),
    };
    if start.is_some_and(|start| start >= size) {
        return error(416, &[]);
    }
    let sent = bytes[start.unwrap_or(0)..].to_vec();
    let mut response = Response::builder().header(header::CONTENT_LENGTH, sent.len());
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{size}", size - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, range);
    }
    response.body(faulty(sent, fault)).unwrap()
}

fn faulty(bytes: Vec<u8>, fault: Option<&Fault>) -> Body {
    match fault {
        Some(&Fault::Cut(length)) => {
            let first = stream::iter([Ok(bytes[..length].to_vec())]);
            // Only what is flushed while the body is pending is surely sent before the connection ends.
            let end = stream::once(async {
                tokio::task::yield_now().await;
                Err(io::Error::other("cut"))
            });
            Body::from_stream(first.chain(end))
        }
        Some(&Fault::Stall(length)) => {
            let first = stream::iter([io::Result::Ok(bytes[..length].to_vec())]);
            Body::from_stream(first.chain(stream::pending()))
        }
        Some(Fault::WrongBytes) => bytes.iter().map(|byte| !byte).collect::<Vec<u8>>().into(),
        _ => bytes.into(),
    }
}
