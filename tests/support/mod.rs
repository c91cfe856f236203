//! What the capability tests share.

#![expect(dead_code, unreachable_pub, reason = "each test binary uses another part")]

pub mod bot;
pub mod element;
pub mod hosted;
pub mod person;
pub mod proxy;
pub mod replies;
pub mod rig;
pub mod scripted_llm;
pub mod seen;
pub mod synapse;
pub mod wire;
