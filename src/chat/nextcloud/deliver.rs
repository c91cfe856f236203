//! Sends what must reach a conversation, in as many messages as the server's longest one makes necessary.
//!
//! Talk neither knows a message again that comes twice nor shows a bot what it has sent. So how far a row got is noted before and
//! after each message: what surely went out is not repeated, and what may have gone out is, with a word that says so.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Talk,
    api::{Post, TalkError},
    conversation_of, message_of, split,
    standing::{MOST_LOST, Told},
};
use crate::{
    crash,
    hub::{AccountHub, Delivery, Outbound, Sent, Undelivered},
    ids::{self, EventId, RoomKey},
    store::StoreError,
    strings,
};

/// After this time no further message of a row is begun; it goes on when it is handed out again.
const AT_A_TIME: Duration = Duration::from_mins(1);
/// The shortest that a server's longest message is taken to be, in characters.
const SHORTEST: usize = 200;

/// How far a row got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    /// Bytes of its text that were sent.
    sent: usize,
    /// Whether what follows may have been sent, too.
    perhaps_more: bool,
    /// How often the answer to what follows was lost.
    lost: u32,
}

/// A row was not sent whole; it is handed out again.
struct Unsent;

/// The rows that are being sent.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<HashSet<String>>);

/// A row's place among them.
struct Place<'a> {
    all: &'a UnderWay,
    txn: &'a str,
}

impl UnderWay {
    /// Takes the place of a row, unless it is being sent already: the outbox hands a slow one out anew.
    fn take<'a>(&'a self, txn: &'a str) -> Option<Place<'a>> {
        // A place that is not taken must not be made: dropping it would free that of the other.
        if self.lock().insert(txn.to_owned()) { Some(Place { all: self, txn }) } else { None }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(self.txn);
    }
}

/// Sends a row, and tells the outbox what came of it.
pub(super) async fn deliver(talk: &Talk, hub: &AccountHub, delivery: Delivery) {
    let Some(_place) = talk.under_way.take(&delivery.txn) else {
        let _ = delivery.done.send(Err(Undelivered));
        return;
    };
    let sent = match send(talk, hub, &delivery).await {
        Ok(()) => Ok(Sent { event: EventId(delivery.txn.clone()), noted: oneshot::channel().0 }),
        Err(Unsent) => Err(Undelivered),
    };
    // The outbox may have stopped waiting for this try; then it hands the row out again.
    let _ = delivery.done.send(sent);
}

async fn send(talk: &Talk, hub: &AccountHub, delivery: &Delivery) -> Result<(), Unsent> {
    let Some(conversation) = conversation_of(&delivery.address.room) else { return Ok(()) };
    let Some((text, asked)) = words(&delivery.outbound) else { return Ok(()) };
    let begun = Instant::now();
    let noted = |error: StoreError| {
        tracing::error!(%error, "how far a message was sent cannot be stored");
        Unsent
    };
    let note = format!("sent {}", delivery.txn);
    let mut progress = Progress::read(hub.noted(&note).await.map_err(noted)?.as_deref(), &text);
    // Talk's own tries are in the note; this one is of before a backup came back.
    progress.perhaps_more |= progress.sent == 0 && delivery.tried.is_some();
    let mut reply_to = asked.and_then(message_of);
    while progress.sent < text.len() {
        if !talk.standing.lets(conversation, Instant::now()) || begun.elapsed() > AT_A_TIME {
            return Err(Unsent);
        }
        let again = if progress.perhaps_more { strings::talk::PERHAPS_AGAIN } else { "" };
        let most = talk.max_length.load(Ordering::Relaxed).max(SHORTEST);
        let piece = split::piece(&text, progress.sent, most - again.chars().count());
        let behind = Progress { sent: piece.next, ..Progress::default() };
        if piece.words.trim().is_empty() {
            progress = behind;
            continue;
        }
        hub.note(&note, &Progress { perhaps_more: true, ..progress }.shown()).await.map_err(noted)?;
        // Each message of a row has a name of its own.
        let reference = ids::digest(&[&delivery.txn, &progress.sent.to_string()], 32);
        let message = format!("{again}{piece}");
        let post = Post { message: &message, reply_to: reply_to.filter(|_| progress.sent == 0), reference: &reference };
        let result = talk.api.send(conversation, &post).await;
        crash::point("sent");
        tell(talk, conversation, result.as_ref().copied());
        match result {
            Ok(()) => progress = behind,
            // What follows is as uncertain as before.
            Err(TalkError::Lost(_)) => {
                progress = Progress { perhaps_more: true, lost: progress.lost + 1, ..progress };
                if progress.lost < MOST_LOST {
                    talk.standing.lost(conversation, progress.lost, Instant::now());
                    hub.note(&note, &progress.shown()).await.map_err(noted)?;
                    return Err(Unsent);
                }
                tracing::error!(
                    tries = progress.lost,
                    "a message is not tried again: Nextcloud never said what became of it"
                );
                progress = behind;
            }
            // A message that is short is refused for another reason, by a proxy perhaps, and says nothing of others.
            Err(TalkError::TooLong) if message.chars().count() > SHORTEST => {
                let most = (message.chars().count() / 2).max(SHORTEST);
                talk.max_length.store(most, Ordering::Relaxed);
                tracing::info!(most, "Nextcloud takes shorter messages than it says");
            }
            // The message to which it replies may be gone.
            Err(TalkError::Refused(_)) if post.reply_to.is_some() => reply_to = None,
            Err(error @ (TalkError::Gone | TalkError::Refused(_) | TalkError::TooLong)) => {
                // It would be refused for ever, and hold up all that follows.
                tracing::error!(%error, "a message is given up");
                progress = Progress { sent: text.len(), ..Progress::default() };
            }
            Err(TalkError::Away(_) | TalkError::Unknown | TalkError::Limited(_)) => {
                hub.note(&note, &progress.shown()).await.map_err(noted)?;
                return Err(Unsent);
            }
        }
        hub.note(&note, &progress.shown()).await.map_err(noted)?;
        crash::point("noted");
    }
    Ok(())
}

/// Reacts to a message, so that whoever wrote it sees that it was heard. It is of no use later.
pub(super) async fn react(talk: &Talk, hub: &AccountHub, room: &RoomKey, asked: &EventId) {
    let (Some(conversation), Some(message)) = (conversation_of(room), message_of(asked)) else { return };
    if !talk.standing.lets(conversation, Instant::now()) {
        return;
    }
    // A turn that goes on after a restart began before, and was shown then.
    let note = format!("heard {asked}");
    match hub.noted(&note).await {
        Ok(None) => {}
        Ok(Some(_)) | Err(_) => return,
    }
    let result = talk.api.react(conversation, message, strings::talk::HEARD).await;
    tell(talk, conversation, result.as_ref().copied());
    if let Err(error) = result {
        return tracing::debug!(%error, "a reaction could not be sent");
    }
    if let Err(error) = hub.note(&note, "").await {
        tracing::warn!(%error, "that a message was reacted to cannot be stored");
    }
}

/// Notes what became of a request, and logs what is new about it.
fn tell(talk: &Talk, conversation: &str, result: Result<(), &TalkError>) {
    match talk.standing.note(conversation, result, Instant::now()) {
        None => {}
        Some(Told::Works) => tracing::info!("Nextcloud takes messages again"),
        Some(Told::Away) => {
            let error = result.err().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(%error, "nothing can be sent to Nextcloud now; it is tried again");
        }
        Some(Told::Refused) => {
            tracing::error!(conversation, mend = strings::talk::REFUSED_MEND, "{}", strings::talk::REFUSED);
        }
        Some(Told::Stopped) => tracing::error!(mend = strings::talk::REFUSED_MEND, "{}", strings::talk::STOPPED),
    }
}

/// Returns what a row says, and the event to which it replies; `None` if it says nothing here.
fn words(outbound: &Outbound) -> Option<(String, Option<&EventId>)> {
    let (text, asked) = match outbound {
        Outbound::Answer { text, footer, asked, .. } if footer.is_empty() => (text.clone(), Some(asked)),
        Outbound::Answer { text, footer, asked, .. } => (format!("{text}\n\n*{footer}*"), Some(asked)),
        Outbound::Reply { text, asked, .. } => (text.clone(), Some(asked)),
        Outbound::Notice { text, .. } => (text.clone(), None),
        Outbound::Closing { .. } | Outbound::Log { .. } | Outbound::File { .. } => return None,
    };
    Some((calling_nobody(&text), asked))
}

/// Returns a text that does not call everybody in the conversation, which a model might be talked into: `@all` gets a character in
/// its middle that nobody sees.
fn calling_nobody(text: &str) -> String {
    let calls_all = |words: &str| {
        let words = words.trim_start_matches('"');
        ["all", "here"].iter().any(|all| {
            let called = words.get(..all.len()).is_some_and(|word| word.eq_ignore_ascii_case(all));
            called && !words[all.len()..].starts_with(|next: char| next.is_alphanumeric() || matches!(next, '_' | '-'))
        })
    };
    let mut calm = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('@') {
        let (before, from) = rest.split_at(at + 1);
        calm.push_str(before);
        if calls_all(from) {
            calm.push('\u{2060}');
        }
        rest = from;
    }
    calm.push_str(rest);
    calm
}

impl Progress {
    /// Reads what was noted of a row with this text.
    fn read(noted: Option<&str>, text: &str) -> Self {
        let read = noted.and_then(|noted| {
            let (sent, perhaps_more) = match noted.split_once(" and perhaps more") {
                Some((sent, lost)) => (sent, Some(lost)),
                None => (noted, None),
            };
            let sent = sent.parse().ok().filter(|sent| text.is_char_boundary(*sent))?;
            let lost = perhaps_more.and_then(|lost| lost.strip_prefix(", lost ")?.parse().ok()).unwrap_or_default();
            Some(Self { sent, perhaps_more: perhaps_more.is_some(), lost })
        });
        read.unwrap_or_default()
    }

    fn shown(self) -> String {
        let Self { sent, perhaps_more, lost } = self;
        match (perhaps_more, lost) {
            (false, _) => sent.to_string(),
            (true, 0) => format!("{sent} and perhaps more"),
            (true, lost) => format!("{sent} and perhaps more, lost {lost}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read_again_and_nonsense_is_the_beginning() {
        let text = "äb";
        for progress in [
            Progress::default(),
            Progress { sent: 2, perhaps_more: true, lost: 0 },
            Progress { sent: 2, perhaps_more: true, lost: 4 },
            Progress { sent: 3, perhaps_more: false, lost: 0 },
        ] {
            assert_eq!(Progress::read(Some(&progress.shown()), text), progress);
        }
        for nonsense in [None, Some(""), Some("x"), Some("1"), Some("4"), Some("-1 and perhaps more")] {
            assert_eq!(Progress::read(nonsense, text), Progress::default(), "{nonsense:?}");
        }
    }

    #[test]
    fn nobody_calls_everybody() {
        for (text, calm) in [
            ("@all of you", "@\u{2060}all of you"),
            ("hello @All", "hello @\u{2060}All"),
            ("@\"all\"", "@\u{2060}\"all\""),
            ("a@all, @here", "a@\u{2060}all, @\u{2060}here"),
            ("@ALL.", "@\u{2060}ALL."),
            ("@ada and @al", "@ada and @al"),
            ("@AllArgsConstructor @all-hands @hereby", "@AllArgsConstructor @all-hands @hereby"),
            ("no one", "no one"),
            ("@", "@"),
        ] {
            assert_eq!(calling_nobody(text), calm, "{text}");
        }
    }

    #[test]
    fn the_mark_of_what_may_come_again_leaves_room_for_words() {
        assert!(strings::talk::PERHAPS_AGAIN.chars().count() < SHORTEST / 2);
    }
}
