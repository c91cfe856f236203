//! Tells the model of the message to which somebody replies: as data with its author's name, never as an instruction.
//! Its file is saved in the sandbox like any other that was sent.

use std::time::Duration;

use tokio::{sync::oneshot, time};

use super::{brought::Brought, meaning::FileSent, upload::upload};
use crate::{
    bots::Bot,
    hub::{AccountHub, Author, Body, Fetch, FetchQuote, NotQuoted, Quoted},
    ids::{Address, EventId},
    strings, text,
};

/// How long the chat protocol may take to find the message.
const FINDING: Duration = Duration::from_secs(30);
/// The most bytes of the message that the model is shown; the middle of a longer one is cut out.
const LONGEST: usize = 16 << 10;
/// Characters besides the line feed that some readers take for the end of a line.
const LINE_ENDS: [char; 6] = ['\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];

/// Fetches the message `about` and its file into `brought`. A message or file that cannot be fetched leaves a note
/// that says so.
pub(super) async fn quote(hub: &AccountHub, address: &Address, bot: &dyn Bot, about: EventId, brought: &mut Brought) {
    let found = find(hub, address, about.clone()).await;
    let Quoted { sender, author, body } = match found {
        Ok(quoted) => quoted,
        Err(why) => {
            tracing::info!(%about, ?why, "a message to which somebody replies is not known");
            return brought.add_note(strings::told::not_quoted(match why {
                NotQuoted::TakenBack => strings::told::QUOTE_TAKEN_BACK,
                NotQuoted::Unreadable => strings::told::QUOTE_UNREADABLE,
                NotQuoted::Away => strings::files::HOMESERVER_AWAY,
            }));
        }
    };
    let whose = match author {
        Author::Bot => strings::told::QUOTE_OWN.to_owned(),
        Author::Listed => strings::told::quote_of(&sender),
        Author::Stranger => strings::told::quote_of_stranger(&sender),
        Author::Unproven => strings::told::quote_unproven(&sender),
    };
    let (words, file) = match body {
        Body::File { name, mime, size, source, caption, .. } => {
            let words = if caption.trim().is_empty() { format!("[{}]", text::one_line(&name, 100)) } else { caption };
            (words, Some(FileSent { name, mime, size, source }))
        }
        Body::Said { text, .. } => (text, None),
        Body::Unsupported { what, .. } => (format!("[{what}]"), None),
        _ => return brought.add_note(strings::told::not_quoted(strings::told::QUOTE_UNREADABLE)),
    };
    // Each line gets a mark, whatever character ends it, so that no part of the quote passes for what stands after
    // it.
    let words = words.replace("\r\n", "\n").replace(LINE_ENDS, "\n");
    let words = text::cut_middle(text::strip(&words).trim(), LONGEST);
    let lines: Vec<_> = words.lines().map(|line| format!("> {line}")).collect();
    brought.add_note(strings::told::quoted(&whose, &lines.join("\n")));
    if let Some(file) = file {
        match upload(hub, address, bot, about, file, true).await {
            Ok(upload) => brought.add_file(upload),
            Err(sentence) => brought.add_note(format!("[{sentence}]")),
        }
    }
}

async fn find(hub: &AccountHub, address: &Address, event: EventId) -> Result<Quoted, NotQuoted> {
    let (done, found) = oneshot::channel();
    let room = hub.inner.homes.current(&address.room);
    let fetch = Fetch::Quote(FetchQuote { room, event, done });
    let found = async {
        hub.inner.ports.fetch(&address.room, fetch).await;
        found.await.ok()
    };
    time::timeout(FINDING, found).await.ok().flatten().unwrap_or(Err(NotQuoted::Away))
}
