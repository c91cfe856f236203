//! Runs a command in the room's sandbox for a call: with progress, a stop that ends its whole tree, and a result also
//! when the connection or the server was lost meanwhile.
//!
//! Knows no tool. A command is started once; afterwards it is only ever looked up by its id.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    context::{ToolContext, ToolProgress},
    error::ToolError,
    files,
    output::{self, SHOWN},
};
use crate::sandbox::{Captured, Command, Ended, Lookup, Process, Sandbox, SandboxError, Stdin, User, Word};

/// How long the result of a command that is being ended is waited for. If sandboxd does not confirm the end, the
/// container is ended instead, which takes some seconds to decide and to do.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long the writing of a file may take for an output that is too long to show.
const KEEP_LIMIT: Duration = Duration::from_secs(3);
/// How often a command is looked up again after a lost connection.
const RECOVERIES: u32 = 3;
/// How the line begins that says where a whole output is.
const WHOLE: &str = "[the whole output: ";
/// The shortest time between two lines that the room sees.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

impl ToolContext {
    /// Returns the room's sandbox, started if need be.
    pub(super) async fn sandbox(&self) -> Result<Sandbox, ToolError> {
        self.unless_stopped(self.sandboxes.ensure(&self.address)).await
    }

    /// Waits for something that a stop may abandon.
    pub(super) async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, SandboxError>>,
    ) -> Result<T, ToolError> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(ToolError::Stopped),
            result = work => Ok(result?),
        }
    }

    /// Returns a command of this call with the usual settings.
    pub(super) fn command(&self, argv: &[&str], limit: Duration) -> Command {
        Command {
            id: self.call.as_str().to_owned(),
            argv: argv.iter().map(|&word| word.to_owned()).collect(),
            env: Vec::new(),
            cwd: String::new(),
            user: User::Agent,
            stdin: Stdin::Null,
            timeout: Some(limit),
            background: false,
            writable: None,
            spooled: false,
        }
    }
}

/// Follows a command while it runs: reads what it writes, says what the room sees of it, and may give it up.
pub(super) trait Follow: Send {
    /// Returns the byte of the output up to which it has read, from which a spooled command is read on.
    fn place(&self) -> Option<u64> {
        None
    }

    /// Called when the output comes once more from its beginning, as far as it was kept.
    fn anew(&mut self) {}

    /// Takes a piece of the output, which ends at the byte `upto` of the whole output.
    fn take(&mut self, piece: &[u8], upto: u64);

    /// Stores what it has to know after a crash, if that has changed.
    fn keep(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Returns what the room sees of it now, if that is something new.
    fn show(&mut self) -> Option<String>;

    /// Waits until something other than output makes it worthwhile to look again. May be dropped and called again.
    fn wake(&mut self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Returns what is to be done with it now.
    fn wish(&mut self) -> impl Future<Output = Wish> + Send {
        std::future::ready(Wish::Nothing)
    }

    /// Takes what became of the word that it wished to be told to it.
    fn told(&mut self, _word: Word) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// What is to be done with a command that is followed.
pub(super) enum Wish {
    /// It is followed on.
    Nothing,
    /// It is ended.
    End,
    /// It is left running: what it was followed for is over.
    Leave,
    /// These bytes are written to its standard input, once for their key.
    Tell { key: String, bytes: Bytes },
}

/// Shows the newest line of the output.
#[derive(Default)]
struct Newest(Option<String>);

impl Follow for Newest {
    fn take(&mut self, piece: &[u8], _upto: u64) {
        self.0 = output::last_line(piece).or_else(|| self.0.take());
    }

    fn show(&mut self) -> Option<String> {
        self.0.take()
    }
}

/// Runs `command` to its end.
pub(super) async fn run(context: &ToolContext, sandbox: &Sandbox, command: Command) -> Result<Ended, ToolError> {
    follow(context, sandbox, command, &mut Newest::default()).await?.ok_or(ToolError::Unknown)
}

/// Runs `command` to its end, followed by `follower`; `None`: that has left it running.
pub(super) async fn follow(
    context: &ToolContext,
    sandbox: &Sandbox,
    command: Command,
    follower: &mut impl Follow,
) -> Result<Option<Ended>, ToolError> {
    let id = command.id.clone();
    let process = async { sandbox.spawn(command).await };
    follow_on(context, sandbox, &id, process, follower).await
}

/// As [`follow`], for the command `id` which runs already or is about to, once `process` is there.
pub(super) async fn follow_on(
    context: &ToolContext,
    sandbox: &Sandbox,
    id: &str,
    process: impl Future<Output = Result<Process, SandboxError>>,
    follower: &mut impl Follow,
) -> Result<Option<Ended>, ToolError> {
    let followed = {
        let work = async { watch(context, sandbox, process.await?, follower).await };
        finish(context, sandbox, id, work).await?
    };
    match followed {
        Some(followed) => Ok(followed),
        None => recover(context, sandbox, id, follower).await,
    }
}

/// Returns the result of the command `id`, if it was started before the server crashed, under `boot_id`. Nothing is
/// started.
pub(super) async fn resume(context: &ToolContext, id: &str, boot_id: &str) -> Result<(Sandbox, Ended), ToolError> {
    let (sandbox, ended) = resume_following(context, id, boot_id, &mut Newest::default()).await?;
    Ok((sandbox, ended.ok_or(ToolError::Unknown)?))
}

/// As [`resume`]; what it writes from now on, `follower` follows. `None`: that has left it running.
pub(super) async fn resume_following(
    context: &ToolContext,
    id: &str,
    boot_id: &str,
    follower: &mut impl Follow,
) -> Result<(Sandbox, Option<Ended>), ToolError> {
    match find(context, boot_id, id, follower).await? {
        (sandbox, Found::Ended(ended)) => Ok((sandbox, Some(ended))),
        (sandbox, Found::Left) => Ok((sandbox, None)),
        (_, Found::Forgotten) => Err(ToolError::Forgotten),
        (_, Found::Unknown) => Err(ToolError::NotRun),
    }
}

/// Holds a process that was found again to the longest time that any command may take: only sandboxd knows its own
/// limit.
fn held(context: &ToolContext, mut process: Process) -> Process {
    process.hold_to(context.limits.longest.max(context.limits.command).max(context.limits.coding));
    process
}

/// Follows a process to its end, or until it is left, and shows the room what it does.
async fn watch(
    context: &ToolContext,
    sandbox: &Sandbox,
    mut process: Process,
    follower: &mut impl Follow,
) -> Result<Option<Ended>, SandboxError> {
    let mut is_new = true;
    let mut next = Instant::now();
    loop {
        tokio::select! {
            biased;
            () = sleep_until(next), if is_new => {
                next = Instant::now() + PROGRESS_EVERY;
                is_new = false;
                if let Some(lines) = follower.show() {
                    // A full channel means that the room has not shown the last one yet.
                    let _ = context.progress.try_send(ToolProgress::Output(lines));
                }
            }
            () = follower.wake() => is_new = true,
            piece = process.next() => match piece {
                Some(piece) => {
                    follower.take(&piece, process.written());
                    is_new = true;
                }
                None => return process.wait().await.map(Some),
            },
        }
        follower.keep().await;
        match follower.wish().await {
            Wish::Nothing => {}
            Wish::End => sandbox.kill(process.id()).await?,
            Wish::Leave => return Ok(None),
            Wish::Tell { key, bytes } => {
                let word = match sandbox.write(process.id(), &key, bytes, false).await {
                    // It may have been taken: who finds the command again tells it once more.
                    Err(SandboxError::Disconnected) => return Err(SandboxError::Disconnected),
                    word => word.unwrap_or(Word::Closed),
                };
                follower.told(word).await;
            }
        }
    }
}

/// Waits for `work`, and ends the command on a stop. Returns `None` if the connection was lost.
async fn finish(
    context: &ToolContext,
    sandbox: &Sandbox,
    id: &str,
    work: impl Future<Output = Result<Option<Ended>, SandboxError>>,
) -> Result<Option<Option<Ended>>, ToolError> {
    let followed = tokio::select! {
        biased;
        () = context.cancel.cancelled() => return stop(context, sandbox, id).await.map(|ended| Some(Some(ended))),
        followed = work => followed,
    };
    match followed {
        Err(SandboxError::Disconnected) => Ok(None),
        followed => Ok(Some(followed?)),
    }
}

/// Writes a file by a command that has the call's id. Returns where the file is if a link led there.
pub(super) async fn write(
    context: &ToolContext,
    sandbox: &Sandbox,
    path: &str,
    content: Bytes,
) -> Result<Option<String>, ToolError> {
    let id = context.call.as_str();
    match context.unless_stopped(sandbox.write_file(id, path, content)).await {
        Err(ToolError::Stopped) => {
            stop(context, sandbox, id).await?;
            Err(ToolError::Stopped)
        }
        Err(ToolError::Sandbox(SandboxError::Disconnected)) => {
            let ended = recover(context, sandbox, id, &mut Newest::default()).await?.ok_or(ToolError::Unknown)?;
            if output::succeeded(&ended.exit) { Ok(None) } else { Err(ToolError::Unknown) }
        }
        written => files::explained(path, written),
    }
}

/// Ends the command's whole tree and returns what there was until then.
pub(super) async fn stop(context: &ToolContext, sandbox: &Sandbox, id: &str) -> Result<Ended, ToolError> {
    match end(sandbox, id).await {
        Ok(Lookup::Ended(ended)) => Ok(ended),
        Err(SandboxError::Disconnected) => {
            recover(context, sandbox, id, &mut Newest::default()).await?.ok_or(ToolError::Unknown)
        }
        _ => Err(ToolError::Stopped),
    }
}

/// Ends the command on this connection, and returns what is known of it then. After [`SandboxError::Disconnected`] it
/// may run on.
async fn end(sandbox: &Sandbox, id: &str) -> Result<Lookup, SandboxError> {
    let ended = async {
        sandbox.kill(id).await?;
        match sandbox.lookup(id).await {
            // The command's container was ended with it.
            Err(SandboxError::Disconnected) => Ok(Lookup::Unknown),
            found => found,
        }
    };
    let limit = STOP_LIMIT;
    timeout(limit, ended).await.unwrap_or(Err(SandboxError::TimedOut { limit, note: None }))
}

/// Finds the command again after the connection broke; it went on meanwhile.
async fn recover(
    context: &ToolContext,
    before: &Sandbox,
    id: &str,
    follower: &mut impl Follow,
) -> Result<Option<Ended>, ToolError> {
    match find(context, before.boot_id(), id, follower).await? {
        (_, Found::Ended(ended)) => Ok(Some(ended)),
        (_, Found::Left) => Ok(None),
        _ if context.cancel.is_cancelled() => Err(ToolError::Stopped),
        // The request may have been lost with the connection: as nobody can tell, nobody repeats it.
        _ => Err(ToolError::Unknown),
    }
}

/// What became of a command that was found again.
enum Found {
    /// It has ended.
    Ended(Ended),
    /// Whoever followed it has left it running.
    Left,
    /// It has ended too long ago.
    Forgotten,
    /// It is not known.
    Unknown,
}

impl From<Lookup> for Found {
    fn from(found: Lookup) -> Self {
        match found {
            Lookup::Ended(ended) => Self::Ended(ended),
            Lookup::Forgotten => Self::Forgotten,
            Lookup::Running(_) | Lookup::Unknown => Self::Unknown,
        }
    }
}

/// Finds a command of this boot on a new connection and follows it to its end, which a stop brings about.
async fn find(
    context: &ToolContext,
    boot_id: &str,
    id: &str,
    follower: &mut impl Follow,
) -> Result<(Sandbox, Found), ToolError> {
    for _ in 0..RECOVERIES {
        // A stop does not end this: what still runs must be found to be ended.
        let sandbox = context.sandboxes.ensure(&context.address).await?;
        if sandbox.boot_id() != boot_id {
            return Err(ToolError::Unknown);
        }
        let work = async {
            match sandbox.attach(id, follower.place()).await? {
                (Lookup::Running(process), goes_on) => {
                    if !goes_on {
                        follower.anew();
                    }
                    let followed = watch(context, &sandbox, held(context, process), follower).await?;
                    Ok(followed.map_or(Found::Left, Found::Ended))
                }
                (found, _) => Ok(found.into()),
            }
        };
        let found = tokio::select! {
            biased;
            () = context.cancel.cancelled() => end(&sandbox, id).await.map(Found::from),
            found = work => found,
        };
        match found {
            Err(SandboxError::Disconnected) => {}
            Err(_) if context.cancel.is_cancelled() => return Err(ToolError::Stopped),
            found => return Ok((sandbox, found?)),
        }
    }
    Err(ToolError::Unknown)
}

/// Returns the output as the model is shown it, with the file that holds the whole of it.
pub(super) async fn written(context: &ToolContext, sandbox: &Sandbox, id: &str, captured: &Captured) -> String {
    let shown = output::show(captured, SHOWN);
    if !shown.cut {
        return shown.text;
    }
    match whole(context, sandbox, id, captured).await {
        Some(path) => shown.text + whole_is_in(&path).as_str(),
        None => format!("{}\n[the whole output was not kept; write it to a file if you need it]", shown.text),
    }
}

/// Returns the line that names the file with a whole output.
pub(super) fn whole_is_in(path: &str) -> String {
    format!("\n{WHOLE}{path}]")
}

/// Returns the file that such a line names.
pub(crate) fn whole_output(line: &str) -> Option<&str> {
    line.strip_prefix(WHOLE)?.strip_suffix(']')
}

/// Returns the file in the sandbox that holds the whole output, made if need be.
pub(super) async fn whole(context: &ToolContext, sandbox: &Sandbox, id: &str, captured: &Captured) -> Option<String> {
    if let Some(spooled) = &captured.spooled {
        let files: Vec<_> = spooled.files.iter().map(|(path, _)| path.as_str()).collect();
        return (!files.is_empty()).then(|| files.join(" then "));
    }
    match &captured.log {
        Some(log) => Some(log.clone()),
        None if captured.omitted == 0 && !context.cancel.is_cancelled() => keep(sandbox, id, captured).await,
        None => None,
    }
}

/// Writes to a file an output that is too long to show, but too short for the sandbox to have made a file of it.
async fn keep(sandbox: &Sandbox, id: &str, captured: &Captured) -> Option<String> {
    let path = format!("{}/.cache/matrix-agent/{id}.txt", files::HOME);
    let whole = [&captured.head[..], &captured.tail[..]].concat();
    let id = format!("{id}-output");
    let write = sandbox.write_file(&id, &path, whole.into());
    match timeout(KEEP_LIMIT, write).await {
        Ok(Ok(_)) => Some(path),
        _ => None,
    }
}
