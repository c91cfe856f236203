//! What an inbound message means. Called by the hub's actors; knows no chat protocol and sends nothing itself.

mod coder;
mod upload;

pub use coder::{Allowance, Coder, Command, Intent, TurnJob};
pub use upload::{Sent, Upload};
