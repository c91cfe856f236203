//! A request's head and body: total, and a body comes out the same however it arrives.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use matrix_agent::gateway::{
    BadBody, Decoded, Decoder,
    head::{self, Framing},
};

/// Decodes `bytes` as they arrive in pieces; returns the body, and what is left over if it has ended.
fn body(framing: Framing, bytes: &[u8], step: usize) -> Result<(Vec<u8>, Option<Vec<u8>>), BadBody> {
    let (mut decoder, mut buffer, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
    let mut arriving = bytes.chunks(step);
    loop {
        match decoder.decode(&mut buffer)? {
            Decoded::Data(data) => body.extend(data),
            Decoded::More => match arriving.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => return Ok((body, None)),
            },
            Decoded::End => {
                buffer.extend(arriving.flatten());
                return Ok((body, Some(buffer.to_vec())));
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some(end) = head::end(bytes, 0) else { return };
    let Ok(head) = head::parse(&bytes[..end]) else { return };
    let _ = head::end_to_end(&head.headers);
    let rest = &bytes[end..];
    assert_eq!(body(head.framing, rest, 1), body(head.framing, rest, rest.len().max(1)));
});
