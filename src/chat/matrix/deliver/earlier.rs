//! Finds out what of a row has reached the room already, where its transaction ids no longer tell: after a long time,
//! or from another device.

use std::{collections::HashMap, time::Duration};

use matrix_sdk::{
    Room,
    deserialized_responses::{TimelineEvent, TimelineEventKind},
    room::MessagesOptions,
    ruma::{OwnedEventId, UInt},
};
use serde_json::Value;

use super::super::{send::KEY, trouble::Trouble};
use crate::store::Tried;

/// How long a homeserver surely remembers transaction ids; Synapse does for at least half an hour.
const REMEMBERED: Duration = Duration::from_mins(25);
/// Events on a page of the room's history, and the most pages that are read.
const PAGE: u32 = 250;
const PAGES: usize = 8;

/// The bot's own events in a room, as far back as they were looked for.
#[derive(Debug, Default)]
pub(super) struct Earlier {
    /// The events by their transaction id.
    sent: HashMap<String, OwnedEventId>,
    /// Events that another device of the bot has encrypted and this one cannot decrypt, with their relation, which is
    /// never encrypted.
    locked: Vec<(Value, OwnedEventId)>,
}

impl Earlier {
    /// Reads the room's history if a row was tried before and the homeserver may have forgotten its transaction ids.
    pub(super) async fn read(room: &Room, tried: Option<&Tried>, now: i64) -> Result<Self, Trouble> {
        let mut earlier = Self::default();
        let device = room.client().device_id().map(ToString::to_string).unwrap_or_default();
        let Some(tried) = tried else { return Ok(earlier) };
        // Of a time that is still to come nobody knows how long ago it was.
        let age = u64::try_from(now - tried.at).map_or(Duration::MAX, Duration::from_millis);
        if tried.device == device && age < REMEMBERED {
            return Ok(earlier);
        }
        let mut from = None;
        for _ in 0..PAGES {
            let mut page = MessagesOptions::backward().from(from.as_deref());
            page.limit = UInt::from(PAGE);
            let page = room.messages(page).await?;
            let more = !page.chunk.is_empty();
            for event in page.chunk {
                earlier.add(room, &event);
            }
            from = page.end.filter(|_| more);
            if from.is_none() {
                break;
            }
        }
        Ok(earlier)
    }

    fn add(&mut self, room: &Room, event: &TimelineEvent) {
        let json: Value = serde_json::from_str(event.raw().json().get()).unwrap_or_default();
        let Some(id) = event.event_id().filter(|_| json["sender"] == room.own_user_id().as_str()) else { return };
        if let Some(txn) = json["content"][KEY].as_str() {
            self.sent.insert(txn.to_owned(), id);
        } else if matches!(event.kind, TimelineEventKind::UnableToDecrypt { .. }) {
            self.locked.push((json["content"]["m.relates_to"].clone(), id));
        }
    }

    /// Returns the event that was sent under a transaction id; or one that cannot be decrypted and has the relation
    /// of `content`.
    pub(super) fn find(&self, txn: &str, content: &Value) -> Option<OwnedEventId> {
        let relation = &content["m.relates_to"];
        let replies = |known: &&(Value, OwnedEventId)| !relation.is_null() && known.0 == *relation;
        self.sent.get(txn).or_else(|| self.locked.iter().find(replies).map(|known| &known.1)).cloned()
    }
}
