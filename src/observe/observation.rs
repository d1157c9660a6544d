use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at};

use super::figures::Pages;
use super::machine::Machine;
use super::sent::Sent;
use super::series::{Moment, SeriesFile};
use super::snapshot::{Snapshot, family_of_page};
use super::statistics::{self, Statistics};
use crate::process::ProcessTree;
use crate::record::{Check, ServerFacts};

/// Between two samples of memory and GPUs.
const MACHINE_PAUSE: Duration = Duration::from_millis(500);
/// A page that takes longer is left out.
const PAGE_LIMIT: Duration = Duration::from_secs(2);
/// A page of a server with hundreds of metrics has less than a tenth of this.
const PAGE_BYTES: usize = 16 << 20;
/// Counters may come a moment after the answer: the last page is read again until they are there.
const SETTLE_PAUSE: Duration = Duration::from_millis(100);
const SETTLE_READS: usize = 10;

/// What to watch.
#[derive(Clone, Debug)]
pub struct Watch {
    /// `http://host:port/metrics`.
    pub metrics_url: Option<String>,
    /// `http://host:port/v2/models/stats`.
    pub statistics_url: Option<String>,
    /// Between two pages.
    pub pause: Duration,
    /// The model that requests name.
    pub model: String,
    /// Where the series are kept.
    pub series: PathBuf,
    /// The server's processes, where it was started here.
    pub processes: Option<ProcessTree>,
    /// Indices or UUIDs; see [`visible_gpus`](super::visible_gpus).
    pub gpus: Vec<String>,
    /// What their memory held when the server had just been started.
    pub gpu_memory_mib_before: Option<f64>,
}

/// A server that is being watched. Dropping it ends that.
pub struct Observation {
    orders: mpsc::UnboundedSender<Order>,
    seen: oneshot::Receiver<Seen>,
    metrics_url: Option<String>,
}

/// Tells an [`Observation`] when the warm-up has ended.
pub struct Marker {
    orders: mpsc::UnboundedSender<Order>,
    warmup: u64,
    is_told: AtomicBool,
}

enum Order {
    WarmupEnded,
    LoadEnded,
    /// So many good answers came: the server has counted at least these.
    Finish {
        requests: u64,
    },
}

struct Seen {
    pages: Result<Pages, NoPages>,
    machine: ServerFacts,
}

/// Why there is nothing to compute figures from.
#[derive(Clone, Copy)]
enum NoPages {
    NotAsked,
    NoAnswer,
    UnknownNames,
}

impl Observation {
    /// Begins, and reads the first page: nothing may be sent before this is done.
    pub async fn start(watch: Watch) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let (began, beginning) = oneshot::channel();
        let (give, seen) = oneshot::channel();
        let metrics_url = watch.metrics_url.clone();
        // A thread and a runtime of its own: reading a page must not delay the tasks that measure.
        thread::spawn(move || {
            let Ok(runtime) = runtime::Builder::new_current_thread().enable_all().build() else { return };
            // Both receivers are gone when nobody wants to know any more.
            let seen = runtime.block_on(async {
                let watcher = Watcher::start(watch).await;
                let _ = began.send(());
                Box::pin(watcher.run(receiver)).await
            });
            if let Some(seen) = seen {
                let _ = give.send(seen);
            }
        });
        // An error means that the thread could not begin; then nothing is known in the end.
        let _ = beginning.await;
        Self { orders, seen, metrics_url }
    }

    /// For a load point that begins with so many warm-up requests.
    #[must_use]
    pub fn marker(&self, warmup: u64) -> Marker {
        Marker { orders: self.orders.clone(), warmup, is_told: AtomicBool::new(warmup == 0) }
    }

    /// The last answer has come: what the server takes of its host from now on is not the load's.
    pub fn load_ended(&self) {
        // The receiver is gone only when the thread could not begin.
        let _ = self.orders.send(Order::LoadEnded);
    }

    /// Reads the last page. Besides the facts come sentences that a reader of the results should see.
    pub async fn finish(self, sent: &Sent) -> (ServerFacts, Vec<String>) {
        let _ = self.orders.send(Order::Finish { requests: sent.ok });
        let Ok(Seen { pages, machine }) = self.seen.await else { return Default::default() };
        let url = self.metrics_url.unwrap_or_default();
        match pages {
            Ok(pages) => {
                let mut metrics = pages.metrics(sent);
                metrics.checks.extend(statistics::check(&machine.statistics, &pages.model, sent));
                let complaints = metrics.checks.iter().filter_map(Check::complaint).collect();
                (ServerFacts { metrics: Some(metrics), ..machine }, complaints)
            }
            Err(NoPages::NotAsked) => (machine, Vec::new()),
            Err(NoPages::NoAnswer) => (machine, vec![format!("`{url}` does not answer with status 200")]),
            Err(NoPages::UnknownNames) => (machine, vec![format!("no metric at `{url}` has a known name")]),
        }
    }
}

impl Marker {
    /// So many requests have ended.
    pub fn ended(&self, requests: u64) {
        if requests >= self.warmup && !self.is_told.swap(true, Ordering::Relaxed) {
            // The receiver is gone only when the observation is.
            let _ = self.orders.send(Order::WarmupEnded);
        }
    }
}

struct Watcher {
    client: reqwest::Client,
    url: Option<String>,
    pause: Duration,
    began: Instant,
    file: SeriesFile,
    machine: Machine,
    /// What the machine's figures were when the load ended.
    loaded: Option<ServerFacts>,
    pages: Result<Pages, NoPages>,
    statistics_url: Option<String>,
    /// Before the load.
    statistics: Option<Statistics>,
}

impl Watcher {
    async fn start(watch: Watch) -> Self {
        let Watch { metrics_url, statistics_url, pause, model, series, processes, gpus, gpu_memory_mib_before } = watch;
        let mut watcher = Self {
            client: web_client(),
            url: metrics_url,
            pause,
            began: Instant::now(),
            file: SeriesFile::new(series),
            machine: Machine::new(processes, gpus, gpu_memory_mib_before),
            loaded: None,
            pages: Err(NoPages::NotAsked),
            statistics_url,
            statistics: None,
        };
        watcher.pages = watcher.first_page(model).await;
        watcher.statistics = watcher.read_statistics().await;
        watcher
    }

    async fn first_page(&mut self, model: String) -> Result<Pages, NoPages> {
        let url = self.url.as_deref().ok_or(NoPages::NotAsked)?;
        let page = Box::pin(read_page(&self.client, url)).await.ok_or(NoPages::NoAnswer)?;
        let family = family_of_page(&page).ok_or(NoPages::UnknownNames)?;
        let before = Snapshot::of_page(&page, family, self.began.elapsed().as_secs_f64());
        self.file.add(Moment::Before, &before);
        Ok(Pages::new(family, model, before))
    }

    /// Watches until told to finish; `None` when nobody wants to know any more.
    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) -> Option<Seen> {
        let mut next_page = interval_at(Instant::now() + self.pause, self.pause);
        let mut next_sample = interval(MACHINE_PAUSE);
        next_page.set_missed_tick_behavior(MissedTickBehavior::Skip);
        next_sample.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                order = orders.recv() => match order? {
                    Order::WarmupEnded => {
                        self.machine.mark();
                        self.read(Moment::WarmupEnded).await;
                    }
                    Order::LoadEnded => self.loaded = Some(self.machine_facts()),
                    Order::Finish { requests } => return Some(Box::pin(self.finish(requests)).await),
                },
                _ = next_page.tick() => self.read(Moment::During).await,
                _ = next_sample.tick() => self.machine.sample(),
            }
        }
    }

    async fn read(&mut self, moment: Moment) {
        let (Ok(pages), Some(url)) = (&mut self.pages, &self.url) else { return };
        let Some(page) = Box::pin(read_page(&self.client, url)).await else { return };
        let page = Snapshot::of_page(&page, pages.family, self.began.elapsed().as_secs_f64());
        self.file.add(moment, &page);
        if moment == Moment::WarmupEnded {
            pages.marked = Some(page.clone());
        }
        pages.take(page);
    }

    async fn read_statistics(&self) -> Option<Statistics> {
        Statistics::of_page(&Box::pin(read_page(&self.client, self.statistics_url.as_deref()?)).await?)
    }

    fn machine_facts(&mut self) -> ServerFacts {
        // Even the shortest load has one sample.
        self.machine.sample();
        self.machine.facts()
    }

    async fn finish(mut self, requests: u64) -> Seen {
        let mut machine = self.loaded.take().unwrap_or_else(|| self.machine_facts());
        for _ in 0..SETTLE_READS {
            self.read(Moment::After).await;
            if self.pages.as_ref().map_or(true, |pages| pages.has_counted(requests)) {
                break;
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
        let after = self.read_statistics().await;
        machine.statistics = after.zip(self.statistics).map(|(after, before)| after.since(&before)).unwrap_or_default();
        Seen { pages: self.pages, machine }
    }
}

/// One connection, to the server and to no proxy.
pub(super) fn web_client() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().http1_only().pool_max_idle_per_host(1).timeout(PAGE_LIMIT);
    client.build().unwrap_or_default()
}

pub(super) async fn read_page(client: &reqwest::Client, url: &str) -> Option<String> {
    let mut answer = client.get(url).send().await.ok().filter(|answer| answer.status() == reqwest::StatusCode::OK)?;
    let mut page = Vec::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if page.len() + chunk.len() > PAGE_BYTES {
            return None;
        }
        page.extend_from_slice(&chunk);
    }
    Some(String::from_utf8_lossy(&page).into_owned())
}
