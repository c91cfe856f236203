//! What the capability tests share.

#![expect(dead_code, unreachable_pub, reason = "each test binary uses another part")]

pub mod bot;
pub mod coding_agents;
pub mod element;
pub mod forge;
pub mod github;
pub mod hosted;
pub mod looker;
pub mod person;
pub mod proxy;
pub mod replies;
pub mod rig;
pub mod scripted_llm;
pub mod seen;
pub mod synapse;
pub mod tls;
pub mod wire;

/// A scripted model, and a rig that asks it and has a bare sandbox.
pub fn scripted() -> (scripted_llm::ScriptedLlm, rig::Rig) {
    let llm = rig::block_on(scripted_llm::ScriptedLlm::start());
    let rig = rig::Rig::new(rig::BARE, llm.base_url());
    (llm, rig)
}
