//! Looks into a pack before it leaves: for what looks like a secret, and for files that are too large.
//!
//! Pure, and slow for large packs: it has to be called off the threads that serve. Every object is unpacked within a bound. Of an
//! object that is stored as a difference to another, what the difference brings is looked at: that is what is new in it.
//! Nothing is built from the objects, so that their names and order mean nothing here.

use flate2::{Decompress, FlushDecompress, Status};

use crate::{github::secrets, text};

/// The most bytes of one object.
const LARGEST: usize = 10 * 1024 * 1024;
/// The most bytes of all, unpacked.
const ALL: usize = 512 * 1024 * 1024;
/// The most objects.
const OBJECTS: u32 = 200_000;
/// Bytes that are unpacked at a time.
const PIECE: usize = 64 * 1024;

/// Why a pack stays here, for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPack {
    /// It is none, or not whole.
    #[error("its pack cannot be read")]
    Malformed,
    /// It holds more than is looked through.
    #[error("it brings more than is looked through: push fewer commits at a time")]
    Large,
    /// A file is too large; holds its size.
    #[error("a file in it has {}, and {} is the limit. Take it out of the commits that are pushed", text::human_bytes(*.0), text::human_bytes(LARGEST as u64))]
    Giant(u64),
    /// Something in it looks like a secret.
    #[error("a file or message in it holds what looks like {kind} (`{start}…`{}). Take it out of the commits that are pushed, not only of the last one; whoever owns it should replace it if it is real", in_line(*.line))]
    Secret {
        /// What it looks like.
        kind: &'static str,
        /// How it begins.
        start: &'static str,
        /// The line in the file, where that is known.
        line: Option<usize>,
    },
}

fn in_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// What an object is, as far as it matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A commit, a file or a tag: text of people.
    Whole,
    /// Names of files.
    Tree,
    /// A difference to another object.
    Delta,
}

/// Looks through a pack; an empty one is none at all. `id`: bytes of an object's id.
pub fn check(pack: &[u8], id: usize) -> Result<(), BadPack> {
    if pack.is_empty() {
        return Ok(());
    }
    let rest = pack.strip_prefix(b"PACK\0\0\0\x02").ok_or(BadPack::Malformed)?;
    let (count, mut rest) = rest.split_first_chunk::<4>().ok_or(BadPack::Malformed)?;
    let count = u32::from_be_bytes(*count);
    if count > OBJECTS {
        return Err(BadPack::Large);
    }
    let (mut inflate, mut object, mut all) = (Decompress::new(true), Vec::new(), 0);
    for _ in 0..count {
        let (kind, size, packed) = header(rest, id).ok_or(BadPack::Malformed)?;
        if size > LARGEST as u64 {
            return Err(if kind == Kind::Delta { BadPack::Large } else { BadPack::Giant(size) });
        }
        all += size as usize;
        if all > ALL {
            return Err(BadPack::Large);
        }
        inflate.reset(true);
        let taken = unpack(&mut inflate, packed, size as usize, &mut object).ok_or(BadPack::Malformed)?;
        rest = &packed[taken..];
        match kind {
            Kind::Tree => {}
            Kind::Whole => clean(&object, true)?,
            Kind::Delta => {
                let (result, brought) = brought(&object).ok_or(BadPack::Malformed)?;
                if result > LARGEST as u64 {
                    return Err(BadPack::Giant(result));
                }
                clean(&brought, false)?;
            }
        }
    }
    // What follows is the pack's own digest, which GitHub checks.
    if rest.len() == id { Ok(()) } else { Err(BadPack::Malformed) }
}

fn clean(text: &[u8], has_lines: bool) -> Result<(), BadPack> {
    match secrets::find(text) {
        None => Ok(()),
        Some(found) => {
            Err(BadPack::Secret { kind: found.kind, start: found.start, line: has_lines.then_some(found.line) })
        }
    }
}

/// Returns what an object is, its size, and where it begins.
fn header(bytes: &[u8], id: usize) -> Option<(Kind, u64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let (mut size, mut shift, mut more) = (u64::from(first & 0x0f), 4, first & 0x80 != 0);
    while more {
        let (next, after) = rest.split_first()?;
        // Five more bytes are two terabytes.
        if shift > 4 + 5 * 7 {
            return None;
        }
        size |= u64::from(next & 0x7f) << shift;
        (shift, more, rest) = (shift + 7, next & 0x80 != 0, after);
    }
    match (first >> 4) & 7 {
        1 | 3 | 4 => Some((Kind::Whole, size, rest)),
        2 => Some((Kind::Tree, size, rest)),
        6 => {
            let end = rest.iter().take(10).position(|byte| byte & 0x80 == 0)?;
            Some((Kind::Delta, size, &rest[end + 1..]))
        }
        7 => Some((Kind::Delta, size, rest.get(id..)?)),
        _ => None,
    }
}

/// Unpacks an object of exactly this size. Returns how many bytes it took.
fn unpack(inflate: &mut Decompress, packed: &[u8], size: usize, object: &mut Vec<u8>) -> Option<usize> {
    object.clear();
    loop {
        let from = inflate.total_in() as usize;
        // One byte more than it should be shows that it is more.
        object.reserve((size + 1 - object.len()).min(PIECE));
        let before = (inflate.total_in(), inflate.total_out());
        let status = inflate.decompress_vec(packed.get(from..)?, object, FlushDecompress::None).ok()?;
        if object.len() > size {
            return None;
        }
        match status {
            Status::StreamEnd => return (object.len() == size).then_some(inflate.total_in() as usize),
            _ if before == (inflate.total_in(), inflate.total_out()) => return None,
            _ => {}
        }
    }
}

/// Returns the size of what a difference makes, and what it brings itself, each run on a line of its own.
fn brought(delta: &[u8]) -> Option<(u64, Vec<u8>)> {
    let (_, rest) = number(delta)?;
    let (result, mut rest) = number(rest)?;
    let (mut brought, mut is_run) = (Vec::new(), false);
    while let Some((&op, after)) = rest.split_first() {
        match op {
            0 => return None,
            1..=0x7f => {
                let (new, after) = after.split_at_checked(op as usize)?;
                if !is_run {
                    brought.push(b'\n');
                }
                brought.extend_from_slice(new);
                (rest, is_run) = (after, true);
            }
            // A copy: a bit for each byte of its place and size that follows.
            0x80.. => (rest, is_run) = (after.get((op & 0x7f).count_ones() as usize..)?, false),
        }
    }
    Some((result, brought))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let end = bytes.iter().take(9).position(|byte| byte & 0x80 == 0)?;
    let number = bytes[..=end].iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 0x7f));
    Some((number, &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};
    use proptest::prelude::*;

    use super::*;

    fn deflated(content: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// An object with a size that may be a lie.
    fn object(kind: u8, size: u64, before: &[u8], content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![(kind << 4) | (size & 0x0f) as u8];
        let mut left = size >> 4;
        while left > 0 {
            *bytes.last_mut().unwrap() |= 0x80;
            bytes.push((left & 0x7f) as u8);
            left >>= 7;
        }
        bytes.extend_from_slice(before);
        bytes.extend(deflated(content));
        bytes
    }

    fn pack(objects: &[Vec<u8>]) -> Vec<u8> {
        let count = (objects.len() as u32).to_be_bytes();
        [b"PACK\0\0\0\x02".as_slice(), &count, &objects.concat(), &[7; 20]].concat()
    }

    fn whole(content: &[u8]) -> Vec<u8> {
        object(3, content.len() as u64, b"", content)
    }

    fn secret() -> String {
        let letters: String = ('a'..='z').chain('0'..='9').collect();
        format!("ghp_{letters}")
    }

    #[test]
    fn files_are_looked_through_whole_and_as_differences() {
        assert_eq!(check(b"", 20), Ok(()));
        let text = b"fn main() {}\n".repeat(9000);
        assert_eq!(check(&pack(&[whole(&text), object(2, 3, b"", b"abc"), whole(b"")]), 20), Ok(()));
        let bad = format!("a\nb = \"{}\"\n", secret());
        let found = |line| Err(BadPack::Secret { kind: "a GitHub token", start: "ghp_", line });
        assert_eq!(check(&pack(&[whole(&text), whole(bad.as_bytes())]), 20), found(Some(2)));
        // From 100 bytes to 150: copy 10 bytes, bring the secret in two pieces, copy again.
        let (one, other) = bad.as_bytes().split_at(20);
        let delta = [&[100, 0x96, 1, 0x90, 10][..], &[20], one, &[other.len() as u8], other, &[0x91, 5, 10]].concat();
        assert_eq!(brought(&delta), Some((150, format!("\n{bad}").into_bytes())));
        let by_offset = object(6, delta.len() as u64, &[0x81, 0x05], &delta);
        let by_name = object(7, delta.len() as u64, &[9; 20], &delta);
        assert_eq!(check(&pack(&[by_offset]), 20), found(None));
        assert_eq!(check(&pack(&[by_name]), 20), found(None));
    }

    #[test]
    fn giants_bombs_and_lies_are_refused() {
        let giant = vec![0; LARGEST + 1];
        assert_eq!(check(&pack(&[whole(&giant)]), 20), Err(BadPack::Giant(LARGEST as u64 + 1)));
        // A difference of a few bytes that makes a giant.
        let delta = [1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x90, 1];
        let small = object(7, delta.len() as u64, &[9; 20], &delta);
        assert!(matches!(check(&pack(&[small]), 20), Err(BadPack::Giant(_))));
        for bad in [
            pack(&[object(3, 5, b"", &giant)]),
            pack(&[object(3, 50, b"", b"short")]),
            pack(&[object(5, 1, b"", b"x")]),
            pack(&[object(3, 5, b"\xff\xff", b"x")]),
            [pack(&[whole(b"x")]), b"more".to_vec()].concat(),
            pack(&[whole(b"x")])[..20].to_vec(),
            b"PACK\0\0\0\x03\0\0\0\0".to_vec(),
            b"PACK".to_vec(),
        ] {
            assert_eq!(check(&bad, 20), Err(BadPack::Malformed));
        }
        let many = [b"PACK\0\0\0\x02".as_slice(), &u32::MAX.to_be_bytes()].concat();
        assert_eq!(check(&many, 20), Err(BadPack::Large));
    }

    proptest! {
        #[test]
        fn looking_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..8u8, size in 0..300u64) {
            let _ = check(&bytes, 20);
            let _ = check(&pack(&[object(kind, size, &[1; 20], &bytes)]), 20);
            let _ = brought(&bytes);
        }
    }
}
