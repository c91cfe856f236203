//! How exobot talks with another bot: a few rounds, until one of them repeats what was said. Pure.
//!
//! Neither answers the other by itself: exobot says each of its words when the rules here say so, and what it hears of a bot
//! begins nothing.

use std::collections::HashSet;

use super::engaging::{LIVELY, SECOND, Said, is_over};
use crate::{
    llm::{AssistantMessage, Message, Part},
    text,
};

/// The time between two conversations in a room.
const BETWEEN: i64 = 6 * 3_600 * SECOND;
/// What exobot says in one of them, at most.
const ROUNDS: usize = 3;
/// How long it waits each time for what the other bot says. Bots show their answers as they come, so it waits as long for a
/// quick one.
const WAIT: i64 = 60 * SECOND;
/// The share of common words from which on two messages are alike.
const ALIKE: f64 = 0.65;
/// The most characters of a message that are looked at.
const LONGEST: usize = 1_000;

/// Returns the bot with which a conversation may begin: the one that spoke last. `bots` is what bots said in the room,
/// oldest first, and `people` what people did. These are not interrupted.
pub fn partner<'a>(bots: &[Said<'a>], people: &[Said<'_>], crossed: Option<i64>, now: i64) -> Option<&'a str> {
    let lively = people.last().is_some_and(|said| now - said.at < LIVELY);
    let partner = bots.last()?.sender;
    (!lively && is_over(crossed, BETWEEN, now)).then_some(partner)
}

/// A conversation with another bot.
#[derive(Clone, Debug)]
pub struct Crossing {
    /// The other bot.
    pub partner: String,
    began: i64,
    spoke: i64,
    /// What was said in it, by exobot first and by both in turn.
    said: Vec<String>,
}

/// What comes next in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is not time yet.
    Wait,
    /// The model is asked for an answer.
    Answer,
    /// It is over.
    Over,
}

impl Crossing {
    /// Begins one.
    pub fn new(partner: &str, now: i64) -> Self {
        Self { partner: partner.to_owned(), began: now, spoke: now, said: vec![] }
    }

    /// Returns what comes next, with what bots and people said in the room.
    pub fn next(&mut self, bots: &[Said<'_>], people: &[Said<'_>], now: i64) -> Next {
        if people.iter().any(|said| said.at > self.began) {
            return Next::Over;
        }
        if now - self.spoke < WAIT {
            return Next::Wait;
        }
        let answer = bots.iter().rev().find(|said| said.sender == self.partner && said.at > self.spoke);
        match answer.map(|said| text::one_line(said.text, LONGEST)) {
            Some(answer) if self.said.len() + 1 < 2 * ROUNDS && !self.repeats(&answer) => {
                self.said.push(answer);
                Next::Answer
            }
            _ => Next::Over,
        }
    }

    /// Takes what exobot is about to say; returns it with the other's name, unless that was said before.
    pub fn say(&mut self, words: &str, now: i64) -> Option<String> {
        let bare = text::one_line(words, LONGEST);
        if self.repeats(&bare) {
            return None;
        }
        self.said.push(bare);
        self.spoke = now;
        // As a link to its account, which clients show as its name.
        Some(format!("[{0}](https://matrix.to/#/{0}): {words}", self.partner))
    }

    /// Returns what the model is asked for what exobot says next.
    pub fn request(&self) -> Vec<Message> {
        let user = |text: String| Message::User { parts: vec![Part::Text { text }] };
        let begin = format!(
            "Begin a conversation with {}, another bot in your chat room: one or two sentences on something interesting, with a \
             question at the end.",
            text::one_line(&self.partner, 80)
        );
        let turns = self.said.iter().enumerate().map(|(at, said)| match at % 2 {
            0 => Message::Assistant(AssistantMessage { text: said.clone(), ..AssistantMessage::default() }),
            _ => user(said.clone()),
        });
        [Message::System { text: super::SYSTEM_PROMPT.to_owned() }, user(begin)].into_iter().chain(turns).collect()
    }

    fn repeats(&self, words: &str) -> bool {
        self.said.iter().any(|said| likeness(said, words) >= ALIKE)
    }
}

/// Returns which share of the words of two texts is in both: Jaccard's index.
fn likeness(one: &str, other: &str) -> f64 {
    let words = |text: &str| -> HashSet<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let (one, other) = (words(one), words(other));
    let all = one.union(&other).count();
    if all == 0 { 1.0 } else { one.intersection(&other).count() as f64 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000_000;
    const BOT: &str = "@qwen:a.org";

    fn said(sender: &'static str, text: &'static str, at: i64) -> Said<'static> {
        Said { sender, text, at }
    }

    #[test]
    fn texts_are_alike_by_their_words() {
        for (one, other, expected) in [
            ("a b c d", "a b c d", 1.0),
            ("A, b. C! d?", "d c b a", 1.0),
            ("a b c d", "a b e f", 2.0 / 6.0),
            ("a b", "c d", 0.0),
            ("", "", 1.0),
            ("", "a", 0.0),
        ] {
            assert!((likeness(one, other) - expected).abs() < 1e-9, "{one:?} {other:?}");
        }
    }

    #[test]
    fn it_begins_with_the_bot_that_spoke_last_and_interrupts_nobody() {
        let bots = [said("@llama:a.org", "hello", NOW - 9), said(BOT, "hello", NOW - 8)];
        let ago = |ago: i64| [said("@anna:a.org", "hello", NOW - ago)];
        assert_eq!(partner(&bots, &[], None, NOW), Some(BOT));
        assert_eq!(partner(&bots, &ago(LIVELY), None, NOW), Some(BOT));
        assert_eq!(partner(&bots, &ago(LIVELY - 1), None, NOW), None, "people talk");
        assert_eq!(partner(&[], &[], None, NOW), None, "there is no other bot");
        assert_eq!(partner(&bots, &[], Some(NOW - BETWEEN + 1), NOW), None);
        assert_eq!(partner(&bots, &[], Some(NOW - BETWEEN), NOW), Some(BOT));
    }

    #[test]
    fn it_says_three_things_and_waits_a_minute_after_each() {
        let mut crossing = Crossing::new(BOT, NOW);
        let mut now = NOW;
        let (ours, theirs) = (["one two three", "four five six", "seven eight nine"], ["red", "green", "blue"]);
        for (round, (our, their)) in ours.into_iter().zip(theirs).enumerate() {
            let words = crossing.say(our, now).unwrap();
            assert_eq!(words, format!("[@qwen:a.org](https://matrix.to/#/@qwen:a.org): {our}"));
            let heard = [said(BOT, "an old answer", now), said(BOT, "so far", now + 1), said(BOT, their, now + 2)];
            assert_eq!(crossing.next(&heard, &[], now + WAIT - 1), Next::Wait);
            now += WAIT;
            assert_eq!(crossing.next(&heard, &[], now), if round < 2 { Next::Answer } else { Next::Over }, "{round}");
        }
        let told = crossing.request();
        assert!(matches!(&told[1], Message::User { .. }) && matches!(&told[2], Message::Assistant(_)), "{told:?}");
        assert_eq!(told.len(), 2 + 5, "the last answer is answered by nobody");
    }

    #[test]
    fn it_ends_when_one_repeats_says_nothing_or_a_person_comes() {
        let begun = || {
            let mut crossing = Crossing::new(BOT, NOW);
            crossing.say("what is the best colour of all", NOW).unwrap();
            crossing
        };
        let then = NOW + WAIT;
        assert_eq!(begun().next(&[], &[], then), Next::Over, "no answer");
        assert_eq!(begun().next(&[said("@llama:a.org", "red", NOW + 1)], &[], then), Next::Over, "another bot's");
        let echo = [said(BOT, "What is the best colour of them all?", NOW + 1)];
        assert_eq!(begun().next(&echo, &[], then), Next::Over, "an echo");
        let (answer, person) = ([said(BOT, "red", NOW + 1)], [said("@anna:a.org", "hush", NOW + 2)]);
        assert_eq!(begun().next(&answer, &person, NOW + 3), Next::Over, "a person");
        let mut crossing = begun();
        assert_eq!(crossing.next(&answer, &[], then), Next::Answer);
        assert_eq!(crossing.say("What is the best colour of all, then?", then), None, "it repeats itself");
    }
}
