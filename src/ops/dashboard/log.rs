//! The log of one turn: what was said, which tools ran with what, and how it ended. Pure.

use super::{
    html::Html,
    sections::{asked, time},
};
use crate::{
    bots::chat,
    llm::{Message, words},
    orchestrator::{Line, Origin},
    store::{CallRecord, History, ShownTurn},
};

/// The most bytes of one text, and of all.
const TEXT: usize = 4_000;
const ALL: usize = 256 << 10;

/// Returns the page; `all`: for somebody who may see everything.
pub(super) fn of((turn, history): &(ShownTurn, Vec<History>), all: bool) -> Html {
    let mut html = Html::default();
    html.raw("<header><h1>A turn’s log</h1>");
    if all {
        html.raw("<p><a href=\"/dashboard\">Everything</a></p>");
    }
    html.raw("</header><main class=\"log\"><p class=\"where\">").line(&turn.bot, 80).raw(" · ");
    html.line(&turn.at.to_string(), 120).raw(" · began ");
    time(turn.opened, &mut html);
    match &turn.outcome {
        Some(outcome) => {
            html.raw(" · ended: ").line(outcome, 40);
        }
        None => {
            html.raw(" · still runs");
        }
    }
    if let Some(closed) = turn.closed {
        html.raw(", ");
        time(closed, &mut html);
    }
    html.raw("</p>");
    let mut left_out = 0;
    for History { message, calls, .. } in history {
        if html.as_str().len() > ALL {
            left_out += 1;
            continue;
        }
        if let Ok(line) = serde_json::from_value::<Line>(message.clone()) {
            of_coder(&line, calls, &mut html);
        } else if let Some(chat::Spoken { by_bot, text }) = chat::spoken(message) {
            said(if by_bot { "answer" } else { "asked" }, &text, &mut html);
        }
    }
    if history.is_empty() {
        said("asked", &asked(turn).unwrap_or_default(), &mut html);
        html.raw("<p>Nothing else is kept of it.</p>");
    }
    if left_out > 0 {
        html.raw("<p>").value(left_out).raw(" further entries are left out.</p>");
    }
    html.raw("</main>");
    html
}

fn of_coder(line: &Line, calls: &[CallRecord], html: &mut Html) {
    match (&line.message, &line.origin) {
        (Message::System { .. }, _) => {}
        (Message::User { parts }, Origin::Program { .. }) => said("note", &words(parts), html),
        (Message::User { parts }, _) => said("asked", &words(parts), html),
        (Message::Tool { text, .. }, _) => said("result", text, html),
        (Message::Assistant(message), origin) => {
            let kind = if matches!(origin, Origin::Final { .. }) { "answer" } else { "thought" };
            if !message.text.trim().is_empty() {
                said(kind, &message.text, html);
            }
            for (index, call) in message.calls.iter().enumerate() {
                html.raw("<details><summary><code>").line(&call.name, 60).raw("</code> ");
                html.line(&call.arguments, 200).raw("</summary><pre>").lines(&call.arguments, TEXT).raw("</pre>");
                match calls.get(index).and_then(|call| call.ended.as_ref()) {
                    Some(ended) => {
                        html.raw("<pre class=\"result\">").lines(&ended.text, TEXT).raw("</pre>");
                    }
                    None => {
                        html.raw("<p>It has no result.</p>");
                    }
                }
                html.raw("</details>");
            }
        }
    }
}

fn said(kind: &'static str, text: &str, html: &mut Html) {
    let title = match kind {
        "asked" => "Asked",
        "answer" => "Answer",
        "note" => "The program to the model",
        "result" => "Result",
        _ => "The model",
    };
    html.raw("<article class=\"").raw(kind).raw("\"><h2>").raw(title).raw("</h2><pre>").lines(text, TEXT);
    html.raw("</pre></article>");
}
