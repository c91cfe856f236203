//! Watches the directories of all rooms with one inotify queue. inotify only tells that a directory should be
//! scanned, so nothing is lost if its queue overflows, a watch comes late or a directory is replaced: a later scan
//! finds the files.
//!
//! Rooms are scanned in turn, with a bounded number of events each, so that one that floods its directory delays the
//! others by one batch. The files are the buffer: while nobody receives the events, they stay where they are.

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::FutureExt;
use nix::{
    errno::Errno,
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{Notify, mpsc, oneshot},
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

use super::{
    directory::{self, Counts},
    ends::{Ends, RunEnded},
    event::{Event, Kind},
};
use crate::{ids::Address, text};

/// How often every directory is scanned, whatever inotify says.
const PERIOD: Duration = Duration::from_secs(30);
/// Reads of inotify's queue between two scans.
const READS: usize = 64;
/// The most characters of a line of the hooks' error log.
const ERROR: usize = 200;
/// The most canaries that may be awaited at the same time.
const CANARIES: usize = 64;

/// The inotify events that matter: our hooks rename files into place, others write in place.
fn told() -> AddWatchFlags {
    AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// An event from a room's sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// The room of the sandbox.
    pub address: Address,
    /// The event.
    pub event: Event,
}

/// Errors that a room's hooks have logged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HookErrors {
    /// How often some were found since the server started.
    pub times: u64,
    /// The last line.
    pub last: String,
}

/// The watcher. Cheap to clone.
#[derive(Clone)]
pub struct Ipc {
    inner: Arc<Inner>,
}

/// A directory that is watched for as long as this lives.
pub struct Watch {
    inner: Arc<Inner>,
    address: Address,
    number: u64,
}

struct Inner {
    kernel: AsyncFd<Queue>,
    rooms: Mutex<Rooms>,
    /// Notified when a directory should be scanned.
    due: Notify,
}

/// inotify's descriptor, registered with tokio.
struct Queue(Inotify);

impl AsRawFd for Queue {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

#[derive(Default)]
struct Rooms {
    by_address: HashMap<Address, Watched>,
    by_watch: HashMap<WatchDescriptor, Address>,
    /// The rooms whose directories should be scanned, in order.
    due: VecDeque<Address>,
    canaries: HashMap<String, oneshot::Sender<()>>,
    /// The number of the last [`Watch`].
    last: u64,
}

struct Watched {
    directory: PathBuf,
    watch: Option<WatchDescriptor>,
    /// The number of its [`Watch`].
    number: u64,
    /// Whether it is in [`Rooms::due`].
    is_due: bool,
    /// Entries that were not taken since the last report.
    counts: Counts,
    errors: HookErrors,
    ends: Ends,
}

impl Ipc {
    /// Starts the watcher. At most `queue` events wait in the channel.
    ///
    /// # Errors
    ///
    /// The kernel has no inotify instance left.
    pub fn start(
        queue: usize,
        tasks: &TaskTracker,
        cancel: CancellationToken,
    ) -> io::Result<(Self, mpsc::Receiver<Arrived>)> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: a `Queue` has one descriptor, which is open for as long as it lives.
        let registered = unsafe { AsyncFd::register_with_interest(Queue(inotify), Interest::READABLE) };
        let kernel = registered.map_err(io::Error::from)?;
        let inner = Arc::new(Inner { kernel, rooms: Mutex::default(), due: Notify::new() });
        let (to, events) = mpsc::channel(queue);
        tasks.spawn(run(Arc::clone(&inner), to, cancel));
        Ok((Self { inner }, events))
    }

    /// Watches a room's directory from now on, instead of an earlier one; files that are there already are taken too.
    pub fn watch(&self, address: &Address, directory: PathBuf) -> Watch {
        let mut rooms = self.inner.rooms();
        rooms.forget(address, &self.inner.kernel);
        rooms.last += 1;
        let number = rooms.last;
        let (counts, errors) = (Counts::default(), HookErrors::default());
        let ends = Ends::default();
        let watched = Watched { directory, watch: None, number, is_due: false, counts, errors, ends };
        rooms.by_address.insert(address.clone(), watched);
        rooms.add_watch(address, &self.inner.kernel);
        rooms.make_due(address);
        drop(rooms);
        self.inner.due.notify_one();
        Watch { inner: Arc::clone(&self.inner), address: address.clone(), number }
    }

    /// Tells a room that a run has ended, after everything that its hooks wrote was read, and unless one of them has
    /// said so: some ends fire no hook. A room that is not watched is told nothing.
    pub fn run_ended(&self, address: &Address, run: RunEnded) {
        let mut rooms = self.inner.rooms();
        if rooms.ends(address, |ends| ends.add(run)) {
            rooms.make_due(address);
        }
        drop(rooms);
        self.inner.due.notify_one();
    }

    /// Waits for the canary `word` from any room; `None` if too many are awaited. Call it before the canary is sent.
    pub fn canary(&self, word: &str) -> Option<oneshot::Receiver<()>> {
        let mut rooms = self.inner.rooms();
        rooms.canaries.retain(|_, waiting| !waiting.is_closed());
        if rooms.canaries.len() >= CANARIES {
            return None;
        }
        let (arrived, arrives) = oneshot::channel();
        rooms.canaries.insert(word.to_owned(), arrived);
        Some(arrives)
    }

    /// Returns the last errors that a room's hooks have logged; `None` if its directory is not watched.
    pub fn hook_errors(&self, address: &Address) -> Option<HookErrors> {
        self.inner.rooms().by_address.get(address).map(|watched| watched.errors.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut rooms = self.inner.rooms();
        if rooms.by_address.get(&self.address).is_some_and(|watched| watched.number == self.number) {
            rooms.forget(&self.address, &self.inner.kernel);
        }
    }
}

/// Runs until it is cancelled, or nobody receives the events any more.
async fn run(inner: Arc<Inner>, to: mpsc::Sender<Arrived>, cancel: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // inotify's queue is read between two scans, so that neither a flood of names nor one of files delays the
        // other.
        for _ in 0..READS {
            match inner.kernel.get_ref().0.read_events() {
                Ok(events) => inner.note(&events),
                Err(_) => break, // the queue is empty
            }
        }
        if ticks.tick().now_or_never().is_some() {
            inner.rooms().look_again(&inner.kernel);
        }
        let next = inner.rooms().next();
        if let Some((address, number, directory)) = next {
            let span = address.span();
            let serving = serve(&inner, &to, address, number, directory).instrument(span);
            let served = cancel.run_until_cancelled(serving).await;
            if served.is_none_or(|served| served.is_err()) {
                return;
            }
            continue;
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = ticks.tick() => inner.rooms().look_again(&inner.kernel),
            () = inner.due.notified() => {}
            ready = inner.kernel.readable() => if let Ok(mut ready) = ready {
                let read = ready.try_io(|kernel| kernel.get_ref().0.read_events().map_err(io::Error::from));
                if let Ok(Ok(events)) = read {
                    inner.note(&events);
                }
            },
        }
    }
}

/// Nobody receives the events any more.
struct Closed;

/// Takes a batch of events from one directory.
async fn serve(
    inner: &Inner,
    to: &mpsc::Sender<Arrived>,
    address: Address,
    number: u64,
    directory: PathBuf,
) -> Result<(), Closed> {
    // Runs that have ended before the scan have written everything that they will.
    let runs = inner.rooms().ends(&address, Ends::take);
    let Ok(scanned) = spawn_blocking(move || directory::scan(&directory)).await else { return Ok(()) };
    let mut scan = match scanned {
        Ok(scan) => scan,
        Err(error) => {
            tracing::debug!(%error, "a sandbox's events cannot be read");
            return tell_ends(inner, to, &address, runs).await;
        }
    };
    {
        let mut rooms = inner.rooms();
        if rooms.by_address.get(&address).is_none_or(|watched| watched.number != number) {
            // It is watched no more; another directory may have taken its place during the scan.
            rooms.ends(&address, |ends| ends.give_back(runs));
            return Ok(());
        }
        rooms.ends(&address, |ends| ends.note(scan.ended()));
    }
    if let Some(lines) = scan.errors.take() {
        inner.note_errors(&address, &lines);
    }
    let counts = std::mem::take(&mut scan.counts);
    for event in scan.events() {
        match event.kind {
            Kind::Detail => {}
            Kind::Canary => inner.sing(&event.line),
            Kind::News => to.send(Arrived { address: address.clone(), event }).await.map_err(|_| Closed)?,
        }
    }
    let more = scan.more;
    if more {
        inner.rooms().ends(&address, |ends| ends.give_back(runs));
    } else {
        tell_ends(inner, to, &address, runs).await?;
    }
    let deleted = spawn_blocking(move || scan.delete()).await;
    let mut rooms = inner.rooms();
    let Some(watched) = rooms.by_address.get_mut(&address) else { return Ok(()) };
    watched.counts.add(counts);
    match deleted {
        Ok(Ok(())) if more => rooms.make_due(&address),
        Ok(Ok(())) | Err(_) => {}
        // The error would repeat at once, so the directory is scanned again at the next event or period.
        Ok(Err(error)) => {
            watched.counts.stuck += 1;
            watched.counts.why = Some(error.to_string());
        }
    }
    Ok(())
}

/// Reports the ends of runs that no hook has reported.
async fn tell_ends(
    inner: &Inner,
    to: &mpsc::Sender<Arrived>,
    address: &Address,
    runs: Vec<RunEnded>,
) -> Result<(), Closed> {
    for run in runs {
        if !inner.rooms().ends(address, |ends| ends.was_told(&run)) {
            to.send(Arrived { address: address.clone(), event: run.event }).await.map_err(|_| Closed)?;
        }
    }
    Ok(())
}

impl Inner {
    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Handles inotify's events.
    fn note(&self, events: &[InotifyEvent]) {
        let mut rooms = self.rooms();
        for event in events {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                tracing::debug!("inotify's queue ran over: every directory is looked at");
                return rooms.look_again(&self.kernel);
            }
            if event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_UNMOUNT) {
                // The directory is gone or was unmounted; another may have taken its place.
                if let Some(address) = rooms.by_watch.remove(&event.wd)
                    && let Some(watched) = rooms.by_address.get_mut(&address)
                {
                    watched.watch = None;
                }
            } else if let Some(address) = rooms.by_watch.get(&event.wd).cloned() {
                rooms.make_due(&address);
            }
        }
    }

    /// Keeps errors that hooks have logged, and logs them for the operator.
    fn note_errors(&self, address: &Address, lines: &str) {
        let last = lines.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let last = text::one_line(last, ERROR);
        tracing::warn!(%last, "a hook in a sandbox failed");
        if let Some(watched) = self.rooms().by_address.get_mut(address) {
            watched.errors.times += 1;
            watched.errors.last = last;
        }
    }

    /// Notifies whoever waits for a canary.
    fn sing(&self, word: &str) {
        if let Some(waiting) = self.rooms().canaries.remove(word) {
            let _ = waiting.send(()); // the receiver may have given up
        }
    }
}

impl Rooms {
    fn add_watch(&mut self, address: &Address, kernel: &AsyncFd<Queue>) {
        let Some(watched) = self.by_address.get_mut(address) else { return };
        match kernel.get_ref().0.add_watch(&watched.directory, told()) {
            Ok(watch) => {
                // Another directory has taken the place of the one that was watched.
                if let Some(old) = watched.watch.replace(watch).filter(|old| *old != watch) {
                    self.by_watch.remove(&old);
                    let _ = kernel.get_ref().0.rm_watch(old); // it may have gone with its directory
                }
                self.by_watch.insert(watch, address.clone());
            }
            Err(Errno::ENOENT) => {}
            Err(error) => {
                let told = || tracing::warn!(%error, "a sandbox's events cannot be watched: they come late");
                address.span().in_scope(told);
            }
        }
    }

    fn forget(&mut self, address: &Address, kernel: &AsyncFd<Queue>) {
        let Some(watched) = self.by_address.remove(address) else { return };
        self.due.retain(|due| due != address);
        if let Some(watch) = watched.watch {
            self.by_watch.remove(&watch);
            let _ = kernel.get_ref().0.rm_watch(watch); // it may have gone with its directory
        }
    }

    /// Applies `change` to the ends of a room's runs; does nothing if the room is not watched.
    fn ends<T: Default>(&mut self, address: &Address, change: impl FnOnce(&mut Ends) -> T) -> T {
        self.by_address.get_mut(address).map(|watched| change(&mut watched.ends)).unwrap_or_default()
    }

    fn make_due(&mut self, address: &Address) {
        if let Some(watched) = self.by_address.get_mut(address)
            && !std::mem::replace(&mut watched.is_due, true)
        {
            self.due.push_back(address.clone());
        }
    }

    fn next(&mut self) -> Option<(Address, u64, PathBuf)> {
        let address = self.due.pop_front()?;
        let watched = self.by_address.get_mut(&address)?;
        watched.is_due = false;
        let (number, directory) = (watched.number, watched.directory.clone());
        Some((address, number, directory))
    }

    /// Makes every directory due, watches new ones, and reports entries that were not taken.
    fn look_again(&mut self, kernel: &AsyncFd<Queue>) {
        let all: Vec<_> = self.by_address.keys().cloned().collect();
        for address in all {
            self.add_watch(&address, kernel);
            self.make_due(&address);
            let Some(watched) = self.by_address.get_mut(&address) else { continue };
            let Counts { deleted, stuck, why } = std::mem::take(&mut watched.counts);
            if let Some(why) = why {
                let why = text::one_line(&why, ERROR);
                let told = || tracing::warn!(deleted, stuck, %why, "a sandbox dropped what is no event");
                address.span().in_scope(told);
            }
        }
    }
}

impl Counts {
    fn add(&mut self, more: Self) {
        self.deleted += more.deleted;
        self.stuck += more.stuck;
        self.why = more.why.or(self.why.take());
    }
}
