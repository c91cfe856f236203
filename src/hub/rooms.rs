//! Joining, leaving and upgrading rooms, and deleting what a left room leaves behind.
//!
//! Called by the chat protocol, which knows who is in which room. A room that was left keeps its files and its
//! conversation for the grace period ([`super::Retention::files`]); its container is removed at once. A removal that
//! fails (Podman is away) is tried again each minute.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::oneshot,
    time::{self, MissedTickBehavior},
};
use tracing::Instrument;

use super::{AccountHub, CardPlace, Fetch, MakeRoom, NotMade, Outbound, room::Mailbox, to_json};
use crate::{
    bots::{Bot, note_of_alias},
    ids::{self, Address, EventId, RoomKey},
    store::{LeftRoom, NewOutbox, RoomCounts, StoreError},
};

/// The pause between two sweeps of the rooms that were left.
const LOOK: Duration = Duration::from_mins(1);
/// How long somebody who comes back waits for a removal that is under way.
const COME_BACK: Duration = Duration::from_secs(10);
/// How long a protocol may take to make a room.
const MAKE: Duration = Duration::from_mins(1);

impl AccountHub {
    /// Notes that the account is in a room now. With `greet`, the first bot that has a greeting greets the room, once
    /// for each join: `joined` is the join event's id.
    pub async fn joined(&self, room: &RoomKey, joined: &EventId, greet: bool) -> Result<(), StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let txn = ids::digest(&[self.account(), room.as_str(), joined.as_str(), "greeting"], 16);
        let greeting = self.inner.bots.iter().filter(|_| greet).find_map(|bot| bot.greeting());
        let greeting = greeting
            .map(|text| {
                Ok::<_, StoreError>(NewOutbox {
                    txn,
                    payload: to_json(&Outbound::Notice { text, card: None })?,
                    file: None,
                })
            })
            .transpose()?;
        {
            // A removal that hangs must not keep people out.
            let _removal = time::timeout(COME_BACK, self.inner.leaving.lock()).await;
            self.inner.store.join(&home, room, joined, greeting).await?;
        }
        self.keep(&home);
        self.inner.outbox.wake(&home).await;
        Ok(())
    }

    /// Notes that nobody whom the account serves is left in a room, or that the account was removed from it. A
    /// running turn is stopped without an answer, and unsent rows are dropped. The container is removed at once,
    /// volume and files when the grace period is over; [`AccountHub::joined`] within that time keeps them. Leaving a
    /// room that another one has followed deletes nothing, since the newer room uses its home.
    pub async fn left(&self, room: &RoomKey) -> Result<(), StoreError> {
        let home = self.address(self.inner.homes.home(room));
        if self.inner.homes.current(&home.room) != *room {
            return self.inner.store.leave_old(self.account(), room).await;
        }
        self.name_room(room, None);
        let turns = self.inner.store.leave(&home, room).await?;
        if let Some(mail) = self.mailbox(&home.room) {
            mail.stop(&turns);
            mail.notify.notify_one();
        }
        self.inner.sweep.notify_one();
        Ok(())
    }

    /// Notes that a room was upgraded: sandbox and conversation of `from` belong to `to` from now on, and unsent rows
    /// go there. Nothing is taken over if `from` was encrypted once and `to` never was, or if `to` has a conversation
    /// of its own.
    pub async fn moved(&self, from: &RoomKey, to: &RoomKey) -> Result<(), StoreError> {
        let home = self.inner.homes.home(from);
        if self.inner.homes.home(to) == home {
            return Ok(());
        }
        let refused = if self.is_encrypted(from) && !self.is_encrypted(to) {
            Some("it is not encrypted, and the other one is")
        } else if self.inner.store.move_home(self.account(), from, to, &home).await? {
            None
        } else {
            Some("it has a conversation of its own already")
        };
        if let Some(why) = refused {
            if self.inner.homes.refuse(to) {
                tracing::warn!(%from, %to, why, "a room that is said to follow another takes nothing along");
            }
            return Ok(());
        }
        self.inner.homes.set(to, &home);
        if self.is_encrypted(to) {
            self.note_encrypted(to).await?;
        }
        tracing::info!(%from, %to, "the room was upgraded; its sandbox goes along");
        let home = self.address(home);
        self.wake(&home);
        self.inner.outbox.wake(&home).await;
        Ok(())
    }

    /// Notes that a room is encrypted. It counts as encrypted from now on, whatever a homeserver says later.
    pub async fn note_encrypted(&self, room: &RoomKey) -> Result<(), StoreError> {
        let rooms = vec![room.clone(), self.inner.homes.home(room)];
        self.inner.store.note_encrypted(self.account(), rooms.clone()).await?;
        self.inner.homes.encrypt(rooms);
        Ok(())
    }

    /// Returns whether a room, or the home that it uses, was encrypted once.
    pub fn is_encrypted(&self, room: &RoomKey) -> bool {
        self.inner.homes.is_encrypted(room)
    }

    /// Returns a room that is made for something, the same one however often it is asked for: in a protocol that can make
    /// rooms, with these people invited; else, or if it is nobody, at this machine, by its `short` name. `key` names it for ever and is not to be
    /// guessed, `name` is for people.
    pub async fn make_room(&self, short: &str, key: &str, name: &str, people: &[String]) -> Result<RoomKey, NotMade> {
        // A room to which nobody is invited is left at once.
        let Some(maker) = self.inner.ports.maker().filter(|_| !people.is_empty()) else {
            return self.inner.ports.local_room(short).ok_or(NotMade::Nowhere);
        };
        let (done, made) = oneshot::channel();
        let wanted = MakeRoom { key: key.to_owned(), name: name.to_owned(), people: people.to_vec(), done };
        let asked = async {
            let _ = maker.send(Fetch::Room(wanted)).await;
            made.await
        };
        // Without an answer it is asked for again, and found.
        time::timeout(MAKE, asked).await.map_or(Err(NotMade::Away), |made| made.unwrap_or(Err(NotMade::Away)))
    }

    /// Returns whether a bot works in the room in which the people of a home are, as far as can be told without asking anybody: what
    /// waits for a bot may come from a time in which it did.
    pub(super) async fn works_in(&self, bot: &dyn Bot, home: &Address) -> bool {
        let room = self.inner.homes.current(&home.room);
        if !self.inner.ports.is_remote(&home.room) || self.is_for_task(&room) {
            return true;
        }
        let (store, mut named) = (&self.inner.store, vec![]);
        for alias in bot.policy().aliases() {
            match store.noted(self.account(), &note_of_alias(alias)).await {
                Ok(led) => named.extend(led),
                Err(error) => {
                    tracing::warn!(alias, %error, "where an alias leads is not known");
                    return true;
                }
            }
        }
        let named: Vec<_> = named.iter().map(String::as_str).collect();
        bot.policy().opens(room.as_str(), &named)
    }

    /// Returns whether a room was made for a task.
    pub fn is_for_task(&self, room: &RoomKey) -> bool {
        let home = self.address(self.inner.homes.home(room));
        self.inner.rights.as_ref().is_some_and(|rights| rights.task(&home).is_some())
    }

    /// Tells a room something that answers nobody, once for each `txn`.
    pub async fn tell(&self, room: &RoomKey, txn: String, text: String) -> Result<(), StoreError> {
        self.post(room, txn, Outbound::Notice { text, card: None }).await
    }

    /// Says something in a thread of a room, or outside of threads, that answers nobody and calls people, once for each `txn`.
    pub async fn tell_in_thread(
        &self,
        room: &RoomKey,
        thread: Option<EventId>,
        txn: String,
        text: String,
    ) -> Result<(), StoreError> {
        let card = Some(CardPlace { thread, replaces: None, calls: None });
        self.post(room, txn, Outbound::Notice { text, card }).await
    }

    /// Says something in a room that answers nobody and calls `person`, once for each `txn`.
    pub async fn call(&self, room: &RoomKey, txn: String, text: String, person: String) -> Result<(), StoreError> {
        let card = Some(CardPlace { thread: None, replaces: None, calls: Some(person) });
        self.post(room, txn, Outbound::Notice { text, card }).await
    }

    async fn post(&self, room: &RoomKey, txn: String, outbound: Outbound) -> Result<(), StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let row = NewOutbox { txn, payload: to_json(&outbound)?, file: None };
        self.inner.store.post(&home, None, row).await?;
        self.inner.outbox.wake(&home).await;
        Ok(())
    }

    /// Returns the rooms in which the account is.
    pub async fn rooms(&self) -> Result<Vec<RoomKey>, StoreError> {
        self.inner.store.joined_rooms(self.account()).await
    }

    /// Returns in how many rooms each account of the server is, for those who look on.
    pub(crate) async fn room_counts(&self) -> Result<RoomCounts, StoreError> {
        self.inner.store.room_counts().await
    }

    /// Tells the keeper that a home may have a sandbox from now on, if one of the bots works in one. Never waits.
    pub(super) fn keep(&self, home: &Address) {
        if self.inner.bots.iter().any(|bot| bot.owns_sandbox()) {
            self.inner.keeper.keep(home);
        }
    }

    /// Sweeps the rooms that were left, each minute and when one is left, until the program ends.
    pub(super) async fn sweep(self) {
        let mut ticks = time::interval(LOOK); // ticks at once, then each time
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.inner.cancel.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.inner.sweep.notified() => {}
            }
            match self.inner.cancel.run_until_cancelled(self.look_at_left_rooms()).await {
                Some(Err(error)) => tracing::error!(%error, "rooms that were left could not be looked at"),
                Some(Ok(())) => {}
                None => return,
            }
        }
    }

    fn mailbox(&self, home: &RoomKey) -> Option<Arc<Mailbox>> {
        let actors = self.inner.actors.lock().unwrap_or_else(PoisonError::into_inner);
        actors.get(&self.address(home.clone())).cloned()
    }

    async fn look_at_left_rooms(&self) -> Result<(), StoreError> {
        for left in self.inner.store.left_rooms(self.account()).await? {
            let span = self.address(left.room.clone()).span();
            self.look_at_left_room(&left).instrument(span).await?;
        }
        Ok(())
    }

    async fn look_at_left_room(&self, left: &LeftRoom) -> Result<(), StoreError> {
        let store = &self.inner.store;
        let _nobody_comes_back = self.inner.leaving.lock().await;
        if !store.is_left(self.account(), &left.room).await? {
            return Ok(());
        }
        let home = self.inner.homes.home(&left.room);
        let grace = self.inner.keeper.grace().as_millis() as i64;
        let (now, is_believed) = (store.clock().millis(), store.clock().is_believed());
        if is_believed && left.since > now {
            // It was left while the clock was wrong.
            store.left_at_last(self.account(), &left.room).await?;
        }
        let over = left.cleared || is_over(left.since, now, is_believed, grace);
        // A turn that is just ending would write into what is cleared. Its actor wakes the sweep when it has ended.
        let works = self.mailbox(&home).is_some_and(|mail| mail.turn().is_some());
        if over && !works {
            self.clear(left, &home).await?;
        } else if let Err(error) = self.let_go(&home, false).await {
            tracing::warn!(error, "the container of a room that was left stays for now");
        }
        Ok(())
    }

    /// Deletes all that a left room has left behind.
    async fn clear(&self, left: &LeftRoom, home: &RoomKey) -> Result<(), StoreError> {
        let store = &self.inner.store;
        if !store.clear_room(&self.address(home.clone()), &left.room).await? {
            return Ok(());
        }
        if let Err(error) = self.let_go(home, true).await {
            tracing::warn!(error, "the files of a room that was left stay for now");
            return Ok(());
        }
        if let Some(rights) = &self.inner.rights {
            rights.revoke(&self.address(home.clone()), None).await?;
        }
        store.forget_room(self.account(), &left.room).await?;
        self.inner.homes.forget(home);
        self.inner.keeper.forget(&self.address(home.clone()));
        tracing::info!("the files and the conversation of a room that was left are deleted");
        Ok(())
    }

    /// Lets each bot remove what it holds for a home; `with_files` removes the volume too.
    async fn let_go(&self, home: &RoomKey, with_files: bool) -> Result<(), String> {
        let home = self.address(home.clone());
        for bot in self.inner.bots.iter() {
            bot.let_go(&home, with_files).await?;
        }
        Ok(())
    }
}

/// Returns whether the files of a room that was left `since` are kept no longer; a clock that was just set says nothing of that.
fn is_over(since: i64, now: i64, is_believed: bool, grace: i64) -> bool {
    is_believed && now - since >= grace
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_costs_no_left_room_its_files() {
        let (since, day) = (1_796_000_000_000, 24 * 60 * 60 * 1000);
        assert!(!is_over(since, since + day - 1, true, day));
        assert!(is_over(since, since + day, true, day));
        assert!(!is_over(since, since + 365 * day, false, day), "it was set a year ahead");
        assert!(!is_over(since, since - 365 * day, true, day));
    }
}
