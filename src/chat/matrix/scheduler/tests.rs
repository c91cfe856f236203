//! Tests of the scheduler against a homeserver of a few lines, in paused time.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

use proptest::prelude::*;
use tokio::{runtime, task::JoinHandle};

use super::{super::pace::IN_FLIGHT, *};

const SECOND: Duration = Duration::from_secs(1);

/// What the homeserver accepted: milliseconds since the start, and what.
type Log = Arc<Mutex<Vec<(u128, String)>>>;

/// A scheduler with its homeserver.
#[derive(Clone)]
struct Rig {
    scheduler: Scheduler,
    tasks: TaskTracker,
    cancel: CancellationToken,
    start: Instant,
    log: Log,
    /// Requests in flight now.
    now: Arc<AtomicUsize>,
    /// The most requests that were in flight at once.
    most: Arc<AtomicUsize>,
    /// Pauses of the refusals to come, the last one first.
    refusals: Arc<Mutex<Vec<Duration>>>,
    /// The rate limit: sends that are left, how many come back in a second, and when that was last computed; `None`
    /// for no limit.
    bucket: Option<Arc<Mutex<(f64, f64, Instant)>>>,
}

impl Rig {
    fn new() -> Self {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        Self {
            scheduler: Scheduler::start(&tasks, cancel.clone()),
            tasks,
            cancel,
            start: Instant::now(),
            log: Log::default(),
            now: Arc::default(),
            most: Arc::default(),
            refusals: Arc::default(),
            bucket: None,
        }
    }

    /// Makes a request that takes `millis`.
    async fn request(self, what: String, millis: u64) -> Result<(), Failed<Infallible>> {
        let now = self.now.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        let gone = guard(self.now.clone());
        time::sleep(Duration::from_millis(millis)).await;
        drop(gone);
        if let Some(pause) = self.refusals.lock().unwrap().pop() {
            return Err(Failed::Limited(pause));
        }
        if let Some(bucket) = &self.bucket {
            let (tokens, rate, at) = &mut *bucket.lock().unwrap();
            *tokens = (*tokens + at.elapsed().as_secs_f64() * *rate).min(10.0);
            *at = Instant::now();
            if *tokens < 1.0 {
                return Err(Failed::Limited(Duration::from_secs_f64((1.0 - *tokens) / *rate)));
            }
            *tokens -= 1.0;
        }
        self.log.lock().unwrap().push((self.start.elapsed().as_millis(), what));
        Ok(())
    }

    fn send(&self, class: Class, room: &str, what: &str, millis: u64) -> JoinHandle<Result<(), Unsent<Infallible>>> {
        let (rig, room, what) = (self.clone(), RoomKey::from(room), what.to_owned());
        tokio::spawn(async move {
            let scheduler = rig.scheduler.clone();
            scheduler.send(class, &room, || rig.clone().request(what.clone(), millis)).await
        })
    }

    fn progress(&self, room: &str, what: &str, millis: u64) {
        let (rig, what) = (self.clone(), what.to_owned());
        self.scheduler.progress(&RoomKey::from(room), "turn", move || rig.clone().request(what.clone(), millis));
    }

    fn log(&self) -> Vec<(u128, String)> {
        self.log.lock().unwrap().clone()
    }

    fn names(&self) -> Vec<String> {
        self.log().into_iter().map(|(_, what)| what).collect()
    }
}

/// Decrements `count` when it is dropped, however the request ends.
fn guard(count: Arc<AtomicUsize>) -> impl Drop {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_sub(1, SeqCst);
        }
    }
    Guard(count)
}

fn entry(millis: u128, what: &str) -> (u128, String) {
    (millis, what.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_refusal_pauses_all_and_then_classes_go_in_order() {
    let rig = Rig::new();
    rig.refusals.lock().unwrap().push(2 * SECOND);
    let first = rig.send(Class::Reaction, "a", "refused reaction", 10);
    time::sleep(Duration::from_millis(20)).await;
    rig.progress("p", "progress", 10);
    let rest = [
        rig.send(Class::Reaction, "b", "reaction", 10),
        rig.send(Class::Greeting, "c", "greeting", 10),
        rig.send(Class::Answer, "d", "answer", 10),
        rig.send(Class::Answer, "a", "second answer", 10),
    ];
    for sent in rest.into_iter().chain([first]) {
        sent.await.unwrap().unwrap();
    }
    time::sleep(10 * SECOND).await;
    let names = rig.names();
    // After a refusal one send goes alone, then two together.
    assert_eq!(names, ["answer", "second answer", "greeting", "refused reaction", "reaction", "progress"]);
    assert_eq!(rig.log()[0].0, 10 + 2_000 + 50 + 10, "nothing goes before");
}

#[tokio::test(start_paused = true)]
async fn an_error_goes_to_who_asked_and_holds_up_nobody() {
    let rig = Rig::new();
    let room = RoomKey::from("a");
    let sent: Result<(), _> = rig.scheduler.send(Class::Answer, &room, async || Err(Failed::Other("forbidden"))).await;
    assert_eq!(sent.unwrap_err(), Unsent::Failed("forbidden"));
    rig.send(Class::Answer, "a", "next", 1).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_room_gets_one_after_the_other_and_the_account_eight_at_once() {
    let rig = Rig::new();
    let mut all: Vec<_> = (0..20).map(|n| rig.send(Class::Answer, &format!("room {n}"), "answer", 100)).collect();
    all.extend((0..3).map(|n| rig.send(Class::Answer, "room 0", &format!("after {n}"), 100)));
    for sent in all {
        sent.await.unwrap().unwrap();
    }
    assert_eq!(rig.most.load(SeqCst), IN_FLIGHT);
    let log = rig.log();
    assert_eq!(log.iter().filter(|(at, _)| *at == 100).count(), IN_FLIGHT);
    let after: Vec<_> = log.into_iter().filter(|(_, what)| what.starts_with("after")).collect();
    assert_eq!(after, [entry(300, "after 0"), entry(400, "after 1"), entry(500, "after 2")]);
}

#[tokio::test(start_paused = true)]
async fn only_the_newest_state_goes_and_not_too_soon() {
    let rig = Rig::new();
    for n in 0..40 {
        rig.progress("a", &n.to_string(), 30);
        time::sleep(Duration::from_millis(50)).await;
    }
    time::sleep(SECOND).await;
    // An interval begins when the request before it has ended.
    assert_eq!(rig.log(), [entry(30, "0"), entry(560, "10"), entry(1130, "22"), entry(1744, "34"), entry(2404, "39")]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_state_goes_later_unless_there_is_a_newer_one() {
    let rig = Rig::new();
    rig.refusals.lock().unwrap().extend([SECOND, SECOND]);
    rig.progress("a", "refused", 100);
    rig.progress("b", "older", 100);
    time::sleep(Duration::from_millis(75)).await;
    assert_eq!(rig.now.load(SeqCst), 2);
    rig.progress("b", "newer", 10);
    time::sleep(10 * SECOND).await;
    let mut names = rig.names();
    names.sort();
    assert_eq!(names, ["newer", "refused"]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_waits_for_a_message_that_is_made_but_not_for_its_edits() {
    let rig = Rig::new();
    rig.progress("a", "made", 100);
    time::sleep(Duration::from_millis(1)).await;
    rig.send(Class::Answer, "a", "answer", 10).await.unwrap().unwrap();
    assert_eq!(rig.log(), [entry(100, "made"), entry(110, "answer")]);

    rig.progress("a", "edit", 5_000);
    time::sleep(SECOND).await;
    assert_eq!(rig.now.load(SeqCst), 1, "the edit is in flight");
    rig.send(Class::Answer, "a", "another", 10).await.unwrap().unwrap();
    assert_eq!(rig.names(), ["made", "answer", "another"]);
}

#[tokio::test(start_paused = true)]
async fn progress_leaves_places_for_answers() {
    let rig = Rig::new();
    (0..20).for_each(|n| rig.progress(&format!("room {n}"), "progress", 60_000));
    time::sleep(10 * SECOND).await;
    let begun = Instant::now();
    rig.send(Class::Answer, "elsewhere", "answer", 10).await.unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_millis(20));
    assert_eq!(rig.most.load(SeqCst), 5);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_message_is_the_last_of_it() {
    let rig = Rig::new();
    let room = RoomKey::from("a");
    rig.progress("a", "in flight", 300);
    time::sleep(Duration::from_millis(10)).await;
    rig.progress("a", "queued", 10);
    rig.progress("b", "of another", 10);
    rig.scheduler.settle(&room, "turn").await;
    assert_eq!(rig.start.elapsed().as_millis(), 300);
    // The second time there is nothing to wait for.
    rig.scheduler.settle(&room, "turn").await;
    rig.progress("a", "late", 10);
    rig.send(Class::Answer, "a", "end", 10).await.unwrap().unwrap();
    time::sleep(60 * SECOND).await;
    assert_eq!(rig.names(), ["of another", "in flight", "end"]);
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_or_panics_leaves_the_room_free() {
    let rig = Rig::new();
    let sending = rig.send(Class::Answer, "a", "given up in flight", 1000);
    time::sleep(Duration::from_millis(1)).await;
    let waiting = rig.send(Class::Answer, "a", "given up", 10);
    time::sleep(Duration::from_millis(1)).await;
    waiting.abort();
    sending.abort();
    let scheduler = rig.scheduler.clone();
    let panics = tokio::spawn(async move {
        let send = || async { panic!("in a send") };
        scheduler.send::<(), Infallible, _, _>(Class::Answer, &RoomKey::from("a"), send).await
    });
    assert!(panics.await.unwrap_err().is_panic());
    rig.scheduler.progress::<Infallible, _, _>(&RoomKey::from("a"), "turn", || async { panic!("in progress") });
    time::sleep(SECOND).await;
    rig.send(Class::Answer, "a", "answer", 10).await.unwrap().unwrap();
    rig.progress("a", "progress", 10);
    time::sleep(SECOND).await;
    assert_eq!(rig.names(), ["answer", "progress"]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_program_ends_all() {
    let rig = Rig::new();
    rig.progress("a", "hangs", u64::MAX);
    time::sleep(SECOND).await;
    rig.progress("b", "never ready", u64::MAX);
    let waiting = rig.send(Class::Answer, "a", "waits for it", 10);
    let settling = {
        let rig = rig.clone();
        tokio::spawn(async move { rig.scheduler.settle(&RoomKey::from("a"), "turn").await })
    };
    time::sleep(SECOND).await;
    rig.cancel.cancel();
    rig.tasks.close();
    rig.tasks.wait().await;
    settling.await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(Unsent::Ended));
    assert_eq!(rig.send(Class::Answer, "c", "later", 10).await.unwrap(), Err(Unsent::Ended));
    rig.progress("c", "later", 10);
    rig.scheduler.settle(&RoomKey::from("c"), "turn").await;
    assert!(rig.log().is_empty() && rig.start.elapsed() == 2 * SECOND);
}

/// The limit of an unmodified Synapse: ten at once, then one every five seconds.
#[tokio::test(start_paused = true)]
async fn thirty_rooms_share_a_slow_server_and_answers_go_first() {
    let rig = Rig { bucket: Some(Arc::new(Mutex::new((10.0, 0.2, Instant::now())))), ..Rig::new() };
    let mut waits = Vec::new();
    for second in 0..3600 {
        (0..30).for_each(|room| rig.progress(&format!("room {room}"), &room.to_string(), 20));
        if second % 60 == 59 {
            let begun = Instant::now();
            rig.send(Class::Answer, &format!("room {}", second % 30), "answer", 20).await.unwrap().unwrap();
            waits.push(begun.elapsed());
        }
        time::sleep(SECOND).await;
    }
    let names = rig.names();
    let edits: Vec<_> = (0..30).map(|room| names.iter().filter(|what| **what == room.to_string()).count()).collect();
    let (least, most) = (edits.iter().min().unwrap(), edits.iter().max().unwrap());
    assert!(most - least <= 1 && *least >= 15, "{edits:?}");
    waits.sort();
    assert!(waits[waits.len() / 2] < SECOND && waits[waits.len() - 1] < 12 * SECOND, "{waits:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_asked_all_is_sent_once_and_in_order(
        sends in prop::collection::vec((0..3_u8, 0..5_u8, 0..300_u64, 0..200_u64), 1..60),
        refusals in prop::collection::vec((0..3000_u64).prop_map(Duration::from_millis), 0..8),
    ) {
        let runtime = runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let rig = Rig::new();
            *rig.refusals.lock().unwrap() = refusals;
            let mut sent = Vec::new();
            for (n, (class, room, takes, wait)) in sends.iter().enumerate() {
                let class = [Class::Answer, Class::Greeting, Class::Reaction][usize::from(*class)];
                let what = format!("{room} {class:?} {n:02}");
                rig.progress(&room.to_string(), "progress", *takes);
                sent.push(rig.send(class, &room.to_string(), &what, *takes));
                time::sleep(Duration::from_millis(*wait)).await;
            }
            for sent in sent {
                time::timeout(600 * SECOND, sent).await.unwrap().unwrap().unwrap();
            }
            assert!(rig.most.load(SeqCst) <= IN_FLIGHT);
            let names: Vec<_> = rig.names().into_iter().filter(|what| what != "progress").collect();
            assert_eq!(names.len(), sends.len());
            // The numbers are last in a name: within a room and a class they rise.
            let mut sorted = names.clone();
            sorted.sort();
            let mut by_class = names;
            by_class.sort_by_key(|what| what[..what.len() - 2].to_owned());
            assert_eq!(by_class, sorted);
        });
    }
}
