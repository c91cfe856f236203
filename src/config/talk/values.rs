//! The parsers of settings that only the Nextcloud Talk bot has.

use std::net::{IpAddr, Ipv4Addr};

use super::super::{
    Wrong,
    cloud_bots::values::name,
    parse::{self, Parsed, quote},
};

/// The longest name of a user, in bytes, as Nextcloud has it.
const LONGEST_USER: usize = 64;
/// The longest token of a conversation, in bytes.
const LONGEST_TOKEN: usize = 64;

/// An address to listen at.
pub(super) fn host(value: &str) -> Parsed<IpAddr> {
    if value == "localhost" {
        return Ok(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    value.parse().map_err(|_| {
        Wrong::new(format!("{} is not an IP address", quote(value)), "Write the address alone, such as `127.0.0.1`")
    })
}

/// A name by which people call the bot, with or without `@` before it.
pub(super) fn called(value: &str) -> Parsed<String> {
    let called = name(value.trim_start_matches('@'))?;
    if called.starts_with(char::is_alphanumeric) {
        return Ok(called);
    }
    Err(Wrong::new(
        format!("{} is no name", quote(value)),
        "Write the name under which the bot is installed, as `Halo`",
    ))
}

/// Names of users in Nextcloud, which may hold blanks. None at all is everybody or nobody, as the setting says.
pub(super) fn users(value: &str) -> Parsed<Vec<String>> {
    let value = parse::words(value)?;
    if value.trim() == "none" {
        return Ok(Vec::new());
    }
    let names: Vec<_> = value.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let is_name = |name: &str| {
        let plain = |c: char| c.is_alphanumeric() || "_.@-' ".contains(c);
        name.len() <= LONGEST_USER && name.chars().all(plain)
    };
    match names.iter().find(|name| !is_name(name)) {
        None if names.is_empty() => Err(Wrong::new("the list is empty", "Write `none` if that is meant")),
        None => Ok(names),
        Some(wrong) => Err(Wrong::new(
            format!("{} is no name of a Nextcloud user", quote(wrong)),
            "Write the names with which they log in, parted by commas, such as `ada, grace`",
        )),
    }
}

/// Tokens of conversations.
pub(super) fn tokens(value: &str) -> Parsed<Vec<String>> {
    let tokens = parse::list(value)?;
    let is_token =
        |token: &String| token.len() <= LONGEST_TOKEN && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match tokens.iter().find(|token| !is_token(token)) {
        None => Ok(tokens),
        Some(wrong) => Err(Wrong::new(
            format!("{} is no token of a conversation", quote(wrong)),
            "It is what stands behind `/call/` in the conversation's address, such as `n3xtc10ud`",
        )),
    }
}
