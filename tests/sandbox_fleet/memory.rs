//! The memory that all sandboxes use together: who makes room when it gets short, and who waits.

use matrix_agent::{
    ids::Address,
    sandbox::{Command, Process, Sandbox, SandboxState, SandboxSummary, Sandboxes},
};
use nix::sys::signal::Signal;
use tokio::time::timeout;

use crate::house::{House, LIMIT, is_gvisor, sh, shell, signal, until};

const MIB: u64 = 1 << 20;

/// Takes so much memory, which then stays in use without any process.
async fn keep(sandbox: &Sandbox, mebibytes: u64) {
    sh(sandbox, &format!("head -c {mebibytes}M /dev/zero > /dev/shm/kept")).await;
}

/// Takes so much memory and works on. A moment later, so that the others have been idle for a while, each for its time.
async fn work(sandbox: &Sandbox, mebibytes: u64) -> Process {
    let script = format!("sleep 2; head -c {mebibytes}M /dev/zero > /dev/shm/used; echo full; sleep 600");
    let mut process = sandbox.spawn(Command { background: true, timeout: None, ..shell(&script) }).await.unwrap();
    assert_eq!(timeout(LIMIT, process.next()).await.unwrap().unwrap(), "full\n");
    process
}

/// Waits until so much memory is counted for a room: what was measured a moment ago still counts when another one starts.
async fn counted(fleet: &Sandboxes, room: &Address, mebibytes: u64) {
    let takes = |it: &SandboxSummary| it.address == *room && it.memory_used >= Some(mebibytes * MIB);
    let counted = async { while !fleet.list().await.unwrap().iter().any(takes) {} };
    timeout(LIMIT, counted).await.expect("its memory is counted");
}

fn house() -> House {
    House::with(|options| options.memory_total = 200 * MIB)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_idle_sandboxes_run_beside_each_other() {
    let house = House::with(|options| (options.memory_total, options.max_running) = (400 * MIB, 128));
    let fleet = house.open().await;
    let rooms: Vec<_> = (0..12).map(|number| house.room(&format!("r{number}"))).collect();
    for room in &rooms {
        sh(&fleet.ensure(room).await.unwrap(), "true").await;
    }
    let running = fleet.list().await.unwrap().into_iter().filter(|it| it.state == SandboxState::Running).count();
    assert_eq!(running, rooms.len(), "twelve of 512 MiB at most, which use a few MiB each");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_used_idle_one_goes_when_memory_is_short_and_one_at_work_never() {
    let house = house();
    let fleet = house.open().await;
    let [old, idle, busy] = ["old", "idle", "busy"].map(|name| house.room(name));
    let worker = fleet.ensure(&busy).await.unwrap();
    keep(&fleet.ensure(&old).await.unwrap(), 60).await;
    keep(&fleet.ensure(&idle).await.unwrap(), 30).await;
    let process = work(&worker, 120).await; // it was there first, and has been idle longest
    until(&fleet, &old, SandboxState::Stopped).await;
    let list = fleet.list().await.unwrap();
    for room in [&idle, &busy] {
        assert!(list.iter().any(|it| it.address == *room && it.state == SandboxState::Running), "{list:?}");
    }
    assert!(worker.is_connected());
    worker.kill(process.id()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_wants_to_start_when_all_are_at_work_waits_in_line_and_is_told() {
    let house = house();
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let [busy, first, second] = ["busy", "first", "second"].map(|name| house.room(name));
    let worker = fleet.ensure(&busy).await.unwrap();
    let process = work(&worker, 110).await;
    let other = house.room("other");
    let helper = fleet.ensure(&other).await.unwrap();
    let also = work(&helper, 90).await;
    counted(&fleet, &other, 90).await;

    let start = |room: &Address| {
        let (fleet, room) = (fleet.clone(), room.clone());
        tokio::spawn(async move { fleet.ensure(&room).await })
    };
    let waits = start(&first);
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert_eq!(notice.address, first);
    assert!(notice.text.starts_with("memory is short: the sandboxes together use"), "{}", notice.text);
    assert!(notice.text.contains("of the 200 MiB that they may"), "{}", notice.text);
    let waits_too = start(&second);
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == second && notice.text.contains("memory is short"), "{notice:?}");
    assert!(!waits.is_finished() && !waits_too.is_finished());
    assert!(worker.is_connected() && helper.is_connected(), "nobody at work was stopped");

    for (sandbox, process) in [(&worker, process), (&helper, also)] {
        sandbox.kill(process.id()).await.unwrap();
    }
    for waits in [waits, waits_too] {
        let sandbox = timeout(LIMIT, waits).await.unwrap().unwrap().unwrap();
        assert_eq!(sh(&sandbox, "echo up").await, "up");
    }
}

/// Under load an answer may be late, and whoever wants to start waits rather than end another's work for that.
#[tokio::test(flavor = "multi_thread")]
async fn one_at_work_that_answers_late_is_not_taken_for_idle() {
    if is_gvisor() {
        return; // what is stopped so is all of gVisor
    }
    let house = House::with(|options| options.memory_total = 120 * MIB);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let [busy, first] = ["busy", "first"].map(|name| house.room(name));
    let worker = fleet.ensure(&busy).await.unwrap();
    let process = work(&worker, 110).await;
    counted(&fleet, &busy, 110).await;
    let pid = fleet.observe(&busy).await.unwrap().outside.unwrap().pid;
    signal(pid, Signal::SIGSTOP);
    let starts = tokio::spawn({
        let (fleet, first) = (fleet.clone(), first.clone());
        async move { fleet.ensure(&first).await }
    });
    let notice = timeout(LIMIT, notices.recv()).await;
    signal(pid, Signal::SIGCONT);
    assert!(notice.unwrap().unwrap().text.contains("memory is short"), "it waits");
    assert!(worker.is_connected(), "what works goes on");
    worker.kill(process.id()).await.unwrap();
    timeout(LIMIT, starts).await.unwrap().unwrap().unwrap();
}
