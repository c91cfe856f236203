//! When nothing more may be sent: Nextcloud throttles, and at last shuts out, whoever goes on where it does not know him. Pure, but
//! for the memory of it.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::api::TalkError;

/// Refusals in a conversation, one after another, after which nothing is sent there any more.
const MOST: u32 = 3;
/// How long to wait where the server does not say.
const PAUSE: Duration = Duration::from_secs(30);
/// Conversations whose refusals are remembered. With more, nothing is sent anywhere.
const CONVERSATIONS: usize = 1000;
/// How long nothing is sent into a conversation after a message whose answer was lost, once, twice, and so on: the message may be
/// there, and each further try may show it once more.
const AFTER_LOSS: [Duration; 5] = [
    Duration::from_secs(30),
    Duration::from_mins(2),
    Duration::from_mins(10),
    Duration::from_hours(1),
    Duration::from_hours(6),
];
/// After so many losses a message is given up.
pub(super) const MOST_LOST: u32 = AFTER_LOSS.len() as u32 + 1;

/// What became of the requests so far.
#[derive(Debug, Default)]
pub(super) struct Standing(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Refusals (401) in a row, by conversation.
    refused: HashMap<String, u32>,
    /// Whether the server refused the bot when it last said who that is to it.
    unknown: bool,
    /// Until when nothing is sent into a conversation, because a message's answer was lost there.
    lost: HashMap<String, Instant>,
    /// Nothing is sent any more, anywhere.
    stopped: bool,
    /// Until when nothing is sent.
    until: Option<Instant>,
    /// Whether the server did not work when it was asked last.
    away: bool,
}

/// What the operator is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing is sent into this conversation any more.
    Refused,
    /// Nothing is sent anywhere any more.
    Stopped,
    /// The server does not work now; it is tried further.
    Away,
    /// It works again.
    Works,
}

impl Standing {
    /// Returns whether something may be sent into a conversation now.
    pub(super) fn lets(&self, conversation: &str, now: Instant) -> bool {
        let state = self.state();
        !state.stopped
            && state.until.is_none_or(|until| now >= until)
            && state.refused.get(conversation).is_none_or(|count| *count < MOST)
            && state.lost.get(conversation).is_none_or(|until| now >= *until)
    }

    /// Notes what became of a request; returns what is new about it to the operator.
    pub(super) fn note(&self, conversation: &str, result: Result<(), &TalkError>, now: Instant) -> Option<Told> {
        let mut state = self.state();
        match result {
            Err(TalkError::Unknown) => {
                state.unknown = true;
                if state.refused.len() >= CONVERSATIONS && !state.refused.contains_key(conversation) {
                    return (!mem::replace(&mut state.stopped, true)).then_some(Told::Stopped);
                }
                let count = state.refused.entry(conversation.to_owned()).or_default();
                *count += 1;
                (*count == MOST).then_some(Told::Refused)
            }
            // It says so once it was refused too often: whoever goes on is shut out for a day.
            Err(TalkError::Limited(_)) if state.unknown => {
                (!mem::replace(&mut state.stopped, true)).then_some(Told::Stopped)
            }
            Err(TalkError::Limited(wait)) => {
                state.until = Some(now + wait.unwrap_or(PAUSE));
                (!mem::replace(&mut state.away, true)).then_some(Told::Away)
            }
            Err(TalkError::Away(_) | TalkError::Lost(_)) => {
                (!mem::replace(&mut state.away, true)).then_some(Told::Away)
            }
            // An answer of a server that works.
            Ok(()) | Err(TalkError::Gone | TalkError::TooLong | TalkError::Refused(_)) => {
                state.refused.remove(conversation);
                state.unknown = false;
                state.lost.remove(conversation);
                state.until = None;
                mem::take(&mut state.away).then_some(Told::Works)
            }
        }
    }

    /// Notes that the answer to a message was lost, for the `count`th time; nothing is sent into its conversation for a while.
    pub(super) fn lost(&self, conversation: &str, count: u32, now: Instant) {
        let pause = AFTER_LOSS[(count.max(1) as usize - 1).min(AFTER_LOSS.len() - 1)];
        let mut state = self.state();
        state.lost.retain(|_, until| *until > now);
        state.lost.insert(conversation.to_owned(), now + pause);
    }

    /// Lets something be sent into a conversation again, since the bot was added to it anew.
    pub(super) fn forgive(&self, conversation: &str) {
        self.state().refused.remove(conversation);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Result<(), &TalkError> = Err(&TalkError::Unknown);

    #[test]
    fn after_three_refusals_a_conversation_is_left_alone_and_told_once() {
        let (standing, now) = (Standing::default(), Instant::now());
        assert_eq!(standing.note("a", UNKNOWN, now), None);
        assert_eq!(standing.note("a", UNKNOWN, now), None);
        assert!(standing.lets("a", now));
        assert_eq!(standing.note("a", UNKNOWN, now), Some(Told::Refused));
        assert!(!standing.lets("a", now) && standing.lets("b", now));
        assert_eq!(standing.note("a", UNKNOWN, now), None, "what was under way is not told again");
        assert!(!standing.lets("a", now + Duration::from_hours(100)));
        standing.forgive("a");
        assert!(standing.lets("a", now));
    }

    #[test]
    fn a_429_after_a_401_ends_all_and_is_told_once() {
        let (standing, now) = (Standing::default(), Instant::now());
        let limited = TalkError::Limited(None);
        standing.note("a", UNKNOWN, now);
        assert_eq!(standing.note("b", Err(&limited), now), Some(Told::Stopped));
        assert_eq!(standing.note("b", Err(&limited), now), None);
        assert!(!standing.lets("a", now) && !standing.lets("c", now + Duration::from_hours(100)));
        standing.forgive("a");
        assert!(!standing.lets("a", now), "only a new start begins anew");
    }

    #[test]
    fn a_429_where_the_bot_is_known_ends_nothing_though_one_conversation_refuses_it() {
        let (standing, now) = (Standing::default(), Instant::now());
        for _ in 0..MOST {
            standing.note("gone", UNKNOWN, now);
        }
        standing.note("b", Ok(()), now);
        standing.note("c", Err(&TalkError::Limited(Some(Duration::from_secs(2)))), now);
        assert!(standing.lets("d", now + Duration::from_secs(2)) && !standing.lets("gone", now + PAUSE));
    }

    #[test]
    fn after_each_lost_answer_a_conversation_rests_longer_and_others_do_not() {
        let (standing, mut now) = (Standing::default(), Instant::now());
        for (count, pause) in (1..).zip(AFTER_LOSS) {
            standing.lost("a", count, now);
            assert!(!standing.lets("a", now + pause - Duration::from_secs(1)) && standing.lets("b", now));
            now += pause;
            assert!(standing.lets("a", now));
        }
    }

    #[test]
    fn a_429_alone_is_waited_for() {
        let (standing, now) = (Standing::default(), Instant::now());
        assert_eq!(standing.note("a", Ok(()), now), None);
        assert_eq!(standing.note("a", Err(&TalkError::Limited(Some(Duration::from_secs(7)))), now), Some(Told::Away));
        assert!(!standing.lets("b", now + Duration::from_secs(6)));
        assert!(standing.lets("b", now + Duration::from_secs(7)));
        assert_eq!(standing.note("a", Ok(()), now), Some(Told::Works));
        // A refusal that was followed by a success is no reason to end.
        standing.note("a", UNKNOWN, now);
        standing.note("a", Ok(()), now);
        standing.note("a", Err(&TalkError::Limited(None)), now);
        assert!(standing.lets("a", now + PAUSE));
    }

    #[test]
    fn a_server_that_is_away_is_told_when_that_changes() {
        let (standing, now) = (Standing::default(), Instant::now());
        let away = TalkError::Away("refused".into());
        standing.note("a", Ok(()), now);
        assert_eq!(standing.note("a", Err(&away), now), Some(Told::Away));
        assert_eq!(standing.note("a", Err(&away), now), None);
        assert!(standing.lets("a", now), "it is tried further");
        assert_eq!(standing.note("a", Ok(()), now), Some(Told::Works));
        assert_eq!(standing.note("a", Ok(()), now), None);
    }
}
