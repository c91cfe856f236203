//! An event as GitHub sends it: whatever it holds, what is stored of it is bounded, clean, and reads back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::tasks::event::{self, Event};

fuzz_target!(|bytes: &[u8]| {
    // The kind comes first, up to a line's end.
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (kind, body) = bytes.split_at(end);
    let Ok(kind) = std::str::from_utf8(kind) else { return };
    let Ok(Some(event)) = event::read(kind, body, "agent-task") else { return };
    let stored = serde_json::to_string(&event).expect("it is stored");
    // Of each character JSON makes six bytes at most.
    assert!(stored.len() < 300_000, "{} bytes", stored.len());
    assert_eq!(serde_json::from_str::<Event>(&stored).expect("it is read again"), event);
    let repository = event.repository();
    assert!(repository.split('/').count() == 2 && repository.bytes().all(|byte| byte.is_ascii_graphic()), "{repository:?}");
    let said = match &event {
        Event::Labeled { title, text, .. } => [title, text].map(String::as_str),
        Event::Commented { text, .. } | Event::Reviewed { text, .. } => ["", text],
        Event::Failed { branch, check, .. } => [branch, check].map(String::as_str),
    };
    assert!(said.iter().all(|said| said.chars().all(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'))));
});
