//! sandboxd and the server's end of its connection, in real containers.

mod commands;
mod room;
mod spool;
mod wire;
