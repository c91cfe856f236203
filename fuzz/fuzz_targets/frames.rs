//! sandboxd's frames, as the server reads them from a hostile sandbox and as sandboxd reads the server's.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandboxd::{
    frame::{self, OPENING, TO_SANDBOXD, TO_SERVER},
    protocol::{Event, Opening, Request},
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((opening, length))) = frame::decode::<Opening>(bytes, OPENING) {
        assert!(length <= bytes.len());
        let again = frame::encode(&opening);
        assert!(matches!(frame::decode::<Opening>(&again, OPENING), Ok(Some((same, _))) if same == opening));
    }
    let _ = frame::decode::<Event>(bytes, TO_SERVER);
    let _ = frame::decode::<Request>(bytes, TO_SANDBOXD);
});
