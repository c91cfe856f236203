//! What sandboxd and the server say to each other: frames, messages, and the fixed places inside a container.
//!
//! The library half of sandboxd, linked into the server too, so that both ends share one definition. Knows no sockets,
//! no processes and no async runtime; the daemon itself is the binary beside it.

pub mod blob;
pub mod frame;
pub mod protocol;
