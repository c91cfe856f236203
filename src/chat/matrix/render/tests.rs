//! Tables of what each piece of Markdown becomes.

use super::{
    Rendered, answer, markdown,
    page::DEPTH,
    preformatted,
    properties::{MULTIPLE, calls_room, check},
    shorten::{LIMIT, shortened, weight},
    with_thoughts, words,
};

fn html(text: &str) -> String {
    markdown(text).html.unwrap_or_else(|| "none".to_owned())
}

/// Compares the HTML of each text.
#[track_caller]
fn table(rows: &[(&str, &str)]) {
    for (text, expected) in rows {
        assert_eq!(html(text), *expected, "{text:?}");
    }
}

#[test]
fn what_is_plain_has_no_html() {
    for text in ["", "Done.", "Two & two < five\n\nand a second paragraph", "one\ntwo", "see https://example.org/x_y_z"]
    {
        assert_eq!(markdown(text), Rendered { body: text.to_owned(), html: None });
    }
}

#[test]
fn the_body_is_the_markdown_cleaned() {
    let text = "\n\n# Title\x07\n[a](https://example.org)\r\n\x1b[31m**b**\x1b[0m\u{202e}\n\n";
    assert_eq!(markdown(text).body, "# Title\n[a](https://example.org)\n**b**");
}

#[test]
fn in_preformatted_lines_nothing_acts() {
    let Rendered { body, html } = preformatted("a *title*\n0:01 <b>@room</b> `x` [y](https://example.org)\n0:02 done");
    assert!(body.contains("[y](https://example.org)\n0:02 done") && !calls_room(&body), "{body}");
    let html = html.unwrap();
    assert!(html.starts_with("<p><strong>a *title*</strong></p><pre><code>0:01 &lt;b&gt;"), "{html}");
    assert!(html.ends_with("[y](https://example.org)\n0:02 done\n</code></pre>"), "{html}");
}

#[test]
fn blocks() {
    table(&[
        ("# a\n## b\n### c\n###### d", "<h3>a</h3><h4>b</h4><h5>c</h5><h5>d</h5>"),
        ("a\nb  \nc\n\nd *e*", "<p>a<br>b<br>c</p><p>d <em>e</em></p>"),
        ("**a** ~~b~~ `c`", "<p><strong>a</strong> <del>b</del> <code>c</code></p>"),
        ("*a* (~5) ~6~", "<p><em>a</em> (~5) ~6~</p>"),
        ("- a\n- b\n  1. c\n", "<ul><li>a</li><li>b<ol><li>c</li></ol></li></ul>"),
        ("3. a\n\n4. b", "<ol start=\"3\"><li><p>a</p></li><li><p>b</p></li></ol>"),
        ("> a\n\n---", "<blockquote><p>a</p></blockquote><hr>"),
        ("- [x] a\n- [ ] b", "<ul><li>☑ a</li><li>☐ b</li></ul>"),
        (
            "| a | b |\n|---|:-:|\n| 1 | |\n| | `2` |",
            "<table><thead><tr><th>a</th><th>b</th></tr></thead>\
             <tbody><tr><td>1</td></tr><tr><td></td><td><code>2</code></td></tr></tbody></table>",
        ),
    ]);
}

#[test]
fn code_names_its_language_and_nothing_else() {
    let code = |class: &str| format!("<pre><code{class}>&lt;b&gt; main.rs\n</code></pre>");
    for (info, class) in [
        ("", ""),
        ("rust", " class=\"language-rust\""),
        ("diff", " class=\"language-diff\""),
        ("C++", " class=\"language-c++\""),
        ("c# x", " class=\"language-c#\""),
        ("rust,ignore", " class=\"language-rust\""),
        ("a\"onload=1", ""),
        ("mx_Event", ""),
        ("&quot;", ""),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""),
    ] {
        assert_eq!(html(&format!("```{info}\n<b> main.rs\n```")), code(class), "{info}");
    }
    assert_eq!(html("    a\n    b"), "<pre><code>a\nb</code></pre>");
}

#[test]
fn raw_html_is_text() {
    table(&[
        ("a <b>c</b> *d*", "<p>a &lt;b&gt;c&lt;/b&gt; <em>d</em></p>"),
        ("*a* <img src=x onerror=y>", "<p><em>a</em> &lt;img src=x onerror=y&gt;</p>"),
        ("<script>\nx *y*\n</script>\n\n*z*", "<p>&lt;script&gt;<br>x *y*<br>&lt;/script&gt;</p><p><em>z</em></p>"),
        ("<!-- *a* -->\n\n*b*", "<p>&lt;!-- *a* --&gt;</p><p><em>b</em></p>"),
        ("*a* <details> b", "<p><em>a</em> &lt;details&gt; b</p>"),
        ("<detailsx>\n\n*a*", "<p>&lt;detailsx&gt;</p><p><em>a</em></p>"),
    ]);
}

#[test]
fn details_fold_and_are_always_closed() {
    let folded = "<details><summary>Log</summary><p><em>a</em></p></details>";
    table(&[
        ("<details>\n<summary>Log</summary>\n\n*a*\n\n</details>", folded),
        ("<DETAILS open onclick=\"x\"><summary id=a>Log</summary>\n\n*a*\n</details>", folded),
        ("<details><summary>Log</summary>\n\n*a*</details>", folded),
        ("<details><summary>Log\n\n</summary>\n\n*a*", folded),
        ("<details><summary>Log</summary>\n\n*a*", folded),
        ("<details>a\n\n*b*</details>*c*", "<details><p>a</p><p><em>b</em></p></details><p><em>c</em></p>"),
        (
            "- <details>\n\n  *a*\n\n</details>",
            "<ul><li><details><p><em>a</em></p></details></li></ul><p>&lt;/details&gt;</p>",
        ),
        ("</details></summary>\n\n*a*", "<p>&lt;/details&gt;&lt;/summary&gt;</p><p><em>a</em></p>"),
        ("<summary>a</summary>\n\n*b*", "<p>&lt;summary&gt;a&lt;/summary&gt;</p><p><em>b</em></p>"),
        (
            "<details><summary>a</summary><details><summary>b</summary>c</details>\n</details>",
            "<details><summary>a</summary><details><summary>b</summary><p>c</p></details></details>",
        ),
        ("<details><summary>a\n\n*b*", "<details><summary>a<p><em>b</em></p></summary></details>"),
        ("<details><summary><b>a</b></details>", "<details><summary>&lt;b&gt;a&lt;/b&gt;</summary></details>"),
    ]);
}

#[test]
fn links_lead_to_the_web_or_to_mail() {
    table(&[
        ("[a](https://example.org/?b=c&d=\"e)", "<p><a href=\"https://example.org/?b=c&amp;d=%22e\">a</a></p>"),
        ("[a](HTTP://example.org)", "<p><a href=\"HTTP://example.org\">a</a></p>"),
        (
            "<https://example.org/main.rs>",
            "<p><a href=\"https://example.org/main.rs\">https://example.org/main.rs</a></p>",
        ),
        ("<a@example.org>", "<p><a href=\"mailto:a@example.org\">a@example.org</a></p>"),
        ("[a](mailto:b@c)", "<p><a href=\"mailto:b@c\">a</a></p>"),
        ("[*a*](javascript:alert(1))", "<p><em>a</em></p>"),
        ("[*a*](java&#10;script:alert(1))", "<p><em>a</em></p>"),
        ("[*a*](javascript:b@c)", "<p><em>a</em></p>"),
        ("[*a*](data:text/html,b)", "<p><em>a</em></p>"),
        ("[*a*](//example.org)", "<p><em>a</em></p>"),
        ("[*a*](https:///b)", "<p><em>a</em></p>"),
        ("[src/a.rs](src/a.rs)", "<p><code>src/a.rs</code></p>"),
        ("- [a\n*b*](c:d)\n\n- e", "<ul><li><p>a<br><em>b</em></p></li><li><p>e</p></li></ul>"),
        ("[](src/a.rs)", "<p><code>src/a.rs</code></p>"),
        ("[a](https://matrix.to/#/#room:b)", "<p><a href=\"https://matrix.to/#/#room:b\">a</a></p>"),
        ("[a][b]\n\n[b]: https://example.org/ü", "<p><a href=\"https://example.org/%C3%BC\">a</a></p>"),
    ]);
}

#[test]
fn images_are_never_loaded() {
    table(&[
        ("![a *b*](https://example.org/c.png)", "<p><a href=\"https://example.org/c.png\">a <em>b</em></a></p>"),
        ("![](https://example.org/c)", "<p><a href=\"https://example.org/c\">https://example.org/c</a></p>"),
        ("![*a*](c.png)", "<p><em>a</em></p>"),
        ("![](c.png)", "<p><code>c.png</code></p>"),
        ("[![a](https://b.org)](https://c.org)", "<p><a href=\"https://c.org\">a</a></p>"),
    ]);
}

#[test]
fn bare_file_names_are_code() {
    for name in [
        "lib.rs",
        "src/main.rs",
        "Cargo.toml",
        "./a.sh",
        "../b/c.py",
        "/etc/x.conf",
        "~/a.md",
        "my_file-2.txt",
        "größe.rs",
        "a\\b.rs",
        ".github/ci.yml",
        "main.c",
        "src/App.js",
        "main.rs:42",
        "main.rs:42:7",
    ] {
        assert_eq!(
            html(&format!("In {name}, and ({name}).")),
            format!("<p>In <code>{name}</code>, and (<code>{name}</code>).</p>")
        );
    }
    table(&[
        ("[a](https://b.org) lib.rs", "<p><a href=\"https://b.org\">a</a> <code>lib.rs</code></p>"),
        ("**lib.rs**: x", "<p><strong><code>lib.rs</code></strong>: x</p>"),
        ("lib.rs: x", "<p><code>lib.rs</code>: x</p>"),
    ]);
    for text in [
        "example.org",
        "e.g. this",
        "Node.js",
        "d.h. nicht",
        ".rs files",
        "1.5",
        "https://a.org/lib.rs?b=c.rs",
        "www.a.org/lib.rs",
        "a.org/lib.rs",
        "a@lib.rs",
        "and/or",
        "...",
    ] {
        assert_eq!(markdown(text).html, None, "{text}");
    }
    table(&[("[lib.rs *x*](https://a.org)", "<p><a href=\"https://a.org\">lib.rs <em>x</em></a></p>")]);
}

#[test]
fn nobody_is_mentioned() {
    table(&[
        ("hi @bob:example.org.", "<p>hi <code>@bob:example.org</code>.</p>"),
        ("(@bob:example.org:8448)", "<p>(<code>@bob:example.org:8448</code>)</p>"),
        ("[*Bob*](https://matrix.to/#/@bob:example.org)", "<p><em>Bob</em></p>"),
        ("[*Bob*](https://matrix.to/#/%40bob:example.org)", "<p><em>Bob</em></p>"),
        ("see https://matrix.to/#/@bob:example.org.", "<p>see <code>https://matrix.to/#/@bob:example.org</code>.</p>"),
        ("see matrix:u/bob:example.org", "<p>see <code>matrix:u/bob:example.org</code></p>"),
    ]);
    assert_eq!(markdown("a@bob:example.org @types/node").html, None);
}

#[test]
fn the_room_is_not_called() {
    for text in [
        "@room",
        "@ROOM",
        "*a* @rooms",
        "`@room`",
        "```\n@room\n```",
        "@&#114;oom",
        "&commat;room",
        "@\\room",
        "@\x1b[1mroom",
        "@\u{202e}room",
        "@[room](x:y)",
        "@[r](x:y)oom",
        "[@room](https://a.org)",
        "<@room",
        "![@room](a)",
        "[](@room)",
        "@<b>room",
        "main.rs@room",
        "@room:example.org",
        "# @room",
        "|@room|\n|-|\n|@Room|",
        "<details><summary>@room</summary>@room</details>",
        "[a](https://b.org/@room)",
        "https://b.org/@room",
        "<mailto:x@room.org>",
        "<details><summary>@\n\nroom",
    ] {
        let Rendered { body, html } = markdown(text);
        assert!(!calls_room(&body), "{text:?}: {body}");
        assert!(!calls_room(&html.unwrap_or_default()), "{text:?}");
    }
    assert_eq!(markdown("tell @room now").body, "tell @\u{2060}room now");
    assert_eq!(markdown("tell @room now").html, None);
    // The address still works.
    assert_eq!(markdown("see https://b.org/@room and @room").body, "see https://b.org/%40room and @\u{2060}room");
    assert_eq!(html("[a](https://b.org/@room)"), "<p><a href=\"https://b.org/%40room\">a</a></p>");
    let named = answer(Some(("@room:example.org", "@room")), "*hi*", "@room");
    assert!(!calls_room(&named.body) && !calls_room(&named.html.unwrap()));
}

#[test]
fn what_deceives_does_not_come_back_by_an_entity() {
    table(&[
        ("*a*&#27;[31m&#x202e;b&#7;", "<p><em>a</em>b</p>"),
        ("[*a*](https://b.org/&#x202e;c)", "<p><a href=\"https://b.org/c\"><em>a</em></a></p>"),
    ]);
}

#[test]
fn deep_nesting_is_flat() {
    for open in
        [">", "> ", "- ", "1. ", "*a ", "**a ", "[", "![", "> - ", "* > 1) ", "<details>\n\n", "- <details>\n\n"]
    {
        let html = html(&format!("{}x `y`", open.repeat(5000)));
        assert!(check(&html) <= DEPTH + 5, "{open:?}");
        assert!(html.contains('x'), "{open:?}");
    }
    let lines: Vec<_> = (0..200).map(|level| format!("{}- item{level}", "  ".repeat(level))).collect();
    let items = html(&lines.join("\n"));
    assert!(check(&items) <= DEPTH + 5);
    assert!(items.contains("<p>item150</p><p>item151</p>"), "{items}");
}

#[test]
fn nothing_grows_without_bound() {
    let wide = format!("{}\n{}\n{}", "|a".repeat(500), "|-".repeat(500), "|b\n".repeat(500));
    let links = format!("[a]: https://example.org/{}\n\n{}", "b".repeat(500), "[a] ".repeat(250));
    for text in [wide, links, ">".repeat(19) + "\n-\n", "-\n+\n".repeat(500), "a&\n".repeat(500)] {
        let html = html(&text);
        check(&html);
        assert!(html.len() <= MULTIPLE * text.len() + 64, "{} of {}", html.len(), text.len());
    }
}

#[test]
fn an_answer_says_to_whom_and_what_it_took() {
    let footer = "src/login.rs +12 −3 · 7 turns · 1:12";
    let said = answer(Some(("@anna:example.org", "Anna <3")), "It *works*.", footer);
    assert_eq!(said.body, format!("Anna <3: It *works*.\n\n{footer}"));
    assert_eq!(
        said.html.unwrap(),
        "<p><a href=\"https://matrix.to/#/@anna:example.org\">Anna &lt;3</a>: It <em>works</em>.</p>\
         <p><em><code>src/login.rs</code> +12 −3 · 7 turns · 1:12</em></p>"
    );
    let said = answer(Some(("@a/\"b:c", "\n")), "- x", "");
    assert_eq!(said.body, "@a/\"b:c:\n\n- x");
    assert_eq!(
        said.html.unwrap(),
        "<p><a href=\"https://matrix.to/#/@a%2F%22b:c\">@a/\"b:c</a>:</p><ul><li>x</li></ul>"
    );
    assert_eq!(answer(Some(("anna", "")), "x", "").html, None);
    assert_eq!(answer(None, "x", ""), Rendered { body: "x".to_owned(), html: None });
    assert_eq!(answer(None, "", "1:12").body, "1:12");
}

#[test]
fn what_fits_is_not_shortened() {
    assert_eq!(shortened(""), None);
    assert_eq!(shortened(&"word ".repeat(LIMIT / 5 - 1)), None);
    // Escape sequences do not count, since they are removed.
    assert_eq!(shortened(&"\x1b[1m".repeat(LIMIT)), None);
}

#[test]
fn what_does_not_fit_ends_at_a_paragraph() {
    let text = "A\nparagraph\nof *some* words that are its last.\n\n".repeat(2000);
    let short = shortened(&text).unwrap();
    assert!(short.contains(" last.\n\n*This is only the beginning"), "{}", &short[short.len() - 200..]);
    assert!(weight(&markdown(&short)) > LIMIT / 2);
}

#[test]
fn what_is_cut_is_closed() {
    for (start, closing) in [
        ("```sh\n", "\n```\n\n"),
        ("  ~~~~\n", "\n~~~~\n\n"),
        ("<details><summary>Log</summary>\n\n````\n```\n", "\n````\n\n</details>\n\n"),
        ("<details>\n\n<details>\n\n", "\n\n</details>\n\n</details>\n\n"),
    ] {
        let short = shortened(&format!("{start}{}", "a line\n".repeat(5000))).unwrap();
        assert!(short.contains(&format!("a line{closing}*This is only")), "{start:?}: {}", &short[short.len() - 200..]);
        let html = html(&short);
        assert!(html.ends_with("><p><em>This is only the beginning: the whole text is in the attached file.</em></p>"));
    }
    // These blocks end by themselves; a fence after them would start another block.
    for line in ["> ```\n> a\n", "- ```\n  a\n"] {
        let (first, rest) = line.split_at(6);
        let short = shortened(&format!("{first}{}", rest.repeat(9000))).unwrap();
        assert!(
            html(&short)
                .ends_with("><p><em>This is only the beginning: the whole text is in the attached file.</em></p>"),
            "{line}"
        );
    }
}

#[test]
fn what_is_long_only_as_html_is_shortened_too() {
    let short = shortened(&format!("{}\n-\n", ">".repeat(19)).repeat(400)).unwrap();
    assert!(weight(&markdown(&short)) <= LIMIT);
}

#[test]
fn endings_are_sorted() {
    assert!(words::ENDINGS.is_sorted());
}

#[test]
fn thoughts_stand_before_the_answer_hidden_and_are_only_text() {
    let answer = || answer(None, "*Four.*", "");
    let shown = |thoughts| with_thoughts(answer(), thoughts);
    let Rendered { body, html } = shown(Some(("a <b>bold</b>\n</span> thought", false)));
    let hidden = "a &lt;b&gt;bold&lt;/b&gt;<br>&lt;/span&gt; thought";
    let spoiler =
        format!("<blockquote><span data-mx-spoiler=\"thinking\">{hidden}</span></blockquote><p><em>Four.</em></p>");
    assert_eq!((&*body, html), ("*Four.*", Some(spoiler)));
    let folded = format!("<details><summary>thinking</summary>{hidden}</details><p><em>Four.</em></p>");
    assert_eq!(shown(Some(("a <b>bold</b>\n</span> thought", true))).html, Some(folded));
    for none in [None, Some((" \n", false))] {
        assert_eq!(shown(none).html, answer().html);
    }
    let pings = shown(Some(("ask @room", false))).html.unwrap_or_default();
    assert!(!pings.contains("@room"), "{pings}");
}
