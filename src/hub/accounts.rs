//! The accounts that are served now, for whoever looks after the whole server: which turns run, ending one, and letting none begin.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::broadcast;

use super::{AccountHub, Inner, LiveIn, WATCHED};
use crate::ids::{Address, RoomKey, TurnId};

/// The accounts of a server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Accounts {
    state: Arc<Mutex<State>>,
    /// Broadcasts the live events of all accounts, also of those that come later.
    live: broadcast::Sender<LiveIn>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { state: Arc::default(), live: broadcast::Sender::new(WATCHED) }
    }
}

#[derive(Default)]
struct State {
    /// Accounts end by themselves: those of cloud bots come and go.
    hubs: Vec<Weak<Inner>>,
    /// Whether no turn begins.
    draining: bool,
}

/// A turn that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    /// The account and the room.
    pub(crate) address: Address,
    /// The turn.
    pub(crate) turn: TurnId,
}

impl Accounts {
    /// Adds an account, before any of its rooms works.
    pub(super) fn add(&self, hub: &AccountHub) {
        let mut state = self.state();
        state.hubs.retain(|hub| hub.strong_count() > 0);
        state.hubs.push(Arc::downgrade(&hub.inner));
        if state.draining {
            hub.hold(true);
        }
    }

    /// Returns the accounts' names, in the order in which they came.
    pub(crate) fn names(&self) -> Vec<String> {
        self.hubs().iter().map(|hub| hub.account().to_owned()).collect()
    }

    /// Returns what people call the room in which those of a home are, if the account's protocol has told it.
    pub(crate) fn name_of(&self, home: &Address) -> Option<String> {
        self.hubs().iter().filter(|hub| hub.account() == home.account).find_map(|hub| hub.name_of(&home.room))
    }

    /// Returns a receiver of the live events of all accounts from now on. One that lags behind loses the oldest.
    pub(crate) fn watch(&self) -> broadcast::Receiver<LiveIn> {
        self.live.subscribe()
    }

    /// Shows a live event to whoever watches all accounts.
    pub(super) fn show(&self, shown: &LiveIn) {
        if self.live.receiver_count() > 0 {
            let _ = self.live.send(shown.clone());
        }
    }

    /// Returns the turns that run.
    pub(crate) fn running(&self) -> Vec<Running> {
        self.hubs().iter().flat_map(AccountHub::running).collect()
    }

    /// Stops the turn that runs in a room, as `!stop` does. Returns whether one ran.
    pub(crate) fn stop(&self, at: &Address) -> bool {
        self.hubs().iter().filter(|hub| hub.account() == at.account).any(|hub| hub.stop(&at.room))
    }

    /// Lets no turn begin from now on, or again. What people say meanwhile waits in the journal.
    pub(crate) fn drain(&self, draining: bool) {
        let mut state = self.state();
        state.draining = draining;
        for hub in live(&state) {
            hub.hold(draining);
        }
    }

    /// Returns whether no turn begins.
    pub(crate) fn is_draining(&self) -> bool {
        self.state().draining
    }

    fn hubs(&self) -> Vec<AccountHub> {
        live(&self.state()).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn live(state: &State) -> impl Iterator<Item = AccountHub> {
    state.hubs.iter().filter_map(Weak::upgrade).map(|inner| AccountHub { inner })
}

impl AccountHub {
    /// Lets no turn of its bots begin, or again.
    fn hold(&self, held: bool) {
        for bot in self.inner.bots.iter() {
            bot.permits().hold(held);
        }
    }

    /// Returns the turns that run in its rooms.
    fn running(&self) -> Vec<Running> {
        let actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let running = actors.iter().filter_map(|(address, mail)| {
            let turn = mail.turn()?;
            Some(Running { address: address.clone(), turn })
        });
        running.collect()
    }

    /// Stops the turn that runs in a room; returns whether one did.
    fn stop(&self, room: &RoomKey) -> bool {
        let home = self.address(self.inner.homes.home(room));
        let actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mail) = actors.get(&home) else { return false };
        let Some(turn) = mail.turn() else { return false };
        mail.stop(&[turn]);
        true
    }
}
