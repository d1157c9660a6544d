use std::fmt;

use hf_hub::HFClient;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};

use super::answer::{failure_of, not_a_hub};
use super::cache::RepoCache;
use super::error::{Credentials, HubError};
use super::listing::{self, RemoteFile};
use super::retry::retrying;
use super::settings::HubSettings;

/// hf-hub takes a token from the environment when it is given none. No header can hold a line break, so that with this
/// one it sends none.
const NO_TOKEN: &str = "\n";

/// A hub and the cache of its files.
pub struct Hub {
    settings: HubSettings,
    endpoint: Url,
    authorization: Option<HeaderValue>,
    http: reqwest::Client,
    api: HFClient,
}

/// A revision of a repository, pinned to a commit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pinned {
    /// `owner/name`.
    pub repo: String,
    /// As it was asked for: a branch, a tag or a commit.
    pub revision: String,
    /// 40 hexadecimal digits.
    pub commit: String,
    pub source: Source,
}

/// Who answers for a revision.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    Hub,
    /// What was fetched earlier: no hub may be asked, or none could be reached.
    Cache,
}

impl Hub {
    pub fn new(settings: HubSettings) -> Result<Self, HubError> {
        let endpoint = parse_endpoint(&settings.endpoint).ok_or(HubError::BadEndpoint)?;
        let authorization = match &settings.token {
            None => None,
            Some(token) => {
                let text = format!("Bearer {}", token.reveal());
                let mut value = HeaderValue::from_str(&text).map_err(|_| HubError::BadToken)?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let http = reqwest::Client::builder()
            .user_agent(concat!("benchrun/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.patience.connect)
            .read_timeout(settings.patience.stall)
            .build()
            .map_err(|source| HubError::Client { source })?;
        let api = HFClient::builder()
            .endpoint(endpoint.as_str())
            .token(settings.token.as_ref().map_or(NO_TOKEN, |token| token.reveal()))
            .cache_dir(&settings.cache)
            .client(http.clone())
            .retry_max_attempts(0)
            .build()
            .map_err(|_| HubError::BadEndpoint)?;
        Ok(Self { settings, endpoint, authorization, http, api })
    }

    /// Pins a revision to a commit: by the hub, or by the cache when the settings say offline or no hub can be reached.
    pub async fn resolve(&self, repo: &str, revision: &str) -> Result<Pinned, HubError> {
        let (owner, name) = split_repo(repo).ok_or_else(|| HubError::BadRepo { repo: repo.to_owned() })?;
        if !listing::is_inside(revision) {
            return Err(HubError::BadRevision { revision: revision.to_owned() });
        }
        let pinned = |commit: String, source: Source| Pinned {
            repo: repo.to_owned(),
            revision: revision.to_owned(),
            commit,
            source,
        };
        if is_commit(revision) {
            let source = if self.settings.offline { Source::Cache } else { Source::Hub };
            return Ok(pinned(revision.to_owned(), source));
        }
        let cached = || self.cache_of(repo).commit_of(revision).map(|commit| pinned(commit, Source::Cache));
        if self.settings.offline {
            return cached().ok_or_else(|| self.not_cached(repo, format!("revision `{revision}`")));
        }
        match self.commit_of(owner, name, revision).await {
            Ok(commit) => Ok(pinned(commit, Source::Hub)),
            Err(error) if error.is_unreachable() => cached().ok_or(error),
            Err(error) => Err(error),
        }
    }

    /// All files of the commit. Without a hub: those of the cache's snapshot, which must have every shard that its index
    /// names.
    pub async fn list(&self, pinned: &Pinned) -> Result<Vec<RemoteFile>, HubError> {
        match pinned.source {
            Source::Cache => listing::of_cache(self, pinned),
            Source::Hub => match listing::of_hub(self, pinned).await {
                Err(error) if error.is_unreachable() => listing::of_cache(self, pinned).map_err(|_| error),
                answered => answered,
            },
        }
    }

    async fn commit_of(&self, owner: &str, name: &str, revision: &str) -> Result<String, HubError> {
        let repo = format!("{owner}/{name}");
        let url = self.url(&["api", "models", owner, name, "revision", revision]).to_string();
        retrying(self.settings.patience, &format!("revision `{revision}` of `{repo}`"), || async {
            let info = self.api.model(owner, name).info().revision(revision).send().await;
            let info = info.map_err(|error| failure_of(error, self, &repo, revision, &url))?;
            info.sha.filter(|commit| is_commit(commit)).ok_or_else(|| not_a_hub(&url, "it names no commit"))
        })
        .await
    }

    /// A request that carries the token if, and only if, it goes to the hub itself.
    pub(super) fn get(&self, url: Url) -> reqwest::RequestBuilder {
        let authorization = self.authorization.clone().filter(|_| url.origin() == self.endpoint.origin());
        let request = self.http.get(url);
        match authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// An address below the endpoint, each segment escaped.
    pub(super) fn url<'a>(&self, segments: impl IntoIterator<Item = &'a &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }

    pub(super) fn cache_of(&self, repo: &str) -> RepoCache {
        RepoCache::new(&self.settings.cache, repo)
    }

    pub(super) fn settings(&self) -> &HubSettings {
        &self.settings
    }

    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    pub(super) fn credentials(&self) -> Credentials {
        if self.authorization.is_some() { Credentials::TokenSent } else { Credentials::NoToken }
    }

    pub(super) fn not_cached(&self, repo: &str, what: String) -> HubError {
        HubError::NotCached { what, repo: repo.to_owned(), cache: self.settings.cache.clone() }
    }

    /// A server's own words: one short line, and without the token even if the server repeats it.
    pub(super) fn printable(&self, text: &str) -> String {
        let hidden = match &self.settings.token {
            Some(token) => text.replace(token.reveal(), "***"),
            None => text.to_owned(),
        };
        hidden.chars().map(|char| if char.is_control() { ' ' } else { char }).take(200).collect()
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn parse_endpoint(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    is_plain.then_some(url)
}

fn split_repo(repo: &str) -> Option<(&str, &str)> {
    let (owner, name) = repo.split_once('/')?;
    let is_plain = |part: &str| {
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        part.bytes().all(is_word) && part.starts_with(|char: char| char.is_ascii_alphanumeric())
    };
    (is_plain(owner) && is_plain(name)).then_some((owner, name))
}

pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_an_owner_and_a_name() {
        assert_eq!(split_repo("Qwen/Qwen2.5-0.5B"), Some(("Qwen", "Qwen2.5-0.5B")));
        for repo in ["gpt2", "", "/", "a/", "/b", "a/b/c", "a/..", "../b", "a b/c", "a/b?c", "模型/x"] {
            assert_eq!(split_repo(repo), None, "{repo}");
        }
    }

    #[test]
    fn an_endpoint_may_have_a_path_but_no_user() {
        assert!(parse_endpoint("http://127.0.0.1:8000/mirror/").is_some());
        for endpoint in ["", "huggingface.co", "file:///etc", "https://name:secret@hub"] {
            assert!(parse_endpoint(endpoint).is_none(), "{endpoint}");
        }
    }
}
