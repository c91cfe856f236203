//! What Nextcloud's webhook tells: whatever it holds, a message is bounded and clean, and its conversation can stand in an address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::chat::nextcloud::activity::{self, Activity};

fuzz_target!(|bytes: &[u8]| {
    let Ok(activity) = activity::read(bytes) else { return };
    let clean = |text: &str| text.chars().all(|letter| !letter.is_control() || matches!(letter, '\n' | '\t'));
    let conversation = match activity {
        Activity::Said(message) => {
            assert!(message.text.len() <= 256 << 10 && clean(&message.text));
            assert!(message.who.contains('/') && !message.who.starts_with("github:") && clean(&message.who));
            if let Some(quote) = message.quote {
                assert!(quote.text.len() <= 16 << 10 && clean(&quote.text) && clean(&quote.name));
            }
            message.conversation
        }
        Activity::Joined { conversation, .. } | Activity::Left { conversation } => conversation,
        Activity::Other => return,
    };
    assert!(
        !conversation.is_empty() && conversation.bytes().all(|byte| byte.is_ascii_alphanumeric()),
        "{conversation:?}"
    );
});
