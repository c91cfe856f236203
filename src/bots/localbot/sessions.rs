//! Sessions: the conversations that the rooms of the registry have with our bots, how many tokens they hold, and how
//! one begins anew.

use super::{Asker, LocalBot};
use crate::{
    ids::{Address, BotName, RoomKey},
    inference::{MappedRoom, Snapshot},
    store::{Conversation, StoreError},
    strings::localbot,
    text,
};

impl LocalBot {
    /// Returns how many of the rooms' conversations hold anything, and their tokens.
    pub(super) async fn sessions(&self, snapshot: &Snapshot) -> (usize, u64) {
        let (mut count, mut all) = (0, 0);
        for room in snapshot.rooms.iter() {
            let tokens = async { self.tokens(&self.conversation(room).await?).await };
            match tokens.await {
                Ok(tokens) => {
                    count += usize::from(tokens > 0);
                    all += tokens;
                }
                Err(error) => tracing::warn!(%error, "a session cannot be counted"),
            }
        }
        (count, all)
    }

    /// Begins the session of a room anew, and returns the reply.
    pub(super) async fn reset(&self, snapshot: &Snapshot, name: &str, asker: Asker) -> String {
        let sees = |room: &&MappedRoom| room.public || asker == Asker::Authorised;
        let Some(room) = snapshot.room(name) else {
            let rooms: Vec<_> = snapshot.rooms.iter().filter(sees).map(|room| room.name.as_str()).collect();
            return localbot::usage(&rooms);
        };
        if !sees(&room) {
            return localbot::NOT_YOURS.to_owned();
        }
        let (account, bot) = &room.agent;
        let known = self.bots.get().map_or(&[][..], Vec::as_slice);
        if !known.iter().any(|(of, name)| of == account && name.as_str() == bot) {
            let known: Vec<_> = known.iter().map(|(account, bot)| format!("`{account}/{bot}`")).collect();
            return localbot::no_such_bot(&room.name, &format!("{account}/{bot}"), &known.join(", "));
        }
        let cleared = async {
            let at = self.conversation(room).await?;
            let tokens = self.tokens(&at).await?;
            Ok::<_, StoreError>(self.store.end_conversation(&at).await?.then_some(tokens))
        };
        match cleared.await {
            Ok(Some(tokens)) => localbot::reset(&room.name, &text::short(tokens)),
            Ok(None) => localbot::busy(&room.name),
            Err(error) => localbot::not_reset(&error.to_string()),
        }
    }

    /// Returns a room's conversation, which after an upgrade is that of the room before it.
    async fn conversation(&self, room: &MappedRoom) -> Result<Conversation, StoreError> {
        let (account, bot) = &room.agent;
        let named = RoomKey::from(room.room.as_str());
        let moved = self.store.homes(account).await?.into_iter().find(|alias| alias.room == named);
        let home = moved.map_or(named, |alias| alias.home);
        let address = Address { account: account.clone(), room: home };
        Ok(Conversation { address, bot: BotName::from(bot.as_str()) })
    }

    async fn tokens(&self, at: &Conversation) -> Result<u64, StoreError> {
        let history = self.store.history(at).await?;
        let results = history
            .iter()
            .flat_map(|entry| entry.calls.iter().filter_map(|call| Some(call.ended.as_ref()?.text.as_str())));
        let messages: u64 = history.iter().map(|entry| estimate(&entry.message.to_string())).sum();
        Ok(messages + results.map(estimate).sum::<u64>())
    }
}

/// Returns about how many tokens a text has: a quarter of one for each ASCII character, a half for any other.
fn estimate(text: &str) -> u64 {
    let ascii = text.chars().filter(char::is_ascii).count() as u64;
    let others = text.chars().count() as u64 - ascii;
    ascii.div_ceil(4) + others.div_ceil(2)
}
