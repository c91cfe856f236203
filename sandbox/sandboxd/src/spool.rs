//! The output of a command whose server may go and come back: its last bytes, in two files that the agent can read, and
//! each byte's place in the whole.
//!
//! When the newer file is full it becomes the older, and what that held is gone. The oldest goes, not the newest, since an
//! agent's stream tells at its end what it came to, and since nothing may wait for a server that is away. Called by the
//! warden of such a command.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use sandboxd::protocol::SpoolFile;

use crate::{account::Account, capture, sys};

/// A spool.
pub(crate) struct Spool {
    /// Where the newer file is, and the older.
    paths: [PathBuf; 2],
    owner: (u32, u32),
    /// The most bytes of a file.
    size: u64,
    older: Option<Part>,
    newer: Option<Part>,
    /// How many bytes have come.
    end: u64,
    /// Whether the disk takes no more.
    broken: bool,
}

struct Part {
    file: fs::File,
    /// The place of its first byte.
    begin: u64,
    length: u64,
}

impl Spool {
    /// Returns a spool of two files of `size` bytes, named after a command.
    pub(crate) fn new(id: &str, account: &Account, size: u64) -> Self {
        let newer = capture::log_path(id, account);
        let paths = [newer.clone(), newer.with_extension("older.log")];
        let owner = (account.uid, account.gid);
        Self { paths, owner, size, older: None, newer: None, end: 0, broken: false }
    }

    /// Returns how many bytes came.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Returns the place of the oldest byte that is kept.
    pub(crate) fn begin(&self) -> u64 {
        self.parts().next().map_or(self.end, |part| part.begin)
    }

    /// Takes output.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if !self.broken {
            // Once the disk takes no more, output is counted and not kept.
            self.broken = self.write(bytes).is_err();
        }
        self.end += bytes.len() as u64;
    }

    /// Reads bytes from a place on, at most as many as `buffer` takes; an error if it does not hold them.
    pub(crate) fn read(&self, place: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let holds = |part: &&Part| (part.begin..part.begin + part.length).contains(&place);
        let part = self.parts().find(holds).ok_or(io::ErrorKind::NotFound)?;
        let within = place - part.begin;
        let length = buffer.len().min((part.length - within) as usize);
        // The agent may have cut it short meanwhile.
        part.file.read_exact_at(&mut buffer[..length], within)?;
        Ok(length)
    }

    /// Returns the files, the oldest first.
    pub(crate) fn files(&self) -> Vec<SpoolFile> {
        let file = |part: &Option<Part>, path: &Path| {
            let begin = part.as_ref()?.begin;
            Some(SpoolFile { path: path.to_string_lossy().into_owned(), begin })
        };
        [file(&self.older, &self.paths[1]), file(&self.newer, &self.paths[0])].into_iter().flatten().collect()
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        self.older.iter().chain(&self.newer)
    }

    fn write(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let mut begin = self.end;
        while !bytes.is_empty() {
            if self.newer.as_ref().is_none_or(|part| part.length == self.size) {
                self.begin_file(begin)?;
            }
            let Some(part) = &mut self.newer else { return Err(io::ErrorKind::NotFound.into()) };
            let (piece, rest) = bytes.split_at(bytes.len().min((self.size - part.length) as usize));
            part.file.write_all_at(piece, part.length)?;
            part.length += piece.len() as u64;
            begin += piece.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    fn begin_file(&mut self, begin: u64) -> io::Result<()> {
        // The file is made with the agent's rights, since the agent may have put links in the way.
        let file = sys::with_rights_of(self.owner.0, self.owner.1, || {
            let made = match &self.newer {
                Some(_) => fs::rename(&self.paths[0], &self.paths[1]),
                None => Ok(()),
            };
            // A file that the agent has removed is read on through its descriptor.
            made.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
            capture::create(&self.paths[0])
        });
        self.older = self.newer.take();
        self.newer = Some(Part { file: file?, begin, length: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use super::*;

    /// A spool in a directory of its own.
    fn spool(name: &str, size: u64) -> (PathBuf, Spool) {
        let home = env::temp_dir().join(format!("sandboxd-spool-{name}-{}", std::process::id()));
        let id = sys::ids();
        let account = Account {
            uid: id.0,
            gid: id.1,
            groups: Vec::new(),
            home: home.to_string_lossy().into_owned(),
            shell: String::new(),
        };
        (home, Spool::new("a/b", &account, size))
    }

    /// Bytes that tell their place.
    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|place| (place % 251) as u8).collect()
    }

    fn read(spool: &Spool, from: u64, buffer: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; buffer]);
        while from + (all.len() as u64) < spool.end() {
            let count = spool.read(from + all.len() as u64, &mut buffer).unwrap();
            all.extend_from_slice(&buffer[..count]);
        }
        all
    }

    /// Whatever the sizes of pieces, from wherever it is read, and however often it has wrapped: each kept byte is the one
    /// of its place, between one and two files' worth is kept, and the files say the same.
    #[test]
    fn every_byte_that_is_kept_is_the_one_of_its_place() {
        const SIZE: u64 = 100;
        let all = bytes(1000);
        for piece in [1, 7, 99, 100, 101, 250, 1000] {
            let (home, mut spool) = spool(&format!("places-{piece}"), SIZE);
            assert_eq!((spool.begin(), spool.end(), spool.files().len()), (0, 0, 0));
            for part in all.chunks(piece) {
                spool.push(part);
                let (begin, end) = (spool.begin() as usize, spool.end() as usize);
                assert!(
                    end - begin <= 2 * SIZE as usize && (begin == 0 || end - begin > SIZE as usize),
                    "{begin} {end}"
                );
                for from in [begin, usize::midpoint(begin, end), end - 1] {
                    assert_eq!(read(&spool, from as u64, 33), all[from..end], "by {piece} from {from} to {end}");
                }
                assert!(begin == 0 || spool.read(begin as u64 - 1, &mut [0]).is_err());
                assert!(spool.read(end as u64, &mut [0]).is_err());
            }
            let files = spool.files();
            let kept: Vec<u8> = files.iter().flat_map(|file| fs::read(&file.path).unwrap()).collect();
            assert_eq!(kept, all[spool.begin() as usize..]);
            assert_eq!(files[0].begin, spool.begin());
            assert!(files[0].path.ends_with("/a_b.older.log") && files[1].path.ends_with("/a_b.log"), "{files:?}");
            fs::remove_dir_all(home).unwrap();
        }
    }

    #[test]
    fn files_that_the_agent_removes_or_cuts_are_an_error_and_what_comes_is_still_counted() {
        let (home, mut spool) = spool("cut", 100);
        spool.push(&bytes(150));
        let files = spool.files();
        fs::remove_file(&files[1].path).unwrap();
        assert_eq!(read(&spool, 0, 64), bytes(150), "they are open");
        fs::write(&files[0].path, b"x").unwrap();
        assert!(spool.read(0, &mut [0; 8]).is_err());
        spool.push(&bytes(100));
        assert_eq!((spool.begin(), spool.end()), (100, 250));

        // A directory that cannot be made: nothing is kept, all is counted.
        let account = Account {
            uid: sys::ids().0,
            gid: sys::ids().1,
            groups: Vec::new(),
            home: "/dev/null".to_owned(),
            shell: String::new(),
        };
        let mut nowhere = Spool::new("a", &account, 100);
        nowhere.push(b"lost");
        assert_eq!((nowhere.begin(), nowhere.end(), nowhere.files()), (4, 4, Vec::new()));
        fs::remove_dir_all(home).unwrap();
    }
}
