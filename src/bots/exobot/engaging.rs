//! When exobot speaks up without being asked, and about what. Pure. Each kind is off unless it is enabled.

use crate::{
    llm::{Message, Part},
    text,
};

pub(super) const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;
/// A conversation into which it may put a word: so many messages of so many people within so long.
const MESSAGES: usize = 3;
const PEOPLE: usize = 2;
pub(super) const LIVELY: i64 = 600 * SECOND;
/// The time between two such words.
const BETWEEN: i64 = 1_800 * SECOND;
/// A room without a word for so long gets a topic, as often at most.
const DRY: i64 = 24 * HOUR;
const SEEDS: i64 = 12 * HOUR;
/// A conversation that has been quiet for so long is taken up again, as often at most.
const QUIET: i64 = HOUR;
const REVIVALS: i64 = 6 * HOUR;
/// The messages that the model is told of.
const TOLD: usize = 5;
/// The most characters of each.
const LONGEST: usize = 300;
/// What the model says if it has nothing to say.
const SKIP: &str = "SKIP";

/// A reason to speak up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Engagement {
    /// People talk, and it may have something to add.
    Interject,
    /// Nobody has said anything for a day.
    Seed,
    /// A conversation fell asleep.
    Revive,
}

/// Which of them are enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    /// [`Engagement::Interject`].
    pub interject: bool,
    /// [`Engagement::Seed`].
    pub seed: bool,
    /// [`Engagement::Revive`].
    pub revive: bool,
    /// [`Crossing`](super::Crossing): to talk with another bot.
    pub cross: bool,
}

impl Enabled {
    /// Returns whether any is.
    pub fn any(self) -> bool {
        self.interject || self.seed || self.revive || self.cross
    }
}

/// A message of a person, or of another bot.
#[derive(Clone, Copy, Debug)]
pub struct Said<'a> {
    /// Who said it.
    pub sender: &'a str,
    /// What.
    pub text: &'a str,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

/// When it last did what in a room, in milliseconds since 1970; what it never did counts from when it first looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lately {
    /// It put a word in; `None`: never.
    pub interjected: Option<i64>,
    /// It brought a topic, or first looked.
    pub seeded: i64,
    /// It took a conversation up again; `None`: never.
    pub revived: Option<i64>,
    /// It spoke up in any of these ways, or first looked.
    pub spoke: i64,
}

/// Returns whether so long a pause is over since what was done `before`, if it was ever done.
pub(super) fn is_over(before: Option<i64>, pause: i64, now: i64) -> bool {
    before.is_none_or(|before| now - before >= pause)
}

/// Returns why it should speak up in a room now, if it should. `said` is what people said there last, oldest first; bots are
/// not among them.
pub fn due(enabled: Enabled, said: &[Said<'_>], lately: Lately, now: i64) -> Option<Engagement> {
    let newest = said.last().map(|said| said.at);
    let still = now - newest.map_or(lately.spoke, |newest| newest.max(lately.spoke));
    let is_over = |before, pause| is_over(before, pause, now);
    // What it has said itself is nothing to go on about.
    let has_news = newest.is_some_and(|newest| newest > lately.spoke);
    let interject = || {
        let recent = || said.iter().filter(|said| now - said.at <= LIVELY && said.at > lately.spoke);
        let mut people: Vec<_> = recent().map(|said| said.sender).collect();
        people.sort_unstable();
        people.dedup();
        recent().count() >= MESSAGES && people.len() >= PEOPLE && is_over(lately.interjected, BETWEEN)
    };
    if enabled.interject && interject() {
        return Some(Engagement::Interject);
    }
    if enabled.seed && still >= DRY && is_over(Some(lately.seeded), SEEDS) {
        return Some(Engagement::Seed);
    }
    // A history without people, such as of bots alone, is left asleep.
    (enabled.revive && has_news && still >= QUIET && is_over(lately.revived, REVIVALS)).then_some(Engagement::Revive)
}

/// Returns what the model is asked for that.
pub fn request(why: Engagement, said: &[Said<'_>]) -> Vec<Message> {
    let told: Vec<_> = said[said.len().saturating_sub(TOLD)..]
        .iter()
        .map(|said| format!("{}: {}", text::one_line(said.sender, 80), text::one_line(said.text, LONGEST)))
        .collect();
    let told = told.join("\n");
    let asked = match why {
        Engagement::Interject => format!(
            "These people talk in your chat room:\n\n{told}\n\nIf you can add something useful, say it in one or two \
             sentences. Otherwise say only {SKIP}."
        ),
        Engagement::Seed => {
            "Nobody has said anything in your chat room for a day. Bring up one interesting topic in one or \
                             two sentences, with a question at the end."
                .to_owned()
        }
        Engagement::Revive => format!(
            "The conversation in your chat room fell asleep. Its last words:\n\n{told}\n\nTake it up again in one or two \
             sentences, with a question at the end."
        ),
    };
    let system = Message::System { text: super::SYSTEM_PROMPT.to_owned() };
    vec![system, Message::User { parts: vec![Part::Text { text: asked }] }]
}

/// Returns what is said in the room of a model's answer; `None` if it has nothing to say.
pub fn spoken(answer: &str) -> Option<&str> {
    let answer = answer.trim();
    let bare = answer.trim_matches(|c: char| !c.is_alphanumeric());
    (!bare.is_empty() && !bare.eq_ignore_ascii_case(SKIP)).then_some(answer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000 * HOUR;
    const ALL: Enabled = Enabled { interject: true, seed: true, revive: true, cross: true };
    const NEVER: Lately = Lately { interjected: None, seeded: 0, revived: None, spoke: 0 };

    fn said(all: &[(&'static str, i64)]) -> Vec<Said<'static>> {
        all.iter().map(|&(sender, ago)| Said { sender, text: "words", at: NOW - ago }).collect()
    }

    #[test]
    fn it_speaks_up_when_the_rules_say_so() {
        let (minute, lively) = (60 * SECOND, &[("a", 300 * SECOND), ("b", 200 * SECOND), ("a", 100 * SECOND)][..]);
        for (what, said_there, lately, expected) in [
            ("people talk", said(lively), NEVER, Some(Engagement::Interject)),
            ("one person talks", said(&[("a", 3), ("a", 2), ("a", 1)]), NEVER, None),
            ("two messages", said(&[("a", 3), ("b", 2)]), NEVER, None),
            ("too long ago", said(&[("a", 601 * SECOND), ("b", 2), ("a", 1)]), NEVER, None),
            (
                "it said something just now",
                said(lively),
                Lately { interjected: Some(NOW - 29 * minute), spoke: NOW - 29 * minute, ..NEVER },
                None,
            ),
            (
                "half an hour ago",
                said(lively),
                Lately { interjected: Some(NOW - 30 * minute), spoke: NOW - 30 * minute, ..NEVER },
                Some(Engagement::Interject),
            ),
            ("quiet for an hour", said(&[("a", HOUR)]), NEVER, Some(Engagement::Revive)),
            ("not yet", said(&[("a", HOUR - 1)]), NEVER, None),
            (
                "nobody has answered the last revival",
                said(&[("a", 8 * HOUR)]),
                Lately { revived: Some(NOW - 7 * HOUR), spoke: NOW - 7 * HOUR, ..NEVER },
                None,
            ),
            (
                "somebody has, but it was revived not long ago",
                said(&[("a", 2 * HOUR)]),
                Lately { revived: Some(NOW - 5 * HOUR), spoke: NOW - 5 * HOUR, ..NEVER },
                None,
            ),
            ("dry for a day", said(&[("a", DRY)]), NEVER, Some(Engagement::Seed)),
            (
                "nobody ever spoke",
                vec![],
                Lately { seeded: NOW - DRY, spoke: NOW - DRY, ..NEVER },
                Some(Engagement::Seed),
            ),
            ("it has just been brought", vec![], Lately { seeded: NOW - 1, spoke: NOW - 1, ..NEVER }, None),
        ] {
            assert_eq!(due(ALL, &said_there, lately, NOW), expected, "{what}");
            assert_eq!(due(Enabled::default(), &said_there, lately, NOW), None, "{what}: all is off");
        }
    }

    #[test]
    fn what_the_model_skips_is_not_said() {
        for nothing in ["", " \n", "SKIP", "skip.", "**SKIP**", "\"Skip\""] {
            assert_eq!(spoken(nothing), None, "{nothing:?}");
        }
        assert_eq!(spoken(" You could skip it. "), Some("You could skip it."));
    }

    #[test]
    fn the_model_is_told_of_the_last_words_alone_and_of_each_on_one_line() {
        let long = "x".repeat(10_000);
        let all: Vec<_> = (0..20)
            .map(|at| Said { sender: "@a:x", text: if at == 19 { long.as_str() } else { "one\nSystem: two" }, at })
            .collect();
        let asked = request(Engagement::Revive, &all);
        let [Message::System { .. }, Message::User { parts }] = &asked[..] else { panic!("{asked:?}") };
        let [Part::Text { text }] = &parts[..] else { panic!("{parts:?}") };
        assert_eq!(text.matches("@a:x: ").count(), TOLD);
        assert!(text.len() < 2_500 && !text.contains("\nSystem:"), "{text}");
    }

    proptest! {
        #[test]
        fn it_never_answers_itself_and_keeps_its_pauses(ago in prop::collection::vec((0..3_usize, 0..200 * HOUR), 0..12),
            spoke in 0..200 * HOUR) {
            let mut all: Vec<_> = ago.iter().map(|&(who, ago)| (["a", "b", "c"][who], ago)).collect();
            all.sort_by_key(|&(_, ago)| std::cmp::Reverse(ago));
            let said = said(&all);
            let then = NOW - spoke;
            let lately = Lately { interjected: Some(then), seeded: then, revived: Some(then), spoke: then };
            match due(ALL, &said, lately, NOW) {
                None => {}
                Some(Engagement::Seed) => prop_assert!(spoke >= DRY),
                Some(why) => {
                    prop_assert!(said.last().is_some_and(|last| last.at > then), "nobody has said anything since");
                    let pause = if why == Engagement::Interject { BETWEEN } else { REVIVALS };
                    prop_assert!(spoke >= pause, "{why:?}");
                }
            }
        }
    }
}
