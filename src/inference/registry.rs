//! The registry: three files, read when they are needed and again when they have changed. A file with a mistake keeps
//! what it said before.

use std::{
    fs::{self, Metadata, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    entries::{self, Endpoint, LocalModel, MappedRoom},
    fields::Faults,
};
use crate::strings::localbot;

/// The file of the inference servers.
pub const ENDPOINTS: &str = "inference-endpoints.json";
/// The file of the models.
pub const MODELS: &str = "localbot-models.json";
/// The file of the rooms.
pub const ROOMS: &str = "localbot-rooms.json";
/// The largest file in bytes.
const LARGEST: u64 = 1 << 20;

/// The registry. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry {
    folder: Arc<Path>,
    files: Arc<Mutex<Files>>,
}

#[derive(Debug, Default)]
struct Files {
    endpoints: Kept<Endpoint>,
    models: Kept<LocalModel>,
    rooms: Kept<MappedRoom>,
}

/// What a file said when it was last without a mistake.
#[derive(Debug)]
struct Kept<T> {
    /// Which state of the file was read; `None`: none yet.
    read: Option<Stamp>,
    good: Arc<[T]>,
    mistakes: Vec<String>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { read: None, good: Arc::new([]), mistakes: vec![] }
    }
}

/// What changes when a file does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Stamp {
    File {
        inode: u64,
        size: u64,
        changed: (i64, i64),
    },
    /// It cannot be looked at.
    Missing(io::ErrorKind),
}

impl Stamp {
    fn of(found: &io::Result<Metadata>) -> Self {
        match found {
            Ok(file) => Self::File { inode: file.ino(), size: file.size(), changed: (file.ctime(), file.ctime_nsec()) },
            Err(error) => Self::Missing(error.kind()),
        }
    }
}

/// What the registry says now.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The inference servers, the first ones first.
    pub endpoints: Arc<[Endpoint]>,
    /// The models.
    pub models: Arc<[LocalModel]>,
    /// The rooms.
    pub rooms: Arc<[MappedRoom]>,
    /// What is wrong in the files, each a sentence with the file's name.
    pub mistakes: Vec<String>,
}

impl Registry {
    /// Returns the registry of a folder, which may hold none of the files.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder: folder.into(), files: Arc::default() }
    }

    /// Returns the folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads what has changed and returns what holds.
    pub fn read(&self) -> Snapshot {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.endpoints.refresh(&self.folder.join(ENDPOINTS), entries::endpoints);
        files.models.refresh(&self.folder.join(MODELS), entries::models);
        files.rooms.refresh(&self.folder.join(ROOMS), entries::rooms);
        let told =
            [(ENDPOINTS, &files.endpoints.mistakes), (MODELS, &files.models.mistakes), (ROOMS, &files.rooms.mistakes)];
        let mut mistakes: Vec<_> = told
            .into_iter()
            .flat_map(|(file, mistakes)| mistakes.iter().map(move |mistake| format!("{file}: {mistake}")))
            .collect();
        let known = |id: &str| files.endpoints.good.iter().any(|endpoint| endpoint.id == id);
        for model in files.models.good.iter() {
            if let Some(id) = model.endpoint.as_deref().filter(|id| !known(id)) {
                mistakes.push(format!("{MODELS}: {}: there is no endpoint `{id}`", model.alias));
            }
        }
        Snapshot {
            endpoints: files.endpoints.good.clone(),
            models: files.models.good.clone(),
            rooms: files.rooms.good.clone(),
            mistakes,
        }
    }

    /// Returns whether everybody in a room may begin it anew.
    pub fn is_public(&self, room: &str) -> bool {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.rooms.refresh(&self.folder.join(ROOMS), entries::rooms);
        files.rooms.good.iter().any(|mapped| mapped.public && mapped.room == room)
    }
}

impl<T> Kept<T> {
    fn refresh(&mut self, path: &Path, parse: impl Fn(&str, &mut Faults) -> Vec<T>) {
        let stamp = Stamp::of(&fs::metadata(path));
        if self.read.as_ref() == Some(&stamp) {
            return;
        }
        self.read = Some(stamp);
        let mut faults = Faults::default();
        let entries = match text(path) {
            Ok(text) => parse(&text, &mut faults),
            // A file that was removed says nothing any more.
            Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
            Err(error) => {
                faults.add("", format_args!("it cannot be read: {error}"));
                vec![]
            }
        };
        self.mistakes = faults.into_sentences();
        if self.mistakes.is_empty() {
            self.good = entries.into();
            return;
        }
        tracing::warn!(file = %path.display(), mistakes = ?self.mistakes, "a file of the registry has mistakes");
        if !self.good.is_empty() {
            self.mistakes.push(localbot::KEPT.to_owned());
        }
    }
}

fn text(path: &Path) -> io::Result<String> {
    // A pipe that nobody writes to must not hold everything up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

impl Snapshot {
    /// Returns the model that people mean: its alias, else its name there, else the only alias that begins so.
    pub fn model(&self, said: &str) -> Result<&LocalModel, NotOne> {
        let said = said.trim();
        let exact = |model: &&LocalModel| model.alias.eq_ignore_ascii_case(said);
        let named =
            |model: &&LocalModel| super::names::same(&model.file, said) || model.name.eq_ignore_ascii_case(said);
        if let Some(model) = self.models.iter().find(exact).or_else(|| self.models.iter().find(named)) {
            return Ok(model);
        }
        let begins = |model: &&LocalModel| {
            !said.is_empty() && model.alias.get(..said.len()).is_some_and(|start| start.eq_ignore_ascii_case(said))
        };
        let near: Vec<_> = self.models.iter().filter(begins).collect();
        match near[..] {
            [model] => Ok(model),
            [] => Err(NotOne::Unknown),
            _ => Err(NotOne::Several(near.iter().map(|model| model.alias.clone()).collect())),
        }
    }

    /// Returns the room of this name.
    pub fn room(&self, name: &str) -> Option<&MappedRoom> {
        self.rooms.iter().find(|room| room.name.eq_ignore_ascii_case(name))
    }
}

/// Why a name means no model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotOne {
    /// None has it.
    Unknown,
    /// These begin so.
    Several(Vec<String>),
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
