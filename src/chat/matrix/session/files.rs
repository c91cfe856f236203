//! The files of an account: its session, its secrets, and the folder of the SDK's store.
//!
//! Secrets have mode 0600 in a folder with 0700, and are written whole or not at all. The SDK creates its databases
//! by the umask: their folder is 0700 from the start, and the files get 0600 as soon as they exist.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use matrix_sdk::{authentication::matrix::MatrixSession, ruma::OwnedDeviceId};
use rand::RngCore;

use super::{Fault, SessionError};
use crate::{config, ids};

/// The SDK's databases that cannot be recreated.
const DATABASES: [&str; 2] = ["matrix-sdk-crypto.sqlite3", "matrix-sdk-state.sqlite3"];

/// The files of an account. Cheap to make.
#[derive(Clone, Debug)]
pub(super) struct Files {
    state_dir: PathBuf,
    account: String,
}

/// A stored session.
#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Saved {
    /// Whether the device has read its rooms, is signed, and its recovery key is stored.
    pub(super) ready: bool,
    /// The devices that this one replaces, until they are removed from the account.
    #[serde(default)]
    pub(super) lost: Vec<OwnedDeviceId>,
    /// What the SDK needs to restore it.
    #[serde(flatten)]
    pub(super) session: MatrixSession,
}

impl Files {
    pub(super) fn new(state_dir: &Path, account: &str) -> Self {
        Self { state_dir: state_dir.to_owned(), account: account.to_owned() }
    }

    /// Returns the folder of the SDK's databases.
    pub(super) fn store(&self) -> PathBuf {
        self.state_dir.join("matrix").join(&self.account)
    }

    /// Returns whether the SDK's databases exist. Without the one for keys the device is lost; without the one for
    /// state it would seem to be in no room.
    pub(super) fn has_store(&self) -> bool {
        DATABASES.iter().all(|name| self.store().join(name).exists())
    }

    /// Returns the session's file.
    pub(super) fn session(&self) -> PathBuf {
        self.secret("session.json")
    }

    /// Reads the session, if it is stored.
    pub(super) fn saved(&self) -> Result<Option<Saved>, SessionError> {
        let path = self.session();
        let Some(json) = read(&path)? else { return Ok(None) };
        serde_json::from_slice(&json).map(Some).map_err(|error| {
            SessionError::Setup(Fault::new(
                format!("{} is damaged ({error})", path.display()),
                "Remove it and set the account's password: it logs in anew, and its recovery key signs the new device",
            ))
        })
    }

    /// Stores a session.
    pub(super) fn save(&self, saved: &Saved) -> Result<(), SessionError> {
        let json = serde_json::to_vec(saved)
            .map_err(|error| SessionError::File { path: self.session(), source: error.into() })?;
        self.write(&self.session(), &json)
    }

    /// Returns the recovery key's file.
    pub(super) fn recovery_key_file(&self) -> PathBuf {
        self.secret("recovery-key")
    }

    /// Returns the id of the next device, which is stored before the homeserver hears of it: if a login is killed
    /// before its session is stored, the next login uses the same device.
    pub(super) fn next_device(&self) -> Result<OwnedDeviceId, SessionError> {
        let path = self.secret("next-device");
        let known = read(&path)?.and_then(|name| String::from_utf8(name).ok()).filter(|name| !name.is_empty());
        if let Some(name) = known {
            return Ok(name.into());
        }
        let name = ids::random(5).to_uppercase();
        self.write(&path, name.as_bytes())?;
        Ok(name.into())
    }

    /// Notes that the next device exists and its session is stored.
    pub(super) fn device_is_kept(&self) -> Result<(), SessionError> {
        remove(self.secret("next-device"))
    }

    /// Reads why the account could not be served, if that is stored.
    pub(super) fn refusal(&self) -> Result<Option<Vec<u8>>, SessionError> {
        read(&self.refusal_file())
    }

    /// Stores why the account cannot be served.
    pub(super) fn keep_refusal(&self, refusal: &[u8]) -> Result<(), SessionError> {
        self.write(&self.refusal_file(), refusal)
    }

    /// Removes what is stored of that.
    pub(super) fn forget_refusal(&self) -> Result<(), SessionError> {
        remove(self.refusal_file())
    }

    fn refusal_file(&self) -> PathBuf {
        self.secret("refusal.json")
    }

    /// Reads the recovery key, if it is stored.
    pub(super) fn recovery_key(&self) -> Result<Option<String>, SessionError> {
        let key = read(&self.recovery_key_file())?;
        Ok(key.map(|key| String::from_utf8_lossy(&key).trim().to_owned()).filter(|key| !key.is_empty()))
    }

    /// Stores the recovery key.
    pub(super) fn keep_recovery_key(&self, key: &str) -> Result<(), SessionError> {
        self.write(&self.recovery_key_file(), key.as_bytes())
    }

    /// Renames the file of a recovery key that opens nothing any more.
    pub(super) fn put_recovery_key_aside(&self) -> Result<(), SessionError> {
        let path = self.recovery_key_file();
        match fs::rename(&path, path.with_extension("old")) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SessionError::File { path, source }),
            _ => Ok(()),
        }
    }

    /// Returns the key of the store, created once. It is a raw key, since a passphrase would cost a slow derivation
    /// at each start.
    pub(super) fn store_key(&self) -> Result<[u8; 32], SessionError> {
        let path = self.secret("store-key");
        if let Some(key) = read(&path)? {
            return key.try_into().map_err(|_| {
                SessionError::Setup(Fault::new(
                    format!("{} does not hold 32 bytes", path.display()),
                    format!("Restore it, or move it and {} away: a new device is made then", self.store().display()),
                ))
            });
        }
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        self.write(&path, &key)?;
        Ok(key)
    }

    /// Creates the store's folder, for this user alone.
    pub(super) fn make_store(&self) -> Result<PathBuf, SessionError> {
        let store = self.store();
        private(&self.state_dir.join("matrix"))?;
        private(&store)?;
        Ok(store)
    }

    /// Removes the session and the SDK's databases. The recovery key stays: it signs a later device of the account.
    pub(super) fn forget(&self) -> Result<(), SessionError> {
        remove(self.session())?;
        self.device_is_kept()?;
        self.forget_refusal()?;
        remove(self.secret("store-key"))?;
        let store = self.store();
        match fs::remove_dir_all(&store) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SessionError::File { path: store, source }),
            _ => Ok(()),
        }
    }

    /// Gives the store's files mode 0600. Files that SQLite adds later get the mode of their database.
    pub(super) fn tighten_store(&self) -> Result<(), SessionError> {
        let store = self.store();
        let tighten = || {
            for file in fs::read_dir(&store)? {
                let path = file?.path();
                match fs::set_permissions(&path, fs::Permissions::from_mode(0o600)) {
                    // SQLite may remove files of its own at any time.
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        tighten().map_err(|source| SessionError::File { path: store.clone(), source })
    }

    /// Renames the store's folder, so that a new device begins with an empty one: a store belongs to one device. The
    /// old one stays for examination.
    pub(super) fn put_store_aside(&self) -> Result<(), SessionError> {
        let store = self.store();
        if !store.exists() {
            return Ok(());
        }
        let aside = store.with_extension("old");
        let fail = |source| SessionError::File { path: store.clone(), source };
        match fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
            _ => {}
        }
        fs::rename(&store, &aside).map_err(fail)?;
        tracing::warn!(folder = %aside.display(), "the keys of the last device were put aside");
        Ok(())
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.state_dir.join("secrets").join(format!("matrix-{}-{name}", self.account))
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), SessionError> {
        private(&self.state_dir.join("secrets"))?;
        let fresh = path.with_extension("new");
        let write = || {
            let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, path)
        };
        write().map_err(|source| SessionError::File { path: path.to_owned(), source })
    }
}

fn private(folder: &Path) -> Result<(), SessionError> {
    config::make_private(folder).map_err(|error| {
        let what = error.to_string();
        SessionError::Setup(Fault::new(what.trim_end_matches('.'), "Or set STATE_DIR to another directory"))
    })
}

fn remove(path: PathBuf) -> Result<(), SessionError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SessionError::File { path, source }),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, SessionError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SessionError::File { path: path.to_owned(), source }),
    }
}
