//! What an inbound message means. Called by the hub's actors; knows no chat protocol and sends nothing itself.

mod coder;
mod intent;
mod jobs;
mod upload;

pub use coder::{Allowance, Coder, TurnJob};
pub use intent::{Command, Intent};
pub use upload::{Sent, Upload};
