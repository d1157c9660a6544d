use std::time::Duration;

/// After this long without an answer a server is not ready.
const LIMIT: Duration = Duration::from_secs(5);

/// Whether a GET of `url` is answered with status 200. No proxy is asked and no redirect followed.
pub async fn answers(url: &str) -> bool {
    let client =
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).timeout(LIMIT).build();
    let Ok(client) = client else { return false };
    client.get(url).send().await.is_ok_and(|answer| answer.status() == reqwest::StatusCode::OK)
}
