use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime, timerfd_create,
    timerfd_settime,
};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Nanoseconds on the host's CLOCK_MONOTONIC, which all its processes share.
pub(super) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let since_boot = Duration::try_from(now).expect("the clock begins at 0");
    nanoseconds(since_boot)
}

/// At most 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Wakes tasks at absolute times. Tokio's own timer counts whole milliseconds; this one is a kernel timer that the
/// runtime waits on together with its sockets.
pub(super) struct Metronome {
    waiting: Mutex<Waiting>,
}

struct Waiting {
    timer: OwnedFd,
    /// What the timer is set to.
    armed_ns: Option<u64>,
    tasks: BinaryHeap<Reverse<Task>>,
}

struct Task {
    due_ns: u64,
    waker: Waker,
}

/// One wait of one task, kept by it between polls.
#[derive(Default)]
pub(super) struct Wait(Option<Waker>);

impl Metronome {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { waiting: Mutex::new(Waiting { timer, armed_ns: None, tasks: BinaryHeap::new() }) })
    }

    /// Ready with the time once it is `due_ns` or later.
    pub(super) fn poll_until(&self, due_ns: u64, wait: &mut Wait, context: &Context<'_>) -> Poll<u64> {
        let now = now_ns();
        if now >= due_ns {
            wait.0 = None;
            return Poll::Ready(now);
        }
        let waker = context.waker();
        if !wait.0.as_ref().is_some_and(|known| known.will_wake(waker)) {
            wait.0 = Some(waker.clone());
            let mut waiting = self.waiting();
            waiting.tasks.push(Reverse(Task { due_ns, waker: waker.clone() }));
            waiting.arm();
        }
        Poll::Pending
    }

    pub(super) async fn sleep(&self, duration: Duration) {
        let due_ns = now_ns().saturating_add(nanoseconds(duration));
        let mut wait = Wait::default();
        poll_fn(|context| self.poll_until(due_ns, &mut wait, context)).await;
    }

    /// Wakes tasks until it is dropped.
    pub(super) async fn run(&self) -> io::Result<()> {
        // An expiry is eight bytes to read, so a runtime can wait for it as it waits for a pipe.
        let mut expiries = pipe::Receiver::from_owned_fd_unchecked(self.waiting().timer.try_clone()?)?;
        loop {
            // With more room than there is to read, the runtime knows that all is read.
            let _eight = expiries.read(&mut [0; 16]).await?;
            let mut waiting = self.waiting();
            waiting.armed_ns = None;
            let now = now_ns();
            while let Some(task) = waiting.tasks.peek_mut().filter(|task| task.0.due_ns <= now) {
                PeekMut::pop(task).0.waker.wake();
            }
            waiting.arm();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// Sets the timer if a task is due before it.
    fn arm(&mut self) {
        let Some(Reverse(first)) = self.tasks.peek() else { return };
        if self.armed_ns.is_none_or(|armed| first.due_ns < armed) {
            let due = Timespec::try_from(Duration::from_nanos(first.due_ns)).expect("584 years are few");
            let once = Itimerspec { it_interval: Timespec::default(), it_value: due };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once).expect("a timer takes any time after 0");
            self.armed_ns = Some(first.due_ns);
        }
    }
}

impl Ord for Task {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due_ns.cmp(&other.due_ns)
    }
}

impl PartialOrd for Task {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Task {}

impl PartialEq for Task {
    fn eq(&self, other: &Self) -> bool {
        self.due_ns == other.due_ns
    }
}
