//! What an inbound message means. Called by the hub's actors; knows no chat protocol and sends nothing itself.

mod coder;

pub use coder::{Coder, Command, Intent, TurnJob};
