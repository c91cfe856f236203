//! A push from a sandbox: whatever is let through sets branches of the agents alone, by what another reader of the same bytes
//! sees, and no pack costs more than its bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::gateway::{pack, push::Push};

fuzz_target!(|bytes: &[u8]| {
    let _ = pack::check(bytes, 20);
    let Ok(push) = Push::read(bytes) else { return };
    if push.check().is_err() || bytes == b"0000" {
        return;
    }
    // Read again, packet by packet, until the list ends.
    let (mut at, mut updates) = (0, 0);
    loop {
        let length = std::str::from_utf8(&bytes[at..at + 4]).ok().and_then(|text| usize::from_str_radix(text, 16).ok());
        let length = length.expect("it was read as a length");
        if length == 0 {
            break;
        }
        let line = std::str::from_utf8(&bytes[at + 4..at + length]).expect("it was read as text");
        at += length;
        if line.starts_with("shallow ") {
            continue;
        }
        let command = line.split('\0').next().unwrap_or_default().trim_end_matches('\n');
        let mut parts = command.splitn(3, ' ');
        let (_, new, name) = (parts.next(), parts.next().expect("a commit"), parts.next().expect("a name"));
        assert!(name.starts_with("refs/heads/agent/") && !name.contains(".."), "{name:?}");
        assert!(new.bytes().any(|byte| byte != b'0'), "a deletion");
        updates += 1;
    }
    assert!(updates > 0);
});
