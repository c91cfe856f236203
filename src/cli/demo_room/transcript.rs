//! Turns the events of a room during the demo job into lines to print: each message once, and of the progress message
//! only what is new. Pure.

use serde_json::Value;

use crate::text;

/// A line to print.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A message of the bot.
    Said(String),
    /// A line that was added to the progress message.
    Below(String),
    /// What the bot does now; the next one replaces it.
    Status(String),
}

/// The state of the job.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    bot: String,
    asked: String,
    /// The event of the progress message, once it exists.
    progress: Option<String>,
    /// Its lines that were printed.
    told: Vec<String>,
    answered: bool,
    /// The final text of the progress message.
    ending: Option<String>,
}

impl Transcript {
    pub(super) fn new(bot: &str) -> Self {
        Self { bot: bot.to_owned(), ..Self::default() }
    }

    /// Notes the event that asked for the job.
    pub(super) fn asked(&mut self, event: &str) {
        event.clone_into(&mut self.asked);
    }

    /// Returns whether the answer has come.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// Returns whether nothing more comes: the answer is there, and the progress message has its final text.
    pub(super) fn has_ended(&self) -> bool {
        self.answered && (self.progress.is_none() || self.ending.is_some())
    }

    /// Returns whether the job was done. A job too quick for a progress message counts as done.
    pub(super) fn is_done(&self) -> bool {
        self.has_ended() && self.ending.as_ref().is_none_or(|ending| ending.starts_with('✓'))
    }

    /// Takes an event of the room; returns what to print.
    pub(super) fn follow(&mut self, event: &Value) -> Vec<Line> {
        let content = &event["content"];
        if event["sender"] != self.bot.as_str() || event["type"] != "m.room.message" {
            return Vec::new();
        }
        let relation = &content["m.relates_to"];
        if relation["rel_type"] == "m.replace" {
            let edited = relation["event_id"].as_str();
            let body = content["m.new_content"]["body"].as_str().unwrap_or_default();
            return if edited == self.progress.as_deref() { self.progress(body) } else { Vec::new() };
        }
        let body = content["body"].as_str().unwrap_or_default();
        match content["msgtype"].as_str().unwrap_or_default() {
            "m.text" => {
                // A reply to another event belongs to a command before the job.
                self.answered |= relation["m.in_reply_to"]["event_id"] == self.asked.as_str();
                vec![Line::Said(body.to_owned())]
            }
            "m.notice" if is_at_work(body) => {
                self.progress = event["event_id"].as_str().map(ToOwned::to_owned);
                self.progress(body)
            }
            "m.notice" => vec![Line::Said(body.to_owned())],
            _ => {
                let size = content["info"]["size"].as_u64().map(text::human_bytes).unwrap_or_default();
                vec![Line::Said(format!("📎 {body} {size}"))]
            }
        }
    }

    fn progress(&mut self, body: &str) -> Vec<Line> {
        let mut lines = body.lines().map(str::trim_end);
        let head = lines.next().unwrap_or_default();
        if !is_at_work(body) {
            self.ending = Some(head.to_owned());
            return vec![Line::Below(head.to_owned())];
        }
        let mut new: Vec<_> = lines
            .filter(|line| line.starts_with(['✓', '✗', 'ℹ']) && !self.told.iter().any(|told| told == line))
            .map(ToOwned::to_owned)
            .collect();
        self.told.extend(new.iter().cloned());
        let mut told: Vec<_> = new.drain(..).map(Line::Below).collect();
        told.push(Line::Status(head.to_owned()));
        told
    }
}

/// Returns whether a text is that of a progress message during the work.
fn is_at_work(body: &str) -> bool {
    body.starts_with(['⚙', '⏳'])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(id: &str, kind: &str, body: &str) -> Value {
        let content = json!({"msgtype": kind, "body": body});
        json!({"event_id": id, "sender": "@bot:x", "type": "m.room.message", "content": content})
    }

    fn edit(of: &str, body: &str) -> Value {
        let mut event = said("$edit", "m.notice", &format!("* {body}"));
        event["content"]["m.new_content"] = json!({"body": body});
        event["content"]["m.relates_to"] = json!({"rel_type": "m.replace", "event_id": of});
        event
    }

    fn answer() -> Value {
        let mut event = said("$answer", "m.text", "It works.");
        event["content"]["m.relates_to"] = json!({"m.in_reply_to": {"event_id": "$asked"}});
        event
    }

    fn transcript() -> Transcript {
        let mut transcript = Transcript::new("@bot:x");
        transcript.asked("$asked");
        transcript
    }

    #[test]
    fn each_thing_is_told_once_and_the_end_is_known() {
        let mut room = transcript();
        let below = |text: &str| Line::Below(text.to_owned());
        let status = |text: &str| Line::Status(text.to_owned());
        assert_eq!(room.follow(&said("$p", "m.notice", "⚙️ thinking … · 0:00")), [status("⚙️ thinking … · 0:00")]);
        let one = "⚙️ a · 1 tool · 0:01  \n✓ wrote `x`  \n▸ `cargo test`";
        assert_eq!(room.follow(&edit("$p", one)), [below("✓ wrote `x`"), status("⚙️ a · 1 tool · 0:01")]);
        let two = "⚙️ a · 2 tools · 0:02  \n✓ wrote `x`  \n✗ ran `y`";
        assert_eq!(room.follow(&edit("$p", two)), [below("✗ ran `y`"), status("⚙️ a · 2 tools · 0:02")]);
        let mut file = said("$f", "m.image", "page.png");
        file["content"]["info"] = json!({"size": 2048});
        let Line::Said(file) = &room.follow(&file)[0] else { panic!("a file is said") };
        assert!(file.starts_with("📎 page.png 2"), "{file}");
        assert_eq!(room.follow(&answer()), [Line::Said("It works.".to_owned())]);
        assert!(room.is_answered() && !room.has_ended() && !room.is_done());
        assert_eq!(room.follow(&edit("$p", "✓ done · 2 tools · 0:03")), [below("✓ done · 2 tools · 0:03")]);
        assert!(room.has_ended() && room.is_done());
    }

    #[test]
    fn what_is_not_done_is_told_so() {
        let mut room = transcript();
        room.follow(&said("$p", "m.notice", "⏳ next in line"));
        room.follow(&answer());
        room.follow(&edit("$p", "◐ limit · 25 tools · 3:00"));
        assert!(room.has_ended() && !room.is_done());
    }

    #[test]
    fn others_are_not_heard_and_other_answers_are_not_ours() {
        let mut room = transcript();
        let mut other = answer();
        other["sender"] = "@anna:x".into();
        assert_eq!(room.follow(&other), []);
        assert_eq!(room.follow(&said("$r", "m.text", "A new conversation.")).len(), 1);
        assert!(!room.is_answered());
        assert_eq!(room.follow(&edit("$elsewhere", "✓ done")), []);
        room.follow(&answer());
        assert!(room.is_done(), "a quick answer has no message that is edited");
    }
}
