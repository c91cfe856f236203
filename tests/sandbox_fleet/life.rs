//! How sandboxes come to life, stop, are taken over, made anew and removed, and keep their files.

use std::time::Duration;

use bytes::Bytes;
use matrix_agent::{
    clock::Clock,
    ids::random,
    sandbox::{Command, Exit, Lookup, SandboxState},
};
use tokio::time::timeout;

use crate::house::{House, IMAGE, LIMIT, podman, root, run, sh, shell, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_sandbox_is_stopped_and_starts_again_with_its_files() {
    let house = House::with(|options| options.idle = Duration::from_secs(3));
    let fleet = house.open().await;
    let room = house.room("idle");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "id -un; pwd; echo $HOME").await, "agent\n/workspace\n/home/agent");
    sh(&sandbox, "echo one > /workspace/file; echo two > ~/file").await;
    assert_eq!(run(&sandbox, root("echo three > /etc/file")).await.exit, Exit::Code(0));

    until(&fleet, &room, SandboxState::Stopped).await;
    assert!(!sandbox.is_connected());

    let again = fleet.ensure(&room).await.unwrap();
    assert_ne!(again.boot_id(), sandbox.boot_id());
    assert_eq!(sh(&again, "cat /workspace/file ~/file /etc/file").await, "one\ntwo\nthree");
    assert_eq!(house.volumes().len(), 1, "one volume a room");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_at_work_is_not_idle() {
    let house = House::with(|options| options.idle = Duration::from_millis(500));
    let fleet = house.open().await;
    let room = house.room("busy");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "sleep 2; echo done").await, "done");
    until(&fleet, &room, SandboxState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_calls_for_one_room_share_one_start() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("shared");
    let (a, b, c) = tokio::join!(fleet.ensure(&room), fleet.ensure(&room), fleet.ensure(&room));
    let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
    assert!(a.boot_id() == b.boot_id() && b.boot_id() == c.boot_id());
    assert_eq!(house.containers().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_limits_make_the_container_anew_and_keep_the_files() {
    let mut house = House::new();
    let room = house.room("anew");
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo mine > /workspace/file; mkdir ~/.private; chmod 700 ~/.private; echo x > ~/.private/y").await;
    run(&sandbox, root("echo gone > /etc/file; echo roots > /workspace/root")).await;
    let before = fleet.observe(&room).await.unwrap();
    fleet.shutdown().await;
    let names = house.containers();
    podman(&["stop", "--time", "2", names.iter().next().unwrap()]);

    house.options.memory = 256 << 20;
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(house.containers(), names);
    let seen =
        sh(&sandbox, "cat /workspace/file ~/.private/y /workspace/root; ls /etc/file 2>/dev/null || echo new").await;
    assert_eq!(seen, "mine\nx\nroots\nnew");
    sh(&sandbox, "echo more >> /workspace/file; rm -r ~/.private").await;
    let after = fleet.observe(&room).await.unwrap();
    assert_ne!(before.id, after.id);
    let (before, after) = (before.outside.unwrap(), after.outside.unwrap());
    assert_eq!(before.uid_map, after.uid_map, "the files' owners are the room's");
    assert_eq!(after.limits.memory, Some(256 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_image_is_taken_at_the_next_start() {
    let image = format!("localhost/{}:latest", random(6));
    let house = House::with(|options| options.image.clone_from(&image));
    podman(&["tag", IMAGE, &image]);
    let fleet = house.open().await;
    let room = house.room("image");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sh(&sandbox, "echo kept > file").await;
    let before = fleet.observe(&room).await.unwrap();
    assert!(before.image_is_current);

    let recipe = house.directory.path().join("Containerfile");
    std::fs::write(&recipe, format!("FROM {IMAGE}\nLABEL made=anew\n")).unwrap();
    podman(&["build", "--tag", &image, "--file", recipe.to_str().unwrap(), house.directory.path().to_str().unwrap()]);
    fleet.reconcile().await.unwrap();
    assert!(sandbox.is_connected(), "what runs is left alone");
    assert!(!fleet.observe(&room).await.unwrap().image_is_current);

    podman(&["stop", "--time", "2", &before.container]);
    until(&fleet, &room, SandboxState::Stopped).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file; echo mine >> file").await, "kept");
    let after = fleet.observe(&room).await.unwrap();
    assert!(after.image_is_current && after.image != before.image && after.id != before.id);
    fleet.remove(&room, true).await.unwrap();
    podman(&["rmi", "--force", &image]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_used_makes_room_but_never_one_at_work() {
    let house = House::with(|options| options.max_running = 2);
    let fleet = house.open().await;
    let (first, second, third) = (house.room("first"), house.room("second"), house.room("third"));
    let busy = fleet.ensure(&first).await.unwrap();
    let work = busy.spawn(Command { background: true, ..shell("sleep 600") }).await.unwrap();
    fleet.ensure(&second).await.unwrap();

    let sandbox = fleet.ensure(&third).await.unwrap();
    assert_eq!(sh(&sandbox, "echo up").await, "up");
    until(&fleet, &second, SandboxState::Stopped).await;
    assert!(busy.is_connected(), "it was used least recently, but works");

    busy.kill(work.id()).await.unwrap();
    fleet.ensure(&second).await.unwrap();
    until(&fleet, &first, SandboxState::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_over_what_runs() {
    let house = House::new();
    let room = house.room("heir");
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    let (short, long) = (shell("sleep 0.5; echo meanwhile"), shell("sleep 600"));
    let (short_id, long_id) = (short.id.clone(), long.id.clone());
    drop((sandbox.spawn(short).await.unwrap(), sandbox.spawn(long).await.unwrap()));
    let boot = sandbox.boot_id().to_owned();
    fleet.shutdown().await;
    drop((sandbox, fleet)); // as a killed server's would, its connections close

    let fleet = house.open().await;
    until(&fleet, &room, SandboxState::Running).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sandbox.boot_id(), boot);
    let ended = match sandbox.lookup(&short_id).await.unwrap() {
        Lookup::Running(process) => timeout(LIMIT, process.wait()).await.unwrap().unwrap(),
        Lookup::Ended(ended) => ended,
        _ => panic!("it did run"),
    };
    assert_eq!(text(&ended), "meanwhile");
    assert!(matches!(sandbox.lookup(&long_id).await.unwrap(), Lookup::Running(_)));
    assert!(matches!(sandbox.lookup("never").await.unwrap(), Lookup::Unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_our_own_gone_rooms_are_removed() {
    let (house, other) = (House::new(), House::new());
    let (fleet, others) = (house.open().await, other.open().await);
    let (stays, goes, strange) = (house.room("stays"), house.room("goes"), other.room("strange"));
    let (a, b, c) = tokio::join!(fleet.ensure(&stays), fleet.ensure(&goes), others.ensure(&strange));
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    fleet.reconcile().await.unwrap();
    assert_eq!(house.containers().len(), 2, "until it is known which rooms exist, none is gone");

    fleet.keep_only([stays.clone()]).await;
    let left: Vec<_> = fleet.list().await.unwrap().into_iter().map(|sandbox| sandbox.address).collect();
    assert_eq!(left, [stays]);
    assert_eq!((house.containers().len(), other.containers().len()), (1, 1));
    assert_eq!(house.volumes().len(), 2, "files stay for a day");

    // A day later.
    let yesterday = Clock::default().file_date() - Duration::from_hours(25);
    let marks = std::fs::read_dir(house.directory.path().join("rooms")).unwrap().flatten();
    let mark = marks.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|e| e == "gone")).unwrap();
    std::fs::File::options().write(true).open(mark).unwrap().set_modified(yesterday).unwrap();
    fleet.reconcile().await.unwrap();
    assert_eq!((house.volumes().len(), other.volumes().len()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_sandbox_is_gone_and_may_come_back() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("removed");
    let sandbox = fleet.ensure(&room).await.unwrap();
    sandbox.write_file("w", "/workspace/file", Bytes::from_static(b"x")).await.unwrap();
    fleet.remove(&room, false).await.unwrap();
    assert!(house.containers().is_empty());
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file").await, "x");
    fleet.remove(&room, true).await.unwrap();
    assert!(house.containers().is_empty() && house.volumes().is_empty());
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "ls").await, "");
}
