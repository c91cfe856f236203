//! What Nextcloud's webhook tells, in Activity Streams 2.0 as Talk writes it. Lenient: what a newer Talk adds is passed over, and
//! what is missing is none of ours. Pure.

use serde_json::Value;

use crate::text;

/// The longest text of a message, in bytes; more is cut off.
const LONGEST: usize = 256 << 10;
/// The longest quote, in bytes.
const LONGEST_QUOTE: usize = 16 << 10;
/// The longest name that stands for something in a text, in characters.
const LONGEST_NAME: usize = 100;
/// The longest name of a placeholder, in characters.
const LONGEST_PLACEHOLDER: usize = 64;
/// The longest token of a conversation, in bytes.
const LONGEST_TOKEN: usize = 64;
/// The longest id of an actor, in bytes.
const LONGEST_ACTOR: usize = 255;
/// How the ids of bots begin.
const BOTS: &str = "bots/";

/// Something that happened in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Activity {
    /// Somebody wrote a message.
    Said(Message),
    /// The bot was added to a conversation.
    Joined {
        /// The conversation's token.
        conversation: String,
        /// The bot's own id.
        own: String,
        /// What people call the conversation; may be empty.
        called: String,
    },
    /// The bot was removed from a conversation.
    Left {
        /// The conversation's token.
        conversation: String,
    },
    /// Something in which there is nothing for a bot: a message of the system, a reaction, or what this version does not know.
    Other,
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The conversation's token: letters and digits.
    pub conversation: String,
    /// What people call the conversation; may be empty.
    pub called: String,
    /// Its number at the server.
    pub id: u64,
    /// Who wrote it, by their id: `users/ada`, `guests/…`.
    pub who: String,
    /// What they wrote, with names in place of placeholders, and without control characters.
    pub text: String,
    /// The message to which it replies.
    pub quote: Option<Quote>,
}

/// A message to which somebody replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Its number at the server.
    pub id: u64,
    /// Who wrote it, by their id.
    pub who: String,
    /// Their name as people see it.
    pub name: String,
    /// What they wrote.
    pub text: String,
}

/// Why an activity cannot be read: a part of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotRead {
    /// It is no JSON object.
    #[error("it is no JSON object")]
    NoObject,
    /// A part that it must have is missing or is of another kind.
    #[error("its `{0}` is missing or unlike what Talk sends")]
    Part(&'static str),
}

impl Message {
    /// Returns whether a bot wrote it.
    pub fn is_bots(&self) -> bool {
        self.who.starts_with(BOTS)
    }
}

impl Quote {
    /// Returns whether a bot wrote it.
    pub fn is_bots(&self) -> bool {
        self.who.starts_with(BOTS)
    }
}

/// Reads the body of a webhook.
///
/// # Errors
///
/// It is none of Talk's.
pub fn read(body: &[u8]) -> Result<Activity, NotRead> {
    let activity: Value = serde_json::from_slice(body).map_err(|_| NotRead::NoObject)?;
    if !activity.is_object() {
        return Err(NotRead::NoObject);
    }
    let (object, target) = (&activity["object"], &activity["target"]);
    Ok(match activity["type"].as_str().ok_or(NotRead::Part("type"))? {
        // Talk before 23 leaves the name of a message with an attachment empty. Others are the system's.
        "Create" if matches!(object["name"].as_str(), None | Some("" | "message")) => Activity::Said(Message {
            conversation: token(&target["id"]).ok_or(NotRead::Part("target.id"))?,
            called: shown(target["name"].as_str().unwrap_or_default()),
            id: number(&object["id"]).ok_or(NotRead::Part("object.id"))?,
            who: actor(&activity["actor"]).ok_or(NotRead::Part("actor.id"))?,
            text: content(object, LONGEST).ok_or(NotRead::Part("object.content"))?,
            quote: quote(&object["inReplyTo"]),
        }),
        "Join" => Activity::Joined {
            conversation: token(&object["id"]).ok_or(NotRead::Part("object.id"))?,
            own: actor(&activity["actor"]).ok_or(NotRead::Part("actor.id"))?,
            called: shown(object["name"].as_str().unwrap_or_default()),
        },
        "Leave" => Activity::Left { conversation: token(&object["id"]).ok_or(NotRead::Part("object.id"))? },
        // A reaction tells which text somebody liked, and not who wrote that: nothing can be allowed by it.
        _ => Activity::Other,
    })
}

/// Reads the token of a conversation, which becomes a part of addresses.
fn token(value: &Value) -> Option<String> {
    let token = value.as_str()?;
    let plain = (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
    plain.then(|| token.to_owned())
}

/// Reads a message's number, which Talk writes as a text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Reads an actor's id: the kind, a slash, and who it is.
fn actor(actor: &Value) -> Option<String> {
    let id = actor["id"].as_str()?;
    let (kind, who) = id.split_once('/')?;
    let fits = id.len() <= LONGEST_ACTOR && !id.chars().any(char::is_control);
    (fits && !who.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') && !kind.is_empty())
        .then(|| id.to_owned())
}

fn quote(parent: &Value) -> Option<Quote> {
    let object = &parent["object"];
    Some(Quote {
        id: number(&object["id"])?,
        who: actor(&parent["actor"])?,
        name: shown(parent["actor"]["name"].as_str().unwrap_or_default()),
        text: content(object, LONGEST_QUOTE)?,
    })
}

/// Reads the text of a message, which is JSON in a text.
fn content(object: &Value, longest: usize) -> Option<String> {
    let content = object["content"].as_str()?;
    let content: Value = serde_json::from_str(content).ok()?;
    let message = content["message"].as_str()?;
    let shown = text::strip(resolved(message, &content["parameters"], longest));
    Some(shown[..shown.floor_char_boundary(longest)].to_owned())
}

/// Puts names in place of placeholders such as `{mention-user1}`, until there are `longest` bytes. Without parameters PHP writes an
/// empty list in place of an object.
fn resolved(message: &str, parameters: &Value, longest: usize) -> String {
    let (mut shown, mut rest) = (String::new(), message);
    while let Some(at) = rest.find('{').filter(|_| shown.len() < longest) {
        let (before, from) = rest.split_at(at);
        shown.push_str(before);
        let end = from.char_indices().take(LONGEST_PLACEHOLDER).find(|(_, c)| *c == '}').map(|(end, _)| end);
        if let Some((end, name)) = end.and_then(|end| Some((end, name_of(parameters.get(&from[1..end])?)?))) {
            shown.push_str(&name);
            rest = &from[end + 1..];
        } else {
            shown.push('{');
            rest = &from[1..];
        }
    }
    shown.push_str(rest);
    shown
}

/// Returns what stands for something in a text.
fn name_of(object: &Value) -> Option<String> {
    let name = shown(object["name"].as_str()?);
    Some(match object["type"].as_str()? {
        "user" | "guest" | "email" | "federated_user" | "user-group" | "circle" | "bot" => format!("@{name}"),
        // Everybody in the conversation, by whose name they are called.
        "call" => "@all".to_owned(),
        "highlight" => name,
        _ => format!("[{name}]"),
    })
}

/// Returns a name as it is shown. It may stand in a text very often, so no more of it is looked at than can be shown.
fn shown(name: &str) -> String {
    text::one_line(&name[..name.floor_char_boundary(4 * LONGEST_NAME)], LONGEST_NAME)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// A message as the documentation shows it.
    fn sample(message: &str, parameters: &Value) -> Value {
        json!({
            "type": "Create",
            "actor": {"type": "Person", "id": "users/ada-lovelace", "name": "Ada Lovelace", "talkParticipantType": "1"},
            "object": {
                "type": "Note", "id": "1567", "name": "message",
                "content": json!({"message": message, "parameters": parameters}).to_string(),
                "mediaType": "text/markdown",
            },
            "target": {"type": "Collection", "id": "n3xtc10ud", "name": "world"},
        })
    }

    fn said(activity: &Value) -> Message {
        match read(activity.to_string().as_bytes()) {
            Ok(Activity::Said(message)) => message,
            other => panic!("{other:?}"),
        }
    }

    fn text(message: &str, parameters: &Value) -> String {
        said(&sample(message, parameters)).text
    }

    #[test]
    fn a_message_is_read_as_the_documentation_has_it() {
        let call = json!({"mention-call1": {"type": "call", "id": "n3xtc10ud", "name": "world", "call-type": "group"}});
        let message = said(&sample("hi {mention-call1} !", &call));
        assert_eq!(
            message,
            Message {
                conversation: "n3xtc10ud".into(),
                called: "world".into(),
                id: 1567,
                who: "users/ada-lovelace".into(),
                text: "hi @all !".into(),
                quote: None,
            }
        );
        assert!(!message.is_bots());
    }

    #[test]
    fn placeholders_become_names_and_all_else_stays() {
        let parameters = json!({
            "mention-user1": {"type": "user", "id": "grace", "name": "Grace Hopper"},
            "mention-guest1": {"type": "guest", "id": "guest/1", "name": "Guest\nwith {mention-user1}"},
            "file": {"type": "file", "id": "3", "name": "report.pdf", "mimetype": "application/pdf"},
            "odd": "no object",
            "nameless": {"type": "user"},
        });
        for (message, shown) in [
            ("{mention-user1}, look at {file}", "@Grace Hopper, look at [report.pdf]"),
            ("{mention-guest1}", "@Guest with {mention-user1}"),
            ("{mention-user2} {} { {odd} {nameless} }", "{mention-user2} {} { {odd} {nameless} }"),
            ("fn main() { println!(\"{file}\"); }", "fn main() { println!(\"[report.pdf]\"); }"),
            ("{{file}}", "{[report.pdf]}"),
            ("{", "{"),
            ("a\u{1b}[31mred\u{202e}\r\nb", "ared\nb"),
        ] {
            assert_eq!(text(message, &parameters), shown, "{message}");
        }
        assert_eq!(text("plain {file}", &json!([])), "plain {file}", "PHP writes an empty list");
    }

    #[test]
    fn a_reply_brings_its_quote_along() {
        let mut activity = sample("@Halo really?", &json!({}));
        activity["object"]["inReplyTo"] = json!({
            "actor": {"type": "Application", "id": "bots/bot-a78f", "name": "Halo"},
            "object": {"id": 1560, "content": "{\"message\":\"Yes.\",\"parameters\":[]}"},
        });
        let quote = said(&activity).quote.unwrap();
        assert!(quote.is_bots());
        assert_eq!((quote.id, quote.name.as_str(), quote.text.as_str()), (1560, "Halo", "Yes."));
        activity["object"]["inReplyTo"] = json!({"object": {"id": "no number"}});
        assert_eq!(said(&activity).quote, None, "a quote that cannot be read is none");
    }

    #[test]
    fn other_kinds_are_told_apart() {
        let of = |activity: Value| read(activity.to_string().as_bytes());
        let own = json!({"type": "Application", "id": "bots/bot-a78f", "name": "Halo"});
        let here = json!({"type": "Collection", "id": "n3xtc10ud", "name": "world"});
        assert_eq!(
            of(json!({"type": "Join", "actor": own, "object": here})),
            Ok(Activity::Joined {
                conversation: "n3xtc10ud".into(),
                own: "bots/bot-a78f".into(),
                called: "world".into()
            })
        );
        assert_eq!(
            of(json!({"type": "Leave", "actor": own, "object": here})),
            Ok(Activity::Left { conversation: "n3xtc10ud".into() })
        );
        for kind in ["Like", "Undo", "Activity", "Whatever"] {
            let mut activity = sample("hi", &json!({}));
            activity["type"] = kind.into();
            assert_eq!(of(activity), Ok(Activity::Other), "{kind}");
        }
        let mut system = sample("hi", &json!({}));
        system["object"]["name"] = "user_added".into();
        assert_eq!(of(system), Ok(Activity::Other));
        let mut attached = sample("{file}", &json!({"file": {"type": "file", "name": "a.txt"}}));
        attached["object"]["name"] = "".into();
        assert_eq!(said(&attached).text, "[a.txt]", "as Talk before 23 writes it");
    }

    #[test]
    fn what_is_none_of_talks_is_refused() {
        for body in ["", "[]", "null", "\"Create\"", "{\"type\":\"Create\"", "\u{fffd}"] {
            assert_eq!(read(body.as_bytes()), Err(NotRead::NoObject), "{body}");
        }
        assert_eq!(read(b"{}"), Err(NotRead::Part("type")));
        for (pointer, value, part) in [
            ("/target/id", json!("../../etc"), "target.id"),
            ("/target/id", json!(""), "target.id"),
            ("/target/id", json!("x".repeat(65)), "target.id"),
            ("/object/id", json!("-1"), "object.id"),
            ("/object/id", json!("99999999999999999999"), "object.id"),
            ("/actor/id", json!("ada"), "actor.id"),
            ("/actor/id", json!("users/"), "actor.id"),
            ("/actor/id", json!("github:acme/x"), "actor.id"),
            ("/actor/id", json!("users/a\nb"), "actor.id"),
            ("/object/content", json!("no JSON"), "object.content"),
            ("/object/content", json!({"message": "hi"}), "object.content"),
        ] {
            let mut activity = sample("hi", &json!({}));
            *activity.pointer_mut(pointer).unwrap() = value.clone();
            assert_eq!(read(activity.to_string().as_bytes()), Err(NotRead::Part(part)), "{pointer} {value}");
        }
    }

    #[test]
    fn many_long_names_do_not_make_a_text_endless() {
        let parameters = json!({"a": {"type": "user", "name": "x".repeat(100_000)}});
        let long = text(&"{a}".repeat(30_000), &parameters);
        assert!(long.len() <= LONGEST && long.starts_with("@xxx"), "{}", long.len());
    }

    proptest! {
        #[test]
        fn any_message_is_read_bounded_and_clean(message in ".{0,200}", name in ".{0,200}") {
            let parameters = json!({"a": {"type": "user", "name": name}, "": {"type": "file", "name": name}});
            let shown = text(&format!("{message}{{a}}{message}"), &parameters);
            prop_assert!(shown.len() <= LONGEST);
            prop_assert!(shown.chars().all(|c| !c.is_control() || matches!(c, '\n' | '\t')));
        }

        #[test]
        fn no_body_breaks_it(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&body);
        }
    }
}
