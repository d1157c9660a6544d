use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::Secret;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Which hub, as whom, and where its files are kept.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The hub's address, with or without a path: `https://huggingface.co`.
    pub endpoint: String,
    /// Sent to the hub, and to no host that it redirects to.
    pub token: Option<Secret>,
    /// The folder that holds `models--OWNER--NAME`.
    pub cache: PathBuf,
    /// Ask no hub: what the cache lacks is an error.
    pub offline: bool,
    pub patience: Patience,
}

/// How long to wait for a hub, and how often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection to be made.
    pub connect: Duration,
    /// For the next byte.
    pub stall: Duration,
    /// Failures in a row, without a new byte in between, that end a download or a request.
    pub attempts: u32,
    /// Before the second attempt; each further pause is twice as long.
    pub first_pause: Duration,
    /// The limit of a pause, also of one that the hub asks for.
    pub longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_mins(1),
            attempts: 6,
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_mins(1),
        }
    }
}

impl HubSettings {
    /// What `HF_ENDPOINT`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_HOME`, `HF_HUB_CACHE`, `HF_HUB_DISABLE_IMPLICIT_TOKEN` and
    /// `HF_HUB_OFFLINE` say, and else the login that `hf auth login` stored: as every other tool of the hub does.
    #[must_use]
    pub fn from_env() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the hub's variables")]
        let variable = |name: &str| std::env::var(name).ok();
        Self::from_variables(variable, &hf_hub::hf_home(), hf_hub::resolve_cache_dir())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>, home: &Path, cache: PathBuf) -> Self {
        let text = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let is_on = |name: &str| {
            text(name).is_some_and(|value| matches!(value.to_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE"))
        };
        let token = (!is_on("HF_HUB_DISABLE_IMPLICIT_TOKEN")).then(|| {
            let login = text("HF_TOKEN_PATH").map(PathBuf::from);
            text("HF_TOKEN").or_else(|| login.and_then(token_file)).or_else(|| token_file(home.join("token")))
        });
        Self {
            endpoint: text("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
            token: token.flatten().map(Secret::new),
            cache,
            offline: is_on("HF_HUB_OFFLINE"),
            patience: Patience::default(),
        }
    }
}

fn token_file(path: PathBuf) -> Option<String> {
    let token = fs::read_to_string(path).ok()?.trim().to_owned();
    (!token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)], home: &Path) -> HubSettings {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        HubSettings::from_variables(variable, home, home.join("hub"))
    }

    #[test]
    fn a_token_comes_from_the_variable_then_the_named_file_then_the_login() {
        let home = tempfile::tempdir().unwrap();
        let token = |variables: &[(&str, &str)]| {
            read(variables, home.path()).token.map_or("none".to_owned(), |token| token.reveal().to_owned())
        };
        assert_eq!(token(&[]), "none");
        fs::write(home.path().join("token"), "hf_login\n").unwrap();
        let other = home.path().join("other");
        fs::write(&other, " hf_file ").unwrap();
        let path = ("HF_TOKEN_PATH", other.to_str().unwrap());
        assert_eq!(token(&[]), "hf_login");
        assert_eq!(token(&[path]), "hf_file");
        assert_eq!(token(&[path, ("HF_TOKEN", "hf_variable\n")]), "hf_variable");
        assert_eq!(token(&[("HF_TOKEN", "")]), "hf_login");
        assert_eq!(token(&[("HF_TOKEN", "hf_variable"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")]), "none");
    }

    #[test]
    fn an_empty_endpoint_is_the_default_one_and_only_true_words_mean_offline() {
        let settings = |variables: &[(&str, &str)]| read(variables, Path::new("/nowhere"));
        assert_eq!(settings(&[("HF_ENDPOINT", "")]).endpoint, DEFAULT_ENDPOINT);
        assert_eq!(settings(&[("HF_ENDPOINT", "http://mirror")]).endpoint, "http://mirror");
        assert!(settings(&[("HF_HUB_OFFLINE", "true")]).offline);
        assert!(!settings(&[("HF_HUB_OFFLINE", "0")]).offline);
    }

    #[test]
    fn debug_output_hides_the_token() {
        let settings = read(&[("HF_TOKEN", "hf_hidden")], Path::new("/nowhere"));
        assert!(settings.token.is_some());
        assert!(!format!("{settings:?}").contains("hf_hidden"));
    }
}
