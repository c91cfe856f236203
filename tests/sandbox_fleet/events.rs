//! What programs in a sandbox drop into `/workspace/.ipc` arrives, and what may lie there is bounded.

use std::{fs, path::PathBuf, time::Duration};

use matrix_agent::{
    ids::{Address, digest},
    ipc::Arrived,
    sandbox::{Exit, Sandbox, SandboxState, Sandboxes},
};
use tokio::{
    sync::mpsc::Receiver,
    time::{sleep, timeout},
};

use crate::house::{House, LIMIT, podman, root, run, sh, shell, text, until};

/// Writes an event as a hook does.
async fn tell(sandbox: &Sandbox, line: &str) {
    let event = format!(r#"{{"version":1,"kind":"progress","text":"{line}"}}"#);
    sh(
        sandbox,
        &format!("umask 077; cd /workspace/.ipc && printf '%s' '{event}' > .1 && mv .1 1-1-send-progress.json"),
    )
    .await;
}

async fn next(events: &mut Receiver<Arrived>) -> (Address, String) {
    let arrived = timeout(LIMIT, events.recv()).await.expect("an event in time").unwrap();
    (arrived.address, arrived.event.line)
}

async fn name(fleet: &Sandboxes, room: &Address) -> String {
    fleet.list().await.unwrap().into_iter().find(|sandbox| sandbox.address == *room).unwrap().name
}

fn place(house: &House, name: &str) -> PathBuf {
    house.options.ipc_dir.join(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_tells_arrives_across_stops_and_servers_and_goes_with_it() {
    let house = House::new();
    let fleet = house.open().await;
    let mut events = fleet.take_events().unwrap();
    assert!(fleet.take_events().is_none(), "once");
    let (one, two) = (house.room("one"), house.room("two"));
    let sandbox = fleet.ensure(&one).await.unwrap();
    let neighbour = fleet.ensure(&two).await.unwrap();
    tell(&sandbox, "from one").await;
    assert_eq!(next(&mut events).await, (one.clone(), "from one".to_owned()));
    tell(&neighbour, "from two").await;
    assert_eq!(next(&mut events).await, (two.clone(), "from two".to_owned()));

    let name = name(&fleet, &one).await;
    sh(&sandbox, "echo x > /workspace/.ipc/note").await;
    assert_eq!(fs::read_to_string(place(&house, &name).join("note")).unwrap(), "x\n", "found by the container's name");
    podman(&["stop", "--time", "2", &name]);
    until(&fleet, &one, SandboxState::Stopped).await;
    let sandbox = fleet.ensure(&one).await.unwrap();
    assert_eq!(sh(&sandbox, "ls -A /workspace/.ipc").await, "", "a stop empties it");
    tell(&sandbox, "after a stop").await;
    assert_eq!(next(&mut events).await, (one.clone(), "after a stop".to_owned()));

    fleet.shutdown().await;
    podman(&["exec", &name, "sh", "-c", r#"echo '{"tool_name":"ls"}' > /workspace/.ipc/event-progress.json"#]);
    let fleet = house.open().await;
    let mut events = fleet.take_events().unwrap();
    assert_eq!(next(&mut events).await, (one.clone(), "gemini ✓ ls".to_owned()));

    assert_eq!(house.event_volumes().len(), 2);
    for room in [&one, &two] {
        fleet.remove(room, true).await.unwrap();
    }
    assert!(house.event_volumes().is_empty());
    assert_eq!(fs::read_dir(&house.options.ipc_dir).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_kernel_bounds_what_may_be_told() {
    let house = House::new();
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&house.room("full")).await.unwrap();
    let full = run(&sandbox, shell("head -c 20000000 /dev/zero > /workspace/.ipc/large")).await;
    assert!(full.exit != Exit::Code(0) && text(&full).contains("No space left"), "{}", text(&full));
    let size: u64 = sh(&sandbox, "stat -c %s /workspace/.ipc/large").await.parse().unwrap();
    assert!((7 << 20..=8 << 20).contains(&size), "{size}");
    let many = "cd /workspace/.ipc; rm large; n=0; while true > f$n; do n=$((n+1)); done 2>/dev/null; ls | wc -l";
    let made: u64 = sh(&sandbox, many).await.parse().unwrap();
    assert!((3000..4096).contains(&made), "{made}");
    // Its root cannot raise the bound, nor take it away.
    for script in
        ["mount -o remount,size=1g /workspace/.ipc", "umount /workspace/.ipc", "mv /workspace/.ipc /workspace/x"]
    {
        assert_ne!(run(&sandbox, root(script)).await.exit, Exit::Code(0), "{script}");
    }
    assert_eq!(sh(&sandbox, "echo x > /workspace/file; cat /workspace/file").await, "x", "its own files are not full");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_volume_can_be_mounted_a_directory_is_emptied_above_its_bound() {
    let house = House::new();
    let room = house.room("plain");
    // What Podman cannot mount stands under the name of the room's volume.
    let volume = format!("ipc-{}", digest(&[&house.options.instance, &room.account, room.room.as_str()], 8));
    let label = format!("matrix-agent.ipc={}", house.options.instance);
    podman(&["volume", "create", "--label", &label, "--opt", "type=none", "--opt", "device=/no/such/place", &volume]);
    let fleet = house.open().await;
    let mut events = fleet.take_events().unwrap();
    let sandbox = fleet.ensure(&room).await.unwrap();
    tell(&sandbox, "from a directory").await;
    assert_eq!(next(&mut events).await, (room.clone(), "from a directory".to_owned()));
    let place = place(&house, &name(&fleet, &room).await);
    assert!(fs::symlink_metadata(&place).unwrap().is_dir());
    sh(&sandbox, "cd /workspace/.ipc; mkdir -p a/b/c; chmod 700 a; head -c 9000000 /dev/zero > a/b/c/large").await;
    let emptied = async {
        while fs::read_dir(&place).unwrap().count() > 0 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(LIMIT, emptied).await.expect("it is emptied");
    tell(&sandbox, "and goes on").await;
    assert_eq!(next(&mut events).await, (room.clone(), "and goes on".to_owned()));
    fleet.remove(&room, true).await.unwrap();
    assert!(!place.exists());
}
