//! What a pass is given for. The log of the gateway tells it too.

use crate::{
    ids::{Address, TurnId},
    ledger::Spender,
};

/// For whom and for what a pass is.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The room in which alone it is valid.
    pub address: Address,
    /// The turn, for the log.
    pub turn: TurnId,
    /// Whose word it follows, by his chat protocol's name; `None` where nobody's.
    pub person: Option<String>,
    /// The agent, by the name under which its tokens are counted: `qwen`.
    pub agent: String,
    /// Which run of it. The same run gets the same token again, so that one that outlives the server can go on.
    pub run: String,
}

impl Grant {
    /// Returns who uses the tokens of a request to a model.
    pub(super) fn spender(&self, model: &str) -> Spender {
        let Self { address, person, agent, .. } = self.clone();
        Spender { address, person, agent, model: model.to_owned() }
    }
}
