//! The pictures that models are shown, in files named by their hash, one folder for each account's room. A
//! conversation contains their names; a missing file is shown as a note.
//!
//! Bounded: a room's least recently shown pictures are removed first. `!new` and deleting a room remove the folder.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use crate::{
    clock::Clock,
    ids::{Address, hex, random},
};

/// The most pictures of a room.
const MOST: usize = 40;
/// The most bytes of a room's pictures.
const MOST_BYTES: u64 = 48 << 20;
/// A picture that was shown or kept within this time may belong to a message that is not stored yet.
const SETTLED: Duration = Duration::from_hours(1);

/// The pictures of all rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gallery {
    folder: PathBuf,
}

impl Gallery {
    /// Returns the gallery in a folder, which is created when it is first needed.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Stores a picture of a room; returns its name.
    pub async fn keep(&self, address: &Address, data: Bytes) -> io::Result<String> {
        let folder = self.room(address);
        off_the_async_threads(move || {
            let name = name_of(&data);
            put(&folder, &name, &data)?;
            bound(&folder)?;
            Ok(name)
        })
        .await
    }

    /// Returns those of a room's pictures that exist, and marks them as shown now.
    pub async fn read(&self, address: &Address, names: Vec<String>) -> HashMap<String, Bytes> {
        let folder = self.room(address);
        let found = off_the_async_threads(move || {
            let found = names.into_iter().filter_map(|name| {
                let data = read(&folder, &name)?;
                Some((name, data))
            });
            Ok(found.collect())
        });
        found.await.unwrap_or_default()
    }

    /// Returns the names of a room's pictures, except for those that may belong to a message that is not stored yet.
    pub async fn settled(&self, address: &Address) -> Vec<String> {
        let folder = self.room(address);
        off_the_async_threads(move || Ok(settled(&folder))).await.unwrap_or_default()
    }

    /// Removes pictures of a room. One that cannot be removed stays until there are too many.
    pub async fn remove(&self, address: &Address, names: Vec<String>) {
        let folder = self.room(address);
        let removed = off_the_async_threads(move || {
            for name in names.iter().filter(|name| is_name(name)) {
                let _ = fs::remove_file(folder.join(name));
            }
            Ok(())
        });
        let _ = removed.await;
    }

    /// Removes all pictures of a room.
    pub async fn clear(&self, address: &Address) -> io::Result<()> {
        let folder = self.room(address);
        off_the_async_threads(move || match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        })
        .await
    }

    fn room(&self, address: &Address) -> PathBuf {
        self.folder.join(address.digest(16))
    }
}

async fn off_the_async_threads<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

fn name_of(data: &[u8]) -> String {
    hex(&Sha256::digest(data)[..16])
}

fn put(folder: &Path, name: &str, data: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let path = folder.join(name);
    if fs::exists(&path)? {
        return touch(&path);
    }
    // Written under another name until it is complete.
    let unfinished = folder.join(format!("{name}.{}", random(4)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(data).and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

fn is_name(name: &str) -> bool {
    name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn settled(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let now = Clock::default().file_date();
    let settled = entries.flatten().filter_map(|entry| {
        let age = now.duration_since(entry.metadata().ok()?.modified().ok()?).ok()?;
        let name = entry.file_name().into_string().ok()?;
        (age >= SETTLED && is_name(&name)).then_some(name)
    });
    settled.collect()
}

fn read(folder: &Path, name: &str) -> Option<Bytes> {
    // Names come from the conversation, so only names that this file could have made are opened.
    if !is_name(name) {
        return None;
    }
    let path = folder.join(name);
    let data = fs::read(&path).ok()?;
    // A picture that cannot be marked as shown is only removed earlier.
    let _ = touch(&path);
    (name_of(&data) == name).then(|| data.into())
}

fn touch(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.set_modified(Clock::default().file_date())
}

/// Removes the least recently shown pictures beyond the limits, and unfinished files of a crash.
fn bound(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let about = entry.metadata()?;
        files.push((about.modified()?, about.len(), entry.path()));
    }
    files.sort_by_key(|file| std::cmp::Reverse(file.0));
    let mut bytes = 0;
    for (index, (_, size, path)) in files.into_iter().enumerate() {
        bytes += size;
        // The newest stays, whatever its size.
        if index > 0 && (index >= MOST || bytes > MOST_BYTES) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::PermissionsExt};

    use super::*;

    fn gallery() -> (tempfile::TempDir, Gallery, Address) {
        let folder = tempfile::tempdir().unwrap();
        let gallery = Gallery::new(folder.path().join("pictures"));
        (folder, gallery, Address::of_first("!a:example.org"))
    }

    #[tokio::test]
    async fn pictures_are_found_again_in_their_room_alone_and_read_by_nobody_else() {
        let (_folder, gallery, room) = gallery();
        let name = gallery.keep(&room, Bytes::from_static(b"one")).await.unwrap();
        assert_eq!(gallery.keep(&room, Bytes::from_static(b"one")).await.unwrap(), name, "once");
        let found = gallery.read(&room, vec![name.clone(), "../../etc/passwd".into(), "0".repeat(32)]).await;
        assert_eq!(found, HashMap::from([(name.clone(), Bytes::from_static(b"one"))]));
        assert!(gallery.read(&Address::of_first("!b:example.org"), vec![name.clone()]).await.is_empty());
        let (folder, file) = (gallery.room(&room), gallery.room(&room).join(&name));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&file)), (0o700, 0o600));
        fs::write(&file, b"another").unwrap();
        assert!(gallery.read(&room, vec![name]).await.is_empty(), "what was changed is not it any more");
        gallery.clear(&room).await.unwrap();
        assert!(!folder.exists());
        gallery.clear(&room).await.unwrap();
    }

    /// Earlier versions left pictures there, whose names are still in conversations.
    #[test]
    fn the_folder_of_the_first_account_is_that_of_ever() {
        let (_folder, gallery, _) = gallery();
        let folder = gallery.room(&Address::of_first("!room:example.com"));
        assert_eq!(folder, gallery.folder.join("7a1d4f8902a98e5a5b3dd81e5966a57c"));
    }

    #[tokio::test]
    async fn accounts_in_one_room_see_their_own_pictures_alone() {
        let (_folder, gallery, coder) = gallery();
        let talk = Address { account: "talk".into(), ..coder.clone() };
        let name = gallery.keep(&coder, Bytes::from_static(b"one")).await.unwrap();
        assert!(gallery.read(&talk, vec![name.clone()]).await.is_empty());
        gallery.keep(&talk, Bytes::from_static(b"one")).await.unwrap();
        gallery.clear(&coder).await.unwrap();
        assert!(gallery.read(&coder, vec![name.clone()]).await.is_empty());
        assert_eq!(gallery.read(&talk, vec![name]).await.len(), 1, "it is still there");
    }

    #[tokio::test]
    async fn the_least_recently_shown_go_first() {
        let (_folder, gallery, room) = gallery();
        let mut names = Vec::new();
        for n in 0..MOST {
            let name = gallery.keep(&room, Bytes::from(format!("picture {n}"))).await.unwrap();
            // The file system's clock may be too coarse to tell them apart.
            let shown = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64);
            let file = OpenOptions::new().write(true).open(gallery.room(&room).join(&name)).unwrap();
            file.set_modified(shown).unwrap();
            names.push(name);
        }
        assert_eq!(gallery.read(&room, vec![names[0].clone()]).await.len(), 1);
        gallery.keep(&room, Bytes::from_static(b"one more")).await.unwrap();
        let left = gallery.read(&room, names.clone()).await;
        assert_eq!(left.len(), MOST - 1);
        assert!(left.contains_key(&names[0]) && !left.contains_key(&names[1]), "the first was shown again");
    }

    #[test]
    fn a_few_large_ones_are_too_much_as_well() {
        let folder = tempfile::tempdir().unwrap();
        for (n, size) in [MOST_BYTES / 2, MOST_BYTES / 2, 1, MOST_BYTES * 2].into_iter().enumerate() {
            let path = folder.path().join(n.to_string());
            let file = File::create(&path).unwrap();
            file.set_len(size).unwrap(); // sparse: takes no disk space
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(n as u64)).unwrap();
            bound(folder.path()).unwrap();
            let left = |n: usize| folder.path().join(n.to_string()).exists();
            match n {
                2 => assert_eq!([0, 1, 2].map(left), [false, true, true], "the oldest is one byte too much"),
                3 => assert_eq!(
                    [0, 1, 2, 3].map(left),
                    [false, false, false, true],
                    "the newest stays, whatever its size"
                ),
                _ => assert!(left(n)),
            }
        }
    }

    #[tokio::test]
    async fn what_is_removed_by_name_lay_there_a_while() {
        let (_folder, gallery, room) = gallery();
        let mut names = Vec::new();
        for (text, age) in [("old", 2 * SETTLED), ("also old", 2 * SETTLED), ("new", Duration::ZERO)] {
            let name = gallery.keep(&room, Bytes::from(text)).await.unwrap();
            let file = OpenOptions::new().write(true).open(gallery.room(&room).join(&name)).unwrap();
            file.set_modified(Clock::default().file_date() - age).unwrap();
            names.push(name);
        }
        let mut settled = gallery.settled(&room).await;
        settled.sort();
        let mut old = names[..2].to_vec();
        old.sort();
        assert_eq!(settled, old);
        gallery.remove(&room, vec![names[0].clone(), "../../etc/passwd".into()]).await;
        let left = gallery.read(&room, names.clone()).await;
        assert_eq!((left.len(), left.contains_key(&names[0])), (2, false));
        assert_eq!(gallery.settled(&Address::of_first("!other:example.org")).await, Vec::<String>::new());
    }
}
