//! Properties of all Markdown, tested with texts made of nasty pieces.

use proptest::{collection::vec, prelude::*, sample::select};

use super::{
    Rendered, answer, markdown,
    page::DEPTH,
    shorten::{LIMIT, shortened, weight},
    words,
};

/// HTML is at most this many times as long as the Markdown, plus a little: a `>` can become a
/// `<blockquote></blockquote>`.
pub(super) const MULTIPLE: usize = 32;

pub(super) fn calls_room(text: &str) -> bool {
    text.to_ascii_lowercase().contains("@room")
}

/// Checks HTML as a strict client would: panics at tags that are unbalanced or not allowed. Returns how deep it
/// nests.
#[track_caller]
pub(super) fn check(html: &str) -> usize {
    let mut open: Vec<&str> = Vec::new();
    let mut deepest = 0;
    let mut parts = html.split('<');
    let mut texts = vec![parts.next().unwrap()];
    for part in parts {
        let (tag, text) = part.split_once('>').unwrap_or_else(|| panic!("an open tag: {part}"));
        texts.push(text);
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{html}");
            continue;
        }
        let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
        let value = |name: &str| attributes.strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"');
        match name {
            "a" => {
                let to = value("href").unwrap();
                assert!(
                    ["http://", "https://", "mailto:"].iter().any(|scheme| to.to_ascii_lowercase().starts_with(scheme)),
                    "{to}"
                );
                assert!(to.chars().all(|c| c.is_ascii_graphic() && !"\"'<>`\\".contains(c)), "{to}");
                assert!(!open.contains(&"a"), "{html}");
            }
            "ol" if !attributes.is_empty() => {
                value("start").unwrap().parse::<u64>().unwrap();
            }
            "code" if !attributes.is_empty() => {
                let language = value("class").and_then(|class| class.strip_prefix("language-")).unwrap();
                assert!(language.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "+#-".contains(c)));
            }
            "h3" | "h4" | "h5" | "blockquote" | "p" | "ul" | "ol" | "li" | "strong" | "em" | "del" | "code" | "hr"
            | "br" | "table" | "thead" | "tbody" | "tr" | "th" | "td" | "pre" | "details" | "summary" => {
                assert_eq!(attributes, "", "{name}");
            }
            _ => panic!("not allowed: {name}"),
        }
        match name {
            "p" | "ul" | "ol" | "blockquote" | "table" | "pre" | "details" => {
                assert!(!open.contains(&"p"), "a block in a paragraph: {html}");
            }
            "li" => assert!(matches!(open.last(), Some(&("ul" | "ol"))), "{html}"),
            "tr" => assert!(matches!(open.last(), Some(&("thead" | "tbody"))), "{html}"),
            "th" | "td" => assert_eq!(open.last(), Some(&"tr"), "{html}"),
            "summary" => assert_eq!(open.last(), Some(&"details"), "{html}"),
            _ => {}
        }
        if !matches!(name, "br" | "hr") {
            open.push(name);
            deepest = deepest.max(open.len());
        }
    }
    assert!(open.is_empty(), "open at the end: {open:?}: {html}");
    for text in texts {
        assert!(!text.contains('>'), "{html}");
        for entity in text.split('&').skip(1) {
            assert!(["amp;", "lt;", "gt;"].iter().any(|name| entity.starts_with(name)), "{html}");
        }
    }
    deepest
}

/// Pieces of Markdown and of its abuse.
const PIECES: [&str; 96] = [
    "@room",
    "@",
    "room",
    "@ROOM",
    "oom",
    "&#114;",
    "&commat;",
    "\\",
    "*",
    "**",
    "_",
    "~~",
    "~",
    "`",
    "``",
    "```",
    "```rust\n",
    "~~~\n",
    "\n",
    "\n\n",
    "\n    ",
    " ",
    "  ",
    "\t",
    "\r",
    "\r\n",
    "> ",
    ">",
    "- ",
    "-",
    "+ ",
    "* ",
    "1. ",
    "7) ",
    "- [ ] ",
    "- [x] ",
    "# ",
    "## ",
    "#",
    "---\n",
    "===\n",
    "|",
    "|-|-|\n",
    "|a|b|\n",
    "\n|-\n",
    "[",
    "]",
    "(",
    ")",
    "![",
    "](",
    "](https://a.org)",
    "](javascript:a)",
    "](src/a.rs)",
    "[a]",
    "\n[a]: https://b.org/@room\n\n",
    "<https://a.org>",
    "<a@room>",
    "https://a.org/@room",
    "https://matrix.to/#/@a:b",
    "<",
    ">",
    "</",
    "<details>",
    "<details open>\n",
    "</details>",
    "\n</details>\n",
    "<summary>",
    "\n<summary>\n",
    "</summary>",
    "<details",
    "<b>",
    "<img src=a>",
    "<!--",
    "-->",
    "<pre>",
    "<script>",
    "<?",
    "<![CDATA[",
    "&",
    "&amp;",
    "&#27;",
    "&#x202e;",
    "&#0;",
    "&lt;b&gt;",
    "\x1b[31m",
    "\x1b]0;",
    "\u{202e}",
    "\u{2066}",
    "\0",
    "\"",
    "lib.rs",
    "main.rs:42",
    "@a:b.org",
    ":",
    "word",
];

fn nasty() -> impl Strategy<Value = String> {
    let piece = prop_oneof![8 => select(&PIECES[..]).prop_map(str::to_owned), 1 => any::<char>().prop_map(String::from), 1 => "\\PC{0,6}"];
    (vec(piece, 0..60), 1_usize..4).prop_map(|(pieces, times)| pieces.concat().repeat(times))
}

/// Checks what must hold for every rendered text.
fn sound(rendered: &Rendered, length: usize) -> Result<(), TestCaseError> {
    let html = rendered.html.as_deref().unwrap_or_default();
    prop_assert!(check(html) <= DEPTH + 5, "{}", html);
    for text in [&rendered.body, html] {
        prop_assert!(!calls_room(text), "{}", text);
        prop_assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{:?}", text);
        prop_assert!(!text.contains(['\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}']), "{:?}", text);
    }
    prop_assert!(rendered.body.len() <= 2 * length, "{} of {}", rendered.body.len(), length);
    prop_assert!(html.len() <= MULTIPLE * length + 64, "{} of {}: {}", html.len(), length, html);
    Ok(())
}

proptest! {
    #[test]
    fn whatever_is_said_is_sound(text in nasty()) {
        sound(&markdown(&text), text.len())?;
    }

    #[test]
    fn every_answer_is_sound(text in nasty(), name in nasty(), user in nasty(), footer in nasty()) {
        let said = answer(Some((&user, &name)), &text, &footer);
        sound(&said, text.len() + name.len() + user.len() + footer.len() + 8)?;
    }

    #[test]
    fn no_letter_is_lost(text in "[a-z .,:/@<>&\n]{0,200}") {
        // The result has the letters of the source, in order.
        let letters = |text: &str| text.chars().filter(char::is_ascii_lowercase).collect::<String>();
        let mut out = String::new();
        words::write(&mut out, &text);
        let out = out.replace("<code>", "").replace("</code>", "").replace("%40", "@");
        prop_assert_eq!(letters(&out), letters(&words::escape(&text)));
    }
}

proptest! {
    // Long texts are slow.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_shortened_fits(text in nasty(), times in 1_usize..2000) {
        let text = text.repeat(times);
        if let Some(short) = shortened(&text) {
            let rendered = markdown(&short);
            prop_assert!(weight(&rendered) <= LIMIT);
            sound(&rendered, short.len())?;
            prop_assert!(short.contains("attached file"));
        } else {
            prop_assert!(weight(&markdown(&text)) <= LIMIT);
        }
    }
}
