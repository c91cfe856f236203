//! Frames: a big-endian `u32` length, then that many bytes of JSON. Pure functions over byte slices, so that they can
//! be tested by property and by fuzzing; the callers own the sockets. Both ends treat the other's bytes as hostile:
//! a length above the limit is an error before a single byte of it is stored.

use std::fmt;

use serde::{Serialize, de::DeserializeOwned};

/// The largest frame that the server sends.
pub const TO_SANDBOXD: usize = 1024 * 1024;
/// The largest frame that sandboxd sends.
pub const TO_SERVER: usize = 256 * 1024;
/// The largest first frame of a connection: it comes from a peer that has not said yet what it is.
pub const OPENING: usize = 4 * 1024;
/// The bytes of the length before a frame.
pub const PREFIX: usize = 4;

/// What is wrong with a frame; the connection it came on is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The announced length, which is above the limit.
    TooLong(u32),
    /// The body is not the JSON that was due.
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong(length) => write!(f, "a frame of {length} bytes is above the limit"),
            Self::Malformed => f.write_str("a frame does not hold the message that was due"),
        }
    }
}

impl std::error::Error for FrameError {}

/// Reads the frame at the start of `buffer`: returns the message and the bytes that it took, or `None` if the frame is
/// not whole yet.
///
/// # Errors
///
/// The frame is longer than `limit` bytes, or holds something else.
pub fn decode<T: DeserializeOwned>(buffer: &[u8], limit: usize) -> Result<Option<(T, usize)>, FrameError> {
    let Some((prefix, rest)) = buffer.split_first_chunk::<PREFIX>() else { return Ok(None) };
    let length = body_length(*prefix, limit)?;
    let Some(body) = rest.get(..length) else { return Ok(None) };
    Ok(Some((message(body)?, PREFIX + length)))
}

/// Returns the length that `prefix` announces.
///
/// # Errors
///
/// The length is above `limit`.
pub fn body_length(prefix: [u8; PREFIX], limit: usize) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(prefix);
    usize::try_from(length).ok().filter(|length| *length <= limit).ok_or(FrameError::TooLong(length))
}

/// Reads a frame's body.
///
/// # Errors
///
/// The body is not the JSON that was due.
pub fn message<T: DeserializeOwned>(body: &[u8]) -> Result<T, FrameError> {
    serde_json::from_slice(body).map_err(|_| FrameError::Malformed)
}

/// Returns `message` as a frame. Whoever calls it keeps the message below the other end's limit.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let mut frame = vec![0; PREFIX];
    // A `Vec` takes every write, and our messages have string keys only: nothing here can fail.
    if serde_json::to_writer(&mut frame, message).is_err() {
        frame.truncate(PREFIX);
    }
    let length = u32::try_from(frame.len() - PREFIX).unwrap_or(u32::MAX);
    frame[..PREFIX].copy_from_slice(&length.to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Request;

    #[test]
    fn a_frame_comes_back_only_when_whole() {
        let frame = encode(&Request::Ping { n: 7 });
        for end in 0..frame.len() {
            assert_eq!(decode::<Request>(&frame[..end], TO_SANDBOXD), Ok(None));
        }
        assert_eq!(decode(&frame, TO_SANDBOXD), Ok(Some((Request::Ping { n: 7 }, frame.len()))));
    }

    #[test]
    fn a_giant_length_is_refused_before_its_bytes_come() {
        assert_eq!(decode::<Request>(&[0xff; 4], TO_SANDBOXD), Err(FrameError::TooLong(u32::MAX)));
    }

    #[test]
    fn garbage_is_malformed() {
        assert_eq!(decode::<Request>(b"\0\0\0\x04oops", TO_SANDBOXD), Err(FrameError::Malformed));
    }
}
