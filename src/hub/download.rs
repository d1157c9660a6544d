use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Response, StatusCode};
use tokio_util::sync::CancellationToken;

use super::answer::{Answer, Asked, not_a_hub, unanswered};
use super::cache::RepoCache;
use super::client::{Hub, Pinned};
use super::disk::off_thread;
use super::error::HubError;
use super::listing::RemoteFile;
use super::part::{Part, Progress};
use super::retry::{Backoff, Failure};
use super::verify::Hasher;

/// How often to look whether another process has let go of a blob.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// What the downloads of one snapshot have in common.
pub(super) struct Download<'a> {
    pub(super) hub: &'a Hub,
    pub(super) pinned: &'a Pinned,
    pub(super) cache: &'a RepoCache,
    pub(super) progress: &'a Progress<'a>,
    pub(super) cancel: &'a CancellationToken,
}

impl Download<'_> {
    /// Makes sure that the file's blob is in the cache with the size and hash that the hub lists, and returns its sha256.
    pub(super) async fn file(&self, file: &RemoteFile) -> Result<String, HubError> {
        if let Some(sha256) = self.cached(file).await? {
            return Ok(sha256);
        }
        if self.hub.settings().offline {
            return Err(self.hub.not_cached(&self.pinned.repo, format!("`{}`", file.path)));
        }
        let _lock = self.lock(file).await?;
        // Whoever held the lock before may have brought it.
        match self.cached(file).await? {
            Some(sha256) => Ok(sha256),
            None => self.bring(file).await,
        }
    }

    /// The sha256 of the blob if it is there and whole. Every byte is hashed again: tools that share the cache have been
    /// seen to store error pages, and a fetch is rare.
    async fn cached(&self, file: &RemoteFile) -> Result<Option<String>, HubError> {
        let blob = self.cache.blob(&file.hash);
        if tokio::fs::metadata(&blob).await.map_or(true, |metadata| metadata.len() != file.size) {
            return Ok(None);
        }
        let mut hasher = Hasher::new(&file.hash, file.size);
        let path = blob.clone();
        let found = off_thread(move || hasher.update_from(&path).map(|_| hasher.finish())).await;
        let found = found.map_err(HubError::io("read", &blob))?;
        if found.promised != file.hash {
            return Ok(None);
        }
        self.progress.add(file.size);
        Ok(Some(found.sha256))
    }

    async fn lock(&self, file: &RemoteFile) -> Result<File, HubError> {
        let path = self.cache.lock(&file.hash);
        let opened = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| File::create(&path));
        let lock = opened.map_err(HubError::io("open the lock file", &path))?;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) => self.sleep(LOCK_POLL).await?,
                Err(TryLockError::Error(source)) => return Err(HubError::io("lock", &path)(source)),
            }
        }
    }

    /// Attempts until the part file is whole, and makes it the blob.
    async fn bring(&self, file: &RemoteFile) -> Result<String, HubError> {
        let what = format!("`{}` of `{}`", file.path, self.pinned.repo);
        let mut part = Part::open(self.cache, file, self.progress).await?;
        let mut backoff = Backoff::new(self.hub.settings().patience);
        // Never lowered: a server that makes us start over does not count as progress.
        let mut furthest = part.length();
        loop {
            if let Err(failure) = self.attempt(&mut part).await {
                part.flush().await?;
                if part.length() > furthest {
                    furthest = part.length();
                    backoff.progressed();
                }
                self.sleep(backoff.after(failure, &what)?).await?;
                continue;
            }
            let is_pieced_together = part.is_pieced_together();
            match part.finish().await {
                // Pieces of different origin may not fit: once more in one piece.
                Err(HubError::WrongContent { .. }) if is_pieced_together => {
                    part = Part::open(self.cache, file, self.progress).await?;
                }
                finished => return finished,
            }
        }
    }

    /// Asks for what is missing and appends what comes.
    async fn attempt(&self, part: &mut Part<'_>) -> Result<(), Failure> {
        if part.missing() == 0 {
            return Ok(());
        }
        let file = part.remote();
        let segments: Vec<&str> = self.pinned.repo.split('/').chain(["resolve", &self.pinned.commit]).collect();
        let url = self.hub.url(segments.iter().chain(&file.path.split('/').collect::<Vec<_>>()));
        // A compressed answer would have another length, and its ranges another meaning.
        let mut request = self.hub.get(url.clone()).header(ACCEPT_ENCODING, "identity");
        if part.length() > 0 {
            request = request.header(RANGE, format!("bytes={}-", part.length()));
        }
        let response = tokio::select! {
            response = request.send() => response.map_err(|error| unanswered(error, url.as_str()))?,
            () = self.cancel.cancelled() => return Err(HubError::Cancelled.into()),
        };
        match response.status() {
            StatusCode::OK => self.receive(part, response, url.as_str()).await,
            StatusCode::PARTIAL_CONTENT if continues(response.headers(), part) => {
                part.continue_with_another_piece();
                self.receive(part, response, url.as_str()).await
            }
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if part.length() > 0 => {
                part.restart().await?;
                let reason = "not the range that was asked for".to_owned();
                Err(Failure::passing(HubError::NotAHub { url: url.into(), reason }))
            }
            _ => {
                let asked = Asked::File(&file.path);
                Err(Answer::of(&response).failure(self.hub, &self.pinned.repo, asked, url.as_str()))
            }
        }
    }

    async fn receive(&self, part: &mut Part<'_>, response: Response, url: &str) -> Result<(), Failure> {
        if is_page(response.headers())
            && Path::new(&part.remote().path).extension().is_none_or(|ending| ending != "html")
        {
            return Err(not_a_hub(url, "an HTML page in place of a file"));
        }
        if response.status() == StatusCode::OK && part.length() > 0 {
            part.restart().await?;
        }
        if let Some(length) = response.content_length().filter(|length| *length != part.missing()) {
            return Err(part.wrong_length(part.length().saturating_add(length)).await.into());
        }
        let mut body = response.bytes_stream();
        loop {
            let chunk = tokio::select! {
                chunk = body.next() => chunk,
                () = self.cancel.cancelled() => return Err(HubError::Cancelled.into()),
            };
            match chunk {
                Some(Ok(bytes)) => part.append(&bytes).await?,
                Some(Err(error)) => return Err(unanswered(error, url)),
                None if part.missing() > 0 => {
                    return Err(Failure::passing(HubError::BrokenOff { url: url.to_owned(), source: None }));
                }
                None => return Ok(()),
            }
        }
    }

    async fn sleep(&self, pause: Duration) -> Result<(), HubError> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.cancel.cancelled() => Err(HubError::Cancelled),
        }
    }
}

/// Whether a 206 goes on exactly where the part file ends, in a file of the same size.
fn continues(headers: &HeaderMap, part: &Part<'_>) -> bool {
    let size = part.remote().size;
    let expected = format!("bytes {}-{}/{size}", part.length(), size - 1);
    headers.get(CONTENT_RANGE).is_some_and(|range| range.as_bytes() == expected.as_bytes())
}

fn is_page(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}
