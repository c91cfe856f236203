//! Where files of settings are looked for: the user's own directory, then the system's, and nowhere else.
//!
//! The working directory is not among them. Settings name programs to start and addresses to send keys to, so whoever
//! prepares a directory (a repository, an archive) could otherwise take over the program of somebody who runs it
//! there. Files in the working directory are only reported, so that nobody wonders why they have no effect.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

/// The name of the file of `KEY = value` lines.
pub(super) const ENV_FILE: &str = ".env";
/// The name of the file of structured settings.
pub(super) const FILE: &str = "matrix-agent.toml";
/// The directory of the service's settings.
const SYSTEM: &str = "/etc/matrix-agent";

/// A file of settings that was not read although somebody might expect it. `Display` says why and how it can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unread {
    path: PathBuf,
    /// The command-line option that reads it.
    option: &'static str,
    why: &'static str,
}

impl Unread {
    /// Returns the option with the path, as it would be typed.
    pub fn mend(&self) -> String {
        format!("`{} {}` reads it", self.option, self.path.display())
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not read: {}", self.path.display(), self.why)
    }
}

impl Serialize for Unread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.path.display())
    }
}

/// The sources of settings.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The environment variables.
    pub environment: BTreeMap<OsString, OsString>,
    /// The directories of settings, the most specific one first. Only the first one with a `.env` or a
    /// `matrix-agent.toml` is read, so that an address from one directory never meets a secret from another.
    pub folders: Vec<PathBuf>,
    /// A file that replaces `.env`; it must exist.
    pub env_file: Option<PathBuf>,
    /// A file that replaces `matrix-agent.toml`; it must exist.
    pub file: Option<PathBuf>,
    /// The working directory. The two paths above may be relative to it; nothing else in it is read.
    pub working_directory: PathBuf,
    /// Whether the program runs as root, on which some defaults depend.
    pub root: bool,
}

impl Sources {
    /// Returns the usual sources for a process with this environment.
    pub fn new(environment: BTreeMap<OsString, OsString>, working_directory: PathBuf, root: bool) -> Self {
        let mut sources =
            Self { environment, folders: Vec::new(), env_file: None, file: None, working_directory, root };
        let configuration = sources.path("XDG_CONFIG_HOME").or_else(|| Some(sources.path("HOME")?.join(".config")));
        sources.folders.extend(configuration.map(|folder| folder.join("matrix-agent")));
        sources.folders.push(SYSTEM.into());
        sources
    }

    /// Returns the sources of this process, with the files that were named on the command line.
    pub fn of_process(env_file: Option<PathBuf>, file: Option<PathBuf>) -> io::Result<Self> {
        let usual =
            Self::new(std::env::vars_os().collect(), std::env::current_dir()?, nix::unistd::geteuid().is_root());
        Ok(Self { env_file, file, ..usual })
    }

    /// Returns a foreign variable, such as `HOME`, if it is set to an absolute path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        let value = PathBuf::from(self.environment.get(&OsString::from(name))?);
        value.is_absolute().then_some(value)
    }

    /// Returns the directory that is read: the first with a file of settings.
    pub(super) fn folder(&self) -> Option<&Path> {
        self.folders.iter().map(PathBuf::as_path).find(|folder| {
            [ENV_FILE, FILE].iter().map(|name| folder.join(name)).any(|path| exists(&path) && !self.is_closed(&path))
        })
    }

    /// Returns the path of a file in the directory that is read, or beside the file that replaces `.env`; `None` if there is neither.
    pub fn beside(&self, name: &str) -> Option<PathBuf> {
        let named = self.env_file.as_ref().map(|file| self.working_directory.join(file));
        let folder = named.as_deref().map_or_else(|| self.folder(), Path::parent);
        folder.map(|folder| folder.join(name))
    }

    /// Returns the files that somebody might expect to be read: those in the working directory, and the service's if
    /// only root can read them.
    pub(super) fn unread(&self) -> Vec<Unread> {
        let same = |one: &Path, other: &Path| {
            fs::canonicalize(one).is_ok_and(|one| fs::canonicalize(other).is_ok_and(|other| one == other))
        };
        let files = [(ENV_FILE, "--env-file", &self.env_file), (FILE, "--config-file", &self.file)];
        let mut unread = Vec::new();
        for (name, option, named) in files {
            let here = self.working_directory.join(name);
            let read = match named {
                Some(named) => Some(self.working_directory.join(named)),
                None => self.folder().map(|folder| folder.join(name)),
            };
            if exists(&here) && !read.as_deref().is_some_and(|read| same(read, &here)) {
                let why = "a folder is not obeyed because the program runs in it";
                unread.push(Unread { path: here, option, why });
            }
            let closed = self.folders.iter().map(|folder| folder.join(name)).filter(|path| self.is_closed(path));
            let why = "it is the service's, and this user may not read it";
            unread.extend(closed.map(|path| Unread { path, option, why }).filter(|_| named.is_none()));
        }
        unread
    }

    /// Returns whether a file is the service's and this user may not read it, which is no mistake.
    fn is_closed(&self, path: &Path) -> bool {
        let denied = || File::open(path).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
        !self.root && path.starts_with(SYSTEM) && denied()
    }
}

/// Returns whether there is anything of this name. A link that leads nowhere counts: it is a mistake, not a missing
/// file.
fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
