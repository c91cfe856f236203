//! The errors of a sandbox, each a sentence that says what to do. They contain no command, no output and no secret.

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
    /// A file for containers could not be written to the state directory.
    #[error("{}", words::install(.path, .source))]
    Install {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There was no answer in time.
    #[error("{}", words::timed_out(*.limit, .note.as_deref()))]
    TimedOut {
        /// The time it had.
        limit: Duration,
        /// What was seen meanwhile, if anything.
        note: Option<String>,
    },
    /// What connected is not a sandboxd that this server can speak to.
    #[error("{0}")]
    Fault(String),
    /// The connection broke. What ran goes on, and can be found by its id once sandboxd has connected again.
    #[error("{}", words::DISCONNECTED)]
    Disconnected,
    /// The sandbox's sandboxd is older than the feature that was asked for.
    #[error(
        "this sandbox was started by an older version of the server and lacks what this needs: it gets that when it next \
         starts, which is after some time without work (SANDBOX_IDLE_SECONDS), or by `podman restart` on the host"
    )]
    Older,
    /// sandboxd declined a request.
    #[error("{}", words::declined(.0))]
    Declined(String),
    /// A request is larger than a frame; holds its size in bytes.
    #[error("{}", words::command_too_large(*.0))]
    TooLarge(usize),
    /// A command could not be ended; its container is ended instead.
    #[error("{}", words::NOT_ENDED)]
    NotEnded,
    /// A file operation failed.
    #[error("{path}: {problem}")]
    File {
        /// The file, as the caller named it.
        path: String,
        /// Why.
        problem: FileProblem,
    },
    /// Podman did not do what it was asked.
    #[error(transparent)]
    Engine(#[from] super::engine::EngineError),
    /// The Podman at the operator's socket runs containers with something else than the operator has chosen.
    #[error("{}", words::other_runtime(.runtime, .wanted))]
    OtherRuntime {
        /// What it runs them with.
        runtime: String,
        /// What was chosen.
        wanted: &'static str,
    },
    /// What earlier servers left could not be read.
    #[error("{}", words::not_listed(.0))]
    NotListed(String),
    /// The container ended before sandboxd greeted.
    #[error("{}", words::died(*.exit_code))]
    Died {
        /// sandboxd's exit code.
        exit_code: i64,
    },
    /// No place among the running sandboxes became free in time.
    #[error("{}", words::no_place(&.0.to_string(), .0.setting()))]
    AllAtWork(Full),
    /// The host's free disk is below its reserve.
    #[error("{}", words::HOST_DISK_LOW)]
    HostDiskLow,
    /// Somebody else has paused the container.
    #[error("{}", words::paused(.container))]
    Paused {
        /// Its name.
        container: String,
    },
    /// No id range is left for another room.
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
    /// The directory for the sandbox's events cannot be made or removed.
    #[error("{}", words::events(.path, .source))]
    Events {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The room's files cannot be made or removed.
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
    /// The room's files were lost, and new ones were made. Returned once, so that the model is told.
    #[error("{}", told::FILES_LOST)]
    FilesLost,
    /// The disk use of a sandbox cannot be counted.
    #[error("{}", words::not_counted(.source))]
    Counting {
        /// Why.
        source: io::Error,
    },
    /// The room that was named has no sandbox.
    #[error("{}", words::no_sandbox(.0))]
    NoSandbox(String),
    /// The name fits several sandboxes.
    #[error("{}", words::ambiguous(.0))]
    Ambiguous(String),
    /// The state directory is so long that the paths of rooms' sockets would be too long.
    #[error("{}", words::state_dir_too_long(.path, *.longest))]
    StateDirTooLong {
        /// The state directory.
        path: PathBuf,
        /// The most bytes that it may have.
        longest: usize,
    },
    /// The server is shutting down.
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
    /// The sandbox's user has no permission.
    Denied,
    /// The disk is full.
    NoSpace,
    /// The file is larger than one operation allows; holds the limit in bytes.
    TooLarge(u64),
    /// Another reason, in sandboxd's words.
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

/// Why no further sandbox may run now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// As many run as may; holds the limit.
    Number(usize),
    /// The running ones leave too little memory.
    Memory(Short),
}

impl Full {
    /// Returns the name of the setting that would allow more.
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

/// Why there is too little memory for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    /// Bytes that the other sandboxes use.
    pub used: u64,
    /// Bytes that all sandboxes together may use now.
    pub bound: u64,
    /// Bytes that are missing.
    pub missing: u64,
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&words::memory_short(&text::human_bytes(self.used), &text::human_bytes(self.bound)))
    }
}
