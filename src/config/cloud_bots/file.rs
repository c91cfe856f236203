//! The files of cloud bots: found by name, and read only if nobody else can read or change them.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use super::super::Wrong;
use crate::text;

/// The largest file, in bytes.
const LARGEST: u64 = 64 << 10;

/// Returns the names of the files that are meant to be a bot's, in order.
pub(super) fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    let is_meant = |name: &OsString| {
        let name = name.as_encoded_bytes();
        name.starts_with(super::BEGINS.as_bytes()) && name.ends_with(super::ENDS.as_bytes())
    };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        names.extend(Some(entry?.file_name()).filter(is_meant));
    }
    names.sort();
    Ok(names)
}

/// Returns a file's name as it is shown.
pub(in crate::config) fn shown(path: &Path) -> String {
    text::one_line(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy(), 80)
}

/// Reads a file, unless others could have read or written it.
pub(in crate::config) fn text(path: &Path) -> Result<String, Wrong> {
    let read = || {
        let file = open(path)?;
        let metadata = file.metadata()?;
        if let Some(wrong) = open_to_others(path, &metadata) {
            return Ok(Err(wrong));
        }
        let mut bytes = Vec::new();
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
        Ok(Ok(bytes))
    };
    let bytes = read().map_err(|error: io::Error| unreadable(&error))??;
    if bytes.len() as u64 > LARGEST {
        let what = format!("the file is larger than {}", text::human_bytes(LARGEST));
        return Err(Wrong::new(what, "Keep only the bot's settings in it"));
    }
    let no_text = || Wrong::new("the file is no text", "Write `KEY = value` lines in UTF-8, or remove it");
    let text = String::from_utf8(bytes).map_err(|_| no_text())?;
    if text.contains('\0') { Err(no_text()) } else { Ok(text) }
}

/// Opens a file for reading. A pipe to which nobody writes holds nothing up.
pub(in crate::config) fn open(path: &Path) -> io::Result<fs::File> {
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// Returns what to do about something that is no file.
pub(in crate::config) fn no_file(path: &Path) -> Wrong {
    Wrong::new("it is no file", format!("Remove {}, and write a file there", path.display()))
}

fn open_to_others(path: &Path, metadata: &fs::Metadata) -> Option<Wrong> {
    let shown = path.display();
    if !metadata.is_file() {
        return Some(no_file(path));
    }
    let us = nix::unistd::geteuid().as_raw();
    if ![0, us].contains(&metadata.uid()) {
        let what = format!("it belongs to user {}, who could change it", metadata.uid());
        return Some(Wrong::new(what, format!("chown {us} {shown}")));
    }
    let mode = metadata.mode() & 0o7777;
    (mode & 0o077 != 0).then(|| {
        let what = format!("other users of this machine may read the secrets in it (mode {mode:03o})");
        Wrong::new(what, format!("chmod 600 {shown}"))
    })
}

/// Returns what to do about a file or folder that cannot be read.
pub(in crate::config) fn unreadable(error: &io::Error) -> Wrong {
    match error.kind() {
        io::ErrorKind::NotFound => Wrong::new("there is no such file", "Write it, or name the one that is meant"),
        io::ErrorKind::IsADirectory => Wrong::new("it is a folder", "Name a file"),
        _ => {
            Wrong::new(format!("it cannot be read ({error})"), "Check that it belongs to the user who runs the server")
        }
    }
}

/// Writes a file that is there whole or not at all, and that nobody else reads.
pub(in crate::config) fn write(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)
}
