//! What repositories need to be worked on: a script of theirs sets it up once, what it leaves is kept, and every later
//! clone in whatever room has it at once.
//!
//! `tools` asks after a call that may have brought a repository ([`Environments::look`]), and has what was found brought
//! in ([`Environments::bring`]). Knows sandboxes and GitHub's names; nothing of turns, tools or rooms' manners. Who could
//! do what with it stands in `docs/environments.md`.

mod kept;
mod making;
mod place;
mod secrets;

use std::{
    collections::HashMap,
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use thiserror::Error;
use tokio::{sync::Mutex as Lock, task::spawn_blocking};

pub use self::{
    kept::Listed,
    place::{Here, Place},
    secrets::BadSecrets,
};
use self::{
    kept::{Archive, Kept, Record},
    making::Making,
};
use crate::{
    ids::Address,
    sandbox::{Command, Exit, Sandbox, SandboxError, Sandboxes, Stdin, User},
    strings::environments as words,
    text,
};

/// Unpacks what is the agent's. What is there already stays as it is.
const UNPACK: [&str; 6] = ["tar", "--extract", "--file=-", "--directory=/", "--skip-old-files", "--no-same-owner"];
/// Unpacks what is root's, and notes in the system that it is there.
const UNPACK_SYSTEM: &str = "tar --extract --file=- --directory=/ --numeric-owner --same-permissions --keep-directory-symlink \
    && mkdir -p /var/lib/matrix-agent && : > \"/var/lib/matrix-agent/$1\"";
/// How long unpacking may take.
const UNPACK_LIMIT: Duration = Duration::from_mins(10);
/// What is read of an archive at a time.
const PIECE: usize = 256 * 1024;
/// How long a setup that has failed is not tried again.
const AGAIN: Duration = Duration::from_mins(10);
/// The most failures that are remembered.
const FAILURES: usize = 256;

/// What an operator has decided.
#[derive(Clone, Debug)]
pub struct EnvironmentOptions {
    /// Where environments are kept.
    pub folder: PathBuf,
    /// The most bytes that they take together.
    pub bound: u64,
    /// The file with what setups are given.
    pub secrets: Option<PathBuf>,
}

/// The environments of repositories. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Environments {
    inner: Arc<Inner>,
}

struct Inner {
    sandboxes: Sandboxes,
    kept: Kept,
    secrets: Option<PathBuf>,
    /// Held while an environment is made, so that it is made once.
    making: Mutex<HashMap<String, Arc<Lock<()>>>>,
    /// The setups that have failed, and when.
    failed: Mutex<HashMap<String, Instant>>,
}

/// An environment that was brought into a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brought {
    /// Whether its script was run for it just now; else it was kept.
    pub made: bool,
    /// The bytes that were unpacked.
    pub bytes: u64,
    /// How many seconds its script took when it ran.
    pub seconds: u64,
}

/// Why a room does not have a repository's environment. `Display` is a clause for the room and the model.
#[derive(Debug, Error)]
pub enum EnvironmentError {
    /// A sandbox did not do its part.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The folder of what is kept cannot be used.
    #[error("{}", words::not_kept(.0))]
    Disk(#[from] io::Error),
    /// The file with secrets cannot be used.
    #[error("{}", words::secrets_file(.file, .why, .why.mend()))]
    Secrets {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        why: BadSecrets,
    },
    /// The room may not clone the repository, or nobody knows; holds the reason.
    #[error("{}", words::not_readable(.0))]
    NotReadable(String),
    /// The repository cannot be cloned; holds git's last lines.
    #[error("{}", words::not_cloned(.0))]
    NotCloned(Vec<String>),
    /// The room's clone is not in the state of the default branch.
    #[error("{}", words::OTHER_STATE)]
    OtherState,
    /// The script has not ended well.
    #[error("{}", words::failed(.script, .how, .lines))]
    Failed {
        /// The script.
        script: String,
        /// How it ended.
        how: String,
        /// Its last lines.
        lines: Vec<String>,
    },
    /// What it left cannot be packed; holds how that ended.
    #[error("{}", words::not_packed(.0))]
    NotPacked(String),
    /// It has failed a short time ago.
    #[error("{}", words::FAILED_BEFORE)]
    FailedBefore,
    /// What it left is larger than what all may take together.
    #[error("{}", words::too_large(&text::human_bytes(*.0)))]
    TooLarge(u64),
    /// What it left holds a secret; holds the secret's name.
    #[error("{}", words::holds_secret(.0))]
    HoldsSecret(String),
    /// It could not be unpacked; holds the last line of what was said.
    #[error("{}", words::not_unpacked(.0))]
    NotUnpacked(String),
}

impl Environments {
    /// Opens the folder of what is kept.
    pub fn open(sandboxes: Sandboxes, options: EnvironmentOptions) -> io::Result<Self> {
        let EnvironmentOptions { folder, bound, secrets } = options;
        let kept = Kept::open(folder, bound)?;
        let inner = Inner { sandboxes, kept, secrets, making: Mutex::default(), failed: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Returns the repositories in a room's workspace that say how they are set up and were not brought anything yet.
    pub async fn look(&self, sandbox: &Sandbox) -> Result<Vec<Place>, EnvironmentError> {
        place::look(sandbox, None).await
    }

    /// Brings a repository's environment into a room that may clone the repository now; makes it first if it is not kept, of
    /// which `begins` is told. Where it fails the room's clone stays as it is, and is not tried again; another clone is.
    ///
    /// Dropped, it ends what it has begun.
    pub async fn bring(
        &self,
        address: &Address,
        place: &Place,
        limit: Duration,
        begins: impl FnOnce(),
    ) -> Result<Brought, EnvironmentError> {
        let inner = &self.inner;
        let key = place.key(&inner.sandboxes.image_id().await?);
        let brought = self.brought(address, place, &key, limit, begins).await;
        let system = brought.as_ref().is_ok_and(|(_, system)| *system);
        let sandbox = inner.sandboxes.ensure(address).await?;
        let bytes = brought.as_ref().ok().map(|(brought, _)| brought.bytes);
        place::note(&sandbox, place, &key, system, bytes).await?;
        brought.map(|(brought, _)| brought)
    }

    /// Returns what was brought into a room's workspace, as its sandbox tells: of which repository, into which folder, and how
    /// many bytes.
    pub async fn here(&self, sandbox: &Sandbox) -> Result<Vec<Here>, EnvironmentError> {
        place::here(sandbox).await
    }

    async fn brought(
        &self,
        address: &Address,
        place: &Place,
        key: &str,
        limit: Duration,
        begins: impl FnOnce(),
    ) -> Result<(Brought, bool), EnvironmentError> {
        let inner = &self.inner;
        self.check(address, place).await?;
        let kept = inner.kept.find(key);
        let made = kept.is_none();
        let record = if let Some(record) = kept {
            record
        } else {
            let record = self.made(address, place, key, limit, begins).await?;
            // That took its time, in which a grant may have ended.
            self.check(address, place).await?;
            record
        };
        let sandbox = inner.sandboxes.ensure(address).await?;
        let now = inner.sandboxes.clock().file_date();
        if record.system {
            let file = inner.kept.read(key, Archive::System, now)?;
            let argv = ["sh", "-c", UNPACK_SYSTEM, "unpack", key];
            let command = Command { user: User::Root, ..place::command("unpack", &argv, UNPACK_LIMIT) };
            unpack(&sandbox, command, file).await?;
        }
        let file = inner.kept.read(key, Archive::Agent, now)?;
        unpack(&sandbox, place::command("unpack", &UNPACK, UNPACK_LIMIT), file).await?;
        Ok((Brought { made, bytes: record.bytes, seconds: record.seconds }, record.system))
    }

    /// Sees that the room may clone the repository now: what its sandbox tells is a claim.
    async fn check(&self, address: &Address, place: &Place) -> Result<(), EnvironmentError> {
        let may = self.inner.sandboxes.may_clone(address, &place.url).await;
        may.map_err(|denial| EnvironmentError::NotReadable(denial.to_string()))
    }

    /// Makes an environment, unless another room has done so meanwhile.
    async fn made(
        &self,
        address: &Address,
        place: &Place,
        key: &str,
        limit: Duration,
        begins: impl FnOnce(),
    ) -> Result<Record, EnvironmentError> {
        let inner = &self.inner;
        let turn = Arc::clone(locked(&inner.making).entry(key.to_owned()).or_default());
        let made = {
            let _alone = turn.lock().await;
            match inner.kept.find(key) {
                Some(record) => Ok(record),
                None if self.has_failed(key) => Err(EnvironmentError::FailedBefore),
                None => {
                    begins();
                    self.make(address, place, key, limit).await
                }
            }
        };
        drop(turn);
        locked(&inner.making).retain(|_, turn| Arc::strong_count(turn) > 1);
        if let Err(EnvironmentError::Failed { .. } | EnvironmentError::HoldsSecret(_) | EnvironmentError::TooLarge(_)) =
            made
        {
            let mut failed = locked(&inner.failed);
            failed.retain(|_, since| since.elapsed() < AGAIN);
            if failed.len() < FAILURES {
                failed.insert(key.to_owned(), Instant::now());
            }
        }
        made
    }

    async fn make(
        &self,
        address: &Address,
        place: &Place,
        key: &str,
        limit: Duration,
    ) -> Result<Record, EnvironmentError> {
        let inner = &self.inner;
        // Only of GitHub's the server itself has made sure whom it speaks with.
        let secrets = match (&inner.secrets, place.at_github()) {
            (Some(file), Some(repository)) => secrets::of(file, repository.as_str())
                .map_err(|why| EnvironmentError::Secrets { file: file.clone(), why })?,
            _ => Vec::new(),
        };
        let workshop = inner.sandboxes.workshop(address);
        let sandbox = inner.sandboxes.ensure(workshop.address()).await?;
        let making = Making { sandbox: &sandbox, place, secrets: &secrets, limit };
        let took = making.set_up().await?;
        let record = making.keep(&inner.kept, key, took, inner.sandboxes.clock()).await?;
        tracing::info!(repository = record.repository, bytes = record.bytes, ?took, "an environment was made");
        Ok(record)
    }

    fn has_failed(&self, key: &str) -> bool {
        locked(&self.inner.failed).get(key).is_some_and(|since| since.elapsed() < AGAIN)
    }
}

/// Lists what is kept in a folder, what was used last first, and changes nothing.
pub fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    kept::list(folder)
}

/// Looks through the file with what setups are given, and returns how many there are.
pub fn look_through(secrets: &Path) -> Result<usize, BadSecrets> {
    secrets::all(secrets).map(|all| all.len())
}

/// Looks whether there is a file with what setups are given.
pub fn find(secrets: &Path) -> Result<(), BadSecrets> {
    secrets::exists(secrets).map(drop)
}

/// Has a command unpack an archive.
async fn unpack(sandbox: &Sandbox, mut command: Command, mut file: File) -> Result<(), EnvironmentError> {
    command.stdin = Stdin::Stream;
    let mut process = sandbox.spawn(command).await?;
    loop {
        let (read, piece);
        (file, read, piece) = spawn_blocking(move || {
            let mut piece = vec![0; PIECE];
            let read = io::Read::read(&mut file, &mut piece);
            (file, read, piece)
        })
        .await
        .map_err(io::Error::other)?;
        let piece = Bytes::from(piece).slice(..read?);
        // What ends early, as on a full disk, says why at its end.
        if piece.is_empty() || process.write(&piece).await.is_err() {
            break;
        }
    }
    let _ = process.close_stdin().await; // it has ended already
    let ended = process.wait().await?;
    if ended.exit == Exit::Code(0) {
        return Ok(());
    }
    let said = text::strip([&ended.output.head[..], &ended.output.tail[..]].concat());
    let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    Err(EnvironmentError::NotUnpacked(text::one_line(first, 200)))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
