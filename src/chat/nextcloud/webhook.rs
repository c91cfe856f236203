//! The webhook: what Nextcloud has signed and what is new goes into the journal, and only then it is told that it has arrived.
//! Nextcloud tells everything once, waits five seconds, and takes 200 and 202 for good.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body as HttpBody, Bytes},
    http::{HeaderMap, HeaderValue, Response, StatusCode},
    routing::post,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use super::{
    Talk,
    activity::{self, Activity, Message, Quote},
    room_of,
};
use crate::{
    bots::Addressed,
    crash,
    http::{Pages, told},
    hub::{AccountHub, Author, Body, Inbound, NotQuoted, Quoted},
    ids::{self, EventId, RoomKey},
    store::StoreError,
};

/// The most bytes of a body: a message of 32,000 characters and the one to which it replies, each as JSON within JSON.
const LARGEST: usize = 2 << 20;
/// The paths at which the webhook is taken on a server of its own. The operator writes the address when the bot is installed.
const PATHS: [&str; 2] = ["/", "/webhook"];
/// The path on a server with other pages.
pub(crate) const PATH: &str = "/webhook/nextcloud-talk";
/// How a note on the message to which somebody replies begins.
const QUOTE: &str = "quote";
/// The note that holds the bot's own id.
const OWN: &str = "own id";

/// Returns the pages of the webhook: on a server with others at [`PATH`] alone.
pub(super) fn pages(talk: &Arc<Talk>, alone: bool) -> Pages {
    let mut router = Router::new();
    for path in PATHS.into_iter().filter(|_| alone).chain([PATH]) {
        let talk = Arc::clone(talk);
        let take = move |headers: HeaderMap, body: Bytes| {
            let talk = Arc::clone(&talk);
            async move { talk.take(&headers, &body).await }
        };
        router = router.route(path, post(take));
    }
    Pages { path: if alone { "/" } else { PATH }, private: false, largest: LARGEST, router }
}

impl Talk {
    async fn take(&self, headers: &HeaderMap, body: &[u8]) -> Response<HttpBody> {
        let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes).unwrap_or_default();
        let signature = std::str::from_utf8(header("x-nextcloud-talk-signature")).unwrap_or_default();
        if !self.api.has_signed(header("x-nextcloud-talk-random"), body, signature) {
            tracing::warn!("a request to the webhook was not signed with the bot's secret");
            return told(StatusCode::UNAUTHORIZED, "The request is not signed with this bot's secret.");
        }
        let taken = match activity::read(body) {
            Ok(Activity::Said(message)) => self.said(message, body).await,
            Ok(Activity::Joined { conversation, own, called }) => {
                self.moved(&conversation, Some((&own, &called)), signature).await
            }
            Ok(Activity::Left { conversation }) => self.moved(&conversation, None, signature).await,
            Ok(Activity::Other) => Ok(Taken::Nothing),
            Err(error) => {
                tracing::warn!(%error, "a signed request to the webhook cannot be read");
                return told(StatusCode::BAD_REQUEST, &format!("Nothing was done: {error}."));
            }
        };
        match taken {
            Ok(Taken::New) => told(StatusCode::ACCEPTED, "It is taken."),
            Ok(Taken::Nothing) => told(StatusCode::OK, "There is nothing to do about it."),
            Ok(Taken::Known) => {
                tracing::warn!("a request to the webhook came again");
                told(StatusCode::CONFLICT, "This was taken before.")
            }
            Err(error) => {
                tracing::error!(%error, "what Nextcloud tells cannot be stored");
                told(StatusCode::SERVICE_UNAVAILABLE, "It cannot be stored now.")
            }
        }
    }

    /// Takes a message.
    async fn said(&self, message: Message, body: &[u8]) -> Result<Taken, StoreError> {
        let hub = self.hub(&message.conversation);
        if message.is_bots() || !hub.policies().hears(&message.who) {
            return Ok(Taken::Nothing);
        }
        let room = room_of(&message.conversation);
        let span = hub.address(room.clone()).span();
        let event = event_of(message.id, body);
        self.admit(hub, room, event, message).instrument(span).await
    }

    async fn admit(
        &self,
        hub: &AccountHub,
        room: RoomKey,
        event: EventId,
        message: Message,
    ) -> Result<Taken, StoreError> {
        let Message { conversation, called, who, text, quote, .. } = message;
        let mut replied = false;
        if let Some(quote) = &quote {
            replied = self.is_own(hub, quote).await?;
            let noted = json!({"who": quote.who, "own": replied, "text": quote.text});
            hub.note(&quote_key(&room, &quote.id.to_string()), &noted.to_string()).await?;
        }
        if !self.has_seen(&room) {
            // What is repeated must not bring a conversation back that was left.
            if hub.knows(&event).await? {
                return Ok(Taken::Known);
            }
            // The bot may have been added while the server was away, or removed and added again.
            hub.joined(&room, &EventId::from("seen"), false).await?;
            self.see(&room);
        }
        let addressed = Addressed { mentioned: self.direct.contains(&conversation), replied, ..Addressed::default() };
        let about = quote.map(|quote| EventId(quote.id.to_string()));
        let body = Body::Said { text, thread: None, about, addressed };
        let inbound = Inbound { room: room.clone(), event, sender: who, body, sealed: None };
        let new = hub.admit(vec![inbound], None).await?;
        crash::point("taken");
        // What comes again may have an old name.
        if !new.is_empty() {
            hub.name_room(&room, Some(&called));
        }
        Ok(if new.is_empty() { Taken::Known } else { Taken::New })
    }

    /// Notes that the bot was added to a conversation, with its own id and the conversation's name, or removed from it. Nothing in the request tells two of
    /// these apart but its signature.
    async fn moved(&self, conversation: &str, own: Option<(&str, &str)>, signature: &str) -> Result<Taken, StoreError> {
        let (hub, room) = (self.hub(conversation), room_of(conversation));
        let digest = ids::digest(&[&signature.to_ascii_lowercase()], 16);
        let key = format!("hook {digest}");
        if hub.noted(&key).await?.is_some() {
            return Ok(Taken::Known);
        }
        let span = hub.address(room.clone()).span();
        if let Some((own, called)) = own {
            span.in_scope(|| tracing::info!("the bot was added to the conversation"));
            self.standing.forgive(conversation);
            hub.note(OWN, own).await?;
            hub.joined(&room, &EventId(digest), true).await?;
            hub.name_room(&room, Some(called));
            self.see(&room);
        } else {
            span.in_scope(|| tracing::info!("the bot was removed from the conversation"));
            self.forget(&room);
            hub.left(&room).await?;
        }
        hub.note(&key, "").await?;
        Ok(Taken::New)
    }

    /// Returns whether the bot itself has written what somebody replies to.
    async fn is_own(&self, hub: &AccountHub, quote: &Quote) -> Result<bool, StoreError> {
        if !quote.is_bots() {
            return Ok(false);
        }
        // Where the bot was added before this server was there, nobody has told its id.
        let own = hub.noted(OWN).await?;
        Ok(own.map_or_else(|| quote.name.to_lowercase() == self.called.to_lowercase(), |own| own == quote.who))
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It is stored.
    New,
    /// It was before.
    Known,
    /// There is nothing in it for a bot.
    Nothing,
}

/// Returns a message that somebody replies to, as the reply has brought it along: a bot cannot read messages.
pub(super) async fn quoted(hub: &AccountHub, room: &RoomKey, event: &EventId) -> Result<Quoted, NotQuoted> {
    let noted = hub.noted(&quote_key(room, event.as_str())).await.map_err(|_| NotQuoted::Away)?;
    let quote: Value = noted.and_then(|noted| serde_json::from_str(&noted).ok()).unwrap_or_default();
    let (Some(who), Some(text)) = (quote["who"].as_str(), quote["text"].as_str()) else {
        return Err(NotQuoted::Unreadable);
    };
    let author = match quote["own"].as_bool() {
        Some(true) => Author::Bot,
        _ if hub.policies().hears(who) => Author::Listed,
        _ => Author::Stranger,
    };
    Ok(Quoted { sender: who.to_owned(), author, body: Body::said(text) })
}

fn quote_key(room: &RoomKey, message: &str) -> String {
    format!("{QUOTE} {room} {message}")
}

/// Returns the id of a message in the journal: its number, by which it can be replied to, and a digest of all that was told of it. A
/// server that begins its numbers anew, since it was restored, is not taken for one that repeats itself.
fn event_of(message: u64, body: &[u8]) -> EventId {
    EventId(format!("{message}.{}", ids::hex(&Sha256::digest(body)[..16])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::nextcloud::message_of;

    #[test]
    fn a_messages_id_tells_its_number_and_what_was_told_of_it() {
        let (one, other) = (event_of(1567, b"one"), event_of(1567, b"other"));
        assert_ne!(one, other);
        assert_eq!(one, event_of(1567, b"one"));
        assert_eq!(message_of(&one), Some(1567));
        assert_eq!(message_of(&EventId::from("$abc")), None);
    }
}
