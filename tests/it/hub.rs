//! Models come from a hub whole or not at all, whatever the hub does.
#![expect(clippy::unwrap_used, reason = "a panic here fails the test")]

use std::error::Error as _;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use benchrun::base::{Digest, Secret};
use benchrun::hub::{Hub, HubError, HubSettings, Patience, RemoteFile, Snapshot, Source, wanted};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::local_hub::{COMMIT, Fault, LocalHub, REPO, blob_name};

const WEIGHTS: &str = "model.safetensors";
const CDN_WEIGHTS: &str = "/cdn/model.safetensors";
const ATTEMPTS: u8 = 3;

fn weights() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

struct Setup {
    server: LocalHub,
    cache: TempDir,
}

impl Setup {
    async fn start() -> Self {
        let files: [(&str, &[u8]); 4] =
            [("README.md", b"# model"), ("config.json", b"{}"), ("tokenizer.json", b""), (WEIGHTS, &weights())];
        Self { server: LocalHub::start(&files).await, cache: tempfile::tempdir().unwrap() }
    }

    fn settings(&self) -> HubSettings {
        let patience = Patience {
            connect: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            attempts: ATTEMPTS.into(),
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(10),
        };
        HubSettings {
            endpoint: self.server.endpoint.clone(),
            token: None,
            cache: self.cache.path().to_owned(),
            offline: false,
            patience,
        }
    }

    async fn fetch(&self) -> Result<Snapshot, HubError> {
        fetch(&Hub::new(self.settings()).unwrap()).await
    }

    async fn fetch_offline(&self) -> Result<Snapshot, HubError> {
        fetch(&Hub::new(HubSettings { offline: true, ..self.settings() }).unwrap()).await
    }

    fn path(&self, path: &str) -> PathBuf {
        self.cache.path().join("models--owner--name").join(path)
    }

    fn part(&self) -> PathBuf {
        self.path(&format!("blobs/{}.incomplete", blob_name(&weights())))
    }

    fn leave_part(&self, bytes: &[u8]) {
        fs::create_dir_all(self.path("blobs")).unwrap();
        fs::write(self.part(), bytes).unwrap();
    }

    /// The ranges of the requests for the weights' bytes.
    fn ranges(&self) -> Vec<Option<String>> {
        self.server.seen(CDN_WEIGHTS).into_iter().map(|seen| seen.range).collect()
    }

    fn blob_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("blobs")).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

async fn fetch(hub: &Hub) -> Result<Snapshot, HubError> {
    let pinned = hub.resolve(REPO, "main").await?;
    let files = wanted(&hub.list(&pinned).await?, &[])?;
    hub.fetch(&pinned, &files, |_, _| (), &CancellationToken::new()).await
}

/// The range header of a request for all from a byte on.
fn from(start: usize) -> Option<String> {
    (start > 0).then(|| format!("bytes={start}-"))
}

#[tokio::test]
async fn a_model_arrives_whole_in_the_layout_that_other_tools_read() {
    let setup = Setup::start().await;
    let snapshot = setup.fetch().await.unwrap();
    assert_eq!(snapshot.commit, COMMIT);
    assert_eq!(snapshot.folder, setup.path("snapshots").join(COMMIT));
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["config.json", WEIGHTS, "tokenizer.json"]);
    for (path, file) in &snapshot.files {
        let entry = snapshot.folder.join(path);
        let bytes = fs::read(&entry).unwrap();
        assert_eq!((file.size, &file.sha256), (bytes.len() as u64, &Digest::of(&bytes)));
        assert!(fs::canonicalize(entry).unwrap().ends_with(PathBuf::from("blobs").join(blob_name(&bytes))));
    }
    assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
    assert_eq!(fs::read_to_string(setup.path("refs/main")).unwrap(), COMMIT);
    assert_eq!(setup.blob_names().len(), 3);
    assert_eq!(setup.server.seen("/tree/").len(), 2, "the listing has two pages");
}

#[tokio::test]
async fn a_second_fetch_asks_for_no_file_and_progress_ends_at_the_total() {
    let setup = Setup::start().await;
    let first = setup.fetch().await.unwrap();
    setup.server.seen("");
    let hub = Hub::new(setup.settings()).unwrap();
    let pinned = hub.resolve(REPO, "main").await.unwrap();
    let files = wanted(&hub.list(&pinned).await.unwrap(), &[]).unwrap();
    let last = std::sync::Mutex::new((0, 0));
    let progress = |done, total| *last.lock().unwrap() = (done, total);
    assert_eq!(hub.fetch(&pinned, &files, progress, &CancellationToken::new()).await.unwrap(), first);
    let total = files.iter().map(|file| file.size).sum();
    assert_eq!(*last.lock().unwrap(), (total, total));
    assert!(setup.server.seen("").iter().all(|seen| seen.path.starts_with("/api/")));
}

#[tokio::test]
async fn the_storage_host_is_not_sent_the_token() {
    let setup = Setup::start().await;
    setup.server.content().token = Some("hf_right");
    let settings = HubSettings { token: Some(Secret::new("hf_right".to_owned())), ..setup.settings() };
    fetch(&Hub::new(settings).unwrap()).await.unwrap();
    let (storage, hub): (Vec<_>, Vec<_>) =
        setup.server.seen("").into_iter().partition(|seen| seen.path.starts_with("/cdn/"));
    assert!(hub.iter().all(|seen| seen.authorization.as_deref() == Some("Bearer hf_right")), "{hub:?}");
    assert!(
        storage.iter().all(|seen| seen.host.starts_with("localhost") && seen.authorization.is_none()),
        "{storage:?}"
    );
    assert_eq!(storage.len(), 1);
}

#[tokio::test]
async fn without_a_token_none_is_sent() {
    let setup = Setup::start().await;
    setup.fetch().await.unwrap();
    assert!(setup.server.seen("").iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn a_cut_connection_is_resumed_where_it_broke() {
    for cuts in [1, 2] {
        let setup = Setup::start().await;
        setup.server.fail(CDN_WEIGHTS, Fault::Cut(1000), cuts);
        let snapshot = setup.fetch().await.unwrap();
        let ranges: Vec<_> = (0..=cuts).map(|cut| from(cut * 1000)).collect();
        assert_eq!(setup.ranges(), ranges);
        assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
    }
}

#[tokio::test]
async fn cuts_that_each_leave_new_bytes_may_be_many() {
    let setup = Setup::start().await;
    setup.server.fail(CDN_WEIGHTS, Fault::Cut(1000), usize::from(ATTEMPTS) * 3);
    setup.fetch().await.unwrap();
}

#[tokio::test]
async fn a_part_file_of_a_killed_process_is_gone_on_with() {
    let setup = Setup::start().await;
    setup.leave_part(&weights()[..123_456]);
    let snapshot = setup.fetch().await.unwrap();
    assert_eq!(setup.ranges(), [from(123_456)]);
    assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
}

#[tokio::test]
async fn a_whole_part_file_needs_no_request() {
    let setup = Setup::start().await;
    setup.leave_part(&weights());
    setup.fetch().await.unwrap();
    assert_eq!(setup.ranges(), []);
}

#[tokio::test]
async fn a_part_file_that_does_not_fit_is_started_over() {
    let too_long = [weights(), vec![0]].concat();
    for (part, ranges) in
        [(vec![0; 1000], vec![from(1000), None]), (vec![0; 300_000], vec![None]), (too_long, vec![None])]
    {
        let setup = Setup::start().await;
        setup.leave_part(&part);
        let snapshot = setup.fetch().await.unwrap();
        assert_eq!(setup.ranges(), ranges);
        assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
    }
}

#[tokio::test]
async fn a_hub_that_cannot_resume_starts_over() {
    for (fault, requests) in [(Fault::IgnoredRange, 1), (Fault::OtherRange, 2), (Fault::Status(416, vec![]), 2)] {
        let setup = Setup::start().await;
        setup.leave_part(&weights()[..1000]);
        setup.server.fail(CDN_WEIGHTS, fault, 1);
        let snapshot = setup.fetch().await.unwrap();
        assert_eq!(setup.ranges().len(), requests);
        assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
    }
}

#[tokio::test]
async fn wrong_content_is_an_error_and_leaves_nothing() {
    let setup = Setup::start().await;
    setup.server.fail(CDN_WEIGHTS, Fault::WrongBytes, usize::MAX);
    let error = setup.fetch().await.unwrap_err();
    assert!(matches!(&error, HubError::WrongContent { path, .. } if path == WEIGHTS), "{error}");
    assert!(!setup.blob_names().iter().any(|name| name.starts_with(&blob_name(&weights()))));
    assert!(!setup.path("snapshots").exists());
}

#[tokio::test]
async fn a_wrong_length_is_an_error_before_the_body() {
    let setup = Setup::start().await;
    setup.server.content().claimed_sizes.insert(WEIGHTS.to_owned(), 7);
    let error = setup.fetch().await.unwrap_err();
    assert_eq!(error.to_string(), "`model.safetensors` was sent with 300000 bytes, but the hub lists 7 bytes");
}

#[tokio::test]
async fn a_page_is_never_kept_as_a_model() {
    let setup = Setup::start().await;
    setup.leave_part(&weights()[..1000]);
    setup.server.fail(CDN_WEIGHTS, Fault::Status(200, vec![]), usize::MAX);
    let error = setup.fetch().await.unwrap_err();
    assert!(matches!(&error, HubError::NotAHub { reason, .. } if reason.contains("HTML")), "{error}");
    assert_eq!(fs::read(setup.part()).unwrap(), &weights()[..1000], "what was there is kept");
}

#[tokio::test]
async fn a_refused_file_says_why_and_what_to_do() {
    let code = |code| vec![("x-error-code", code)];
    let cases = [
        (403, vec![], "access to repository `owner/name` was refused with status 403 (no token was sent)", "HF_TOKEN"),
        (
            401,
            code("GatedRepo"),
            "access to gated repository `owner/name` was refused with status 401 (no token was sent)",
            "accept the licence at http://127.0.0.1:",
        ),
        (404, code("EntryNotFound"), "no file `model.safetensors` in repository `owner/name`", "run it again"),
        (410, vec![("x-error-message", "gone")], "answered with status 410: gone", "network"),
    ];
    for (status, headers, message, hint) in cases {
        let setup = Setup::start().await;
        setup.server.fail(CDN_WEIGHTS, Fault::Status(status, headers), usize::MAX);
        let error = setup.fetch().await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().contains(hint), "{}", error.hint());
        assert_eq!(setup.ranges().len(), 1, "a final answer is not asked for again");
        assert!(!setup.blob_names().contains(&blob_name(&weights())));
    }
}

#[tokio::test]
async fn a_missing_repository_and_a_missing_revision_are_told_apart() {
    let setup = Setup::start().await;
    let hub = Hub::new(setup.settings()).unwrap();
    let error = hub.resolve("owner/other", "main").await.unwrap_err();
    assert!(matches!(error, HubError::NoRepo { .. }), "{error}");
    let error = hub.resolve(REPO, "v9").await.unwrap_err();
    assert_eq!(error.to_string(), "no revision `v9` in repository `owner/name`");
    let pinned = hub.resolve(REPO, &"0".repeat(40)).await.unwrap();
    assert!(matches!(hub.list(&pinned).await.unwrap_err(), HubError::NoRevision { .. }));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again() {
    for place in ["/revision/", "/tree/", "/resolve/", CDN_WEIGHTS] {
        for fault in
            [Fault::Status(429, vec![("retry-after", "0")]), Fault::Status(500, vec![]), Fault::Status(408, vec![])]
        {
            let setup = Setup::start().await;
            setup.server.fail(place, fault, 1);
            setup.fetch().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_lasting_failure_ends_after_a_bounded_number_of_attempts() {
    for place in ["/revision/", "/tree/", CDN_WEIGHTS] {
        let setup = Setup::start().await;
        setup.server.fail(place, Fault::Status(500, vec![]), usize::MAX);
        let error = setup.fetch().await.unwrap_err();
        assert!(error.to_string().ends_with("after 3 failures in a row"), "{error}");
        assert!(error.source().unwrap().to_string().ends_with("answered with status 500"));
        assert_eq!(setup.server.seen(place).len(), usize::from(ATTEMPTS));
    }
}

#[tokio::test]
async fn a_cut_hub_that_also_cannot_resume_ends_too() {
    let setup = Setup::start().await;
    for _ in 0..20 {
        setup.server.fail(CDN_WEIGHTS, Fault::Cut(1000), 1);
        setup.server.fail(CDN_WEIGHTS, Fault::OtherRange, 1);
    }
    let error = setup.fetch().await.unwrap_err();
    assert!(matches!(error, HubError::GaveUp { .. }), "{error}");
}

#[tokio::test]
async fn the_token_is_in_no_error() {
    let setup = Setup::start().await;
    setup.server.fail("/resolve/", Fault::Status(410, vec![("x-error-message", "no hf_hidden here")]), 1);
    let settings = HubSettings { token: Some(Secret::new("hf_hidden".to_owned())), ..setup.settings() };
    let hub = Hub::new(settings).unwrap();
    let repeated = fetch(&hub).await.unwrap_err();
    setup.server.content().token = Some("hf_other");
    let refused = fetch(&hub).await.unwrap_err();
    assert!(refused.to_string().ends_with("(a token was sent)"), "{refused}");
    assert!(repeated.to_string().ends_with("no *** here"), "{repeated}");
    for text in [format!("{hub:?}"), format!("{refused:?} {}", refused.hint()), format!("{repeated:?}")] {
        assert!(!text.contains("hf_hidden"), "{text}");
    }
    let broken = HubSettings { token: Some(Secret::new("hf_hidden\n".to_owned())), ..setup.settings() };
    let error = Hub::new(broken).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hf_hidden"));
}

#[tokio::test]
async fn a_cancelled_download_keeps_its_part() {
    let setup = Setup::start().await;
    setup.server.fail(CDN_WEIGHTS, Fault::Stall(5000), 1);
    let hub = Hub::new(setup.settings()).unwrap();
    let pinned = hub.resolve(REPO, "main").await.unwrap();
    let files = wanted(&hub.list(&pinned).await.unwrap(), &[WEIGHTS.to_owned()]).unwrap();
    let cancel = CancellationToken::new();
    let progress = |done, _| {
        if done == 5000 {
            cancel.cancel();
        }
    };
    let error = hub.fetch(&pinned, &files, progress, &cancel).await.unwrap_err();
    assert!(matches!(error, HubError::Cancelled), "{error}");
    assert_eq!(fs::read(setup.part()).unwrap(), &weights()[..5000]);
    setup.fetch().await.unwrap();
    assert_eq!(setup.ranges(), [None, from(5000)]);
}

#[tokio::test]
async fn two_fetches_at_once_bring_each_file_once() {
    let setup = Setup::start().await;
    let mut tasks = JoinSet::new();
    for _ in 0..2 {
        let hub = Hub::new(setup.settings()).unwrap();
        tasks.spawn(async move { fetch(&hub).await });
    }
    let snapshots = tasks.join_all().await;
    assert!(snapshots.iter().all(Result::is_ok), "{snapshots:?}");
    assert_eq!(setup.ranges(), [None]);
}

#[tokio::test]
async fn a_damaged_blob_is_replaced() {
    for damaged in [vec![0; 300_000], b"<html>403</html>".to_vec()] {
        let setup = Setup::start().await;
        fs::create_dir_all(setup.path("blobs")).unwrap();
        fs::write(setup.path("blobs").join(blob_name(&weights())), damaged).unwrap();
        let snapshot = setup.fetch().await.unwrap();
        assert_eq!(fs::read(snapshot.folder.join(WEIGHTS)).unwrap(), weights());
    }
}

#[tokio::test]
async fn the_cache_serves_when_no_hub_may_be_asked_or_can_be_reached() {
    let mut setup = Setup::start().await;
    let online = setup.fetch().await.unwrap();
    setup.server.seen("");
    assert_eq!(setup.fetch_offline().await.unwrap(), online);
    assert!(setup.server.seen("").is_empty());
    setup.server.endpoint = "http://127.0.0.1:1".to_owned();
    let hub = Hub::new(setup.settings()).unwrap();
    assert_eq!(hub.resolve(REPO, "main").await.unwrap().source, Source::Cache);
    assert_eq!(fetch(&hub).await.unwrap(), online);
    let pinned = hub.resolve(REPO, COMMIT).await.unwrap();
    assert_eq!(hub.list(&pinned).await.unwrap().len(), 3);
    let error = hub.resolve(REPO, "v2").await.unwrap_err();
    assert!(error.source().unwrap().to_string().ends_with("cannot be reached"), "{error}");
}

#[tokio::test]
async fn an_incomplete_cache_does_not_stand_in_for_the_hub() {
    let setup = Setup::start().await;
    let error = setup.fetch_offline().await.unwrap_err();
    assert!(error.to_string().starts_with("revision `main` of `owner/name` is not in the cache"), "{error}");
    let index = br#"{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}"#;
    setup.server.content().files.insert("model.safetensors.index.json".to_owned(), index.to_vec());
    setup.fetch().await.unwrap();
    let error = setup.fetch_offline().await.unwrap_err();
    assert!(error.to_string().starts_with("`model-2.safetensors` of `owner/name` is not in the cache"), "{error}");
}

#[tokio::test]
async fn a_listed_path_outside_the_folder_is_refused() {
    let setup = Setup::start().await;
    setup.server.content().files.insert("../../evil.json".to_owned(), b"{}".to_vec());
    let error = setup.fetch().await.unwrap_err();
    assert!(matches!(&error, HubError::UnsafePath { path } if path == "../../evil.json"), "{error}");
}

#[tokio::test]
async fn a_model_that_the_disk_cannot_hold_is_refused_before_its_first_byte() {
    let setup = Setup::start().await;
    setup.server.content().claimed_sizes.insert(WEIGHTS.to_owned(), 1 << 60);
    let error = setup.fetch().await.unwrap_err();
    assert!(matches!(&error, HubError::DiskFull { needed, .. } if *needed >= 1 << 60), "{error}");
    assert!(setup.server.seen("/resolve/").is_empty());
}

#[tokio::test]
async fn only_asked_for_files_are_fetched() {
    let setup = Setup::start().await;
    setup.server.content().files.insert("pytorch_model.bin".to_owned(), vec![1; 20]);
    let hub = Hub::new(setup.settings()).unwrap();
    let pinned = hub.resolve(REPO, "main").await.unwrap();
    let listed: Vec<RemoteFile> = hub.list(&pinned).await.unwrap();
    let files = wanted(&listed, &["*.bin".to_owned()]).unwrap();
    let snapshot = hub.fetch(&pinned, &files, |_, _| (), &CancellationToken::new()).await.unwrap();
    assert_eq!(snapshot.files.keys().collect::<Vec<_>>(), ["pytorch_model.bin"]);
    assert_eq!(setup.blob_names(), [blob_name(&[1; 20])]);
}
