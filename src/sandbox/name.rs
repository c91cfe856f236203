//! The names of a room's container and volume.
//!
//! Pure functions of the room's address. The fleet takes the first candidate that is free; it finds the room again by
//! its label, never by its name.

use crate::ids::{Address, digest};

/// The longest name in bytes. A host name has at most 63, and people type these.
const MAX: usize = 63;

/// The prefix of every name, which tells an operator whose container it is.
const PREFIX: &str = "sandbox-";

/// Returns the names that a room may have, best first: the plain one; one that is unique to this account's room; one
/// that is also unique to this instance, since two servers on one Podman may know the same room.
pub(super) fn candidates(instance: &str, address: &Address) -> [String; 3] {
    let room = slug(address.room.as_str());
    let slug = if address.is_of_first() { room } else { slug(&format!("{}-{room}", address.account)) };
    [
        with_suffix(&slug, None, address),
        with_suffix(&slug, Some(&address.digest(4)), address),
        with_suffix(&slug, Some(&of_instance(instance, address)), address),
    ]
}

/// Returns a digest of a room at an instance.
fn of_instance(instance: &str, address: &Address) -> String {
    let Address { account, room } = address;
    let room = room.as_str();
    if address.is_of_first() { digest(&[instance, room], 4) } else { digest(&[instance, account, room], 4) }
}

/// Replaces characters that a container's name cannot have by `-`, and strips these at the ends: `!room:example.com`
/// becomes `room-example.com`.
fn slug(text: &str) -> String {
    let replaced: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' }).collect();
    replaced.trim_matches('-').to_owned()
}

/// Joins prefix, slug and suffix within [`MAX`]. A slug that is empty or must be cut identifies no room, so it always
/// gets a suffix.
fn with_suffix(slug: &str, suffix: Option<&str>, address: &Address) -> String {
    let own;
    let suffix = match suffix {
        Some(suffix) => suffix,
        None if slug.is_empty() || PREFIX.len() + slug.len() > MAX => {
            own = address.digest(4);
            &own
        }
        None => return format!("{PREFIX}{slug}"),
    };
    let space = MAX - PREFIX.len() - suffix.len() - 1;
    let cut = slug[..slug.len().min(space)].trim_end_matches(['-', '.']); // the slug is ASCII
    if cut.is_empty() { format!("{PREFIX}{suffix}") } else { format!("{PREFIX}{cut}-{suffix}") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn first(room: &str) -> String {
        candidates("i", &Address::of_first(room))[0].clone()
    }

    #[test]
    fn a_name_is_the_rooms_key_in_letters_that_podman_takes() {
        assert_eq!(first("!room:example.com"), "sandbox-room-example.com");
        assert_eq!(first("terminal:default"), "sandbox-terminal-default");
        assert_eq!(first("--a b--"), "sandbox-a-b");
    }

    #[test]
    fn rooms_with_one_slug_have_different_second_names() {
        let (one, two) = (Address::of_first("!a:b"), Address::of_first("!a-b"));
        let (a, b) = (candidates("i", &one), candidates("i", &two));
        assert_eq!(a[0], b[0]);
        assert_ne!(a[1], b[1]);
        assert!(a[1].starts_with("sandbox-a-b-"));
        assert_ne!(candidates("j", &one)[2], a[2]);
    }

    #[test]
    fn a_long_or_empty_slug_carries_the_rooms_digest() {
        let (a, b) = ("x".repeat(200), format!("{}y", "x".repeat(200)));
        assert_ne!(first(&a), first(&b));
        assert_eq!(first("🦀").len(), "sandbox-".len() + 8);
    }

    /// Earlier versions gave these names, and their containers and volumes still exist.
    #[test]
    fn the_names_of_the_first_account_are_those_of_ever() {
        let room = Address::of_first("!room:example.com");
        assert_eq!(
            candidates("i", &room),
            ["sandbox-room-example.com", "sandbox-room-example.com-7a1d4f89", "sandbox-room-example.com-2fa320dd",]
        );
        let long = format!("!{}", "x".repeat(60));
        assert_eq!(first(&long), format!("sandbox-{}-5756387d", "x".repeat(46)));
    }

    #[test]
    fn accounts_in_one_room_have_different_names() {
        let of = |account: &str| Address { account: account.into(), room: "!room:example.com".into() };
        let (coder, talk) = (candidates("i", &of("coder")), candidates("i", &of("talk")));
        assert_eq!(talk[0], "sandbox-talk-room-example.com");
        for (name, other) in talk.iter().zip(&coder) {
            assert_ne!(name, other);
        }
        // They differ even if an account's name has no character that a container's name can have.
        let (one, two) = (candidates("i", &of("🦀")), candidates("i", &of("🐙")));
        assert!(one[1] != two[1] && one[1] != coder[1] && one[2] != two[2] && one[2] != coder[2]);
    }

    proptest! {
        #[test]
        fn every_name_is_valid(account in ".{0,100}", room in ".{0,300}") {
            for name in candidates("instance", &Address { account, room: room.into() }) {
                prop_assert!(name.len() <= MAX && name.len() > PREFIX.len());
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)));
            }
        }
    }
}
