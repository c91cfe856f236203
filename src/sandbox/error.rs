//! What can go wrong with a sandbox, as a sentence that says what to do. Carries no command, no output and no secret.

use std::{fmt, io, path::PathBuf, time::Duration};

use crate::{
    strings::{sandboxes as words, told},
    text,
};

/// Why something about a sandbox failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The room's socket could not be made.
    #[error("{}", words::socket(.path, .source))]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the binary holds for containers could not be written out.
    #[error("{}", words::install(.path, .source))]
    Install {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No answer in time.
    #[error("{}", words::timed_out(*.limit, .note.as_deref()))]
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
    #[error("{}", words::DISCONNECTED)]
    Disconnected,
    /// Its sandboxd is older than what it was asked for.
    #[error(
        "this sandbox was started by an older version of the server and lacks what this needs: it gets that when it next \
         starts, which is after some time without work (SANDBOX_IDLE_SECONDS), or by `podman restart` on the host"
    )]
    Older,
    /// sandboxd declined a request.
    #[error("{}", words::declined(.0))]
    Declined(String),
    /// A request above what a frame holds.
    #[error("{}", words::command_too_large(*.0))]
    TooLarge(usize),
    /// A command did not end; the container is being ended in its place.
    #[error("{}", words::NOT_ENDED)]
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
    #[error("{}", words::not_listed(.0))]
    NotListed(String),
    /// The container ended before sandboxd greeted.
    #[error("{}", words::died(*.exit_code))]
    Died {
        /// sandboxd's exit code.
        exit_code: i64,
    },
    /// No place among the running ones became free.
    #[error("{}", words::no_place(&.0.to_string(), .0.setting()))]
    AllAtWork(Full),
    /// The host is below its reserve.
    #[error("{}", words::HOST_DISK_LOW)]
    HostDiskLow,
    /// Somebody else has frozen the container.
    #[error("{}", words::paused(.container))]
    Paused {
        /// Its name.
        container: String,
    },
    /// No id range is left for a room.
    #[error("{}", words::NO_IDS)]
    NoIds,
    /// The room's volume cannot be prepared.
    #[error("{}", words::volume(.path, .source))]
    Volume {
        /// Where the volume lies.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The directory for the sandbox's events cannot be made, or removed.
    #[error("{}", words::events(.path, .source))]
    Events {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The room's files cannot be made, or removed.
    #[error("{}", words::files(.path, .source))]
    Files {
        /// Where they lie.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The room's image is damaged, or this machine cannot mount it.
    #[error("{}", words::not_mounted(.image, .why))]
    NotMounted {
        /// The image.
        image: PathBuf,
        /// Why.
        why: String,
    },
    /// The room's files were there and are not any more. Said once.
    #[error("{}", told::FILES_LOST)]
    FilesLost,
    /// A sandbox's disk use cannot be told.
    #[error("{}", words::not_counted(.source))]
    Counting {
        /// Why.
        source: io::Error,
    },
    /// There is nothing to look at in the room that was named.
    #[error("{}", words::no_sandbox(.0))]
    NoSandbox(String),
    /// Several sandboxes could be meant.
    #[error("{}", words::ambiguous(.0))]
    Ambiguous(String),
    /// The rooms' sockets would have too long a path.
    #[error("{}", words::state_dir_too_long(.path, *.longest))]
    StateDirTooLong {
        /// The setting.
        path: PathBuf,
        /// What it may have.
        longest: usize,
    },
    /// The server ends.
    #[error("{}", words::SHUTTING_DOWN)]
    ShuttingDown,
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
            Self::NotFound => f.write_str(words::NO_FILE),
            Self::IsDirectory => f.write_str(words::IS_DIRECTORY),
            Self::NotRegular => f.write_str(words::NOT_REGULAR),
            Self::Denied => f.write_str(words::FILE_DENIED),
            Self::NoSpace => f.write_str(words::NO_SPACE),
            Self::TooLarge(limit) => f.write_str(&words::file_too_large(*limit)),
            Self::Other(why) => f.write_str(why),
        }
    }
}

/// Why no further sandbox may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// So many run, which is all that may.
    Number(usize),
    /// All of them together leave too little memory.
    Memory(Short),
}

impl Full {
    /// Returns the setting that allows more.
    pub(super) fn setting(&self) -> &'static str {
        match self {
            Self::Number(_) => "MAX_RUNNING_SANDBOXES",
            Self::Memory(_) => "SANDBOX_MEMORY_TOTAL",
        }
    }
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(limit) => f.write_str(&words::all_at_work(*limit)),
            Self::Memory(short) => write!(f, "{short}"),
        }
    }
}

/// Why one more would be too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Bytes that the others use.
    pub used: u64,
    /// Bytes that all may use together now.
    pub bound: u64,
    /// Bytes that are missing.
    pub missing: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words::memory_short(&text::human_bytes(self.used), &text::human_bytes(self.bound)))
    }
}
