//! What can go wrong with a sandbox, as a sentence that says what to do. Carries no command, no output and no secret.

use std::{fmt, io, path::PathBuf, time::Duration};

/// Why something about a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The room's socket could not be made.
    #[error("the room's socket {} cannot be made ({source}): check that STATE_DIR is writable and its path short", path.display())]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the binary holds for containers could not be written out.
    #[error("{} cannot be written ({source}): check STATE_DIR and its free space", path.display())]
    Install {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("the sandbox did not answer within {} s{}", .limit.as_secs_f32(), hint(.note.as_deref()))]
    TimedOut {
        /// The time it had.
        limit: Duration,
        /// What was seen meanwhile.
        note: Option<String>,
    },
    /// What dialled in was not a sandboxd that we can speak to.
    #[error("{0}")]
    Fault(String),
    /// The connection broke: what ran goes on, and can be looked up by its id once sandboxd has dialled again.
    #[error("the connection to the sandbox was lost; it is being made anew")]
    Disconnected,
    /// Its sandboxd is older than what it was asked for.
    #[error(
        "this sandbox was started by an older version of the server and lacks what this needs: it gets that when it next \
         starts, which is after some time without work (SANDBOX_IDLE_SECONDS), or by `podman restart` on the host"
    )]
    Older,
    /// sandboxd declined a request.
    #[error("the sandbox declined: {0}")]
    Declined(String),
    /// A request above what a frame holds.
    #[error(
        "the command with its arguments and environment takes {0} bytes; 1 MB is the limit: put the rest into a file"
    )]
    TooLarge(usize),
    /// A command did not end; the container is being ended in its place.
    #[error("the command could not be ended, so its sandbox is being restarted")]
    NotEnded,
    /// A file operation failed.
    #[error("{path}: {problem}")]
    File {
        /// The file, as it was named.
        path: String,
        /// Why.
        problem: FileProblem,
    },
    /// Podman did not do what it was asked for.
    #[error(transparent)]
    Engine(#[from] super::engine::EngineError),
    /// What exists could not be taken over.
    #[error("the sandboxes that exist cannot be listed ({0}): it is tried again by itself")]
    NotListed(String),
    /// The container ended before sandboxd greeted.
    #[error("the sandbox ended while it was starting (exit code {exit_code}): see the server's log, then try again")]
    Died {
        /// sandboxd's exit code.
        exit_code: i64,
    },
    /// No place among the running ones became free.
    #[error("{}: try again later, or raise {}", .0, .0.setting())]
    AllAtWork(super::limit::Full),
    /// The host is below its reserve.
    #[error("the host's disk is nearly full: sandboxes wait until the operator has made room (HOST_DISK_RESERVE)")]
    HostDiskLow,
    /// Somebody else has frozen the container.
    #[error("the sandbox is paused, and not by this server: `podman unpause {container}` on the host lets it run on")]
    Paused {
        /// Its name.
        container: String,
    },
    /// No id range is left for a room.
    #[error(
        "no user ids are left for another sandbox: add a line `containers:2147483647:2147483648` to /etc/subuid and /etc/subgid"
    )]
    NoIds,
    /// The room's volume cannot be prepared.
    #[error("the room's volume cannot be prepared at {} ({source}): the server must run as the user whose Podman it uses", path.display())]
    Volume {
        /// Where the volume lies.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The room's files cannot be made, or removed.
    #[error("the room's files cannot be prepared at {} ({source}): check STATE_DIR and its free space", path.display())]
    Files {
        /// Where they lie.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The room's image is damaged, or this machine cannot mount it.
    #[error(
        "the room's files cannot be mounted ({why}): they are in {}. `matrix-agent doctor` tells whether images can be \
         mounted here. A damaged one is mended by `e2fsck -f`, comes back from a backup, or goes with `matrix-agent \
         sandbox rm`; the room then begins with no files",
        image.display()
    )]
    NotMounted {
        /// The image.
        image: PathBuf,
        /// Why.
        why: String,
    },
    /// The room's files were there and are not any more. Said once.
    #[error(
        "the files of this room are gone: somebody deleted them on the host. /workspace and the home directory are empty \
         now, and this call was not run. Say so to the people in the room, then clone or write anew what is needed"
    )]
    FilesLost,
    /// A sandbox's disk use cannot be told.
    #[error("the sandbox's files cannot be counted ({source})")]
    Counting {
        /// Why.
        source: io::Error,
    },
    /// There is nothing to look at in the room that was named.
    #[error("{0} has no sandbox: it gets one with its first command")]
    NoSandbox(String),
    /// Several sandboxes could be meant.
    #[error("{0} may mean more than one sandbox: name it by its container, as `matrix-agent sandbox list` shows it")]
    Ambiguous(String),
    /// The rooms' sockets would have too long a path.
    #[error("STATE_DIR {} is too long: {longest} bytes at most, because of the rooms' sockets in it", path.display())]
    StateDirTooLong {
        /// The setting.
        path: PathBuf,
        /// What it may have.
        longest: usize,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    ShuttingDown,
}

fn hint(note: Option<&str>) -> String {
    note.map(|note| format!(": {note}")).unwrap_or_default()
}

/// Why a file operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileProblem {
    /// There is no such file.
    NotFound,
    /// It is a directory.
    IsDirectory,
    /// It is a pipe, a device or a socket.
    NotRegular,
    /// The sandbox's user may not.
    Denied,
    /// The disk is full.
    NoSpace,
    /// Above the limit for one operation, in bytes.
    TooLarge(u64),
    /// Anything else, in the sandbox's own words.
    Other(String),
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such file or directory"),
            Self::IsDirectory => f.write_str("is a directory"),
            Self::NotRegular => f.write_str("is not a regular file"),
            Self::Denied => f.write_str("the sandbox's user may not do that"),
            Self::NoSpace => f.write_str("the sandbox's disk is full"),
            Self::TooLarge(limit) => write!(f, "is larger than the limit of {limit} bytes"),
            Self::Other(why) => f.write_str(why),
        }
    }
}
