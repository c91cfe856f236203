//! What the model is told of a conversation: its last turns, whole ones only, as many as fit. Pure.

use super::line::{Counted, Line};
use crate::{
    ids::EventId,
    llm::{AssistantMessage, Message, Part},
};

/// Tokens that a picture may take.
const PICTURE: u64 = 1_000;
/// Tokens around a message.
const AROUND: u64 = 4;
/// By how much a guess is corrected at most, in either direction.
const MOST: f64 = 4.0;

/// A conversation's thread, with the question that is open in it.
#[derive(Debug, PartialEq)]
pub(super) struct Transcript {
    /// What was asked and answered, oldest first.
    exchanges: Vec<(Vec<Part>, AssistantMessage)>,
    /// What is asked now.
    pub(super) question: Vec<Part>,
    /// Its thread.
    pub(super) thread: Option<EventId>,
    /// The word of its mode, if one was chosen.
    pub(super) mode: Option<String>,
    /// By how much requests are larger than they are guessed to be.
    correction: f64,
}

/// A request, cut so that it fits.
#[derive(Debug, PartialEq)]
pub(super) struct Cut {
    /// What the model is asked.
    pub(super) messages: Vec<Message>,
    /// How many tokens that is, as it is guessed.
    pub(super) guessed: u64,
}

impl Transcript {
    /// Reads a conversation, whose last question is open.
    pub(super) fn of(lines: Vec<Line>) -> Self {
        let asked = lines.iter().rev().find(|line| matches!(line, Line::Asked { .. }));
        let thread = asked.and_then(Line::thread).cloned();
        let mode = asked.and_then(Line::mode).map(str::to_owned);
        let counted = lines.iter().rev().find_map(|line| match line {
            Line::Answered { counted, .. } => *counted,
            _ => None,
        });
        let mut all = Self { exchanges: vec![], question: vec![], thread, mode, correction: correction(counted) };
        for line in lines.into_iter().filter(|line| line.thread() == all.thread.as_ref()).collect::<Vec<_>>() {
            match line {
                Line::Asked { parts, .. } => all.question.extend(parts),
                Line::Answered { message, .. } => {
                    let question = std::mem::take(&mut all.question);
                    all.exchanges.push((question, message));
                }
                Line::Void { .. } => all.question.clear(),
            }
        }
        all
    }

    /// Returns the request for an answer: the instructions, at most `turns` turns of which all fit into `room` tokens with
    /// them, and the question, which is never cut.
    pub(super) fn request(&self, instructions: &str, turns: usize, room: u64) -> Cut {
        let question = Message::User { parts: self.question.clone() };
        let system = (!instructions.is_empty()).then(|| Message::System { text: instructions.to_owned() });
        let mut guessed = guess(&question) + system.as_ref().map_or(0, guess);
        let mut kept = vec![];
        for (asked, answered) in self.exchanges.iter().rev().take(turns) {
            let exchange = [Message::User { parts: asked.clone() }, Message::Assistant(answered.clone())];
            let more = guessed + exchange.iter().map(guess).sum::<u64>();
            if more as f64 * self.correction > room as f64 {
                break;
            }
            guessed = more;
            kept.push(exchange);
        }
        let messages = system.into_iter().chain(kept.into_iter().rev().flatten()).chain([question]).collect();
        Cut { messages, guessed }
    }
}

/// Takes what somebody said out of a conversation, with all that was asked together with it and what was answered, which may say it
/// again; `None` if it is not there.
pub(super) fn without(mut lines: Vec<Line>, event: &EventId) -> Option<Vec<Line>> {
    let at = lines.iter().position(|line| line.came_by(event))?;
    let thread = lines[at].thread().cloned();
    let ends = |line: &Line| line.thread() == thread.as_ref() && !matches!(line, Line::Asked { .. });
    let Some(end) = lines[at..].iter().position(&ends).map(|after| at + after) else {
        // It was not answered yet.
        lines.remove(at);
        return Some(lines);
    };
    let begin = lines[..at].iter().rposition(ends).map_or(0, |before| before + 1);
    let mut index = 0..;
    lines.retain(|line| {
        let within = index.next().is_some_and(|index| (begin..=end).contains(&index));
        !within || line.thread() != thread.as_ref()
    });
    Some(lines)
}

/// Returns the request for an answer to somebody in no room, where these questions were answered before, oldest first. Of
/// these it has at most `turns`, and as many as fit into `room` tokens with all else.
pub(in crate::bots) fn request(
    instructions: &str,
    before: &[(String, String)],
    question: &str,
    turns: usize,
    room: u64,
) -> Vec<Message> {
    let part = |text: &str| vec![Part::Text { text: text.to_owned() }];
    let answer = |text: &str| AssistantMessage { text: text.to_owned(), ..AssistantMessage::default() };
    let exchanges = before.iter().map(|(asked, answered)| (part(asked), answer(answered))).collect();
    let asked = Transcript { exchanges, question: part(question), thread: None, mode: None, correction: 1.0 };
    asked.request(instructions, turns, room).messages
}

/// Returns by how much a request is larger than it is guessed to be, after what a provider has told of one.
fn correction(counted: Option<Counted>) -> f64 {
    let of = |Counted { guessed, told }| (told as f64 / (guessed as f64).max(1.0)).clamp(1.0 / MOST, MOST);
    counted.map_or(1.0, of)
}

/// Returns how many tokens a message may have: one for four ASCII characters, one for two others.
fn guess(message: &Message) -> u64 {
    AROUND
        + match message {
            Message::System { text } | Message::Tool { text, .. } => guess_text(text),
            Message::Assistant(message) => guess_text(&message.text),
            Message::User { parts } => parts.iter().map(guess_part).sum(),
        }
}

fn guess_part(part: &Part) -> u64 {
    match part {
        Part::Text { text } => guess_text(text),
        Part::Image { .. } | Part::Picture { .. } => PICTURE,
    }
}

fn guess_text(text: &str) -> u64 {
    let ascii = text.bytes().filter(u8::is_ascii).count() as u64;
    let others = text.chars().filter(|c| !c.is_ascii()).count() as u64;
    (ascii + 2 * others).div_ceil(4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text { text: text.to_owned() }
    }

    fn asked(words: &str, thread: Option<&str>) -> Line {
        let event = Some(EventId(format!("${words}")));
        Line::Asked { parts: vec![text(words)], thread: thread.map(EventId::from), mode: None, event }
    }

    fn answered(words: &str, thread: Option<&str>) -> Line {
        let message = AssistantMessage { text: words.to_owned(), ..AssistantMessage::default() };
        Line::Answered { message, thread: thread.map(EventId::from), counted: None }
    }

    fn words(cut: &Cut) -> Vec<String> {
        let of = |message: &Message| match message {
            Message::System { text } => format!("system {text}"),
            Message::User { parts } => {
                let parts = parts.iter().map(|part| match part {
                    Part::Text { text } => text.clone(),
                    _ => "picture".to_owned(),
                });
                parts.collect::<Vec<_>>().join("+")
            }
            Message::Assistant(message) => format!("-> {}", message.text),
            Message::Tool { .. } => "tool".to_owned(),
        };
        cut.messages.iter().map(of).collect()
    }

    #[test]
    fn each_thread_is_a_conversation_of_its_own_and_what_came_to_nothing_is_left_out() {
        let lines = vec![
            asked("one", None),
            answered("first", None),
            asked("in a thread", Some("$t")),
            answered("there", Some("$t")),
            asked("lost", None),
            Line::Void { thread: None },
            asked("a picture", None),
            asked("two", None),
        ];
        let of = |lines: &[Line]| words(&Transcript::of(lines.to_vec()).request("Be kind.", 4, 1_000));
        assert_eq!(of(&lines), ["system Be kind.", "one", "-> first", "a picture+two"]);
        let mut lines = lines;
        lines.push(asked("more there", Some("$t")));
        assert_eq!(of(&lines), ["system Be kind.", "in a thread", "-> there", "more there"]);
    }

    #[test]
    fn what_is_taken_back_leaves_with_its_answer_and_nothing_else_does() {
        let lines = vec![
            asked("one", None),
            answered("first", None),
            asked("a picture", None),
            asked("in a thread", Some("$t")),
            asked("two", None),
            answered("second", None),
            answered("there", Some("$t")),
            asked("three", None),
        ];
        let left = |event: &str| {
            let left = without(lines.clone(), &EventId::from(event))?;
            Some(left.iter().map(|line| lines.iter().position(|all| all == line).unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(left("$one"), Some(vec![2, 3, 4, 5, 6, 7]));
        assert_eq!(left("$two"), Some(vec![0, 1, 3, 6, 7]), "the picture was asked about");
        assert_eq!(left("$a picture"), left("$two"));
        assert_eq!(left("$in a thread"), Some(vec![0, 1, 2, 4, 5, 7]));
        assert_eq!(left("$three"), Some(vec![0, 1, 2, 3, 4, 5, 6]), "it is open");
        assert_eq!(left("$else"), None);
    }

    #[test]
    fn what_is_stored_reads_as_it_was() {
        let counted = Some(Counted { guessed: 10, told: 30 });
        let message = AssistantMessage { text: "yes".into(), ..AssistantMessage::default() };
        for line in
            [asked("one", Some("$t")), Line::Answered { message, thread: None, counted }, Line::Void { thread: None }]
        {
            assert_eq!(serde_json::from_value::<Line>(line.to_json()).unwrap(), line);
        }
    }

    #[test]
    fn a_guess_counts_scripts_alike_and_is_corrected_by_what_the_provider_tells() {
        assert_eq!((guess_text("abcdefgh"), guess_text("äöüß"), guess_text("abcdü"), guess_text("")), (2, 2, 2, 0));
        let long = "x".repeat(400);
        let lines = |told: u64| {
            let message = AssistantMessage { text: long.clone(), ..AssistantMessage::default() };
            let counted = Some(Counted { guessed: 100, told });
            vec![asked(&long, None), Line::Answered { message, thread: None, counted }, asked("now", None)]
        };
        let request = |told: u64| Transcript::of(lines(told)).request("", 4, 250).messages.len();
        assert_eq!((request(100), request(200), request(10_000)), (3, 1, 1), "a turn is left out whole");
    }

    proptest! {
        #[test]
        fn the_newest_whole_turns_that_fit_are_kept_in_order(lengths in prop::collection::vec(0..300_usize, 0..12),
            turns in 0..8_usize, room in 0..400_u64) {
            let mut lines = vec![];
            for (at, length) in lengths.iter().enumerate() {
                lines.push(asked(&format!("{at} {}", "q".repeat(*length)), None));
                lines.push(answered(&format!("{at} {}", "a".repeat(*length)), None));
            }
            lines.push(asked("now", None));
            let cut = Transcript::of(lines).request("Be kind.", turns, room);
            let words = words(&cut);
            prop_assert_eq!(words.last().map(String::as_str), Some("now"));
            let kept = &words[1..words.len() - 1];
            prop_assert!(kept.len().is_multiple_of(2) && kept.len() / 2 <= turns);
            let first = lengths.len() - kept.len() / 2;
            for (at, pair) in kept.chunks(2).enumerate() {
                let at = first + at;
                let (asked, answered) = (format!("{at} "), format!("-> {at} "));
                prop_assert!(pair[0].starts_with(&asked) && pair[1].starts_with(&answered));
            }
            prop_assert!(kept.is_empty() || cut.guessed <= room);
            prop_assert_eq!(cut.guessed, cut.messages.iter().map(guess).sum::<u64>());
        }
    }
}
