//! A file that a sandbox dropped: whatever it holds and however it is named, what a room sees of it is one clean line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::ipc;

fuzz_target!(|bytes: &[u8]| {
    // The name comes first, up to a NUL, as no name holds one.
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(0);
    let (name, content) = bytes.split_at(end);
    if let Ok(event) = ipc::parse(name, content) {
        assert!(!event.line.is_empty() && event.line.chars().count() <= 200);
        assert!(!event.line.chars().any(char::is_control));
    }
});
