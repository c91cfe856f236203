//! What the bot says: its HTML is balanced and calls nobody, whatever the model copied, and what is shortened fits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::chat::matrix::render;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let shown = render::markdown(text);
    let html = shown.html.unwrap_or_default();
    for text in [&shown.body, &html] {
        assert!(!text.to_ascii_lowercase().contains("@room"));
        assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
    }
    let mut open = Vec::new();
    for tag in html.split('<').skip(1).map(|part| part.split('>').next().unwrap_or(part)) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag == "br" || tag == "hr" => {}
            None => open.push(tag.split(' ').next().unwrap_or(tag)),
        }
    }
    assert!(open.is_empty());
    if let Some(short) = render::shortened(text) {
        assert!(render::shortened(&short).is_none());
    }
});
