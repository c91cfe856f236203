//! Markdown to HTML: parser events in, tags of the Matrix specification out, balanced for any input.
//!
//! - Headings begin at `<h3>`: a chat does not shout. `#` becomes `<h3>`, `##` `<h4>`, all below `<h5>` (smaller ones
//!   are smaller than the text around them).
//! - A line break stays a line break, as everywhere in chats.
//! - Raw HTML becomes text, except for `<details>` and `<summary>` (without attributes).
//! - Images become links: nothing is loaded.
//! - What would nest deeper than [`DEPTH`] is written as if it did not.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, LinkType, Options, Parser, Tag, TagEnd};

use super::{
    links,
    page::{BODY, DEPTH, DETAILS, Page, Wanted},
    words,
};
use crate::text;

/// The longest name of a language in a code block's class.
const LANGUAGE: usize = 32;

const OPTIONS: Options = Options::ENABLE_TABLES.union(Options::ENABLE_STRIKETHROUGH).union(Options::ENABLE_TASKLISTS);

/// Returns cleaned Markdown as HTML.
pub(super) fn render(markdown: &str) -> String {
    let mut page = Page::new(markdown.len());
    for (event, range) in Parser::new_ext(markdown, OPTIONS).into_offset_iter() {
        page.event(event, &markdown[range]);
    }
    page.finish()
}

/// Returns plain text as [`render`] would write it.
pub(super) fn plain(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("<p>{}</p>", words::escape(text).replace("\n\n", "</p><p>").replace('\n', "<br>"))
}

/// Returns what must follow cleaned Markdown to end all blocks that are still open (code blocks and `<details>`), so
/// that a paragraph can be appended.
pub(super) fn closing(markdown: &str) -> String {
    let probe = format!("{markdown}\n\nx");
    let mut page = Page::new(probe.len());
    let mut closing = String::new();
    for (event, range) in Parser::new_ext(&probe, OPTIONS).into_offset_iter() {
        if matches!(event, Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(_)))) && range.end == probe.len() {
            let block = probe[range.start..].trim_start();
            let fence = block.find(|c| !block.starts_with(c)).unwrap_or(block.len());
            closing = format!("\n{}", &block[..fence]);
        }
        page.event(event, &probe[range]);
    }
    page.flush();
    let details = page.stack.iter().filter(|frame| frame.tags == DETAILS).count();
    closing + "\n\n</details>".repeat(details).as_str()
}

impl Page {
    /// Writes a parser event; `source` is the Markdown that it covers.
    fn event(&mut self, event: Event<'_>, source: &str) {
        match event {
            // `~/a and (~/b)` are paths: only a double tilde strikes through.
            Event::Start(Tag::Strikethrough) if !source.starts_with("~~") => {
                self.pending.push('~');
                self.unwritten();
            }
            Event::End(TagEnd::Strikethrough) if !source.starts_with("~~") => {
                self.pending.push('~');
                self.close();
            }
            Event::Start(tag) => self.start(tag),
            Event::End(tag) => self.end(tag),
            Event::Code(text) if self.depth < DEPTH => {
                self.flush();
                self.ensure();
                words::code(&mut self.out, &words::defuse(&text));
            }
            Event::Text(text) | Event::Code(text) => self.pending.push_str(&text),
            Event::Html(text) => self.raw.push_str(&text),
            Event::InlineHtml(text) => self.inline_html(&text),
            Event::SoftBreak | Event::HardBreak => self.line_break(),
            Event::Rule => {
                self.end_paragraph();
                self.out.push_str("<hr>");
            }
            Event::TaskListMarker(done) => self.pending.push_str(if done { "☑ " } else { "☐ " }),
            // The parser's options do not enable these.
            Event::FootnoteReference(text) | Event::InlineMath(text) | Event::DisplayMath(text) => {
                self.pending.push_str(&text);
            }
        }
    }

    fn start(&mut self, tag: Tag<'_>) {
        match tag {
            Tag::Paragraph => {
                self.end_paragraph();
                self.wanted = Wanted::Paragraph;
            }
            Tag::Heading { level, .. } => {
                self.end_paragraph();
                self.open(heading(level), "");
            }
            Tag::BlockQuote(_) => self.container(&["blockquote"], ""),
            Tag::List(None) => self.container(&["ul"], ""),
            Tag::List(Some(1)) => self.container(&["ol"], ""),
            Tag::List(Some(number)) => self.container(&["ol"], &format!(" start=\"{number}\"")),
            Tag::Item => {
                self.end_paragraph();
                if self.stack.last().is_some_and(|list| !list.tags.is_empty()) {
                    self.open(&["li"], "");
                } else {
                    self.push(&[]);
                    self.wanted = Wanted::Paragraph;
                }
            }
            Tag::CodeBlock(kind) => {
                self.end_paragraph();
                let class = match &kind {
                    CodeBlockKind::Fenced(info) => language(info).map(|name| format!(" class=\"language-{name}\"")),
                    CodeBlockKind::Indented => None,
                };
                self.open(&["pre", "code"], class.as_deref().unwrap_or_default());
                self.in_code = true;
            }
            Tag::HtmlBlock => {
                self.end_paragraph();
                self.raw.clear();
            }
            Tag::Table(_) => {
                self.end_paragraph();
                self.open(&["table"], "");
            }
            Tag::TableHead => {
                self.open(&["thead", "tr"], "");
                self.in_head = true;
            }
            Tag::TableRow => {
                if self.stack.last().is_none_or(|frame| frame.tags != BODY) {
                    self.open_implied(BODY);
                }
                self.open(&["tr"], "");
            }
            Tag::TableCell => self.wanted = Wanted::Cell,
            Tag::Emphasis => self.inline(&["em"], ""),
            Tag::Strong => self.inline(&["strong"], ""),
            Tag::Strikethrough => self.inline(&["del"], ""),
            Tag::Link { link_type: LinkType::Email, dest_url, .. } => self.link(&format!("mailto:{dest_url}")),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.link(&dest_url),
            // The parser's options do not enable these.
            Tag::FootnoteDefinition(_)
            | Tag::DefinitionList
            | Tag::DefinitionListTitle
            | Tag::DefinitionListDefinition
            | Tag::Superscript
            | Tag::Subscript
            | Tag::MetadataBlock(_) => self.push(&[]),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Paragraph => self.end_paragraph(),
            TagEnd::HtmlBlock => self.raw_block(),
            TagEnd::TableCell => {
                self.flush();
                if self.wanted == Wanted::Cell {
                    self.empty_cells += 1;
                } else {
                    self.close();
                }
                self.wanted = Wanted::Nothing;
            }
            TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough | TagEnd::Superscript | TagEnd::Subscript => {
                self.end_inline();
            }
            TagEnd::Link | TagEnd::Image => {
                if let Some((address, written)) = self.stack.last_mut().and_then(|frame| frame.link.take())
                    && written == self.out.len() + self.pending.len()
                {
                    self.pending.push_str(&address);
                }
                self.end_inline();
            }
            TagEnd::CodeBlock => {
                self.end_block();
                self.in_code = false;
            }
            TagEnd::TableHead => {
                self.end_block();
                self.in_head = false;
                self.empty_cells = 0;
            }
            TagEnd::TableRow => {
                self.end_block();
                self.empty_cells = 0;
            }
            _ => self.end_block(),
        }
    }

    /// Opens a link; only its text is written if its address is not allowed or it is inside another link.
    fn link(&mut self, address: &str) {
        let address = text::strip(address);
        let Some(left) = self.addresses.checked_sub(address.len()) else {
            self.unwritten();
            return;
        };
        self.addresses = left;
        match links::href(&address).filter(|_| !self.in_link && self.depth < DEPTH) {
            Some(href) => {
                self.inline(&["a"], &format!(" href=\"{href}\""));
                self.in_link = true;
            }
            None => self.unwritten(),
        }
        let written = self.out.len() + self.pending.len();
        if let Some(frame) = self.stack.last_mut() {
            frame.link = Some((address, written));
        }
    }
}

fn heading(level: HeadingLevel) -> &'static [&'static str] {
    match level {
        HeadingLevel::H1 => &["h3"],
        HeadingLevel::H2 => &["h4"],
        _ => &["h5"],
    }
}

/// Returns the language of a fenced block, if it is allowed in a class.
fn language(info: &str) -> Option<String> {
    let name = info.split([' ', ',', '\t', '{', ':']).next()?.to_ascii_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+#-".contains(c);
    (!name.is_empty() && name.len() <= LANGUAGE && name.chars().all(allowed)).then_some(name)
}
