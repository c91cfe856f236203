//! What a room's container and volume are called.
//!
//! Pure functions over the room's key; knows nothing of Podman and of what exists. The fleet asks for the candidates
//! in order and takes the first that is free, then finds the room again by its label, never by its name.

use crate::ids::{RoomKey, digest};

/// Longest name given out. A host name has 63 bytes at most, and people type these.
const MAX: usize = 63;

/// Put before every name, so that an operator sees whose container it is.
const PREFIX: &str = "sandbox-";

/// Returns the names that `room` may have, best first: the plain one, then one that only this room has, then one that
/// only this room of this instance has (two servers on one Podman may know the same room).
pub(super) fn candidates(instance: &str, room: &RoomKey) -> [String; 3] {
    let slug = slug(room.as_str());
    [
        with_suffix(&slug, None, room),
        with_suffix(&slug, Some(&digest(&[room.as_str()], 4)), room),
        with_suffix(&slug, Some(&digest(&[instance, room.as_str()], 4)), room),
    ]
}

/// Replaces what a container's name cannot hold by `-` and strips it at the ends: `!room:example.com` becomes
/// `room-example.com`.
fn slug(text: &str) -> String {
    let replaced: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' }).collect();
    replaced.trim_matches('-').to_owned()
}

/// Joins prefix, slug and suffix within [`MAX`]. A slug that had to be cut, or of which nothing is left, says too
/// little: it always gets a suffix.
fn with_suffix(slug: &str, suffix: Option<&str>, room: &RoomKey) -> String {
    let room_digest;
    let suffix = match suffix {
        Some(suffix) => suffix,
        None if slug.is_empty() || PREFIX.len() + slug.len() > MAX => {
            room_digest = digest(&[room.as_str()], 4);
            &room_digest
        }
        None => return format!("{PREFIX}{slug}"),
    };
    let space = MAX - PREFIX.len() - suffix.len() - 1;
    let cut = slug[..slug.len().min(space)].trim_end_matches(['-', '.']); // the slug is ASCII: any byte is a boundary
    if cut.is_empty() { format!("{PREFIX}{suffix}") } else { format!("{PREFIX}{cut}-{suffix}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(room: &str) -> String {
        candidates("i", &room.into())[0].clone()
    }

    #[test]
    fn a_name_is_the_rooms_key_in_letters_that_podman_takes() {
        assert_eq!(first("!room:example.com"), "sandbox-room-example.com");
        assert_eq!(first("terminal:default"), "sandbox-terminal-default");
        assert_eq!(first("--a b--"), "sandbox-a-b");
    }

    #[test]
    fn rooms_with_one_slug_have_different_second_names() {
        let (a, b) = (candidates("i", &"!a:b".into()), candidates("i", &"!a-b".into()));
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
        assert!(a[1].starts_with("sandbox-a-b-"));
        assert_ne!(candidates("j", &"!a:b".into())[2], a[2]);
    }

    #[test]
    fn a_long_or_empty_slug_carries_the_rooms_digest() {
        let (a, b) = ("x".repeat(200), format!("{}y", "x".repeat(200)));
        assert_ne!(first(&a), first(&b));
        assert_eq!(first("🦀").len(), "sandbox-".len() + 8);
    }

    proptest! {
        #[test]
        fn every_name_is_valid(room in ".{0,300}") {
            for name in candidates("instance", &room.as_str().into()) {
                prop_assert!(name.len() <= MAX && name.len() > PREFIX.len());
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
            }
        }
    }
}
