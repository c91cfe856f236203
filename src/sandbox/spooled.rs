//! Commands whose streams are kept for a server that goes and comes back: words to one while it runs, and what it has
//! written once it has ended.

use bytes::{Bytes, BytesMut};
use sandboxd::{
    blob::Blob,
    protocol::{self, Request, Write, Written},
};

use super::{
    client::Sandbox,
    connection::{Reply, Wants},
    error::SandboxError,
    process::{Captured, gap_note},
};

/// What became of a word to a running command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The sandbox has it, and gives it to the command as that reads, whether or not a server is there.
    Taken,
    /// It was taken before, under the same key.
    Before,
    /// There is no such command any more, or it reads no more.
    Closed,
}

impl Sandbox {
    /// Writes to the standard input of a running command that was started with
    /// [`Stdin::Kept`](super::process::Stdin::Kept): all of `bytes` together,
    /// at most 64 KiB, and once for each `key` of at most 200 bytes, so that it may be called again after a crash. With
    /// `end`, the input ends behind them. An error: it is not known whether they were taken, or too much waits.
    pub async fn write(&self, id: &str, key: &str, bytes: Bytes, end: bool) -> Result<Word, SandboxError> {
        if !self.spools() {
            return Err(SandboxError::Older);
        }
        if bytes.len() > protocol::WRITE_LIMIT || key.len() > protocol::KEY_LIMIT {
            return Err(SandboxError::TooLarge(bytes.len()));
        }
        let n = self.connection().number();
        let answer = self.connection().wait_for(id, Wants::Write(n))?;
        let (id, key, bytes) = (id.to_owned(), key.to_owned(), Blob(bytes.to_vec()));
        self.connection().send(&Request::Write(Write { id, n, key, bytes, end })).await?;
        match self.connection().answer(answer).await? {
            Reply::Written(Written::Taken) => Ok(Word::Taken),
            Reply::Written(Written::Before) => Ok(Word::Before),
            Reply::Written(Written::Full) => {
                Err(SandboxError::Declined("the command does not read what was written to it before".into()))
            }
            Reply::Failed(why) => Err(SandboxError::Declined(why)),
            Reply::Written(Written::Closed) | Reply::Ended(_) | Reply::Unknown { .. } | Reply::Attached { .. } => {
                Ok(Word::Closed)
            }
        }
    }

    /// Returns what a command that has ended wrote from byte `from` on, with a note where bytes are missing; `None`: it was
    /// not spooled. `captured` is what its end told.
    pub async fn rest(&self, captured: &Captured, from: u64) -> Option<Bytes> {
        let spooled = captured.spooled.as_ref()?;
        let mut rest = Rest { at: from, end: spooled.end, bytes: BytesMut::new() };
        let tail = spooled.end.saturating_sub(captured.tail.len() as u64);
        rest.take(0, &captured.head);
        if rest.at < tail {
            self.read_files(&mut rest, &spooled.files).await;
        }
        rest.take(tail, &captured.tail);
        Some(rest.finish())
    }

    async fn read_files(&self, rest: &mut Rest, files: &[(String, u64)]) {
        let begins = files.iter().skip(1).map(|(_, begin)| *begin).chain([rest.end]);
        for ((path, begin), end) in files.iter().zip(begins) {
            let length = end.saturating_sub(*begin).min(protocol::SPOOL_FILE);
            let offset = rest.at.saturating_sub(*begin);
            if offset < length
                && let Ok(file) = self.read_file(path, offset, length - offset).await
            {
                rest.take(*begin + offset, &file.bytes);
            }
        }
    }
}

/// An output that is put together from its pieces, in their order.
struct Rest {
    /// Up to where it is there.
    at: u64,
    end: u64,
    bytes: BytesMut,
}

impl Rest {
    /// Takes the bytes that lie at `begin` in the whole, as far as they are not there yet.
    fn take(&mut self, begin: u64, bytes: &[u8]) {
        let known = self.at.saturating_sub(begin).min(bytes.len() as u64) as usize;
        let new = &bytes[known..];
        if new.is_empty() {
            return;
        }
        self.skip_to(begin);
        self.bytes.extend_from_slice(new);
        self.at = self.at.saturating_add(new.len() as u64);
    }

    fn skip_to(&mut self, begin: u64) {
        if let Some(missing) = begin.checked_sub(self.at).filter(|missing| *missing > 0) {
            self.bytes.extend_from_slice(gap_note(missing).as_bytes());
            self.at = begin;
        }
    }

    fn finish(mut self) -> Bytes {
        self.skip_to(self.end);
        self.bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_is_put_together_once_and_what_is_missing_is_said() {
        let put = |from, pieces: &[(u64, &str)]| {
            let mut rest = Rest { at: from, end: 10, bytes: BytesMut::new() };
            for (begin, bytes) in pieces {
                rest.take(*begin, bytes.as_bytes());
            }
            String::from_utf8(rest.finish().to_vec()).unwrap()
        };
        assert_eq!(put(0, &[(0, "0123"), (2, "234567"), (6, "6789")]), "0123456789");
        assert_eq!(put(3, &[(0, "0123"), (2, "234567"), (6, "6789")]), "3456789");
        assert_eq!(put(7, &[(6, "6789")]), "789");
        assert_eq!(put(10, &[(0, "0123"), (6, "6789")]), "");
        let note = |missing| gap_note(missing);
        assert_eq!(put(0, &[(6, "6789")]), format!("{}6789", note(6)));
        assert_eq!(put(1, &[(0, "0123")]), format!("123{}", note(6)));
        assert_eq!(put(12, &[(6, "6789")]), "", "beyond the end there is nothing");
    }
}
