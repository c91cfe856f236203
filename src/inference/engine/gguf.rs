//! Whether a file is a model in the form GGUF, as far as its first bytes tell. llama-server would say so too, but only in its log,
//! and some versions by dying.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use crate::ids;

/// Begins each such file, before its version.
const MAGIC: &[u8; 4] = b"GGUF";
/// The versions that llama.cpp reads.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=3;
/// Magic, version, and the numbers of tensors and of entries.
const HEAD: usize = 24;

/// Looks at a file; returns a digest of which file it is, which changes when another one takes its place. Blocks.
///
/// # Errors
///
/// It is no such file: a part of a sentence that says why.
pub(super) fn look(path: &Path) -> Result<String, String> {
    let shown = path.display();
    // A pipe that nobody writes to must not hold everything up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("{shown} does not exist"),
        _ => format!("{shown} cannot be read ({error})"),
    })?;
    let metadata = file.metadata().map_err(|error| format!("{shown} cannot be read ({error})"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no file"));
    }
    let mut head = [0; HEAD];
    file.read_exact(&mut head).map_err(|_| format!("{shown} is no GGUF file: it has only {} bytes", metadata.len()))?;
    if !head.starts_with(MAGIC) {
        return Err(format!("{shown} is no GGUF file"));
    }
    let version = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    if !VERSIONS.contains(&version) {
        let known = *VERSIONS.end();
        return Err(format!(
            "{shown} is a GGUF file of version {version}, and llama-server reads versions up to {known}"
        ));
    }
    let is = [metadata.ino(), metadata.len(), metadata.mtime().cast_unsigned(), metadata.mtime_nsec().cast_unsigned()];
    Ok(ids::digest(&[format!("{shown} {is:?}").as_str()], 8))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_is_told_from_one_that_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut good = b"GGUF\x03\0\0\0".to_vec();
        good.resize(64, 0);
        let look_at = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            look(&path)
        };
        let first = look_at(&good).unwrap();
        assert_eq!(look(&path).unwrap(), first);
        good.push(1);
        assert_ne!(look_at(&good).unwrap(), first, "it is another file");
        for (bytes, why) in [
            (&b""[..], "it has only 0 bytes"),
            (b"GGUF\x03\0\0", "it has only 7 bytes"),
            (b"<!DOCTYPE html><title>Not found</title>", "is no GGUF file"),
            (b"GGUF\x01\0\0\0 and so on and so forth", "of version 1"),
            (b"GGUF\0\0\0\x03 and so on and so forth", "of version 50331648"),
        ] {
            let told = look_at(bytes).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        assert!(look(folder.path()).unwrap_err().ends_with("is no file"));
        assert!(look(&folder.path().join("gone")).unwrap_err().ends_with("does not exist"));
    }
}
