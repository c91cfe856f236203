//! What a sandbox may take of the host, and what becomes of one that takes more.

use std::{process::Command as Program, time::Duration};

use matrix_agent::{
    ids::{Address, random},
    sandbox::{Command, Exit, Sandbox, SandboxError, SandboxState, Stdin},
};
use tokio::time::{sleep, timeout};

use crate::house::{Disk, House, LIMIT, is_gvisor, podman, run, sh, shell};

#[tokio::test(flavor = "multi_thread")]
async fn below_the_hosts_reserve_what_works_is_paused_and_told() {
    let disk = Disk::new();
    let house = disk.house(|options| options.host_disk_reserve = 100 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let (writer, quiet) = (house.room("writer"), house.room("quiet"));
    let sandbox = fleet.ensure(&writer).await.unwrap();
    fleet.ensure(&quiet).await.unwrap();
    // The image is empty: what runs is sandboxd's own applet, waiting for what to write.
    let write = ["/run/sandboxd", "fs", "write", "file", "4"].map(str::to_owned).into();
    let mut work = sandbox.spawn(Command { argv: write, stdin: Stdin::Stream, ..shell("") }).await.unwrap();
    std::fs::write(disk.path("ballast"), vec![1; 280 << 20]).unwrap();

    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == writer && notice.text.contains("disk is nearly full"), "{notice:?}");
    let state = |room: &Address, list: &[matrix_agent::sandbox::SandboxSummary]| {
        list.iter().find(|sandbox| sandbox.address == *room).map(|sandbox| sandbox.state)
    };
    let list = fleet.list().await.unwrap();
    assert_eq!(state(&writer, &list), Some(SandboxState::Paused));
    assert_eq!(state(&quiet, &list), Some(SandboxState::Running), "who does not work cannot write");
    assert!(matches!(fleet.ensure(&quiet).await, Err(SandboxError::HostDiskLow)));

    std::fs::remove_file(disk.path("ballast")).unwrap();
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.text.contains("runs on"), "{notice:?}");
    work.write(b"done").await.unwrap();
    work.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, work.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
    fleet.remove(&writer, true).await.unwrap();
    fleet.remove(&quiet, true).await.unwrap();
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn below_the_hosts_reserve_who_grew_is_ended_and_the_others_work_on() {
    let disk = Disk::new();
    let house = disk.house(|options| options.host_disk_reserve = 100 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let (hog, other) = (house.room("hog"), house.room("other"));
    let (greedy, quiet) = (fleet.ensure(&hog).await.unwrap(), fleet.ensure(&other).await.unwrap());
    // The image is empty: what runs is sandboxd's own applet, which writes what it gets.
    let write = |size: &str| Command {
        argv: ["/run/sandboxd", "fs", "write", "file", size].map(str::to_owned).into(),
        stdin: Stdin::Stream,
        ..shell("")
    };
    // The other one has written too, but not most.
    let mut before = quiet.spawn(write("20000000")).await.unwrap();
    before.write(&vec![1; 20_000_000]).await.unwrap();
    before.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, before.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
    let mut work = quiet.spawn(write("4")).await.unwrap();
    let mut hostile = greedy.spawn(write("400000000")).await.unwrap();
    let piece = vec![1; 1 << 20];
    let fill = async {
        while hostile.write(&piece).await.is_ok() {
            sleep(Duration::from_millis(20)).await; // slower than the watch looks
        }
    };
    let notice = async {
        loop {
            let notice = notices.recv().await.unwrap();
            assert_eq!(notice.address, hog, "{notice:?}");
            if notice.text.contains("this sandbox wrote most") {
                return;
            }
        }
    };
    timeout(LIMIT, async { tokio::join!(fill, notice) }).await.expect("it is ended and told");
    assert_eq!(timeout(LIMIT, hostile.wait()).await.unwrap().unwrap().exit, Exit::DiskFull);

    // What it wrote is still there, so the disk is still short; the other one is not held up by that.
    let list = fleet.list().await.unwrap();
    assert!(list.iter().all(|sandbox| sandbox.state == SandboxState::Running), "{list:?}");
    for letter in [b"d", b"o", b"n", b"e"] {
        sleep(Duration::from_secs(1)).await; // the watch looks again
        work.write(letter).await.unwrap();
    }
    work.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, work.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
    let mut more = fleet.ensure(&other).await.unwrap().spawn(write("4")).await.unwrap();
    more.write(b"more").await.unwrap();
    more.close_stdin().await.unwrap();
    assert_eq!(timeout(LIMIT, more.wait()).await.unwrap().unwrap().exit, Exit::Code(0));
    fleet.remove(&hog, true).await.unwrap();
    fleet.remove(&other, true).await.unwrap();
    fleet.shutdown().await;
}

/// Where the host's disk is full, an image cannot take what was written to it: the kernel closes it for writing.
#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_that_a_full_host_has_failed_is_written_to_again_once_there_is_room() {
    let disk = Disk::new();
    let house = disk.house(|options| options.host_disk_reserve = 16 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let room = house.room("victim");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let write = async |sandbox: &Sandbox, path: &str, size: usize| {
        sandbox.write_file(&random(8), path, vec![b'x'; size].into()).await
    };
    let volume = disk.podman(&["volume", "ls", "--quiet", "--filter", "label=matrix-agent.instance"]);
    let at = disk.podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", volume.trim()]);
    let sync = || Program::new("sync").args(["--file-system", at.trim()]).output().unwrap();
    write(&sandbox, "/workspace/kept", 4).await.unwrap();
    assert!(sync().status.success());
    let mut ballast = std::fs::File::create(disk.path("ballast")).unwrap();
    while std::io::Write::write_all(&mut ballast, &[1; 1 << 12]).is_ok() {}
    let closed = || {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mut here = mounts.lines().filter(|line| line.contains(&format!(" {} ", at.trim())));
        here.any(|line| line.rsplit(' ').next().unwrap().split(',').any(|option| option.ends_with("ro")))
    };
    timeout(LIMIT, async {
        while !closed() {
            let _ = write(&sandbox, "/workspace/late", 1 << 20).await; // that it fails is the point
            sync();
        }
    })
    .await
    .expect("the kernel closes it");

    drop(ballast);
    std::fs::remove_file(disk.path("ballast")).unwrap();
    let told = async { while !notices.recv().await.unwrap().text.contains("starts anew") {} };
    timeout(LIMIT, told).await.expect("the room is told");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sandbox.read_file("/workspace/kept", 0, 10).await.unwrap().bytes[..], *b"xxxx");
    write(&sandbox, "/workspace/after", 1 << 20).await.unwrap();
    fleet.remove(&room, true).await.unwrap();
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_memory_hog_and_a_fork_bomb_end_at_their_limits() {
    let house = House::with(|options| (options.memory, options.pids) = (128 << 20, 64));
    let fleet = house.open().await;
    let room = house.room("hog");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let hog = sandbox.spawn(shell("head -c 1G /dev/zero | tail")).await.unwrap();
    match timeout(LIMIT, hog.wait()).await.unwrap() {
        Ok(ended) => assert!(ended.exit != Exit::Code(0), "{ended:?}"),
        // All of gVisor has ended, and is started anew.
        Err(error) => assert!(is_gvisor() && matches!(error, SandboxError::Disconnected), "{error}"),
    }
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert!(!std::path::Path::new("oom").exists(), "conmon has left a file in the server's folder");
    assert_eq!(sh(&sandbox, "echo usable").await, "usable");

    let bomb = Command { timeout: Some(Duration::from_secs(3)), ..shell("bomb() { bomb | bomb & }; bomb; sleep 600") };
    let bomb = run(&sandbox, bomb).await;
    assert!(matches!(bomb.exit, Exit::TimedOut | Exit::Code(_)), "{bomb:?}");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "echo usable").await, "usable");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_the_disk_is_ended_and_told() {
    let house = House::with(|options| options.disk = 64 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let room = house.room("filler");
    let sandbox = fleet.ensure(&room).await.unwrap();
    // In steps, so that a slow watch still finds it writing; far above the limit in the end. Not in the workspace, where
    // writing fails by itself.
    let fill = "i=0; while [ $i -lt 400 ]; do head -c 8M /dev/zero >> /var/tmp/big; i=$((i+1)); sleep 0.05; done";
    let filler = run(&sandbox, shell(fill)).await;
    assert_eq!(filler.exit, Exit::DiskFull, "{filler:?}");
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == room && notice.text.contains("disk is full"), "{notice:?}");
    assert_eq!(sh(&sandbox, "rm /var/tmp/big; echo usable").await, "usable");

    // A file without a name counts too.
    let hidden = "exec 3> /var/tmp/hidden; rm /var/tmp/hidden; while :; do head -c 8M /dev/zero >&3; sleep 0.05; done";
    assert_eq!(run(&sandbox, shell(hidden)).await.exit, Exit::DiskFull);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_cannot_be_counted_counts_as_full() {
    let house = House::with(|options| options.disk = 64 << 20);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let room = house.room("uncounted");
    let sandbox = fleet.ensure(&room).await.unwrap();
    // Podman knows no container of that name any more, so it does not say where its files are.
    let name = house.containers().into_iter().next().unwrap();
    podman(&["rename", &name, &format!("{name}-renamed")]);
    // It is counted again once the whole disk's use has grown; other tests free space meanwhile, so it writes much.
    let fill = "for i in $(seq 40); do head -c 8M /dev/zero >> /var/tmp/half; sleep 0.05; done; sleep 600";
    assert_eq!(run(&sandbox, shell(fill)).await.exit, Exit::DiskFull);
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == room && notice.text.contains("so it counts as full"), "{notice:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_starts_nothing() {
    let house = House::with(|options| options.host_disk_reserve = u64::MAX / 4);
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    // The watch may have looked before the first one started, else it pauses what works there.
    if let Ok(sandbox) = fleet.ensure(&house.room("first")).await {
        let _work = sandbox.spawn(Command { background: true, ..shell("sleep 600") }).await;
        let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
        assert!(notice.text.contains("disk is nearly full"), "{notice:?}");
    }
    for room in ["first", "next"] {
        assert!(matches!(fleet.ensure(&house.room(room)).await, Err(SandboxError::HostDiskLow)), "{room}");
    }
}
