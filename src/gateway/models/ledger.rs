//! What the requests of coding agents have cost, and whether they may cost more today.
//!
//! It must not know protocols. `serve` asks before a request goes out, and tells what it came to.

use super::{Grant, refusal::Refusal, usage::Tokens};
use crate::store::{AgentUsage, Store};

/// Where tokens are counted for good, and how many a day has.
///
/// What is under way is not counted yet: requests that are sent side by side can go past the end together, once.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Where they are counted.
    pub store: Store,
    /// Tokens a day of one room, whoever uses them.
    pub room: Option<u64>,
    /// Tokens a day at one person's word.
    pub person: Option<u64>,
}

impl Ledger {
    /// Refuses a request for which the day has no tokens left.
    pub(super) async fn permit(&self, grant: &Grant) -> Result<(), Refusal> {
        if self.room.is_none() && self.person.is_none() {
            return Ok(());
        }
        let Grant { address, person, .. } = grant;
        let (of_room, of_person) = self.store.spent_today(address, person.as_deref()).await.map_err(|error| {
            tracing::warn!(%error, "gateway: a budget cannot be looked up");
            Refusal::NoLedger
        })?;
        match (self.room, self.person) {
            (Some(limit), _) if of_room >= limit => {
                Err(Refusal::Budget { whose: "This room has", limit, setting: "ROOM_DAILY_TOKENS" })
            }
            (_, Some(limit)) if person.is_some() && of_person >= limit => {
                Err(Refusal::Budget { whose: "Whoever asked for this has", limit, setting: "USER_DAILY_TOKENS" })
            }
            _ => Ok(()),
        }
    }

    /// Counts a request.
    pub(super) fn add(&self, grant: &Grant, model: &str, tokens: Tokens) {
        let Grant { address, person, agent, .. } = grant.clone();
        let Tokens { input, cached, output } = tokens;
        self.store.add_agent_usage(AgentUsage {
            address,
            person,
            agent,
            model: model.to_owned(),
            input,
            cached,
            output,
        });
    }
}
