//! The filter of `/sync`, and what a timeline tells besides messages. Pure.

use matrix_sdk::{
    Room,
    ruma::{
        UInt, UserId,
        api::client::filter::{Filter as EventFilter, FilterDefinition, LazyLoadOptions, RoomEventFilter, RoomFilter},
    },
};
use serde_json::Value;

use super::history::HistoryEvent;
use crate::bots::Policies;

/// Events of one room in one answer; more are fetched from the room's history.
const TIMELINE: u32 = 100;

/// Returns where in a timeline the bot joined the room. A change of its display name looks like a join but is none.
pub(super) fn joined_at(timeline: &[HistoryEvent], room: &Room) -> Option<usize> {
    timeline.iter().rposition(|told| {
        let event: Value = serde_json::from_str(told.event.raw().json().get()).unwrap_or_default();
        event["type"] == "m.room.member"
            && event["state_key"] == room.own_user_id().as_str()
            && event["content"]["membership"] == "join"
            && event["unsigned"]["prev_content"]["membership"] != "join"
    })
}

/// What happened in a room besides messages.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Whether a person whom the bot hears has left.
    pub(super) departed: bool,
    /// Whether the power levels have changed.
    pub(super) rights: bool,
}

impl News {
    pub(super) fn of(timeline: &[HistoryEvent], policies: &Policies) -> Self {
        let mut news = Self::default();
        for told in timeline {
            let event: Value = serde_json::from_str(told.event.raw().json().get()).unwrap_or_default();
            let Some(key) = event["state_key"].as_str() else { continue };
            let (kind, membership) = (event["type"].as_str(), event["content"]["membership"].as_str());
            news.rights |= kind == Some("m.room.power_levels");
            news.departed |= kind == Some("m.room.member")
                && matches!(membership, Some("leave" | "ban"))
                && UserId::parse(key).is_ok_and(|user| policies.hears(user.as_str()));
        }
        news
    }
}

/// Returns the filter of the sync requests.
pub(in crate::chat::matrix) fn filter() -> FilterDefinition {
    let mut timeline = RoomEventFilter::default();
    timeline.limit = Some(UInt::from(TIMELINE));
    let mut state = RoomEventFilter::default();
    state.lazy_load_options = LazyLoadOptions::Enabled { include_redundant_members: false };
    let mut room = RoomFilter::default();
    room.timeline = timeline;
    room.state = state;
    room.ephemeral = RoomEventFilter::ignore_all();
    let mut filter = FilterDefinition::default();
    filter.room = room;
    filter.presence = EventFilter::ignore_all();
    filter
}
