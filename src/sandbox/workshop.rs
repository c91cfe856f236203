//! A workshop: a sandbox that belongs to no room, in which the server has something done for one, with that room's way
//! out and nothing of its files. It goes with all that is in it when nobody holds it any more. One that a killed server
//! has left belongs to no room that exists, so that the comparison with these removes it.

use std::sync::Arc;

use tracing::Instrument;

use super::{fleet::Fleet, life};
use crate::ids::{self, Address};

/// The account of all workshops: none that an operator sets up can have this name.
const ACCOUNT: &str = "+workshop";

/// A workshop, as long as this lives.
pub struct Workshop {
    fleet: Arc<Fleet>,
    address: Address,
}

impl Workshop {
    /// Opens one that works for `room`.
    pub(super) fn open(fleet: &Arc<Fleet>, room: &Address) -> Self {
        // A name of its own, since the removal of an earlier one may still be going on.
        let address = Address { account: ACCOUNT.to_owned(), room: ids::random(8).into() };
        fleet.workshops().insert(address.clone(), room.clone());
        Self { fleet: Arc::clone(fleet), address }
    }

    /// Returns by which address its sandbox is found, as a room's is.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        let (fleet, address) = (Arc::clone(&self.fleet), self.address.clone());
        let span = address.span();
        let removing = async move {
            if let Some(room) = fleet.known(&address) {
                match life::remove(&fleet, &room, true).await {
                    Ok(()) => drop(fleet.rooms().remove(&address)),
                    Err(error) => tracing::warn!(%error, "a workshop is not removed yet"),
                }
            }
            fleet.workshops().remove(&address);
        };
        self.fleet.supervise(removing.instrument(span));
    }
}
