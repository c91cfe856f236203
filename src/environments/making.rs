//! Makes an environment: in a workshop, from a clone of the repository's default branch and from nothing else.
//!
//! No file of a room gets in, so that no room can put its own script before the secrets, nor its own files into an
//! environment that others get. Secrets are in the environment of the script and of what it starts; sandboxd ends all of
//! these with the script, before anything is packed.

use std::{
    fs,
    io::Write,
    time::{Duration, Instant},
};

use secrecy::ExposeSecret;
use tokio::task::spawn_blocking;

use super::{
    EnvironmentError,
    kept::{Kept, Record},
    place::{self, Place},
    secrets::{Search, Secret},
};
use crate::{
    clock::Clock,
    sandbox::{Ended, Exit, Sandbox, User},
    text,
};

const PACK: &str = include_str!("pack.sh");
/// How long cloning, and packing, may take.
const CLONE_LIMIT: Duration = Duration::from_mins(10);
const PACK_LIMIT: Duration = Duration::from_mins(10);
/// How many of a script's last lines are shown, and how many characters of each.
const LINES: usize = 12;
const LINE: usize = 200;

/// What a setup works with.
pub(super) struct Making<'a> {
    /// The workshop's sandbox.
    pub(super) sandbox: &'a Sandbox,
    /// What the room's sandbox has told.
    pub(super) place: &'a Place,
    /// What the script is given.
    pub(super) secrets: &'a [Secret],
    /// How long the script may take.
    pub(super) limit: Duration,
}

impl Making<'_> {
    /// Clones the repository and runs its script; returns how long that took.
    pub(super) async fn set_up(&self) -> Result<Duration, EnvironmentError> {
        let Place { folder, script, url, .. } = self.place;
        let at = format!("/workspace/{folder}");
        let clone = place::command("clone", &["git", "clone", "--quiet", "--", url, &at], CLONE_LIMIT);
        let ended = self.sandbox.spawn(clone).await?.wait().await?;
        if ended.exit != Exit::Code(0) {
            return Err(EnvironmentError::NotCloned(self.last_lines(&ended)));
        }
        if !place::look(self.sandbox, Some(folder)).await?.contains(self.place) {
            return Err(EnvironmentError::OtherState);
        }
        let mut command = place::command("setup", &["bash", script], self.limit);
        command.cwd = at;
        let given = self.secrets.iter().map(|it| (it.name.clone(), it.value.expose_secret().to_owned()));
        command.env.extend(given);
        let begun = Instant::now();
        let ended = self.sandbox.spawn(command).await?.wait().await?;
        if ended.exit != Exit::Code(0) {
            return Err(EnvironmentError::Failed { how: how(&ended.exit, self.limit), lines: self.last_lines(&ended) });
        }
        if !self.sandbox.running().await?.is_empty() {
            return Err(EnvironmentError::Failed { how: "left something running".to_owned(), lines: Vec::new() });
        }
        Ok(begun.elapsed())
    }

    /// Packs what it has left, and keeps it.
    pub(super) async fn keep(
        &self,
        kept: &Kept,
        key: &str,
        took: Duration,
        clock: &Clock,
    ) -> Result<Record, EnvironmentError> {
        let (part, file) = kept.begin(key)?;
        let (bytes, file) = self.pack(file, kept).await?;
        let Place { script, .. } = self.place;
        let record =
            Record { repository: self.place.repository(), script: script.clone(), bytes, seconds: took.as_secs() };
        kept.keep(&part, &file, &record, clock.file_date())?;
        Ok(record)
    }

    /// Writes the archive and looks for secrets in it; returns its size.
    async fn pack(&self, mut file: fs::File, kept: &Kept) -> Result<(u64, fs::File), EnvironmentError> {
        let mut command = place::command("pack", &["sh", "-c", PACK, "pack", &self.place.folder], PACK_LIMIT);
        command.user = User::Root;
        let mut process = self.sandbox.spawn(command).await?;
        let mut search = Search::new(self.secrets);
        let mut bytes = 0;
        while let Some(piece) = process.next().await {
            bytes += piece.len() as u64;
            if bytes > kept.bound() {
                return Err(EnvironmentError::TooLarge(kept.bound()));
            }
            let (found, back);
            (found, file, search, back) = spawn_blocking(move || {
                let found = search.find(&piece).map(str::to_owned);
                let written = file.write_all(&piece);
                (found, file, search, written)
            })
            .await
            .map_err(std::io::Error::other)?;
            back?;
            if let Some(name) = found {
                return Err(EnvironmentError::HoldsSecret(name));
            }
        }
        match process.wait().await?.exit {
            Exit::Code(0) => Ok((bytes, file)),
            exit => Err(EnvironmentError::Failed { how: format!("could not be packed ({exit:?})"), lines: Vec::new() }),
        }
    }

    /// Returns the last lines of an output; none if a secret stands in it.
    fn last_lines(&self, ended: &Ended) -> Vec<String> {
        let (head, tail) = (&ended.output.head, &ended.output.tail);
        let mut search = Search::new(self.secrets);
        if search.find(head).is_some() || search.find(tail).is_some() {
            return vec!["(its output holds a secret and is not shown)".to_owned()];
        }
        let shown = text::strip([&head[..], &tail[..]].concat());
        let lines: Vec<_> = shown.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LINES)..].iter().map(|line| text::one_line(line, LINE)).collect()
    }
}

/// Says how a script has ended that did not end well.
fn how(exit: &Exit, limit: Duration) -> String {
    match exit {
        Exit::Code(code) => format!("ended with exit code {code}"),
        Exit::TimedOut => format!("did not end within {} s and was ended", limit.as_secs()),
        Exit::OutOfMemory => "was ended: it had used up its memory".to_owned(),
        Exit::DiskFull => "was ended: it had used up its disk".to_owned(),
        Exit::NotStarted(why) => format!("could not be started ({})", text::one_line(why, LINE)),
        Exit::Killed | Exit::Signal(_) => "was ended from outside".to_owned(),
    }
}
