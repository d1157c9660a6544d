use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::LoadError;

/// After this long without an answer a server is not ready.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether a GET of `url` is answered with status 200. No proxy is asked and no redirect followed.
pub async fn answers(url: &str) -> bool {
    fetch(url, LIMIT).await.is_ok_and(|(status, _)| status == 200)
}

/// The name of the first model that an OpenAI server lists.
///
/// # Errors
/// When the server does not answer, or names none.
pub async fn first_model(base_url: &str) -> Result<String, LoadError> {
    let url = format!("{}/v1/models", base_url.trim_end_matches('/'));
    let name = async {
        let (status, body) = fetch(&url, LIMIT).await?;
        let list: Value = serde_json::from_slice(&body).map_err(|error| format!("status {status}: {error}"))?;
        let name = list.pointer("/data/0/id").and_then(Value::as_str).ok_or("it lists no model")?;
        Ok(name.to_owned())
    };
    name.await.map_err(|reason| LoadError::Models { url: url.clone(), reason })
}

/// Asks for a small document over a connection of its own: the status and the body, or why there are none.
pub(super) async fn fetch(url: &str, limit: Duration) -> Result<(u16, Bytes), String> {
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(limit).build();
    let failed = |error: reqwest::Error| super::connection::failure("connect", &error.without_url()).message;
    let answer = client.map_err(failed)?.get(url).send().await.map_err(failed)?;
    let status = answer.status().as_u16();
    Ok((status, answer.bytes().await.map_err(failed)?))
}
