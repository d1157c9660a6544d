use std::fmt;
use std::io;
use std::path::PathBuf;

/// Whether a request carried a token. The token itself is in no message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Credentials {
    TokenSent,
    NoToken,
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TokenSent => "a token was sent",
            Self::NoToken => "no token was sent",
        })
    }
}

/// Why a model of a hub is not here.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("the hub's endpoint is not an http or https address without a user name")]
    BadEndpoint,
    #[error("the hub's token holds characters that no HTTP header can carry")]
    BadToken,
    #[error("cannot set up an HTTP client")]
    Client { source: reqwest::Error },
    #[error("`{repo}` is not the name of a repository")]
    BadRepo { repo: String },
    #[error("`{revision}` is not the name of a branch, tag or commit")]
    BadRevision { revision: String },

    #[error("no repository `{repo}` at {endpoint} ({credentials})")]
    NoRepo { repo: String, endpoint: String, credentials: Credentials },
    #[error("no revision `{revision}` in repository `{repo}`")]
    NoRevision { repo: String, revision: String },
    #[error("no file `{path}` in repository `{repo}`")]
    NoFile { repo: String, path: String },
    #[error("access to gated repository `{repo}` was refused with status {status} ({credentials})")]
    Gated { repo: String, page: String, status: u16, credentials: Credentials },
    #[error("access to repository `{repo}` was refused with status {status} ({credentials})")]
    NoAccess { repo: String, page: String, status: u16, credentials: Credentials },
    #[error("{url} answered with status {status}{}", .message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused { url: String, status: u16, message: Option<String> },
    #[error("{url} cannot be reached")]
    Unreachable { url: String, source: reqwest::Error },
    #[error("the answer of {url} broke off")]
    BrokenOff { url: String, source: Option<reqwest::Error> },
    #[error("the answer of {url} is not what a hub sends: {reason}")]
    NotAHub { url: String, reason: String },
    #[error("gave up on {what} after {failures} failures in a row")]
    GaveUp { what: String, failures: u32, source: Box<HubError> },

    #[error("the hub lists a file at `{path}`, which lies outside the model's folder")]
    UnsafePath { path: String },
    #[error("cannot read the file pattern `{pattern}`")]
    BadPattern { pattern: String, source: globset::Error },
    #[error("no file matches `{pattern}`{}", near_names(.near))]
    NoMatch { pattern: String, near: Vec<String> },
    #[error("`{pattern}` matches pickle files only, which can run code when they are loaded: {}", .files.join(", "))]
    OnlyPickle { pattern: String, files: Vec<String> },
    #[error("no safetensors in the repository's root; {}", other_weights(.others))]
    NoSafetensors { others: Vec<String> },

    #[error("`{path}` was sent with {actual}, but the hub lists {expected}")]
    WrongContent { path: String, expected: String, actual: String },
    #[error("{needed} bytes are needed in {}, and {free} are free", .folder.display())]
    DiskFull { folder: PathBuf, needed: u64, free: u64 },
    #[error("cannot {action} {}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error("{what} of `{repo}` is not in the cache {}, and no hub was asked", .cache.display())]
    NotCached { what: String, repo: String, cache: PathBuf },
    #[error("the download was cancelled")]
    Cancelled,
}

fn near_names(near: &[String]) -> String {
    match near {
        [] => String::new(),
        names => format!(" (there are: {})", names.join(", ")),
    }
}

fn other_weights(others: &[String]) -> String {
    match others {
        [] => "no other weights either".to_owned(),
        names => format!("its weights are: {}", names.join(", ")),
    }
}

impl HubError {
    /// What to do next: one sentence for the user.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::BadEndpoint => {
                "set HF_ENDPOINT to an address like https://huggingface.co, the token by HF_TOKEN".into()
            }
            Self::BadToken => "copy the token again, without line breaks, into HF_TOKEN or by `hf auth login`".into(),
            Self::Client { .. } => "check the proxy and certificate settings of this machine".into(),
            Self::BadRepo { .. } => "write it as OWNER/NAME, like Qwen/Qwen2.5-0.5B".into(),
            Self::BadRevision { .. } => "write a branch, a tag, or a commit of 40 hexadecimal digits".into(),
            Self::NoRepo { credentials, .. } => match credentials {
                Credentials::NoToken => {
                    "check the spelling; a private repository needs HF_TOKEN or `hf auth login`".into()
                }
                Credentials::TokenSent => "check the spelling, and that the token may read it if it is private".into(),
            },
            Self::NoRevision { .. } => "check the spelling, or use `main`".into(),
            Self::NoFile { .. } => "run it again: the hub's listing and its files disagree".into(),
            Self::Gated { page, credentials, .. } => match credentials {
                Credentials::NoToken => {
                    format!("accept the licence at {page}, then set HF_TOKEN or run `hf auth login`")
                }
                Credentials::TokenSent => format!(
                    "accept the licence at {page} with the account of this token, and let the token read gated repositories"
                ),
            },
            Self::NoAccess { page, credentials, .. } => match credentials {
                Credentials::NoToken => {
                    format!("set HF_TOKEN or run `hf auth login` with an account that can open {page}")
                }
                Credentials::TokenSent => {
                    format!("the token may be expired or too narrow: it must be able to read {page}")
                }
            },
            Self::Refused { .. } | Self::Unreachable { .. } | Self::BrokenOff { .. } => {
                "check the network and HF_ENDPOINT, then run it again; what has been fetched is kept".into()
            }
            Self::NotAHub { .. } => {
                "check that HF_ENDPOINT is a hub, and that no proxy or login page answers for it".into()
            }
            Self::GaveUp { source, .. } => source.hint(),
            Self::UnsafePath { .. } => "do not use this repository, or ask its owner to rename the file".into(),
            Self::BadPattern { .. } => "write a glob like *.safetensors or tokenizer.*".into(),
            Self::NoMatch { .. } => "correct or drop the pattern in the model's `files`".into(),
            Self::OnlyPickle { files, .. } => {
                format!("if you trust the repository, ask for them by their ending: `files: [{}]`", by_ending(files))
            }
            Self::NoSafetensors { others } if others.is_empty() => {
                "name the files yourself in the model's `files`, or use another repository".into()
            }
            Self::NoSafetensors { others } => format!(
                "take a safetensors version of the model, or, if you trust the repository (pickle files can run code), \
                 write `files: [{}, \"*.json\", \"tokenizer*\"]`",
                by_ending(others)
            ),
            Self::WrongContent { .. } => {
                "nothing of it was kept; run it again, and if it stays so, the hub or a proxy changes the file".into()
            }
            Self::DiskFull { .. } => "free some space, or set HF_HUB_CACHE to a folder on a larger disk".into(),
            Self::Io { .. } => {
                "check the cache folder's permissions and disk, or set HF_HUB_CACHE to another one".into()
            }
            Self::NotCached { .. } => "connect to the hub once (unset HF_HUB_OFFLINE) to fetch it".into(),
            Self::Cancelled => "run it again: it goes on where it stopped".into(),
        }
    }

    /// The network is at fault, so that the cache may stand in for the hub.
    pub(super) fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::GaveUp { source, .. } => source.is_unreachable(),
            _ => false,
        }
    }

    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}

/// The patterns that take these files: `"*.bin", "*.pt"`.
fn by_ending(files: &[String]) -> String {
    let mut patterns: Vec<String> = files
        .iter()
        .map(|file| match file.rsplit_once('.') {
            Some((_, ending)) if !ending.contains('/') => format!("\"*.{ending}\""),
            _ => format!("\"{file}\""),
        })
        .collect();
    patterns.sort();
    patterns.dedup();
    patterns.join(", ")
}
