//! The ClientHello parser: total, and no verdict changes when more bytes follow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use matrix_agent::gateway::hello::{self, Hello, MAX_HELLO};

fuzz_target!(|bytes: &[u8]| {
    let verdict = hello::parse(bytes);
    match &verdict {
        Ok(Hello::Partial { needed }) => assert!(*needed > bytes.len() && *needed <= MAX_HELLO),
        Ok(Hello::Whole { .. }) => {
            let more = [bytes, b"more"].concat();
            assert_eq!(hello::parse(&more), verdict);
        }
        Err(_) => {}
    }
});
