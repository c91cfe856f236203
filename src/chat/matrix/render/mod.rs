//! Renders what the bot says for a Matrix event. The text is Markdown from a language model, partly copied from
//! untrusted sources (command output, web pages): the result pings nobody, loads nothing, hides nothing, and has only
//! tags of the Matrix specification. Pure: no I/O, no room, no client.
//!
//! Called by whatever sends or edits a message. The caller sets `m.mentions` in every event, empty if nobody is
//! mentioned: without it, clients and servers look for names in the body.

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

pub use shorten::{shortened, shortened_for_edit};

use crate::text;

/// The longest display name in a mention, in characters.
const NAME: usize = 64;

/// The most bytes of what a model has thought.
const THOUGHTS: usize = 3 << 10;

/// The longest footer, in characters.
const FOOTER: usize = 500;

/// A text as an event carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// For clients without HTML, notifications and search: the Markdown as written, cleaned.
    pub body: String,
    /// `formatted_body`; `None` if it would say no more than the body.
    pub html: Option<String>,
}

/// Renders a Markdown text of any length; [`shortened`] tells whether it fits into an event.
pub fn markdown(text: &str) -> Rendered {
    let clean = text::strip(text);
    let body = body(&clean);
    let html = html::render(&clean);
    let html = (html != html::plain(&body)).then_some(html);
    Rendered { body, html }
}

/// Renders a turn's answer: a mention of who asked (user id and display name), the text, and a last line in italics
/// with what it used. Empty parts are left out. The link alone notifies nobody: the event's `m.mentions` does.
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
        // A list or a code block cannot follow a name in the same paragraph.
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

/// Puts what a model has thought before its answer: behind a spoiler, or folded away. Clients without HTML are not shown it.
pub(super) fn with_thoughts(answer: Rendered, thoughts: Option<(&str, bool)>) -> Rendered {
    let Some((thoughts, folded)) = thoughts.filter(|(text, _)| !text.trim().is_empty()) else { return answer };
    let cut = text::cut_middle(text::strip(thoughts).trim(), THOUGHTS);
    let words = words::escape(&words::defuse(&cut)).replace('\n', "<br>");
    let hidden = if folded {
        format!("<details><summary>thinking</summary>{words}</details>")
    } else {
        format!("<blockquote><span data-mx-spoiler=\"thinking\">{words}</span></blockquote>")
    };
    let html = answer.html.unwrap_or_else(|| html::plain(&answer.body));
    Rendered { html: Some(format!("{hidden}{html}")), body: answer.body }
}

/// Returns a file's name as a body that pings nobody.
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
    // Spaces before the first line stay, since they may make it a code block.
    words::defuse(clean.trim_end().trim_start_matches('\n'))
}
