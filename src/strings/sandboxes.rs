//! What people read of their room's sandbox: what has happened to it, and why something about it failed. Clauses, which
//! stand in a sentence of those who say them.

use std::{io, path::Path, time::Duration};

/// Told while the disk stays too full for anything to be written.
pub(crate) const DISK_FAILED: &str = "the host's disk was full, so that nothing more could be written to the workspace: the sandbox \
    was stopped, and starts anew with the next command. What was written last may be missing";

/// Told when a frozen sandbox runs on.
pub(crate) const DISK_AGAIN: &str = "the host has disk again: the sandbox runs on";

/// Told to the room when its files are gone.
pub(crate) const FILES_LOST: &str =
    "the files of this room are gone: somebody deleted them on the host. Its sandbox begins with empty folders";

/// Told when a sandbox is above its share of the disk.
pub(crate) fn disk_full(what: &str) -> String {
    format!(
        "the sandbox's disk is full ({what}): what was running in it was ended; delete something, or have the operator \
         raise SANDBOX_DISK"
    )
}

/// How full it is: bytes.
pub(crate) fn bytes_of(taken: &str, share: &str) -> String {
    format!("{taken} of {share}")
}

/// How full it is: files.
pub(crate) fn files_of(taken: u64, share: u64) -> String {
    format!("{taken} of {share} files outside of its workspace")
}

/// How full it is: nobody can see by what.
pub(crate) fn hidden_bytes(hidden: &str) -> String {
    format!("{hidden} are in no file that can be seen")
}

/// How full it is: nobody can count.
pub(crate) fn counts_as_full(cause: &str) -> String {
    format!("{cause}, so it counts as full")
}

/// Told to the sandbox that filled the host's disk.
pub(crate) fn wrote_most(wrote: &str) -> String {
    format!(
        "the host's disk is nearly full, and this sandbox wrote most of late ({wrote}): what was running in it was ended. \
         Delete what is not needed; more has to wait until the operator has made room (HOST_DISK_RESERVE)"
    )
}

/// Told when a sandbox is frozen until the host has disk again.
pub(crate) fn frozen() -> String {
    format!("{HOST_DISK_LOW}; what runs in the sandbox is paused until then")
}

/// Told to who waits for a place; `full` says why.
pub(crate) fn waits_for_others(full: &str) -> String {
    format!("{full}. Work in this room goes on as soon as one of them is idle.")
}

/// Why no further sandbox may run: their number.
pub(crate) fn all_at_work(limit: usize) -> String {
    format!("all {limit} sandboxes that may run at once are at work")
}

/// Why no further sandbox may run: their memory.
pub(crate) fn memory_short(used: &str, bound: &str) -> String {
    format!("memory is short: the sandboxes together use {used} of the {bound} that they may, and are at work")
}

/// The room's socket could not be made.
pub(crate) fn socket(path: &Path, cause: &io::Error) -> String {
    let path = path.display();
    format!("the room's socket {path} cannot be made ({cause}): check that STATE_DIR is writable and its path short")
}

/// What the binary holds for containers could not be written out.
pub(crate) fn install(path: &Path, cause: &io::Error) -> String {
    format!("{} cannot be written ({cause}): check STATE_DIR and its free space", path.display())
}

/// No answer in time; `note` tells what was seen meanwhile.
pub(crate) fn timed_out(limit: Duration, note: Option<&str>) -> String {
    let note = note.map(|note| format!(": {note}")).unwrap_or_default();
    format!("the sandbox did not answer within {} s{note}", limit.as_secs_f32())
}

/// The connection broke.
pub(crate) const DISCONNECTED: &str = "the connection to the sandbox was lost; it is being made anew";

/// sandboxd declined a request.
pub(crate) fn declined(why: &str) -> String {
    format!("the sandbox declined: {why}")
}

/// A command does not fit into a frame.
pub(crate) fn command_too_large(bytes: usize) -> String {
    format!(
        "the command with its arguments and environment takes {bytes} bytes; 1 MB is the limit: put the rest into a file"
    )
}

/// A command did not end.
pub(crate) const NOT_ENDED: &str = "the command could not be ended, so its sandbox is being restarted";

/// What exists could not be taken over.
pub(crate) fn not_listed(why: &str) -> String {
    format!("the sandboxes that exist cannot be listed ({why}): it is tried again by itself")
}

/// The container ended before sandboxd greeted.
pub(crate) fn died(exit_code: i64) -> String {
    format!("the sandbox ended while it was starting (exit code {exit_code}): see the server's log, then try again")
}

/// No place among the running ones became free.
pub(crate) fn no_place(full: &str, setting: &str) -> String {
    format!("{full}: try again later, or raise {setting}")
}

/// The host is below its reserve.
pub(crate) const HOST_DISK_LOW: &str =
    "the host's disk is nearly full: sandboxes wait until the operator has made room (HOST_DISK_RESERVE)";

/// Somebody else has frozen the container.
pub(crate) fn paused(container: &str) -> String {
    format!("the sandbox is paused, and not by this server: `podman unpause {container}` on the host lets it run on")
}

/// No id range is left for a room.
pub(crate) const NO_IDS: &str = "no user ids are left for another sandbox: add a line `containers:2147483647:2147483648` to \
    /etc/subuid and /etc/subgid";

/// The room's volume cannot be prepared.
pub(crate) fn volume(path: &Path, cause: &io::Error) -> String {
    format!(
        "the room's volume cannot be prepared at {} ({cause}): the server must run as the user whose Podman it uses",
        path.display()
    )
}

/// The directory for a sandbox's events cannot be made, or removed.
pub(crate) fn events(path: &Path, cause: &io::Error) -> String {
    let path = path.display();
    format!("the directory {path} for the sandbox's events cannot be prepared ({cause}): check IPC_BASE_DIR")
}

/// The room's files cannot be made, or removed.
pub(crate) fn files(path: &Path, cause: &io::Error) -> String {
    let path = path.display();
    format!("the room's files cannot be prepared at {path} ({cause}): check STATE_DIR and its free space")
}

/// The room's image is damaged, or this machine cannot mount it.
pub(crate) fn not_mounted(image: &Path, why: &str) -> String {
    format!(
        "the room's files cannot be mounted ({why}): they are in {}. `matrix-agent doctor` tells whether images can be \
         mounted here. A damaged one is mended by `e2fsck -f`, comes back from a backup, or goes with `matrix-agent \
         sandbox rm`; the room then begins with no files",
        image.display()
    )
}

/// A sandbox's disk use cannot be told.
pub(crate) fn not_counted(cause: &io::Error) -> String {
    format!("the sandbox's files cannot be counted ({cause})")
}

/// There is nothing to look at in the room that was named.
pub(crate) fn no_sandbox(room: &str) -> String {
    format!("{room} has no sandbox: it gets one with its first command")
}

/// Several sandboxes could be meant.
pub(crate) fn ambiguous(named: &str) -> String {
    format!("{named} may mean more than one sandbox: name it by its container, as `matrix-agent sandbox list` shows it")
}

/// The rooms' sockets would have too long a path.
pub(crate) fn state_dir_too_long(path: &Path, longest: usize) -> String {
    format!("STATE_DIR {} is too long: {longest} bytes at most, because of the rooms' sockets in it", path.display())
}

/// The server ends.
pub(crate) const SHUTTING_DOWN: &str = "the server is shutting down";

/// sandboxd speaks a version that this server does not: the oldest and the newest of each.
pub(crate) fn other_protocol(theirs: (u32, u32), ours: (u32, u32)) -> String {
    format!(
        "the sandbox speaks protocol {} to {}, this server {} to {}: remove the sandbox, and it is made anew with the \
         current sandboxd (its workspace is kept)",
        theirs.0, theirs.1, ours.0, ours.1
    )
}

/// What comes from the sandbox is not what sandboxd sends.
pub(crate) fn not_sandboxd(cause: &str) -> String {
    format!("the sandbox sent what sandboxd does not send ({cause}): remove the sandbox")
}

/// Somebody else in the sandbox has taken sandboxd's place at the socket.
pub(crate) const NOT_PID_1: &str = "a process in the sandbox that is not its PID 1 connected and was turned away";

/// Which wall stands: gVisor's.
pub(crate) const WALL_OWN_KERNEL: &str = "gVisor gives each sandbox a kernel of its own, between it and this machine's";

/// The runtime of a sandbox that was made before one was chosen.
pub(crate) const PODMANS_OWN_RUNTIME: &str = "the default of Podman";

/// Which wall stands: the usual one.
pub(crate) const WALL_SHARED_KERNEL: &str =
    "sandboxes share this machine's kernel, of which seccomp leaves them a part";

/// There is no such runtime.
pub(crate) fn runtime_missing(name: &str) -> String {
    format!("there is no `{name}`, with which SANDBOX_RUNTIME has sandboxes run")
}

/// A runtime cannot be used.
pub(crate) fn runtime_broken(path: &Path, cause: &str) -> String {
    format!("`{}`, with which SANDBOX_RUNTIME has sandboxes run, cannot be used ({cause})", path.display())
}

/// What to do about either.
pub(crate) const RUNTIME_MEND: &str = "install it, or unset SANDBOX_RUNTIME";

/// gVisor is not made for rootless Podman.
pub(crate) const RUNSC_ROOTLESS: &str = "runsc runs no sandboxes for rootless Podman";

/// What to do about it.
pub(crate) const RUNSC_ROOTLESS_MEND: &str = "run the server as root, or unset SANDBOX_RUNTIME";

/// gVisor cannot pass to the state directory.
pub(crate) fn runsc_closed(path: &Path) -> String {
    format!(
        "other users cannot enter {}, so gVisor, which is none of root's then, gets nothing from STATE_DIR below",
        path.display()
    )
}

/// What to do about it.
pub(crate) const RUNSC_CLOSED_MEND: &str =
    "set STATE_DIR to a folder such as /var/lib/matrix-agent, or unset SANDBOX_RUNTIME";

/// A release of gVisor is too old.
pub(crate) fn runsc_too_old(path: &Path, version: &str) -> String {
    format!("`{}` is too old for sandboxes, or does not tell how old it is ({version})", path.display())
}

/// gVisor runs nothing here.
pub(crate) fn runsc_fails(cause: &str) -> String {
    format!("runsc runs nothing on this machine ({cause})")
}

/// What to do about either.
pub(crate) const RUNSC_MEND: &str =
    "install a release of gVisor from July 2024 or later, which Debian 13 has, or unset SANDBOX_RUNTIME";

/// The Podman at the operator's socket has another runtime than the operator wants.
pub(crate) fn other_runtime(runtime: &str, wanted: &str) -> String {
    format!(
        "the Podman at PODMAN_SOCKET runs containers with {runtime}, and SANDBOX_RUNTIME is {wanted}: unset PODMAN_SOCKET, so \
         that the server starts a Podman of its own, or start the one there with `--runtime`"
    )
}

/// Podman does not answer.
pub(crate) fn podman_away(cause: &str) -> String {
    format!("Podman does not answer: {cause}; it is tried again by itself, and `matrix-agent doctor` tells more")
}

/// Podman answered too late.
pub(crate) fn podman_slow(doing: &str) -> String {
    format!("Podman took too long to {doing}: try again, and if it stays so, restart Podman")
}

/// The image is not there.
pub(crate) fn image_missing(image: &str) -> String {
    format!(
        "the sandbox image `{image}` is missing: build it with `podman build -t {image} -f Containerfile .`, or set \
         SANDBOX_IMAGE"
    )
}

/// There is no such container or volume.
pub(crate) fn not_found(name: &str) -> String {
    format!("Podman knows no `{name}`: it was removed meanwhile, so try again")
}

/// The name is taken.
pub(crate) fn name_taken(name: &str) -> String {
    format!("the name `{name}` is taken in Podman by a container of somebody else: remove or rename that one")
}

/// Podman refused, in its own words.
pub(crate) fn podman_refused(doing: &str, why: &str) -> String {
    format!("Podman refused to {doing} ({why}): `matrix-agent doctor` tells what this machine lacks")
}

/// Why a file operation failed: there is no such file.
pub(crate) const NO_FILE: &str = "no such file or directory";

/// Why a file operation failed: it is a directory.
pub(crate) const IS_DIRECTORY: &str = "is a directory";

/// Why a file operation failed: it is a pipe, a device or a socket.
pub(crate) const NOT_REGULAR: &str = "is not a regular file";

/// Why a file operation failed: the sandbox's user may not.
pub(crate) const FILE_DENIED: &str = "the sandbox's user may not do that";

/// Why a file operation failed: the disk is full.
pub(crate) const NO_SPACE: &str = "the sandbox's disk is full";

/// Why a file operation failed: the file is above the limit for one operation, in bytes.
pub(crate) fn file_too_large(limit: u64) -> String {
    format!("is larger than the limit of {limit} bytes")
}
