//! Makes an environment: in a workshop, from a clone of the repository's default branch and from nothing else.
//!
//! No file of a room gets in, so that no room can put its own script before the secrets, nor its own files into an
//! environment that others get. Secrets are in the environment of the script and of what it starts; sandboxd ends all of
//! these with the script, before anything is packed.

use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use tokio::task::spawn_blocking;

use super::{
    EnvironmentError,
    kept::{Archive, Kept, Part, Record},
    place::{self, Place},
    secrets::{Search, Secret},
};
use crate::{
    clock::Clock,
    sandbox::{Command, Ended, Exit, Sandbox, User},
    text,
};

const PACK: &str = include_str!("pack.sh");
const PACK_SYSTEM: &str = include_str!("pack_system.sh");
/// The script for root, and the file by which is told what was changed since it began. File times stand still for some
/// milliseconds.
const SYSTEM: &str = ".matrix-agent/system.sh";
const BEGUN: &str = "/root/.setup-begun";
const BEGIN: &str = r#": > "$1" && sleep 0.1 && exec bash "$2""#;
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
    /// Clones the repository and runs its scripts; returns how long these took.
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
        let begun = Instant::now();
        if self.place.system {
            let argv = ["sh", "-c", BEGIN, "begin", BEGUN, SYSTEM];
            let command = Command { user: User::Root, ..place::command("system", &argv, self.limit) };
            self.run(SYSTEM, command).await?;
        }
        self.run(script, place::command("setup", &["bash", script], self.limit)).await?;
        Ok(begun.elapsed())
    }

    /// Runs a script to its end, and sees that nothing of it runs on.
    async fn run(&self, script: &str, mut command: Command) -> Result<(), EnvironmentError> {
        command.cwd = format!("/workspace/{}", self.place.folder);
        command.env.extend(self.secrets.iter().map(|it| (it.name.clone(), it.value.expose_secret().to_owned())));
        let failed = |how, lines| Err(EnvironmentError::Failed { script: script.to_owned(), how, lines });
        let ended = self.sandbox.spawn(command).await?.wait().await?;
        if ended.exit != Exit::Code(0) {
            return failed(how(&ended.exit, self.limit), self.last_lines(&ended));
        }
        if !self.sandbox.running().await?.is_empty() {
            return failed("left something running".to_owned(), Vec::new());
        }
        Ok(())
    }

    /// Packs what they have left, and keeps it.
    pub(super) async fn keep(
        &self,
        kept: &Kept,
        key: &str,
        took: Duration,
        clock: &Clock,
    ) -> Result<Record, EnvironmentError> {
        let Place { folder, script, system, .. } = self.place;
        let pack = ["sh", "-c", PACK, "pack", folder];
        let mut parts = vec![self.pack(&pack, kept.begin(key, Archive::Agent)?, kept.bound()).await?];
        if *system {
            let left = kept.bound() - parts[0].0;
            let pack = ["sh", "-c", PACK_SYSTEM, "pack", BEGUN];
            parts.push(self.pack(&pack, kept.begin(key, Archive::System)?, left).await?);
        }
        let bytes = parts.iter().map(|(bytes, _)| bytes).sum();
        let parts: Vec<_> = parts.into_iter().map(|(_, part)| part).collect();
        let (repository, script) = (self.place.repository(), script.clone());
        let record = Record { repository, script, bytes, system: *system, seconds: took.as_secs() };
        kept.keep(key, &parts, &record, clock.file_date())?;
        Ok(record)
    }

    /// Writes an archive of at most `bound` bytes and looks for secrets in it; returns its size.
    async fn pack(&self, argv: &[&str], mut part: Part, bound: u64) -> Result<(u64, Part), EnvironmentError> {
        let command = Command { user: User::Root, ..place::command("pack", argv, PACK_LIMIT) };
        let mut process = self.sandbox.spawn(command).await?;
        let mut search = Search::new(self.secrets);
        let mut bytes = 0;
        while let Some(piece) = process.next().await {
            bytes += piece.len() as u64;
            if bytes > bound {
                return Err(EnvironmentError::TooLarge(bound));
            }
            let (found, written);
            (found, written, part, search) = spawn_blocking(move || {
                let found = search.find(&piece).map(str::to_owned);
                let written = part.write(&piece);
                (found, written, part, search)
            })
            .await
            .map_err(std::io::Error::other)?;
            written?;
            if let Some(name) = found {
                return Err(EnvironmentError::HoldsSecret(name));
            }
        }
        match process.wait().await?.exit {
            Exit::Code(0) => Ok((bytes, part)),
            exit => Err(EnvironmentError::NotPacked(how(&exit, PACK_LIMIT))),
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
