//! The messages, one enum a direction, and the fixed places and numbers both ends rely on.
//!
//! sandboxd opens every connection. Its first frame is an [`Opening`], which says what the connection is: the control
//! connection (then [`Request`]s one way, [`Event`]s the other), the bytes of one command, or one proxied connection.
//! After `Stream` and `Proxy` the connection carries raw bytes.
//!
//! Rules of change: a field may be added with `#[serde(default)]` (unknown ones are ignored); anything else raises
//! [`PROTOCOL`], and the server keeps speaking the version before, since sandboxes outlive a redeploy.

use serde::{Deserialize, Serialize};

use crate::blob::Blob;

/// The newest version of this protocol. What each brought:
///
/// - 2: the listener for models ([`ProxyKind::Models`]), commands that write in some places alone ([`Run::writable`]).
/// - 3: commands that lose nothing with the server ([`Run::spool`]), and words to them ([`Request::Write`]).
pub const PROTOCOL: u32 = 3;
/// The first version that has [`Run::spool`], and what belongs to it.
pub const SPOOL_SINCE: u32 = 3;
/// What this build speaks: its own version and the one before.
pub const SPOKEN: Range = Range { min: PROTOCOL - 1, max: PROTOCOL };

/// The abstract Unix socket on which sandboxd listens inside the container for `gh`, whose `http_unix_socket` is this behind an `@`.
pub const GH_SOCKET: &str = "sandboxd-gh";
/// Where sandboxd listens inside the container for requests to models, on 127.0.0.1.
pub const MODELS_PORT: u16 = 3130;

/// Where the room's directory is mounted, read-only, inside its container.
pub const ROOM_DIR: &str = "/run/matrix-agent";
/// The socket's name in that directory.
pub const SOCKET: &str = "sock";
/// The variable of the container's environment that holds a proof, where the kernel cannot tell the server who connects:
/// sandboxd shows it in the openings that are its own, and hides it from all else in the container.
pub const PROOF: &str = "MATRIX_AGENT_PROOF";
/// Where sandboxd itself is mounted, read-only.
pub const BINARY: &str = "/run/sandboxd";
/// The directory in the user's home that holds whole outputs.
pub const LOG_DIR: &str = ".cache/matrix-agent";

/// The most bytes that are told of a command's line.
pub const LINE_LIMIT: usize = 200;
/// The longest id of a command.
pub const ID_LIMIT: usize = 200;
/// The bytes kept from the start of a command's output, whether or not anybody listens.
pub const HEAD: usize = 16 * 1024;
/// The bytes kept from its end.
pub const TAIL: usize = 16 * 1024;
/// The bytes of output that a command's log file takes.
pub const LOG_LIMIT: u64 = 8 * 1024 * 1024;
/// The bytes that one of the two files of a spool takes: at least as many of the last ones are kept, and at most twice.
pub const SPOOL_FILE: u64 = 4 * 1024 * 1024;
/// The bytes kept from the end of a standard error that is kept apart.
pub const ERRORS: usize = 4 * 1024;
/// The bytes with which a command's standard input may begin ([`Spool::input`]).
pub const INPUT_LIMIT: usize = 512 * 1024;
/// The bytes that one [`Request::Write`] may bring, and those of its key.
pub const WRITE_LIMIT: usize = 64 * 1024;
/// See [`WRITE_LIMIT`].
pub const KEY_LIMIT: usize = 200;

/// The file applets' exit code when there is no such file.
pub const FILE_NOT_FOUND: i32 = 10;
/// The file applets' exit code when it is a directory.
pub const FILE_IS_DIRECTORY: i32 = 11;
/// The file applets' exit code when it is a pipe, a device or a socket.
pub const FILE_NOT_REGULAR: i32 = 12;
/// The file applets' exit code when the user has no right to it.
pub const FILE_DENIED: i32 = 13;
/// The file applets' exit code when the disk is full.
pub const FILE_NO_SPACE: i32 = 14;

/// A range of protocol versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The oldest version spoken.
    pub min: u32,
    /// The newest version spoken.
    pub max: u32,
}

impl Range {
    /// Returns the newest version that both speak.
    pub fn common(self, other: Self) -> Option<u32> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

/// The first frame of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opening {
    /// The control connection's greeting; the answer is `Welcome` or `Refused`.
    Hello {
        /// The versions that this sandboxd speaks.
        protocol: Range,
        /// Which sandboxd it is: a short hash of its sources.
        build: String,
        /// Made anew at each start of the container: commands are known under one boot only.
        boot_id: String,
        /// What [`PROOF`] held, if it was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
    },
    /// A command's bytes: its output this way, its standard input the other.
    Stream {
        /// The nonce of the request that asked for it, which is its proof too.
        nonce: String,
    },
    /// One connection that a program in the sandbox made to a listener of sandboxd.
    Proxy {
        /// Which listener.
        kind: ProxyKind,
        /// What [`PROOF`] held, if it was given.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        proof: Option<String>,
    },
}

/// A listener of sandboxd, and with it the gateway's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProxyKind {
    /// `HTTP_PROXY`: CONNECT and plain HTTP.
    Web,
    /// git's smart HTTP, where `insteadOf` sends it.
    Git,
    /// Requests to language models, at [`MODELS_PORT`].
    Models,
    /// Requests of `gh` to GitHub's API, at [`GH_SOCKET`]. A server that does not know it ends the connection.
    GitHub,
}

/// The server's messages on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Accepts the greeting.
    Welcome {
        /// The version that both will speak.
        protocol: u32,
    },
    /// Declines it: no version in common.
    Refused {
        /// What the server speaks.
        supported: Range,
    },
    /// Starts a command. Answered by `Ended` when it has ended, or by `Failed`.
    Run(Run),
    /// Asks for a command of this boot: answered by `Attached`, `Ended` or `Unknown`.
    Attach {
        /// The command.
        id: String,
        /// The nonce of the connection for its output.
        nonce: String,
        /// The byte of its output from which on it is wanted, if it has a spool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
    },
    /// Writes to the standard input of a command with a spool: answered by `Written`, `Ended` or `Unknown`.
    Write(Write),
    /// Ends a command's whole tree; confirmed by its `Ended`, or by `Unknown`.
    Kill {
        /// The command.
        id: String,
        /// Why, as its `Ended` will tell.
        cause: KillCause,
    },
    /// Asks for `Commands`.
    List,
    /// Asks for `Pong`.
    Ping {
        /// Comes back in the answer.
        n: u64,
    },
}

/// A command to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Unique under this boot: a second `Run` with it fails, so that nothing runs twice.
    pub id: String,
    /// The nonce of the connection for its output, dialled when there is some (at once if `stdin`).
    pub nonce: String,
    /// Program and arguments; the program is looked up in the `PATH` of its environment.
    pub argv: Vec<String>,
    /// Variables that are put on top of the default environment.
    pub env: Vec<(String, String)>,
    /// The directory in which it runs; empty: the workspace.
    pub cwd: String,
    /// The user as whom it runs.
    pub user: User,
    /// It is ended after so many milliseconds, whether or not a server is there.
    pub timeout_ms: Option<u64>,
    /// Whether it lives until its whole tree is gone. Otherwise it ends with its main process, and what that left
    /// behind is ended.
    pub background: bool,
    /// Whether its standard input comes on the stream. Otherwise it is `/dev/null`.
    pub stdin: bool,
    /// The directories and files below which alone it may write, by the kernel's word; `None`: where its user may. Since
    /// version 2: an older sandboxd would let it write everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writable: Option<Vec<String>>,
    /// Set if its streams are kept for a server that goes and comes back. Since version 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spool: Option<Spool>,
}

/// A command whose streams are kept for a server that goes and comes back.
///
/// Its standard output alone is its output, and lies in a spool of two files: when the newer is full, it becomes the
/// older, and what that held is gone. A server that attaches names the byte from which it wants the output. While a
/// server takes it, a slow one makes the command wait, and so misses nothing; without a server the command never waits.
///
/// Its standard input is a pipe that a `Write` closes, or the time that it is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spool {
    /// What the input begins with, at most [`INPUT_LIMIT`] bytes.
    pub input: Blob,
    /// Whether it goes on with what [`Request::Write`] brings. Otherwise it ends there.
    pub open: bool,
    /// It ends too when for so long nothing was written to it and the command has written nothing. An older sandboxd, which
    /// does not know this, leaves it open for as long as the command runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
}

/// Bytes for a command's standard input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// The command.
    pub id: String,
    /// Comes back in the answer.
    pub n: u64,
    /// Names these bytes, in at most [`KEY_LIMIT`] bytes: what came with the same key before is not written again.
    pub key: String,
    /// At most [`WRITE_LIMIT`] bytes, written together.
    pub bytes: Blob,
    /// Whether nothing more comes.
    pub end: bool,
}

/// What became of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Written {
    /// sandboxd has it, and gives it to the command as that reads, whether or not a server is there.
    Taken,
    /// It was taken before.
    Before,
    /// The command has closed its standard input, or it has ended, or there is none that could be written to.
    Closed,
    /// Too much waits for the command to read it.
    Full,
}

/// Whose rights a command has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum User {
    /// The unprivileged user, without any capability.
    #[default]
    Agent,
    /// The container's root, to install Debian packages.
    Root,
}

/// Why a command is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillCause {
    /// Somebody asked.
    Killed,
    /// The room's disk is full.
    DiskFull,
}

/// sandboxd's messages on the control connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A command has ended, now or before it was asked for.
    Ended(Ended),
    /// A running command's stream is coming: first what was kept, then what it writes from now on.
    Attached {
        /// The command.
        id: String,
        /// After so many bytes of the stream comes the gap.
        head: u64,
        /// The bytes that are missing there.
        omitted: u64,
        /// Where in its output the stream of a command with a spool begins, if that was asked for: behind the byte asked
        /// for, if the spool does not hold that any more. There is no other gap then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
    },
    /// Answers `Write`.
    Written {
        /// The command.
        id: String,
        /// The number in the `Write`.
        n: u64,
        /// What became of it.
        how: Written,
    },
    /// No such command runs or is remembered under this boot.
    Unknown {
        /// The command.
        id: String,
        /// Whether it did run and end, although its result is no longer kept.
        forgotten: bool,
    },
    /// What runs.
    Commands {
        /// In order of their start.
        running: Vec<Running>,
    },
    /// Answers `Ping`.
    Pong {
        /// The number in the `Ping`.
        n: u64,
    },
    /// A request could not be carried out.
    Failed {
        /// The command it was about.
        id: String,
        /// A sentence.
        why: String,
    },
}

/// A running command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The command.
    pub id: String,
    /// Whether it lives until its whole tree is gone.
    pub background: bool,
    /// What it runs, cut to [`LINE_LIMIT`] bytes: its last argument, which of `bash -c` is the line. Empty where it is not
    /// told.
    #[serde(default)]
    pub line: String,
}

/// How a command ended, and what it wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The command.
    pub id: String,
    /// How it ended.
    pub exit: Exit,
    /// The first bytes of its output.
    pub head: Blob,
    /// The last bytes, as far as they are not in `head`.
    pub tail: Blob,
    /// How many bytes between them are not told.
    pub omitted: u64,
    /// Where in the sandbox the whole is (its first [`LOG_LIMIT`] bytes), if something was omitted.
    pub log: Option<String>,
    /// How many processes of its tree were ended because its main process had.
    pub leftovers: u32,
    /// How many processes could not be ended: the container has to be.
    pub survivors: u32,
    /// Whether its output went out on its stream too, as far as the server took it.
    pub streamed: bool,
    /// Where its output is, if it has a spool; `log` is none then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spooled: Option<Spooled>,
}

/// What is left of the output of a command with a spool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooled {
    /// The files in the sandbox that hold it, each from where it begins to where the next does: the oldest first.
    pub files: Vec<SpoolFile>,
    /// The bytes that the command has written, those included that are gone.
    pub end: u64,
    /// The last bytes of its standard error.
    pub errors: Blob,
}

/// A file of a spool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpoolFile {
    /// Where it is.
    pub path: String,
    /// The place of its first byte in the output.
    pub begin: u64,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By a signal that sandboxd did not send.
    Signal(i32),
    /// Its time was up.
    TimedOut,
    /// The server asked for it.
    Killed,
    /// The kernel ended it for want of memory, as far as can be told.
    OutOfMemory,
    /// The server ended it because the room's disk is full.
    DiskFull,
    /// It never ran, for the reason given.
    NotStarted(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_common_version_is_chosen() {
        let range = |min, max| Range { min, max };
        assert_eq!(range(1, 2).common(range(2, 3)), Some(2));
        assert_eq!(range(1, 5).common(range(1, 3)), Some(3));
        assert_eq!(range(1, 1).common(range(2, 3)), None);
        assert_eq!(range(4, 4).common(range(2, 3)), None);
    }
}
