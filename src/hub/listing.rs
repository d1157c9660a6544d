use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use reqwest::Url;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::answer::{Answer, Asked, is_bad_json, not_a_hub, unanswered};
use super::client::{Hub, Pinned};
use super::error::HubError;
use super::retry::{Failure, retrying};
use super::verify::BlobHash;

/// A hub sends 1000 entries a page: far more pages than this many files can fill mean a server that goes round in circles.
const MOST_PAGES: usize = 1000;

/// A file of a commit, as the hub lists it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteFile {
    /// Relative, with `/`, and inside the model's folder.
    pub path: String,
    /// In bytes.
    pub size: u64,
    pub hash: BlobHash,
}

#[derive(Deserialize)]
struct TreeEntry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: String,
    lfs: Option<LfsPointer>,
}

#[derive(Deserialize)]
struct LfsPointer {
    /// The sha256; the entry's own `oid` is that of the small pointer file in git.
    oid: String,
}

/// The hub's listing, all pages of it.
pub(super) async fn of_hub(hub: &Hub, pinned: &Pinned) -> Result<Vec<RemoteFile>, HubError> {
    let (owner, name) = pinned.repo.split_once('/').unwrap_or(("", &pinned.repo));
    let mut url = hub.url(&["api", "models", owner, name, "tree", &pinned.commit]);
    url.query_pairs_mut().append_pair("recursive", "true");
    let mut next = Some(url);
    let mut files = Vec::new();
    for _ in 0..MOST_PAGES {
        let Some(url) = next else { return Ok(files) };
        let what = format!("the listing of `{}`", pinned.repo);
        let (entries, following) = retrying(hub.settings().patience, &what, || page(hub, pinned, &url)).await?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            files.push(remote_file(entry, &url)?);
        }
        next = following;
    }
    Err(HubError::NotAHub { url: hub.endpoint().to_owned(), reason: "its listing has no end".to_owned() })
}

async fn page(hub: &Hub, pinned: &Pinned, url: &Url) -> Result<(Vec<TreeEntry>, Option<Url>), Failure> {
    let response = hub.get(url.clone()).send().await.map_err(|error| unanswered(error, url.as_str()))?;
    if !response.status().is_success() {
        let asked = Asked::Revision(&pinned.revision);
        return Err(Answer::of(&response).failure(hub, &pinned.repo, asked, url.as_str()));
    }
    let next = next_page(response.headers(), url);
    match response.json().await {
        Ok(entries) => Ok((entries, next)),
        Err(error) if is_bad_json(&error) => Err(not_a_hub(url.as_str(), "not the JSON of a listing")),
        Err(error) => Err(unanswered(error, url.as_str())),
    }
}

/// The address in `Link: <…>; rel="next"`.
fn next_page(headers: &HeaderMap, current: &Url) -> Option<Url> {
    let links = headers.get(LINK)?.to_str().ok()?;
    let link = links.split(',').find(|link| link.contains("rel=\"next\""))?;
    let (_, rest) = link.split_once('<')?;
    current.join(rest.split_once('>')?.0).ok()
}

fn remote_file(entry: TreeEntry, url: &Url) -> Result<RemoteFile, HubError> {
    if !is_inside(&entry.path) {
        return Err(HubError::UnsafePath { path: entry.path });
    }
    let text = entry.lfs.map_or(entry.oid, |lfs| lfs.oid);
    let Some(hash) = BlobHash::parse(&text) else {
        let reason = format!("`{}` has no hash", entry.path);
        return Err(HubError::NotAHub { url: url.to_string(), reason });
    };
    Ok(RemoteFile { path: entry.path, size: entry.size, hash })
}

/// A relative path of plain names, written in the one usual way.
pub(super) fn is_inside(path: &str) -> bool {
    let names: Option<Vec<&str>> = Path::new(path)
        .components()
        .map(|component| match component {
            Component::Normal(name) => name.to_str(),
            _ => None,
        })
        .collect();
    names.is_some_and(|names| !names.is_empty() && names.join("/") == path && !path.contains(['\\', '\0']))
}

/// The files of the cache's snapshot.
pub(super) fn of_cache(hub: &Hub, pinned: &Pinned) -> Result<Vec<RemoteFile>, HubError> {
    let cache = hub.cache_of(&pinned.repo);
    let folder = cache.snapshot(&pinned.commit);
    let files = cache.files_of(&pinned.commit).map_err(HubError::io("read", &folder))?;
    if files.is_empty() {
        return Err(hub.not_cached(&pinned.repo, format!("commit {}", pinned.commit)));
    }
    for index in files.iter().filter(|file| file.path.ends_with(".safetensors.index.json")) {
        let path = folder.join(&index.path);
        let text = fs::read_to_string(&path).map_err(HubError::io("read", &path))?;
        if let Some(shard) = shards(&text).into_iter().find(|shard| !files.iter().any(|file| file.path == *shard)) {
            return Err(hub.not_cached(&pinned.repo, format!("`{shard}`")));
        }
    }
    Ok(files)
}

/// The files that an index of shards names.
fn shards(index: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let mut shards: Vec<String> =
        serde_json::from_str::<Index>(index).map(|index| index.weight_map.into_values().collect()).unwrap_or_default();
    shards.sort();
    shards.dedup();
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_path_stays_inside_the_folder() {
        for path in ["config.json", "a/b.txt", "..a", "模型 1.json"] {
            assert!(is_inside(path), "{path}");
        }
        for path in ["", "/", "/etc/passwd", "..", "../a", "a/../b", "./a", "a//b", "a/", "a\\b", "a\0"] {
            assert!(!is_inside(path), "{path}");
        }
    }

    #[test]
    fn a_relative_next_page_is_joined_to_the_current_one() {
        let current = Url::parse("http://hub/api/models/a/b/tree/c?recursive=true").unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(next_page(&headers, &current), None);
        headers.insert(LINK, "<http://hub/x>; rel=\"prev\", </y?cursor=1>; rel=\"next\"".parse().unwrap());
        assert_eq!(next_page(&headers, &current).unwrap().as_str(), "http://hub/y?cursor=1");
    }
}
