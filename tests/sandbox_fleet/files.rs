//! Rooms' files: where they lie on the host, what they survive, what bounds them, and what is said when they are gone.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    process::Command as Program,
};

use bytes::Bytes;
use matrix_agent::{
    ids::{Address, random},
    sandbox::{Exit, Sandbox, SandboxError, SandboxState, Sandboxes},
};
use tokio::time::timeout;

use crate::house::{Disk, House, LIMIT, is_gvisor, lines, must, podman, root, run, sh, shell, text, until};

/// The first id of a room's files, as an older server has chosen it.
const FIRST: u32 = 2_147_483_647 + 65_536 * 9_000;

fn images(house: &House) -> Vec<PathBuf> {
    let found = fs::read_dir(house.options.state_dir.join("workspaces")).unwrap().flatten().map(|entry| entry.path());
    found.filter(|path| path.extension().is_some_and(|extension| extension == "ext4")).collect()
}

/// The loop devices that have `image`.
fn loops(image: &Path) -> String {
    let found = Program::new("losetup").arg("--associated").arg(image).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

async fn stop(house: &House, fleet: &Sandboxes, room: &Address) {
    let name = fleet.list().await.unwrap().into_iter().find(|sandbox| sandbox.address == *room).unwrap().name;
    must(Program::new(&house.options.podman_path).args(["stop", "--time", "2", &name]));
    until(fleet, room, SandboxState::Stopped).await;
}

async fn write(sandbox: &Sandbox, path: &str, text: &'static str) {
    sandbox.write_file(&random(8), path, Bytes::from_static(text.as_bytes())).await.unwrap();
}

async fn read(sandbox: &Sandbox, path: &str) -> String {
    let slice = sandbox.read_file(path, 0, 1 << 20).await.unwrap();
    String::from_utf8(slice.bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_stopped_rooms_survive_podmans_prune() {
    let disk = Disk::new();
    let house = disk.house(|_| {});
    let fleet = house.open().await;
    let (one, two) = (house.room("one"), house.room("two"));
    for (room, text) in [(&one, "first"), (&two, "second")] {
        let sandbox = fleet.ensure(room).await.unwrap();
        write(&sandbox, "/workspace/file", text).await;
        write(&sandbox, "/home/agent/file", text).await;
    }
    let images = images(&house);
    assert_eq!(images.len(), 2);
    assert!(images.iter().all(|image| loops(image).contains("/dev/loop")), "each is mounted while its room runs");
    stop(&house, &fleet, &one).await;
    stop(&house, &fleet, &two).await;
    let released = async {
        while images.iter().any(|image| !loops(image).is_empty()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, released).await.expect("no device is held by a room that does not run");

    disk.podman(&["system", "prune", "--all", "--volumes", "--force"]);
    assert_eq!(disk.podman(&["ps", "--all", "--quiet"]), "");
    assert_eq!(disk.podman(&["volume", "ls", "--quiet"]), "");
    disk.import();
    // While the server runs, and after its next start.
    let sandbox = fleet.ensure(&one).await.unwrap();
    assert_eq!(read(&sandbox, "/workspace/file").await, "first");
    write(&sandbox, "/workspace/file", "more").await;
    assert_eq!(read(&sandbox, "/workspace/file").await, "more");
    fleet.shutdown().await;
    drop((sandbox, fleet));

    let fleet = house.open().await;
    let sandbox = fleet.ensure(&two).await.unwrap();
    assert_eq!(read(&sandbox, "/workspace/file").await, "second");
    assert_eq!(read(&sandbox, "/home/agent/file").await, "second");
    write(&sandbox, "/home/agent/file", "more").await;
    assert_eq!(read(&sandbox, "/home/agent/file").await, "more");
    fleet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_full_at_its_share_of_bytes_and_of_inodes() {
    let house = House::with(|options| options.disk = 64 << 20);
    let fleet = house.open().await;
    let room = house.room("full");
    let sandbox = fleet.ensure(&room).await.unwrap();
    let image = images(&house).remove(0);
    let mapped = "exec 3> big; rm big; head -c 200M /dev/zero >&3";
    for (fill, free) in [
        ("head -c 200M /dev/zero > big", "rm big"),
        ("head -c 200M /dev/zero > ~/big", "rm ~/big"),
        (mapped, "true"),
        ("mkdir many; cd many; for i in $(seq 20000); do : > $i || exit; done", "rm -r many"),
    ] {
        let filler = run(&sandbox, shell(fill)).await;
        assert!(matches!(filler.exit, Exit::Code(1 | 2)), "{fill}: {filler:?}");
        assert!(text(&filler).contains("No space left on device"), "{fill}: {}", text(&filler));
        assert!(fs::metadata(&image).unwrap().blocks() * 512 <= 64 << 20);
        assert_eq!(
            sh(&sandbox, &format!("{free}; head -c 8M /dev/zero > small && rm small; sync; echo on")).await,
            "on"
        );
    }
    let given_back = async {
        while fs::metadata(&image).unwrap().blocks() * 512 > 16 << 20 {
            sh(&sandbox, "sync").await;
        }
    };
    timeout(LIMIT, given_back).await.expect("what was deleted goes back to the host");
    fleet.remove(&room, true).await.unwrap();
    assert!(images(&house).is_empty() && loops(&image).is_empty());
}

/// A room as a server had it whose files were in a volume of Podman's.
fn old_room(house: &House, room: &Address) -> (String, PathBuf) {
    let name = format!("sandbox-older-{}", house.options.instance);
    podman(&[
        "volume",
        "create",
        "--label",
        &format!("matrix-agent.instance={}", house.options.instance),
        "--label",
        &format!("matrix-agent.room={room}"),
        "--label",
        &format!("matrix-agent.ids={FIRST}"),
        &name,
    ]);
    let at = PathBuf::from(podman(&["volume", "inspect", "--format", "{{.Mountpoint}}", &name]).trim());
    let agent = |path: &Path| chown(path, Some(FIRST + 1000), Some(FIRST + 1000)).unwrap();
    for part in ["workspace", "home", "workspace/private"] {
        fs::create_dir(at.join(part)).unwrap();
        agent(&at.join(part));
    }
    let file = at.join("workspace/file");
    fs::write(&file, "mine").unwrap();
    agent(&file);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(&file, at.join("home/same")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", at.join("workspace/link")).unwrap();
    fs::write(at.join("workspace/roots"), "root's").unwrap();
    chown(at.join("workspace/roots"), Some(FIRST), Some(FIRST)).unwrap();
    fs::set_permissions(at.join("workspace/private"), fs::Permissions::from_mode(0o700)).unwrap();
    let set = "import os, sys; os.setxattr(sys.argv[1], 'user.kept', b'value')";
    must(Program::new("python3").args(["-c", set]).arg(&file));
    (name, at)
}

const LOOK: &str = "cat file ~/same; stat -c '%a %u %g %h' file; readlink link; stat -c '%u' roots; stat -c '%a' private; \
    [ file -ef ~/same ] && echo one; echo more >> file && rm -r private && echo ours";

/// What `LOOK` sees. gVisor gives each name of a file a number of its own.
fn seen() -> String {
    let one = if is_gvisor() { "" } else { "one\n" };
    format!("minemine4750 1000 1000 2\n/etc/passwd\n0\n700\n{one}ours")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_an_older_server_are_moved_at_the_first_start() {
    let house = House::new();
    let (room, idle) = (house.room("old"), house.room("idle"));
    let (name, _) = old_room(&house, &room);
    let fleet = house.open().await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, LOOK).await, seen());
    let outside = fleet.observe(&room).await.unwrap().outside.unwrap();
    assert_eq!(outside.uid, FIRST, "the files' owners are the room's");
    let image = images(&house).remove(0);
    let attribute = Program::new("debugfs").args(["-R", "ea_list /workspace/file"]).arg(&image).output().unwrap();
    assert!(String::from_utf8_lossy(&attribute.stdout).contains("user.kept"), "{attribute:?}");
    assert!(!house.volumes().contains(&name), "the volume that held them is gone");
    fleet.shutdown().await;

    // A room that nobody uses is moved as well.
    let (name, at) = old_room(&house, &idle);
    let fleet = house.open().await;
    let moved = async {
        while at.exists() || house.volumes().contains(&name) {
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, moved).await.unwrap();
    assert_eq!(images(&house).len(), 2);
    assert_eq!(sh(&fleet.ensure(&idle).await.unwrap(), LOOK).await, seen());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_was_interrupted_begins_anew_or_is_ended() {
    let house = House::new();
    let room = house.room("interrupted");
    // Killed while it copied.
    let (_, at) = old_room(&house, &room);
    let fleet = house.open().await;
    timeout(LIMIT, async {
        while at.exists() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    fleet.shutdown().await;
    let (image, workspaces) = (images(&house).remove(0), house.options.state_dir.join("workspaces"));
    let record = image.with_extension("json");
    let part = workspaces.join(format!("{}.part", image.file_stem().unwrap().to_str().unwrap()));
    fs::rename(&image, &part).unwrap();
    fs::File::options().write(true).open(&part).unwrap().set_len(1 << 20).unwrap();
    fs::remove_file(&record).unwrap();
    old_room(&house, &room);
    let fleet = house.open().await;
    assert_eq!(sh(&fleet.ensure(&room).await.unwrap(), LOOK).await, seen());
    stop(&house, &fleet, &room).await;
    fleet.shutdown().await;

    // Killed before the volume was removed: what is in the image is newer.
    for name in house.containers() {
        podman(&["rm", &name]);
    }
    for name in house.volumes() {
        podman(&["volume", "rm", &name]);
    }
    let (name, _) = old_room(&house, &room);
    fs::remove_file(&record).unwrap();
    let fleet = house.open().await;
    assert_eq!(sh(&fleet.ensure(&room).await.unwrap(), "tail -c 5 file; ls").await, "more\nfile\nlink\nroots");
    assert!(!house.volumes().contains(&name));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_are_told_to_the_room_and_kept_for_the_model() {
    let house = House::new();
    let fleet = house.open().await;
    let mut notices = fleet.notices();
    let room = house.room("gone");
    sh(&fleet.ensure(&room).await.unwrap(), "echo x > file").await;
    stop(&house, &fleet, &room).await;
    fs::remove_file(images(&house).remove(0)).unwrap();

    let sandbox = fleet.ensure(&room).await.unwrap();
    let notice = timeout(LIMIT, notices.recv()).await.unwrap().unwrap();
    assert!(notice.address == room && notice.text.contains("the files of this room are gone"), "{notice:?}");
    assert_eq!(sh(&sandbox, "ls; echo new > file; cat file").await, "new");
    stop(&house, &fleet, &room).await;
    fleet.shutdown().await;
    // A server that ended before the model asked for anything leaves it to the next one.
    let fleet = house.open().await;
    assert!(matches!(fleet.take_loss(&room).await, Some(SandboxError::FilesLost)));
    assert!(fleet.take_loss(&room).await.is_none(), "it is said once");
    fleet.shutdown().await;
    let fleet = house.open().await;
    assert!(fleet.take_loss(&room).await.is_none(), "for good");
    assert_eq!(sh(&fleet.ensure(&room).await.unwrap(), "cat file").await, "new");
    assert!(notices.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_is_said_plainly_and_goes_with_its_room() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("damaged");
    sh(&fleet.ensure(&room).await.unwrap(), "echo x > file").await;
    stop(&house, &fleet, &room).await;
    let image = images(&house).remove(0);
    let whole = fs::metadata(&image).unwrap().len();
    let file = fs::File::options().write(true).open(&image).unwrap();
    for (length, why) in [(whole / 2, "cut off"), (100, "too short for a file system"), (0, "too short")] {
        file.set_len(length).unwrap();
        let error = fleet.ensure(&room).await.expect_err("it is said").to_string();
        assert!(
            error.contains(why) && error.contains("e2fsck -f") && error.contains(image.to_str().unwrap()),
            "{error}"
        );
    }
    file.set_len(whole).unwrap();
    let error = fleet.ensure(&room).await.expect_err("it is said").to_string();
    assert!(error.contains("no ext4 file system"), "{error}");
    fleet.remove(&room, true).await.unwrap();
    assert_eq!(sh(&fleet.ensure(&room).await.unwrap(), "ls").await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_larger_share_enlarges_the_workspace_and_a_smaller_one_leaves_it() {
    let mut house = House::with(|options| options.disk = 64 << 20);
    let room = house.room("larger");
    for (share, fits) in [(64_u64 << 20, false), (256 << 20, true), (64 << 20, true)] {
        house.options.disk = share;
        let fleet = house.open().await;
        let sandbox = fleet.ensure(&room).await.unwrap();
        sh(&sandbox, "[ -e file ] || echo kept > file; cat file").await;
        let filled = run(&sandbox, shell("head -c 150M /dev/zero > big")).await;
        assert_eq!(filled.exit == Exit::Code(0), fits, "{share}: {}", text(&filled));
        assert_eq!(sh(&sandbox, "rm big; cat file").await, "kept");
        stop(&house, &fleet, &room).await;
        fleet.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_image_can_be_mounted_rooms_have_directories() {
    let mut house = House::new();
    let bin = house.directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("mount"), "#!/bin/sh\necho 'failed to setup loop device' >&2; exit 32\n").unwrap();
    let wrapper = bin.join("podman");
    fs::write(&wrapper, format!("#!/bin/sh\nexport PATH={}:$PATH\nexec /usr/bin/podman \"$@\"\n", bin.display()))
        .unwrap();
    for program in ["mount", "podman"] {
        fs::set_permissions(bin.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    house.options.podman_path = wrapper;
    house.options.podman_socket = Some(house.directory.path().join("nobody.sock"));
    let fleet = house.open().await;
    let room = house.room("directory");
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(
        sh(&sandbox, "echo kept > file; echo kept > ~/file; id -un; stat -c %U . ~").await,
        "agent\nagent\nagent"
    );
    assert!(images(&house).is_empty() && house.volumes().is_empty());
    stop(&house, &fleet, &room).await;
    let sandbox = fleet.ensure(&room).await.unwrap();
    assert_eq!(sh(&sandbox, "cat file ~/file").await, "kept\nkept");
    assert_eq!(run(&sandbox, root("mkdir /workspace/x; ls -A /run/volume")).await.exit, Exit::Code(2));
    let second = fleet.ensure(&house.room("second")).await.unwrap();
    assert_eq!(sh(&second, "ls").await, "");
    fleet.remove(&room, true).await.unwrap();
    let left = fs::read_dir(house.options.state_dir.join("workspaces")).unwrap().count();
    assert_eq!(left, 2, "the other room's directory and its record");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_without_a_container_is_found_for_its_removal() {
    let house = House::new();
    let fleet = house.open().await;
    let room = house.room("bare");
    fleet.ensure(&room).await.unwrap();
    let name = house.containers().into_iter().next().unwrap();
    assert_eq!(fleet.without_container(&name).await.unwrap(), [], "it has one");
    fleet.remove(&room, false).await.unwrap();
    assert_eq!(lines(&podman(&["volume", "ls", "--filter", &house.label(), "--format", "{{.Name}}"])).len(), 1);
    assert_eq!(fleet.without_container(&name).await.unwrap(), std::slice::from_ref(&room));
    assert_eq!(fleet.without_container(&room.to_string()).await.unwrap(), std::slice::from_ref(&room));
    assert_eq!(fleet.without_container("another").await.unwrap(), []);
    fleet.remove(&room, true).await.unwrap();
    assert!(house.volumes().is_empty() && images(&house).is_empty());
    assert_eq!(fleet.without_container(&name).await.unwrap(), []);
}
