//! What `uninstall.sh` takes away and what it leaves, as root of a machine that is this one with all changes thrown away. Only
//! root can lay such a machine over this one, so as anybody else nothing is tried here.

use std::fs;

use super::{Place, Ran, SETTINGS, STATE, ran};

/// Runs shell words as root over this machine's files, in a mount namespace that ends with them: what they write goes to memory
/// alone, but for the place's own folder. No systemd and no Podman is reached.
fn as_root(place: &Place, words: &str) -> Ran {
    place.programs("systemctl", "case $* in *is-active*) exit 3;; esac");
    let podman = place.path("programs/podman");
    fs::copy("/bin/false", podman).unwrap();
    let (folder, layers) = (place.folder.path().display(), place.path("layers"));
    fs::create_dir_all(&layers).unwrap();
    let layers = layers.display();
    let text = format!(
        "set -e; mount -t tmpfs none {layers}; mkdir {layers}/up {layers}/work {layers}/all\n\
        mount -t overlay none -o lowerdir=/,upperdir={layers}/up,workdir={layers}/work {layers}/all\n\
        cd {layers}/all; mount --rbind /dev dev; mount --rbind /proc proc; mkdir -p ./{folder}; mount --bind {folder} ./{folder}\n\
        rm -rf etc/matrix-agent etc/systemd/system/matrix-agent* usr/lib/systemd/system/matrix-agent* usr/local/lib/matrix-agent \
            var/lib/matrix-agent run/matrix-agent*\n\
        exec chroot . bash -euc \"$1\""
    );
    let mut command = place.command(std::path::Path::new("unshare"), place.path("programs").to_str().unwrap());
    command.env("STATE_DIR", place.path(STATE));
    ran(command.args(["-m", "sh", "-c", &text, "sh", words]).output().unwrap())
}

#[test]
fn the_settings_of_a_packages_service_stay_as_they_are() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    fs::write(
        place.path("settings"),
        format!(
            "{SETTINGS}PODMAN_SOCKET = /run/matrix-agent-podman/podman.sock\nIPC_BASE_DIR = /run/matrix-agent/ipc\n"
        ),
    )
    .unwrap();
    let folder = place.folder.path().display();
    for (packaged, runtime, kept, left) in [
        (true, "crun", true, "podman.env socket stamp "),
        (true, "/usr/local/lib/matrix-agent/scripts/gvisor/runsc", true, "socket stamp "),
        (false, "crun", false, ""),
    ] {
        let words = format!(
            "mkdir -p /etc/matrix-agent /run/matrix-agent-podman /usr/lib/systemd/system /etc/systemd/system /var/lib/systemd/timers\n\
            touch /var/lib/systemd/timers/stamp-matrix-agent-backup.timer\n\
            cp {folder}/settings /etc/matrix-agent/.env; echo RUNTIME={runtime} >/etc/matrix-agent/podman.env\n\
            cp {folder}/clone/systemd/matrix-agent.service /etc/systemd/system\n\
            ! {packaged} || cp /etc/systemd/system/matrix-agent.service /usr/lib/systemd/system\n\
            {folder}/clone/scripts/uninstall.sh >&2\n\
            [ ! -e /etc/systemd/system/matrix-agent.service ] || echo unit\n\
            [ ! -e /etc/matrix-agent/podman.env ] || echo podman.env\n\
            [ ! -e /run/matrix-agent-podman ] || echo socket\n\
            [ ! -e /var/lib/systemd/timers/stamp-matrix-agent-backup.timer ] || echo stamp\n\
            cp /etc/matrix-agent/.env {folder}/after"
        );
        let gone = as_root(&place, &words);
        assert_eq!((gone.code, gone.out.replace('\n', " ")), (0, left.to_owned()), "{packaged}, {runtime}: {gone:?}");
        assert_eq!(gone.err.contains("the package's service is here still"), packaged, "{gone:?}");
        let same =
            fs::read_to_string(place.path("settings")).unwrap() == fs::read_to_string(place.path("after")).unwrap();
        assert_eq!(same, kept, "{packaged}, {runtime}: {gone:?}");
    }
}

#[test]
fn a_server_that_is_not_stopped_here_keeps_everything() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    drop(place.served());
    let lock = fs::File::create(place.path(STATE).join("lock")).unwrap();
    lock.lock().unwrap();
    let folder = place.folder.path().display();
    let words = format!(
        "mkdir -p /etc/matrix-agent /usr/lib/systemd/system /usr/local/bin /etc/systemd/system\n\
        echo x >/etc/matrix-agent/.env; echo x >/usr/local/bin/matrix-agent; touch /usr/lib/systemd/system/matrix-agent.service\n\
        touch /etc/systemd/system/matrix-agent-backup.timer\n\
        ! {folder}/clone/scripts/uninstall.sh --purge --yes || echo gone\n\
        cat /etc/matrix-agent/.env /usr/local/bin/matrix-agent; ls /etc/systemd/system/matrix-agent-backup.timer"
    );
    let before = place.state();
    let refused = as_root(&place, &words);
    assert_eq!(
        (refused.code, refused.out.as_str()),
        (0, "x\nx\n/etc/systemd/system/matrix-agent-backup.timer\n"),
        "{refused:?}"
    );
    assert!(
        refused.err.contains("a server runs on") && refused.err.contains("systemctl stop matrix-agent"),
        "{refused:?}"
    );
    assert_eq!(place.state(), before);
}
