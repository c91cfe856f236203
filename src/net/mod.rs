//! How the program itself uses the network: which addresses are public, and the only constructors of HTTP clients.
//!
//! Knows no protocol above HTTP. Whoever makes requests calls [`client()`] or [`client_of`] and adds limits of its own;
//! `clippy.toml` forbids other ways to make a client. `gateway` checks a sandbox's destinations by the same
//! addresses.

mod address;
mod client;

pub(crate) use address::{is_own, is_plain, refusal};
pub use client::client;
pub(crate) use client::client_of;
