//! What the bot says, as a Matrix event carries it. The text is Markdown that a language model wrote, partly copied
//! from what must not be trusted (output of commands, web pages): what comes out pings nobody, loads nothing, hides
//! nothing, and has only the tags of the Matrix specification. Pure: no I/O, no room, no client.
//!
//! Called by whatever sends or edits a message of this protocol. The caller sets `m.mentions` in every event, empty
//! if nobody is to be called: without it, clients and servers look for names in the body.

mod html;
mod links;
mod page;
#[cfg(test)]
mod properties;
mod raw;
mod shorten;
#[cfg(test)]
mod tests;
mod words;

pub(super) use shorten::shortened;

use crate::text;

/// The longest display name of somebody who is mentioned, in characters.
const NAME: usize = 64;

/// The longest footer, in characters.
const FOOTER: usize = 500;

/// What an event carries of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    /// For clients without HTML, notifications and search: the Markdown as it was written, cleaned.
    pub body: String,
    /// `formatted_body`; none if it would say nothing that the body does not.
    pub html: Option<String>,
}

/// Returns what an event carries of a Markdown text. A text of any length comes back whole: [`shortened`] tells
/// whether it fits.
pub(super) fn markdown(text: &str) -> Rendered {
    let clean = text::strip(text);
    let body = body(&clean);
    let html = html::render(&clean);
    let html = (html != html::plain(&body)).then_some(html);
    Rendered { body, html }
}

/// Returns a turn's answer: who asked (user id and display name), the text, and a last line in italics that says what
/// it took. What is empty is left out. The link alone calls nobody: `m.mentions` of the event does.
pub(super) fn answer(mention: Option<(&str, &str)>, text: &str, footer: &str) -> Rendered {
    let text = markdown(text);
    let mut html = text.html.unwrap_or_else(|| html::plain(&text.body));
    let mut body = text.body;
    if let Some((user, name)) = mention {
        let name = match text::one_line(name, NAME) {
            name if name.is_empty() => text::one_line(user, NAME),
            name => name,
        };
        let name = words::defuse(&name);
        let shown = words::escape(&name);
        let link = links::user(user).map_or_else(|| shown.clone(), |url| format!("<a href=\"{url}\">{shown}</a>"));
        // A list or a code block cannot begin behind a name.
        let (gap, rest) = match html.strip_prefix("<p>") {
            Some(rest) => (" ", format!(" {rest}")),
            None => ("\n\n", format!("</p>{html}")),
        };
        html = format!("<p>{link}:{rest}");
        body = format!("{name}:{gap}{body}");
    }
    let footer = text::one_line(footer, FOOTER);
    if !footer.is_empty() {
        html.push_str("<p><em>");
        words::write(&mut html, &footer);
        html.push_str("</em></p>");
        body = format!("{body}\n\n{}", words::defuse(&footer));
    }
    let body = body.trim().to_owned();
    let html = (html != html::plain(&body)).then_some(html);
    Rendered { body, html }
}

/// Returns a file's name as a body: it pings nobody.
pub(super) fn name(name: &str) -> String {
    words::defuse(name)
}

/// Returns what an event carries of plain lines under a title: nothing in them acts as Markdown or pings.
pub(super) fn preformatted(text: &str) -> Rendered {
    let body = body(&text::strip(text));
    let (title, lines) = body.split_once('\n').unwrap_or((&body, ""));
    let (title, lines) = (words::escape(title), words::escape(lines));
    let html = Some(format!("<p><strong>{title}</strong></p><pre><code>{lines}\n</code></pre>"));
    Rendered { body, html }
}

/// Returns cleaned Markdown as a body: nothing pings, no empty lines around it.
fn body(clean: &str) -> String {
    // Spaces before the first line stay: they may make it a block of code.
    words::defuse(clean.trim_end().trim_start_matches('\n'))
}
