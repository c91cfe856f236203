//! What a command prints, and what a model under its spell repeats, stays text: nobody is called, nothing is loaded.

use serde_json::{Value, json};

use crate::support::{
    bot::Town,
    replies::Reply,
    scripted_llm::{results, user_texts},
};

/// Prints all that a room might take for something else.
const PRINTS: &str = r#"printf '\033[2J\033[31m<b>red</b>\n@room <img src=x onerror=alert(1)> <script>x</script>\n';
printf '![p](mxc://localhost/abc) <img src="mxc://localhost/abc"> [link](javascript:alert(1)) [u](https://matrix.to/#/@anna:localhost)\n';
printf '</code></pre><a href="https://evil.example">x</a> \342\200\256 evil\n```\n# head\n> quote\n';
head -c 1000000 /dev/zero | tr '\0' '<'; echo; sleep 1; exit 3"#;

/// What tags may come out.
const TAGS: &[&str] = &[
    "p",
    "br",
    "em",
    "strong",
    "code",
    "pre",
    "a",
    "ul",
    "ol",
    "li",
    "blockquote",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "hr",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "del",
    "details",
    "summary",
    "b",
    "i",
    "u",
    "s",
    "sub",
    "sup",
];

/// A model that has the command run, in a folder with a name that is all markup, and repeats what it printed.
fn under_a_spell(request: &Value) -> Reply {
    let results = results(request);
    match results.len() {
        0 => Reply::calls(&[
            ("run_command", json!({"command": PRINTS})),
            ("write_file", json!({"path": "**b** [x](y) `q` <i>_n_</i> @room.md", "content": "x\n"})),
            ("read_file", json!({"path": "no/such *file* <img src=x>"})),
            ("send_file", json!({"path": "**b** [x](y) `q` <i>_n_</i> @room.md"})),
            ("**no** such <tool> @room", json!({})),
        ]),
        1..=5 if user_texts(request).iter().any(|text| text.contains("repeat")) => Reply::text(&format!(
            "@room {} <b onclick=x>bold</b>\n\n{}",
            results[0].chars().take(1000).collect::<String>(),
            PRINTS
        )),
        _ => Reply::text("No."),
    }
}

/// The tags of some HTML, with what stands in them.
fn tags(html: &str) -> Vec<(&str, &str)> {
    let parts = html.split('<').skip(1).map(|part| part.split_once('>').expect("each tag is closed").0);
    parts.map(|tag| tag.trim_start_matches('/').split_once(' ').unwrap_or((tag.trim_start_matches('/'), ""))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_prints_calls_nobody_and_loads_nothing() {
    let town = Town::start().await;
    town.llm.otherwise(under_a_spell);
    for encrypted in [false, true] {
        let room = town.room(encrypted).await;
        let asked = town.anna.say(&room, "run it and repeat it").await;
        let answer = town.replies(&asked).await;
        assert!(answer.body().contains("bold"), "{answer:?}");
        town.anna
            .shows(&room, "the end of the progress message", |shown| shown.iter().any(|it| it.body.contains("✓ done")))
            .await;
        let came: Vec<_> =
            town.anna.events().into_iter().filter(|it| it.room == room && it.sender == town.bot).collect();
        let messages: Vec<_> = came.iter().filter(|it| it.kind == "m.room.message").collect();
        assert!(messages.iter().any(|it| it.relation() == "m.replace"), "there was progress: {messages:#?}");
        for message in messages {
            assert!(message.raw.to_string().len() < 65_536);
            let contents = [&message.content, &message.content["m.new_content"]];
            for content in contents.into_iter().filter(|content| content.is_object()) {
                assert_eq!(content["m.mentions"], json!({}), "{message:?}");
                if content["msgtype"] == "m.file" {
                    continue;
                }
                let body = content["body"].as_str().unwrap();
                let html = content["formatted_body"].as_str().unwrap_or_default();
                for text in [body, html] {
                    let odd = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
                    assert!(!text.contains("@room") && !text.contains(odd), "{message:?}");
                }
                for (tag, rest) in tags(html) {
                    assert!(TAGS.contains(&tag), "<{tag}> in {html}");
                    let links =
                        tag == "a" && (rest.starts_with("href=\"https://") || rest.starts_with("href=\"http://"));
                    let language = tag == "code" && rest.starts_with("class=\"language-");
                    assert!(rest.is_empty() || links || language || rest == "/", "<{tag} {rest}> in {html}");
                    assert!(!rest.contains("matrix.to"), "somebody is linked: {html}");
                }
            }
        }
        let html = answer.content["formatted_body"].as_str().unwrap();
        assert!(
            html.contains("&lt;script&gt;") || html.contains("&lt;img"),
            "what was printed is shown as text: {html}"
        );
    }
}
