//! The names of the directories of rooms' sockets, below `rooms/` in the state directory.
//!
//! The whole path of a socket has at most 108 bytes, so the names are short: 8 hex digits. So short a digest of the
//! room's id could be made to collide, since whoever makes rooms can try many ids: two rooms would share a directory,
//! and one could block the other's sandbox. So the name is random, and stored in a file that is named by the room's
//! long digest. Beside it lies the room's proof, for containers whose processes the kernel does not show: never in the
//! directory, which the container sees.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::ids::{Address, random};

/// The bytes of a proof, before they are written in hex.
const PROOF: usize = 32;

/// The most names that are tried until one is free.
const TRIES: usize = 100;

/// Returns the directory of a room's socket, which need not exist. The name is stored, since a container keeps its
/// mounts for life; if it cannot be stored, it holds until the server ends.
pub(super) fn directory(state_dir: &Path, address: &Address) -> PathBuf {
    let rooms = state_dir.join("rooms");
    let file = name_file(&rooms, address);
    if let Some(name) = fs::read_to_string(&file).ok().filter(|name| is_name(name)) {
        return rooms.join(name);
    }
    let name = earlier(&rooms, address).unwrap_or_else(|| free(&rooms));
    if let Err(error) = write_down(&file, &name) {
        tracing::warn!(%error, "the name of a room's directory cannot be written down");
    }
    rooms.join(name)
}

/// Returns the proof by which a room's sandboxd is known. It is made once and stored: a container is given it when it is
/// created, and keeps it for life. A lost one is made anew, and then the container is, as its spec changes.
pub(super) fn proof(state_dir: &Path, address: &Address) -> io::Result<String> {
    let file = name_file(&state_dir.join("rooms"), address).with_extension("proof");
    let is_proof = |text: &String| text.len() == 2 * PROOF && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if let Some(proof) = fs::read_to_string(&file).ok().filter(is_proof) {
        return Ok(proof);
    }
    let (proof, part) = (random(PROOF), file.with_extension("proof-part"));
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::options().write(true).create_new(true).mode(0o600).open(&part)?.write_all(proof.as_bytes())?;
    fs::rename(part, file)?;
    Ok(proof)
}

/// Removes a room's directory, its stored name and its proof.
pub(super) fn remove(state_dir: &Path, address: &Address, directory: &Path) -> io::Result<()> {
    fs::remove_dir_all(directory)?;
    let name = name_file(&state_dir.join("rooms"), address);
    match fs::remove_file(name.with_extension("proof")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::remove_file(name)
}

fn name_file(rooms: &Path, address: &Address) -> PathBuf {
    rooms.join(format!("{}.name", address.digest(16)))
}

fn is_name(name: &str) -> bool {
    name.len() == 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Returns the name that earlier versions gave the room, if its directory exists and belongs to no other room: a
/// running container has it mounted. Those versions knew only the first account.
fn earlier(rooms: &Path, address: &Address) -> Option<String> {
    let name = address.digest(4);
    (address.is_of_first() && rooms.join(&name).is_dir() && !names(rooms).contains(&name)).then_some(name)
}

/// Returns an unused name.
fn free(rooms: &Path) -> String {
    let taken = names(rooms);
    let is_free = |name: &String| !taken.contains(name) && fs::symlink_metadata(rooms.join(name)).is_err();
    std::iter::repeat_with(|| random(4)).take(TRIES).find(is_free).unwrap_or_else(|| random(4))
}

/// Returns all stored names.
fn names(rooms: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(rooms) else { return Vec::new() };
    let files = entries.flatten().map(|entry| entry.path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "name"));
    files.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Stores a name, whole or not at all.
fn write_down(file: &Path, name: &str) -> io::Result<()> {
    let part = file.with_extension("part");
    fs::write(&part, name)?;
    fs::rename(part, file)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        fs::create_dir(state.path().join("rooms")).unwrap();
        state
    }

    /// Returns two rooms with the same short digest.
    fn twins() -> (Address, Address) {
        let mut seen = HashMap::new();
        for number in 0.. {
            let room = Address::of_first(format!("!{number}"));
            if let Some(twin) = seen.insert(room.digest(4), room.clone()) {
                return (twin, room);
            }
        }
        unreachable!("short digests meet")
    }

    #[test]
    fn rooms_with_one_short_digest_have_directories_of_their_own() {
        let state = state();
        let (a, b) = twins();
        let own = directory(state.path(), &a);
        assert_ne!(own, directory(state.path(), &b));
        assert_eq!(directory(state.path(), &a), own, "it stays");
        assert_eq!(own.file_name().unwrap().len(), 8);
        assert_ne!(directory(self::state().path(), &a).file_name(), own.file_name(), "nobody can know it before");
    }

    #[test]
    fn a_directory_of_an_earlier_version_stays_with_one_room() {
        let state = state();
        let (a, b) = twins();
        let earlier = state.path().join("rooms").join(a.digest(4));
        fs::create_dir(&earlier).unwrap();
        assert_eq!(directory(state.path(), &a), earlier);
        assert_ne!(directory(state.path(), &b), earlier);
        remove(state.path(), &a, &earlier).unwrap();
        assert_ne!(directory(state.path(), &a), earlier, "once it is gone its name is a random one");
    }

    /// An earlier version's sandbox has the directory with the stored name mounted.
    #[test]
    fn a_name_that_an_earlier_version_wrote_down_holds() {
        let (state, room) = (state(), Address::of_first("!room:example.com"));
        let rooms = state.path().join("rooms");
        fs::write(rooms.join("7a1d4f8902a98e5a5b3dd81e5966a57c.name"), "0a1b2c3d").unwrap();
        assert_eq!(directory(state.path(), &room), rooms.join("0a1b2c3d"));
        let talk = Address { account: "talk".into(), ..room };
        assert_ne!(directory(state.path(), &talk), rooms.join("0a1b2c3d"), "that of another account is its own");
    }

    #[test]
    fn accounts_in_one_room_have_directories_of_their_own() {
        let (state, coder) = (state(), Address::of_first("!r:x"));
        let talk = Address { account: "talk".into(), ..coder.clone() };
        // This directory would be taken for an earlier version's.
        fs::create_dir(state.path().join("rooms").join(talk.digest(4))).unwrap();
        let (one, two) = (directory(state.path(), &coder), directory(state.path(), &talk));
        assert!(one != two && two.file_name().unwrap() != &*talk.digest(4), "{}", two.display());
        fs::create_dir(&one).unwrap();
        remove(state.path(), &coder, &one).unwrap();
        assert_eq!(directory(state.path(), &talk), two, "it stays when the other goes");
    }

    #[test]
    fn a_proof_stays_is_the_rooms_own_and_closed_to_others_and_goes_with_it() {
        use std::os::unix::fs::PermissionsExt;

        let (state, room) = (state(), Address::of_first("!r:x"));
        let own = proof(state.path(), &room).unwrap();
        assert_eq!((own.len(), &proof(state.path(), &room).unwrap()), (64, &own));
        assert_ne!(own, proof(state.path(), &Address::of_first("!s:x")).unwrap());
        let file = name_file(&state.path().join("rooms"), &room).with_extension("proof");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, "cut").unwrap();
        let anew = proof(state.path(), &room).unwrap();
        assert!(anew.len() == 64 && anew != own, "a damaged one is made anew");
        let directory = directory(state.path(), &room);
        assert!(!file.starts_with(&directory));
        fs::create_dir(&directory).unwrap();
        remove(state.path(), &room, &directory).unwrap();
        assert!(!file.exists());
    }

    #[test]
    fn a_name_that_is_damaged_leads_nowhere_else() {
        let state = state();
        let room = Address::of_first("!r:x");
        fs::write(name_file(&state.path().join("rooms"), &room), "../../etc").unwrap();
        assert_eq!(directory(state.path(), &room).parent(), Some(&*state.path().join("rooms")));
    }
}
