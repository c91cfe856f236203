//! Files in rooms' directories become events: as they come, after a flood that inotify's queue does not hold, and from a
//! directory that is replaced. What each hostile entry comes to stands beside the code that judges it.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use matrix_agent::{
    ids::Address,
    ipc::{Arrived, Event, Ipc, Kind, RunEnded, Watch},
    memory,
};
use tokio::{sync::mpsc::Receiver, task::spawn_blocking, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

const LIMIT: Duration = Duration::from_secs(20);

struct House {
    folder: tempfile::TempDir,
    ipc: Ipc,
    events: Receiver<Arrived>,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

impl House {
    fn open(queue: usize) -> Self {
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let (ipc, events) = Ipc::start(queue, &tasks, cancel.clone()).unwrap();
        Self { folder: tempfile::tempdir().unwrap(), ipc, events, tasks, cancel }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes a room's directory and has it watched.
    fn room(&self, name: &str) -> (PathBuf, Watch) {
        let directory = self.at(name);
        fs::create_dir_all(&directory).unwrap();
        let watch = self.ipc.watch(&Address::of_first(name), directory.clone());
        (directory, watch)
    }

    /// Waits for the next event; returns its room and its line.
    async fn next(&mut self) -> (String, String) {
        let arrived = timeout(LIMIT, self.events.recv()).await.expect("an event in time").unwrap();
        (arrived.address.room.to_string(), arrived.event.line)
    }

    async fn close(self) {
        self.cancel.cancel();
        self.tasks.close();
        timeout(LIMIT, self.tasks.wait()).await.expect("it ends");
    }
}

fn progress(text: &str) -> String {
    format!(r#"{{"version":1,"kind":"progress","text":"{text}"}}"#)
}

/// Writes an event as our hooks do.
fn post(directory: &Path, name: &str, text: &str) {
    let part = directory.join(format!(".{name}"));
    fs::write(&part, progress(text)).unwrap();
    fs::rename(part, directory.join(format!("{name}.json"))).unwrap();
}

/// Waits until a directory is empty.
async fn emptied(directory: &Path) {
    let empty = async {
        while fs::read_dir(directory).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LIMIT, empty).await.expect("what was taken is deleted");
}

fn pair(room: &str, line: &str) -> (String, String) {
    (room.to_owned(), line.to_owned())
}

#[tokio::test]
async fn a_file_that_is_renamed_or_written_in_place_becomes_an_event() {
    let mut house = House::open(8);
    let folder = house.at("one");
    fs::create_dir(&folder).unwrap();
    post(&folder, "1-2-send-progress", "before anybody looked");
    let (one, _watch) = house.room("one");
    let (two, _other) = house.room("two");
    assert_eq!(house.next().await, pair("one", "before anybody looked"));
    post(&two, "3-4-send-progress", "half way");
    assert_eq!(house.next().await, pair("two", "half way"));
    fs::write(one.join("event-progress.json"), r#"{"tool_name":"write_file"}"#).unwrap();
    assert_eq!(house.next().await, pair("one", "gemini ✓ write_file"));
    // In two pieces: only when its writer is done with it.
    let mut file = fs::File::create(one.join("notification.json")).unwrap();
    std::io::Write::write_all(&mut file, br#"{"message":"#).unwrap();
    post(&one, "5-6-send-progress", "meanwhile");
    assert_eq!(house.next().await, pair("one", "meanwhile"));
    std::io::Write::write_all(&mut file, br#""look"}"#).unwrap();
    drop(file);
    assert_eq!(house.next().await, pair("one", "⚠️ gemini: look"));
    emptied(&one).await;
    emptied(&two).await;
    house.close().await;
}

#[tokio::test]
async fn a_directory_goes_and_comes_with_its_sandbox() {
    let mut house = House::open(8);
    let (one, watch) = house.room("one");
    post(&one, "1-2-send-progress", "first");
    assert_eq!(house.next().await, pair("one", "first"));
    emptied(&one).await;
    drop(watch);
    post(&one, "3-4-send-progress", "unwatched");
    fs::rename(&one, house.at("old")).unwrap();
    let (one, watch) = house.room("one");
    // Watched anew in its place, by whoever comes second; who comes first lets go later.
    let (one_too, _second) = house.room("one");
    drop(watch);
    post(&one_too, "5-6-send-progress", "second");
    assert_eq!(house.next().await, pair("one", "second"));
    emptied(&one).await;
    assert_eq!(fs::read_dir(house.at("old")).unwrap().count(), 1, "nobody looks there any more");
    house.close().await;
}

#[tokio::test]
async fn a_canary_is_heard_and_hooks_errors_are_kept() {
    let mut house = House::open(8);
    let (one, _watch) = house.room("one");
    let heard = house.ipc.canary("tweet").unwrap();
    fs::write(one.join("hook-errors.log"), "sh: not found\n").unwrap();
    fs::write(one.join("1.json"), r#"{"version":1,"kind":"canary","text":"tweet"}"#).unwrap();
    timeout(LIMIT, heard).await.expect("it is heard").unwrap();
    post(&one, "2-2-send-progress", "last");
    assert_eq!(house.next().await, pair("one", "last"));
    emptied(&one).await;
    let errors = house.ipc.hook_errors(&Address::of_first("one")).unwrap();
    assert_eq!((errors.times, errors.last.as_str()), (1, "sh: not found"));
    house.close().await;
}

#[tokio::test]
async fn the_end_of_a_run_is_told_once_by_its_hook_or_else_by_who_ran_it() {
    let mut house = House::open(512);
    let (one, _watch) = house.room("one");
    let address = Address::of_first("one");
    let run = |agent: &str, session: &str, line: &str| RunEnded {
        agent: agent.to_owned(),
        session: Some(session.to_owned()),
        event: Event { kind: Kind::News, line: line.to_owned() },
    };
    // Its hook tells, behind more than one look takes in.
    for event in 0..200 {
        post(&one, &format!("1{event:05}-1-send-progress"), "works");
    }
    let stop = r#"{"hook_event_name":"Stop","session_id":"s-1","last_assistant_message":"Done."}"#;
    fs::write(one.join("2-3-qwen-Stop.json"), stop).unwrap();
    house.ipc.run_ended(&address, run("qwen", "s-1", "never told"));
    for _ in 0..200 {
        assert_eq!(house.next().await, pair("one", "works"));
    }
    assert_eq!(house.next().await, pair("one", "qwen ✓ Done."));
    // The session goes on, and no hook tells this time.
    house.ipc.run_ended(&address, run("qwen", "s-1", "qwen ✗ failed with exit code 1"));
    assert_eq!(house.next().await, pair("one", "qwen ✗ failed with exit code 1"));
    // Of another's end nothing follows.
    fs::write(one.join("3-3-qwen-Stop.json"), stop).unwrap();
    assert_eq!(house.next().await, pair("one", "qwen ✓ Done."));
    house.ipc.run_ended(&address, run("qwen", "s-2", "qwen ✗ killed"));
    assert_eq!(house.next().await, pair("one", "qwen ✗ killed"));
    // The original's wrapper names no session.
    fs::write(one.join("event-result.json"), r#"{"cli":"qwen","exit_code":0}"#).unwrap();
    assert_eq!(house.next().await, pair("one", "qwen ✓ finished (exit 0)"));
    house.ipc.run_ended(&address, run("qwen", "s-3", "never told"));
    post(&one, "5-4-send-progress", "last");
    assert_eq!(house.next().await, pair("one", "last"));
    // Where nothing is there to be read it is told all the same.
    fs::remove_dir_all(&one).unwrap();
    house.ipc.run_ended(&address, run("qwen", "s-4", "qwen ✗ gone"));
    assert_eq!(house.next().await, pair("one", "qwen ✗ gone"));
    house.close().await;
}

/// While nobody takes the events, so much happens that inotify's queue runs over several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_loses_nothing_and_stays_in_the_files() {
    const ROOMS: usize = 50;
    const EACH: usize = 1000;
    let queued: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    assert!(queued < ROOMS * EACH, "the queue must not hold them all");

    let mut house = House::open(16);
    let rooms: Vec<_> = (0..ROOMS).map(|room| house.room(&room.to_string())).collect();
    let directories = rooms.iter().map(|(directory, _)| directory.clone()).collect::<Vec<_>>();
    let (busy, _busy) = house.room("busy");
    // All were looked at once when the last one was: they are not due any more.
    let heard = house.ipc.canary("tweet").unwrap();
    fs::write(busy.join("1.json"), r#"{"version":1,"kind":"canary","text":"tweet"}"#).unwrap();
    timeout(LIMIT, heard).await.expect("it is heard").unwrap();
    for event in 0..40 {
        post(&busy, &format!("{event:05}-1-send-progress"), "busy");
    }
    let full = async {
        while house.events.len() < 16 {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, full).await.expect("the channel is full");
    // The watcher waits for us, and the kernel has no place for what it would tell of the later rooms.
    let before = memory::resident().unwrap();
    let flood = move || {
        for directory in &directories {
            for event in 0..EACH {
                post(directory, &format!("{event:05}-1-send-progress"), &event.to_string());
            }
        }
    };
    spawn_blocking(flood).await.unwrap();
    let mut seen = HashSet::new();
    let mut grown = 0;
    while seen.len() < ROOMS * EACH {
        let (room, line) = house.next().await;
        if room == "busy" {
            continue;
        }
        let key = (room.parse::<u16>().unwrap(), line.parse::<u16>().unwrap());
        assert!(seen.insert(key), "twice: {key:?}");
        if seen.len() % 1000 == 0 {
            grown = grown.max(memory::resident().unwrap().saturating_sub(before));
        }
    }
    for (directory, _watch) in &rooms {
        emptied(directory).await;
    }
    assert!(house.events.try_recv().is_err(), "each once");
    let megabytes = grown * 4096 / (1 << 20);
    assert!(megabytes < 24, "it holds a batch, not the flood: {megabytes} MB more");
    house.close().await;
}
