use http::Uri;
use http::uri::PathAndQuery;

use super::LoadError;

/// Where a server listens: a checked `http://host:port`, with an optional path before the protocol's own.
#[derive(Clone, Debug)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    /// `host:port`
    pub(super) authority: String,
    prefix: String,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, LoadError> {
        let failed = |reason: &str| LoadError::Address { url: url.to_owned(), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_| failed("it cannot be read as a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(failed("only `http` is supported"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| failed("it has no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let authority = format!("{host}:{port}");
        Ok(Self {
            // An IPv6 address is bracketed in a URL and bare for the resolver.
            host: host.trim_matches(['[', ']']).to_owned(),
            port,
            authority,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// `path` on this server; `None` if it has characters that no path has.
    pub(super) fn path(&self, path: &str) -> Option<PathAndQuery> {
        format!("{}{path}", self.prefix).parse().ok()
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.authority)
    }
}
