//! What is asked of the program's own replacement, and what became of it: small files in a directory that the server shares with
//! whoever replaces it, who must not be the server itself. Each is there whole or not at all, also after a power cut.
//!
//! The server writes requests and reads the rest; the other side (`ops::redeploy`) is a process of its own.

mod files;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ids::{EventId, RoomKey};

/// Why a file there could not be used.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Another replacement was asked for and has not ended.
    #[error(
        "Another update is under way. Wait until it has ended; `matrix-agent redeploy --check` tells how far it is."
    )]
    Busy,
    /// A file is not what this program has written.
    #[error("{} cannot be read: {cause}. Put it aside; the next update writes it anew.", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// The system refused it.
    #[error("{} cannot be used: {cause}.", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: std::io::Error,
    },
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Names it and all that comes of it.
    pub id: String,
    /// What is wanted.
    pub wanted: Wanted,
    /// Who is told what became of it.
    #[serde(default)]
    pub tell: Vec<Tell>,
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Wanted {
    /// To know what an update would bring.
    Look,
    /// This commit in place of what runs.
    Commit {
        /// All 40 digits.
        commit: String,
        /// Whether it may be another one than the newest of the configured branch: an operator has named it.
        #[serde(default)]
        named: bool,
    },
    /// What ran before in place of what runs.
    Back,
}

/// A place where people are told something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tell {
    /// The account.
    pub account: String,
    /// Its room.
    pub room: RoomKey,
    /// The thread in which it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<EventId>,
}

/// What an update would bring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The request's id.
    pub id: String,
    /// What was found.
    pub found: Found,
}

/// What a look has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Found {
    /// What runs is the newest.
    Newest {
        /// Its commit.
        commit: String,
    },
    /// There is something newer.
    Newer(Newer),
    /// It cannot be done.
    Refused {
        /// Why, in sentences.
        why: String,
    },
}

/// A newer version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newer {
    /// Its commit, all 40 digits.
    pub commit: String,
    /// The first line of the commit's message.
    pub subject: String,
    /// The commits that it brings, newest first, each in a line; at most a few.
    pub commits: Vec<String>,
    /// How many it brings.
    pub count: usize,
    /// The commit that serves.
    #[serde(default)]
    pub from: String,
}

/// How far a replacement has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What was asked for.
    pub request: Request,
    /// The commit that is to serve; empty if nobody knows.
    pub commit: String,
    /// The first line of its message.
    #[serde(default)]
    pub subject: String,
    /// The commit that served at the beginning; empty if nobody knows.
    #[serde(default)]
    pub from: String,
    /// The step that is under way.
    pub step: Step,
    /// How often it was begun.
    pub begun: u32,
    /// The digest of the program that served at the beginning.
    pub old: String,
    /// The digest of the new one, once it is there.
    #[serde(default)]
    pub new: Option<String>,
    /// The image that goes with it, if one does.
    #[serde(default)]
    pub image: Option<Image>,
    /// The accounts for which messages went both ways over Matrix before the switch, and have to go so after it.
    #[serde(default)]
    pub over_matrix: Vec<String>,
    /// Why it goes back, if it does.
    #[serde(default)]
    pub why: Option<String>,
    /// How it ended.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}

/// The sandboxes' image of a replacement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The name that sandboxes are made from.
    pub name: String,
    /// The new image's name until then.
    pub tag: String,
    /// The id of the image that bore the name before, if there was one.
    pub before: Option<String>,
}

/// The steps, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Program and image are made.
    Build,
    /// The new program works on a copy.
    Try,
    /// It takes the old one's place.
    Switch,
    /// It has to become ready.
    Await,
    /// The old one takes its place again.
    Back,
    /// All is done.
    Ended,
}

/// How a replacement ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Outcome {
    /// The new one serves.
    Done {
        /// What is still to be done by hand.
        #[serde(default)]
        note: Option<String>,
    },
    /// Nothing was changed: the old one has served all the time.
    Kept {
        /// Why, in sentences.
        why: String,
    },
    /// The new one has failed, and the old one serves again.
    Back {
        /// Why, in sentences.
        why: String,
    },
    /// Neither serves.
    Stuck {
        /// Why, in sentences.
        why: String,
    },
}

/// Which commits the programs were made of; empty where nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The replacement after which it was noted.
    pub id: String,
    /// That of the program that serves.
    pub commit: String,
    /// That of the program before.
    pub before: String,
}

/// What people were told of a replacement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its request's id.
    pub id: String,
    /// That it is built and tried.
    pub built: bool,
    /// How it ended.
    pub ended: bool,
}

/// The directory. Its methods block for as long as small files take.
#[derive(Clone, Debug)]
pub struct Updates {
    folder: PathBuf,
}

impl Updates {
    /// Returns the directory's place in a state directory.
    pub fn of(state: &Path) -> Self {
        Self { folder: state.join("redeploy") }
    }

    /// Returns it if it is there: whoever installs the service makes it, and has systemd watch it.
    pub fn set_up(self) -> Option<Self> {
        self.folder.is_dir().then_some(self)
    }

    /// Returns the directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// Something else was asked for and has not ended.
    pub fn ask(&self, request: &Request) -> Result<(), UpdateError> {
        files::make(&self.file("request.json"), request)
    }

    /// Returns what is asked for.
    pub fn asked(&self) -> Result<Option<Request>, UpdateError> {
        files::read(&self.file("request.json"))
    }

    /// Takes away what was asked for, readable or not: it is done.
    pub fn answered(&self) -> Result<(), UpdateError> {
        files::remove(&self.file("request.json"))
    }

    /// Returns the last plan.
    pub fn plan(&self) -> Result<Option<Plan>, UpdateError> {
        files::read(&self.file("plan.json"))
    }

    /// Keeps a plan in place of the last one.
    pub fn keep_plan(&self, plan: &Plan) -> Result<(), UpdateError> {
        files::write(&self.file("plan.json"), plan)
    }

    /// Returns how far the last replacement has come.
    pub fn record(&self) -> Result<Option<Record>, UpdateError> {
        files::read(&self.file("record.json"))
    }

    /// Keeps how far it has come; on the disk when this returns.
    pub fn keep_record(&self, record: &Record) -> Result<(), UpdateError> {
        files::write(&self.file("record.json"), record)
    }

    /// Returns what people were told.
    pub fn said(&self) -> Result<Option<Said>, UpdateError> {
        files::read(&self.file("said.json"))
    }

    /// Keeps what people were told.
    pub fn keep_said(&self, said: &Said) -> Result<(), UpdateError> {
        files::write(&self.file("said.json"), said)
    }

    /// Returns which commits a replacement has left, if there was one.
    pub fn installed(&self) -> Result<Option<Installed>, UpdateError> {
        files::read(&self.file("installed.json"))
    }

    /// Keeps which commits there are.
    pub fn keep_installed(&self, installed: &Installed) -> Result<(), UpdateError> {
        files::write(&self.file("installed.json"), installed)
    }
}
