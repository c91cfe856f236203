//! What PID 1 and a command's warden say to each other, as messages on a pair of sockets. Both are the same program, so
//! there is no version to agree on. Called by both.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use sandboxd::protocol::{KEY_LIMIT, KillCause, WRITE_LIMIT, Written};

use crate::sys;

/// The longest message of a warden: an encoded [`Ended`] with a full head and tail.
pub(crate) const WORD_LIMIT: usize = 64 * 1024;
/// The longest order: one to write.
pub(crate) const ORDER_LIMIT: usize = WRITE_LIMIT + KEY_LIMIT + 16;

/// PID 1's orders to a warden.
pub(crate) enum Order {
    /// End the tree.
    Kill(KillCause),
    /// The connection that was asked for comes with this, unless there is none.
    Stream,
    /// A connection that carries on with what was kept, or with the output from a byte on.
    Attach { from: Option<u64> },
    /// Bytes for the command's standard input.
    Write { n: u64, key: String, bytes: Vec<u8>, end: bool },
}

impl Order {
    /// Sends it, with the connection if it is about one.
    pub(crate) fn send(&self, warden: &OwnedFd, stream: Option<&UnixStream>) -> io::Result<()> {
        let message = match self {
            Self::Kill(KillCause::Killed) => vec![b'k'],
            Self::Kill(KillCause::DiskFull) => vec![b'd'],
            Self::Stream => vec![b's'],
            Self::Attach { from: None } => vec![b'a'],
            Self::Attach { from: Some(from) } => [b"f", &from.to_be_bytes()[..]].concat(),
            Self::Write { n, key, bytes, end } => {
                let length = u8::try_from(key.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
                [b"w", &n.to_be_bytes()[..], &[u8::from(*end), length], key.as_bytes(), bytes].concat()
            }
        };
        sys::send(warden, &message, stream.map(AsFd::as_fd), false)
    }

    /// Receives one; `buffer` takes [`ORDER_LIMIT`] bytes.
    pub(crate) fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> Option<(Self, Option<UnixStream>)> {
        let (length, stream) = sys::receive(socket, buffer).ok()?;
        Some((Self::parse(&buffer[..length])?, stream.map(UnixStream::from)))
    }

    fn parse(message: &[u8]) -> Option<Self> {
        let (tag, rest) = message.split_first()?;
        Some(match tag {
            b'k' => Self::Kill(KillCause::Killed),
            b'd' => Self::Kill(KillCause::DiskFull),
            b's' => Self::Stream,
            b'a' => Self::Attach { from: None },
            b'f' => Self::Attach { from: Some(number(rest, 0)?) },
            b'w' => {
                let (end, length) = (*rest.get(8)? != 0, usize::from(*rest.get(9)?));
                let (key, bytes) = rest.get(10..)?.split_at_checked(length)?;
                let key = str::from_utf8(key).ok()?.to_owned();
                Self::Write { n: number(rest, 0)?, key, bytes: bytes.to_vec(), end }
            }
            _ => return None,
        })
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A warden's words to PID 1.
pub(crate) enum Word {
    /// It needs a connection.
    Dial,
    /// An attached connection begins with so many bytes, then so many are missing.
    Attached { head: u64, omitted: u64 },
    /// An attached connection begins at this byte of the output.
    AttachedFrom(u64),
    /// What became of an order to write.
    Written { n: u64, how: Written },
    /// The command has ended: the frame for the server, as it is.
    Ended(Vec<u8>),
}

impl Word {
    pub(crate) fn send(&self, socket: &OwnedFd) {
        let message = match self {
            Self::Dial => vec![b'd'],
            Self::Attached { head, omitted } => [b"a", &head.to_be_bytes()[..], &omitted.to_be_bytes()].concat(),
            Self::AttachedFrom(from) => [b"f", &from.to_be_bytes()[..]].concat(),
            Self::Written { n, how } => {
                let how = match how {
                    Written::Taken => b't',
                    Written::Before => b'b',
                    Written::Closed => b'c',
                    Written::Full => b'f',
                };
                [b"w", &n.to_be_bytes()[..], &[how]].concat()
            }
            Self::Ended(frame) => [b"e", &frame[..]].concat(),
        };
        // Without PID 1 the kernel ends this process anyway.
        let _ = sys::send(socket, &message, None, true);
    }

    /// Reads what [`Word::send`] wrote.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (tag, rest) = message.split_first()?;
        match tag {
            b'd' => Some(Self::Dial),
            b'a' => Some(Self::Attached { head: number(rest, 0)?, omitted: number(rest, 8)? }),
            b'f' => Some(Self::AttachedFrom(number(rest, 0)?)),
            b'w' => {
                let how = match rest.get(8)? {
                    b't' => Written::Taken,
                    b'b' => Written::Before,
                    b'c' => Written::Closed,
                    b'f' => Written::Full,
                    _ => return None,
                };
                Some(Self::Written { n: number(rest, 0)?, how })
            }
            b'e' => Some(Self::Ended(rest.to_vec())),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_were_sent() {
        let (ours, theirs) = sys::message_pair().unwrap();
        let mut buffer = vec![0; WORD_LIMIT];
        let mut next = || {
            let (length, _) = sys::receive(&ours, &mut buffer).unwrap();
            Word::parse(&buffer[..length])
        };
        Word::Dial.send(&theirs);
        assert!(matches!(next(), Some(Word::Dial)));
        Word::Attached { head: 3, omitted: 1 << 40 }.send(&theirs);
        assert!(matches!(next(), Some(Word::Attached { head: 3, omitted }) if omitted == 1 << 40));
        Word::AttachedFrom(1 << 40).send(&theirs);
        assert!(matches!(next(), Some(Word::AttachedFrom(from)) if from == 1 << 40));
        for how in [Written::Taken, Written::Before, Written::Closed, Written::Full] {
            Word::Written { n: 7, how }.send(&theirs);
            assert!(matches!(next(), Some(Word::Written { n: 7, how: came }) if came == how));
        }
        Word::Ended(vec![7; WORD_LIMIT - 1]).send(&theirs);
        assert!(matches!(next(), Some(Word::Ended(frame)) if frame.len() == WORD_LIMIT - 1));
        assert!(Word::parse(b"").is_none());
        assert!(Word::parse(b"a123").is_none());
    }

    #[test]
    fn an_order_brings_its_connection() {
        let (ours, theirs) = sys::message_pair().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        Order::Stream.send(&ours, Some(&near)).unwrap();
        drop(near);
        let mut room = vec![0; ORDER_LIMIT];
        let Some((Order::Stream, Some(stream))) = Order::receive(&theirs, &mut room) else { panic!("no stream came") };
        sys::write(&stream, b"hello").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(sys::read(&far, &mut buffer).unwrap(), 5);
        assert!(Order::receive(&theirs, &mut room).is_none());

        let (longest, key) = (vec![7; WRITE_LIMIT], "ä".repeat(KEY_LIMIT / 2));
        Order::Write { n: 1 << 40, key: key.clone(), bytes: longest.clone(), end: true }.send(&ours, None).unwrap();
        let Some((Order::Write { n, key: came, bytes, end: true }, None)) = Order::receive(&theirs, &mut room) else {
            panic!("it did not come")
        };
        assert!(n == 1 << 40 && came == key && bytes == longest);
        Order::Attach { from: Some(9) }.send(&ours, None).unwrap();
        assert!(matches!(Order::receive(&theirs, &mut room), Some((Order::Attach { from: Some(9) }, None))));
        for cut in [&b"w"[..], b"w12345678", b"w12345678\0\x05ab", b"f123", b"x", b""] {
            assert!(Order::parse(cut).is_none());
        }
    }
}
