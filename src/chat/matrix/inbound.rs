//! Turns an event of a room into what the hub is told. Pure: JSON in, [`Body`] out. Events come from strangers: one
//! without the expected shape is ignored.

use std::collections::BTreeSet;

use matrix_sdk::ruma::{OwnedEventId, OwnedUserId, UserId};
use serde_json::Value;

use crate::{
    bots::{Addressed, Policies, names},
    hub::{Body, Inbound},
    ids::{EventId, RoomKey},
    text,
};

/// The reaction that stops a turn. Some clients add a variation selector.
pub(super) const STOP: &str = "🛑";

/// The most accounts that are kept of those whom a message mentions.
const MENTIONS: usize = 32;

/// Reactions that answer a card, in any colour of skin, and what they stand for.
const ANSWERS: [(&str, &str); 4] =
    [("👍", "!yes CODE 👍"), ("✅", "!yes CODE 👍"), ("👎", "!no CODE 👎"), ("❌", "!no CODE 👎")];

/// An event that was read.
#[derive(Debug)]
pub(super) struct Read<'a> {
    /// Its JSON, decrypted if possible.
    pub(super) event: &'a Value,
    /// Whether it was encrypted.
    pub(super) came: Came,
}

/// Whether an event was encrypted, and could be decrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// It was not encrypted.
    Plain,
    /// It was encrypted and could be decrypted.
    Decrypted,
    /// It was encrypted and its key is missing.
    Locked,
}

/// What is known about the room.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomFacts<'a> {
    pub(super) room: &'a RoomKey,
    pub(super) own: &'a UserId,
    pub(super) policies: &'a Policies,
    pub(super) encrypted: bool,
    /// The event id of the running turn's progress message, if there is one.
    pub(super) progress: Option<&'a str>,
    /// Whether an answer is shown in that message as it comes.
    pub(super) drafts: bool,
    /// The open cards: the event of each, and its code.
    pub(super) cards: &'a [(EventId, String)],
}

/// Returns what the hub is told about an event; `None` if nothing.
pub(super) fn read(place: RoomFacts<'_>, read: &Read<'_>) -> Option<Inbound> {
    let event = read.event;
    let sender: OwnedUserId = event["sender"].as_str()?.try_into().ok()?;
    if sender == place.own {
        return None;
    }
    let heard = place.policies.hears(sender.as_str());
    let unwanted = place.drafts && place.progress.is_some() && redacted(event) == place.progress;
    if !heard && event["type"] != "m.room.message" && !unwanted {
        return None;
    }
    let id: OwnedEventId = event["event_id"].as_str()?.try_into().ok()?;
    let body = match event["type"].as_str()? {
        "m.room.encrypted" if read.came == Came::Locked => Body::Locked { raw: event.clone(), until: None },
        // Reactions are never encrypted. The worst that a forged one can do in an encrypted room is to stop a turn.
        "m.reaction" => {
            let relation = &event["content"]["m.relates_to"];
            let key = relation["key"].as_str()?.trim_end_matches('\u{fe0f}');
            let target = relation["event_id"].as_str()?;
            if key == STOP {
                (place.progress == Some(target)).then_some(Body::Stop)?
            } else {
                let answer = ANSWERS.iter().find(|(reaction, _)| key.starts_with(reaction))?.1;
                let (_, code) = place.cards.iter().find(|(card, _)| !place.encrypted && card.as_str() == target)?;
                Body::said(answer.replace("CODE", code))
            }
        }
        // Whoever may delete an answer that is being written wants no more of it. The homeserver has let them, and the worst
        // that a forged one can do is to stop a turn.
        "m.room.redaction" if unwanted => Body::Stop,
        "m.room.redaction" => Body::Redacted { target: redacted(event)?.into() },
        _ if place.encrypted && read.came != Came::Decrypted => return None,
        "m.room.message" => message(place.own, &sender, &event["content"])?,
        "m.sticker" => unsupported("stickers", &event["content"]),
        "m.poll.start" | "org.matrix.msc3381.poll.start" => unsupported("polls", &event["content"]),
        _ => return None,
    };
    // Of others nothing is taken, and so nothing is written down, but the words that a bot takes from anybody there.
    let words = |body: &Body| match body {
        Body::Said { text, .. } => place.policies.takes(place.room.as_str(), text),
        _ => false,
    };
    let overheard = place.policies.overhears(sender.as_str()) && is_speech(&event["content"], &body);
    if !heard && !overheard && !unwanted && !words(&body) {
        return None;
    }
    let room = place.room.clone();
    Some(Inbound { room, event: id.as_str().into(), sender: sender.to_string(), body, sealed: None })
}

/// Returns the event that a redaction deletes; `None` if it is none.
pub(super) fn redacted(event: &Value) -> Option<&str> {
    let target = event["content"]["redacts"].as_str().or(event["redacts"].as_str());
    target.filter(|_| event["type"] == "m.room.redaction")
}

/// Returns whether a message is what somebody says, and not what a bot shows while it works: that is a notice.
fn is_speech(content: &Value, body: &Body) -> bool {
    match body {
        Body::Said { .. } => true,
        Body::Edited { .. } => content["m.new_content"]["msgtype"] == "m.text",
        _ => false,
    }
}

/// Returns whether an event is a message of somebody else that means the account.
pub(super) fn mentions(own: &UserId, event: &Value) -> bool {
    event["type"] == "m.room.message" && event["sender"] != own.as_str() && addressed(own, &event["content"]).mentioned
}

fn message(own: &UserId, sender: &UserId, content: &Value) -> Option<Body> {
    let relation = &content["m.relates_to"];
    if relation["rel_type"] == "m.replace" {
        let content = &content["m.new_content"];
        let (text, addressed) = (spoken(sender, content)?, addressed(own, content));
        return Some(Body::Edited { target: relation["event_id"].as_str()?.into(), text, addressed });
    }
    let (thread, about) = (thread(content), about(content));
    Some(match content["msgtype"].as_str()? {
        "m.text" | "m.emote" => {
            let text = spoken(sender, content).filter(|text| !text.trim().is_empty())?;
            let command = command_to(own, content, &text);
            Body::Said { text: command.unwrap_or(text), thread, about, addressed: addressed(own, content) }
        }
        // Notices are sent by programs; answering them makes two bots answer each other for ever.
        "m.notice" => return None,
        // `verification.rs` handles verifications.
        kind if kind.starts_with("m.key.verification.") => return None,
        "m.audio" if !content["org.matrix.msc3245.voice"].is_null() => unsupported("voice messages", content),
        "m.image" | "m.file" | "m.audio" | "m.video" => file(content, thread, about, addressed(own, content))?,
        "m.location" => unsupported("locations", content),
        _ => unsupported("messages of this kind", content),
    })
}

/// Returns a message as it is quoted: anybody's text or file, whether or not the bot hears them.
pub(super) fn words(sender: &UserId, content: &Value) -> Option<Body> {
    let kind = content["msgtype"].as_str().unwrap_or_default();
    if matches!(kind, "m.image" | "m.file" | "m.audio" | "m.video") {
        return file(content, None, None, Addressed::default());
    }
    let text = spoken(sender, content).or_else(|| Some(content["org.matrix.msc1767.text"].as_str()?.to_owned()));
    Some(Body::said(text.filter(|text| !text.trim().is_empty())?))
}

fn file(content: &Value, thread: Option<EventId>, about: Option<EventId>, addressed: Addressed) -> Option<Body> {
    let body = content["body"].as_str().unwrap_or_default();
    let (name, caption) = match content["filename"].as_str() {
        Some(name) if name != body => (name, body),
        Some(name) => (name, ""),
        None => (body, ""),
    };
    // An encrypted file has `file`, any other `url`; fetching it needs the one or the other.
    let source = if content["file"].is_object() {
        serde_json::json!({ "file": content["file"] })
    } else {
        serde_json::json!({ "url": content["url"].as_str()? })
    };
    Some(Body::File {
        name: name.to_owned(),
        mime: content["info"]["mimetype"].as_str().unwrap_or("application/octet-stream").to_owned(),
        size: content["info"]["size"].as_u64(),
        source,
        caption: caption.to_owned(),
        thread,
        about,
        addressed,
    })
}

/// Returns what tells that the bot is meant: it is among those whom the sender's client names, a link of the text leads to
/// it, or its id stands there, whole or without the server. What is repeated of an answered message does not count.
fn addressed(own: &UserId, content: &Value) -> Addressed {
    let text = said(content).unwrap_or_default();
    let named = content["m.mentions"]["user_ids"].as_array().is_some_and(|ids| ids.iter().any(|id| id == own.as_str()));
    let called = names::said(&text);
    let ids =
        [own.to_string(), format!("@{}", own.localpart())].into_iter().filter(|id| names::find(&called, id).is_some());
    let names: Vec<_> = ids.chain(shown(own, content)).chain(linked(&text, own)).collect();
    // Whether it replies to the bot is found out by who knows what the bot has said (`sync/reading.rs`).
    Addressed { mentioned: named || !names.is_empty(), replied: false, names, others: others(own, content, &text) }
}

/// Returns who else is meant: those whom the sender's client names or the text links to, and whom it calls at its beginning.
fn others(own: &UserId, content: &Value, text: &str) -> Vec<String> {
    let named = content["m.mentions"]["user_ids"].as_array().into_iter().flatten();
    let named = named.filter_map(|id| Some(id.as_str()?.to_owned()));
    let called = text
        .trim_start()
        .split([' ', '\u{a0}', '\n', ','])
        .next()
        .unwrap_or_default()
        .trim_end_matches([':', '?', '!']);
    let called = Some(called).filter(|called| called.len() > 1 && called.starts_with('@')).map(str::to_owned);
    let linked = written(content).split("href=\"").skip(1).filter_map(|rest| led_to(rest.split_once('"')?.0));
    let all = named.chain(called).chain(linked.filter(|id| id.starts_with('@')));
    let own = [own.to_string(), format!("@{}", own.localpart())];
    let others: BTreeSet<_> = all.filter(|id| id.len() <= 255 && !own.contains(id)).take(MENTIONS).collect();
    others.into_iter().collect()
}

fn unsupported(what: &str, content: &Value) -> Body {
    Body::Unsupported { what: what.to_owned(), thread: thread(content) }
}

pub(super) fn thread(content: &Value) -> Option<EventId> {
    let relation = &content["m.relates_to"];
    (relation["rel_type"] == "m.thread").then(|| relation["event_id"].as_str().map(EventId::from)).flatten()
}

/// Returns the message to which this one replies, if the person chose one. Clients also set a reply in threads, for
/// clients without threads, which nobody chose.
fn about(content: &Value) -> Option<EventId> {
    let relation = &content["m.relates_to"];
    let chosen = relation["rel_type"] != "m.thread" || relation["is_falling_back"] != true;
    relation["m.in_reply_to"]["event_id"].as_str().filter(|_| chosen).map(EventId::from)
}

/// Returns the text of a message; an emote (`/me waves`) gets the sender's name before it, without which it makes no
/// sense.
fn spoken(sender: &UserId, content: &Value) -> Option<String> {
    let text = said(content)?;
    Some(if content["msgtype"] == "m.emote" { format!("* {} {text}", sender.localpart()) } else { text })
}

/// Returns the text without the words of the answered message that older clients repeat before a reply. Quotes that
/// the person wrote stay.
fn said(content: &Value) -> Option<String> {
    let body = content["body"].as_str()?;
    let html = content["formatted_body"].as_str().unwrap_or_default();
    let replies = !content["m.relates_to"]["m.in_reply_to"].is_null() && repeats_somebody(body);
    if !(replies || html.trim_start().starts_with("<mx-reply>")) {
        return Some(body.to_owned());
    }
    let repeated: usize = body.split_inclusive('\n').take_while(|line| line.starts_with('>')).map(str::len).sum();
    Some(body.get(repeated..).unwrap_or_default().trim_start_matches(['\r', '\n']).to_owned())
}

/// Returns whether a text begins as clients repeat an answered message: `> <@anna:example.org> words`.
fn repeats_somebody(body: &str) -> bool {
    let named = body.strip_prefix("> ").map(|line| line.strip_prefix("* ").unwrap_or(line));
    let user = named.and_then(|line| line.strip_prefix('<')?.split_once('>'));
    user.is_some_and(|(user, _)| UserId::parse(user).is_ok())
}

/// Returns the rest of a message that names the bot before or after a command, as in `bot: !stop`. Whether it is a
/// command is for a bot to decide.
fn command_to(own: &UserId, content: &Value, text: &str) -> Option<String> {
    let text = text::bare(text);
    let is_command = |rest: &&str| rest.trim_start_matches(['`', '*', '_']).starts_with(['!', '！', '/']);
    let mut names = names(own, content);
    names.extend(linked(&text, own));
    // Longest first, since one name may begin with another.
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    names.iter().find_map(|name| {
        let before = strip_name(&text, name).map(|rest| rest.trim_start_matches([':', ',', ' ', '\u{a0}']));
        let behind = || {
            text.strip_suffix(&**name)?.strip_suffix([' ', '\u{a0}', ',']).map(|rest| rest.trim_end_matches([',', ' ']))
        };
        before.filter(is_command).or_else(|| behind().filter(is_command)).map(str::to_owned)
    })
}

/// Returns what follows `name` if a text begins with it, in any case.
fn strip_name<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let begins = text.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    text.get(name.len()..).filter(|rest| begins && !rest.starts_with(char::is_alphanumeric))
}

/// Returns the names by which a message may address the bot: its own, and the one that the client displays, from the
/// HTML.
fn names(own: &UserId, content: &Value) -> Vec<String> {
    let mut names = vec![own.to_string(), format!("@{}", own.localpart()), own.localpart().to_owned()];
    names.extend(shown(own, content));
    names
}

/// Returns a message's HTML without what is repeated of an answered message, which may have links of its own.
fn written(content: &Value) -> &str {
    let html = content["formatted_body"].as_str().unwrap_or_default();
    html.rsplit_once("</mx-reply>").map_or(html, |(_, html)| html)
}

/// Returns what the client displays for links to the bot.
fn shown(own: &UserId, content: &Value) -> Vec<String> {
    let anchors = written(content).split("href=\"").skip(1).filter_map(|anchor| {
        let (_, rest) = anchor.split_once('"').filter(|(url, _)| leads_to(url, own))?;
        let (shown, _) = rest.split_once('>')?.1.split_once("</a>")?;
        let shown = shown.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
        Some(text::bare(&shown.replace("&amp;", "&")))
    });
    anchors.filter(|shown| !shown.is_empty()).collect()
}

/// Returns the Markdown links to the bot with which a text begins and ends.
fn linked(text: &str, own: &UserId) -> Vec<String> {
    let link = |link: &str| {
        let (_, url) = link.strip_prefix('[')?.strip_suffix(')')?.rsplit_once("](")?;
        leads_to(url, own).then(|| link.to_owned())
    };
    let first = text.find(')').and_then(|end| link(&text[..=end]));
    let last = text.rfind('[').and_then(|start| link(&text[start..]));
    first.into_iter().chain(last).collect()
}

/// Returns whether a link leads to the bot.
fn leads_to(url: &str, own: &UserId) -> bool {
    led_to(url).as_deref() == Some(own.as_str())
}

/// Returns to whom or what of Matrix a link leads; some clients percent-encode it.
fn led_to(url: &str) -> Option<String> {
    let url = url.replace("%40", "@").replace("%3A", ":").replace("%3a", ":").replace("%23", "#");
    url.strip_prefix("https://matrix.to/#/").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::user_id;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::bots::{People, Places, Policy};

    fn read_as(encrypted: bool, came: Came, event: &Value) -> Option<Body> {
        let policies = Policies::new([Policy::new(People::Listed(vec!["@anna:a.org".into()]), Places::Anywhere)]);
        let room = RoomKey::from("!room:a.org");
        let place = RoomFacts {
            room: &room,
            own: user_id!("@bot:a.org"),
            policies: &policies,
            encrypted,
            progress: Some("$progress"),
            drafts: true,
            cards: &[("$card".into(), "K7QFB".into())],
        };
        read(place, &Read { event, came }).map(|inbound| inbound.body)
    }

    fn event(kind: &str, content: Value) -> Value {
        let mut event = json!({"type": kind, "sender": "@anna:a.org", "event_id": "$e"});
        event["content"] = content;
        event
    }

    fn plain(content: Value) -> Option<Body> {
        read_as(false, Came::Plain, &event("m.room.message", content))
    }

    fn said(text: &str) -> Body {
        Body::said(text)
    }

    fn in_thread(text: &str, thread: Option<EventId>, about: Option<EventId>) -> Body {
        Body::Said { text: text.into(), thread, about, addressed: Addressed::default() }
    }

    fn edited(text: &str) -> Body {
        Body::Edited { target: "$old".into(), text: text.into(), addressed: Addressed::default() }
    }

    #[test]
    fn a_link_that_another_bot_writes_calls_the_account() {
        let words = crate::chat::matrix::render::markdown("[@bot:a.org](https://matrix.to/#/@bot:a.org): hello");
        let content = crate::chat::matrix::send::to_content("m.text", &words);
        let Some(Body::Said { addressed, .. }) = plain(content) else { panic!("it is said") };
        assert!(addressed.mentioned && addressed.others.is_empty(), "{addressed:?}");
    }

    #[test]
    fn what_an_overheard_bot_says_is_kept_and_nothing_else_of_it() {
        let bots = vec!["@qwen:a.org".to_owned()];
        let everybody = Policy::new(People::Everybody, Places::Anywhere);
        let policies = Policies::new([Policy { ignored: bots.clone(), overheard: bots, ..everybody }]);
        let read_of = |event: &Value| {
            let (room, own) = (RoomKey::from("!room:a.org"), user_id!("@bot:a.org"));
            let (room, policies) = (&room, &policies);
            let progress = Some("$progress");
            let place = RoomFacts { room, own, policies, encrypted: false, progress, drafts: true, cards: &[] };
            read(place, &Read { event, came: Came::Plain }).map(|inbound| inbound.body)
        };
        let of = |kind: &str, content: Value| {
            let mut event = event(kind, content);
            event["sender"] = json!("@qwen:a.org");
            read_of(&event)
        };
        let edit = |kind: &str| {
            let relation = json!({"rel_type": "m.replace", "event_id": "$old"});
            json!({"msgtype": kind, "body": "* red", "m.new_content": {"msgtype": kind, "body": "red"}, "m.relates_to": relation})
        };
        assert_eq!(of("m.room.message", json!({"msgtype": "m.text", "body": "red"})), Some(said("red")));
        assert_eq!(of("m.room.message", edit("m.text")), Some(edited("red")));
        assert_eq!(of("m.room.message", edit("m.notice")), None, "it is not done yet");
        assert_eq!(of("m.room.message", json!({"msgtype": "m.image", "body": "a.png", "url": "mxc://a.org/a"})), None);
        assert_eq!(of("m.room.redaction", json!({"redacts": "$old"})), None);
        let stop = json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$progress", "key": "🛑"}});
        assert_eq!(of("m.reaction", stop), None);
    }

    #[test]
    fn a_listed_persons_words_count_and_nobody_elses() {
        let hello = json!({"msgtype": "m.text", "body": "hello"});
        assert_eq!(plain(hello.clone()), Some(said("hello")));
        for stranger in ["@bot:a.org", "@bert:a.org", "anna", ""] {
            let mut event = event("m.room.message", hello.clone());
            event["sender"] = stranger.into();
            assert_eq!(read_as(false, Came::Plain, &event), None, "{stranger}");
        }
        assert_eq!(plain(json!({"msgtype": "m.notice", "body": "hello"})), None);
    }

    #[test]
    fn an_encrypted_room_takes_nothing_in_the_clear_but_a_stop_and_no_answer_to_a_card() {
        let hello = event("m.room.message", json!({"msgtype": "m.text", "body": "hello"}));
        assert_eq!(read_as(true, Came::Plain, &hello), None);
        assert_eq!(read_as(true, Came::Decrypted, &hello), Some(said("hello")));
        let reaction = |target: &str| {
            event(
                "m.reaction",
                json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": "🛑\u{fe0f}"}}),
            )
        };
        assert_eq!(read_as(true, Came::Plain, &reaction("$progress")), Some(Body::Stop));
        assert_eq!(read_as(true, Came::Plain, &reaction("$other")), None);
        let answer = |target: &str, key: &str| {
            event("m.reaction", json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": target, "key": key}}))
        };
        assert_eq!(read_as(false, Came::Plain, &answer("$card", "👍🏽")), Some(said("!yes K7QFB 👍")));
        assert_eq!(read_as(false, Came::Plain, &answer("$card", "❌\u{fe0f}")), Some(said("!no K7QFB 👎")));
        assert_eq!(read_as(true, Came::Plain, &answer("$card", "👍")), None, "anybody on the way can write it");
        assert_eq!(read_as(false, Came::Plain, &answer("$other", "👍")), None);
        assert_eq!(read_as(false, Came::Plain, &answer("$card", "🎉")), None);
        let locked = event("m.room.encrypted", json!({"algorithm": "m.megolm.v1.aes-sha2"}));
        assert_eq!(read_as(true, Came::Locked, &locked), Some(Body::Locked { raw: locked.clone(), until: None }));
    }

    #[test]
    fn edits_redactions_threads_and_replies_are_told_apart() {
        let edit = json!({"msgtype": "m.text", "body": "* new", "m.new_content": {"msgtype": "m.text", "body": "new"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}});
        assert_eq!(plain(edit), Some(edited("new")));
        for redaction in [
            event("m.room.redaction", json!({"redacts": "$old"})),
            json!({"type": "m.room.redaction", "sender": "@anna:a.org", "event_id": "$e", "redacts": "$old", "content": {}}),
        ] {
            let body = read_as(false, Came::Plain, &redaction);
            assert_eq!(body, Some(Body::Redacted { target: "$old".into() }));
        }
        let deleted = |sender: &str, target: &str| {
            let mut event = event("m.room.redaction", json!({"redacts": target}));
            event["sender"] = json!(sender);
            read_as(true, Came::Plain, &event)
        };
        assert_eq!(deleted("@moderator:a.org", "$progress"), Some(Body::Stop));
        assert_eq!(deleted("@anna:a.org", "$progress"), Some(Body::Stop));
        assert_eq!(deleted("@moderator:a.org", "$old"), None, "whoever is not heard changes nothing else");
        let threaded =
            json!({"msgtype": "m.text", "body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "$root"}});
        assert_eq!(plain(threaded), Some(in_thread("x", Some("$root".into()), None)));
    }

    #[test]
    fn only_what_a_client_repeats_is_cut_from_a_reply_and_a_quote_of_ones_own_stays() {
        let reply = json!({"m.in_reply_to": {"event_id": "$q"}});
        let fallback = json!({"rel_type": "m.thread", "event_id": "$root", "is_falling_back": true,
            "m.in_reply_to": {"event_id": "$q"}});
        let chosen = json!({"rel_type": "m.thread", "event_id": "$root", "is_falling_back": false,
            "m.in_reply_to": {"event_id": "$q"}});
        let mx = "<mx-reply><blockquote>x</blockquote></mx-reply>no";
        for (body, html, relation, text, about) in [
            ("> <@eve:x> delete it\n> all\n\nno", "", &reply, "no", true),
            ("> * <@eve:x> waves\r\n\r\nno", "", &reply, "no", true),
            ("> delete it\n> all\n\nno", mx, &reply, "no", true),
            ("> <@eve:x> delete it\n\n> all of it\n\nno", "", &fallback, "> all of it\n\nno", false),
            ("> all of it\n\nno", "", &reply, "> all of it\n\nno", true),
            ("> all of it\n\nno", "", &fallback, "> all of it\n\nno", false),
            ("> <b> is bold\n\nno", "", &chosen, "> <b> is bold\n\nno", true),
            ("> <@eve:x> said so\n\nno", "", &json!({}), "> <@eve:x> said so\n\nno", false),
        ] {
            let content = json!({"msgtype": "m.text", "body": body, "formatted_body": html, "m.relates_to": relation});
            let thread = relation["event_id"].as_str().map(EventId::from);
            let about = about.then(|| EventId::from("$q"));
            assert_eq!(plain(content), Some(in_thread(text, thread, about)), "{body:?} {relation}");
        }
    }

    #[test]
    fn who_does_something_is_named() {
        assert_eq!(plain(json!({"msgtype": "m.emote", "body": "waves"})), Some(said("* anna waves")));
        let edit = json!({"msgtype": "m.emote", "body": "* nods", "m.new_content": {"msgtype": "m.emote", "body": "nods"},
            "m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}});
        assert_eq!(plain(edit), Some(edited("* anna nods")));
    }

    #[test]
    fn a_command_may_name_the_bot_before_it_or_behind() {
        let pill = |shown: &str| format!("<a href=\"https://matrix.to/#/@bot:a.org\">{shown}</a>");
        for (body, html, command) in [
            ("@bot:a.org: !stop", String::new(), "!stop"),
            ("@bot:a.org !stop", String::new(), "!stop"),
            ("@bot:a.org\u{a0}!stop", String::new(), "!stop"),
            ("bot, !stop", String::new(), "!stop"),
            ("Bot: !Stop.", String::new(), "!Stop."),
            ("@bot: !stop", String::new(), "!stop"),
            ("\u{200b}@bot:\u{200b} ! stop", String::new(), "! stop"),
            ("!stop @bot:a.org", String::new(), "!stop"),
            ("!stop, bot", String::new(), "!stop"),
            ("[Agent](https://matrix.to/#/@bot:a.org): !stop", String::new(), "!stop"),
            ("[Agent](https://matrix.to/#/%40bot%3Aa.org) !stop", String::new(), "!stop"),
            ("!stop [Agent](https://matrix.to/#/@bot:a.org)", String::new(), "!stop"),
            ("A & B: !stop", pill("A &amp; B") + ": !stop", "!stop"),
            ("!stop A & B", format!("!stop {}", pill("A &amp; B")), "!stop"),
            ("A & B !stop jobs", format!("<p>{} !stop jobs</p>", pill("A &amp; B")), "!stop jobs"),
        ] {
            let content = json!({"msgtype": "m.text", "body": body, "formatted_body": html});
            let Some(Body::Said { text, addressed, .. }) = plain(content) else { panic!("it is said: {body}") };
            // Its bare name is ordinary words; whether these call a bot is for the bot to decide.
            let bare = ["bot, !stop", "Bot: !Stop.", "!stop, bot"].contains(&body);
            assert_eq!((&*text, addressed.mentioned), (command, !bare), "{body}");
        }
        let reply = json!({"msgtype": "m.text", "body": "> <@bot:a.org> working\n\n@bot: !stop",
            "formatted_body": format!("<mx-reply>x</mx-reply>{}: !stop", pill("bot")),
            "m.relates_to": {"m.in_reply_to": {"event_id": "$q"}}});
        let Some(Body::Said { text, .. }) = plain(reply) else { panic!("it is said") };
        assert_eq!(text, "!stop");
        for body in [
            "anna: !stop",
            "bots: !stop",
            "do not !stop",
            "it works!",
            "bot: stop",
            "ask the bot !stop",
            "robot: !stop",
        ] {
            assert_eq!(plain(json!({"msgtype": "m.text", "body": body})), Some(said(body)));
        }
        assert_eq!(plain(json!({"msgtype": "m.text", "body": " \n"})), None, "nothing was said");
    }

    #[test]
    fn who_means_the_bot_is_known_by_the_clients_word_a_link_or_an_id() {
        let pill = "<a href=\"https://matrix.to/#/@bot:a.org\">Llama</a>";
        let fallback = format!("<mx-reply><blockquote>{pill} wrote</blockquote></mx-reply>");
        let reply = json!({"m.in_reply_to": {"event_id": "$q"}});
        let named = json!({"user_ids": ["@bot:a.org"]});
        let others = json!({"user_ids": ["@anna:a.org"]});
        let none = json!({});
        for (body, html, mentions, relation, mentioned, names) in [
            ("hello", "", &none, &none, false, vec![]),
            ("hello", "", &others, &none, false, vec![]),
            ("hello", "", &named, &none, true, vec![]),
            ("Llama: hello", pill, &named, &none, true, vec!["Llama"]),
            ("Llama: hello", pill, &none, &none, true, vec!["Llama"]),
            ("@bot hello", "", &none, &none, true, vec!["@bot"]),
            ("@bot:a.org hello", "", &none, &none, true, vec!["@bot:a.org"]),
            ("@bot:b.org hello", "", &none, &none, false, vec![]),
            ("@bot2 hello", "", &none, &none, false, vec![]),
            ("a robot", "", &none, &none, false, vec![]),
            ("> <@bot:a.org> @bot said\n\nno", "", &none, &reply, false, vec![]),
            ("> <@bot:a.org> x\n\nno", &fallback, &none, &reply, false, vec![]),
            ("> <@eve:a.org> x\n\n@bot yes", &format!("{fallback}@bot yes"), &none, &reply, true, vec!["@bot"]),
        ] {
            let said = |body: &str| json!({"msgtype": "m.text", "body": body, "formatted_body": html, "m.mentions": mentions, "m.relates_to": relation});
            let Some(Body::Said { addressed, .. }) = plain(said(body)) else { panic!("it is said: {body}") };
            let names = names.into_iter().map(str::to_owned).collect();
            let expected = Addressed { mentioned, replied: false, names, others: addressed.others.clone() };
            assert_eq!(addressed, expected, "{body} {html} {mentions}");
            // Of an edit the new words count: to the old ones somebody may have reacted already.
            let edit = json!({"msgtype": "m.text", "body": "* @bot", "m.mentions": named, "m.new_content": said(body),
                "m.relates_to": {"rel_type": "m.replace", "event_id": "$old"}});
            let Some(Body::Edited { addressed, .. }) = plain(edit) else { panic!("it is an edit: {body}") };
            assert_eq!(addressed, expected, "the edit to {body}");
        }
    }

    #[test]
    fn whom_else_a_message_means_is_known_by_the_clients_word_a_link_or_its_beginning() {
        let pill = |id: &str| format!("<a href=\"https://matrix.to/#/{id}\">Somebody</a>");
        let fallback = format!("<mx-reply><blockquote>{}</blockquote></mx-reply>no", pill("@eve:a.org"));
        for (body, html, mentions, others) in [
            ("hello", String::new(), json!([]), vec![]),
            ("hello", String::new(), json!(["@llama:a.org", "@bot:a.org", 7]), vec!["@llama:a.org"]),
            ("Somebody: hello", pill("%40llama%3Aa.org"), json!([]), vec!["@llama:a.org"]),
            ("look", format!("{}{}", pill("#room:a.org"), pill("@bot:a.org")), json!([]), vec![]),
            ("@llama: hello", String::new(), json!([]), vec!["@llama"]),
            ("@llama:a.org, hello", String::new(), json!([]), vec!["@llama:a.org"]),
            ("@bot ask @llama", String::new(), json!([]), vec![]),
            ("mail me@a.org or @ home", String::new(), json!([]), vec![]),
            ("no", fallback, json!([]), vec![]),
        ] {
            let said = json!({"msgtype": "m.text", "body": body, "formatted_body": html, "m.mentions": {"user_ids": mentions}});
            let Some(Body::Said { addressed, .. }) = plain(said) else { panic!("it is said: {body}") };
            assert_eq!(addressed.others, others, "{body} {html}");
        }
        let many: Vec<_> = (0..1000).map(|n| format!("@{n}:a.org")).collect();
        let said = json!({"msgtype": "m.text", "body": "all", "m.mentions": {"user_ids": many}});
        let Some(Body::Said { addressed, .. }) = plain(said) else { panic!("it is said") };
        assert_eq!(addressed.others.len(), MENTIONS);
    }

    #[test]
    fn files_keep_what_it_takes_to_fetch_them_and_the_rest_is_named() {
        let file = plain(json!({"msgtype": "m.image", "body": "look", "filename": "a.png", "url": "mxc://a/b",
            "info": {"mimetype": "image/png", "size": 7}}));
        let expected = Body::File {
            name: "a.png".into(),
            mime: "image/png".into(),
            size: Some(7),
            source: json!({"url": "mxc://a/b"}),
            caption: "look".into(),
            thread: None,
            about: None,
            addressed: Addressed::default(),
        };
        assert_eq!(file, Some(expected));
        assert_eq!(plain(json!({"msgtype": "m.file", "body": "a"})), None, "nothing to fetch");
        let voice = json!({"msgtype": "m.audio", "body": "v", "url": "mxc://a/b", "org.matrix.msc3245.voice": {}});
        assert_eq!(plain(voice), Some(Body::Unsupported { what: "voice messages".into(), thread: None }));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_passed_over(kind in "m\\.(room\\.message|reaction|room\\.redaction|room\\.encrypted|sticker)",
            content in json(), came in prop_oneof![Just(Came::Plain), Just(Came::Decrypted), Just(Came::Locked)]) {
            read_as(came != Came::Plain, came, &event(&kind, content));
        }
    }

    /// Random JSON in which the relevant keys occur often.
    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::from),
            "> (<@a:b>)?.{0,9}\n?.{0,9}".prop_map(Value::from),
            "m\\.(text|notice|image|audio|replace|thread)".prop_map(Value::from)
        ];
        let key = prop_oneof![
            "msgtype",
            "body",
            "url",
            "file",
            "rel_type",
            "event_id",
            "key",
            "info",
            "filename",
            "m\\.relates_to",
            "m\\.new_content",
            "m\\.in_reply_to",
            "redacts"
        ];
        leaf.prop_recursive(3, 32, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(key.clone(), inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect()))
            ]
        })
    }
}
