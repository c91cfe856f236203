//! What PID 1 and a command's warden say to each other, as messages on a pair of sockets. Both are the same program, so
//! there is no version to agree on. Called by both.

use std::{
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use sandboxd::protocol::KillCause;

use crate::sys;

/// The longest message of a warden: an encoded [`Ended`] with a full head and tail.
pub(crate) const WORD_LIMIT: usize = 64 * 1024;

/// PID 1's orders to a warden.
pub(crate) enum Order {
    /// End the tree.
    Kill(KillCause),
    /// The connection that was asked for (or there is none).
    Stream,
    /// A connection that carries on with what was kept.
    Attach,
}

impl Order {
    /// Sends it, with the connection if it is about one.
    pub(crate) fn send(&self, warden: &OwnedFd, stream: Option<&UnixStream>) -> io::Result<()> {
        let tag = match self {
            Self::Kill(KillCause::Killed) => b'k',
            Self::Kill(KillCause::DiskFull) => b'd',
            Self::Stream => b's',
            Self::Attach => b'a',
        };
        sys::send(warden, &[tag], stream.map(AsFd::as_fd), false)
    }

    pub(crate) fn receive(socket: &OwnedFd) -> Option<(Self, Option<UnixStream>)> {
        let mut tag = [0];
        let (_, stream) = sys::receive(socket, &mut tag).ok()?;
        let order = match tag[0] {
            b'k' => Self::Kill(KillCause::Killed),
            b'd' => Self::Kill(KillCause::DiskFull),
            b's' => Self::Stream,
            b'a' => Self::Attach,
            _ => return None,
        };
        Some((order, stream.map(UnixStream::from)))
    }
}

/// A warden's words to PID 1.
pub(crate) enum Word {
    /// It needs a connection.
    Dial,
    /// An attached connection begins with so many bytes, then so many are missing.
    Attached { head: u64, omitted: u64 },
    /// The command has ended: the frame for the server, as it is.
    Ended(Vec<u8>),
}

impl Word {
    pub(crate) fn send(&self, socket: &OwnedFd) {
        let message = match self {
            Self::Dial => vec![b'd'],
            Self::Attached { head, omitted } => [b"a", &head.to_be_bytes()[..], &omitted.to_be_bytes()].concat(),
            Self::Ended(frame) => [b"e", &frame[..]].concat(),
        };
        // Without PID 1 the kernel ends this process anyway.
        let _ = sys::send(socket, &message, None, true);
    }

    /// Reads what [`Word::send`] wrote.
    pub(crate) fn parse(message: &[u8]) -> Option<Self> {
        let (tag, rest) = message.split_first()?;
        let number = |at: usize| Some(u64::from_be_bytes(rest.get(at..at + 8)?.try_into().ok()?));
        match tag {
            b'd' => Some(Self::Dial),
            b'a' => Some(Self::Attached { head: number(0)?, omitted: number(8)? }),
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
        let Some((Order::Stream, Some(stream))) = Order::receive(&theirs) else { panic!("no stream came") };
        sys::write(&stream, b"hello").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(sys::read(&far, &mut buffer).unwrap(), 5);
        assert!(Order::receive(&theirs).is_none());
    }
}
