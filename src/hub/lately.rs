//! What people said in a room lately, for bots that speak up by themselves.

use std::collections::{HashMap, HashSet};

use super::{AccountHub, Body};
use crate::{
    ids::{EventId, RoomKey},
    store::StoreError,
};

/// A message of somebody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who wrote it, by their name in the protocol.
    pub sender: String,
    /// Its words, as they were edited last.
    pub text: String,
    /// When it came, in milliseconds since 1970.
    pub at: i64,
}

impl AccountHub {
    /// Returns the newest messages of a room, oldest first, out of its `most` newest events, those of whom a bot overhears too.
    /// What was taken back is left out.
    pub async fn heard_lately(&self, room: &RoomKey, most: usize) -> Result<Vec<Heard>, StoreError> {
        let home = self.address(self.inner.homes.home(room));
        let events = self.inner.store.newest(&home, most).await?;
        let events = events.into_iter().filter_map(|event| {
            let body = serde_json::from_value(event.body).ok()?;
            Some((event.event, event.sender, body, event.received))
        });
        Ok(read(events.collect(), |sender| self.policies().overhears(sender)))
    }
}

/// Reads events, oldest first.
fn read(events: Vec<(EventId, String, Body, i64)>, overheard: impl Fn(&str) -> bool) -> Vec<Heard> {
    let (mut edits, mut taken_back, mut said) = (HashMap::new(), HashSet::new(), HashSet::new());
    for (event, sender, body, _) in &events {
        match body {
            // Only who wrote a message can have edited it.
            Body::Edited { target, text, .. } => drop(edits.insert((target.clone(), sender.clone()), text.clone())),
            Body::Redacted { target } => drop(taken_back.insert(target.clone())),
            Body::Said { .. } => drop(said.insert(event.clone())),
            _ => {}
        }
    }
    let heard = events.into_iter().filter_map(|(event, sender, body, at)| match body {
        Body::Said { text, .. } if !taken_back.contains(&event) => {
            let text = edits.remove(&(event, sender.clone())).unwrap_or(text);
            Some(Heard { sender, text, at })
        }
        // What a bot shows as it comes is a notice, which nobody keeps, until the answer takes its place.
        Body::Edited { target, .. } if overheard(&sender) && !said.contains(&target) => {
            let text = edits.remove(&(target, sender.clone()))?;
            Some(Heard { sender, text, at })
        }
        _ => None,
    });
    heard.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bots::Addressed;

    #[test]
    fn what_was_edited_reads_anew_and_what_was_taken_back_is_gone() {
        let event = |id: &str, sender: &str, body: Body| (EventId::from(id), sender.to_owned(), body, 7);
        let edit = |target: &str, text: &str| Body::Edited {
            target: target.into(),
            text: text.to_owned(),
            addressed: Addressed::default(),
        };
        let heard = read(
            vec![
                event("$1", "@a:x", Body::said("one")),
                event("$2", "@b:x", Body::said("secret")),
                event("$3", "@a:x", edit("$1", "first")),
                event("$4", "@b:x", edit("$1", "not mine")),
                event("$5", "@b:x", Body::Redacted { target: "$2".into() }),
                event("$6", "@b:x", Body::Stop),
                event("$7", "@a:x", edit("$0", "of long ago")),
                event("$8", "@bot:x", edit("$draft", "almost")),
                event("$9", "@bot:x", edit("$draft", "done")),
            ],
            |sender| sender == "@bot:x",
        );
        let of = |sender: &str, text: &str| Heard { sender: sender.to_owned(), text: text.to_owned(), at: 7 };
        assert_eq!(heard, [of("@a:x", "first"), of("@bot:x", "done")]);
    }
}
