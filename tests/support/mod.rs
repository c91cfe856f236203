//! What the capability tests share.

#![expect(dead_code, unreachable_pub, reason = "each test binary uses another part")]

pub mod replies;
pub mod rig;
pub mod scripted_llm;
