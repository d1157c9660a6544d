use std::error::Error;
use std::time::Duration;

use hf_hub::HFError;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::client::Hub;
use super::error::HubError;
use super::retry::Failure;

/// What a request was for: it decides what a plain 404 means.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    Revision(&'a str),
    File(&'a str),
}

/// What of an unsuccessful answer says why.
pub(super) struct Answer {
    status: u16,
    /// The hub's `X-Error-Code`.
    code: Option<String>,
    message: Option<String>,
    wait: Option<Duration>,
}

impl Answer {
    /// The body is left unread: it may be a page of any size.
    pub(super) fn of(response: &reqwest::Response) -> Self {
        let headers = response.headers();
        Self {
            status: response.status().as_u16(),
            code: text(headers, "x-error-code"),
            message: text(headers, "x-error-message"),
            wait: text(headers, RETRY_AFTER.as_str())
                .and_then(|text| text.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }

    pub(super) fn failure(self, hub: &Hub, repo: &str, asked: Asked<'_>, url: &str) -> Failure {
        let wait = self.wait;
        let is_passing = matches!(self.status, 408 | 429 | 500..=599);
        let error = self.error(hub, repo, asked, url);
        if is_passing { Failure::Passing { error, wait } } else { Failure::Final(error) }
    }

    fn error(self, hub: &Hub, repo: &str, asked: Asked<'_>, url: &str) -> HubError {
        let status = self.status;
        let credentials = hub.credentials();
        let repo = repo.to_owned();
        let page = format!("{}/{repo}", hub.endpoint());
        // The hub answers 401, not 404, for a missing repository, and says by the code which of the two it is.
        match (status, self.code.as_deref()) {
            (_, Some("RepoNotFound")) => HubError::NoRepo { repo, endpoint: hub.endpoint().to_owned(), credentials },
            (_, Some("GatedRepo")) => HubError::Gated { repo, page, status, credentials },
            (401 | 403, _) => HubError::NoAccess { repo, page, status, credentials },
            (404, code) => match (asked, code) {
                (Asked::File(path), None | Some("EntryNotFound")) => HubError::NoFile { repo, path: path.to_owned() },
                (Asked::Revision(revision), None | Some("RevisionNotFound")) => {
                    HubError::NoRevision { repo, revision: revision.to_owned() }
                }
                _ => HubError::NoRepo { repo, endpoint: hub.endpoint().to_owned(), credentials },
            },
            _ => HubError::Refused {
                url: url.to_owned(),
                status,
                message: self.message.map(|text| hub.printable(&text)),
            },
        }
    }
}

/// A request that got no answer, or no whole one.
pub(super) fn unanswered(error: reqwest::Error, url: &str) -> Failure {
    let url = url.to_owned();
    // The error's own address may be a signed one of a storage host.
    let source = error.without_url();
    if source.is_connect() || source.is_timeout() {
        return Failure::passing(HubError::Unreachable { url, source });
    }
    if source.is_builder() || source.is_redirect() {
        return Failure::Final(HubError::Unreachable { url, source });
    }
    Failure::passing(HubError::BrokenOff { url, source: Some(source) })
}

/// Sorts hf-hub's errors as our own requests' are; it was told not to retry by itself.
pub(super) fn failure_of(error: HFError, hub: &Hub, repo: &str, revision: &str, url: &str) -> Failure {
    let wait = match &error {
        HFError::RateLimited { retry_after, .. } => *retry_after,
        _ => None,
    };
    match error {
        HFError::Request { source, .. } if is_bad_json(&source) => not_a_hub(url, "not the JSON of a model"),
        HFError::Request { source, .. } => unanswered(source, url),
        HFError::Http { context }
        | HFError::AuthRequired { context }
        | HFError::Forbidden { context }
        | HFError::Conflict { context }
        | HFError::RateLimited { context, .. }
        | HFError::RevisionNotFound { context: Some(context), .. }
        | HFError::RepoNotFound { context: Some(context), .. } => {
            let answer = Answer {
                status: context.status.as_u16(),
                code: context.error_code.clone(),
                message: context.server_message.clone(),
                wait,
            };
            answer.failure(hub, repo, Asked::Revision(revision), url)
        }
        other => not_a_hub(url, &hub.printable(&other.to_string())),
    }
}

/// A whole answer that is no JSON, as opposed to one that was cut off.
pub(super) fn is_bad_json(error: &reqwest::Error) -> bool {
    error.source().is_some_and(<dyn Error>::is::<serde_json::Error>)
}

pub(super) fn not_a_hub(url: &str, reason: &str) -> Failure {
    Failure::Final(HubError::NotAHub { url: url.to_owned(), reason: reason.to_owned() })
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
