//! From a file's rename in a room's directory to the event on the channel, one after the other, with fifty rooms watched;
//! and how long a burst of fifty thousand takes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use matrix_agent::{
    ids::Address,
    ipc::{Ipc, Watch},
};
use support::{Times, row, run, table};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod support;

const ROOMS: usize = 50;
const ONE_BY_ONE: usize = 2000;
const EACH: usize = 1000;

fn main() {
    run(measure());
}

async fn measure() {
    let begun = Instant::now();
    table("Events");
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let (ipc, mut events) = Ipc::start(64, &tasks, cancel.clone()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let rooms: Vec<(PathBuf, Watch)> = (0..ROOMS)
        .map(|room| {
            let directory = folder.path().join(room.to_string());
            fs::create_dir(&directory).unwrap();
            let watch = ipc.watch(&Address::of_first(format!("!{room}:x")), directory.clone());
            (directory, watch)
        })
        .collect();

    let mut times = Times::default();
    for n in 0..ONE_BY_ONE {
        let directory = &rooms[n % ROOMS].0;
        let part = write(directory, n);
        let start = Instant::now();
        fs::rename(part, directory.join(format!("{n:06}-1-gemini-AfterTool.json"))).unwrap();
        events.recv().await.unwrap();
        times.since(start);
    }
    row(
        &format!("a file renamed in a sandbox → event on the channel, p95 ({} events)", times.count()),
        "≤ 2 ms",
        &format!("{:.2} ms (p50 {:.2})", times.percentile(95), times.median()),
        "624 ms in the original, which looked each second",
        "",
    );

    let directories: Vec<_> = rooms.iter().map(|(directory, _)| directory.clone()).collect();
    let before = support::memory("self", "status", "VmRSS");
    let flood = tokio::task::spawn_blocking(move || {
        for n in 0..EACH {
            for directory in &directories {
                let part = write(directory, n);
                fs::rename(part, directory.join(format!("{n:06}-1-gemini-AfterTool.json"))).unwrap();
            }
        }
    });
    flood.await.unwrap();
    let start = Instant::now();
    let mut most = before;
    for n in 0..ROOMS * EACH {
        // None comes for so long: one was lost.
        tokio::time::timeout(Duration::from_mins(1), events.recv()).await.expect("none is lost").unwrap();
        if n % 500 == 0 {
            most = most.max(support::memory("self", "status", "VmRSS"));
        }
    }
    row(
        &format!("{} events at once from {ROOMS} rooms, beyond inotify's queue, none lost", ROOMS * EACH),
        "flat memory",
        &format!("{:.1} s; {before:.1} MB before, {most:.1} at most", start.elapsed().as_secs_f64()),
        "19 of 20 lost in the original, 50 ms apart",
        "",
    );
    support::end(begun);
    drop(rooms);
    cancel.cancel();
    tasks.close();
    tasks.wait().await;
}

fn write(directory: &Path, n: usize) -> PathBuf {
    const PAYLOAD: &str = include_str!("../tests/fixtures/hooks/gemini/AfterTool.json");
    let part = directory.join(format!(".{n:06}"));
    fs::write(&part, PAYLOAD).unwrap();
    part
}
